// SPDX-License-Identifier: MIT
//! `cargo xtask build-igvm`: an IGVM file from a manifest, at a fixed place, and the line that boots it.
//!
//! Always true: the file is `out/build-igvm/PROFILE/NAME.bin`, NAME being the manifest's file name
//! without `.json`; its map is beside it; the last line printed is the `openvmm` command, alone on its
//! line, ready to be pasted into a shell in the workspace's folder.

use crate::command::Cmd;
use crate::workspace::{self, Profile};
use anyhow::{Context, Result};
use clap::ValueEnum;
use std::path::{Path, PathBuf};

/// Which guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    /// x86-64.
    X64,
}

/// Options of `build-igvm`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Guest instruction set.
    arch: Arch,
    /// Manifest instead of manifests/uefi-x64.json.
    #[arg(long, value_name = "FILE")]
    override_manifest: Option<PathBuf>,
    /// Firmware image (MSVM.fd, 6 MiB) instead of our UEFI probe.
    #[arg(long, value_name = "FILE")]
    firmware: Option<PathBuf>,
    /// Optimised builds of igvmtool and openvmm.
    #[arg(long)]
    release: bool,
}

impl Args {
    /// What `cargo xtask run` builds.
    pub(crate) const fn uefi_probe() -> Self {
        Self {
            arch: Arch::X64,
            override_manifest: None,
            firmware: None,
            release: false,
        }
    }
}

/// What was built.
#[derive(Debug)]
pub(crate) struct Built {
    /// The IGVM file.
    pub(crate) file: PathBuf,
    /// The `openvmm` program that matches.
    pub(crate) openvmm: PathBuf,
}

impl Built {
    /// Arguments that boot the file.
    pub(crate) fn openvmm_args(&self) -> Vec<String> {
        let spec = format!("type=uefi,path={}", workspace::shown(&self.file));
        ["--igvm", &spec, "-m", "2GB", "-p", "1"]
            .map(str::to_owned)
            .to_vec()
    }
}

/// Builds and prints.
pub(crate) fn run(args: &Args) -> Result<Built> {
    let profile = Profile::release_if(args.release);
    let Arch::X64 = args.arch;
    Cmd::cargo([
        "build",
        "--locked",
        "--package",
        "igvmtool",
        "--package",
        "openvmm_entry",
    ])
    .args(profile.args())
    .run()?;

    let out = workspace::root().join("out/build-igvm").join(profile.folder());
    std::fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    let manifest = match &args.override_manifest {
        Some(path) => std::path::absolute(path)?,
        None => workspace::root().join("manifests/uefi-x64.json"),
    };
    let firmware = match &args.firmware {
        Some(path) => std::path::absolute(path)?,
        None => write_probe(&out)?,
    };
    let name = manifest
        .file_stem()
        .context("the manifest's path has no file name")?;
    let file = out.join(name).with_extension("bin");
    build_file(
        &workspace::binary("igvmtool", profile),
        &manifest,
        &firmware,
        &file,
    )?;

    let built = Built {
        file,
        openvmm: workspace::binary("openvmm", profile),
    };
    let line = Cmd::new(&workspace::shown(&built.openvmm), built.openvmm_args());
    println!("{}", line.text());
    Ok(built)
}

fn build_file(igvmtool: &Path, manifest: &Path, firmware: &Path, file: &Path) -> Result<()> {
    let resource = format!("uefi={}", workspace::shown(firmware));
    Cmd::new(&workspace::shown(igvmtool), ["build", "--guest", "none"])
        .args(["--manifest", &workspace::shown(manifest)])
        .args(["--resource", &resource])
        .args(["--output", &workspace::shown(file)])
        .run()
}

fn write_probe(out: &Path) -> Result<PathBuf> {
    let path = out.join("uefi_probe.fd");
    std::fs::write(&path, payloads::uefi_probe::firmware())
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
