// SPDX-License-Identifier: MIT
//! How other threads get a virtual processor's attention.
//!
//! A VP checks its flag between guest entries; [`VpSignals::wake`] sets it, wakes the VP when it is
//! parked, and calls the backend's kick when it is inside the guest. Setting the flag happens before
//! the kick and the VP clears it before it looks at its events, so no wake is lost.

use chipset_device::{VpIndex, VpWake};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

/// Why a park ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WakeReason {
    /// Somebody called [`VpSignals::wake`].
    Woken,
    /// The stop flag is set.
    Stop,
    /// The time limit passed.
    Timeout,
}

type Kick = Box<dyn Fn() + Send + Sync>;

struct Signal {
    attention: AtomicBool,
    lock: Mutex<()>,
    parked: Condvar,
    kick: OnceLock<Kick>,
}

/// The attention flags of all VPs of a partition and the partition's stop flag.
pub struct VpSignals {
    vps: Vec<Signal>,
    stop: AtomicBool,
}

impl VpSignals {
    /// Signals for `count` VPs, none raised, not stopped.
    pub fn new(count: u32) -> Self {
        let vps = (0..count)
            .map(|_| Signal {
                attention: AtomicBool::new(false),
                lock: Mutex::new(()),
                parked: Condvar::new(),
                kick: OnceLock::new(),
            })
            .collect();
        Self {
            vps,
            stop: AtomicBool::new(false),
        }
    }

    /// Number of VPs.
    pub fn count(&self) -> u32 {
        self.vps.len() as u32
    }

    /// Sets how to force `vp` out of the guest; called once, from the VP's thread, before it first runs.
    pub fn set_kick(&self, vp: VpIndex, kick: impl Fn() + Send + Sync + 'static) {
        if let Some(s) = self.vps.get(vp as usize) {
            let _ = s.kick.set(Box::new(kick));
        }
    }

    /// Makes `vp` look at its events soon. Out of range indexes are ignored (a guest can name any APIC).
    pub fn wake(&self, vp: VpIndex) {
        let Some(s) = self.vps.get(vp as usize) else {
            return;
        };
        if s.attention.swap(true, Ordering::SeqCst) {
            return;
        }
        Self::rouse(s);
    }

    fn rouse(s: &Signal) {
        drop(s.lock());
        s.parked.notify_all();
        if let Some(kick) = s.kick.get() {
            kick();
        }
    }

    /// Clears the flag and says whether it was set. Look at events after this, not before.
    pub fn take_attention(&self, vp: VpIndex) -> bool {
        self.vps
            .get(vp as usize)
            .is_some_and(|s| s.attention.swap(false, Ordering::SeqCst))
    }

    /// Whether the flag is set.
    pub fn has_attention(&self, vp: VpIndex) -> bool {
        self.vps
            .get(vp as usize)
            .is_some_and(|s| s.attention.load(Ordering::SeqCst))
    }

    /// Asks every VP to leave its run call, or takes that back.
    pub fn set_stop(&self, stop: bool) {
        self.stop.store(stop, Ordering::SeqCst);
        if stop {
            for s in &self.vps {
                Self::rouse(s);
            }
        }
    }

    /// Whether VPs are asked to stop.
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Waits until `vp` is woken, the partition stops or `limit` passes. Returns at once when the flag
    /// is already set; leaves the flag for [`VpSignals::take_attention`].
    pub fn park(&self, vp: VpIndex, limit: Option<Duration>) -> WakeReason {
        let Some(s) = self.vps.get(vp as usize) else {
            return WakeReason::Stop;
        };
        let mut guard = s.lock();
        loop {
            if self.stopping() {
                return WakeReason::Stop;
            }
            if s.attention.load(Ordering::SeqCst) {
                return WakeReason::Woken;
            }
            match limit {
                None => guard = s.parked.wait(guard).unwrap_or_else(|e| e.into_inner()),
                Some(l) => {
                    let (g, t) = s.parked.wait_timeout(guard, l).unwrap_or_else(|e| e.into_inner());
                    guard = g;
                    if t.timed_out() && !s.attention.load(Ordering::SeqCst) && !self.stopping() {
                        return WakeReason::Timeout;
                    }
                }
            }
        }
    }
}

impl VpWake for VpSignals {
    fn wake(&self, vp: VpIndex) {
        Self::wake(self, vp);
    }
}

impl Signal {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(|e| e.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_wake_before_the_park_is_not_lost() {
        let s = VpSignals::new(1);
        s.wake(0);
        assert_eq!(s.park(0, None), WakeReason::Woken);
        assert!(s.take_attention(0));
        assert_eq!(s.park(0, Some(Duration::from_millis(1))), WakeReason::Timeout);
    }

    #[test]
    fn stop_ends_a_park_in_another_thread() {
        let s = Arc::new(VpSignals::new(2));
        let t = std::thread::spawn({
            let s = s.clone();
            move || s.park(1, None)
        });
        s.set_stop(true);
        assert_eq!(t.join().unwrap(), WakeReason::Stop);
    }

    #[test]
    fn waking_a_vp_that_does_not_exist_does_nothing() {
        VpSignals::new(1).wake(77);
    }
}
