// SPDX-License-Identifier: MIT
//! Cases about memory.

use crate::{Case, Outcome, expect};
use core::sync::atomic::{AtomicU64, Ordering};
use guest_rt::memory;
use guest_rt::protocol::flat::{FREE_END, FREE_GPA};

pub(crate) const CASES: &[Case] = &[
    ("memory-starts-zero", starts_zero),
    ("memory-keeps-what-is-written", keeps),
    ("memory-unaligned", unaligned),
    ("memory-atomic", atomic),
    ("memory-unclaimed-mmio-reads-ones", unclaimed),
];

/// An address below 4 GiB that no machine here puts anything at.
const UNCLAIMED: u64 = 0xFD00_0000;
const STEP: usize = 0x1_0000;

/// Runs before the others write there.
fn starts_zero() -> Outcome {
    for gpa in (FREE_GPA..FREE_END).step_by(STEP) {
        let value = memory::read_u64(gpa);
        expect(value == 0, "first word of 64 KiB", value)?;
    }
    Ok(())
}

fn keeps() -> Outcome {
    let value = |gpa: u64| gpa.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for gpa in (FREE_GPA..FREE_END).step_by(STEP) {
        memory::write_u64(gpa, value(gpa));
    }
    for gpa in (FREE_GPA..FREE_END).step_by(STEP) {
        let read = memory::read_u64(gpa);
        expect(read == value(gpa), "word", read)?;
    }
    Ok(())
}

/// Across a page.
fn unaligned() -> Outcome {
    let gpa = FREE_GPA + 0x1FFD;
    memory::write(gpa, &0x0123_4567_89AB_CDEF_u64.to_le_bytes());
    let low = memory::read_u8(gpa + 2);
    let high = memory::read_u8(gpa + 3);
    expect(low == 0xAB, "byte before the page's end", low)?;
    expect(high == 0x89, "byte after the page's end", high)
}

fn atomic() -> Outcome {
    static WORD: AtomicU64 = AtomicU64::new(5);
    let before = WORD.fetch_add(7, Ordering::SeqCst);
    expect(before == 5, "value before xadd", before)?;
    let swapped = WORD.compare_exchange(12, 40, Ordering::SeqCst, Ordering::SeqCst);
    expect(
        swapped == Ok(12),
        "value before cmpxchg",
        WORD.load(Ordering::SeqCst),
    )?;
    let failed = WORD.compare_exchange(12, 1, Ordering::SeqCst, Ordering::SeqCst);
    expect(
        failed == Err(40),
        "value after cmpxchg",
        WORD.load(Ordering::SeqCst),
    )?;
    // Leaves the static as it was: a reset may start the same image again.
    expect(
        WORD.swap(5, Ordering::SeqCst) == 40,
        "value before xchg",
        WORD.load(Ordering::SeqCst),
    )
}

fn unclaimed() -> Outcome {
    memory::write_u32(UNCLAIMED, 0);
    let value = memory::read_u32(UNCLAIMED);
    expect(value == u32::MAX, "double word", value)?;
    let value = memory::read_u64(UNCLAIMED);
    expect(value == u64::MAX, "quad word", value)
}
