// SPDX-License-Identifier: MIT
//! Processor modes and privilege levels: real, protected, virtual-8086, compatibility and long mode, and
//! the ways between them.

#[path = "shared/rig.rs"]
mod rig;

use rig::{CODE, HANDLERS, Rig, segment};
use x86defs::{SegmentAttributes, SegmentRegister};

#[test]
fn reset_vector_runs_below_4_gib() {
    payload!(any, "nop");
    let r = Rig::new(&any());
    let s = r.cpu.state();
    assert_eq!(
        (s.cs.base + s.rip, s.cs.selector, s.cr0),
        (0xFFFF_FFF0, 0xF000, 0x6000_0010)
    );
}

#[test]
fn real_mode_interrupt_and_return() {
    payload!(int_real, ".code16", "mov ax, 0x1234", "int 0x10", "inc ax", "hlt");
    payload!(iret_real, ".code16", "mov bx, ax", "iret");
    let mut r = Rig::real(&int_real());
    r.world.ram.write((HANDLERS + 0x100) as usize, &iret_real());
    r.set(|s| s.rflags |= 0x200);
    let s = r.run_to_hlt();
    assert_eq!(
        (s.gpr[0] & 0xFFFF, s.gpr[3] & 0xFFFF, s.gpr[4], s.rflags & 0x200),
        (0x1235, 0x1234, 0x7000, 0x200)
    );
}

#[test]
fn real_mode_segments_shift_by_four_and_limit_at_64_kib() {
    payload!(
        seg16,
        ".code16",
        "mov ax, 0x900",
        "mov ds, ax",
        "mov bx, [0x10]",
        "mov cx, [0xFFFF]",
        "hlt"
    );
    let mut r = Rig::real(&seg16());
    r.put64(0x9010, 0xBEEF);
    let s = r.run_to_hlt();
    // The word at FFFF crosses the limit: #GP through the IVT.
    assert_eq!((s.gpr[3] & 0xFFFF, r.event().vector), (0xBEEF, 13));
}

#[test]
fn from_real_mode_to_long_mode_and_back_to_compatibility_mode() {
    payload!(
        up,
        ".code16",
        "lgdt [0x900]",
        "mov eax, cr0",
        "or al, 1",
        "mov cr0, eax",
        ".byte 0x66, 0xEA",
        ".long 0x8015",
        ".word 0x40",
        ".code32",
        "mov eax, 0x10",
        "mov ds, eax",
        "mov ss, eax",
        "mov eax, 0x620",
        "mov cr4, eax",
        "mov eax, 0x10000",
        "mov cr3, eax",
        "mov ecx, 0xC0000080",
        "rdmsr",
        "or eax, 0x100",
        "wrmsr",
        "mov eax, cr0",
        "or eax, 0x80000000",
        "mov cr0, eax",
        "ljmp 8, 0x8200",
    );
    payload!(
        top,
        "mov rax, 0x123456789ABCDEF0",
        "push 0x40",
        "push 0x8300",
        "retfq"
    );
    payload!(
        compat,
        ".code32",
        "mov ebx, eax",
        "inc eax",
        "mov ecx, esp",
        "hlt"
    );
    let template = Rig::long(&[]);
    let mut r = Rig::real(&up());
    for at in [0x1000usize, 0x1_0000, 0x1_1000, 0x1_2000, 0x1_3000] {
        let page = template.world.ram.read(at, 4096);
        r.world.ram.write(at, &page);
    }
    r.world.ram.write(0x900, &[0x47, 0, 0, 0x10, 0, 0]);
    r.world.ram.write(0x8200, &top());
    r.world.ram.write(0x8300, &compat());
    let s = r.run_to_hlt();
    assert_eq!(
        (s.gpr[3], s.gpr[0], s.cs.selector, s.efer & 0x400),
        (0x9ABC_DEF0, 0x9ABC_DEF1, 0x40, 0x400)
    );
    assert!(r.events().is_empty());
}

#[test]
fn syscall_and_sysret_go_to_the_kernel_and_back() {
    payload!(user, "syscall", "mov rbx, rax", "int3");
    payload!(kernel, "mov rax, 0x77", "mov r15, rsp", "sysretq");
    let mut r = Rig::long(&user());
    r.world.ram.write(0x9000, &kernel());
    r.gate(3, 0xEE, 0);
    r.set(|s| {
        s.cs = segment(0x2B, 0xA0FB);
        s.ss = segment(0x23, 0xC0F3);
        s.gpr[4] = 0x6000;
        s.rflags |= 0x600;
        s.syscall = (0x0018_0008 << 32, 0x9000, 0, 0x400);
    });
    let s = r.run_to_hlt();
    assert_eq!((s.gpr[3], s.gpr[1], s.gpr[15]), (0x77, CODE + 2, 0x6000));
    // CS and SS of the frame: back in user mode, DF restored.
    assert_eq!(
        (r.get64(0x6FE0), r.get64(0x6FF8), r.get64(0x6FE8) & 0x600),
        (0x2B, 0x23, 0x600)
    );
}

#[test]
fn swapgs_exchanges_the_bases() {
    payload!(
        gs,
        "swapgs",
        "mov rax, gs:[0]",
        "swapgs",
        "mov rbx, gs:[0]",
        "hlt"
    );
    let mut r = Rig::long(&gs());
    r.put64(0x9000, 1);
    r.put64(0xA000, 2);
    r.set(|s| (s.gs.base, s.kernel_gs_base) = (0x9000, 0xA000));
    let s = r.run_to_hlt();
    assert_eq!((s.gpr[0], s.gpr[3]), (2, 1));
}

#[test]
fn iret_to_user_mode_and_interrupt_back() {
    payload!(
        down,
        "push 0x23",
        "push 0x6000",
        "push 0x202",
        "push 0x2B",
        "push 0x9000",
        "iretq"
    );
    payload!(in_user, "mov rax, rsp", "int 0x80");
    let mut r = Rig::long(&down());
    r.world.ram.write(0x9000, &in_user());
    r.gate(0x80, 0xEE, 0);
    let s = r.run_to_hlt();
    assert_eq!((s.gpr[0], s.cs.selector, r.get64(0x6FE0)), (0x6000, 8, 0x2B));
}

#[test]
fn call_gate_switches_the_stack_and_copies_parameters() {
    payload!(
        gate_user,
        ".code32",
        "push 0x1111",
        "push 0x2222",
        "lcall 0x4B, 0",
        "hlt"
    );
    payload!(
        gate_kernel,
        ".code32",
        "mov eax, [esp + 8]",
        "mov ebx, [esp + 12]",
        "mov cx, cs",
        "hlt"
    );
    let mut r = Rig::protected(&gate_user());
    r.world.ram.write(0x9000, &gate_kernel());
    // DPL 3, 32-bit, two parameters, to 40:9000.
    r.put64(0x1048, 0x0000_EC02_0040_9000);
    r.set(|s| {
        s.gdtr.limit = 0x4F;
        s.cs = segment(0x1B, 0xC0FB);
        (s.ss, s.ds) = (segment(0x23, 0xC0F3), segment(0x23, 0xC0F3));
        s.gpr[4] = 0x6000;
    });
    let s = r.run_to_hlt();
    assert_eq!(
        (s.gpr[0], s.gpr[3], s.gpr[1] & 0xFFFF, s.ss.selector, s.gpr[4]),
        (0x2222, 0x1111, 0x40, 0x10, 0x7000 - 24)
    );
}

#[test]
fn virtual_8086_mode_interrupts_to_the_kernel_with_segments_on_the_stack() {
    payload!(v86, ".code16", "mov ax, ds", "mov bx, [0]", "int 0x20");
    let mut r = Rig::protected(&v86());
    r.put64(0x2000 + 0x20 * 8, 0xEE00_0040_0000 | (HANDLERS + 0x200));
    r.put64(0x9000, 0x4242);
    r.set(|s| {
        let v = |selector: u16| SegmentRegister {
            selector,
            attributes: SegmentAttributes(0xF3),
            limit: 0xFFFF,
            base: u64::from(selector) << 4,
        };
        (s.cs, s.ds, s.ss, s.es, s.fs, s.gs) = (v(0x800), v(0x900), v(0x500), v(1), v(2), v(3));
        s.rip = 0;
        s.gpr[4] = 0x100;
        s.rflags |= 0x2_3000;
    });
    let s = r.run_to_hlt();
    assert_eq!(
        (s.gpr[0] & 0xFFFF, s.gpr[3] & 0xFFFF, s.rflags & 0x2_0000),
        (0x900, 0x4242, 0)
    );
    // GS, FS, DS, ES, SS, ESP, EFLAGS, CS, EIP.
    let stack: Vec<u32> = (0..9).map(|i| r.get64(0x7000 - 36 + i * 4) as u32).collect();
    assert_eq!(
        (stack[0], stack[1], stack[3], stack[4], &stack[5..]),
        (8, 0x800, 0x100, 0x500, &[1u32, 0x900, 2, 3][..])
    );
}

#[test]
fn far_pointer_loads_and_selector_inspection() {
    payload!(
        lar,
        ".code32",
        "les edi, [0x9000]",
        "lar eax, cx",
        "setz bl",
        "lsl edx, cx",
        "verw cx",
        "setz bh",
        "hlt"
    );
    let mut r = Rig::protected(&lar());
    r.put64(0x9000, 0x0010_1234_5678);
    r.set(|s| s.gpr[1] = 0x20);
    let s = r.run_to_hlt();
    assert_eq!(
        (s.gpr[7], s.es.selector, s.gpr[0], s.gpr[2], s.gpr[3] & 0xFFFF),
        (0x1234_5678, 0x10, 0x00CF_F300, u64::from(u32::MAX), 0x101)
    );
}

#[test]
fn pae_paging_translates_with_three_levels() {
    payload!(
        pae,
        ".code32",
        "mov eax, [0x40000000]",
        "mov ebx, [0x40201000]",
        "hlt"
    );
    let mut r = Rig::protected(&pae());
    r.put64(0x1_0000, 0x1_1001);
    r.put64(0x1_0008, 0x1_2001);
    r.put64(0x1_1000, 0x83);
    r.put64(0x1_2000, 0x20_0083);
    r.put64(0x1_2008, 0x1_3003);
    r.put64(0x1_3008, 0x9003);
    r.put64(0x20_0000, 0xAA);
    r.put64(0x9000, 0xBB);
    r.set(|s| {
        s.cr3 = 0x1_0000;
        s.cr4 |= 0x20;
        s.cr0 |= 1 << 31;
    });
    let s = r.run_to_hlt();
    assert_eq!((s.gpr[0], s.gpr[3]), (0xAA, 0xBB));
}

#[test]
fn two_level_paging_translates_small_and_large_pages() {
    payload!(
        legacy,
        ".code32",
        "mov eax, [0x401000]",
        "mov ebx, [0x800000]",
        "hlt"
    );
    let mut r = Rig::protected(&legacy());
    for (at, v) in [
        (0x1_0000, 0x83u32),
        (0x1_0004, 0x1_1003),
        (0x1_0008, 0x83),
        (0x1_1004, 0x9003),
    ] {
        r.put32(at, v);
    }
    r.put32(0x9000, 0xCC);
    r.put32(0, 0xDD);
    r.set(|s| {
        s.cr3 = 0x1_0000;
        s.cr4 |= 0x10;
        s.cr0 |= 1 << 31;
    });
    let s = r.run_to_hlt();
    assert_eq!((s.gpr[0], s.gpr[3]), (0xCC, 0xDD));
}

#[test]
fn state_survives_the_round_trip() {
    let mut r = Rig::long(&[]);
    let mut s = r.cpu.state();
    s.gpr = std::array::from_fn(|i| i as u64 * 0x0101_0101_0101);
    s.rflags = 0xAD7;
    s.kernel_gs_base = 5;
    s.mtrr.fixed[3] = 0x0606;
    s.dr[0] = 77;
    s.tsc_aux = 3;
    r.cpu.set_state(&s);
    assert_eq!(r.cpu.state(), s);
}
