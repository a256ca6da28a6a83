// SPDX-License-Identifier: MIT
//! How the engine reaches the world: RAM pages, MMIO, ports, MSRs, interrupts, and the flags by which
//! others get its attention.
//!
//! Always true: every method is called synchronously from [`crate::Cpu::run`] on the VP's thread.
//! Not here: any device.

use crate::mem::RamPage;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// An access that no one may make: the embedder answers #GP(0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsrFault;

/// The machine around a processor.
pub trait Bus {
    /// The page with guest page number `gpn`, if it is RAM or ROM. The engine caches the answer until
    /// [`crate::Cpu::flush_memory_map`].
    fn ram(&mut self, gpn: u64) -> Option<RamPage>;
    /// Reads 1, 2, 4 or 8 bytes that are not RAM; never crosses a page.
    fn mmio_read(&mut self, gpa: u64, data: &mut [u8]);
    /// Writes 1, 2, 4 or 8 bytes that are not writable RAM; never crosses a page.
    fn mmio_write(&mut self, gpa: u64, data: &[u8]);
    /// Reads a port; `size` is 1, 2 or 4 bytes.
    fn port_in(&mut self, port: u16, size: u8) -> u32;
    /// Writes a port; `size` is 1, 2 or 4 bytes.
    fn port_out(&mut self, port: u16, size: u8, value: u32);
    /// RDMSR of a register that the engine does not own.
    fn read_msr(&mut self, msr: u32) -> Result<u64, MsrFault>;
    /// WRMSR of a register that the engine does not own.
    fn write_msr(&mut self, msr: u32, value: u64) -> Result<(), MsrFault>;
    /// Acknowledges the pending external interrupt with the highest priority, if any can be delivered
    /// now. Called only when RFLAGS.IF allows it, after [`Attention::interrupt`] and then again after
    /// each delivery until it answers `None`.
    fn take_interrupt(&mut self) -> Option<u8>;
    /// The time-stamp counter.
    fn tsc(&mut self) -> u64;
    /// CR8 as the local APIC holds it.
    fn cr8(&mut self) -> u64 {
        0
    }
    /// MOV to CR8; the value is 0 to 15.
    fn set_cr8(&mut self, value: u64) {
        let _ = value;
    }
    /// Called right before each port, MMIO, MSR, TSC, CR8 or interrupt call with the number of
    /// instructions that this processor has retired: the clock of a deterministic machine.
    fn at_instruction(&mut self, retired: u64) {
        let _ = retired;
    }
    /// VMCALL or VMMCALL at CPL 0. `false` means #UD.
    fn hypercall(&mut self, gpr: &mut [u64; 16]) -> bool {
        let _ = gpr;
        false
    }
    /// The FERR# line: an unmasked x87 exception is pending and CR0.NE is clear.
    fn fpu_error(&mut self) {}
}

const INTERRUPT: u32 = 1;
const NMI: u32 = 2;
const KICK: u32 = 4;

/// Flags that others set to make a running processor look up at its next block boundary. Clones share
/// the flags.
#[derive(Debug, Clone, Default)]
pub struct Attention(Arc<AtomicU32>);

impl Attention {
    /// Says that [`Bus::take_interrupt`] may have something.
    pub fn interrupt(&self) {
        self.0.fetch_or(INTERRUPT, Ordering::Release);
    }
    /// Makes a non-maskable interrupt pending.
    pub fn nmi(&self) {
        self.0.fetch_or(NMI, Ordering::Release);
    }
    /// Makes `run` return `Exit::Kicked` soon.
    pub fn kick(&self) {
        self.0.fetch_or(KICK, Ordering::Release);
    }
    #[inline(always)]
    pub(crate) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }
    /// Takes all flags: (interrupt, nmi, kick).
    pub(crate) fn take(&self) -> (bool, bool, bool) {
        let f = self.0.swap(0, Ordering::Acquire);
        (f & INTERRUPT != 0, f & NMI != 0, f & KICK != 0)
    }
}

/// Why [`crate::Cpu::run`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The instruction budget is used up.
    Budget,
    /// HLT, and nothing is pending that would wake the processor. RIP is behind the HLT. Run again
    /// after [`Attention::interrupt`] or [`Attention::nmi`].
    Hlt,
    /// A fault while delivering a double fault. The state is the one before the first fault's delivery.
    TripleFault,
    /// [`Attention::kick`] was called.
    Kicked,
    /// RIP is at a breakpoint; the instruction there has not run. Running again steps over it.
    Breakpoint,
}

/// Watches execution. Every method defaults to doing nothing; while no tracer is set, tracing costs
/// nothing.
pub trait Tracer: Send {
    /// Whether [`Self::instruction`] is wanted; asked once when the tracer is set. Execution is slow then.
    fn wants_instructions(&self) -> bool {
        false
    }
    /// Before each instruction.
    fn instruction(&mut self, state: &Traced<'_>) {
        let _ = state;
    }
    /// Before an exception or interrupt is delivered at CS:`rip`.
    fn exception(&mut self, vector: u8, error: Option<u32>, rip: u64, cr2: u64) {
        let _ = (vector, error, rip, cr2);
    }
    /// After a port access.
    fn port(&mut self, port: u16, size: u8, write: bool, value: u32, rip: u64) {
        let _ = (port, size, write, value, rip);
    }
    /// After an MMIO access.
    fn mmio(&mut self, gpa: u64, data: &[u8], write: bool, rip: u64) {
        let _ = (gpa, data, write, rip);
    }
}

/// What a tracer sees before an instruction.
#[derive(Debug)]
pub struct Traced<'a> {
    /// CS selector.
    pub cs: u16,
    /// Instruction pointer.
    pub rip: u64,
    /// Code size in bits: 16, 32 or 64.
    pub bitness: u32,
    /// Instruction bytes (up to 15, possibly with bytes of later instructions behind).
    pub bytes: &'a [u8],
    /// General purpose registers in encoding order.
    pub gpr: &'a [u64; 16],
    /// RFLAGS.
    pub rflags: u64,
}
