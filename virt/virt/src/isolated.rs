// SPDX-License-Identifier: MIT
//! Launches of isolated guests: the plan goes to the platform whole, because its order is measured and
//! its facts are needed before anything exists.
//!
//! Not here: running such a guest; the summary says what keeps it from running.

use crate::launch::LaunchError;
use crate::partition::Capabilities;
use guest_memory::GuestMemory;
use launch_plan::BoundPlan;

/// A way to launch guests of one isolating platform.
pub trait IsolatingHypervisor: Send + Sync {
    /// What it can do here.
    fn capabilities(&self) -> Capabilities;
    /// Launches a guest with `vp_count` processors over `memory`, which is zero, up to the point where it
    /// could run.
    fn launch(
        &self,
        plan: &BoundPlan<'_>,
        vp_count: u32,
        memory: &GuestMemory,
    ) -> Result<LaunchSummary, LaunchError>;
}

/// What became of a range of guest memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchedRange {
    /// First guest physical byte address.
    pub gpa: u64,
    /// Length in bytes.
    pub len: u64,
    /// The state of its pages, in the platform's words.
    pub state: String,
}

/// A launched guest, in words and numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchSummary {
    /// What launched it.
    pub by: String,
    /// The launch digest that this launch was predicted to give.
    pub digest: Vec<u8>,
    /// The digest that the platform itself holds, where it tells.
    pub platform_digest: Option<Vec<u8>>,
    /// The policy that is in force.
    pub policy: u64,
    /// What the user should know.
    pub notes: Vec<String>,
    /// Guest memory at the end of the launch, ascending.
    pub memory: Vec<LaunchedRange>,
    /// Why the guest does not run now.
    pub stopped: String,
}

impl std::fmt::Display for LaunchSummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        writeln!(f, "launched by {}", self.by)?;
        writeln!(f, "digest {}", hex(&self.digest))?;
        if let Some(digest) = &self.platform_digest {
            writeln!(f, "digest of the platform {}", hex(digest))?;
        }
        writeln!(f, "policy {:#x}", self.policy)?;
        self.notes
            .iter()
            .try_for_each(|note| writeln!(f, "note: {note}"))?;
        for range in &self.memory {
            let end = range.gpa.wrapping_add(range.len);
            writeln!(f, "memory {:#018x}..{end:#018x} {}", range.gpa, range.state)?;
        }
        writeln!(f, "{}", self.stopped)
    }
}
