// SPDX-License-Identifier: MIT
//! The ID block of a SEV-SNP file: checked as the firmware will at the end of the launch, before the
//! launch (`spec/sev.md` 2.7, 0 fact 2).
//!
//! Always true: what is wrong is refused with the reason that the firmware would give, because after a
//! refused FINISH the VM can only be destroyed.

use launch_digest::id_block::{self, ID_AUTH_SIZE, ID_BLOCK_SIZE, IdBlockError, IdBlockFields};
use launch_digest::{Digest, Options, Profile, measure};
use launch_plan::{IdBlock, LaunchPlan};

/// What FINISH is given.
#[derive(Debug, Clone)]
pub(crate) struct Endorsed {
    /// The signed block.
    pub(crate) block: Box<[u8; ID_BLOCK_SIZE]>,
    /// Keys and signatures.
    pub(crate) auth: Box<[u8; ID_AUTH_SIZE]>,
    /// The author's key is in it.
    pub(crate) author_key: bool,
}

/// The plan's ID block, if it has one and the firmware will take it with `policy` and `digest`.
pub(crate) fn check(
    plan: &LaunchPlan<'_>,
    policy: u64,
    digest: &[u8],
    vp_count: u32,
) -> Result<Option<Endorsed>, String> {
    let Some(block) = &plan.endorsements.id_block else {
        return Ok(None);
    };
    let digest: &[u8; 48] = digest
        .try_into()
        .map_err(|_| "a SEV-SNP launch digest has 48 bytes".to_owned())?;
    // The signature covers the policy of the file; the launch may have been given another.
    let signed = plan.facts.policy.unwrap_or(policy);
    id_block::verify(block, signed, digest).map_err(|error| explain(plan, block, error, vp_count))?;
    if signed != policy {
        return Err(format!(
            "the id block was signed for policy {signed:#x}, and the launch has policy {policy:#x}; the firmware would \
             answer POLICY_FAILURE; drop policy= from --isolation, or sign the file for that policy"
        ));
    }
    Ok(Some(Endorsed {
        block: Box::new(IdBlockFields::of(block, signed).to_bytes()),
        auth: id_block::id_auth(block),
        author_key: block.author_key_enabled != 0,
    }))
}

/// A digest that another reading of the file gives is explained.
fn explain(plan: &LaunchPlan<'_>, block: &IdBlock, error: IdBlockError, vp_count: u32) -> String {
    let IdBlockError::Digest { .. } = error else {
        return error.to_string();
    };
    let expected = Digest(block.launch_digest.to_vec());
    let gives = |profile, vp_count| {
        let options = Options {
            profile,
            vp_count: Some(vp_count),
            trace: false,
        };
        measure(plan, &options).is_ok_and(|m| m.digest == expected)
    };
    let contexts = plan.vp_contexts().count() as u32;
    if contexts != vp_count && gives(Profile::Kvm, contexts) {
        return format!(
            "{error}; the file was signed for its {contexts} contexts, and each processor is measured; launch it with -p \
             {contexts}, or sign it with igvmtool sign --vp-count {vp_count}"
        );
    }
    let other = Profile::ALL
        .into_iter()
        .find(|&profile| profile != Profile::Kvm && gives(profile, vp_count));
    match other {
        Some(Profile::FileOrder) => format!(
            "{error}; the expected digest is the one of the file's own order, but on kvm save areas are measured last, \
             at one address and as kvm rebuilds them; sign the file again with igvmtool sign"
        ),
        Some(profile) => format!(
            "{error}; the expected digest is the one that profile {} of igvmtool measure gives; sign the file again with \
             igvmtool sign",
            profile.name()
        ),
        None => format!(
            "{error}; the file was changed after it was signed, or signed for another number of processors; see igvmtool \
             measure --vp-count {vp_count}"
        ),
    }
}
