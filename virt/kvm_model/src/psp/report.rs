// SPDX-License-Identifier: MIT
//! Attestation reports of SEV-SNP guests (SNP ABI 56860, "ATTESTATION_REPORT Structure").
//!
//! Always true: what follows from the launch is what the firmware computed and was told at the finish; the
//! signature is by a key of the model, which nobody trusts. Not here: how a guest asks (its page requests
//! need a processor), and certificates.

use super::context::Context;
use super::{Psp, sign};
use crate::firmware::put;

/// Size of a report.
pub(crate) const REPORT: usize = 0x4A0;
/// The part that is signed.
const SIGNED: usize = 0x2A0;

impl Psp {
    /// The report of a guest for a VMPL, with 64 bytes that it chose; `None` while it is launched.
    pub(crate) fn report(&self, context: u64, data: &[u8; 64], vmpl: u32) -> Option<Box<[u8; REPORT]>> {
        let context = self.contexts.get(&context).filter(|context| !context.launching)?;
        let mut report = Box::new([0; REPORT]);
        put::<4>(&mut report[..], 0, 2);
        put::<8>(&mut report[..], 0x08, context.policy);
        put::<4>(&mut report[..], 0x30, vmpl.into());
        put::<4>(&mut report[..], 0x34, 1);
        put::<8>(&mut report[..], 0x40, u64::from(self.smt));
        report[0x50..0x90].copy_from_slice(data);
        report[0x90..0xC0].copy_from_slice(&context.digest);
        report[0xC0..0xE0].copy_from_slice(&context.host_data);
        identity(context, &mut report);
        let (build, (major, minor)) = (self.build, self.api);
        report[0x1E8..0x1EB].copy_from_slice(&[build, minor, major]);
        report[0x1EC..0x1EF].copy_from_slice(&[build, minor, major]);
        let signature = sign::by_model(&report[..SIGNED]);
        report[SIGNED..SIGNED + signature.len()].copy_from_slice(&signature);
        Some(report)
    }
}

/// What the ID block said.
fn identity(context: &Context, report: &mut [u8; REPORT]) {
    let Some(identity) = &context.identity else { return };
    put::<4>(report, 0x04, identity.guest_svn.into());
    report[0x10..0x20].copy_from_slice(&identity.family_id);
    report[0x20..0x30].copy_from_slice(&identity.image_id);
    report[0xE0..0x110].copy_from_slice(&identity.id_key_digest);
    if let Some(digest) = &identity.author_key_digest {
        put::<4>(report, 0x48, 1);
        report[0x110..0x140].copy_from_slice(digest);
    }
}
