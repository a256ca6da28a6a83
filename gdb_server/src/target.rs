// SPDX-License-Identifier: MIT
//! `gdbstub`'s view of a machine.

use crate::Debuggee;
use crate::registers::{from_gdb, to_gdb};
use gdbstub::common::{Signal, Tid};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, SwBreakpoint, SwBreakpointOps,
};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{Target, TargetError, TargetResult};
use gdbstub_arch::x86::X86_64_SSE;
use gdbstub_arch::x86::reg::X86_64CoreRegs;
use std::collections::BTreeSet;

/// A machine with the debugger's intentions.
pub(crate) struct Adapter<'m, D> {
    machine: &'m mut D,
    breakpoints: BTreeSet<u64>,
    step: Option<u32>,
}

/// The thread id of a VP.
pub(crate) fn tid(vp: u32) -> Tid {
    Tid::new(vp as usize + 1).unwrap_or(Tid::MIN)
}

fn vp(tid: Tid) -> u32 {
    (tid.get() - 1) as u32
}

impl<'m, D: Debuggee> Adapter<'m, D> {
    pub(crate) fn new(machine: &'m mut D) -> Self {
        Self {
            machine,
            breakpoints: BTreeSet::new(),
            step: None,
        }
    }

    pub(crate) fn machine(&mut self) -> &mut D {
        self.machine
    }

    fn change_breakpoints(&mut self, address: u64, add: bool) -> TargetResult<bool, Self> {
        let changed = if add {
            self.breakpoints.insert(address)
        } else {
            self.breakpoints.remove(&address)
        };
        if changed {
            self.machine
                .set_breakpoints(&self.breakpoints)
                .map_err(TargetError::Fatal)?;
        }
        Ok(add || changed)
    }
}

impl<D: Debuggee> Target for Adapter<'_, D> {
    type Arch = X86_64_SSE;
    type Error = String;

    fn base_ops(&mut self) -> BaseOps<'_, Self::Arch, Self::Error> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }
}

impl<D: Debuggee> MultiThreadBase for Adapter<'_, D> {
    fn read_registers(&mut self, regs: &mut X86_64CoreRegs, tid: Tid) -> TargetResult<(), Self> {
        let state = self.machine.state(vp(tid)).map_err(TargetError::Fatal)?;
        let fx = self.machine.fxsave(vp(tid)).map_err(TargetError::Fatal)?;
        to_gdb(&state, &fx, regs);
        Ok(())
    }

    fn write_registers(&mut self, regs: &X86_64CoreRegs, tid: Tid) -> TargetResult<(), Self> {
        let mut state = self.machine.state(vp(tid)).map_err(TargetError::Fatal)?;
        from_gdb(regs, &mut state);
        self.machine
            .set_state(vp(tid), &state)
            .map_err(TargetError::Fatal)
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        match self
            .machine
            .read(vp(tid), start, data)
            .map_err(TargetError::Fatal)?
        {
            // EFAULT, as a native debugger answers.
            0 => Err(TargetError::Errno(14)),
            n => Ok(n),
        }
    }

    fn write_addrs(&mut self, start: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        self.machine
            .write(vp(tid), start, data)
            .map_err(|_| TargetError::Errno(14))
    }

    fn list_active_threads(&mut self, register: &mut dyn FnMut(Tid)) -> Result<(), Self::Error> {
        (0..self.machine.vp_count()).for_each(|vp| register(tid(vp)));
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl<D: Debuggee> MultiThreadResume for Adapter<'_, D> {
    fn resume(&mut self) -> Result<(), Self::Error> {
        self.machine.resume(self.step)
    }

    fn clear_resume_actions(&mut self) -> Result<(), Self::Error> {
        self.step = None;
        Ok(())
    }

    fn set_resume_action_continue(&mut self, _tid: Tid, _signal: Option<Signal>) -> Result<(), Self::Error> {
        // A machine takes no signals; continuing with one is continuing.
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

/// gdb asks for it to step off a breakpoint. A step is of one VP alone in any case; to continue is for all
/// VPs even so, because devices and interrupts are the whole machine's.
impl<D: Debuggee> MultiThreadSchedulerLocking for Adapter<'_, D> {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

impl<D: Debuggee> MultiThreadSingleStep for Adapter<'_, D> {
    fn set_resume_action_step(&mut self, tid: Tid, _signal: Option<Signal>) -> Result<(), Self::Error> {
        self.step = Some(vp(tid));
        Ok(())
    }
}

impl<D: Debuggee> Breakpoints for Adapter<'_, D> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }
}

impl<D: Debuggee> SwBreakpoint for Adapter<'_, D> {
    fn add_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.change_breakpoints(address, true)
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.change_breakpoints(address, false)
    }
}

impl<D: Debuggee> HwBreakpoint for Adapter<'_, D> {
    fn add_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.change_breakpoints(address, true)
    }

    fn remove_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.change_breakpoints(address, false)
    }
}

impl<D: Debuggee> ThreadExtraInfo for Adapter<'_, D> {
    fn thread_extra_info(&self, tid: Tid, buffer: &mut [u8]) -> Result<usize, Self::Error> {
        let text = if vp(tid) == 0 {
            "vp 0 (bsp)".to_string()
        } else {
            format!("vp {}", vp(tid))
        };
        let n = text.len().min(buffer.len());
        buffer[..n].copy_from_slice(&text.as_bytes()[..n]);
        Ok(n)
    }
}
