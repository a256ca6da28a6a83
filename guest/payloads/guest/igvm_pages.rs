// SPDX-License-Identifier: MIT
//! Pages of every kind, the 2 MiB page, the error range.

use guest_rt::memory;
use guest_rt::protocol::igvm_probe as contract;
use guest_rt::report::{check, info};

pub(crate) fn check_pages(base: u64) {
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
    let contract::Area { offset, len } = contract::ERROR_RANGE;
    let zero = (0..len)
        .step_by(8)
        .all(|at| memory::read_u64(base + offset + at) == 0);
    // The probe leaves a mark there, which a reset keeps: not zero after one.
    let text = if zero { "zero" } else { "kept from before a reset" };
    info("error-range", format_args!("{text}"));
    let mark = memory::read_u64(base + offset);
    check(
        "error-range",
        zero || mark == contract::pattern(offset),
        format_args!("{mark:#x}"),
    );
    memory::write_u64(base + offset, contract::pattern(offset));
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
