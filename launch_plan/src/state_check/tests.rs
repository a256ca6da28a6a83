// SPDX-License-Identifier: MIT
//! One contradiction per test row.

use super::*;

fn long_mode() -> X86State {
    let mut state = X86State::reset();
    state.cr0 = 0x8000_0023;
    state.cr4 = 0x660;
    state.efer = 0xD00;
    let flat = |attributes| SegmentRegister {
        selector: 8,
        attributes: SegmentAttributes(attributes),
        limit: 0xFFFF_FFFF,
        base: 0,
    };
    state.cs = flat(0xA09B);
    state.ds = flat(0xC093);
    state.rip = 0xFFFF_8000_0010_0000;
    state
}

#[test]
fn reset_and_the_uefi_state_are_possible() {
    assert_eq!(check_state(&X86State::reset()), Ok(()));
    assert_eq!(check_state(&long_mode()), Ok(()));
}

#[test]
fn every_contradiction_is_named() {
    type Change = fn(&mut X86State);
    let rows: [(Change, &str); 23] = [
        (|s| s.cr0 |= 1 << 32, "bits above 31"),
        (|s| s.cr0 &= !1, "PG needs PE"),
        (|s| s.cr0 |= cr0::NW, "NW needs CD"),
        (|s| s.cr4 |= 1 << 15, "cr4 0x8660 has reserved"),
        (|s| s.cr3 = 1 << 52, "bits above 51"),
        (|s| s.efer |= 2, "efer 0xd02 has reserved"),
        (|s| s.efer &= !efer::LMA, "LMA must be set exactly when"),
        (|s| s.cr4 &= !cr4::PAE, "needs cr4.PAE"),
        (
            |s| (s.cr0, s.efer, s.cr4) = (1, 0, cr4::PCIDE),
            "PCIDE needs EFER.LMA",
        ),
        (|s| s.cs.attributes.0 |= SegmentAttributes::DB, "both L and D"),
        (|s| (s.cr0, s.efer) = (1, 0), "64-bit but long mode is not active"),
        (|s| s.cs.attributes.0 = 0, "not a present code segment"),
        (|s| s.cs.attributes.0 = 0xA093, "not a present code segment"),
        (
            |s| s.ds.limit = 0x10_0000,
            "ds attributes 0xc093 and limit 0x100000",
        ),
        (|s| s.ds.attributes.0 = 0x93, "disagree about granularity"),
        (|s| s.tr.attributes.0 = 0x89, "busy task segment"),
        (
            |s| s.gdtr.base = 1 << 47,
            "gdtr base 0x800000000000 is not a canonical",
        ),
        (
            |s| s.cs.attributes.0 &= !SegmentAttributes::L,
            "does not fit 32 bits",
        ),
        (|s| s.rflags |= 1 << 3, "rflags 0xa has reserved"),
        (|s| s.rflags |= rflags::VM, "virtual-8086"),
        (|s| s.pat = 2, "pat 0x2 has a memory type"),
        (|s| s.mtrr.def_type = 0x1000, "mtrr_def_type 0x1000"),
        (|s| s.mtrr.variable[3] = (2, 0x800), "a variable mtrr 0x2"),
    ];
    for (change, text) in rows {
        let mut state = long_mode();
        change(&mut state);
        let error = check_state(&state).unwrap_err().to_string();
        assert!(error.contains(text), "{error} does not contain {text}");
    }
}

#[test]
fn fixed_mtrr_types_are_checked_and_pat_seven_is_not_an_mtrr_type() {
    let mut state = long_mode();
    state.pat = 0x0007_0406_0007_0407;
    assert_eq!(check_state(&state), Ok(()));
    state.mtrr.fixed[4] = 7 << 8;
    assert!(matches!(
        check_state(&state),
        Err(StateError::MemoryType {
            register: "a fixed mtrr",
            ..
        })
    ));
}
