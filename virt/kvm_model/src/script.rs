// SPDX-License-Identifier: MIT
//! A guest without a processor: what it does, step by step, and what became of each step (`spec/sev.md`
//! 4.10).
//!
//! Always true: steps happen in order inside KVM_RUN; a step that needs the host ends KVM_RUN and is
//! finished by the next one; a VP without steps halts. Not here: what a step does to memory
//! ([`crate::guest_view`]) and how an exit looks ([`crate::run`]).

use crate::guest_view::{GuestFault, Side};
use std::collections::VecDeque;

/// One thing that a guest does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestStep {
    /// PVALIDATE of a range of 4 KiB pages, to valid or back.
    Validate {
        /// First byte.
        gpa: u64,
        /// 4 KiB pages.
        pages: u64,
        /// To valid.
        valid: bool,
    },
    /// Asks the host to convert pages (MAP_GPA_RANGE).
    Convert {
        /// First byte.
        gpa: u64,
        /// 4 KiB pages.
        pages: u64,
        /// To private.
        private: bool,
    },
    /// Loads bytes.
    Read {
        /// First byte.
        gpa: u64,
        /// How many.
        len: usize,
        /// With or without the C-bit.
        side: Side,
    },
    /// Stores bytes.
    Write {
        /// First byte.
        gpa: u64,
        /// What.
        bytes: Vec<u8>,
        /// With or without the C-bit.
        side: Side,
    },
    /// Starts another VP with a save area of the guest's own (SEV-SNP AP creation).
    CreateAp {
        /// Number of the VP.
        vp: u32,
        /// Page of the save area.
        gpa: u64,
        /// SEV features in RAX.
        features: u64,
    },
    /// Gives up (GHCB termination request).
    Terminate {
        /// Whose codes.
        reason_set: u8,
        /// The code.
        code: u8,
    },
    /// HLT.
    Halt,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepResult {
    /// It happened; what was read, if it was a read.
    Done(Vec<u8>),
    /// The host answered a conversion with this (0, EINVAL, EAGAIN), or KVM refused the request.
    Answered(u64),
    /// The processor refused it.
    Fault(GuestFault),
}

/// A VP's steps.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) steps: VecDeque<GuestStep>,
    pub(crate) results: Vec<StepResult>,
    /// A conversion waits for the host's answer in the run structure.
    pub(crate) waits_for_host: bool,
}
