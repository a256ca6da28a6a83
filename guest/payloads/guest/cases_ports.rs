// SPDX-License-Identifier: MIT
//! Cases about ports.

use crate::{Case, Outcome, expect};
use guest_rt::protocol::ports::COM1;
use guest_rt::{cmos, port};

pub(crate) const CASES: &[Case] = &[
    ("ports-unclaimed-read-ones", unclaimed),
    ("ports-com1-scratch", scratch),
    ("ports-com1-widths", widths),
    ("ports-cmos-memory", cmos_memory),
];

/// A port that no machine here has.
const UNCLAIMED: u16 = 0x0550;
const SCRATCH: u16 = COM1 + 7;
/// A CMOS byte that nobody uses.
const CMOS_FREE: u8 = 0x51;

fn unclaimed() -> Outcome {
    port::write_u8(UNCLAIMED, 0);
    expect(port::read_u8(UNCLAIMED) == 0xFF, "byte", port::read_u8(UNCLAIMED))?;
    expect(
        port::read_u16(UNCLAIMED) == 0xFFFF,
        "word",
        port::read_u16(UNCLAIMED),
    )?;
    expect(
        port::read_u32(UNCLAIMED) == u32::MAX,
        "double word",
        port::read_u32(UNCLAIMED),
    )
}

fn scratch() -> Outcome {
    for value in [0x00, 0x5A, 0xA5, 0xFF] {
        port::write_u8(SCRATCH, value);
        let read = port::read_u8(SCRATCH);
        expect(read == value, "scratch register", read)?;
    }
    Ok(())
}

/// A wide access to an 8-bit device is split into bytes: the scratch register is the upper one.
fn widths() -> Outcome {
    port::write_u8(SCRATCH, 0x3C);
    let both = port::read_u16(SCRATCH - 1);
    expect(both >> 8 == 0x3C, "modem status and scratch", both)
}

fn cmos_memory() -> Outcome {
    for value in [0xC3, 0x3C] {
        cmos::write(CMOS_FREE, value);
        let read = cmos::read(CMOS_FREE);
        expect(read == value, "cmos byte", read)?;
    }
    Ok(())
}
