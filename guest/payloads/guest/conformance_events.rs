// SPDX-License-Identifier: MIT
//! Delivery of exceptions and interrupts: gates, software interrupts, nesting, interrupt shadows, NMIs, HLT,
//! the local APIC and its timer.

use crate::{Left, Text, Transcript, frame};
use guest_rt::lab::{self, State, descriptor, selector};
use guest_rt::report::info;
use guest_rt::time::Deadline;
use guest_rt::{cpu, lapic, memory, snippet, trap};

/// The selector of the descriptor under test.
const TEST: u64 = selector::FREE;
const HOLE: u64 = 0x0000_8000_0000_0000;
/// The vector of the gate under test and of interrupts.
const VECTOR: u64 = 0x60;
/// Interrupt gate of ring 3.
const OPEN: u64 = 0xEE;

snippet!(software: "int 0x60", "ud2");
snippet!(breakpoint: "int3", "ud2");
snippet!(breakpoint_long: ".byte 0xcd, 0x03", "ud2");
snippet!(debug: ".byte 0xf1", "ud2");
snippet!(overflow: ".byte 0xce", "ud2");
snippet!(overflow32: ".code32", "mov eax, 0x7fffffff", "inc eax", "into", "ud2");
snippet!(no_overflow32: ".code32", "xor eax, eax", "into", "ud2");
snippet!(bound: ".byte 0x62, 0x07", "ud2");
snippet!(bound32: ".code32", "bound eax, [edi]", "ud2");
snippet!(divide: "xor edx, edx", "xor ecx, ecx", "div ecx", "ud2");
snippet!(divide_signed: "mov eax, 0x80000000", "mov edx, 0xffffffff", "mov ecx, 0xffffffff", "idiv ecx", "ud2");
snippet!(undefined: "nop", "ud2");
snippet!(fault: "mov rax, [rdi]", "ud2");
snippet!(unmask: "sti", "nop", "nop", "ud2");
snippet!(unmask_twice: "sti", "sti", "nop", "ud2");
snippet!(unmask_then_stack: "sti", "mov ss, eax", "nop", "nop", "ud2");
snippet!(unmask_mask: "sti", "cli", "nop", "ud2");
snippet!(unmask_by_pop: "push 0x202", "popfq", "nop", "ud2");
snippet!(sleep: "sti", "hlt", "nop", "ud2");
snippet!(sleep_by_pop: "push 0x202", "popfq", "hlt", "nop", "ud2");
snippet!(idle: "nop", "nop", "ud2");
snippet!(raise_priority: "mov rax, cr8", "mov ebx, 7", "mov cr8, rbx", "sti", "nop", "nop", "mov ebx, 5", "mov cr8, rbx", "nop", "ud2");
snippet!(send_nmi: "mov [rdi], eax", "2:", "pause", "loop 2b", "ud2");
snippet!(wait: "2:", "pause", "jmp 2b");

pub(crate) fn run(t: &Transcript) {
    gates(t);
    software_interrupts(t);
    exceptions(t);
    nesting(t);
    stacks(t);
    lapic::enable();
    interrupts(t);
    nmis(t);
    timers(t);
}

fn gates(t: &Transcript) {
    for (kind, attributes, ist, to) in [
        ("interrupt", OPEN, 1, selector::CODE64),
        ("trap", 0xEF, 1, selector::CODE64),
        ("dpl0", 0x8E, 1, selector::CODE64),
        ("not-present", 0x6E, 1, selector::CODE64),
        ("task", 0xE5, 1, selector::CODE64),
        ("call", 0xEC, 1, selector::CODE64),
        ("sixteen", 0xE6, 1, selector::CODE64),
        ("zero", 0, 0, 0),
        ("to-null", OPEN, 1, 0),
        ("to-data", OPEN, 1, selector::DATA),
        ("to-code32", OPEN, 1, selector::CODE32),
        ("to-user", OPEN, 1, selector::USER64 & !3),
        ("to-not-present", OPEN, 1, TEST),
        ("to-conforming", OPEN, 1, TEST + 8),
        ("past-limit", OPEN, 1, 0xFF8),
        ("no-ist", OPEN, 0, selector::CODE64),
    ] {
        for ring3 in [false, true] {
            let name = Text::of(&["idt", kind, if ring3 { "cpl3" } else { "cpl0" }]);
            let make = || {
                lab::set_descriptor(TEST, descriptor::CODE64 & !descriptor::PRESENT);
                lab::set_descriptor(TEST + 8, descriptor::CODE64 | descriptor::CONFORMING);
                lab::set_gate_selector(VECTOR, attributes, ist, to);
                let state = if ring3 {
                    lab::user(software())
                } else {
                    lab::kernel(software())
                };
                State {
                    rflags: 0xCD7,
                    ..state
                }
            };
            t.case_with(name.text(), make, frame);
        }
    }
    t.case("idt-past-its-limit", || {
        lab::load_idt(VECTOR as u16 * 16 + 14);
        lab::kernel(software())
    });
}

fn software_interrupts(t: &Transcript) {
    for (name, code) in [
        ("int3", breakpoint as fn() -> &'static [u8]),
        ("int-3", breakpoint_long),
        ("int1", debug),
        ("into", overflow),
        ("bound", bound),
    ] {
        for (ring, open) in [("cpl0", false), ("cpl3", false), ("cpl3-dpl3", true)] {
            let label = Text::of(&["software", name, ring]);
            let make = || {
                for vector in [1, 3, 4, 5] {
                    lab::set_gate(vector, if open { OPEN } else { 0x8E }, 1);
                }
                if ring == "cpl0" {
                    lab::kernel(code())
                } else {
                    lab::user(code())
                }
            };
            t.case(label.text(), make);
        }
    }
    for (name, open) in [
        ("software-into-compatible", true),
        ("software-into-compatible-dpl0", false),
    ] {
        t.case(name, || {
            lab::set_gate(4, if open { OPEN } else { 0x8E }, 1);
            lab::user32(overflow32())
        });
    }
    t.case("software-into-not-taken", || lab::user32(no_overflow32()));
    for (name, index) in [("inside", 5_u32), ("below", 0), ("above", 11)] {
        let label = Text::of(&["software-bound-compatible", name]);
        t.case(label.text(), || {
            memory::write_u64(lab::frame(lab::DATA_PAGE), 10 << 32 | 1);
            let mut state = lab::user32(bound32());
            (state.gpr[0], state.gpr[7]) = (index.into(), lab::DATA);
            state
        });
    }
}

fn exceptions(t: &Transcript) {
    for (name, code) in [
        ("divide", divide as fn() -> &'static [u8]),
        ("divide-overflow", divide_signed),
        ("undefined", undefined),
    ] {
        t.case_with(name, || lab::kernel(code()), frame);
        let name = Text::of(&[name, "cpl3"]);
        t.case_with(name.text(), || lab::user(code()), frame);
    }
}

/// Faults while an event is delivered.
fn nesting(t: &Transcript) {
    // A gate that is not there while another exception is delivered.
    for (name, vector, code) in [
        ("nested-divide-no-gate", 0, divide as fn() -> &'static [u8]),
        ("nested-undefined-no-gate", 6, undefined),
        ("nested-gp-no-gate", 13, fault),
        ("nested-page-fault-no-gate", 14, fault),
    ] {
        t.case(name, || {
            lab::set_gate(vector, 0x0E, 1);
            let mut state = lab::kernel(code());
            state.gpr[7] = if vector == 13 { HOLE } else { lab::DATA };
            lab::set_page(lab::DATA_PAGE, 0);
            state
        });
    }
    // The handler's stack is not mapped, or not canonical.
    for (kind, top, page) in [
        ("not-mapped", lab::WINDOW + 0xA000, 9),
        ("not-canonical", HOLE + 0x1000, 15),
    ] {
        for (event, vector, code) in [
            ("undefined", 6, undefined as fn() -> &'static [u8]),
            ("gp", 13, fault),
            ("page-fault", 14, fault),
            ("software", VECTOR, software),
        ] {
            let name = Text::of(&["nested-stack", kind, event]);
            t.case(name.text(), || {
                lab::set_page(page, 0);
                lab::set_page(lab::DATA_PAGE, 0);
                memory::write(lab::task_state(0x2C), &top.to_le_bytes());
                lab::set_gate(vector, OPEN, 2);
                let mut state = lab::kernel(code());
                state.gpr[7] = if vector == 13 { HOLE } else { lab::DATA };
                state
            });
        }
    }
}

/// Which stack a handler gets, and how it is aligned.
fn stacks(t: &Transcript) {
    let top = |s: &State| {
        for which in 0..3 {
            if s.handler_rsp == lab::stack_top(which) {
                return Left("stack", which);
            }
        }
        Left("below", lab::STACK.wrapping_sub(s.handler_rsp))
    };
    for (name, ist, ring3, skew) in [
        ("stack-same", 0, false, 0),
        ("stack-same-skewed", 0, false, 5),
        ("stack-ring0", 0, true, 5),
        ("stack-ist1", 1, false, 3),
        ("stack-ist2-cpl3", 2, true, 0),
    ] {
        let make = || {
            lab::set_gate(VECTOR, OPEN, ist);
            let state = if ring3 {
                lab::user(software())
            } else {
                lab::kernel(software())
            };
            State {
                rsp: lab::STACK - skew,
                ..state
            }
        };
        t.case_with(name, make, top);
    }
}

/// Sends this processor an interrupt while interrupts are off.
fn send(vector: u64) {
    lapic::send_fixed(lapic::id(), vector as u8);
}

/// Says that the interrupt of the event is over.
fn finish(state: &State) -> crate::Nothing {
    if state.vector >= u64::from(trap::FIRST_INTERRUPT) && state.vector < 0x80 {
        lapic::end_of_interrupt();
    }
    crate::Nothing
}

fn interrupts(t: &Transcript) {
    for (name, code) in [
        ("interrupt-sti", unmask as fn() -> &'static [u8]),
        ("interrupt-sti-sti", unmask_twice),
        ("interrupt-sti-cli", unmask_mask),
        ("interrupt-sti-mov-ss", unmask_then_stack),
        ("interrupt-popf", unmask_by_pop),
        ("interrupt-sti-hlt", sleep),
        ("interrupt-popf-hlt", sleep_by_pop),
    ] {
        let make = || {
            send(VECTOR);
            let mut state = lab::kernel(code());
            state.gpr[0] = selector::DATA;
            state
        };
        t.case_with(name, make, finish);
        drain();
    }
    t.case_with(
        "interrupt-iret",
        || {
            send(VECTOR);
            State {
                rflags: 0x202,
                ..lab::user(idle())
            }
        },
        finish,
    );
    drain();
    t.case_with(
        "interrupt-priority",
        || {
            send(VECTOR);
            send(VECTOR + 0x10);
            lab::kernel(unmask())
        },
        finish,
    );
    drain();
    t.case_with(
        "interrupt-cr8",
        || {
            send(VECTOR);
            lab::kernel(raise_priority())
        },
        finish,
    );
    drain();
}

/// Takes what a case left pending.
fn drain() {
    cpu::set_cr8(0);
    lab::restore();
    while [VECTOR, VECTOR + 0x10]
        .iter()
        .any(|&vector| lapic::is_requested(vector as u8))
    {
        finish(&lab::kernel(sleep()).run());
    }
}

/// What ended a case, by its vector alone: where an NMI comes is the machine's choice.
fn vector(name: &str, state: &State) {
    info(name, format_args!("v{:#x}", state.vector));
}

/// No IRET has run since an NMI's handler took over, until the lab enters the next case by one.
fn nmis(t: &Transcript) {
    if !t.wants("nmi") {
        return;
    }
    let to_self = || {
        let mut state = lab::kernel(send_nmi());
        (state.gpr[0], state.gpr[1], state.gpr[7]) = (0x4400, 100_000, lapic::command_register());
        state.run()
    };
    vector("nmi", &to_self());
    // Blocked here: of these two one is kept, and the entry's IRETQ lets it through.
    lapic::send_nmi(lapic::id());
    lapic::send_nmi(lapic::id());
    let pending = lab::kernel(idle()).run();
    info("nmi-pending", format_args!("{}", crate::Event(&pending)));
    let over = lab::kernel(idle()).run();
    info("nmi-over", format_args!("{}", crate::Event(&over)));
    lab::set_gate(2, 0x8E, 2);
    vector("nmi-again", &to_self());
    lapic::send_nmi(lapic::id());
    let in_user = lab::user(idle()).run();
    info(
        "nmi-in-user",
        format_args!("{}{}", crate::Event(&in_user), frame(&in_user)),
    );
    let after = lab::kernel(idle()).run();
    info("nmi-after", format_args!("{}", crate::Event(&after)));
}

fn timers(t: &Transcript) {
    const COUNT: u32 = 200_000;
    if t.wants("timer-one-shot") {
        lapic::start_timer(VECTOR as u8, COUNT);
        let end = lab::kernel(sleep()).run();
        finish(&end);
        let gone = lapic::timer_count();
        info("timer-one-shot", format_args!("{} count {gone}", Wake(&end)));
        let again = Deadline::in_ms(3).wait(|| lapic::is_requested(VECTOR as u8));
        info("timer-one-shot-again", format_args!("{again}"));
    }
    if t.wants("timer-periodic") {
        lapic::start_periodic_timer(VECTOR as u8, COUNT);
        for turn in ["first", "second", "third"] {
            let end = lab::kernel(sleep()).run();
            finish(&end);
            let name = Text::of(&["timer-periodic", turn]);
            info(name.text(), format_args!("{}", Wake(&end)));
        }
        lapic::stop_timer();
        drain();
    }
    if t.wants("timer-masked") {
        lapic::start_masked_timer(VECTOR as u8, COUNT);
        let came = Deadline::in_ms(3).wait(|| lapic::is_requested(VECTOR as u8));
        info(
            "timer-masked",
            format_args!("requested {came} count {}", lapic::timer_count()),
        );
        lapic::stop_timer();
    }
    if t.wants("timer-breaks-loop") {
        lapic::start_timer(VECTOR as u8, COUNT);
        let end = State {
            rflags: 0x202,
            ..lab::user(wait())
        }
        .run();
        finish(&end);
        info("timer-breaks-loop", format_args!("v{:#x}", end.vector));
    }
    if t.wants("timer-tsc-deadline") {
        tsc_deadline();
    }
    lapic::stop_timer();
}

/// Where HLT is left: right behind it.
struct Wake<'a>(&'a State);

impl core::fmt::Display for Wake<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        crate::Event(self.0).fmt(f)
    }
}

fn tsc_deadline() {
    const DEADLINE: u32 = 0x6E0;
    if cpu::cpuid(1, 0)[2] & 1 << 24 == 0 {
        info("timer-tsc-deadline", format_args!("not advertised"));
        return;
    }
    lapic::select_tsc_deadline(VECTOR as u8);
    cpu::wrmsr(DEADLINE, cpu::tsc() + 1_000_000);
    let end = lab::kernel(sleep()).run();
    finish(&end);
    let left = cpu::rdmsr(DEADLINE);
    info("timer-tsc-deadline", format_args!("{} left {left}", Wake(&end)));
}
