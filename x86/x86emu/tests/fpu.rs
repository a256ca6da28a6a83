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

/// Enables XSAVE and answers a machine at `code`.
fn with_xsave(code: &[u8]) -> Rig {
    let mut r = Rig::long(code);
    r.set(|s| s.cr4 |= 1 << 18);
    r
}

#[test]
fn xsave_and_xrstor_keep_the_states_that_xcr0_names() {
    payload!(
        keep,
        "xor ecx, ecx",
        "xor edx, edx",
        "mov eax, 3",
        "xsetbv",
        "fninit",
        "fldpi",
        "movq xmm9, rbx",
        "xsave64 [0x9000]",
        // Everything is something else, then comes back.
        "fninit",
        "pxor xmm9, xmm9",
        "xrstor64 [0x9000]",
        "xgetbv",
        "hlt"
    );
    let mut r = with_xsave(&keep());
    r.set(|s| s.gpr[3] = 0x1234_5678_9ABC);
    let s = r.run_to_hlt();
    let fx = r.cpu.fxsave();
    assert_eq!((s.gpr[0], s.gpr[2], s.xcr0, r.events().len()), (3, 0, 3, 0));
    // One register on the stack, and it holds pi.
    assert_eq!(
        (fx[4], &fx[36..42]),
        (0x80, &[0xA2, 0xDA, 0x0F, 0xC9, 0x00, 0x40][..])
    );
    assert_eq!(
        &fx[160 + 9 * 16..160 + 9 * 16 + 8],
        &0x1234_5678_9ABCu64.to_le_bytes()
    );
    assert_eq!(r.get64(0x9200), 3);
}

#[test]
fn xsave_writes_only_the_states_that_it_is_asked_for() {
    payload!(
        part,
        "fldpi",
        "xor edx, edx",
        "mov eax, 2",
        "xsave [0x9000]",
        "hlt"
    );
    let mut r = with_xsave(&part());
    for at in (0x9000..0x9240).step_by(8) {
        r.put64(at, u64::MAX);
    }
    r.put64(0x9200, 4);
    r.set(|s| s.xcr0 = 3);
    r.run_to_hlt();
    let area = r.world.ram.read(0x9000, 0x240);
    assert_eq!(r.get64(0x9200), 6);
    // MXCSR and XMM registers are there, x87 and the other bytes are not.
    assert_eq!(
        (&area[24..28], &area[160..416]),
        (&[0x80, 0x1F, 0, 0][..], &[0; 256][..])
    );
    for range in [0..24, 32..160, 416..512, 0x208..0x240] {
        assert!(area[range].iter().all(|&b| b == 0xFF));
    }
}

#[test]
fn xrstor_initialises_states_that_the_area_does_not_hold() {
    payload!(
        init,
        "fldpi",
        "pcmpeqb xmm1, xmm1",
        "xor ecx, ecx",
        "xor edx, edx",
        "mov eax, 3",
        "xsetbv",
        "xrstor [0x9000]",
        "hlt"
    );
    let mut r = with_xsave(&init());
    // MXCSR comes from the area all the same.
    r.put32(0x9018, 0x1F00);
    r.run_to_hlt();
    let fx = r.cpu.fxsave();
    assert_eq!(
        (&fx[..5], &fx[24..26]),
        (&[0x7F, 3, 0, 0, 0][..], &[0x00, 0x1F][..])
    );
    assert!(fx[32..416].iter().all(|&b| b == 0), "{fx:x?}");
}

#[test]
fn xsave_instructions_fault_as_the_manual_says() {
    payload!(unaligned, "xsave [0x9010]", "hlt");
    payload!(restore, "xrstor [0x9000]", "hlt");
    payload!(get, "xgetbv", "hlt");
    payload!(set, "xsetbv", "hlt");
    // Code, EDX:EAX, ECX, XSTATE_BV, XCOMP_BV, expected vector.
    let cases = [
        (unaligned(), 3, 0, 0, 0, 13),
        (restore(), 3, 0, 4, 0, 13),
        (restore(), 3, 0, 0, 1 << 63, 13),
        (get(), 0, 1, 0, 0, 13),
        (set(), 2, 0, 0, 0, 13),
        (set(), 7, 0, 0, 0, 13),
        (set(), 1, 1, 0, 0, 13),
    ];
    for (code, eax, ecx, states, compacted, vector) in cases {
        let mut r = with_xsave(&code);
        r.put64(0x9200, states);
        r.put64(0x9208, compacted);
        r.set(|s| (s.gpr[0], s.gpr[1], s.gpr[2], s.xcr0) = (eax, ecx, 0, 3));
        r.run_to_hlt();
        assert_eq!(r.event().vector, vector, "{code:x?} {eax:x} {ecx:x}");
    }
    for code in [unaligned(), restore(), get(), set()] {
        let mut r = Rig::long(&code);
        r.run_to_hlt();
        assert_eq!(r.event().vector, 6, "without CR4.OSXSAVE: {code:x?}");
    }
    let mut r = with_xsave(&restore());
    r.set(|s| s.cr0 |= 8);
    r.run_to_hlt();
    assert_eq!(r.event().vector, 7);
}

#[test]
fn unmasked_x87_overflow_leaves_a_biased_result_and_no_stored_value() {
    payload!(
        overflow,
        "mov word ptr [0x9000], 0x377",
        "fldcw [0x9000]",
        "fld tbyte ptr [0x9010]",
        "fmul st, st(0)",
        "fnclex",
        "fstp qword ptr [0x9020]",
        "fnstsw ax",
        "fwait",
        "hlt"
    );
    let mut r = Rig::long(&overflow());
    // 2^0x3000; its square, 2^0x6000, is stored as 2^(0x6000 - 24576) = 1, which is no overflow; the store
    // is one for a larger number.
    r.put64(0x9010, 1 << 63);
    r.put32(0x9018, 0x3FFF + 0x3000);
    r.put64(0x9020, 77);
    let s = r.run_to_hlt();
    let fx = r.cpu.fxsave();
    assert_eq!((s.gpr[0] & 0xFF, r.get64(0x9020)), (0, 1f64.to_bits()));
    assert!(r.events().is_empty(), "{:x?}", r.events());
    assert_eq!(fx[4], 0);

    payload!(
        store,
        "mov word ptr [0x9000], 0x377",
        "fldcw [0x9000]",
        "fld tbyte ptr [0x9010]",
        "fstp qword ptr [0x9020]",
        "fnstsw ax",
        "fwait",
        "hlt"
    );
    let mut r = Rig::long(&store());
    r.put64(0x9010, 1 << 63);
    r.put32(0x9018, 0x3FFF + 0x3000);
    r.put64(0x9020, 77);
    let s = r.run_to_hlt();
    // Not stored, not popped, OE and the summary set, #MF at FWAIT.
    assert_eq!((s.gpr[0] & 0xFF, r.get64(0x9020)), (0x88, 77));
    assert_eq!((r.event().vector, r.cpu.fxsave()[4]), (16, 0x80));
}
