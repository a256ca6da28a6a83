// SPDX-License-Identifier: MIT
//! Every call that went through the seam, and calls that were told to fail (`spec/sev.md` 4.10).
//!
//! Always true: a call is known by its name and by how often that name was called before, so a launch that
//! is repeated meets the same fault at the same place; an injected fault happens once.
//! Not here: what a fault does to a command's structure.

use std::collections::BTreeMap;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The kernel refuses the call with this number before it looks at anything.
    Errno(i32),
    /// The firmware answers a SEV command with this code; other calls fail with EIO.
    Firmware(u32),
    /// SNP_LAUNCH_UPDATE stops behind this many pages, as for a signal; at 0 that is an error. Other calls fail
    /// with EINTR.
    Partial(u64),
    /// The security processor stops answering with this call.
    PspDead,
}

/// A call, as it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The request or command ("KVM_CREATE_VM", "KVM_SEV_INIT2", "open /dev/sev").
    pub name: &'static str,
    /// How many calls of that name came before.
    pub nth: usize,
    /// The error number, if it failed.
    pub errno: Option<i32>,
    /// The firmware's status, if the command reached it.
    pub firmware: Option<u32>,
}

/// The transcript and what is to go wrong.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) done: Vec<Call>,
    counts: BTreeMap<&'static str, usize>,
    faults: BTreeMap<(String, usize), Fault>,
}

impl Calls {
    pub(crate) fn inject(&mut self, name: &str, nth: usize, fault: Fault) {
        self.faults.insert((name.to_owned(), nth), fault);
    }

    /// Faults that no call has met.
    pub(crate) fn unmet(&self) -> usize {
        self.faults.len()
    }

    /// Begins a call: its number, and what goes wrong with it.
    pub(crate) fn begin(&mut self, name: &'static str) -> (usize, Option<Fault>) {
        let count = self.counts.entry(name).or_default();
        let nth = *count;
        *count += 1;
        (nth, self.faults.remove(&(name.to_owned(), nth)))
    }

    pub(crate) fn end(&mut self, name: &'static str, nth: usize, errno: Option<i32>, firmware: Option<u32>) {
        self.done.push(Call {
            name,
            nth,
            errno,
            firmware,
        });
    }
}
