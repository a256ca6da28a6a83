// SPDX-License-Identifier: MIT
//! What a build says about its guests beside their pages: launch digests, VBS measurements, CoRIM
//! documents.
//!
//! Always true: digests are what a launch through KVM gives, not the file-order ones that igvmfilegen
//! writes (sev.md section 0). A document names the guest's security version. Not here: signing.

use launch_digest::{Digest, Options, measure};
use launch_plan::{Corim, Isolation, LaunchPlan, VbsMeasurement};
use std::path::{Path, PathBuf};
use vm_loaders::igvm::corim_document;

/// `VbsPolicyFlags`: debugging allowed.
const VBS_POLICY_DEBUG: u32 = 1;
/// The only algorithms that `igvm_defs` knows: SHA-256, ECDSA P-384.
const VBS_SHA256: u32 = 1;
const VBS_ECDSA_P384: u32 = 1;

/// The launch digest of a plan; `None` on platforms without one.
pub(super) fn digest(plan: &LaunchPlan<'_>) -> Result<Option<Digest>, String> {
    if matches!(plan.facts.isolation, Isolation::Native | Isolation::Cca) {
        return Ok(None);
    }
    let measured = measure(plan, &Options::default()).map_err(|error| error.to_string())?;
    Ok(Some(measured.digest))
}

/// Gives a VBS guest its measurement: the digest, not signed.
pub(super) fn add_vbs_measurement(
    plan: &mut LaunchPlan<'_>,
    svn: u32,
    enable_debug: bool,
) -> Result<(), String> {
    let computed = measure(plan, &Options::default()).map_err(|error| error.to_string())?;
    let mut digest = [0; 64];
    digest[..32].copy_from_slice(&computed.digest.0);
    plan.endorsements.vbs_measurement = Some(Box::new(VbsMeasurement {
        version: 1,
        product_id: 0,
        module_id: 0,
        security_version: svn,
        policy_flags: if enable_debug { VBS_POLICY_DEBUG } else { 0 },
        digest_algorithm: VBS_SHA256,
        signing_algorithm: VBS_ECDSA_P384,
        digest,
        signature: [0; 256],
        public_key: [0; 512],
    }));
    Ok(())
}

/// A CoRIM document and the file beside the output that it goes to.
pub(super) struct Document {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
}

/// The document of a plan with a digest; `None` on platforms without documents.
pub(super) fn corim(
    plan: &LaunchPlan<'_>,
    digest: Option<&Digest>,
    svn: u32,
    output: &Path,
) -> Option<Document> {
    let name = match plan.facts.isolation {
        Isolation::Snp => "snp",
        Isolation::Tdx => "tdx",
        Isolation::Vsm => "vbs",
        _ => return None,
    };
    let bytes = corim_document(plan.facts.isolation, &digest?.0, svn)?;
    let mut file = output.file_stem().unwrap_or(output.as_os_str()).to_owned();
    file.push(format!("-{name}.cbor"));
    Some(Document {
        path: output.with_file_name(file),
        bytes,
    })
}

/// Puts a document into the file itself.
pub(super) fn embed(plan: &mut LaunchPlan<'_>, document: &Document) {
    plan.endorsements.corim = Some(Corim {
        document: document.bytes.clone().into(),
        signature: None,
    });
}
