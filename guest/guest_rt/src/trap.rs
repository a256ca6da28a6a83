// SPDX-License-Identifier: MIT
//! Exceptions and interrupts.
//!
//! Always true: every vector has a gate; an exception that nobody expects is printed (vector, error code,
//! RIP, CR2, registers) and ends the payload through the test-exit port; interrupts are counted per
//! vector, told to the local APIC, and returned from. [`catch`] runs code that is expected to fault.
//! Not here: interrupt controllers (`lapic`).

use crate::cpu::{self, TableRegister};
use crate::{lapic, power, report, serial};
use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use guest_protocol::report::EXIT_TRAP;

/// First vector that is an interrupt.
pub const FIRST_INTERRUPT: u8 = 0x20;
/// Vector of spurious local APIC interrupts; they take no EOI.
pub const SPURIOUS: u8 = 0xFF;

// One 16-byte stub per vector: vectors 8, 10-14, 17, 21, 29 and 30 push an error code themselves.
global_asm!(
    ".balign 16",
    "guest_rt_stubs:",
    ".set vector, 0",
    ".rept 256",
    ".balign 16",
    ".if ((0x60227d00 >> vector) & 1) == 0 || vector > 31",
    "push 0",
    ".endif",
    "push vector",
    "jmp guest_rt_trap_entry",
    ".set vector, vector + 1",
    ".endr",
    ".balign 16",
    "guest_rt_trap_entry:",
    "push r15",
    "push r14",
    "push r13",
    "push r12",
    "push r11",
    "push r10",
    "push r9",
    "push r8",
    "push rdi",
    "push rsi",
    "push rbp",
    "push rsp",
    "push rbx",
    "push rdx",
    "push rcx",
    "push rax",
    "cld",
    "mov rdi, rsp",
    "mov rbp, rsp",
    "and rsp, -16",
    "call guest_rt_trap",
    "mov rsp, rbp",
    "pop rax",
    "pop rcx",
    "pop rdx",
    "pop rbx",
    "add rsp, 8",
    "pop rbp",
    "pop rsi",
    "pop rdi",
    "pop r8",
    "pop r9",
    "pop r10",
    "pop r11",
    "pop r12",
    "pop r13",
    "pop r14",
    "pop r15",
    "add rsp, 16",
    "iretq",
    // guest_rt_catch(function): runs it; the caught trap comes back here with the stack as it was.
    "guest_rt_catch:",
    push_saved!(),
    "sub rsp, 8",
    "mov [rip + guest_rt_catch_stack], rsp",
    "call rdi",
    "xor eax, eax",
    "jmp 2f",
    "guest_rt_caught:",
    "mov rsp, [rip + guest_rt_catch_stack]",
    "mov eax, 1",
    "2:",
    "mov qword ptr [rip + guest_rt_catch_stack], 0",
    "add rsp, 8",
    pop_saved!(),
    "ret",
);

unsafe extern "C" {
    static guest_rt_stubs: u8;
    static guest_rt_caught: u8;
    fn guest_rt_catch(function: extern "C" fn()) -> u32;
}

/// Not 0 while [`catch`] runs: the stack pointer to come back to.
#[unsafe(no_mangle)]
static guest_rt_catch_stack: AtomicU64 = AtomicU64::new(0);

static COUNTS: [AtomicU32; 256] = [const { AtomicU32::new(0) }; 256];
static CAUGHT_VECTOR: AtomicU64 = AtomicU64::new(0);
static CAUGHT_ERROR: AtomicU64 = AtomicU64::new(0);
static CAUGHT_CR2: AtomicU64 = AtomicU64::new(0);

struct Idt(UnsafeCell<[[u64; 2]; 256]>);

// SAFETY: written once by the boot processor before any other processor runs, then only read.
unsafe impl Sync for Idt {}

static IDT: Idt = Idt(UnsafeCell::new([[0; 2]; 256]));

/// What the stubs leave on the stack.
#[repr(C)]
struct Frame {
    /// RAX RCX RDX RBX RSP RBP RSI RDI R8-R15; RSP is the one inside the stub.
    gpr: [u64; 16],
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// A trap that [`catch`] saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caught {
    /// Exception vector.
    pub vector: u8,
    /// Error code, 0 for vectors without one.
    pub error: u64,
    /// CR2 at that time.
    pub cr2: u64,
}

/// Fills the IDT and loads it.
pub fn activate() {
    let stubs = (&raw const guest_rt_stubs) as u64;
    for vector in 0..256 {
        let to = stubs + 16 * vector as u64;
        // A 64-bit interrupt gate to selector 8 (Intel SDM volume 3, 7.14.1).
        let low = (to & 0xFFFF) | 0x08 << 16 | 0x8E00 << 32 | (to >> 16 & 0xFFFF) << 48;
        // SAFETY: before any other processor runs; the index is below 256.
        unsafe { (*IDT.0.get())[vector] = [low, to >> 32] };
    }
    load();
}

/// Loads the IDT that [`activate`] has filled.
pub fn load() {
    cpu::load_idt(&TableRegister {
        limit: 16 * 256 - 1,
        base: IDT.0.get() as u64,
    });
}

/// How often a vector was taken as an interrupt.
pub fn count(vector: u8) -> u32 {
    COUNTS[usize::from(vector)].load(Ordering::Acquire)
}

/// Runs code that may fault; `None` when it does not. What the function holds is leaked when it faults.
pub fn catch(function: extern "C" fn()) -> Option<Caught> {
    // SAFETY: the trap handler comes back with the stack and the preserved registers as they were.
    if unsafe { guest_rt_catch(function) } == 0 {
        return None;
    }
    Some(Caught {
        vector: CAUGHT_VECTOR.load(Ordering::Relaxed) as u8,
        error: CAUGHT_ERROR.load(Ordering::Relaxed),
        cr2: CAUGHT_CR2.load(Ordering::Relaxed),
    })
}

#[unsafe(no_mangle)]
extern "C" fn guest_rt_trap(frame: &mut Frame) {
    let vector = frame.vector as u8;
    if vector >= FIRST_INTERRUPT {
        COUNTS[usize::from(vector)].fetch_add(1, Ordering::Release);
        if vector != SPURIOUS {
            lapic::end_of_interrupt();
        }
        return;
    }
    if guest_rt_catch_stack.load(Ordering::Relaxed) != 0 {
        CAUGHT_VECTOR.store(frame.vector, Ordering::Relaxed);
        CAUGHT_ERROR.store(frame.error, Ordering::Relaxed);
        CAUGHT_CR2.store(cpu::cr2(), Ordering::Relaxed);
        frame.rip = (&raw const guest_rt_caught) as u64;
        return;
    }
    report_trap(frame)
}

fn report_trap(frame: &Frame) -> ! {
    serial::release();
    report::line(format_args!(
        "trap: vector {} error {:#x} rip {:#x} cr2 {:#x} rsp {:#x} rflags {:#x} cs {:#x} apic {}",
        frame.vector,
        frame.error,
        frame.rip,
        cpu::cr2(),
        frame.rsp,
        frame.rflags,
        frame.cs,
        cpu::apic_id(),
    ));
    for (row, four) in frame.gpr.chunks(4).enumerate() {
        report::line(format_args!(
            "trap: gpr{:<2} {:016x} {:016x} {:016x} {:016x}",
            row * 4,
            four[0],
            four[1],
            four[2],
            four[3]
        ));
    }
    power::test_exit(EXIT_TRAP)
}
