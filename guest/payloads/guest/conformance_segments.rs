// SPDX-License-Identifier: MIT
//! Segment loads, limits and types, canonical addresses.

use crate::{Left, Text, Transcript};
use guest_rt::lab::{self, State, descriptor, selector};
use guest_rt::snippet;

/// The selector of the descriptor under test.
const TEST: u64 = selector::FREE;

snippet!(load_ds: "mov ds, eax", "ud2");
snippet!(load_ss: "mov ss, eax", "ud2");
snippet!(load_fs: "mov fs, eax", "ud2");
snippet!(load_cs: ".byte 0x8e, 0xc8", "ud2");
snippet!(load_task: "ltr ax", "ud2");
snippet!(load_local: "lldt ax", "ud2");
snippet!(read_ds32: ".code32", "mov ds, eax", "mov ebx, [edi]", "ud2");
snippet!(write_ds32: ".code32", "mov ds, eax", "mov [edi], ebx", "ud2");
snippet!(read_ss32: ".code32", "mov ss, eax", "mov ebx, ss:[edi]", "ud2");
snippet!(push_ss32: ".code32", "mov ss, eax", "mov esp, edi", "push ebx", "ud2");
snippet!(read_cs32: ".code32", "mov ebx, cs:[edi]", "ud2");
snippet!(write_cs32: ".code32", "mov cs:[edi], ebx", "ud2");
snippet!(read64: "mov rbx, [rdi]", "ud2");
snippet!(read_rbp: "mov rbx, [rbp]", "ud2");
snippet!(push64: "mov rsp, rdi", "push rbx", "ud2");
snippet!(load_far: "lss ebx, [rdi]", "ud2");
snippet!(rights: "xor ebx, ebx", "xor ecx, ecx", "lar ebx, eax", "setz cl", "lsl edx, eax", "setz ch", "ud2");
snippet!(verify: "xor ebx, ebx", "verr ax", "setz bl", "verw ax", "setz bh", "ud2");
snippet!(pop_fs: "push rax", "pop fs", "ud2");

/// Descriptors to load: name, low half.
const KINDS: [(&str, u64); 11] = [
    ("data", descriptor::DATA),
    ("data-read-only", descriptor::DATA & !descriptor::READ_WRITE),
    ("data-not-present", descriptor::DATA & !descriptor::PRESENT),
    ("data-dpl3", descriptor::USER_DATA),
    ("code", descriptor::CODE64),
    ("code-execute-only", descriptor::CODE64 & !descriptor::READ_WRITE),
    ("code-conforming", descriptor::CODE64 | descriptor::CONFORMING),
    ("code-dpl3", descriptor::USER64),
    ("system", 0x0000_8900_0000_0067),
    ("empty", 0),
    ("not-present-code", descriptor::CODE64 & !descriptor::PRESENT),
];

pub(crate) fn run(t: &Transcript) {
    loads(t);
    task_and_local(t);
    limits(t);
    canonical(t);
}

fn with_rax(mut state: State, rax: u64) -> State {
    state.gpr[0] = rax;
    state
}

fn loads(t: &Transcript) {
    for (kind, low) in KINDS {
        for (register, code) in [("ds", load_ds as fn() -> &'static [u8]), ("ss", load_ss)] {
            for (ring, rpl) in [("cpl0", 0), ("cpl0-rpl3", 3), ("cpl3", 3)] {
                let name = Text::of(&["seg-load", register, kind, ring]);
                t.case_with(
                    name.text(),
                    || {
                        lab::set_descriptor(TEST, low);
                        let code = code();
                        let state = if ring == "cpl3" {
                            lab::user(code)
                        } else {
                            lab::kernel(code)
                        };
                        with_rax(state, TEST | rpl)
                    },
                    |s| Left(register, if register == "ds" { s.data[0] } else { s.ss } & 0xFFFF),
                );
            }
        }
        for (ring, rpl) in [("cpl0", 0), ("cpl3", 3)] {
            let name = Text::of(&["seg-look", kind, ring]);
            let make = |code: fn() -> &'static [u8]| {
                lab::set_descriptor(TEST, low);
                let state = if rpl == 3 {
                    lab::user(code())
                } else {
                    lab::kernel(code())
                };
                with_rax(state, TEST | rpl)
            };
            t.case_with(
                name.text(),
                || make(rights),
                |s| Left("lar", s.gpr[3] & 0xFFFF_FF00 | s.gpr[1]),
            );
            let name = Text::of(&["seg-verify", kind, ring]);
            t.case_with(name.text(), || make(verify), |s| Left("verr-verw", s.gpr[3]));
        }
    }
    t.case("seg-load-ds-null", || lab::kernel(load_ds()));
    t.case("seg-load-ds-null-cpl3", || with_rax(lab::user(load_ds()), 3));
    t.case("seg-load-ss-null", || lab::kernel(load_ss()));
    t.case("seg-load-ss-null-rpl3", || with_rax(lab::kernel(load_ss()), 3));
    t.case("seg-load-ss-null-cpl3", || with_rax(lab::user(load_ss()), 3));
    t.case("seg-load-ds-past-limit", || {
        with_rax(lab::kernel(load_ds()), 0x0FF8)
    });
    t.case("seg-load-fs-past-limit-cpl3", || {
        with_rax(lab::user(load_fs()), 0x0FFB)
    });
    t.case("seg-load-ds-no-ldt", || with_rax(lab::kernel(load_ds()), 0x0C));
    t.case("seg-load-cs", || {
        with_rax(lab::kernel(load_cs()), selector::CODE64)
    });
    t.case("seg-pop-fs-not-present", || {
        lab::set_descriptor(TEST, descriptor::DATA & !descriptor::PRESENT);
        with_rax(lab::kernel(pop_fs()), TEST)
    });
    t.case_with(
        "seg-lss-not-present",
        || {
            lab::set_descriptor(TEST, descriptor::DATA & !descriptor::PRESENT);
            guest_rt::memory::write_u64(lab::frame(lab::DATA_PAGE), TEST << 32 | 0x1234);
            let mut state = lab::kernel(load_far());
            state.gpr[7] = lab::DATA;
            state
        },
        |s| Left("rbx", s.gpr[3]),
    );
    t.case_with(
        "seg-accessed-bit",
        || {
            lab::set_descriptor(TEST, descriptor::DATA & !(1 << 40));
            with_rax(lab::kernel(load_ds()), TEST)
        },
        |_| Left("descriptor", guest_rt::memory::read_u64(lab::gdt_slot(TEST >> 3))),
    );
}

fn task_and_local(t: &Transcript) {
    let system = |kind: u64| lab::system_descriptor(lab::task_state(0), 0x67, kind);
    for (name, kind, code) in [
        ("seg-ltr-available", 0x9, load_task as fn() -> &'static [u8]),
        ("seg-ltr-busy", 0xB, load_task),
        ("seg-ltr-ldt", 0x2, load_task),
        ("seg-ltr-16-bit", 0x1, load_task),
        ("seg-lldt", 0x2, load_local),
        ("seg-lldt-tss", 0x9, load_local),
    ] {
        t.case_with(
            name,
            || {
                lab::set_wide_descriptor(TEST, system(kind));
                with_rax(lab::kernel(code()), TEST)
            },
            |_| {
                Left(
                    "type",
                    guest_rt::memory::read_u64(lab::gdt_slot(TEST >> 3)) >> 40 & 0x1F,
                )
            },
        );
    }
    t.case("seg-ltr-not-present", || {
        let [low, high] = system(9);
        lab::set_wide_descriptor(TEST, [low & !descriptor::PRESENT, high]);
        with_rax(lab::kernel(load_task()), TEST)
    });
    t.case("seg-lldt-not-present", || {
        let [low, high] = system(2);
        lab::set_wide_descriptor(TEST, [low & !descriptor::PRESENT, high]);
        with_rax(lab::kernel(load_local()), TEST)
    });
    t.case("seg-ltr-null", || lab::kernel(load_task()));
    t.case("seg-lldt-null", || lab::kernel(load_local()));
    t.case("seg-ltr-local", || with_rax(lab::kernel(load_task()), TEST | 4));
    t.case("seg-ltr-cpl3", || with_rax(lab::user(load_task()), TEST));
    t.case("seg-lldt-cpl3", || with_rax(lab::user(load_local()), TEST));
}

/// Data segments of one page of bytes, in compatibility mode.
fn limits(t: &Transcript) {
    const BASE: u64 = lab::DATA;
    /// Base [`BASE`], limit 0xFFF in bytes, 32 bits.
    const SMALL: u64 = 0x0040_9300_0000_0FFF | (BASE & 0xFF_FFFF) << 16 | (BASE >> 24) << 56;
    const EXPAND_DOWN: u64 = SMALL | 1 << 42;
    let accesses: [(&str, fn() -> &'static [u8]); 4] = [
        ("read", read_ds32),
        ("write", write_ds32),
        ("stack-read", read_ss32),
        ("push", push_ss32),
    ];
    for (access, code) in accesses {
        for (place, low, at) in [
            ("last", SMALL, 0xFFC),
            ("across", SMALL, 0xFFD),
            ("past", SMALL, 0x1000),
            ("wrap", SMALL, 0xFFFF_FFFE),
            ("down-below", EXPAND_DOWN, 0xFFC),
            ("down-across", EXPAND_DOWN, 0xFFF),
            ("down-above", EXPAND_DOWN, 0x1000),
            ("read-only", SMALL & !descriptor::READ_WRITE, 0x10),
        ] {
            let name = Text::of(&["seg-limit", access, place]);
            t.case(name.text(), || {
                lab::set_descriptor(TEST, low);
                let mut state = with_rax(lab::kernel32(code()), TEST);
                state.gpr[7] = at + if access == "push" { 4 } else { 0 };
                state
            });
        }
        let name = Text::of(&["seg-limit", access, "null"]);
        t.case(name.text(), || {
            let mut state = lab::kernel32(code());
            state.gpr[7] = lab::DATA;
            state
        });
    }
    for (name, change, code) in [
        ("seg-code-read", 0, read_cs32 as fn() -> &'static [u8]),
        ("seg-code-read-execute-only", descriptor::READ_WRITE, read_cs32),
        ("seg-code-write", 0, write_cs32),
    ] {
        t.case(name, || {
            lab::set_descriptor(TEST, descriptor::CODE32 & !change);
            let mut state = lab::kernel32(code());
            state.cs = TEST;
            state.gpr[7] = lab::DATA;
            state
        });
    }
    t.case("seg-code-limit", || {
        // The limit ends within the second instruction.
        let base = lab::WINDOW + lab::CODE;
        let low = 0x0040_9B00_0000_0000 | (base & 0xFF_FFFF) << 16 | (base >> 24) << 56 | 2;
        lab::set_descriptor(TEST, low);
        let mut state = lab::kernel32(&[0x90, 0xB8, 1, 0, 0, 0]);
        (state.cs, state.rip) = (TEST, 0);
        state
    });
}

fn canonical(t: &Transcript) {
    const HOLE: u64 = 0x0000_8000_0000_0000;
    for (name, code, at) in [
        ("canonical-read", read64 as fn() -> &'static [u8], HOLE),
        ("canonical-read-high", read64, 0xFFFF_7FFF_FFFF_FFF8),
        ("canonical-across", read64, HOLE - 4),
        ("canonical-stack-read", read_rbp, HOLE),
        ("canonical-push", push64, HOLE + 8),
        ("canonical-upper-half", read64, 0xFFFF_8000_0000_0000),
    ] {
        for ring3 in [false, true] {
            let label = Text::of(&[name, if ring3 { "cpl3" } else { "cpl0" }]);
            t.case(label.text(), || {
                let mut state = if ring3 {
                    lab::user(code())
                } else {
                    lab::kernel(code())
                };
                (state.gpr[7], state.gpr[5]) = (at, at);
                state
            });
        }
    }
}
