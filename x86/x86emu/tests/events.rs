// SPDX-License-Identifier: MIT
//! Interrupts, NMI, shadows, HLT, budgets, breakpoints, determinism.

#[path = "shared/rig.rs"]
mod rig;

use rig::{CODE, HANDLERS, Rig};
use x86emu::Exit;

#[test]
fn pending_interrupt_is_taken_when_if_allows_it() {
    payload!(spin_if, "2:", "inc rcx", "jmp 2b");
    let mut r = Rig::long(&spin_if());
    r.world.interrupts.push_back(0x40);
    r.cpu.attention().interrupt();
    assert_eq!(r.cpu.run(&mut r.world, 100), Exit::Budget);
    assert!(r.events().is_empty());
    r.set(|s| s.rflags |= 0x200);
    let s = r.run_to_hlt();
    assert_eq!(
        (r.event().vector, s.rip, s.rflags & 0x200),
        (0x40, HANDLERS + 0x40 * 16 + 1, 0)
    );
}

#[test]
fn sti_delays_interrupts_by_one_instruction() {
    payload!(sti_one, "sti", "inc rax", "inc rax", "inc rax", "hlt");
    let mut r = Rig::long(&sti_one());
    r.world.interrupts.push_back(0x40);
    r.cpu.attention().interrupt();
    let s = r.run_to_hlt();
    assert_eq!((s.gpr[0], r.event().rip), (1, CODE + 4));
}

#[test]
fn sti_cli_lets_nothing_in() {
    payload!(sti_cli, "sti", "cli", "inc rax", "hlt");
    let mut r = Rig::long(&sti_cli());
    r.world.interrupts.push_back(0x40);
    r.cpu.attention().interrupt();
    let s = r.run_to_hlt();
    assert_eq!((s.gpr[0], r.events().len()), (1, 0));
}

#[test]
fn mov_ss_delays_interrupts_by_one_instruction() {
    payload!(mov_ss, "mov ss, ax", "mov rsp, rbx", "nop", "hlt");
    let mut r = Rig::long(&mov_ss());
    r.set(|s| {
        s.rflags |= 0x200;
        (s.gpr[0], s.gpr[3]) = (0x10, 0x6F00);
    });
    // The interrupt arrives while MOV SS runs.
    assert_eq!(r.cpu.run(&mut r.world, 1), Exit::Budget);
    r.world.interrupts.push_back(0x40);
    r.cpu.attention().interrupt();
    let s = r.run_to_hlt();
    let nop = CODE + mov_ss().len() as u64 - 2;
    assert_eq!((r.event().rip, s.gpr[4]), (nop, 0x6F00 - 40));
}

#[test]
fn sti_hlt_wakes_behind_the_hlt() {
    payload!(sti_hlt, "sti", "hlt", "mov al, 7", "cli", "hlt");
    payload!(handler, "mov bl, 9", "iretq");
    let mut r = Rig::long(&sti_hlt());
    r.world.ram.write((HANDLERS + 0x40 * 16) as usize, &handler());
    assert_eq!(r.run(), Exit::Hlt);
    assert!(r.cpu.is_halted());
    assert_eq!(r.run(), Exit::Hlt);
    let before = r.cpu.retired();
    r.world.interrupts.push_back(0x40);
    r.cpu.attention().interrupt();
    let s = r.run_to_hlt();
    assert_eq!(
        (s.gpr[0], s.gpr[3], r.event().rip, r.cpu.retired() - before),
        (7, 9, CODE + 2, 5)
    );
}

#[test]
fn nmi_is_taken_without_if_and_blocked_until_iret() {
    payload!(spin_nmi, "2:", "inc rcx", "jmp 2b");
    payload!(
        nmi_handler,
        "inc rax",
        "cmp rax, 1",
        "jne 3f",
        "mov rdx, 50",
        "4:",
        "dec rdx",
        "jnz 4b",
        "iretq",
        "3:",
        "hlt"
    );
    let mut r = Rig::long(&spin_nmi());
    r.world.ram.write((HANDLERS + 2 * 16) as usize, &nmi_handler());
    r.cpu.attention().nmi();
    assert_eq!(r.cpu.run(&mut r.world, 20), Exit::Budget);
    assert!(r.cpu.nmi_masked());
    r.cpu.attention().nmi();
    assert_eq!(r.cpu.run(&mut r.world, 20), Exit::Budget);
    assert_eq!(r.events().len(), 1);
    assert_eq!(r.run_to_hlt().gpr[0], 2);
}

#[test]
fn budget_is_exact_and_chunks_do_not_matter() {
    payload!(
        mixed,
        "2:",
        "inc rcx",
        "mov [0x9000], rcx",
        "add rax, [0x9000]",
        "test cl, 7",
        "jnz 3f",
        "push rax",
        "pop rbx",
        "rdtsc",
        "add r8, rax",
        "3:",
        "cmp rcx, 100000",
        "jne 2b",
        "hlt",
    );
    let run = |chunks: &[u64]| {
        let mut r = Rig::long(&mixed());
        for i in 0.. {
            let before = r.cpu.retired();
            let n = chunks[i % chunks.len()];
            match r.cpu.run(&mut r.world, n) {
                Exit::Budget => assert_eq!(r.cpu.retired(), before + n),
                Exit::Hlt => break,
                e => panic!("{e:?}"),
            }
        }
        (r.cpu.state(), r.cpu.retired())
    };
    let whole = run(&[u64::MAX / 2]);
    // Time is the instruction count, so even RDTSC agrees.
    assert_eq!(whole, run(&[1]));
    assert_eq!(whole, run(&[7, 1, 100, 3]));
    assert_eq!(whole.1, 100_000 * 7 + 100_000 / 8 * 4 + 1);
}

#[test]
fn kick_ends_a_run() {
    payload!(spin_kick, "2:", "jmp 2b");
    let mut r = Rig::long(&spin_kick());
    let attention = r.cpu.attention();
    let kicker = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(20));
        attention.kick();
    });
    assert_eq!(r.cpu.run(&mut r.world, u64::MAX), Exit::Kicked);
    kicker.join().expect("join");
}

#[test]
fn breakpoint_stops_before_the_instruction_and_once() {
    payload!(count, "2:", "inc rcx", "inc rdx", "jmp 2b");
    let mut r = Rig::long(&count());
    r.set(|s| s.gpr[2] = 0);
    r.cpu.run(&mut r.world, 300);
    let at = CODE + 3;
    r.cpu.add_breakpoint(at);
    for i in 0..3 {
        assert_eq!(r.run(), Exit::Breakpoint);
        let s = r.cpu.state();
        assert_eq!((s.rip, s.gpr[1], s.gpr[2]), (at, 101 + i, 100 + i));
    }
    assert!(r.cpu.remove_breakpoint(at));
    assert_eq!(r.cpu.run(&mut r.world, 300), Exit::Budget);
}

#[test]
fn step_runs_one_instruction_even_at_a_breakpoint() {
    payload!(
        stepped,
        "inc rcx",
        "inc rcx",
        "cmp rcx, 2",
        "je 2f",
        "nop",
        "2:",
        "hlt"
    );
    let mut r = Rig::long(&stepped());
    r.cpu.add_breakpoint(CODE);
    for want in [3, 6, 10, 13] {
        assert_eq!(r.cpu.step(&mut r.world), Exit::Budget);
        assert_eq!(r.cpu.rip(), CODE + want);
    }
}

#[test]
fn handler_that_cannot_be_fetched_uses_up_the_budget() {
    payload!(bad, "ud2");
    let mut r = Rig::long(&bad());
    // The handlers of #UD and #PF are on an absent page, and the stack is endless: SP comes from the IST.
    for v in [6u64, 14] {
        r.gate(v, 0x8E, 1);
    }
    r.page(HANDLERS, 0);
    assert_eq!(r.cpu.run(&mut r.world, 1000), Exit::Budget);
    assert_eq!(r.cpu.retired(), 0);
}

#[test]
fn port_and_string_port_accesses_reach_the_bus() {
    payload!(
        ports,
        "mov dx, 0x3F8",
        "in eax, dx",
        "out 0x80, al",
        "mov rdi, 0x9000",
        "mov ecx, 4",
        "rep insb",
        "hlt"
    );
    let mut r = Rig::long(&ports());
    let s = r.run_to_hlt();
    assert_eq!(s.gpr[0], 0x1122_3344 + 0x3F8 + 4);
    assert_eq!(r.world.ports, [(0x80, 1, 0x40)]);
    assert_eq!(r.world.ram.read(0x9000, 5), [0x3D, 0x3D, 0x3D, 0x3D, 0]);
}
