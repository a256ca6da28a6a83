// SPDX-License-Identifier: MIT
//! Where a bound plan goes.

use crate::activity::Activity;
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

    /// How `vp` starts: as the launch says, else the BSP in reset state and an AP waiting for SIPI, with the BSP's
    /// MTRRs. Firmware that is told that they are set up sets none up itself, and they survive INIT.
    pub fn start(&self, vp: VpIndex) -> (Activity, X86State) {
        let states = self.lock();
        let given = |vp: VpIndex| states.get(vp as usize).copied().flatten();
        match given(vp) {
            Some(state) => (Activity::Running, state),
            None if vp == 0 => (Activity::Running, X86State::reset()),
            None => {
                let mtrr = given(0).unwrap_or_default().mtrr;
                let state = X86State::reset();
                (Activity::WaitForSipi, X86State { mtrr, ..state })
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ap_waits_with_the_mtrrs_of_the_bsp_unless_the_launch_gives_it_a_state() {
        let memory = GuestMemory::allocate(&[(0, 0x1000)]).unwrap();
        let mut launch = PlainLaunch::new(memory, 3);
        assert_eq!(launch.start(0), (Activity::Running, X86State::reset()));
        assert_eq!(launch.start(1), (Activity::WaitForSipi, X86State::reset()));
        let mut bsp = X86State::reset();
        bsp.rip = 0x10_0000;
        bsp.mtrr.def_type = 0xC00;
        bsp.mtrr.variable[0] = (6, 0x7F_8000_0800);
        launch.vp_state(0, &bsp).unwrap();
        launch.vp_state(2, &X86State::reset()).unwrap();
        assert_eq!(launch.start(0), (Activity::Running, bsp));
        let waiting = X86State {
            mtrr: bsp.mtrr,
            ..X86State::reset()
        };
        assert_eq!(launch.start(1), (Activity::WaitForSipi, waiting));
        assert_eq!(launch.start(2), (Activity::Running, X86State::reset()));
        launch.restart();
        assert_eq!(launch.start(1), (Activity::WaitForSipi, X86State::reset()));
    }
}
