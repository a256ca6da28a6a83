// SPDX-License-Identifier: MIT
//! Keeps mappings of truncated files readable.
//!
//! Always true: the handler touches only atomics and calls only `mmap` and `sigaction`, which are safe in
//! a signal handler on Linux; it acts on addresses inside watched mappings only and hands every other
//! SIGBUS on. Not here: telling the user (`mapped`).

use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

const PAGE: usize = 4096;
/// How many mappings can be watched at once.
const SLOTS: usize = 256;

struct Slot {
    /// First address; 0 for a free slot.
    start: AtomicUsize,
    end: AtomicUsize,
    lost: AtomicBool,
}

static WATCHED: [Slot; SLOTS] = [const {
    Slot {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        lost: AtomicBool::new(false),
    }
}; SLOTS];

/// The action before ours, for signals that are not ours. Set once, never freed.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(std::ptr::null_mut());

/// Serializes the taking of slots.
static TAKING: Mutex<()> = Mutex::new(());

/// A watched mapping, until dropped.
#[derive(Debug)]
pub(super) struct Watch {
    slot: usize,
}

impl Watch {
    /// Whether a page of the mapping was lost.
    pub(super) fn lost(&self) -> bool {
        WATCHED[self.slot].lost.load(Ordering::Acquire)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHED[self.slot].start.store(0, Ordering::Release);
    }
}

/// Watches a mapping; it must stay mapped for as long as the result lives.
pub(super) fn watch(map: &[u8]) -> std::io::Result<Watch> {
    install()?;
    let _taking = TAKING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let free = WATCHED
        .iter()
        .position(|slot| slot.start.load(Ordering::Acquire) == 0);
    let Some(index) = free else {
        return Err(std::io::Error::other(format!(
            "more than {SLOTS} files are mapped at once"
        )));
    };
    let start = map.as_ptr() as usize;
    let slot = &WATCHED[index];
    slot.lost.store(false, Ordering::Relaxed);
    slot.end
        .store(start + map.len().next_multiple_of(PAGE), Ordering::Relaxed);
    slot.start.store(start, Ordering::Release);
    Ok(Watch { slot: index })
}

/// Installs the handler, once per process.
fn install() -> std::io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let result = INSTALLED.get_or_init(|| {
        // SAFETY: a zeroed sigaction is a valid value; all pointers are to live objects; the handler has
        // the signature that SA_SIGINFO asks for.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_sigbus as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut action.sa_mask);
            let mut previous: Box<libc::sigaction> = Box::new(std::mem::zeroed());
            if libc::sigaction(libc::SIGBUS, std::ptr::null(), &mut *previous) != 0 {
                return Err(*libc::__errno_location());
            }
            PREVIOUS.store(Box::into_raw(previous), Ordering::Release);
            if libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) != 0 {
                return Err(*libc::__errno_location());
            }
        }
        Ok(())
    });
    result.map_err(std::io::Error::from_raw_os_error)
}

extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo for a handler with SA_SIGINFO.
    let address = unsafe { (*info).si_addr() } as usize;
    if replace_lost_page(address) {
        return;
    }
    // SAFETY: PREVIOUS is null or points to a sigaction that is never freed; its handler is called with
    // the arguments that its flags promise, as the kernel would have done.
    unsafe {
        let previous = PREVIOUS.load(Ordering::Acquire);
        let handler = previous
            .as_ref()
            .map_or(libc::SIG_DFL, |action| action.sa_sigaction);
        if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
            // The faulting instruction runs again and the kernel does what it would have done.
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = libc::SIG_DFL;
            libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
        } else if (*previous).sa_flags & libc::SA_SIGINFO != 0 {
            let call: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                std::mem::transmute(handler);
            call(signal, info, context);
        } else {
            let call: extern "C" fn(libc::c_int) = std::mem::transmute(handler);
            call(signal);
        }
    }
}

/// Puts a zero page at a lost page of a watched mapping; false for other addresses.
fn replace_lost_page(address: usize) -> bool {
    for slot in &WATCHED {
        let start = slot.start.load(Ordering::Acquire);
        if start == 0 || address < start || address >= slot.end.load(Ordering::Relaxed) {
            continue;
        }
        let page = address & !(PAGE - 1);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: the page lies inside a mapping of ours that is alive while its slot is taken; replacing
        // it keeps it readable, and unmapping the whole range later unmaps this page as well.
        let mapped = unsafe { libc::mmap(page as *mut libc::c_void, PAGE, libc::PROT_READ, flags, -1, 0) };
        if mapped == libc::MAP_FAILED {
            return false;
        }
        slot.lost.store(true, Ordering::Release);
        return true;
    }
    false
}
