// SPDX-License-Identifier: MIT
//! Privileged instructions, ports and their bitmap, control registers, alignment, prefixes.

use crate::{Left, Text, Transcript, frame};
use guest_rt::lab::{self, State};
use guest_rt::{cpu, memory, snippet};

const CR0_AM: u64 = 1 << 18;
const CR0_TS: u64 = 1 << 3;
const CR0_EM: u64 = 1 << 2;
const CR4_TSD: u64 = 1 << 2;
const AC: u64 = 1 << 18;
const IOPL3: u64 = 3 << 12;

snippet!(cli: "cli", "ud2");
snippet!(sti: "sti", "ud2");
snippet!(hlt: "hlt", "ud2");
snippet!(read_cr0: "mov rax, cr0", "ud2");
snippet!(write_cr3: "mov rax, cr3", "mov cr3, rax", "ud2");
snippet!(read_msr: "mov ecx, 0xc0000080", "rdmsr", "ud2");
snippet!(write_msr: "mov ecx, 0xc0000080", "wrmsr", "ud2");
snippet!(lgdt: "lgdt [rdi]", "ud2");
snippet!(invlpg: "invlpg [rdi]", "ud2");
snippet!(wbinvd: "wbinvd", "ud2");
snippet!(clts: "clts", "ud2");
snippet!(lmsw: "lmsw ax", "ud2");
snippet!(swapgs: "swapgs", "ud2");
snippet!(rdtsc: "rdtsc", "ud2");
snippet!(pop_flags: "push 0x3ed7", "popfq", "ud2");
snippet!(port_in: "mov edx, 0x3fd", "in al, dx", "ud2");
snippet!(port_in_wide: "mov edx, 0x3fd", "in eax, dx", "ud2");
snippet!(cr0_paging: "mov rax, cr0", "and eax, 0xfffffffe", "mov cr0, rax", "ud2");
snippet!(cr0_cache: "mov rax, cr0", "or eax, 0x20000000", "and eax, 0xbfffffff", "mov cr0, rax", "ud2");
snippet!(cr0_high: "mov rax, cr0", "bts rax, 40", "mov cr0, rax", "ud2");
snippet!(cr4_reserved: "mov rax, cr4", "bts rax, 31", "mov cr4, rax", "ud2");
snippet!(cr4_no_pae: "mov rax, cr4", "btr rax, 5", "mov cr4, rax", "ud2");
snippet!(cr3_reserved: "mov rax, cr3", "bts rax, 60", "mov cr3, rax", "ud2");
snippet!(cr8_reserved: "mov eax, 16", "mov cr8, rax", "ud2");
snippet!(no_register: ".byte 0x0f, 0x20, 0xc8", "ud2");
snippet!(efer_reserved: "mov ecx, 0xc0000080", "rdmsr", "or edx, 1", "wrmsr", "ud2");
snippet!(efer_no_lme: "mov ecx, 0xc0000080", "rdmsr", "and eax, 0xfffffeff", "wrmsr", "ud2");
snippet!(no_msr: "mov ecx, 0x12345678", "rdmsr", "ud2");
snippet!(base_hole: "mov ecx, 0xc0000100", "xor eax, eax", "mov edx, 0x8000", "wrmsr", "ud2");
snippet!(pat_reserved: "mov ecx, 0x277", "mov eax, 2", "xor edx, edx", "wrmsr", "ud2");
snippet!(lock_register: ".byte 0xf0, 0x01, 0xc0", "ud2");
snippet!(lock_load: ".byte 0xf0, 0x8b, 0x07", "ud2");
snippet!(lock_add: "lock add dword ptr [rdi], 1", "ud2");
snippet!(push_all: ".byte 0x60", "ud2");
snippet!(adjust: ".byte 0x37", "ud2");
snippet!(long_jump_direct: ".byte 0xea, 0, 0, 0, 0, 8, 0", "ud2");
snippet!(too_long: ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90", "ud2");
snippet!(longer: ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90", "ud2");
snippet!(misaligned: "mov eax, [rdi + 1]", "ud2");
snippet!(misaligned_stack: "lea rsp, [rsp - 3]", "push rax", "ud2");
snippet!(misaligned_byte: "mov al, [rdi + 1]", "ud2");
snippet!(x87: "fninit", "ud2");
snippet!(wait: "fwait", "ud2");
snippet!(sixteen: ".byte 0x48, 0x0f, 0xc7, 0x4f, 0x08", "ud2");
snippet!(eight: "lock cmpxchg8b [rdi]", "ud2");
snippet!(flags_of: "pushfq", "pop rax", "ud2");

pub(crate) fn run(t: &Transcript) {
    privileged(t);
    ports(t);
    control(t);
    encodings(t);
    alignment(t);
    floating_point(t);
}

fn with_rdi(mut state: State, rdi: u64) -> State {
    state.gpr[7] = rdi;
    state
}

fn privileged(t: &Transcript) {
    for (name, code) in [
        ("cli", cli as fn() -> &'static [u8]),
        ("sti", sti),
        ("hlt", hlt),
        ("read-cr0", read_cr0),
        ("write-cr3", write_cr3),
        ("rdmsr", read_msr),
        ("wrmsr", write_msr),
        ("lgdt", lgdt),
        ("invlpg", invlpg),
        ("wbinvd", wbinvd),
        ("clts", clts),
        ("lmsw", lmsw),
        ("swapgs", swapgs),
    ] {
        let name = Text::of(&["privileged", name]);
        t.case(name.text(), || with_rdi(lab::user(code()), lab::DATA));
    }
    for (name, code) in [
        ("cli", cli as fn() -> &'static [u8]),
        ("sti", sti),
        ("popf", pop_flags),
    ] {
        for (iopl, flags) in [("iopl0", 2), ("iopl3", 2 | IOPL3)] {
            let name = Text::of(&["privileged", name, iopl]);
            t.case_with(
                name.text(),
                || State {
                    rflags: flags,
                    ..lab::user(code())
                },
                frame,
            );
        }
    }
    t.case_with("popf-kernel", || lab::kernel(pop_flags()), frame);
    t.case_with(
        "pushf-resume",
        || State {
            rflags: 2 | 1 << 16,
            ..lab::kernel(flags_of())
        },
        |s| Left("rax", s.gpr[0]),
    );
    let cr4 = cpu::cr4();
    for (name, value) in [
        ("rdtsc-allowed", cr4 & !CR4_TSD),
        ("rdtsc-disabled", cr4 | CR4_TSD),
    ] {
        cpu::set_cr4(value);
        t.case(name, || lab::user(rdtsc()));
    }
    t.case("rdtsc-disabled-kernel", || lab::kernel(rdtsc()));
    cpu::set_cr4(cr4);
}

/// The bitmap's one readable byte is port 0x3F8 to 0x3FF's.
fn ports(t: &Transcript) {
    const MAP: u64 = 0x68;
    let with_map = |limit: u64, bits: u8| {
        memory::write_u16(lab::task_state(0x66), MAP as u16);
        (0..0x98).for_each(|at| memory::write_u8(lab::task_state(MAP + at), 0xFF));
        memory::write_u8(lab::task_state(MAP + 0x7F), bits);
        let [low, high] = lab::system_descriptor(lab::task_state(0), limit, 9);
        lab::set_wide_descriptor(lab::selector::TSS, [low, high]);
        cpu::load_task_register(lab::selector::TSS as u16);
    };
    t.case("port-no-map", || lab::user(port_in()));
    for (name, limit, bits, code) in [
        ("port-allowed", 0xF0, 0x00, port_in as fn() -> &'static [u8]),
        ("port-denied", 0xF0, 0x20, port_in),
        ("port-wide-denied", 0xF0, 0x00, port_in_wide),
        ("port-map-cut", MAP + 0x7E, 0x00, port_in),
        ("port-map-cut-in-two", MAP + 0x7F, 0x00, port_in),
    ] {
        t.case(name, || {
            with_map(limit, bits);
            lab::user(code())
        });
    }
    t.case("port-iopl", || State {
        rflags: 2 | IOPL3,
        ..lab::user(port_in())
    });
}

fn control(t: &Transcript) {
    for (name, code) in [
        ("control-cr0-no-pe", cr0_paging as fn() -> &'static [u8]),
        ("control-cr0-nw-without-cd", cr0_cache),
        ("control-cr0-bit-40", cr0_high),
        ("control-cr4-reserved", cr4_reserved),
        ("control-cr4-no-pae", cr4_no_pae),
        ("control-cr3-reserved", cr3_reserved),
        ("control-cr8-reserved", cr8_reserved),
        ("control-cr1", no_register),
        ("control-efer-reserved", efer_reserved),
        ("control-efer-no-lme", efer_no_lme),
        ("control-no-msr", no_msr),
        ("control-base-not-canonical", base_hole),
        ("control-pat-reserved", pat_reserved),
    ] {
        t.case(name, || lab::kernel(code()));
    }
}

fn encodings(t: &Transcript) {
    for (name, code) in [
        ("encoding-lock-register", lock_register as fn() -> &'static [u8]),
        ("encoding-lock-load", lock_load),
        ("encoding-lock-add", lock_add),
        ("encoding-pusha", push_all),
        ("encoding-aaa", adjust),
        ("encoding-direct-far-jump", long_jump_direct),
        ("encoding-fifteen-bytes", too_long),
        ("encoding-sixteen-bytes", longer),
        ("encoding-cmpxchg16b-misaligned", sixteen),
        ("encoding-cmpxchg8b", eight),
    ] {
        t.case(name, || with_rdi(lab::user(code()), lab::DATA));
    }
}

fn alignment(t: &Transcript) {
    let cr0 = cpu::cr0();
    cpu::set_cr0(cr0 | CR0_AM);
    for (name, code) in [
        ("alignment-load", misaligned as fn() -> &'static [u8]),
        ("alignment-push", misaligned_stack),
        ("alignment-byte", misaligned_byte),
    ] {
        t.case(name, || {
            with_rdi(
                State {
                    rflags: 2 | AC,
                    ..lab::user(code())
                },
                lab::DATA,
            )
        });
    }
    t.case("alignment-kernel", || {
        with_rdi(
            State {
                rflags: 2 | AC,
                ..lab::kernel(misaligned())
            },
            lab::DATA,
        )
    });
    t.case("alignment-no-ac", || with_rdi(lab::user(misaligned()), lab::DATA));
    cpu::set_cr0(cr0 & !CR0_AM);
    t.case("alignment-no-am", || {
        with_rdi(
            State {
                rflags: 2 | AC,
                ..lab::user(misaligned())
            },
            lab::DATA,
        )
    });
    cpu::set_cr0(cr0);
}

fn floating_point(t: &Transcript) {
    let cr0 = cpu::cr0();
    for (name, bits, code) in [
        ("fpu-task-switched", CR0_TS, x87 as fn() -> &'static [u8]),
        ("fpu-emulated", CR0_EM, x87),
        ("fpu-wait-task-switched", CR0_TS, wait),
        ("fpu-wait", 0, wait),
    ] {
        cpu::set_cr0(cr0 & !(CR0_TS | CR0_EM) | bits | 2);
        t.case(name, || lab::kernel(code()));
    }
    cpu::set_cr0(cr0);
}
