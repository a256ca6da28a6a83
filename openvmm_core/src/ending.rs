// SPDX-License-Identifier: MIT
//! Why a VM ended, and what the process makes of it.

use chipset_device::PowerRequest;
use virt::{RunError, VpStop};

/// Why a VM ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HaltReason {
    /// The guest powered off.
    Shutdown,
    /// The guest reset the machine.
    Reset,
    /// The guest wrote the test-exit device.
    TestExit(u8),
    /// The guest crashed; the text says how.
    Crash(String),
    /// The user or a signal stopped the VM.
    Stopped,
}

impl std::fmt::Display for HaltReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Shutdown => f.write_str("the guest has powered off"),
            Self::Reset => f.write_str("the guest has reset the machine"),
            Self::TestExit(code) => write!(f, "the guest has exited with code {code}"),
            Self::Crash(how) => write!(f, "the guest has crashed: {how}"),
            Self::Stopped => f.write_str("the vm was stopped"),
        }
    }
}

/// The end of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Exit code of the process.
    pub code: u8,
    /// Why.
    pub reason: HaltReason,
}

/// What a guest had done when its VM ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// The partition's clock, in nanoseconds.
    pub(crate) clock: u64,
    /// Instructions that each VP has retired; `None` when the backend does not count.
    pub(crate) instructions: Vec<Option<u64>>,
}

impl Ended {
    pub(crate) fn stopped(code: u8) -> Self {
        Self {
            code,
            reason: HaltReason::Stopped,
        }
    }
}

/// Why VPs left their run call on their own.
#[derive(Debug)]
pub(crate) enum Cause {
    /// The guest ended.
    Guest(HaltReason),
    /// The host could not go on.
    Host(RunError),
}

impl Cause {
    /// What a returned run call means; `None` when it was asked for.
    pub(crate) fn of_stop(result: Result<VpStop, RunError>) -> Option<Self> {
        let how = match result {
            // Breakpoint and step stops belong to a debugger, which takes them before they get here.
            Ok(VpStop::Requested | VpStop::Breakpoint { .. } | VpStop::Stepped { .. }) => return None,
            Ok(VpStop::TripleFault { vp }) => format!("vp {vp} triple faulted"),
            Ok(VpStop::Unrunnable { vp, reason }) => format!("vp {vp} cannot go on: {reason}"),
            Err(error) => return Some(Self::Host(error)),
        };
        Some(Self::Guest(HaltReason::Crash(how)))
    }
}

impl From<PowerRequest> for Cause {
    fn from(request: PowerRequest) -> Self {
        Self::Guest(match request {
            PowerRequest::Shutdown => HaltReason::Shutdown,
            PowerRequest::Reset => HaltReason::Reset,
            PowerRequest::TestExit(code) => HaltReason::TestExit(code),
            PowerRequest::Crash(how) => HaltReason::Crash(how),
        })
    }
}
