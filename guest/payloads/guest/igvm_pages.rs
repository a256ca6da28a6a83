// SPDX-License-Identifier: MIT
//! Pages of every kind, the 2 MiB page, the error range.

use guest_rt::memory;
use guest_rt::protocol::igvm_probe as contract;
use guest_rt::report::check;

pub(crate) fn check_pages(base: u64, second_boot: bool) {
    for page in contract::PAGES {
        let wrong = first_wrong(base, page.offset, 0x1000, page.pattern, 8);
        result(page.name, wrong);
    }
    // Every cache line of the large page, and all of its first and last page.
    let contract::Area { offset, len } = contract::LARGE_PAGE;
    let wrong = first_wrong(base, offset, len, len, 64)
        .or_else(|| first_wrong(base, offset, 0x1000, 0x1000, 8))
        .or_else(|| first_wrong(base, offset + len - 0x1000, 0x1000, 0x1000, 8));
    result("large", wrong);
    check_error_range(base, second_boot);
}

/// Zero at first; a mark that the probe leaves there is kept through a reset.
fn check_error_range(base: u64, second_boot: bool) {
    let contract::Area { offset, len } = contract::ERROR_RANGE;
    let mark = contract::pattern(offset);
    let first = memory::read_u64(base + offset);
    let rest_zero = (8..len)
        .step_by(8)
        .all(|at| memory::read_u64(base + offset + at) == 0);
    let expected = if second_boot { mark } else { 0 };
    let text = if second_boot {
        "kept through the reset"
    } else {
        "zero"
    };
    let right = first == expected && rest_zero;
    check("error-range", right, format_args!("{first:#x}, should be {text}"));
    memory::write_u64(base + offset, mark);
}

/// Offset of the first 8 bytes that are not as they should be: pattern, then zeros.
fn first_wrong(base: u64, offset: u64, len: u64, pattern: u64, step: usize) -> Option<u64> {
    (0..len).step_by(step).find(|&at| {
        let expected = if at < pattern {
            contract::pattern(offset + at)
        } else {
            0
        };
        memory::read_u64(base + offset + at) != expected
    })
}

fn result(name: &str, wrong: Option<u64>) {
    match wrong {
        None => check("page", true, format_args!("{name}")),
        Some(at) => check("page", false, format_args!("{name} is wrong at byte {at:#x}")),
    }
}
