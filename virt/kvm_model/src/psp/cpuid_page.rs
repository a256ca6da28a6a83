// SPDX-License-Identifier: MIT
//! What the firmware makes of a CPUID page: it compares, and corrects what it refuses (`spec/sev.md` 2.8).
//!
//! Always true: a page that is refused holds a table afterwards that is accepted, unless its header or a
//! reserved field was the reason. Not here: which value is right ([`crate::cpuid_table`]).

use crate::cpuid_table::{Check, hardware, rule, xsave_size};
use crate::firmware::{le, le32, put, status};
use crate::physical::PAGE;

const HEADER: usize = 16;
const ENTRY: usize = 48;
const MOST: u32 = 64;
/// EAX in an entry; EBX, ECX and EDX follow.
const RESULTS: usize = 24;

/// Accepts the table, or replaces what is wrong in it and refuses.
pub(super) fn check(page: &mut [u8; PAGE]) -> Result<(), u32> {
    let count = le32(page, 0);
    if count > MOST || page[4..HEADER].iter().any(|byte| *byte != 0) {
        return Err(status::INVALID_PARAM);
    }
    let mut wrong = false;
    for entry in page[HEADER..].chunks_exact_mut(ENTRY).take(count as usize) {
        wrong |= correct(entry);
    }
    if wrong { Err(status::INVALID_PARAM) } else { Ok(()) }
}

/// Corrects one entry; whether anything was wrong.
fn correct(entry: &mut [u8]) -> bool {
    let (leaf, index) = (le32(entry, 0), le32(entry, 4));
    let mut wrong = entry[40..].iter().any(|byte| *byte != 0);
    entry[40..].fill(0);
    let rules = rule(leaf, index);
    for register in 0..4 {
        let at = RESULTS + 4 * register;
        let value = le32(entry, at);
        let right =
            hardware(leaf, index).map_or(0, |own| accepted(rules[register], value, own[register], entry));
        put::<4>(entry, at, right.into());
        wrong |= value != right;
    }
    wrong
}

fn accepted(check: Check, value: u32, own: u32, entry: &[u8]) -> u32 {
    match check {
        Check::Free => value,
        Check::Subset(more) => value & (own | more),
        Check::Same(bits) => value & !bits | own & bits,
        Check::AtMost => value.min(own),
        Check::XsaveSize => {
            let features = le::<8>(entry, 8) | le::<8>(entry, 16);
            xsave_size(features, le32(entry, 4) == 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(entries: &[(u32, u32, u64, [u32; 4])]) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        put::<4>(&mut page, 0, entries.len() as u64);
        for (entry, (leaf, index, xcr0, registers)) in page[HEADER..].chunks_exact_mut(ENTRY).zip(entries) {
            put::<4>(entry, 0, u64::from(*leaf));
            put::<4>(entry, 4, u64::from(*index));
            put::<8>(entry, 8, *xcr0);
            for (n, value) in registers.iter().enumerate() {
                put::<4>(entry, RESULTS + 4 * n, u64::from(*value));
            }
        }
        page
    }

    #[test]
    fn the_processors_own_values_are_accepted_and_refused_pages_are_accepted_once_corrected() {
        let good = hardware(1, 0).unwrap();
        assert_eq!(
            check(&mut page(&[(1, 0, 0, good), (0xD, 0, 1, [7, 0x240, 0x988, 0])])),
            Ok(())
        );
        let mut bad = page(&[
            (1, 0, 0, [good[0], good[1], good[2] | 1 << 24, good[3]]),
            (7, 0, 0, [0, 0, 0, u32::MAX]),
            (0xD, 0, 7, [7, 0x240, 0x988, 0]),
            (0x8000_0026, 0, 0, [1, 2, 3, 4]),
            (0x8000_001F, 0, 0, [0x1A, 47, 0, 0]),
        ]);
        assert_eq!(check(&mut bad), Err(status::INVALID_PARAM));
        let register = |entry: usize, n: usize| le32(&bad, HEADER + ENTRY * entry + RESULTS + 4 * n);
        assert_eq!(register(0, 2), good[2]);
        assert_eq!(register(1, 3), 0x10);
        assert_eq!(register(2, 1), 0x340, "x87, SSE and AVX");
        assert_eq!((register(3, 0), register(3, 3)), (0, 0));
        assert_eq!(register(4, 1), 51);
        assert_eq!(check(&mut bad), Ok(()));
    }

    #[test]
    fn too_many_entries_and_reserved_fields_are_refused() {
        let mut many = page(&[]);
        put::<4>(&mut many, 0, 65);
        assert_eq!(check(&mut many), Err(status::INVALID_PARAM));
        let mut reserved = page(&[]);
        reserved[8] = 1;
        assert_eq!(check(&mut reserved), Err(status::INVALID_PARAM));
        let mut entry = page(&[(1, 0, 0, [0; 4])]);
        entry[HEADER + 40] = 1;
        assert_eq!(check(&mut entry), Err(status::INVALID_PARAM));
        assert_eq!(check(&mut entry), Ok(()));
    }
}
