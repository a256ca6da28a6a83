// SPDX-License-Identifier: MIT
//! Programs that tests compare us with, installed where that is possible.
//!
//! Always true: installing twice does nothing the second time; a program that cannot be had is said so
//! and the tests that need it skip with that reason. Debian packages need root; everything else goes
//! into `tools` below the target directory.

use crate::command::{Cmd, installed};
use crate::{debian, workspace};
use std::path::PathBuf;

/// A Debian package and the file that shows that it is installed.
const DEBIAN: &[(&str, &str)] = &[
    ("device-tree-compiler", "/usr/bin/dtc"),
    ("acpica-tools", "/usr/bin/iasl"),
    ("ovmf", "/usr/share/OVMF/OVMF_CODE.fd"),
    ("busybox-static", "/bin/busybox"),
    ("swtpm", "/usr/bin/swtpm"),
    ("chromium", "/usr/bin/chromium"),
    ("pkg-config", "/usr/bin/pkg-config"),
    ("libssl-dev", "/usr/include/openssl/ssl.h"),
];

/// The crate that holds `igvm-wrap` and `igvm-inspect`, at the version that the tests were written for.
const VIRTFW: (&str, &str) = ("virtfw-igvm-tools", "0.2.6");

/// The Python package that computes launch digests of OVMF images, at the version that the tests were
/// written for.
const SEV_SNP_MEASURE: &str = "sev-snp-measure==0.0.13";

/// Where programs from crates.io and PyPI go.
pub(crate) fn cargo_root() -> PathBuf {
    workspace::target_dir().join("tools")
}

/// Installs what is missing; prints what stays missing.
pub(crate) fn install() {
    install_packages(DEBIAN, "tests that need them skip");
    install_virtfw();
    install_sev_snp_measure();
    install_sev_judge();
    install_mdbook();
    debian::fetch_kernel();
    debian::fetch_newer_ovmf();
}

/// Installs the packages whose file is not there; what cannot be had is printed with its consequence.
pub(crate) fn install_packages(packages: &[(&str, &str)], otherwise: &str) {
    let missing: Vec<&str> = packages
        .iter()
        .filter(|(_, file)| !std::path::Path::new(file).exists())
        .map(|(package, _)| *package)
        .collect();
    if missing.is_empty() {
        return;
    }
    let names = missing.join(", ");
    if !installed("apt-get") {
        println!("tools: no apt-get here to install {names}; {otherwise}");
        return;
    }
    let fresh = apt(&["update", "--quiet"]);
    let install = [
        &["install", "--quiet", "--yes", "--no-install-recommends"],
        &missing[..],
    ]
    .concat();
    if let Err(error) = fresh.and_then(|()| apt(&install)) {
        println!("tools: {names}: {error:#}; {otherwise}");
    }
}

/// `apt-get`, through `sudo` where that needs no password.
fn apt(args: &[&str]) -> anyhow::Result<()> {
    let by_sudo = installed("sudo") && !is_root();
    let (program, lead): (&str, &[&str]) = if by_sudo {
        ("sudo", &["-n", "apt-get"])
    } else {
        ("apt-get", &[])
    };
    Cmd::new(program, lead)
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .run()
}

fn is_root() -> bool {
    Cmd::new("id", ["-u"]).output().is_ok_and(|id| id.trim() == "0")
}

fn install_virtfw() {
    let root = cargo_root();
    if root.join("bin/igvm-wrap").exists() && root.join("bin/igvm-inspect").exists() {
        return;
    }
    if let Err(error) = cargo_install(VIRTFW, &[]) {
        println!("tools: {error:#}; tests that need igvm-wrap or igvm-inspect skip");
    }
}

/// A program from crates.io into [`cargo_root`].
fn cargo_install((name, version): (&str, &str), how: &[&str]) -> anyhow::Result<()> {
    let root = cargo_root();
    Cmd::cargo(["install", "--quiet", "--locked", name, "--version", version])
        .args(how)
        .args(["--root", &root.display().to_string()])
        .args(["--target-dir", &root.join("build").display().to_string()])
        .run()
}

/// Into a Python environment of its own; the program is linked beside the others.
fn install_sev_snp_measure() {
    let root = cargo_root();
    let link = root.join("bin/sev-snp-measure");
    if link.exists() {
        return;
    }
    let environment = root.join("python");
    let install = || -> anyhow::Result<()> {
        Cmd::new("python3", ["-m", "venv"])
            .args([&environment.display().to_string()])
            .run()?;
        let pip = environment.join("bin/pip").display().to_string();
        Cmd::new(&pip, ["install", "--quiet", SEV_SNP_MEASURE]).run()?;
        std::fs::create_dir_all(root.join("bin"))?;
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(environment.join("bin/sev-snp-measure"), &link)?;
        Ok(())
    };
    if let Err(error) = install() {
        println!("tools: sev-snp-measure: {error:#}; tests that need it skip");
    }
}

/// The `sev` crate's digests, from a package of ours outside the workspace.
fn install_sev_judge() {
    let root = cargo_root();
    if root.join("bin/sev-judge").exists() {
        return;
    }
    let built = Cmd::cargo(["install", "--quiet", "--locked", "--debug"])
        .args(["--path", "launch_digest/tests/sev_judge"])
        .args(["--root", &root.display().to_string()])
        .args(["--target-dir", &root.join("build").display().to_string()])
        .run();
    if let Err(error) = built {
        println!("tools: {error:#}; tests that need sev-judge skip");
    }
}

/// The program that makes the guide, at the version that it was written for. Only run, never linked.
const MDBOOK: (&str, &str) = ("mdbook", "0.5.4");

/// Built without a web server, a file watcher, search and optimisation: the guide needs none of it.
pub(crate) fn install_mdbook() {
    if mdbook().is_some() {
        return;
    }
    if let Err(error) = cargo_install(MDBOOK, &["--debug", "--no-default-features"]) {
        println!("tools: {error:#}; the guide is not built and its test skips");
    }
}

/// `mdbook`, where it is installed.
pub(crate) fn mdbook() -> Option<PathBuf> {
    Some(cargo_root().join("bin/mdbook")).filter(|program| program.exists())
}
