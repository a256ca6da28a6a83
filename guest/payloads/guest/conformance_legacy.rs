// SPDX-License-Identifier: MIT
//! The older modes: rights and reserved bits of 2-level and PAE page tables, segments and gates of 32-bit
//! protected mode, and what real mode does and refuses.

use crate::{Left, Nothing, Text, Transcript};
use core::fmt::{self, Display, Formatter};
use guest_rt::legacy::{self, Case, DATA, FRAME, NXE, PAGE, Paging, TABLE, WP, selector};
use guest_rt::report::info;
use guest_rt::{memory, snippet};

snippet!(read: ".code32", "mov eax, [ecx]");
snippet!(write: ".code32", "mov [ecx], eax");
snippet!(jump: ".code32", "jmp ecx");
snippet!(load_ds: ".code32", "mov ds, eax");
snippet!(load_ss: ".code32", "mov ss, eax");
snippet!(use_ds: ".code32", "mov ds, eax", "mov ebx, [ecx]", "mov [edx], ebx");
snippet!(use_cs: ".code32", "mov eax, cs:[ecx]", "mov cs:[ecx], eax");
snippet!(int_34: ".code32", "int 0x34");
snippet!(overflow: ".code32", "mov al, 0x7F", "inc al", "into");
snippet!(bound: ".code32", "bound eax, [ecx]");
snippet!(divide: ".code32", "aam 0");
snippet!(load_far: ".code32", "lds eax, [ecx]");
snippet!(decimal: ".code32", "mov al, 0x79", "add al, 0x35", "daa", "mov bl, al", "mov al, 0x38", "add al, 9", "aaa");
snippet!(push_all: ".code32", "pushad", "popad", "pushad", "mov ebx, [esp + 12]");
snippet!(old_increment: ".code32", "mov eax, 0xFFFF", ".byte 0x66, 0x40", "dec eax");
snippet!(adjust_rights: ".code32", "mov ax, 0x10", "mov bx, 0x33", "arpl ax, bx");
snippet!(syscall: ".code32", "syscall");

snippet!(real_lldt: ".code16", "lldt ax");
snippet!(real_ltr: ".code16", "ltr ax");
snippet!(real_lar: ".code16", "lar ax, bx");
snippet!(real_verr: ".code16", "verr ax");
snippet!(real_arpl: ".code16", "arpl ax, bx");
snippet!(real_read: ".code16", "mov ax, [bx]");
snippet!(real_read_byte: ".code16", "mov al, [bx]");
snippet!(real_read_stack: ".code16", "mov ax, [bp]");
snippet!(real_wide: ".code16", "mov ax, [ebx]");
snippet!(real_interrupt: ".code16", "int 0x34");
snippet!(real_segment: ".code16", "mov ax, 0xE00", "mov ds, ax", "mov eax, [4]");
snippet!(real_call: ".code16", "push cs", "call 3f", "jmp 4f", "3:", "mov bx, 0x77", "retf", "4:");
snippet!(real_wrap: ".code16", "xor sp, sp", "push ax");
snippet!(real_string: ".code16", "mov si, 0xE000", "mov di, 0xE100", "mov cx, 16", "cld", "rep movsb", "mov ax, [0xE10E]");

/// Flags of an entry.
const RIGHTS: [(&str, u64); 5] = [("none", 0), ("r-s", 1), ("rw-s", 3), ("r-u", 5), ("rw-u", 7)];
const BOTH: [(&str, Paging); 2] = [("2-level", Paging::TwoLevel), ("pae", Paging::Pae)];

pub(crate) fn run(t: &Transcript) {
    for (name, paging) in BOTH {
        rights(t, name, paging);
    }
    large_pages(t);
    no_execute(t);
    segments(t);
    gates(t);
    instructions(t);
    real_mode(t);
}

/// What ended a case.
struct Event<'a>(&'a Case);

impl Display for Event<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(case) = self;
        let at = u64::from(case.eip);
        write!(f, "v{:#x} e{:#x} ", case.vector, case.error)?;
        match at.wrapping_sub(legacy::CODE) {
            offset if offset < 0x1000 => write!(f, "ip+{offset:#x}")?,
            _ => write!(f, "ip {at:#x}")?,
        }
        if case.vector == 14 {
            write!(f, " cr2 {:#x}", case.cr2)?;
        }
        Ok(())
    }
}

fn case(t: &Transcript, name: &str, make: impl FnOnce() -> Case) {
    case_with(t, name, make, |_| Nothing);
}

fn case_with<D: Display>(
    t: &Transcript,
    name: &str,
    make: impl FnOnce() -> Case,
    more: impl FnOnce(&Case) -> D,
) {
    if t.wants(name) {
        legacy::restore();
        let end = make().run();
        info(name, format_args!("{}{}", Event(&end), more(&end)));
    }
}

/// A case that touches [`PAGE`].
fn at_page(code: &[u8], user: bool) -> Case {
    let mut case = legacy::protected(code);
    case.gpr[1] = PAGE as u32;
    if user { case.user() } else { case }
}

/// Accessed and dirty bits of [`PAGE`]'s entry, as a part of the line.
fn entry_bits(paging: Paging) -> Left {
    let size = if paging == Paging::Pae { 8 } else { 4 };
    Left("marks", u64::from(memory::read_u32(TABLE + size)) & 0x60)
}

fn rights(t: &Transcript, name: &str, paging: Paging) {
    let accesses: [(&str, fn() -> &'static [u8], bool, u32); 5] = [
        ("read-cpl0", read, false, 0),
        ("write-cpl0", write, false, 0),
        ("write-cpl0-wp", write, false, WP),
        ("read-cpl3", read, true, 0),
        ("write-cpl3", write, true, 0),
    ];
    let all = RIGHTS[4];
    let pairs = RIGHTS
        .map(|r| (r, all))
        .into_iter()
        .chain(RIGHTS.map(|r| (all, r)).into_iter().take(4));
    for ((upper, directory), (lower, entry)) in pairs {
        for (access, code, user, wp) in accesses {
            let name = Text::of(&["legacy", name, upper, lower, access]);
            let make = || {
                let mut case = at_page(code(), user).paged(paging, TABLE | directory, FRAME | entry);
                case.cr0 |= wp;
                case
            };
            case_with(t, name.text(), make, |_| entry_bits(paging));
        }
    }
    let gone = Text::of(&["legacy", name, "fetch-absent"]);
    case(t, gone.text(), || {
        at_page(jump(), false).paged(paging, TABLE | 7, 0)
    });
    let there = Text::of(&["legacy", name, "fetch"]);
    case_with(
        t,
        there.text(),
        || {
            memory::write(FRAME, &[0xCD, legacy::DONE as u8]);
            at_page(jump(), true).paged(paging, TABLE | 7, FRAME | 7)
        },
        |_| entry_bits(paging),
    );
    let mapped = Text::of(&["legacy", name, "translates"]);
    case_with(
        t,
        mapped.text(),
        || {
            memory::write_u32(FRAME, 0x1234_5678);
            at_page(read(), true).paged(paging, TABLE | 7, FRAME | 7)
        },
        |end| Left("eax", end.gpr[0].into()),
    );
}

fn large_pages(t: &Transcript) {
    let eax = |end: &Case| Left("eax", end.gpr[0].into());
    let filled = |paging, directory| {
        // Where the same offset of a large page at 0 is.
        memory::write_u32(0x1000, 0x8765_4321);
        at_page(read(), false).paged(paging, directory, FRAME | 7)
    };
    case_with(t, "legacy-2-level-large", || filled(Paging::TwoLevel, 0x87), eax);
    case(t, "legacy-2-level-large-reserved", || {
        filled(Paging::TwoLevel, 0x20_0087)
    });
    case_with(
        t,
        "legacy-2-level-no-pse",
        || {
            memory::write_u32(FRAME, 0x1122_3344);
            // Without PSE the first entry leads to a table too: the pages that the case needs, one to one.
            let case = at_page(read(), false).paged(Paging::TwoLevel, TABLE | 0x87, FRAME | 7);
            memory::write_u32(legacy::ROOT, legacy::DIRECTORY as u32 | 7);
            for page in 0..32 {
                memory::write_u32(legacy::DIRECTORY + page * 4, (page << 12) as u32 | 7);
            }
            case.without_large_pages()
        },
        eax,
    );
    case_with(t, "legacy-pae-large", || filled(Paging::Pae, 0x87), eax);
    case(t, "legacy-pae-large-reserved", || filled(Paging::Pae, 0x2087));
    case(t, "legacy-pae-pointer-absent", || {
        let mut case = filled(Paging::Pae, 0x87);
        case.gpr[1] |= 1 << 30;
        case
    });
    case(t, "legacy-pae-entry-reserved", || {
        at_page(read(), false).paged(Paging::Pae, TABLE | 7, FRAME | 7 | 1 << 62)
    });
    case(t, "legacy-pae-directory-reserved", || {
        at_page(read(), false).paged(Paging::Pae, TABLE | 7 | 1 << 62, FRAME | 7)
    });
}

fn no_execute(t: &Transcript) {
    for (nxe, efer) in [("off", 0), ("on", NXE)] {
        for (access, code) in [("read", read as fn() -> &'static [u8]), ("fetch", jump)] {
            let name = Text::of(&["legacy-pae-nx", nxe, access]);
            case(t, name.text(), || {
                memory::write(FRAME, &[0xCD, legacy::DONE as u8]);
                let mut case = at_page(code(), false).paged(Paging::Pae, TABLE | 7, FRAME | 7 | 1 << 63);
                case.efer = efer;
                case
            });
        }
    }
}

/// Descriptors of the case's own, from [`selector::FREE`] on.
const OWN: [(&str, u64); 7] = [
    ("data-absent", 0x00CF_1300_0000_FFFF),
    ("data-down", 0x0040_9700_0000_8FFF),
    ("execute-only", 0x00CF_9900_0000_FFFF),
    ("data-dpl3", 0x00CF_F300_0000_FFFF),
    ("code-absent", 0x00CF_1B00_0000_FFFF),
    ("data-short", 0x0040_9300_0000_DFFF),
    ("data-read-only", 0x00CF_9100_0000_FFFF),
];

/// The selector of the own descriptor `n`.
fn own(n: usize) -> u32 {
    selector::FREE + 8 * n as u32
}

fn with_own(code: &[u8]) -> Case {
    for (n, (_, value)) in OWN.iter().enumerate() {
        legacy::set_descriptor(own(n), *value);
    }
    let mut case = legacy::protected(code);
    case.gpr[1] = DATA as u32;
    case.gpr[2] = DATA as u32 + 8;
    case
}

fn segments(t: &Transcript) {
    let others = [
        ("null", 0),
        ("rpl1", 0x11),
        ("task-state", 0x40),
        ("past-limit", 0xC0),
    ];
    let kinds = OWN.iter().enumerate().map(|(n, (kind, _))| (*kind, own(n)));
    for (kind, selector) in kinds.chain(others) {
        let loads = [
            ("ds", load_ds as fn() -> &'static [u8]),
            ("ss", load_ss),
            ("use", use_ds),
        ];
        for (load, code) in loads {
            let name = Text::of(&["legacy-segment", load, kind]);
            case(t, name.text(), || {
                let mut case = with_own(code());
                case.gpr[0] = selector;
                case
            });
        }
    }
    for (name, first, second) in [
        ("legacy-segment-down-inside", 0x9000, 0xE000),
        ("legacy-segment-down-read-below", 0x8FFF, 0xE000),
        ("legacy-segment-down-write-across", 0x9000, 0x8FFD),
    ] {
        case(t, name, || {
            let mut case = with_own(use_ds());
            (case.gpr[0], case.gpr[1], case.gpr[2]) = (own(1), first, second);
            case
        });
    }
    case(t, "legacy-segment-write-code", || with_own(use_cs()));
}

fn gates(t: &Transcript) {
    const VECTOR: u64 = 0x34;
    let code32 = u64::from(selector::CODE32);
    for (name, attributes, code, user) in [
        ("legacy-gate", 0x8E, code32, false),
        ("legacy-gate-trap", 0x8F, code32, false),
        ("legacy-gate-absent", 0x0E, code32, false),
        ("legacy-gate-to-data", 0x8E, 0x10, false),
        ("legacy-gate-to-null", 0x8E, 0, false),
        ("legacy-gate-to-absent", 0x8E, own(4).into(), false),
        ("legacy-gate-type", 0x82, code32, false),
        ("legacy-gate-dpl", 0x8E, code32, true),
        ("legacy-gate-cpl3", 0xEE, code32, true),
    ] {
        let make = || {
            let case = with_own(int_34());
            legacy::set_gate(VECTOR, code, attributes);
            if user { case.user() } else { case }
        };
        case_with(t, name, make, frame);
    }
}

/// What the event pushed, and where.
fn frame(end: &Case) -> Frame {
    Frame(*end)
}

struct Frame(Case);

impl Display for Frame {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(end) = self;
        let (cs, flags, esp) = (end.cs & 0xFFFF, end.eflags, end.gpr[4]);
        write!(
            f,
            " cs {cs:#x} eflags {flags:#x} esp {esp:#x} frame {:#x}",
            end.handler_esp
        )
    }
}

fn instructions(t: &Transcript) {
    let eax = |end: &Case| Left("eax", end.gpr[0].into());
    let ebx = |end: &Case| Left("ebx", end.gpr[3].into());
    let at_data = |code: &[u8]| {
        memory::write_u32(DATA, 1);
        memory::write_u32(DATA + 4, 2);
        let mut case = legacy::protected(code);
        (case.gpr[0], case.gpr[1]) = (5, DATA as u32);
        case
    };
    case(t, "legacy-into", || at_data(overflow()));
    case(t, "legacy-bound-outside", || at_data(bound()));
    case(t, "legacy-bound-inside", || {
        let mut case = at_data(bound());
        case.gpr[0] = 2;
        case
    });
    case(t, "legacy-aam-0", || at_data(divide()));
    case(t, "legacy-lds-past-limit", || {
        memory::write_u32(DATA + 0x14, 0x1000);
        let mut case = at_data(load_far());
        case.gpr[1] += 0x10;
        case
    });
    case_with(t, "legacy-decimal-ax", || at_data(decimal()), eax);
    case_with(t, "legacy-decimal-bl", || at_data(decimal()), ebx);
    case_with(t, "legacy-pushad", || at_data(push_all()), ebx);
    case_with(t, "legacy-inc-16", || at_data(old_increment()), eax);
    case_with(t, "legacy-arpl", || at_data(adjust_rights()), eax);
    case(t, "legacy-syscall", || at_data(syscall()));
}

fn real_mode(t: &Transcript) {
    let refused = [
        ("legacy-real-lldt", real_lldt as fn() -> &'static [u8]),
        ("legacy-real-ltr", real_ltr),
        ("legacy-real-lar", real_lar),
        ("legacy-real-verr", real_verr),
        ("legacy-real-arpl", real_arpl),
        ("legacy-real-read-past", real_read),
        ("legacy-real-read-byte", real_read_byte),
        ("legacy-real-stack-past", real_read_stack),
        ("legacy-real-interrupt", real_interrupt),
    ];
    let at_limit = |code: &[u8]| {
        let mut case = legacy::real(code);
        (case.gpr[3], case.gpr[5]) = (0xFFFF, 0xFFFF);
        case
    };
    for (name, code) in refused {
        case_with(t, name, || at_limit(code()), frame);
    }
    case(t, "legacy-real-offset-32", || {
        let mut case = legacy::real(real_wide());
        case.gpr[3] = 0x1_0000;
        case
    });
    case_with(t, "legacy-real-push-wraps", || legacy::real(real_wrap()), frame);
    case_with(
        t,
        "legacy-real-segment",
        || {
            memory::write_u32(DATA + 4, 0xCAFE_F00D);
            legacy::real(real_segment())
        },
        |end| Left("eax", end.gpr[0].into()),
    );
    case_with(
        t,
        "legacy-real-call",
        || legacy::real(real_call()),
        |end| Left("ebx", end.gpr[3].into()),
    );
    case_with(
        t,
        "legacy-real-string",
        || {
            memory::write(DATA, b"0123456789abcdef");
            legacy::real(real_string())
        },
        |end| Left("eax", end.gpr[0].into()),
    );
}
