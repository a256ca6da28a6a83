// SPDX-License-Identifier: MIT
//! x87 and SSE: exceptions of the guest, availability, images.

#[path = "shared/rig.rs"]
mod rig;

use rig::Rig;

#[test]
fn unmasked_x87_division_by_zero_raises_mf_at_the_next_waiting_instruction() {
    payload!(
        mf,
        "fninit",
        "mov word ptr [0x9000], 0x37B",
        "fldcw [0x9000]",
        "fld1",
        "fldz",
        "fdivp st(1), st",
        "fnstsw ax",
        "fwait",
        "hlt"
    );
    let mut r = Rig::long(&mf());
    let s = r.run_to_hlt();
    let code = mf();
    assert_eq!(r.event().vector, 16);
    // FWAIT faults; the status shows ZE, ES and B before that.
    assert_eq!(
        (r.event().rip, s.gpr[0] & 0x80FF),
        (rig::CODE + code.len() as u64 - 2, 0x8084)
    );
}

#[test]
fn unmasked_sse_exception_raises_xf_and_leaves_the_destination() {
    payload!(
        xf,
        "mov dword ptr [0x9000], 0x1D80",
        "ldmxcsr [0x9000]",
        "movq xmm0, rax",
        "pxor xmm1, xmm1",
        "divsd xmm0, xmm1",
        "hlt"
    );
    let mut r = Rig::long(&xf());
    r.set(|s| {
        s.gpr[0] = 1.5f64.to_bits();
        s.cr4 |= 0x400;
    });
    r.run_to_hlt();
    let fx = r.cpu.fxsave();
    assert_eq!(
        (r.event().vector, fx[24], &fx[160..168]),
        (19, 0x84, &1.5f64.to_bits().to_le_bytes()[..])
    );
}

#[test]
fn task_switched_bit_raises_nm_and_clts_ends_it() {
    payload!(nm, "fld1", "hlt");
    payload!(nm_sse, "pxor xmm0, xmm0", "hlt");
    for code in [nm(), nm_sse()] {
        let mut r = Rig::long(&code);
        r.set(|s| s.cr0 |= 8);
        r.run_to_hlt();
        assert_eq!(r.event().vector, 7);
    }
    payload!(clts_, "clts", "fld1", "pxor xmm0, xmm0", "hlt");
    let mut r = Rig::long(&clts_());
    r.set(|s| s.cr0 |= 8);
    r.run_to_hlt();
    assert!(r.events().is_empty());
}

#[test]
fn sse_without_osfxsr_is_undefined() {
    payload!(no_os, "xorps xmm0, xmm0", "hlt");
    let mut r = Rig::long(&no_os());
    r.set(|s| s.cr4 &= !0x200);
    r.run_to_hlt();
    assert_eq!(r.event().vector, 6);
}

#[test]
fn fxsave_and_fxrstor_keep_registers() {
    payload!(
        fx,
        "fninit",
        "fldpi",
        "movq xmm9, rax",
        "fxsave [0x9000]",
        "fninit",
        "xorps xmm9, xmm9",
        "fxrstor [0x9000]",
        "fstp tbyte ptr [0xA000]",
        "movq rbx, xmm9",
        "hlt",
    );
    let mut r = Rig::long(&fx());
    r.set(|s| s.gpr[0] = 0x1234_5678_9ABC_DEF0);
    let s = r.run_to_hlt();
    assert_eq!(s.gpr[3], 0x1234_5678_9ABC_DEF0);
    assert_eq!(
        (r.get64(0xA000), r.get64(0xA008) & 0xFFFF),
        (0xC90F_DAA2_2168_C235, 0x4000)
    );
}

#[test]
fn x87_environment_has_the_full_tag_word() {
    payload!(env, "fninit", "fldz", "fld1", "fnstenv [0x9000]", "hlt");
    let mut r = Rig::long(&env());
    r.run_to_hlt();
    // ST0 = R6 valid, ST1 = R7 zero, the rest empty.
    assert_eq!(
        (r.get64(0x9000) & 0xFFFF, r.get64(0x9008) & 0xFFFF),
        (0x37F, 0x4FFF)
    );
    assert_eq!(r.get64(0x9000) >> 32 & 0xFFFF, 0x3000);
}

#[test]
fn fnsave_and_frstor_keep_the_stack() {
    payload!(
        save,
        "fninit",
        "fld1",
        "fldpi",
        "fnsave [0x9000]",
        "frstor [0x9000]",
        "faddp st(1), st",
        "fstp qword ptr [0xA000]",
        "hlt"
    );
    let mut r = Rig::long(&save());
    r.run_to_hlt();
    assert_eq!(f64::from_bits(r.get64(0xA000)), 1.0 + std::f64::consts::PI);
}

#[test]
fn rounding_control_is_honoured() {
    payload!(
        round,
        "mov dword ptr [0x9000], 0x5F80",
        "ldmxcsr [0x9000]",
        "cvtsi2sd xmm0, rax",
        "cvtsd2si rbx, xmm1",
        "hlt"
    );
    let mut r = Rig::long(&round());
    let mut fx = r.cpu.fxsave();
    fx[176..184].copy_from_slice(&2.3f64.to_bits().to_le_bytes());
    r.cpu.fxrstor(&fx);
    r.set(|s| s.gpr[0] = 7);
    assert_eq!(r.run_to_hlt().gpr[3], 3);
}
