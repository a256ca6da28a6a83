// SPDX-License-Identifier: MIT
//! Alignment checks: CR0.AM, RFLAGS.AC and user mode together, and nothing less (APM2 section 8.2.18).
//! What counts as aligned, and what comes first, is what an AMD EPYC does with the same instructions.

#[path = "shared/rig.rs"]
mod rig;

use rig::{CODE, Rig};
use x86defs::cr0;

const AC: u64 = 1 << 18;
const DATA: u64 = 0x9000;

payload!(load, "mov eax, [rdi]", "hlt");

/// A user at `code` with RDI and RSP, whose accesses must be aligned.
fn user(code: &[u8], rdi: u64, rsp: u64) -> Rig {
    let mut r = Rig::long(code);
    r.set(|s| {
        s.cs = rig::segment(0x2B, 0xA0FB);
        s.ss = rig::segment(0x23, 0xC0F3);
        s.cr0 |= cr0::AM;
        s.rflags |= AC;
        (s.gpr[1], s.gpr[6], s.gpr[7], s.gpr[4]) = (5, DATA + 0x100, rdi, rsp);
    });
    r
}

/// The first exception's vector, error code and offset in the code. HLT is #GP in user mode.
fn outcome(r: &mut Rig) -> (u8, Option<u32>, u64) {
    r.run_to_hlt();
    let e = r.event();
    (e.vector, e.error, e.rip.wrapping_sub(CODE))
}

const CHECK: (u8, Option<u32>, u64) = (17, Some(0), 0);

#[test]
fn misaligned_operands_are_alignment_checks() {
    payload!(word, "mov ax, [rdi]", "hlt");
    payload!(store, "mov [rdi], rax", "hlt");
    payload!(modify, "inc dword ptr [rdi]", "hlt");
    payload!(exchange, "xchg [rdi], eax", "hlt");
    payload!(locked, "lock add [rdi], eax", "hlt");
    payload!(pair, "cmpxchg8b [rdi]", "hlt");
    payload!(scalar, "movss xmm0, [rdi]", "hlt");
    payload!(double, "movsd xmm0, [rdi]", "hlt");
    payload!(loose, "movups xmm0, [rdi]", "hlt");
    payload!(loose_store, "movdqu [rdi], xmm0", "hlt");
    payload!(masked, "maskmovdqu xmm0, xmm0", "hlt");
    payload!(extended, "fld tbyte ptr [rdi]", "hlt");
    payload!(integer, "fild word ptr [rdi]", "hlt");
    payload!(environment, "fnstenv [rdi]", "hlt");
    payload!(state, "fnsave [rdi]", "hlt");
    payload!(copy, "rep movsd", "hlt");
    payload!(fill, "rep stosq", "hlt");
    for (code, aligned, misaligned) in [
        (load(), 4, 2),
        (word(), 2, 1),
        (store(), 8, 4),
        (modify(), 4, 1),
        (exchange(), 4, 2),
        (locked(), 4, 2),
        (pair(), 8, 4),
        (scalar(), 4, 2),
        (double(), 8, 4),
        (loose(), 16, 8),
        (loose_store(), 16, 8),
        (masked(), 16, 1),
        (extended(), 8, 4),
        (integer(), 2, 1),
        (environment(), 4, 2),
        (state(), 4, 2),
        (copy(), 4, 2),
        (fill(), 8, 4),
    ] {
        let hlt = code.len() as u64 - 1;
        let mut r = user(&code, DATA + aligned, 0x6000);
        assert_eq!(outcome(&mut r), (13, Some(0), hlt), "{code:02x?} at {aligned}");
        let mut r = user(&code, DATA + misaligned, 0x6000);
        assert_eq!(outcome(&mut r), CHECK, "{code:02x?} at {misaligned}");
        assert_eq!(r.get64(DATA), 0, "nothing is stored");
    }
}

#[test]
fn bytes_and_the_stack_are_checked_by_their_size() {
    payload!(byte, "mov al, [rdi]", "rep movsb", "hlt");
    let mut r = user(&byte(), DATA + 1, 0x6000);
    assert_eq!(outcome(&mut r), (13, Some(0), 4));
    payload!(push_, "push rax", "hlt");
    payload!(pop_, "pop rax", "hlt");
    payload!(call_, "call 2f", "2:", "hlt");
    payload!(ret_, "ret", "hlt");
    for code in [push_(), pop_(), call_(), ret_()] {
        let mut r = user(&code, DATA, 0x5FF4);
        assert_eq!(outcome(&mut r), CHECK, "{code:02x?}");
        assert_eq!(r.get64(0x6FE0), 0x2B, "delivery itself is the kernel's");
    }
}

#[test]
fn alignment_is_checked_only_with_am_and_ac_in_user_mode() {
    for n in 0..4 {
        let mut r = user(&load(), DATA + 2, 0x6000);
        r.set(|s| match n {
            0 => s.cr0 &= !cr0::AM,
            1 => s.rflags &= !AC,
            2 => (s.cs, s.ss) = (rig::segment(8, 0xA09B), rig::segment(0x10, 0xC093)),
            _ => {}
        });
        let mut seen = Vec::new();
        r.run_to_hlt();
        seen.extend(r.events().iter().map(|e| (e.vector, e.rip - CODE)));
        let expected: &[(u8, u64)] = [&[(13, 2)], &[(13, 2)], &[][..], &[(17, 0)]][n];
        assert_eq!(seen, expected, "case {n}");
    }
}

#[test]
fn popf_turns_checks_on_and_off_between_accesses_to_the_same_page() {
    payload!(
        switch,
        "pushfq",
        "mov eax, [rdi]",
        "mov [rdi], eax",
        "or dword ptr [rsp], 0x40000",
        "popfq",
        "mov al, [rdi]",
        "mov [rdi], eax",
        "hlt"
    );
    let mut r = user(&switch(), DATA + 1, 0x6000);
    r.set(|s| s.rflags &= !AC);
    assert_eq!(outcome(&mut r), (17, Some(0), switch().len() as u64 - 3));
}

#[test]
fn alignment_check_precedes_page_faults_but_not_canonical_addresses() {
    let mut r = user(&load(), DATA + 2, 0x6000);
    r.page(DATA, 0);
    assert_eq!(outcome(&mut r), CHECK);
    let mut r = user(&load(), DATA + 4, 0x6000);
    r.page(DATA, DATA | 3);
    assert_eq!(outcome(&mut r), (14, Some(5), 0), "the user's rights are checked");
    let mut r = user(&load(), 0x8000_0000_0001, 0x6000);
    assert_eq!(outcome(&mut r), (13, Some(0), 0));
    payload!(push_there, "push rax", "hlt");
    let mut r = user(&push_there(), DATA, 0x8000_0000_0009);
    assert_eq!(outcome(&mut r), (12, Some(0), 0));
}
