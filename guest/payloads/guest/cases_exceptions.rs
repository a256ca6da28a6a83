// SPDX-License-Identifier: MIT
//! Cases about exceptions: each provokes one and looks at what the handler saw.

use crate::{Case, Outcome, expect};
use guest_rt::fault;
use guest_rt::trap::{self, Caught};

pub(crate) const CASES: &[Case] = &[
    ("exception-none", none),
    ("exception-divide", divide),
    ("exception-breakpoint", breakpoint),
    ("exception-invalid-opcode", invalid_opcode),
    ("exception-general-protection", general_protection),
    ("exception-page-fault-read", page_fault_read),
    ("exception-page-fault-write", page_fault_write),
];

fn none() -> Outcome {
    extern "C" fn nothing() {}
    expect(trap::catch(nothing).is_none(), "caught", 1_u8)
}

fn expect_caught(caught: Option<Caught>, expected: Caught) -> Outcome {
    let Some(caught) = caught else {
        return expect(false, "vector, none was taken; expected", expected.vector);
    };
    expect(caught.vector == expected.vector, "vector", caught.vector)?;
    expect(caught.error == expected.error, "error code", caught.error)?;
    let is_page_fault = caught.vector == 14;
    expect(!is_page_fault || caught.cr2 == expected.cr2, "cr2", caught.cr2)
}

fn plain(vector: u8) -> Caught {
    Caught {
        vector,
        error: 0,
        cr2: 0,
    }
}

fn divide() -> Outcome {
    expect_caught(trap::catch(fault::divide_by_zero), plain(0))
}

fn breakpoint() -> Outcome {
    expect_caught(trap::catch(fault::breakpoint), plain(3))
}

fn invalid_opcode() -> Outcome {
    expect_caught(trap::catch(fault::invalid_opcode), plain(6))
}

fn general_protection() -> Outcome {
    expect_caught(trap::catch(fault::non_canonical_read), plain(13))
}

fn page_fault_read() -> Outcome {
    let expected = Caught {
        vector: 14,
        error: 0,
        cr2: fault::UNMAPPED,
    };
    expect_caught(trap::catch(fault::unmapped_read), expected)
}

fn page_fault_write() -> Outcome {
    let expected = Caught {
        vector: 14,
        error: 2,
        cr2: fault::UNMAPPED,
    };
    expect_caught(trap::catch(fault::unmapped_write), expected)
}
