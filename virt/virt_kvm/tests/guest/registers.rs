// SPDX-License-Identifier: MIT
//! Register state: what is set is read back, and a reset forgets everything.

use crate::rig::{STOP, code, long_mode, long_mode_state, rig};
use virt::VpStop;
use x86defs::cpuid::CpuidEntry;
use x86defs::{TableRegister, X86State, state::gpr};

/// A state in which every field has a value of its own.
fn unusual_state() -> X86State {
    let mut s = long_mode_state();
    for (n, r) in s.gpr.iter_mut().enumerate() {
        *r = 0x1111_0000_0000_0000 * n as u64 + 7;
    }
    s.rip = 0x1234;
    s.rflags = 0x0020_0046;
    s.fs.base = 0x7FFF_0000_1000;
    s.gs.base = 0xFFFF_8000_0000_0000;
    s.tr.base = 0x5000;
    s.tr.selector = 0x28;
    s.tr.limit = 0x67;
    s.ldtr.selector = 0x30;
    s.ldtr.base = 0x6000;
    s.gdtr = TableRegister {
        base: 0x7000,
        limit: 0x3F,
    };
    s.idtr = TableRegister {
        base: 0x7100,
        limit: 0xFFF,
    };
    s.cr2 = 0xDEAD_B000;
    s.cr8 = 3;
    s.dr = [0x100, 0x200, 0x300, 0x400, 0xFFFF_0FF1, 0x400 | 1];
    s.pat = 0x0606_0606_0606_0606;
    s.mtrr.def_type = 0xC00;
    for (n, fixed) in s.mtrr.fixed.iter_mut().enumerate() {
        *fixed = if n % 2 == 0 {
            0x0606_0606_0606_0606
        } else {
            0x0505_0505_0505_0505
        };
    }
    for (n, (base, mask)) in s.mtrr.variable.iter_mut().enumerate() {
        (*base, *mask) = ((n as u64) << 20 | 6, 0xF_FFF0_0800);
    }
    s.sysenter = (8, 0xFFFF_8000_0000_1000, 0xFFFF_8000_0000_2000);
    s.syscall = (
        0x0013_0008_0000_0000,
        0xFFFF_8000_0000_3000,
        0xFFFF_8000_0000_4000,
        0x4_7700,
    );
    s.kernel_gs_base = 0xFFFF_9000_0000_0000;
    s
}

#[test]
fn every_field_of_the_state_but_xcr0_and_tsc_aux_reads_back_as_it_was_set() {
    let Some(mut rig) = rig(1, Vec::new()) else { return };
    rig.load(STOP, &X86State::reset());
    assert_eq!(rig.state(), X86State::reset(), "reset state");
    let state = unusual_state();
    rig.runners[0].set_state(0, &state).unwrap();
    assert_eq!(rig.state(), state);
    rig.runners[0].set_state(0, &X86State::reset()).unwrap();
    assert_eq!(rig.state(), X86State::reset(), "and back");
}

/// Leaves by which the guest has XSAVE with x87, SSE and AVX state, and RDTSCP.
fn leaves_with_xsave() -> Vec<CpuidEntry> {
    let leaf = |leaf: u32, eax: u32, ecx: u32, edx: u32| CpuidEntry {
        leaf,
        eax,
        ecx,
        edx,
        ..Default::default()
    };
    vec![
        leaf(0, 0xD, 0, 0),
        leaf(1, 0x600, 1 << 31 | 1 << 28 | 1 << 26, 0x078B_FBFD),
        CpuidEntry {
            subleaf: Some(0),
            ebx: 0x340,
            ..leaf(0xD, 7, 0x340, 0)
        },
        leaf(0x8000_0000, 0x8000_0001, 0, 0),
        leaf(0x8000_0001, 0, 1, 0x2C10_0800),
    ]
}

#[test]
fn xcr0_and_tsc_aux_read_back_where_the_guest_has_them() {
    let Some(mut rig) = rig(1, leaves_with_xsave()) else {
        return;
    };
    rig.load(STOP, &X86State::reset());
    let mut state = X86State {
        xcr0: 7,
        tsc_aux: 5,
        ..long_mode_state()
    };
    state.cr4 |= x86defs::cr4::OSXSAVE;
    rig.runners[0].set_state(0, &state).unwrap();
    assert_eq!(rig.state(), state);
    let error = rig.runners[0]
        .set_state(0, &X86State { xcr0: 4, ..state })
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("KVM_SET_XCRS (xcr0 0x4) (vp 0): "), "{error}");
}

#[test]
fn registers_that_the_guest_wrote_are_read_and_a_reset_forgets_them() {
    // mov rax, 0x1122334455667788; mov r15, rax; movq-free: fld1 is not needed; mov cr2, rax
    let guest = [
        0x48, 0xB8, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x49, 0x89, 0xC7, 0x0F, 0x22, 0xD0,
    ];
    let Some(mut rig) = long_mode(&code(&[&guest, STOP])) else {
        return;
    };
    assert_eq!(rig.run(), VpStop::Requested);
    let s = rig.state();
    assert_eq!(
        (s.gpr[gpr::R15], s.cr2, s.rip),
        (0x1122_3344_5566_7788, 0x1122_3344_5566_7788, 0x1000 + 18)
    );
    rig.runners[0].reset().unwrap();
    assert_eq!(rig.state(), long_mode_state());
    // The relaunched guest does the same again.
    rig.signals.set_stop(false);
    assert_eq!(rig.run(), VpStop::Requested);
    assert_eq!(rig.state().gpr[gpr::R15], 0x1122_3344_5566_7788);
}

#[test]
fn a_bad_state_is_refused_with_the_vp_named() {
    let Some(mut rig) = rig(1, Vec::new()) else { return };
    rig.load(STOP, &X86State::reset());
    let state = X86State {
        cr0: 0x8000_0000,
        ..X86State::reset()
    };
    let error = rig.runners[0].set_state(0, &state).unwrap_err().to_string();
    assert!(error.starts_with("KVM_SET_SREGS (vp 0): "), "{error}");
}
