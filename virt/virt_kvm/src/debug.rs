// SPDX-License-Identifier: MIT
//! Breakpoints and single steps for a debugger.
//!
//! Breakpoints are the processor's own four (DR0-DR3 of the host's choice), so guest memory stays as it
//! is; a step is one instruction of the engine, which is exact also where KVM is nested in software.

use crate::host::host;
use crate::runner::KvmRunner;
use kvm_sys::bindings as kb;
use virt::{RunError, Runner, VpDebug, VpIndex, VpStop};

/// Breakpoint registers of the processor.
const BREAKPOINTS: usize = 4;

impl KvmRunner {
    /// The VP hit a breakpoint.
    pub(crate) fn debug_stop(&mut self) -> Result<Option<VpStop>, RunError> {
        let state = self.state(self.vp)?;
        self.stopped_at = Some(state.rip);
        Ok(Some(VpStop::Breakpoint { vp: self.vp }))
    }

    /// Before the VP runs on: steps over the breakpoint that it is at.
    pub(crate) fn leave_breakpoint(&mut self) -> Result<Option<VpStop>, RunError> {
        let Some(at) = self.stopped_at.take() else {
            return Ok(None);
        };
        if self.state(self.vp)?.rip != at {
            return Ok(None);
        }
        self.engine_step()
    }
}

impl VpDebug for KvmRunner {
    fn fxsave(&mut self, vp: VpIndex) -> Result<[u8; 512], RunError> {
        self.settled(vp)?;
        Ok(self.vcpu.fpu().map_err(host)?.fxsave())
    }

    fn translate(&mut self, vp: VpIndex, address: u64) -> Result<Option<u64>, RunError> {
        self.settled(vp)?;
        self.vcpu.translate(address).map_err(host)
    }

    fn set_breakpoints(&mut self, addresses: &[u64]) -> Result<(), RunError> {
        if addresses.len() > BREAKPOINTS {
            let what = format!("{} breakpoints", addresses.len());
            let reason =
                format!("the processor has {BREAKPOINTS}; delete some, or debug with --hypervisor soft");
            return Err(RunError::Host { what, reason });
        }
        let mut debug = kb::kvm_guest_debug::default();
        if !addresses.is_empty() {
            debug.control = kb::KVM_GUESTDBG_ENABLE | kb::KVM_GUESTDBG_USE_HW_BP;
        }
        // DR7: enable bits 2n (local) and, with type and length 0, execution breakpoints.
        debug.arch.debugreg[7] = 0x400;
        for (n, &address) in addresses.iter().enumerate() {
            debug.arch.debugreg[n] = address;
            debug.arch.debugreg[7] |= 1 << (2 * n);
        }
        self.vcpu.set_guest_debug(&debug).map_err(host)
    }

    fn step(&mut self, vp: VpIndex) -> Result<VpStop, RunError> {
        self.settled(vp)?;
        self.stopped_at = None;
        Ok(self.engine_step()?.unwrap_or(VpStop::Stepped { vp }))
    }
}
