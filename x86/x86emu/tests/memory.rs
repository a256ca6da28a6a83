// SPDX-License-Identifier: MIT
//! Memory: self-modifying code, writes by devices, page-crossing accesses, strings, MMIO.

#[path = "shared/rig.rs"]
mod rig;

use rig::{CODE, Rig};

#[test]
fn store_over_the_next_instruction_takes_effect_at_once() {
    // The MOV's immediate is overwritten right before it runs.
    payload!(
        modify,
        "lea rdi, [rip + 2f]",
        "mov dword ptr [rdi + 1], 0x55",
        "2:",
        "mov eax, 0x11",
        "hlt"
    );
    let s = Rig::long(&modify()).run_to_hlt();
    assert_eq!(s.gpr[0], 0x55);
}

#[test]
fn store_over_another_block_takes_effect_at_its_next_run() {
    payload!(
        modify_other,
        "call 3f",
        "mov ebx, eax",
        "lea rdi, [rip + 3f]",
        "mov dword ptr [rdi + 1], 0x22",
        "call 3f",
        "hlt",
        "3:",
        "mov eax, 0x11",
        "ret",
    );
    let s = Rig::long(&modify_other()).run_to_hlt();
    assert_eq!((s.gpr[3], s.gpr[0]), (0x11, 0x22));
}

#[test]
fn code_at_two_linear_addresses_sees_stores_through_either() {
    payload!(
        alias,
        "mov rbx, 0x9000",
        "call rbx",
        "mov r8d, eax",
        "mov dword ptr [0xA001], 0x77",
        "call rbx",
        "hlt",
    );
    payload!(callee, "mov eax, 0x11", "ret");
    let mut r = Rig::long(&alias());
    r.world.ram.write(0x9000, &callee());
    r.page(0xA000, 0x9007);
    let s = r.run_to_hlt();
    assert_eq!((s.gpr[8], s.gpr[0]), (0x11, 0x77));
}

#[test]
fn write_by_a_device_over_running_code_is_seen() {
    payload!(spin, "2:", "inc rcx", "jmp 2b");
    let mut r = Rig::long(&spin());
    assert_eq!(r.cpu.run(&mut r.world, 1001), x86emu::Exit::Budget);
    // What guest memory's DMA handle does: bytes, then a new generation.
    r.world.ram.write(CODE as usize, &[0xF4]);
    r.world.ram.touch(CODE >> 12);
    let before = r.cpu.retired();
    r.set(|s| s.rip = CODE);
    r.run_to_hlt();
    assert_eq!(r.cpu.retired() - before, 1);
}

#[test]
fn write_by_a_device_over_a_chained_loop_is_seen() {
    payload!(
        spin2,
        "2:",
        "inc rcx",
        "cmp rcx, 5",
        "jne 2b",
        "out 0x80, al",
        "xor ecx, ecx",
        "jmp 2b"
    );
    let mut r = Rig::long(&spin2());
    r.cpu.run(&mut r.world, 5000);
    let old = spin2();
    let out = old.windows(2).position(|w| w == [0xE6, 0x80]).expect("out");
    r.world.ram.write(CODE as usize + out, &[0xF4, 0x90]);
    r.world.ram.touch(CODE >> 12);
    r.run_to_hlt();
}

#[test]
fn instruction_across_two_pages_runs_and_sees_changes_of_the_second() {
    payload!(cross, "mov eax, 0x11223344", "hlt");
    let mut r = Rig::long(&[]);
    r.world.ram.write(0x8FFE, &cross());
    r.set(|s| s.rip = 0x8FFE);
    assert_eq!(r.run_to_hlt().gpr[0], 0x1122_3344);
    r.world.ram.write(0x9002, &[0x99]);
    r.world.ram.touch(9);
    r.set(|s| s.rip = 0x8FFE);
    assert_eq!(r.run_to_hlt().gpr[0], 0x9922_3344);
}

#[test]
fn instruction_into_an_absent_page_faults_at_that_page() {
    payload!(cross2, "mov eax, 0x11223344", "hlt");
    let mut r = Rig::long(&[]);
    r.world.ram.write(0x8FFE, &cross2());
    r.page(0x9000, 0);
    r.set(|s| s.rip = 0x8FFE);
    let s = r.run_to_hlt();
    assert_eq!(
        (r.event().rip, s.cr2, r.event().error),
        (0x8FFE, 0x9000, Some(0x10))
    );
}

#[test]
fn store_across_into_an_absent_page_changes_nothing() {
    payload!(store, "mov [rax], rbx", "hlt");
    let mut r = Rig::long(&store());
    r.put64(0x9FF8, 0x1111_1111_1111_1111);
    r.page(0xA000, 0);
    r.set(|s| (s.gpr[0], s.gpr[3]) = (0x9FFC, u64::MAX));
    let s = r.run_to_hlt();
    assert_eq!((s.cr2, r.get64(0x9FF8)), (0xA000, 0x1111_1111_1111_1111));
}

#[test]
fn load_across_pages_joins_the_parts() {
    payload!(load, "mov rbx, [rax]", "hlt");
    let mut r = Rig::long(&load());
    r.page(0xA000, 0xC007);
    r.put64(0x9FF8, 0x0807_0605_0403_0201);
    r.put64(0xC000, 0x1817_1615_1413_1211);
    r.set(|s| s.gpr[0] = 0x9FFD);
    assert_eq!(r.run_to_hlt().gpr[3], 0x1514_1312_1108_0706);
}

#[test]
fn rep_movs_faults_in_the_middle_with_exact_registers() {
    payload!(movs, "rep movsb", "hlt");
    let mut r = Rig::long(&movs());
    r.page(0xB000, 0);
    r.set(|s| (s.gpr[6], s.gpr[7], s.gpr[1]) = (0x2_0000, 0xA800, 0x1000));
    let s = r.run_to_hlt();
    assert_eq!(
        (s.cr2, s.gpr[6], s.gpr[7], s.gpr[1]),
        (0xB000, 0x2_0800, 0xB000, 0x800)
    );
    assert_eq!(r.event().rip, CODE);
}

#[test]
fn overlapping_rep_movs_repeats_the_pattern() {
    payload!(overlap, "rep movsb", "hlt");
    let mut r = Rig::long(&overlap());
    r.world.ram.write(0x9000, b"abc");
    r.set(|s| (s.gpr[6], s.gpr[7], s.gpr[1]) = (0x9000, 0x9003, 300));
    r.run_to_hlt();
    assert_eq!(r.world.ram.read(0x9000, 9), b"abcabcabc");
    assert_eq!(r.world.ram.read(0x9000 + 300, 3), b"abc");
}

#[test]
fn backward_rep_stos_fills_downwards() {
    payload!(down, "std", "rep stosd", "cld", "hlt");
    let mut r = Rig::long(&down());
    r.set(|s| (s.gpr[0], s.gpr[7], s.gpr[1]) = (0x5A5A_5A5A, 0x9010, 5));
    let s = r.run_to_hlt();
    assert_eq!(
        (
            s.gpr[7],
            s.gpr[1],
            r.get64(0x9000),
            r.get64(0x9010),
            r.get64(0x8FF8) >> 32
        ),
        (0x8FFC, 0, 0x5A5A_5A5A_5A5A_5A5A, 0x5A5A_5A5A, 0)
    );
}

#[test]
fn scas_stops_at_the_match() {
    payload!(scas, "repne scasb", "hlt");
    let mut r = Rig::long(&scas());
    r.world.ram.write(0x9000, b"hello world");
    r.set(|s| (s.gpr[0], s.gpr[7], s.gpr[1]) = (u64::from(b'w'), 0x9000, 100));
    let s = r.run_to_hlt();
    assert_eq!((s.gpr[7], s.gpr[1], s.rflags & 0x40), (0x9007, 93, 0x40));
}

#[test]
fn mmio_is_accessed_once_in_the_right_size() {
    payload!(
        mmio,
        "mov ebx, [rax]",
        "mov [rax + 8], cx",
        "mov [rax + 16], rcx",
        "hlt"
    );
    let mut r = Rig::long(&mmio());
    r.page(0x9000, 0xFEE0_0007);
    r.set(|s| (s.gpr[0], s.gpr[1]) = (0x9020, 0x1122_3344_5566_7788));
    let s = r.run_to_hlt();
    assert_eq!(s.gpr[3], 0xA5A5_A5A5);
    let want = vec![
        (0xFEE0_0020, vec![0xA5; 4], false),
        (0xFEE0_0028, vec![0x88, 0x77], true),
        (
            0xFEE0_0030,
            vec![0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11],
            true,
        ),
    ];
    assert_eq!(r.world.mmio, want);
}

#[test]
fn locked_operation_on_mmio_reads_and_writes_once() {
    payload!(locked, "lock or dword ptr [rax], 0xF", "hlt");
    let mut r = Rig::long(&locked());
    r.page(0x9000, 0xFEE0_0007);
    r.set(|s| s.gpr[0] = 0x9000);
    r.run_to_hlt();
    assert_eq!(
        r.world.mmio,
        [
            (0xFEE0_0000, vec![0xA5; 4], false),
            (0xFEE0_0000, vec![0xAF, 0xA5, 0xA5, 0xA5], true)
        ]
    );
}

#[test]
fn store_to_rom_goes_to_the_bus_and_changes_nothing() {
    payload!(rom, "mov [rax], ebx", "mov ecx, [rax]", "hlt");
    let mut r = Rig::long(&rom());
    r.world.rom_from = 0x10_0000;
    r.put64(0x10_0000, 0x1234);
    r.set(|s| (s.gpr[0], s.gpr[3]) = (0x10_0000, 7));
    let s = r.run_to_hlt();
    assert_eq!((s.gpr[1], r.world.mmio.len()), (0x1234, 1));
}

#[test]
fn invlpg_makes_a_changed_entry_visible() {
    payload!(
        remap,
        "mov rbx, [rax]",
        "mov qword ptr [0x13000 + 9 * 8], 0xC007",
        "invlpg [rax]",
        "mov rcx, [rax]",
        "hlt"
    );
    let mut r = Rig::long(&remap());
    r.put64(0x9000, 1);
    r.put64(0xC000, 2);
    r.set(|s| s.gpr[0] = 0x9000);
    let s = r.run_to_hlt();
    assert_eq!((s.gpr[3], s.gpr[1]), (1, 2));
}

#[test]
fn two_processors_see_each_others_code_changes() {
    use x86emu::{Config, Cpu};
    payload!(target, "2:", "inc rcx", "jmp 2b");
    payload!(writer, "mov byte ptr [0x8000], 0xF4", "hlt");
    let mut r = Rig::long(&target());
    r.world.ram.write(0x9000, &writer());
    let code = x86emu::CodeMap::new(4 << 20);
    let config = Config {
        cpuid: x86emu::cpuid::baseline(40),
        phys_bits: 40,
        code,
    };
    let (mut a, mut b) = (Cpu::new(config.clone()), Cpu::new(config));
    a.set_state(&r.cpu.state());
    let mut s = r.cpu.state();
    s.rip = 0x9000;
    b.set_state(&s);
    // B first writes the page, so that it has a direct way to it before A makes it code.
    a.run(&mut r.world, 1000);
    assert_eq!(b.run(&mut r.world, 1000), x86emu::Exit::Hlt);
    assert_eq!(a.run(&mut r.world, 1000), x86emu::Exit::Hlt);
}
