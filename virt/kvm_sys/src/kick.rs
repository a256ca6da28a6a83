// SPDX-License-Identifier: MIT
//! Getting a VP out of `KVM_RUN` from another thread: a flag and a real-time signal.
//!
//! Always true: the flag is set before the signal is sent, and the VP's thread clears it before it looks
//! for work, so a kick that comes between the look and `KVM_RUN` makes that call return at once. A kicker
//! keeps nothing of the VM alive.

use crate::error::KvmError;
use crate::run_page::RunPage;
use std::io;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// Kicks one VP.
pub struct Kicker {
    run: Weak<RunPage>,
    /// The thread that is between [`crate::Vcpu::enter_thread`] and the drop of its guard, else 0.
    thread: AtomicI32,
}

/// Says that this thread runs the VP, for as long as it lives.
pub struct EnteredThread {
    kicker: Arc<Kicker>,
}

impl Drop for EnteredThread {
    fn drop(&mut self) {
        self.kicker.thread.store(0, Ordering::SeqCst);
    }
}

impl Kicker {
    pub(crate) fn new(run: Weak<RunPage>) -> Self {
        Self {
            run,
            thread: AtomicI32::new(0),
        }
    }

    /// Makes the VP leave the guest soon. Does nothing when the VP is gone.
    pub fn kick(&self) {
        let Some(run) = self.run.upgrade() else { return };
        run.set_immediate_exit(true);
        let thread = self.thread.load(Ordering::SeqCst);
        if thread != 0 {
            // SAFETY: plain numbers. A thread that has ended since answers ESRCH; one that reuses the
            // number belongs to this process, whose handler does nothing.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal()) };
        }
    }

    /// Names the calling thread as the VP's and lets the signal through to it.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<EnteredThread, KvmError> {
        static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
        let call = || format!("installing the handler of signal {}", signal());
        let errno = |e: io::Error| e.raw_os_error().unwrap_or(libc::EINVAL);
        INSTALLED
            .get_or_init(|| install().map_err(errno))
            .map_err(|e| KvmError::new(call(), io::Error::from_raw_os_error(e)))?;
        unblock().map_err(|e| KvmError::new("unblocking the kick signal", e))?;
        // SAFETY: no arguments, no memory.
        let thread = unsafe { libc::gettid() };
        self.thread.store(thread, Ordering::SeqCst);
        Ok(EnteredThread { kicker: self.clone() })
    }
}

/// The first real-time signal: no library of this program uses one.
fn signal() -> i32 {
    libc::SIGRTMIN()
}

extern "C" fn on_kick(_: i32) {}

fn install() -> io::Result<()> {
    // SAFETY: an all-zero sigaction is valid; the handler does nothing, so it is safe in any context.
    // Without SA_RESTART, so that KVM_RUN returns EINTR.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_kick as extern "C" fn(i32) as usize;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(signal(), &raw const action, std::ptr::null_mut())
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn unblock() -> io::Result<()> {
    // SAFETY: the set lives on this stack and is initialised by sigemptyset.
    let result = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal());
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut())
    };
    if result != 0 {
        Err(io::Error::from_raw_os_error(result))
    } else {
        Ok(())
    }
}
