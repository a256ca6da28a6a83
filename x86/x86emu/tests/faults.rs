// SPDX-License-Identifier: MIT
//! Exceptions: vectors, error codes, stacks, escalation, and that a faulting instruction changes nothing.

#[path = "shared/rig.rs"]
mod rig;

use rig::{CODE, HANDLERS, Rig};
use x86emu::Exit;

payload!(read_rax, "mov rbx, [rax]", "hlt");
payload!(write_rax, "mov [rax], rbx", "hlt");
payload!(jump_rax, "jmp rax");

#[test]
fn read_of_an_absent_page_faults_with_code_0_and_sets_cr2() {
    let mut r = Rig::long(&read_rax());
    r.page(0x9000, 0);
    r.set(|s| s.gpr[0] = 0x9123);
    let s = r.run_to_hlt();
    let e = r.event();
    assert_eq!((e.vector, e.error, e.rip, s.cr2), (14, Some(0), CODE, 0x9123));
    assert_eq!(s.rip, HANDLERS + 14 * 16 + 1);
    // SS, RSP, RFLAGS with RF, CS, RIP, error.
    assert_eq!(
        (
            r.get64(0x6FF8),
            r.get64(0x6FF0),
            r.get64(0x6FE0),
            r.get64(0x6FD8),
            r.get64(0x6FD0)
        ),
        (0x10, 0x7000, 8, CODE, 0)
    );
    assert_eq!(r.get64(0x6FE8) & 0x1_0000, 0x1_0000);
}

#[test]
fn write_to_a_read_only_page_faults_with_code_3_under_wp() {
    let mut r = Rig::long(&write_rax());
    r.page(0x9000, 0x9005);
    r.set(|s| s.gpr[0] = 0x9000);
    r.run_to_hlt();
    assert_eq!(r.event().error, Some(3));
}

#[test]
fn supervisor_write_to_a_read_only_page_succeeds_without_wp() {
    let mut r = Rig::long(&write_rax());
    r.page(0x9000, 0x9005);
    r.set(|s| {
        s.cr0 &= !0x1_0000;
        (s.gpr[0], s.gpr[3]) = (0x9000, 77);
    });
    r.run_to_hlt();
    assert_eq!((r.events().len(), r.get64(0x9000)), (0, 77));
}

#[test]
fn accessed_and_dirty_bits_follow_the_accesses() {
    let mut r = Rig::long(&read_rax());
    r.set(|s| s.gpr[0] = 0x9000);
    r.run_to_hlt();
    assert_eq!(r.get64(rig::PAGE_TABLE as u64 + 9 * 8), 0x9027);
    let mut r = Rig::long(&write_rax());
    r.set(|s| s.gpr[0] = 0x9000);
    r.run_to_hlt();
    assert_eq!(r.get64(rig::PAGE_TABLE as u64 + 9 * 8), 0x9067);
}

#[test]
fn write_after_read_still_sets_the_dirty_bit() {
    payload!(read_write, "mov rbx, [rax]", "mov [rax], rbx", "hlt");
    let mut r = Rig::long(&read_write());
    r.set(|s| s.gpr[0] = 0x9000);
    r.run_to_hlt();
    assert_eq!(r.get64(rig::PAGE_TABLE as u64 + 9 * 8), 0x9067);
}

#[test]
fn fetch_from_a_no_execute_page_faults_with_code_11() {
    let mut r = Rig::long(&jump_rax());
    r.page(0x9000, 0x9007 | 1 << 63);
    r.set(|s| s.gpr[0] = 0x9000);
    let s = r.run_to_hlt();
    assert_eq!(
        (r.event().error, s.cr2, r.event().rip),
        (Some(0x11), 0x9000, 0x9000)
    );
}

#[test]
fn reserved_bit_in_an_entry_faults_with_code_9() {
    let mut r = Rig::long(&read_rax());
    r.page(0x9000, 0x9007 | 1 << 51);
    r.set(|s| s.gpr[0] = 0x9000);
    r.run_to_hlt();
    assert_eq!(r.event().error, Some(9));
}

#[test]
fn smep_refuses_to_fetch_user_pages_in_kernel_mode() {
    let mut r = Rig::long(&jump_rax());
    for p in [CODE, 0x3000, 0x7000, 0x6000] {
        r.page(p, p | 3);
    }
    r.set(|s| {
        s.gpr[0] = 0x9000;
        s.cr4 |= 1 << 20;
    });
    r.run_to_hlt();
    assert_eq!(r.event().error, Some(0x11));
}

#[test]
fn smap_refuses_user_data_unless_ac_is_set() {
    let mut r = Rig::long(&read_rax());
    for p in (0..8).map(|p| p << 12).chain([CODE]) {
        r.page(p, p | 3);
    }
    r.set(|s| {
        s.gpr[0] = 0x9000;
        s.cr4 |= 1 << 21;
    });
    r.run_to_hlt();
    assert_eq!(r.event().error, Some(1));
    let mut r = Rig::long(&read_rax());
    r.set(|s| {
        s.gpr[0] = 0x9000;
        s.cr4 |= 1 << 21;
        s.rflags |= 1 << 18;
    });
    r.run_to_hlt();
    assert!(r.events().is_empty());
}

#[test]
fn non_canonical_address_is_a_general_protection_fault() {
    let mut r = Rig::long(&read_rax());
    r.set(|s| s.gpr[0] = 0x8000_0000_0000);
    r.run_to_hlt();
    assert_eq!((r.event().vector, r.event().error), (13, Some(0)));
}

#[test]
fn user_access_to_a_supervisor_page_faults_with_code_5_on_the_kernel_stack() {
    let mut r = Rig::long(&read_rax());
    r.page(0x9000, 0x9003);
    r.set(|s| {
        s.cs = rig::segment(0x2B, 0xA0FB);
        s.ss = rig::segment(0x23, 0xC0F3);
        (s.gpr[0], s.gpr[4]) = (0x9000, 0x6000);
    });
    let s = r.run_to_hlt();
    assert_eq!((r.event().error, s.ss.selector, s.cs.selector), (Some(5), 0, 8));
    assert_eq!(
        (r.get64(0x6FF8), r.get64(0x6FF0), r.get64(0x6FE0)),
        (0x23, 0x6000, 0x2B)
    );
}

#[test]
fn interrupt_stack_table_entry_gives_the_stack() {
    let mut r = Rig::long(&read_rax());
    r.gate(14, 0x8E, 1);
    r.page(0x9000, 0);
    r.set(|s| s.gpr[0] = 0x9000);
    let s = r.run_to_hlt();
    assert_eq!(s.gpr[4], 0x6800 - 48);
}

#[test]
fn fault_while_delivering_a_page_fault_is_a_double_fault() {
    let mut r = Rig::long(&read_rax());
    r.page(0x9000, 0);
    r.gate(14, 0, 0);
    r.gate(8, 0x8E, 1);
    r.set(|s| s.gpr[0] = 0x9000);
    r.run_to_hlt();
    let v: Vec<_> = r.events().iter().map(|e| (e.vector, e.error)).collect();
    assert_eq!(v, [(14, Some(0)), (8, Some(0))]);
}

#[test]
fn fault_while_delivering_an_interrupt_has_the_ext_bit() {
    payload!(spin, "sti", "2:", "jmp 2b");
    let mut r = Rig::long(&spin());
    // The gate's code segment is a data segment.
    r.put64(0x2000 + 0x40 * 16, 0x8E00_0010_3400);
    r.world.interrupts.push_back(0x40);
    r.cpu.attention().interrupt();
    r.run_to_hlt();
    let v: Vec<_> = r.events().iter().map(|e| (e.vector, e.error)).collect();
    assert_eq!(v, [(0x40, None), (13, Some(0x11))]);
}

#[test]
fn fault_while_delivering_a_double_fault_is_a_triple_fault() {
    let mut r = Rig::long(&read_rax());
    r.page(0x9000, 0);
    r.set(|s| {
        s.gpr[0] = 0x9000;
        s.idtr.limit = 0;
    });
    assert_eq!(r.run(), Exit::TripleFault);
    assert_eq!(r.cpu.rip(), CODE);
}

#[test]
fn user_software_interrupt_needs_a_gate_for_user_mode() {
    payload!(int_80, "int 0x80", "nop");
    let user = |r: &mut Rig| {
        r.set(|s| {
            s.cs = rig::segment(0x2B, 0xA0FB);
            s.ss = rig::segment(0x23, 0xC0F3);
            s.gpr[4] = 0x6000;
        });
    };
    let mut r = Rig::long(&int_80());
    user(&mut r);
    r.run_to_hlt();
    // EXT is clear: the fault is the instruction's own.
    assert_eq!(
        (r.event().vector, r.event().error, r.event().rip),
        (13, Some(0x80 * 8 + 2), CODE)
    );
    let mut r = Rig::long(&int_80());
    user(&mut r);
    r.gate(0x80, 0xEE, 0);
    let s = r.run_to_hlt();
    assert_eq!((s.rip, r.get64(0x6FD8)), (HANDLERS + 0x80 * 16 + 1, CODE + 2));
}

#[test]
fn divide_error_leaves_registers_alone() {
    payload!(divide, "div rcx", "hlt");
    let mut r = Rig::long(&divide());
    r.set(|s| (s.gpr[0], s.gpr[1], s.gpr[2]) = (1, 1, 1));
    let s = r.run_to_hlt();
    assert_eq!(
        (r.event().vector, r.event().error, s.gpr[0], s.gpr[2]),
        (0, None, 1, 1)
    );
}

#[test]
fn undefined_and_unadvertised_instructions_raise_ud() {
    payload!(ud, "ud2");
    payload!(popcnt, "popcnt rax, rbx");
    payload!(avx, "vpxor ymm0, ymm0, ymm0");
    payload!(xgetbv, "xgetbv");
    payload!(lock_mov, ".byte 0xF0, 0x89, 0x03");
    for code in [ud(), popcnt(), avx(), xgetbv(), lock_mov()] {
        let mut r = Rig::long(&code);
        r.run_to_hlt();
        assert_eq!((r.event().vector, r.event().rip), (6, CODE), "{code:02x?}");
    }
}

#[test]
fn privileged_instructions_fault_in_user_mode() {
    payload!(cli_, "cli");
    payload!(hlt_, "hlt");
    payload!(cr, "mov rax, cr0");
    payload!(lgdt_, "lgdt [rax]");
    payload!(rdmsr_, "rdmsr");
    payload!(out_, "out dx, al");
    payload!(invlpg_, "invlpg [rax]");
    for code in [cli_(), hlt_(), cr(), lgdt_(), rdmsr_(), out_(), invlpg_()] {
        let mut r = Rig::long(&code);
        r.set(|s| {
            s.cs = rig::segment(0x2B, 0xA0FB);
            s.ss = rig::segment(0x23, 0xC0F3);
            s.gpr[2] = 0x3F8;
        });
        r.run_to_hlt();
        assert_eq!((r.event().vector, r.event().error), (13, Some(0)), "{code:02x?}");
    }
}

#[test]
fn unaligned_cmpxchg16b_and_movaps_are_general_protection_faults() {
    payload!(pair, "cmpxchg16b [rax]");
    payload!(aligned, "movaps xmm0, [rax]");
    for code in [pair(), aligned()] {
        let mut r = Rig::long(&code);
        r.set(|s| s.gpr[0] = 0x9008);
        r.run_to_hlt();
        assert_eq!((r.event().vector, r.event().error), (13, Some(0)));
    }
}

#[test]
fn trap_flag_raises_debug_after_each_instruction() {
    payload!(step, "nop", "nop", "hlt");
    let mut r = Rig::long(&step());
    r.set(|s| s.rflags |= 0x100);
    let s = r.run_to_hlt();
    assert_eq!(
        (r.event().vector, r.event().rip, s.dr[4] & 0x4000),
        (1, CODE + 1, 0x4000)
    );
}

#[test]
fn segment_limit_violation_in_protected_mode() {
    payload!(load32, ".code32", "mov ebx, [eax]", "hlt");
    payload!(stack32, ".code32", "mov ebx, [ebp]", "hlt");
    for (code, vector) in [(load32(), 13), (stack32(), 12)] {
        let mut r = Rig::protected(&code);
        r.set(|s| {
            (s.ds.limit, s.ss.limit) = (0x8FFF, 0x8FFF);
            (s.gpr[0], s.gpr[5]) = (0x8FFD, 0x8FFD);
        });
        r.run_to_hlt();
        assert_eq!((r.event().vector, r.event().error), (vector, Some(0)));
        let mut r = Rig::protected(&code);
        r.set(|s| {
            (s.ds.limit, s.ss.limit) = (0x8FFF, 0x8FFF);
            (s.gpr[0], s.gpr[5]) = (0x8FFC, 0x8FFC);
        });
        r.run_to_hlt();
        assert!(r.events().is_empty());
    }
}

#[test]
fn loading_a_bad_selector_names_it_in_the_error_code() {
    payload!(load_ds, ".code32", "mov ds, ax", "hlt");
    for (selector, vector, error) in [(0x58, 13, 0x58), (0x30, 13, 0x30), (0x18, 13, 0x18)] {
        let mut r = Rig::protected(&load_ds());
        r.set(|s| {
            s.gpr[0] = selector;
            s.gdtr.limit = 0x4F;
        });
        // User code is readable, but its DPL is 3 and it is not conforming: allowed from CPL 0.
        let s = r.run_to_hlt();
        if selector == 0x18 {
            assert_eq!(s.ds.selector, 0x18);
            continue;
        }
        assert_eq!((r.event().vector, r.event().error), (vector, Some(error)));
    }
}

#[test]
fn reserved_address_bits_of_large_pages_fault_with_code_9() {
    for (entry, error) in [
        (0x87, None),
        (0x1087, None),
        (0x2087, Some(9)),
        (0x10_0087, Some(9)),
    ] {
        let mut r = Rig::long(&read_rax());
        // The second 2 MiB; bit 12 is PAT.
        r.put64(0x1_2008, entry);
        r.set(|s| s.gpr[0] = 0x20_9000);
        r.run_to_hlt();
        let seen = r.events().first().map(|e| (e.vector, e.error));
        assert_eq!(seen, error.map(|e| (14, Some(e))), "{entry:#x}");
    }
}

#[test]
fn stack_addresses_that_are_not_canonical_are_stack_faults() {
    payload!(push_, "push rax", "hlt");
    payload!(pop_, "pop rax", "hlt");
    payload!(call_, "call 2f", "2:", "hlt");
    payload!(ret_, "ret", "hlt");
    payload!(by_rsp, "mov eax, [rsp]", "hlt");
    payload!(by_rbp, "mov [rbp], eax", "hlt");
    payload!(by_rbx, "mov [rbx], eax", "hlt");
    for (code, vector) in [
        (push_(), 12),
        (pop_(), 12),
        (call_(), 12),
        (ret_(), 12),
        (by_rsp(), 12),
        (by_rbp(), 12),
        (by_rbx(), 13),
    ] {
        let mut r = Rig::long(&code);
        let vector_gate = u64::from(vector);
        r.gate(vector_gate, 0x8E, 1);
        r.set(|s| (s.gpr[3], s.gpr[4], s.gpr[5]) = (1 << 47, 0x8000_0000_1000, 1 << 47));
        r.run_to_hlt();
        assert_eq!(
            (r.event().vector, r.event().error),
            (vector, Some(0)),
            "{code:02x?}"
        );
    }
}

#[test]
fn call_gate_in_long_mode_leads_to_64_bit_code_and_has_an_empty_upper_type() {
    payload!(through, "call fword ptr [rax]", "hlt");
    payload!(through_jump, "jmp fword ptr [rax]", "hlt");
    // A present gate of DPL 0 to `CODE + 0x100` in the segment, and the type in its upper half.
    for (segment, kind, error) in [(8, 0, None), (0x40, 0, Some(0x40)), (8, 1, Some(0x48))] {
        for code in [through(), through_jump()] {
            let mut r = Rig::long(&code);
            r.world.ram.write(CODE as usize + 0x100, &[0xF4]);
            r.put64(0x1048, 0x8C00_0000_0000 | segment << 16 | (CODE + 0x100));
            r.put64(0x1050, kind << 40);
            r.put64(0x9000, 0x48 << 32);
            r.set(|s| {
                s.gpr[0] = 0x9000;
                s.gdtr.limit = 0x57;
            });
            let s = r.run_to_hlt();
            let seen = r.events().first().map(|e| (e.vector, e.error));
            assert_eq!(
                seen,
                error.map(|e| (13, Some(e))),
                "{code:02x?} {segment:#x} {kind}"
            );
            if error.is_none() {
                assert_eq!(s.rip, CODE + 0x101);
            }
        }
    }
}

#[test]
fn int1_needs_no_privilege_for_its_gate_but_int_1_does() {
    payload!(int1, ".byte 0xF1");
    payload!(int_1, "int 1");
    for (code, vector, rip) in [(int1(), 1, HANDLERS + 17), (int_1(), 13, HANDLERS + 13 * 16 + 1)] {
        let mut r = Rig::long(&code);
        r.set(|s| {
            s.cs = rig::segment(0x2B, 0xA0FB);
            s.ss = rig::segment(0x23, 0xC0F3);
            s.gpr[4] = 0x6000;
        });
        let s = r.run_to_hlt();
        assert_eq!(s.rip, rip, "vector {vector}");
        assert_eq!(r.get64(0x6FD8), CODE + u64::from(vector == 1));
    }
}

#[test]
fn sysenter_exists_on_amd_in_legacy_mode_only() {
    payload!(enter64, "sysenter");
    payload!(exit64, "sysexit");
    for code in [enter64(), exit64()] {
        let mut r = Rig::long(&code);
        r.set(|s| s.sysenter = (0x40, 0x7000, CODE + 0x100));
        r.run_to_hlt();
        assert_eq!((r.event().vector, r.event().rip), (6, CODE));
    }
    payload!(enter32, ".code32", "sysenter");
    let mut r = Rig::protected(&enter32());
    r.world.ram.write(CODE as usize + 0x100, &[0xF4]);
    r.set(|s| s.sysenter = (0x40, 0x6C00, CODE + 0x100));
    let s = r.run_to_hlt();
    assert_eq!((r.events().len(), s.rip, s.gpr[4]), (0, CODE + 0x101, 0x6C00));
}

#[test]
fn instruction_of_more_than_15_bytes_is_a_general_protection_fault() {
    for (prefixes, fault) in [(14, false), (15, true), (40, true)] {
        let mut code = vec![0x66; prefixes];
        code.extend([0x90, 0xF4]);
        let mut r = Rig::long(&code);
        r.run_to_hlt();
        let seen = r.events().first().map(|e| (e.vector, e.error, e.rip));
        assert_eq!(seen, fault.then_some((13, Some(0), CODE)), "{prefixes} prefixes");
    }
}
