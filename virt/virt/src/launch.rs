// SPDX-License-Identifier: MIT
//! Where a bound plan goes.

use chipset_device::VpIndex;
use guest_memory::{GuestMemory, MemoryError};
use std::sync::{Arc, Mutex, MutexGuard};
use x86defs::X86State;

/// A launch step failed.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The import's range is not RAM of this partition.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The context names a VP that the partition does not have.
    #[error("vp context for vp {vp}, but the partition has {count} virtual processors")]
    NoSuchVp {
        /// Named VP.
        vp: VpIndex,
        /// VPs of the partition.
        count: u32,
    },
    /// The platform refused.
    #[error("{0}")]
    Platform(String),
}

/// A platform in the middle of a launch. Calls come in plan order; `finish` comes once, last.
pub trait LaunchTarget {
    /// Puts `data` (zero-filled to `len`) at `gpa`.
    fn import(&mut self, gpa: u64, len: u64, data: Option<&[u8]>) -> Result<(), LaunchError>;
    /// Gives `vp` its initial register state.
    fn vp_state(&mut self, vp: VpIndex, state: &X86State) -> Result<(), LaunchError>;
    /// Ends the launch; runners may be reset and run after this.
    fn finish(&mut self) -> Result<(), LaunchError>;
}

/// The launch of a guest that is not isolated: plain writes to RAM that is zero already, and remembered
/// register states. Shared by the backends that run such guests. Clones share the states: the partition
/// hands one to the launch and one to each runner.
#[derive(Debug, Clone)]
pub struct PlainLaunch {
    memory: GuestMemory,
    states: Arc<Mutex<Vec<Option<X86State>>>>,
}

impl PlainLaunch {
    /// A launch of `vp_count` VPs over `memory`.
    pub fn new(memory: GuestMemory, vp_count: u32) -> Self {
        Self {
            memory,
            states: Arc::new(Mutex::new(vec![None; vp_count as usize])),
        }
    }

    /// The state that the launch gave `vp`; `None` means reset state for the BSP, wait-for-SIPI for an AP.
    pub fn state(&self, vp: VpIndex) -> Option<X86State> {
        self.lock().get(vp as usize).copied().flatten()
    }

    /// Forgets the states of an earlier launch.
    pub fn restart(&mut self) {
        self.lock().fill(None);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<X86State>>> {
        self.states.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl LaunchTarget for PlainLaunch {
    fn import(&mut self, gpa: u64, len: u64, data: Option<&[u8]>) -> Result<(), LaunchError> {
        if !self.memory.is_ram(gpa, len) {
            return Err(MemoryError::OutOfRange { gpa, len }.into());
        }
        match data {
            Some(data) if data.len() as u64 > len => {
                let n = data.len();
                Err(LaunchError::Platform(format!(
                    "import at gpa {gpa:#x}: {n:#x} bytes do not fit {len:#x}"
                )))
            }
            Some(data) => Ok(self.memory.write(gpa, data)?),
            None => Ok(()),
        }
    }

    fn vp_state(&mut self, vp: VpIndex, state: &X86State) -> Result<(), LaunchError> {
        let mut states = self.lock();
        let count = states.len() as u32;
        let slot = states
            .get_mut(vp as usize)
            .ok_or(LaunchError::NoSuchVp { vp, count })?;
        *slot = Some(*state);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), LaunchError> {
        Ok(())
    }
}
