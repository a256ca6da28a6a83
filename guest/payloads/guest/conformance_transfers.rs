// SPDX-License-Identifier: MIT
//! Far transfers, call gates, IRET, system calls.

use crate::{Left, Text, Transcript, frame};
use guest_rt::cpu::{self, msr};
use guest_rt::lab::{self, State, descriptor, selector};
use guest_rt::{memory, snippet};

/// The selector of the descriptor under test; gates take two slots.
const TEST: u64 = selector::FREE;
/// Another one.
const OTHER: u64 = selector::FREE + 0x10;
/// Where the transfers of these cases go: a page of its own, with a UD2.
const TARGET: u64 = lab::WINDOW + 0x6000;
const HOLE: u64 = 0x0000_8000_0000_0000;

const STAR: u32 = 0xC000_0081;
const LSTAR: u32 = 0xC000_0082;
const CSTAR: u32 = 0xC000_0083;
const SFMASK: u32 = 0xC000_0084;
const SYSENTER: [u32; 3] = [0x174, 0x175, 0x176];

snippet!(jump_far: "jmp fword ptr [rdi]", "ud2");
snippet!(call_far: "call fword ptr [rdi]", "ud2");
snippet!(return_far: "push rax", "push rbx", "retfq");
snippet!(jump_near: "jmp rdi");
snippet!(call_near: "call rdi", "ud2");
snippet!(return_near: "push rdi", "ret");
snippet!(interrupt_return: "push r8", "push r9", "push r10", "push r11", "push r12", "iretq");
snippet!(interrupt_return32: "push r8", "push r9", "push r10", "push r11", "push r12",
    "mov rax, [rsp]", "mov [rsp], eax", "mov rax, [rsp+8]", "mov [rsp+4], eax", "mov rax, [rsp+16]", "mov [rsp+8], eax",
    "mov rax, [rsp+24]", "mov [rsp+12], eax", "mov rax, [rsp+32]", "mov [rsp+16], eax", "iretd");
snippet!(call_system: "syscall", "ud2");
snippet!(return_system: ".byte 0x48, 0x0f, 0x07", "ud2");
snippet!(return_system32: ".byte 0x0f, 0x07", "ud2");
snippet!(enter_system: "sysenter", "ud2");
snippet!(exit_system: "sysexit", "ud2");
snippet!(return_release: "push rax", "push rbx", ".byte 0x48, 0xca, 0x10, 0x00");
snippet!(jump_far32: ".code32", "jmp fword ptr [edi]", "ud2");
snippet!(call_far32: ".code32", "call fword ptr [edi]", "ud2");

pub(crate) fn run(t: &Transcript) {
    far(t);
    far_compatible(t);
    gates(t);
    near(t);
    far_returns(t);
    interrupt_returns(t);
    system_calls(t);
}

/// A case whose far pointer at RDI is `to`, and code at the target.
fn far_to(ring3: bool, code: &[u8], (to, at): (u64, u64)) -> State {
    memory::write(lab::frame(6), &[0x0F, 0x0B]);
    memory::write_u64(lab::frame(lab::DATA_PAGE), to << 32 | at);
    let mut state = if ring3 { lab::user(code) } else { lab::kernel(code) };
    state.gpr[7] = lab::DATA;
    state
}

const fn rpl(ring3: bool) -> u64 {
    if ring3 { 3 } else { 0 }
}

fn ring(ring3: bool) -> &'static str {
    if ring3 { "cpl3" } else { "cpl0" }
}

fn far(t: &Transcript) {
    let conforming = descriptor::CODE64 | descriptor::CONFORMING;
    for (kind, low) in [
        ("code", descriptor::CODE64),
        ("code32", descriptor::CODE32),
        ("code-dpl3", descriptor::USER64),
        ("conforming", conforming),
        ("conforming-dpl3", conforming | 3 << 45),
        ("not-present", descriptor::CODE64 & !descriptor::PRESENT),
        ("long-and-big", descriptor::CODE64 | 1 << 54),
        ("data", descriptor::DATA),
        ("tss", 0x0000_8900_0000_0067),
        ("task-gate", 0x0000_8500_0000_0000),
        ("empty", 0),
    ] {
        for ring3 in [false, true] {
            for (way, code) in [("jmp", jump_far as fn() -> &'static [u8]), ("call", call_far)] {
                let name = Text::of(&["far", way, kind, ring(ring3)]);
                let make = || {
                    lab::set_descriptor(TEST, low);
                    far_to(ring3, code(), (TEST | rpl(ring3), TARGET))
                };
                t.case_with(name.text(), make, frame);
            }
        }
    }
    for (name, to) in [
        ("far-jmp-null", 0),
        ("far-jmp-null-rpl3", 3),
        ("far-jmp-past-limit", 0x0FF8),
        ("far-jmp-no-ldt", 0x0C),
    ] {
        t.case(name, || far_to(false, jump_far(), (to, TARGET)));
    }
    t.case("far-jmp-rpl-above-cpl", || {
        far_to(false, jump_far(), (selector::CODE64 | 3, TARGET))
    });
}

/// Compatibility mode: limits of the new code segment count.
fn far_compatible(t: &Transcript) {
    let small = descriptor::CODE32 & !(0xF << 48) & !(1 << 55) & !0xFFFF | 0xFFF;
    for (way, code) in [("jmp", jump_far32 as fn() -> &'static [u8]), ("call", call_far32)] {
        for (place, low, at) in [
            ("long", descriptor::CODE64, TARGET),
            ("past-limit", small, 0x1000),
            ("sixteen", descriptor::CODE32 & !(1 << 54), TARGET),
        ] {
            let name = Text::of(&["far-compatible", way, place]);
            let make = || {
                lab::set_descriptor(TEST, low);
                let state = far_to(false, code(), (TEST, at));
                State {
                    cs: selector::CODE32,
                    ..state
                }
            };
            t.case_with(name.text(), make, frame);
        }
    }
}

fn gates(t: &Transcript) {
    for (kind, attributes, to, at) in [
        ("dpl3", 0xEC, selector::CODE64, TARGET),
        ("dpl0", 0x8C, selector::CODE64, TARGET),
        ("not-present", 0x6C, selector::CODE64, TARGET),
        ("to-data", 0xEC, selector::DATA, TARGET),
        ("to-null", 0xEC, 0, TARGET),
        ("to-code32", 0xEC, selector::CODE32, TARGET),
        ("to-user", 0xEC, selector::USER64, TARGET),
        ("to-not-present", 0xEC, OTHER, TARGET),
        ("to-conforming", 0xEC, OTHER + 8, TARGET),
        ("not-canonical", 0xEC, selector::CODE64, HOLE),
    ] {
        for ring3 in [false, true] {
            for (way, code) in [("jmp", jump_far as fn() -> &'static [u8]), ("call", call_far)] {
                let name = Text::of(&["gate", way, kind, ring(ring3)]);
                let make = || {
                    lab::set_wide_descriptor(TEST, lab::gate_to(at, to, attributes, 0));
                    lab::set_descriptor(OTHER, descriptor::CODE64 & !descriptor::PRESENT);
                    lab::set_descriptor(OTHER + 8, descriptor::CODE64 | descriptor::CONFORMING);
                    far_to(ring3, code(), (TEST | rpl(ring3), 0x1234))
                };
                t.case_with(name.text(), make, frame);
            }
        }
    }
    t.case("gate-call-upper-type", || {
        let [low, high] = lab::gate_to(TARGET, selector::CODE64, 0xEC, 0);
        lab::set_wide_descriptor(TEST, [low, high | 1 << 40]);
        far_to(true, call_far(), (TEST | 3, 0))
    });
    t.case_with(
        "gate-call-frame",
        || {
            lab::set_wide_descriptor(TEST, lab::gate_to(TARGET, selector::CODE64, 0xEC, 0));
            far_to(true, call_far(), (TEST | 3, 0))
        },
        |s| {
            // SS, RSP, CS, RIP from the top of ring 0's stack down.
            let at = |n: u64| memory::read_u64(lab::stack_top(0) - 8 * n);
            let kept = at(1) == selector::USER_DATA && at(2) == lab::STACK && at(3) == selector::USER64;
            Left(
                "kept",
                u64::from(kept && s.rsp == lab::stack_top(0) - 32) << 32 | (at(4) - lab::WINDOW),
            )
        },
    );
    t.case("gate-call-stack-not-canonical", || {
        lab::set_wide_descriptor(TEST, lab::gate_to(TARGET, selector::CODE64, 0xEC, 0));
        memory::write(lab::task_state(4), &(HOLE + 0x1000).to_le_bytes());
        far_to(true, call_far(), (TEST | 3, 0))
    });
    t.case("gate-call-stack-not-mapped", || {
        lab::set_wide_descriptor(TEST, lab::gate_to(TARGET, selector::CODE64, 0xEC, 0));
        lab::set_page(9, 0);
        memory::write(lab::task_state(4), &(lab::WINDOW + 0xA000).to_le_bytes());
        far_to(true, call_far(), (TEST | 3, 0))
    });
}

/// Near transfers to addresses that are not canonical.
fn near(t: &Transcript) {
    for (name, code) in [
        ("near-jmp-not-canonical", jump_near as fn() -> &'static [u8]),
        ("near-call-not-canonical", call_near),
        ("near-ret-not-canonical", return_near),
    ] {
        let make = || {
            let mut state = lab::kernel(code());
            state.gpr[7] = HOLE;
            state
        };
        t.case_with(name, make, |s| Left("pushed", lab::STACK - s.rsp));
    }
}

fn far_returns(t: &Transcript) {
    for (name, code, to, at) in [
        (
            "retf-same",
            return_far as fn() -> &'static [u8],
            selector::CODE64,
            TARGET,
        ),
        ("retf-code32", return_far, selector::CODE32, TARGET),
        ("retf-null", return_far, 0, TARGET),
        ("retf-data", return_far, selector::DATA, TARGET),
        ("retf-not-canonical", return_far, selector::CODE64, HOLE),
        ("retf-release", return_release, selector::CODE64, TARGET),
    ] {
        let make = || {
            memory::write(lab::frame(6), &[0x0F, 0x0B]);
            let mut state = lab::kernel(code());
            (state.gpr[0], state.gpr[3]) = (to, at);
            state
        };
        t.case_with(name, make, |s| Left("released", s.rsp.wrapping_sub(lab::STACK)));
    }
    // To ring 3 the stack follows; data segments that ring 3 must not use become null.
    for (name, ss) in [
        ("retf-outer", selector::USER_DATA),
        ("retf-outer-null-stack", 0),
        ("retf-outer-bad-stack", selector::DATA),
    ] {
        let make = || {
            memory::write(lab::frame(6), &[0x0F, 0x0B]);
            let mut state = lab::kernel(return_far());
            (state.gpr[0], state.gpr[3]) = (selector::USER64, TARGET);
            state.rsp = lab::STACK - 16;
            memory::write_u64(lab::frame(2) + 0xFF0, lab::STACK - 0x100);
            memory::write_u64(lab::frame(2) + 0xFF8, ss);
            state
        };
        t.case_with(name, make, |s| Left("ds", s.data[0]));
    }
    t.case("retf-inner", || {
        let mut state = lab::user(return_far());
        (state.gpr[0], state.gpr[3]) = (selector::CODE64, TARGET);
        state
    });
}

/// What IRET takes from the stack.
#[derive(Clone, Copy)]
struct Wanted {
    ss: u64,
    rsp: u64,
    rflags: u64,
    cs: u64,
    rip: u64,
}

const SAME: Wanted = Wanted {
    ss: selector::DATA,
    rsp: lab::STACK - 0x200,
    rflags: 2,
    cs: selector::CODE64,
    rip: TARGET,
};
const OUTER: Wanted = Wanted {
    ss: selector::USER_DATA,
    cs: selector::USER64,
    ..SAME
};

fn iret(base: State, w: Wanted) -> State {
    memory::write(lab::frame(6), &[0x0F, 0x0B]);
    let mut state = base;
    state.gpr[8..13].copy_from_slice(&[w.ss, w.rsp, w.rflags, w.cs, w.rip]);
    state
}

/// Names and frames.
const RETURNS: [(&str, Wanted); 17] = [
    ("same", SAME),
    ("same-null-stack", Wanted { ss: 0, ..SAME }),
    (
        "same-flags",
        Wanted {
            rflags: 0x0025_4AD7 & !0x300,
            ..SAME
        },
    ),
    (
        "same-compatible",
        Wanted {
            cs: selector::CODE32,
            ..SAME
        },
    ),
    ("same-not-canonical", Wanted { rip: HOLE, ..SAME }),
    (
        "same-bad-stack",
        Wanted {
            ss: selector::USER_DATA,
            ..SAME
        },
    ),
    ("null-code", Wanted { cs: 0, ..SAME }),
    (
        "data-code",
        Wanted {
            cs: selector::DATA,
            ..SAME
        },
    ),
    ("past-limit-code", Wanted { cs: 0xFF8, ..SAME }),
    ("outer", OUTER),
    ("outer-null-stack", Wanted { ss: 3, ..OUTER }),
    (
        "outer-bad-stack",
        Wanted {
            ss: selector::DATA,
            ..OUTER
        },
    ),
    (
        "outer-compatible",
        Wanted {
            cs: selector::USER32,
            ..OUTER
        },
    ),
    (
        "outer-compatible-null-stack",
        Wanted {
            cs: selector::USER32,
            ss: 3,
            ..OUTER
        },
    ),
    ("outer-not-canonical", Wanted { rip: HOLE, ..OUTER }),
    (
        "outer-wrong-rpl",
        Wanted {
            cs: selector::CODE64 | 3,
            ..OUTER
        },
    ),
    (
        "virtual-8086",
        Wanted {
            rflags: 2 | 1 << 17,
            ..SAME
        },
    ),
];

fn interrupt_returns(t: &Transcript) {
    for (kind, wanted) in RETURNS {
        let name = Text::of(&["iret", kind]);
        t.case_with(
            name.text(),
            || iret(lab::kernel(interrupt_return()), wanted),
            frame,
        );
    }
    t.case_with(
        "iretd-same",
        || iret(lab::kernel(interrupt_return32()), SAME),
        frame,
    );
    t.case_with(
        "iretd-outer",
        || iret(lab::kernel(interrupt_return32()), OUTER),
        frame,
    );
    t.case_with(
        "iret-nested-task",
        || {
            let state = iret(lab::kernel(interrupt_return()), SAME);
            State {
                rflags: 2 | 1 << 14,
                ..state
            }
        },
        frame,
    );
    t.case_with(
        "iret-user-same",
        || iret(lab::user(interrupt_return()), OUTER),
        frame,
    );
    t.case_with(
        "iret-user-inner",
        || iret(lab::user(interrupt_return()), SAME),
        frame,
    );
    t.case_with(
        "iret-user-flags",
        || {
            iret(
                lab::user(interrupt_return()),
                Wanted {
                    rflags: 0x3202,
                    ..OUTER
                },
            )
        },
        frame,
    );
    t.case_with(
        "iret-outer-data-nulled",
        || iret(lab::kernel(interrupt_return()), OUTER),
        |s| Left("ds", s.data[0]),
    );
}

fn system_calls(t: &Transcript) {
    let efer = cpu::rdmsr(msr::EFER);
    t.case("syscall-disabled", || lab::user(call_system()));
    cpu::wrmsr(msr::EFER, efer | 1);
    cpu::wrmsr(STAR, 0x0020_0008 << 32);
    cpu::wrmsr(LSTAR, TARGET);
    cpu::wrmsr(CSTAR, TARGET + 0x10);
    cpu::wrmsr(SFMASK, 0x4_0600);
    let ready = |state: State| {
        memory::write(lab::frame(6), &[0x0F, 0x0B]);
        memory::write(lab::frame(6) + 0x10, &[0x0F, 0x0B]);
        state
    };
    let flags = 0x0000_0CD7;
    t.case_with(
        "syscall-user",
        || {
            ready(State {
                rflags: flags,
                ..lab::user(call_system())
            })
        },
        frame,
    );
    t.case_with(
        "syscall-user-saved",
        || {
            ready(State {
                rflags: flags,
                ..lab::user(call_system())
            })
        },
        |s| Left("rcx+r11", (s.gpr[1] - lab::WINDOW) << 32 | s.gpr[11]),
    );
    t.case_with("syscall-kernel", || ready(lab::kernel(call_system())), frame);
    t.case_with(
        "syscall-compatible",
        || {
            ready(State {
                cs: selector::USER32,
                ..lab::user(call_system())
            })
        },
        frame,
    );
    for (name, code, at) in [
        ("sysret-64", return_system as fn() -> &'static [u8], TARGET),
        ("sysret-32", return_system32, TARGET),
    ] {
        t.case_with(
            name,
            || {
                let mut state = ready(lab::kernel(code()));
                (state.gpr[1], state.gpr[11]) = (at, 0x3_4AD7 & !0x300);
                state
            },
            frame,
        );
    }
    t.case("sysret-user", || ready(lab::user(return_system())));
    cpu::wrmsr(msr::EFER, efer);
    t.case("sysret-disabled", || lab::kernel(return_system()));
    for register in SYSENTER {
        cpu::wrmsr(register, 0);
    }
    t.case("sysenter-null", || lab::user32(enter_system()));
    t.case("sysexit-null", || lab::kernel(exit_system()));
    t.case("sysexit-user", || lab::user(exit_system()));
    for (register, value) in SYSENTER.into_iter().zip([selector::CODE64, lab::STACK, TARGET]) {
        cpu::wrmsr(register, value);
    }
    t.case_with(
        "sysenter-compatible",
        || ready(lab::user32(enter_system())),
        frame,
    );
    t.case_with("sysenter-long", || ready(lab::user(enter_system())), frame);
    for register in SYSENTER {
        cpu::wrmsr(register, 0);
    }
}
