// SPDX-License-Identifier: MIT
//! OVMF of newer Debian suites, unpacked but not installed, for tests that boot it.
//!
//! Always true: Debian's own client fetches it from the archive that this system uses, with lists and
//! cache of its own, so that nothing of the system changes; what cannot be had is said so, and the tests
//! that need it skip with that reason.

use super::folder;
use crate::command::{Cmd, installed};
use anyhow::{Context, Result};

/// Suites, and the package that holds the image there.
const SUITES: &[(&str, &str)] = &[("trixie", "ovmf"), ("sid", "ovmf-generic")];
const IMAGE: &str = "usr/share/ovmf/OVMF.fd";
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Fetches what is not there.
pub(crate) fn fetch_newer_ovmf() {
    for (suite, package) in SUITES {
        if folder().join(suite).join(IMAGE).is_file() {
            continue;
        }
        if !installed("apt-get") || !installed("dpkg-deb") {
            println!("tools: no apt-get here; tests that boot OVMF of {suite} skip");
        } else if let Err(error) = fetch(suite, package) {
            println!("tools: {error:#}; tests that boot OVMF of {suite} skip");
        }
    }
}

fn fetch(suite: &str, package: &str) -> Result<()> {
    let site = archive()?;
    let folder = folder().join(suite);
    for part in ["lists/partial", "cache/archives/partial"] {
        let path = folder.join("apt").join(part);
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    }
    let source = format!("deb [signed-by={KEYS}] {site} {suite} main\n");
    let list = folder.join("apt/sources.list");
    std::fs::write(&list, source).with_context(|| list.display().to_string())?;
    let script = r#"cd "$1" && shift && package="$1" && shift &&
                    apt-get "$@" --quiet update && apt-get "$@" --quiet download "$package" &&
                    dpkg-deb --extract "$package"_*.deb . && rm -r apt"#;
    let path = folder.display().to_string();
    let options = [
        format!("Dir::Etc::SourceList={path}/apt/sources.list"),
        "Dir::Etc::SourceParts=/dev/null".to_owned(),
        format!("Dir::State::Lists={path}/apt/lists"),
        format!("Dir::Cache={path}/apt/cache"),
        "APT::Sandbox::User=root".to_owned(),
    ];
    let options = options.iter().flat_map(|option| ["-o", option]);
    Cmd::new("sh", ["-c", script, "sh", &path, package])
        .args(options)
        .run()
}

/// The archive that this system's packages come from.
pub(crate) fn archive() -> Result<String> {
    let format = ["indextargets", "--format", "$(SITE)", "Created-By: Packages"];
    let sites = Cmd::new("apt-get", format).output()?;
    let site = archive_of(&sites).context("apt-get knows no Debian archive")?;
    Ok(site.to_owned())
}

/// The archive of the distribution itself among the sites of all sources.
fn archive_of(sites: &str) -> Option<&str> {
    let mut sites = sites.lines().map(str::trim);
    sites.find(|site| site.trim_end_matches('/').ends_with("/debian"))
}

#[cfg(test)]
mod tests {
    use super::archive_of;

    #[test]
    fn security_updates_are_not_the_archive() {
        let sites = "http://host/debian-security/\nhttp://host/debian/\n";
        assert_eq!(archive_of(sites), Some("http://host/debian/"));
        assert_eq!(archive_of("http://host/other\n"), None);
    }
}
