// SPDX-License-Identifier: MIT
//! The end of an update: the result is checked and measured, and its ID block answers for it again.
//!
//! Always true: a file whose ID block expects another digest or policy than the file now has is never
//! written. Not here: signing a file that had no block (`sign`).

use super::{Updated, UpdatedPlatform, refuse};
use crate::failure::Failure;
use crate::made::{SCHEMA, version_number};
use crate::opened;
use launch_digest::id_block::{IdBlockFields, signing_key_from_pem};
use launch_digest::{Options, measure};
use launch_plan::{IdBlock, Isolation};
use p384::ecdsa::SigningKey;
use std::path::Path;
use vm_loaders::igvm::{Edit, File, Header, NewHeader, Severity, snp_id_block};

/// Keys for a new signature.
pub(super) struct Keys {
    id: SigningKey,
    author: Option<SigningKey>,
}

impl Keys {
    /// Reads the keys that were named.
    pub(super) fn read(id: Option<&Path>, author: Option<&Path>) -> Result<Option<Self>, Failure> {
        let Some(id) = id else { return Ok(None) };
        let key = |what: &'static str, path: &Path| {
            let text = String::from_utf8(crate::sign::bytes(path)?)
                .map_err(|_| Failure::Unreadable(format!("{}: not a PEM text", path.display())))?;
            signing_key_from_pem(what, &text).map_err(refuse)
        };
        Ok(Some(Self {
            id: key("id key", id)?,
            author: author.map(|path| key("author key", path)).transpose()?,
        }))
    }
}

/// Checks the draft, signs it if need be and gives it its name. What became of it.
pub(super) fn finish(
    before: &File<'_>,
    draft: &Path,
    output: &Path,
    keys: Option<&Keys>,
) -> Result<Updated, Failure> {
    let mapped = opened::map(draft)?;
    let after = opened::read(&mapped)?;
    let problems = after.check();
    if let Some(error) = problems
        .iter()
        .find(|problem| problem.severity() == Severity::Error)
    {
        return Err(refuse(format!("the result would have an error: {error}")));
    }
    let platforms = after.platforms();
    let platforms = platforms.iter().map(|platform| UpdatedPlatform {
        platform: platform.isolation.name(),
        launch_digest_before: digest(before, platform.isolation),
        launch_digest: digest(&after, platform.isolation),
    });
    let mut updated = Updated {
        schema: SCHEMA,
        output: output.display().to_string(),
        bytes: mapped.bytes().len() as u64,
        format_version: version_number(after.fixed_header().version),
        platforms: platforms.collect(),
        signed_anew: false,
        unknown_headers: Vec::new(),
    };
    match stale_block(&after)? {
        None if keys.is_some() => {
            return Err(refuse(
                "--id-key: the file has no id block that needs a new signature; use sign",
            ));
        }
        None => std::fs::rename(draft, output)
            .map_err(|error| Failure::Unreadable(format!("cannot write {}: {error}", output.display())))?,
        Some((old, fields)) => {
            let Some(keys) = keys else {
                return Err(refuse(
                    "the id block expects another digest than the file would have; sign it anew with --id-key or take it out with --drop id-block",
                ));
            };
            let block = fields.sign(&keys.id, keys.author.as_ref());
            updated.bytes = write_signed(&after, old, &block, output)?;
            updated.signed_anew = true;
        }
    }
    Ok(updated)
}

/// `None` where there is no such platform, or none that has a digest.
fn digest(file: &File<'_>, isolation: Isolation) -> Option<String> {
    let plan = file.plan(isolation).ok()?;
    let measurement = measure(&plan, &Options::default()).ok()?;
    Some(measurement.digest.to_string())
}

/// The index of an ID block that does not fit the file any more, and what it must say.
fn stale_block(file: &File<'_>) -> Result<Option<(u32, IdBlockFields)>, Failure> {
    let Ok(plan) = file.plan(Isolation::Snp) else {
        return Ok(None);
    };
    let Some(block) = plan.endorsements.id_block.as_deref() else {
        return Ok(None);
    };
    let policy = plan
        .facts
        .policy
        .ok_or_else(|| refuse("an id block needs a guest policy header, and the file has none"))?;
    let measured = measure(&plan, &Options::default()).map_err(refuse)?.digest;
    let mut launch_digest = [0; 48];
    launch_digest.copy_from_slice(&measured.0);
    let fits = launch_digest_and_policy_fit(block, policy, &launch_digest);
    let index = super::headers(file)
        .find_map(|(index, header)| matches!(header, Header::SnpIdBlock(_)).then_some(index));
    let fields = IdBlockFields {
        launch_digest,
        family_id: block.family_id,
        image_id: block.image_id,
        version: 1,
        guest_svn: block.guest_svn,
        policy,
    };
    Ok(index.filter(|_| !fits).map(|index| (index, fields)))
}

/// Whether the block's signature covers this digest and policy.
fn launch_digest_and_policy_fit(block: &IdBlock, policy: u64, digest: &[u8; 48]) -> bool {
    launch_digest::id_block::verify(block, policy, digest).is_ok()
}

/// Writes the file with a new block; its size.
fn write_signed(file: &File<'_>, index: u32, block: &IdBlock, output: &Path) -> Result<u64, Failure> {
    let mask = file
        .platforms()
        .iter()
        .find(|platform| platform.isolation == Isolation::Snp)
        .map_or(1, |platform| platform.mask);
    let mut edit = Edit::new(file);
    edit.replace(index, NewHeader::new(&snp_id_block(block, mask)))
        .map_err(refuse)?;
    let encoded = edit.finish().map_err(refuse)?;
    crate::output::write(output, |out| encoded.write_to(out))?;
    Ok(encoded.len())
}
