// SPDX-License-Identifier: MIT
//! The time-stamp counter as a view of the partition's clock.
//!
//! Always true: all VPs of a partition have the same offset from the host's counter, plus what the guest
//! itself wrote; the counter stops when the clock stops. Where KVM cannot shift it (Linux before 5.16, and
//! software-nested KVM, which accepts an offset and ignores it) it is the host's and runs on.

use guest_memory::GuestMemory;
use kvm_sys::{KvmError, System, Vcpu, VmType, host_tsc};
use std::io;
use std::sync::Mutex;
use virt::Clock;

/// Frequency of the counter of every VP, from a VM that is thrown away; `None` where the host's own counter
/// has no fixed one.
pub(crate) fn frequency(system: &System) -> Result<Option<u64>, KvmError> {
    let memory = |e| KvmError::new("memory to ask for the tsc frequency", io::Error::other(e));
    let ram = GuestMemory::allocate(&[(0, 0x1000)]).map_err(memory)?;
    let vm = system.create_vm(VmType::Default, &ram)?;
    match Vcpu::new(&vm, 0)?.tsc_khz() {
        Ok(khz) => Ok((khz > 0).then(|| khz * 1000)),
        Err(error) if error.errno() == Some(libc::EIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The offset that the VPs of a partition share.
#[derive(Debug, Default)]
pub(crate) struct TscBase(Mutex<Option<i64>>);

/// Differences below this many microseconds are the time between two VPs' looks at the clock.
const TOLERANCE_US: u64 = 100;

impl TscBase {
    /// The offset that makes the counter agree with the clock now.
    fn offset(&self, clock: &Clock, khz: u64) -> i64 {
        let cycles = u128::from(clock.now()) * u128::from(khz) / 1_000_000;
        let wanted = (cycles as u64).wrapping_sub(host_tsc()) as i64;
        let mut shared = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let offset = agreed(*shared, wanted, khz);
        *shared = Some(offset);
        offset
    }
}

/// The offset of the VPs before this one, unless the clock has stood still since.
fn agreed(shared: Option<i64>, wanted: i64, khz: u64) -> i64 {
    let tolerance = TOLERANCE_US * khz / 1000;
    shared
        .filter(|offset| offset.wrapping_sub(wanted).unsigned_abs() < tolerance)
        .unwrap_or(wanted)
}

/// One VP's counter.
#[derive(Debug)]
pub(crate) struct Tsc {
    khz: u64,
    /// KVM can shift it.
    movable: bool,
    applied: Option<i64>,
}

impl Tsc {
    pub(crate) fn new(vcpu: &Vcpu) -> Result<Self, KvmError> {
        Ok(Self {
            khz: vcpu.tsc_khz()?,
            movable: vcpu.tsc_offset()?.is_some(),
            applied: None,
        })
    }

    /// Moves the counter by what the clock and the host's counter have drifted apart (a pause) since the
    /// last call; the first call sets it.
    pub(crate) fn follow(&mut self, vcpu: &mut Vcpu, base: &TscBase, clock: &Clock) -> Result<(), KvmError> {
        if !self.movable {
            return Ok(());
        }
        let wanted = base.offset(clock, self.khz);
        let next = match self.applied {
            Some(applied) if applied == wanted => return Ok(()),
            Some(applied) => vcpu
                .tsc_offset()?
                .unwrap_or(applied)
                .wrapping_add(wanted.wrapping_sub(applied)),
            None => wanted,
        };
        vcpu.set_tsc_offset(next)?;
        self.applied = Some(wanted);
        Ok(())
    }

    /// A reset sets the counter anew: the guest's own writes are forgotten.
    pub(crate) fn reset(&mut self) {
        self.applied = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_that_look_at_nearly_the_same_time_agree() {
        let khz = 2_000_000;
        assert_eq!(agreed(None, -5000, khz), -5000);
        assert_eq!(agreed(Some(-5000), -5000 + 199_999, khz), -5000);
        assert_eq!(
            agreed(Some(-5000), -5000 - 200_000, khz),
            -205_000,
            "after a pause there is a new one"
        );
    }

    #[test]
    fn the_counter_starts_at_the_clock() {
        let (clock, base) = (Clock::host(), TscBase::default());
        let before = host_tsc();
        let offset = base.offset(&clock, 2_000_000);
        let start = before.wrapping_add_signed(offset);
        assert!(
            start as i64 <= 0 && start as i64 > -1_000_000_000,
            "the clock stands at 0: {start:#x}"
        );
    }
}
