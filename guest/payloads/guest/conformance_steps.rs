// SPDX-License-Identifier: MIT
//! Single steps, debug registers, and what an instruction does under TF.

use crate::{Left, Transcript};
use guest_rt::cpu;
use guest_rt::lab::{self, State, selector};
use guest_rt::snippet;

const TF: u64 = 1 << 8;
const RF: u64 = 1 << 16;

snippet!(plain: "nop", "nop", "ud2");
snippet!(turn_on: "push 0x102", "popfq", "nop", "nop", "ud2");
snippet!(repeat: "rep movsb", "nop", "ud2");
snippet!(stack_load: "mov ss, eax", "nop", "nop", "ud2");
snippet!(stack_pop: "push rax", "pop rax", "mov ss, eax", "nop", "ud2");
snippet!(unmask: "sti", "nop", "ud2");
snippet!(software: "int 0x80", "nop", "ud2");
snippet!(undefined: "ud2");
snippet!(jump: "jmp 2f", "nop", "2:", "nop", "ud2");
snippet!(read_cr: "mov rax, cr0", "nop", "ud2");
snippet!(call_cpuid: "xor eax, eax", "cpuid", "ud2");
snippet!(push_flags: "pushfq", "pop rax", "ud2");
snippet!(halt: "hlt", "nop", "ud2");
snippet!(touch_debug: "mov rax, dr7", "ud2");
snippet!(store: "mov [rdi], al", "nop", "ud2");
snippet!(load: "mov al, [rdi]", "nop", "ud2");
snippet!(write_reserved: "mov rax, 0x100000000", "mov dr7, rax", "ud2");
snippet!(alias: "mov rax, dr4", "ud2");

pub(crate) fn run(t: &Transcript) {
    steps(t);
    debug_registers(t);
}

fn stepped(code: &'static [u8]) -> State {
    cpu::set_dr6(0xFFFF_0FF0);
    State {
        rflags: 2 | TF,
        ..lab::kernel(code)
    }
}

/// DR6 and the pushed flags.
fn status(state: &State) -> Pair {
    let dr6 = cpu::dr6();
    cpu::set_dr6(0xFFFF_0FF0);
    Pair(Left("dr6", dr6), Left("rflags", state.rflags))
}

struct Pair(Left, Left);

impl core::fmt::Display for Pair {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(f)?;
        self.1.fmt(f)
    }
}

fn steps(t: &Transcript) {
    for (name, code) in [
        ("step-nop", plain as fn() -> &'static [u8]),
        ("step-jump", jump),
        ("step-mov-cr", read_cr),
        ("step-sti", unmask),
        ("step-int", software),
        ("step-undefined", undefined),
        ("step-pushf", push_flags),
        ("step-cpuid", call_cpuid),
        ("step-hlt", halt),
    ] {
        t.case_with(name, || stepped(code()), status);
    }
    for (name, code) in [
        ("step-mov-ss", stack_load as fn() -> &'static [u8]),
        ("step-push-pop", stack_pop),
    ] {
        t.case_with(
            name,
            || {
                let mut state = stepped(code());
                state.gpr[0] = selector::DATA;
                state
            },
            status,
        );
    }
    t.case_with("step-after-popf", || lab::kernel(turn_on()), status);
    t.case_with(
        "step-user",
        || State {
            rflags: 2 | TF,
            ..lab::user(plain())
        },
        status,
    );
    t.case_with(
        "step-rep",
        || {
            let mut state = stepped(repeat());
            (state.gpr[1], state.gpr[6], state.gpr[7]) = (3, lab::DATA, lab::DATA + 0x100);
            state
        },
        |s| Left("rcx", s.gpr[1]),
    );
    t.case_with(
        "step-rep-last",
        || {
            let mut state = stepped(repeat());
            (state.gpr[1], state.gpr[6], state.gpr[7]) = (1, lab::DATA, lab::DATA + 0x100);
            state
        },
        |s| Left("rcx", s.gpr[1]),
    );
}

fn debug_registers(t: &Transcript) {
    /// Reserved bits that are one.
    const NONE: u64 = 0x400;
    cpu::set_dr6(0xFFFF_0FF0);
    let at_code = lab::WINDOW + lab::CODE;
    fn clear(state: &State) -> Pair {
        cpu::set_dr7(NONE);
        status(state)
    }
    t.case_with(
        "debug-execute",
        || {
            cpu::set_dr0(at_code + 1);
            cpu::set_dr7(NONE | 3);
            lab::kernel(plain())
        },
        clear,
    );
    t.case_with(
        "debug-execute-resume",
        || {
            cpu::set_dr0(at_code);
            cpu::set_dr7(NONE | 3);
            State {
                rflags: 2 | RF,
                ..lab::kernel(plain())
            }
        },
        clear,
    );
    for (name, condition, code) in [
        ("debug-write", 1, store as fn() -> &'static [u8]),
        ("debug-write-by-read", 1, load),
        ("debug-access-by-read", 3, load),
    ] {
        t.case_with(
            name,
            || {
                cpu::set_dr0(lab::DATA + 8);
                cpu::set_dr7(NONE | 3 | condition << 16);
                let mut state = lab::kernel(code());
                state.gpr[7] = lab::DATA + 8;
                state
            },
            clear,
        );
    }
    t.case_with(
        "debug-general-detect",
        || {
            cpu::set_dr7(NONE | 1 << 13);
            lab::kernel(touch_debug())
        },
        clear,
    );
    t.case("debug-reserved", || lab::kernel(write_reserved()));
    t.case("debug-cpl3", || lab::user(touch_debug()));
    t.case("debug-alias", || lab::kernel(alias()));
    let cr4 = cpu::cr4();
    cpu::set_cr4(cr4 | 8);
    t.case("debug-alias-extensions", || lab::kernel(alias()));
    cpu::set_cr4(cr4);
}
