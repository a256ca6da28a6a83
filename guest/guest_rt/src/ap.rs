// SPDX-License-Identifier: MIT
//! Starts application processors: INIT, SIPI, real mode to 64-bit mode, a stack each.
//!
//! Always true: one page below 1 MiB holds the trampoline and is restored by nobody, so the caller names
//! a free one; a processor takes a ticket, runs the given function once and halts with interrupts off;
//! the caller waits with a time limit for each. Not here: which processors there are (`acpi`).

use crate::cpu::{self, TableRegister};
use crate::time::Deadline;
use crate::{lapic, memory, paging, trap};
use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Bytes of one stack.
const STACK_BYTES: u64 = 0x1000;
/// Stacks that are used in turn, a power of two. Processors are started one after the other and touch
/// their stack no more once they have halted, so there may be more processors than stacks.
const STACK_COUNT: u64 = 16;
/// Bytes that all stacks take.
pub const STACKS_BYTES: u64 = STACK_BYTES * STACK_COUNT;
/// How long a processor may take from SIPI to its function's end, in milliseconds.
const PATIENCE_MS: u64 = 2000;

/// What the trampoline reads, as offsets in its page; the code is copied to the page's start.
mod variable {
    /// CR3, below 4 GiB.
    pub(super) const CR3: u64 = 0xF00;
    /// First byte of the stacks.
    pub(super) const STACKS: u64 = 0xF08;
    /// Address of [`super::run`].
    pub(super) const RUN: u64 = 0xF10;
    /// The next ticket.
    pub(super) const TICKET: u64 = 0xF18;
    /// GDTR image: limit, 32-bit base.
    pub(super) const GDTR: u64 = 0xF20;
    /// Copy of the runtime's GDT: below 1 MiB, because real mode loads it.
    pub(super) const GDT: u64 = 0xF40;
}

// Position independent but for three words that depend on the page and are filled in by `Starter::new`.
global_asm!(
    ".section .rodata.trampoline, \"a\"",
    "guest_rt_trampoline:",
    ".code16",
    "cli",
    "cld",
    "mov ax, cs",
    "mov ds, ax",
    "lgdtd ds:[{gdtr}]",
    "mov eax, cr0",
    "or al, 1",
    "mov cr0, eax",
    ".byte 0x66, 0xea",
    "guest_rt_trampoline_to32:",
    ".long 0",
    ".word 0x18",
    ".code32",
    "guest_rt_trampoline_32:",
    "mov eax, 0x10",
    "mov ds, eax",
    "mov es, eax",
    "mov ss, eax",
    "mov eax, cr4",
    "or eax, 0x20",
    "mov cr4, eax",
    ".byte 0xbb",
    "guest_rt_trampoline_page:",
    ".long 0",
    "mov eax, [ebx + {cr3}]",
    "mov cr3, eax",
    "mov ecx, 0xc0000080",
    "rdmsr",
    "or eax, 0x100",
    "wrmsr",
    "mov eax, cr0",
    "or eax, 0x80000000",
    "mov cr0, eax",
    ".byte 0xea",
    "guest_rt_trampoline_to64:",
    ".long 0",
    ".word 0x08",
    ".code64",
    "guest_rt_trampoline_64:",
    "mov ebx, ebx",
    "mov eax, 1",
    "lock xadd [rbx + {ticket}], eax",
    "mov ecx, eax",
    "and ecx, {last_stack}",
    "inc ecx",
    "imul rcx, rcx, {stack}",
    "add rcx, [rbx + {stacks}]",
    "mov rsp, rcx",
    "mov edi, eax",
    "xor ebp, ebp",
    "call [rbx + {run}]",
    "ud2",
    "guest_rt_trampoline_end:",
    ".text",
    cr3 = const variable::CR3,
    stacks = const variable::STACKS,
    run = const variable::RUN,
    ticket = const variable::TICKET,
    gdtr = const variable::GDTR,
    stack = const STACK_BYTES,
    last_stack = const STACK_COUNT - 1,
);

unsafe extern "C" {
    static guest_rt_trampoline: u8;
    static guest_rt_trampoline_to32: u8;
    static guest_rt_trampoline_32: u8;
    static guest_rt_trampoline_page: u8;
    static guest_rt_trampoline_to64: u8;
    static guest_rt_trampoline_64: u8;
    static guest_rt_trampoline_end: u8;
}

/// Offset of a part from the trampoline's start.
macro_rules! offset {
    ($name:ident) => {
        (&raw const $name) as u64 - (&raw const guest_rt_trampoline) as u64
    };
}

/// A function that each processor runs once, with its ticket (from 0).
pub type ApFunction = fn(u32);

static FUNCTION: AtomicUsize = AtomicUsize::new(0);
static ARRIVED: AtomicU32 = AtomicU32::new(0);
static FINISHED: AtomicU32 = AtomicU32::new(0);

/// Processors that are being started.
#[derive(Debug)]
pub struct Starter {
    page: u8,
}

impl Starter {
    /// Puts the trampoline in the free page at `page << 12`; [`STACKS_BYTES`] of stacks lie at `stacks`.
    pub fn new(page: u8, stacks: u64, function: ApFunction) -> Self {
        let at = u64::from(page) << 12;
        let code = (&raw const guest_rt_trampoline) as u64;
        let len = offset!(guest_rt_trampoline_end) as usize;
        memory::write(at, memory::bytes(code, len));
        let put32 = |offset: u64, value: u64| memory::write(at + offset, &(value as u32).to_le_bytes());
        put32(
            offset!(guest_rt_trampoline_to32),
            at + offset!(guest_rt_trampoline_32),
        );
        put32(
            offset!(guest_rt_trampoline_to64),
            at + offset!(guest_rt_trampoline_64),
        );
        put32(offset!(guest_rt_trampoline_page), at);
        memory::write(at + variable::GDT, memory::bytes(paging::gdt(), 32));
        memory::write_u16(at + variable::GDTR, 31);
        put32(variable::GDTR + 2, at + variable::GDT);
        memory::write_u64(at + variable::CR3, paging::root());
        memory::write_u64(at + variable::STACKS, stacks);
        memory::write_u64(at + variable::RUN, run as *const () as u64);
        memory::write_u64(at + variable::TICKET, 0);
        FUNCTION.store(function as usize, Ordering::Relaxed);
        ARRIVED.store(0, Ordering::Relaxed);
        FINISHED.store(0, Ordering::Release);
        Self { page }
    }

    /// Starts one processor and waits until its function has returned; false when it does not in time.
    pub fn start(&self, apic_id: u8) -> bool {
        let before = FINISHED.load(Ordering::Acquire);
        lapic::send_init(apic_id);
        // 10 ms between INIT and SIPI (MP specification B.4); a VMM needs none, so 1 ms must do.
        Deadline::in_ms(1).wait(|| false);
        let arrived = ARRIVED.load(Ordering::Acquire);
        lapic::send_startup(apic_id, self.page);
        // The second SIPI of the same recipe, for a processor that missed the first.
        if !Deadline::in_ms(20).wait(|| ARRIVED.load(Ordering::Acquire) != arrived) {
            lapic::send_startup(apic_id, self.page);
        }
        Deadline::in_ms(PATIENCE_MS).wait(|| FINISHED.load(Ordering::Acquire) != before)
    }
}

extern "C" fn run(ticket: u32) -> ! {
    ARRIVED.fetch_add(1, Ordering::Release);
    cpu::load_gdt(&TableRegister {
        limit: 31,
        base: paging::gdt(),
    });
    trap::load();
    let function = FUNCTION.load(Ordering::Relaxed);
    // SAFETY: `Starter::new` stored an `ApFunction` there before it sent anything.
    let function: ApFunction = unsafe { core::mem::transmute(function) };
    function(ticket);
    FINISHED.fetch_add(1, Ordering::Release);
    cpu::halt()
}
