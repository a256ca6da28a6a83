// SPDX-License-Identifier: MIT
//! The security processor: guests, contexts and the keys and digests that nobody else sees.
//!
//! Always true: it computes digests from the bytes that it is handed, never from what a loader predicts,
//! and shares no code with `launch_digest`. Keys come from a counter, so two equal runs are equal.
//! Not here: KVM's own checks, which come first ([`crate::vm`]).

mod context;
mod cpuid_page;
mod guest;
mod id_block;
mod report;
mod session;
mod sign;

pub(crate) use context::{Context, Finish, IdBlobs};
pub(crate) use guest::SevGuest;
pub use id_block::IdentityRecord;
pub(crate) use report::REPORT;
pub(crate) use session::Blobs;
pub use session::{ModelSession, SecretPacket};
pub(crate) use sign::public_key as report_key;

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// What a page is to the firmware (SNP ABI, SNP_LAUNCH_UPDATE).
pub(crate) mod page_type {
    pub(crate) const NORMAL: u8 = 1;
    pub(crate) const SAVE_AREA: u8 = 2;
    pub(crate) const ZERO: u8 = 3;
    pub(crate) const UNMEASURED: u8 = 4;
    pub(crate) const SECRETS: u8 = 5;
    pub(crate) const CPUID: u8 = 6;
}

/// The security processor.
#[derive(Debug)]
pub(crate) struct Psp {
    pub(crate) api: (u8, u8),
    pub(crate) build: u8,
    pub(crate) smt: bool,
    pub(crate) requirements_met: u64,
    pub(crate) measure_repeats: bool,
    pub(crate) cpuid_pages_are_checked: bool,
    /// It stopped answering.
    pub(crate) dead: bool,
    pub(crate) guests: BTreeMap<u32, SevGuest>,
    /// By the physical address of the context page.
    pub(crate) contexts: BTreeMap<u64, Context>,
    handles: u32,
    random: u64,
}

impl Psp {
    pub(crate) fn new(host: &crate::FakeHost) -> Self {
        Self {
            api: host.api,
            build: host.build,
            smt: host.smt,
            requirements_met: host.requirements_met,
            measure_repeats: host.assumptions.measure_repeats,
            cpuid_pages_are_checked: host.assumptions.cpuid_pages_are_checked,
            dead: false,
            guests: BTreeMap::new(),
            contexts: BTreeMap::new(),
            handles: 0,
            random: 0,
        }
    }

    /// 32 bytes that nobody guesses and every equal run repeats.
    fn random(&mut self) -> [u8; 32] {
        self.random += 1;
        Sha256::digest([&b"random"[..], &self.random.to_le_bytes()].concat()).into()
    }

    fn random_key(&mut self) -> [u8; 16] {
        let mut key = [0; 16];
        key.copy_from_slice(&self.random()[..16]);
        key
    }

    /// How many guests there are.
    pub(crate) fn guest_count(&self) -> usize {
        self.guests.len() + self.contexts.len()
    }

    /// The firmware's build and interface in the order of a comparison.
    fn is_older_than(&self, major: u8, minor: u8) -> bool {
        (major, minor) > self.api
    }
}
