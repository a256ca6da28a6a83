// SPDX-License-Identifier: MIT
//! Hypervisors, partitions, runners.

use crate::launch::LaunchTarget;
use crate::signal::VpSignals;
use chipset_device::{Clock, TimerQueue, VpBus, VpIndex};
use guest_memory::GuestMemory;
use std::sync::Arc;
use x86defs::X86State;
use x86defs::cpuid::CpuidEntry;

/// What a backend can do on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// The guest may use x2APIC (the backend routes its MSRs to us or emulates the CPU).
    pub x2apic: bool,
    /// Time and execution can be reproduced.
    pub deterministic: bool,
    /// Guest physical address width in bits.
    pub phys_bits: u8,
    /// Frequency of the guest's TSC, where it is fixed.
    pub tsc_hz: Option<u64>,
    /// The TSC is the partition's clock: it starts at 0 with it, and stops with it.
    pub tsc_is_clock: bool,
}

/// A way to run guests.
pub trait Hypervisor: Send + Sync {
    /// Name as typed after `--hypervisor`.
    fn name(&self) -> &'static str;
    /// What it can do here.
    fn capabilities(&self) -> Capabilities;
    /// Makes a partition with no VP running and RAM mapped.
    fn new_partition(&self, config: PartitionConfig) -> Result<Box<dyn Partition>, RunError>;
}

/// What a partition is made from.
#[derive(Clone)]
pub struct PartitionConfig {
    /// Number of virtual processors, at least 1.
    pub vp_count: u32,
    /// RAM, shared with devices.
    pub memory: GuestMemory,
    /// CPUID leaves that replace or add to the backend's own (hypervisor leaves, topology).
    pub cpuid: Vec<CpuidEntry>,
    /// The partition's clock.
    pub clock: Arc<Clock>,
    /// The partition's deadlines; a deterministic backend fires them itself.
    pub timers: Arc<TimerQueue>,
}

/// A set of virtual processors over guest memory.
pub trait Partition: Send {
    /// Attention flags, for interrupt controllers and the worker.
    fn signals(&self) -> Arc<VpSignals>;
    /// Where a bound plan is applied. Taken once per (re)launch.
    fn launch_target(&mut self) -> Box<dyn LaunchTarget + '_>;
    /// Connects the machine and hands out the runners, one per thread that the backend wants.
    fn runners(&mut self, bus: Arc<dyn VpBus>) -> Result<Vec<Box<dyn Runner>>, RunError>;
}

/// Why a runner returned.
#[derive(Debug, Clone, PartialEq)]
pub enum VpStop {
    /// The partition's stop flag was set. Run again to continue.
    Requested,
    /// A VP triple faulted: a crash, never a silent reset.
    TripleFault {
        /// The VP.
        vp: VpIndex,
    },
    /// A VP is at a breakpoint that [`VpDebug::set_breakpoints`] set; the instruction has not run.
    Breakpoint {
        /// The VP.
        vp: VpIndex,
    },
    /// [`VpDebug::step`] ran its instruction.
    Stepped {
        /// The VP.
        vp: VpIndex,
    },
    /// The hypervisor could not run the guest on; the text says which instruction at which address.
    Unrunnable {
        /// The VP.
        vp: VpIndex,
        /// What happened.
        reason: String,
    },
}

/// A thread's worth of virtual processors: one for KVM, all of them for the software CPU.
pub trait Runner: Send {
    /// The VPs that this runner runs.
    fn vps(&self) -> std::ops::Range<VpIndex>;
    /// Puts every VP in the state that the last launch gave it: the BSP's (or every VP's) context over
    /// reset state, APs without one in wait-for-SIPI. Drops translations and pending events.
    fn reset(&mut self) -> Result<(), RunError>;
    /// Runs until stopped. Called on the runner's own thread; port, MMIO and MSR intercepts are answered
    /// inline through the bus.
    fn run(&mut self) -> Result<VpStop, RunError>;
    /// Register state of one of its VPs.
    fn state(&mut self, vp: VpIndex) -> Result<X86State, RunError>;
    /// Replaces the register state of one of its VPs.
    fn set_state(&mut self, vp: VpIndex, state: &X86State) -> Result<(), RunError>;
    /// Instructions that one of its VPs has retired since the partition was made; `None` when the backend
    /// does not count.
    fn retired(&self, vp: VpIndex) -> Option<u64> {
        let _ = vp;
        None
    }
    /// What a debugger needs beyond registers; `None` when the backend has no support.
    fn debug(&mut self) -> Option<&mut dyn VpDebug> {
        None
    }
}

/// What a debugger does with stopped VPs, on the runner's thread.
pub trait VpDebug {
    /// x87 and SSE registers as a 64-bit FXSAVE image.
    fn fxsave(&mut self, vp: VpIndex) -> Result<[u8; 512], RunError>;
    /// The gpa of a linear address, as a supervisor read would translate it; `None` when unmapped.
    fn translate(&mut self, vp: VpIndex, address: u64) -> Result<Option<u64>, RunError>;
    /// Replaces the breakpoints (linear addresses) of all its VPs. Running on from one steps over it.
    fn set_breakpoints(&mut self, addresses: &[u64]) -> Result<(), RunError>;
    /// Sets the trace of each of its VPs. Backends whose processor cannot be watched refuse.
    fn set_trace(
        &mut self,
        make: &mut dyn FnMut(VpIndex) -> Box<dyn ExecutionTrace>,
    ) -> Result<(), RunError> {
        let _ = make;
        Err(RunError::Unavailable {
            hypervisor: "tracing",
            reason: "only the software cpu can be watched; add --hypervisor soft".into(),
        })
    }
    /// Runs one instruction of one VP; [`VpStop::Stepped`] when it retired or its exception was delivered.
    fn step(&mut self, vp: VpIndex) -> Result<VpStop, RunError>;
}

/// An instruction about to run.
#[derive(Clone, Copy)]
pub struct TracedInstruction<'a> {
    /// CS selector.
    pub cs: u16,
    /// Instruction pointer.
    pub rip: u64,
    /// Code size in bits: 16, 32 or 64.
    pub bitness: u32,
    /// Its bytes, possibly with bytes of later instructions behind.
    pub bytes: &'a [u8],
    /// Gives its length and its text; not free, so only called for what is shown.
    pub disassemble: &'a dyn Fn() -> (usize, String),
}

/// Watches what one VP does. Called on the VP's thread.
pub trait ExecutionTrace: Send {
    /// Whether [`Self::instruction`] is wanted.
    fn wants_instructions(&self) -> bool;
    /// Before each instruction.
    fn instruction(&mut self, instruction: &TracedInstruction<'_>);
    /// Before an exception or interrupt is delivered.
    fn exception(&mut self, vector: u8, error: Option<u32>, rip: u64, cr2: u64);
    /// After a port access of 1, 2 or 4 bytes.
    fn port(&mut self, port: u16, write: bool, data: &[u8], rip: u64);
    /// After an access outside RAM.
    fn mmio(&mut self, gpa: u64, write: bool, data: &[u8], rip: u64);
}

/// A backend's failure.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The backend is not available on this host.
    #[error("{hypervisor} is not available: {reason}")]
    Unavailable {
        /// Backend name.
        hypervisor: &'static str,
        /// Why, and what to do.
        reason: String,
    },
    /// A host call failed.
    #[error("{what}: {reason}")]
    Host {
        /// The call and its subject.
        what: String,
        /// The host's answer.
        reason: String,
    },
    /// No such VP in this runner.
    #[error("vp {0} does not belong to this runner")]
    NoSuchVp(VpIndex),
}
