// SPDX-License-Identifier: MIT
//! `igvmtool sign`: gives the SEV-SNP platform of a file an ID block.
//!
//! Signing happens here with a key in PEM, or elsewhere: `--emit-block` writes the 96 bytes to sign, and
//! `--signature` with `--public-key` takes the signature back.
//!
//! Always true: the file is edited in place: every other header, unknown ones included, and all data keep
//! their bytes.

use crate::failure::{Failure, Outcome};
use crate::made::Made;
use crate::measure::profile;
use crate::{opened, progress};
use launch_digest::id_block::{
    IdBlockFields, signature_from_bytes, signing_key_from_pem, verify, verifying_key_from_pem,
};
use launch_digest::{Digest, Options, Profile, measure};
use launch_plan::{IdBlock, Isolation, LaunchPlan};
use serde::Serialize;
use std::path::{Path, PathBuf};
use vm_loaders::igvm::{Edit, EditError, Encoded, File, Header, NewHeader, Platform, Section, snp_id_block};

/// Options of `sign`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The IGVM file.
    file: PathBuf,
    /// The file to write, with the ID block.
    #[arg(short, long, required_unless_present = "emit_block")]
    output: Option<PathBuf>,
    /// P-384 private key in PEM that signs the block.
    #[arg(long, required_unless_present_any = ["emit_block", "signature"], conflicts_with = "signature")]
    id_key: Option<PathBuf>,
    /// P-384 private key in PEM that signs the ID key.
    #[arg(long, requires = "id_key")]
    author_key: Option<PathBuf>,
    /// Write the 96 bytes to sign to this file, and nothing else.
    #[arg(long, conflicts_with_all = ["output", "id_key", "signature"])]
    emit_block: Option<PathBuf>,
    /// A signature of those bytes made elsewhere: DER or 96 raw bytes.
    #[arg(long, requires = "public_key")]
    signature: Option<PathBuf>,
    /// The public key in PEM that belongs to --signature.
    #[arg(long, requires = "signature")]
    public_key: Option<PathBuf>,
    /// Family id, 32 hex digits.
    #[arg(long, default_value = "00000000000000000000000000000000", value_parser = id)]
    family_id: [u8; 16],
    /// Image id, 32 hex digits.
    #[arg(long, default_value = "00000000000000000000000000000000", value_parser = id)]
    image_id: [u8; 16],
    /// Guest security version.
    #[arg(long, default_value_t = 1)]
    svn: u32,
    /// Virtual processors of the guest. Default: one for each context in the file.
    #[arg(long)]
    vp_count: Option<u32>,
    /// Whose reading of the file the expected digest follows; anything but kvm will not start on KVM when
    /// the digests differ.
    #[arg(long, default_value = "kvm", value_parser = profile)]
    profile: Profile,
    /// Replace an ID block that the file has already.
    #[arg(long)]
    replace: bool,
    /// JSON on standard output (schema version 1).
    #[arg(long)]
    json: bool,
}

/// What `--emit-block --json` prints (schema version 1).
#[derive(Serialize)]
struct Emitted<'b> {
    schema: u32,
    /// The file with the bytes to sign.
    block: String,
    launch_digest: String,
    policy: String,
    guest_svn: u32,
    profile: &'b str,
}

fn id(text: &str) -> Result<[u8; 16], String> {
    if text.len() != 32 || !text.is_ascii() {
        return Err("an id has 32 hex digits".into());
    }
    let mut out = [0; 16];
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|e| e.to_string())?;
    }
    Ok(out)
}

/// Signs, or writes what is to be signed.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let mapped = opened::map(&args.file)?;
    let file = opened::read(&mapped)?;
    let shown = args.file.display();
    let platforms = file.platforms();
    let snp = platforms
        .iter()
        .find(|platform| platform.isolation == Isolation::Snp);
    let snp = snp.ok_or_else(|| {
        Failure::Usage(format!(
            "{shown}: an id block is for sev-snp, and the file has no such platform"
        ))
    })?;
    let plan = opened::plan(&mapped, &file, Isolation::Snp)?;
    if plan.endorsements.id_block.is_some() && !args.replace && args.emit_block.is_none() {
        return Err(Failure::Usage(format!(
            "{shown}: the file has an id block already; --replace drops it"
        )));
    }
    let fields = progress::during("measuring", || fields(&plan, args))?;
    if let Some(path) = &args.emit_block {
        emit(path, &fields, args)?;
        return opened::finish(&mapped, Outcome::Fine);
    }
    let block = block(&fields, args)?;
    verify(&block, fields.policy, &fields.launch_digest).map_err(|e| Failure::Usage(e.to_string()))?;
    let edited = edited(&file, snp, &block).map_err(|e| Failure::Usage(format!("{shown}: {e}")))?;
    if let Some(path) = &args.output {
        crate::output::write(path, |out| edited.write_to(out))?;
        if args.json {
            report(path, &edited)?;
        }
    }
    opened::finish(&mapped, Outcome::Fine)
}

fn emit(path: &Path, fields: &IdBlockFields, args: &Args) -> Result<(), Failure> {
    crate::output::write(path, |out| std::io::Write::write_all(out, &fields.to_bytes()))?;
    if !args.json {
        return Ok(());
    }
    crate::output::json(&Emitted {
        schema: crate::made::SCHEMA,
        block: path.display().to_string(),
        launch_digest: Digest(fields.launch_digest.to_vec()).to_string(),
        policy: format!("{:#x}", fields.policy),
        guest_svn: fields.guest_svn,
        profile: args.profile.name(),
    })
}

/// The file with `block` in the place of an older one of the platform, or behind all directives.
fn edited<'a>(file: &File<'a>, snp: &Platform, block: &IdBlock) -> Result<Encoded<'a>, EditError> {
    let new = || NewHeader::new(&snp_id_block(block, snp.mask));
    let old = file.headers().iter().position(|raw| {
        matches!(file.decode(raw), Ok(Header::SnpIdBlock(old)) if old.compatibility_mask & snp.mask != 0)
    });
    let mut edit = Edit::new(file);
    match old {
        Some(index) => edit.replace(index as u32, new())?,
        None => edit.insert(edit.end_of(Section::Directive), new())?,
    }
    edit.finish()
}

/// Describes the written file, as it can be read again.
fn report(path: &Path, edited: &Encoded<'_>) -> Result<(), Failure> {
    let mapped = opened::map(path)?;
    let file = opened::read(&mapped)?;
    let mut plans = Vec::new();
    for platform in file.platforms() {
        plans.push(opened::plan(&mapped, &file, platform.isolation)?);
    }
    let format = file.fixed_header().version;
    crate::output::json(&Made::new(path, edited.len(), format, &plans)?)
}

fn fields(plan: &LaunchPlan<'_>, args: &Args) -> Result<IdBlockFields, Failure> {
    let policy = plan.facts.policy.ok_or_else(|| {
        Failure::Usage(
            "the sev-snp platform has no guest policy header, which an id block must repeat".into(),
        )
    })?;
    let options = Options {
        profile: args.profile,
        vp_count: args.vp_count,
        trace: false,
    };
    let measurement = measure(plan, &options).map_err(|e| Failure::Usage(e.to_string()))?;
    for warning in &measurement.warnings {
        eprintln!("igvmtool: warning: {warning}");
    }
    let mut launch_digest = [0; 48];
    launch_digest.copy_from_slice(&measurement.digest.0);
    Ok(IdBlockFields {
        launch_digest,
        family_id: args.family_id,
        image_id: args.image_id,
        version: 1,
        guest_svn: args.svn,
        policy,
    })
}

fn block(fields: &IdBlockFields, args: &Args) -> Result<IdBlock, Failure> {
    let usage = |e: launch_digest::id_block::IdBlockError| Failure::Usage(e.to_string());
    if let (Some(signature), Some(key)) = (&args.signature, &args.public_key) {
        let signature = signature_from_bytes(&bytes(signature)?).map_err(usage)?;
        let key = verifying_key_from_pem("public key", &text(key)?).map_err(usage)?;
        return Ok(fields.with_signature(&signature, &key));
    }
    let path = args
        .id_key
        .as_ref()
        .ok_or_else(|| Failure::Usage("--id-key is missing".into()))?;
    let id_key = signing_key_from_pem("id key", &text(path)?).map_err(usage)?;
    let author = match &args.author_key {
        Some(path) => Some(signing_key_from_pem("author key", &text(path)?).map_err(usage)?),
        None => None,
    };
    Ok(fields.sign(&id_key, author.as_ref()))
}

/// All bytes of a file that the user named.
pub(crate) fn bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|e| Failure::Unreadable(format!("{}: {e}", path.display())))
}

fn text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(bytes(path)?)
        .map_err(|_| Failure::Unreadable(format!("{}: not a PEM text", path.display())))
}
