// SPDX-License-Identifier: MIT
//! Page faults in four-level paging: every error code bit, accessed and dirty bits, WP, NX, SMEP, large
//! pages, reserved bits at each level, accesses that cross pages.

use crate::{Left, Text, Transcript};
use core::fmt::{self, Display, Formatter};
use guest_rt::lab::{self, State};
use guest_rt::report::info;
use guest_rt::{cpu, memory, snippet};

const EFER_NXE: u64 = 1 << 11;
const CR0_WP: u64 = 1 << 16;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;
const NX: u64 = 1 << 63;

snippet!(read: "mov rax, [rdi]", "ud2");
snippet!(write: "mov [rdi], rax", "ud2");
snippet!(modify: "add qword ptr [rdi], 1", "ud2");
snippet!(exchange: "cmpxchg [rdi], rbx", "ud2");
snippet!(jump: "jmp rdi");
snippet!(push: "push rax", "ud2");
snippet!(copy: "rep movsb", "ud2");
snippet!(allowed: "stac", "mov rax, [rdi]", "clac", "mov rbx, [rdi]", "ud2");
snippet!(implicit: "mov eax, 0x53", "mov fs, eax", "ud2");

/// Flags of the data page's entry, for the matrix.
const LEAVES: [(&str, u64); 9] = [
    ("none", 0),
    ("not-present", 0x66),
    ("r-s", 0x01),
    ("rw-s", 0x03),
    ("r-u", 0x05),
    ("rw-u", 0x07),
    ("rw-u-nx", 0x07 | NX),
    ("r-s-nx", 0x01 | NX),
    ("reserved", 0x07 | 1 << 51),
];

pub(crate) fn run(t: &Transcript) {
    let efer = cpu::rdmsr(cpu::msr::EFER);
    let cr0 = cpu::cr0();
    cpu::wrmsr(cpu::msr::EFER, efer | EFER_NXE);
    for wp in [false, true] {
        cpu::set_cr0(if wp { cr0 | CR0_WP } else { cr0 & !CR0_WP });
        matrix(t, wp);
    }
    cpu::set_cr0(cr0);
    cpu::wrmsr(cpu::msr::EFER, efer & !EFER_NXE);
    without_nx(t);
    cpu::wrmsr(cpu::msr::EFER, efer | EFER_NXE);
    levels(t);
    large(t);
    crossing(t);
    strings(t);
    protections(t);
    cpu::wrmsr(cpu::msr::EFER, efer);
}

/// The data page at RDI, with code that touches it.
fn at_data(ring3: bool, code: &[u8]) -> State {
    let mut state = if ring3 { lab::user(code) } else { lab::kernel(code) };
    state.gpr[7] = lab::DATA;
    state
}

/// Accessed and dirty bits of the data page's entry.
struct Bits(u64);

impl Display for Bits {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, " a{} d{}", self.0 >> 5 & 1, self.0 >> 6 & 1)
    }
}

fn leaf_bits() -> Bits {
    Bits(memory::read_u64(lab::page_entry(lab::DATA_PAGE)))
}

fn matrix(t: &Transcript, wp: bool) {
    let accesses: [(&str, fn() -> &'static [u8]); 4] = [
        ("read", read),
        ("write", write),
        ("modify", modify),
        ("fetch", jump),
    ];
    for (leaf, flags) in LEAVES {
        for ring3 in [false, true] {
            for (access, code) in accesses {
                let name = Text::of(&["pf", if wp { "wp" } else { "nowp" }, leaf, ring(ring3), access]);
                let make = || {
                    memory::write(lab::frame(lab::DATA_PAGE), &[0x0F, 0x0B, 0, 0, 0, 0, 0, 0]);
                    lab::set_page(lab::DATA_PAGE, flags);
                    at_data(ring3, code())
                };
                t.case_with(name.text(), make, |_| leaf_bits());
            }
        }
    }
}

fn ring(ring3: bool) -> &'static str {
    if ring3 { "cpl3" } else { "cpl0" }
}

/// With NXE clear, bit 63 is reserved and fetches have no bit of their own in the error code.
fn without_nx(t: &Transcript) {
    for (name, flags) in [
        ("pf-no-nxe-bit63", lab::RWU | NX),
        ("pf-no-nxe-supervisor", lab::RW),
    ] {
        t.case(name, || {
            lab::set_page(lab::DATA_PAGE, flags);
            at_data(true, jump())
        });
    }
}

/// Entries of the three upper levels that forbid what the leaf allows.
fn levels(t: &Transcript) {
    let entries: [(&str, fn() -> u64); 2] =
        [("pdpt", lab::pointer_entry), ("pd", || lab::directory_entry(0))];
    let changes: [(&str, fn(u64) -> u64); 5] = [
        ("not-present", |e| e & !1),
        ("read-only", |e| e & !2),
        ("supervisor", |e| e & !4),
        ("nx", |e| e | NX),
        ("reserved", |e| e | 1 << 51),
    ];
    for (level, entry) in entries {
        for (change, to) in changes {
            for (access, code) in [("write", write as fn() -> &'static [u8]), ("fetch", jump)] {
                let name = Text::of(&["pf-level", level, change, access]);
                // The code is outside the window's tables, in ring 3 of the large page.
                let make = || second_window(entry(), to, code());
                t.case(name.text(), make);
            }
        }
    }
    t.case_with(
        "pf-level-accessed",
        || {
            for at in [lab::pointer_entry(), lab::directory_entry(0)] {
                memory::write_u64(at, memory::read_u64(at) & !0x20);
            }
            lab::set_page(lab::DATA_PAGE, 7);
            at_data(true, read())
        },
        |_| {
            let bit = |at| memory::read_u64(at) >> 5 & 1;
            Left(
                "levels",
                bit(lab::pointer_entry()) << 1 | bit(lab::directory_entry(0)),
            )
        },
    );
    // The page size bit is reserved in the top level.
    t.case("pf-level-pml4-size", || {
        alias_root(|e| e | 0x80);
        let mut state = at_data(false, read());
        state.gpr[7] = ALIAS + lab::DATA;
        state
    });
    t.case("pf-level-pml4-supervisor", || {
        alias_root(|e| e & !4);
        let mut state = at_data(true, read());
        state.gpr[7] = ALIAS + lab::DATA;
        state
    });
}

/// Where the second entry of the top level leads to what the first one does.
const ALIAS: u64 = 1 << 39;

fn alias_root(change: impl Fn(u64) -> u64) {
    let root = guest_rt::paging::root();
    memory::write_u64(root + 8, change(memory::read_u64(root)));
}

/// An access through a copy of the window's tables one of whose entries is changed.
fn second_window(entry: u64, change: fn(u64) -> u64, code: &[u8]) -> State {
    // Pages 8 to 10 hold the copies: pointers, directory, table.
    let tables = [8, 9, 10].map(lab::frame);
    for table in tables {
        (0..512).for_each(|at| memory::write_u64(table + at * 8, 0));
    }
    let levels = [lab::pointer_entry(), lab::directory_entry(0)];
    let upper = |index: usize, to: u64| {
        let value = to | 0x67;
        if levels[index] == entry {
            change(value)
        } else {
            value
        }
    };
    memory::write_u64(guest_rt::paging::root() + 8, tables[0] | 0x67);
    memory::write_u64(tables[0], upper(0, tables[1]));
    memory::write_u64(tables[1], upper(1, tables[2]));
    memory::write_u64(tables[2], lab::frame(lab::DATA_PAGE) | lab::RWU);
    memory::write(lab::frame(lab::DATA_PAGE), &[0x0F, 0x0B]);
    let mut state = at_data(true, code);
    state.gpr[7] = ALIAS;
    state
}

fn large(t: &Transcript) {
    let entry = lab::directory_entry(1);
    for (name, flags, code) in [
        ("pf-2m-write", 0x87, write as fn() -> &'static [u8]),
        ("pf-2m-read-only", 0x85, write),
        ("pf-2m-supervisor", 0x83, read),
        ("pf-2m-nx", 0x87 | NX, jump),
        ("pf-2m-reserved-bit-13", 0x87 | 1 << 13, read),
        ("pf-2m-reserved-bit-20", 0x87 | 1 << 20, read),
    ] {
        let make = || {
            let frame = memory::read_u64(entry) & 0x000F_FFFF_FFE0_0000;
            memory::write_u64(entry, frame | flags);
            let mut state = at_data(true, code());
            state.gpr[7] = lab::LARGE + 0x1_2345;
            state
        };
        t.case_with(name, make, |_| Bits(memory::read_u64(entry)));
    }
}

/// Accesses whose second part faults: nothing is written, CR2 is the second page's first byte.
fn crossing(t: &Transcript) {
    for (name, code) in [
        ("pf-cross-read", read as fn() -> &'static [u8]),
        ("pf-cross-write", write),
        ("pf-cross-modify", modify),
    ] {
        let make = || {
            memory::write_u64(lab::frame(lab::DATA_PAGE) + 0xFF8, 0x1111_1111_1111_1111);
            lab::set_page(lab::DATA_PAGE + 1, 0);
            let mut state = at_data(false, code());
            state.gpr[7] = lab::DATA + 0xFFC;
            state
        };
        let left = |_: &State| Left("memory", memory::read_u64(lab::frame(lab::DATA_PAGE) + 0xFF8));
        t.case_with(name, make, left);
    }
    t.case("pf-cross-fetch", || {
        lab::set_page(lab::DATA_PAGE + 1, 0);
        memory::write(lab::frame(lab::DATA_PAGE) + 0xFFD, &[0x90, 0x48, 0xB8]);
        let mut state = at_data(false, jump());
        state.gpr[7] = lab::DATA + 0xFFD;
        state
    });
    // The comparison fails, and the destination is written all the same.
    t.case_with(
        "pf-cmpxchg-read-only",
        || {
            memory::write_u64(lab::frame(lab::DATA_PAGE), 5);
            lab::set_page(lab::DATA_PAGE, 5);
            at_data(true, exchange())
        },
        |s| Left("rax", s.gpr[0]),
    );
    t.case_with(
        "pf-push",
        || {
            lab::set_page(lab::DATA_PAGE - 1, 0);
            State {
                rsp: lab::DATA,
                ..lab::user(push())
            }
        },
        |s| Left("rsp", s.rsp),
    );
}

/// A string instruction stops at the element that faults, with its registers there.
fn strings(t: &Transcript) {
    for (name, page, start) in [
        ("pf-rep-destination", lab::DATA_PAGE + 1, 0xFF0),
        ("pf-rep-source", lab::DATA_PAGE + 3, 0xFF8),
    ] {
        let make = || {
            lab::set_page(page, 0);
            let mut state = lab::user(copy());
            state.gpr[1] = 0x40;
            state.gpr[6] = lab::DATA + 0x2000 + start;
            state.gpr[7] = lab::DATA + start;
            state
        };
        t.case_with(name, make, |s| Left("rcx", s.gpr[1]));
    }
}

fn protections(t: &Transcript) {
    let [_, features, _, _] = cpu::cpuid(7, 0);
    let cr4 = cpu::cr4();
    if features & 1 << 7 != 0 {
        cpu::set_cr4(cr4 | CR4_SMEP);
        for (name, flags) in [("pf-smep-user", lab::RWU), ("pf-smep-supervisor", lab::RW)] {
            t.case(name, || {
                memory::write(lab::frame(lab::DATA_PAGE), &[0x0F, 0x0B]);
                lab::set_page(0, lab::RW);
                lab::set_page(lab::DATA_PAGE, flags);
                at_data(false, jump())
            });
        }
        cpu::set_cr4(cr4);
    } else {
        info("pf-smep", format_args!("not advertised"));
    }
    if features & 1 << 20 != 0 {
        smap(t, cr4);
    } else {
        info("pf-smap", format_args!("not advertised"));
    }
}

fn smap(t: &Transcript, cr4: u64) {
    cpu::set_cr4(cr4 | CR4_SMAP);
    t.case("pf-smap-read", || at_data(false, read()));
    t.case("pf-smap-write", || at_data(false, write()));
    t.case("pf-smap-allowed", || at_data(false, allowed()));
    t.case("pf-smap-implicit", || at_data(true, implicit()));
    cpu::set_cr4(cr4);
}
