// SPDX-License-Identifier: MIT
//! Breakpoints of the guest's debug registers: code, data, ports, access to the registers themselves.

#[path = "shared/rig.rs"]
mod rig;

use rig::{CODE, HANDLERS, Rig};

/// DR7 of breakpoint 0: enabled, `kind` and `len` in DR7's encoding.
fn dr7(kind: u64, len: u64) -> u64 {
    0x401 | kind << 16 | len << 18
}

/// A machine at `code` with breakpoint 0 at `address`, whose #DB handler counts in R15 and returns.
fn watched(code: &[u8], address: u64, dr7: u64) -> Rig {
    payload!(handler, "inc r15", "iretq");
    let mut r = Rig::long(code);
    r.world.ram.write((HANDLERS + 16) as usize, &handler());
    r.set(|s| {
        s.dr[0] = address;
        s.dr[5] = dr7;
        s.gpr[15] = 0;
    });
    r
}

#[test]
fn code_breakpoint_faults_before_the_instruction_and_resumes_with_rf() {
    payload!(code_bp, "mov ecx, 3", "2:", "inc rbx", "dec ecx", "jnz 2b", "hlt");
    let mut r = watched(&code_bp(), CODE + 5, dr7(0, 0));
    r.set(|s| s.gpr[3] = 0);
    let s = r.run_to_hlt();
    assert_eq!((s.gpr[15], s.gpr[3], s.dr[4] & 0xF), (3, 3, 1));
    assert!(r.events().iter().all(|e| (e.vector, e.rip) == (1, CODE + 5)));
}

#[test]
fn write_breakpoint_traps_behind_the_store_and_not_on_loads() {
    payload!(
        write_bp,
        "mov rax, [0x9000]",
        "mov byte ptr [0x9003], 1",
        "mov byte ptr [0x9004], 1",
        "hlt"
    );
    let mut r = watched(&write_bp(), 0x9000, dr7(1, 3));
    let s = r.run_to_hlt();
    assert_eq!((s.gpr[15], r.event().rip, s.dr[4] & 0xF), (1, CODE + 16, 1));
}

#[test]
fn access_breakpoint_sees_loads_string_moves_and_crossing_accesses() {
    payload!(
        access_bp,
        "mov al, [0x9010]",
        "mov rax, [0x8FFC]",
        "lea rsi, [0xA000]",
        "lea rdi, [0x8F00]",
        "mov ecx, 0x180",
        "rep movsb",
        "hlt"
    );
    // Eight bytes at 0x9000: the second load's upper half, and eight elements of the string.
    let mut r = watched(&access_bp(), 0x9000, dr7(3, 2));
    let s = r.run_to_hlt();
    assert_eq!(s.gpr[15], 9, "{:x?}", r.events());
    let rep = CODE + access_bp().len() as u64 - 3;
    assert_eq!((s.gpr[1], r.events()[1].rip), (0, rep));
}

#[test]
fn disabled_breakpoint_does_nothing_and_enabling_takes_effect_at_once() {
    payload!(
        enable_bp,
        "mov byte ptr [0x9000], 1",
        "mov rax, 0x9000",
        "mov dr0, rax",
        "mov eax, 0x10401",
        "mov dr7, rax",
        "mov byte ptr [0x9000], 2",
        "mov eax, 0x400",
        "mov dr7, rax",
        "mov byte ptr [0x9000], 3",
        "hlt"
    );
    let mut r = watched(&enable_bp(), 0, 0x400);
    let s = r.run_to_hlt();
    assert_eq!((s.gpr[15], r.events().len()), (1, 1));
}

#[test]
fn port_breakpoint_needs_debug_extensions() {
    payload!(port_bp, "out 0x80, al", "in al, 0x82", "hlt");
    for (extensions, expected) in [(0, 0), (8, 2)] {
        let mut r = watched(&port_bp(), 0x80, dr7(2, 3));
        r.set(|s| s.cr4 |= extensions);
        let s = r.run_to_hlt();
        assert_eq!(s.gpr[15], expected, "CR4.DE {extensions}");
    }
}

#[test]
fn general_detect_faults_before_the_access_and_is_cleared_for_the_handler() {
    payload!(detect, "mov rax, dr3", "hlt");
    payload!(reads, "mov rbx, dr7", "mov rcx, dr6", "hlt");
    let mut r = Rig::long(&detect());
    r.world.ram.write((HANDLERS + 16) as usize, &reads());
    r.set(|s| s.dr[5] = 0x2400);
    let s = r.run_to_hlt();
    assert_eq!((r.event().vector, r.event().rip), (1, CODE));
    assert_eq!((s.gpr[3] & 0x2000, s.gpr[1] & 0x2000), (0, 0x2000));
}

#[test]
fn trap_is_reported_with_the_single_step_that_it_meets() {
    payload!(with_step, "mov byte ptr [0x9000], 1", "hlt");
    let mut r = Rig::long(&with_step());
    r.set(|s| {
        s.dr[0] = 0x9000;
        s.dr[5] = dr7(1, 0);
        s.rflags |= 0x100;
    });
    let s = r.run_to_hlt();
    assert_eq!((r.event().vector, s.dr[4] & 0x400F), (1, 0x4001));
}
