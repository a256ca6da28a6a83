// SPDX-License-Identifier: MIT
//! `cargo xtask run [ovmf|linux|debian]`: from a fresh clone to a guest on the terminal.
//!
//! Always true: what a guest is made of is fetched or built first, its files are in `out/run`, and the
//! last line printed before the guest is the `openvmm` command, ready to be pasted. Not here: how the
//! images are made (`guest_images`, `igvmtool`).

mod debian_guests;

use crate::build_igvm;
use crate::command::Cmd;
use crate::workspace;
use anyhow::Result;

/// Options of `run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `ovmf` boots Debian's OVMF to its shell, `linux` Debian's cloud kernel from a disk, `debian` a whole
    /// system made by debootstrap (needs root); without one of them, our UEFI probe. Then more arguments for openvmm, for example `-p 2 --hypervisor soft`.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "[GUEST] [OPENVMM ARGS]..."
    )]
    words: Vec<String>,
}

/// Boots the guest that the first word names.
pub(crate) fn run(args: &Args) -> Result<()> {
    let (guest, given) = match args.words.split_first() {
        Some((first, rest)) if first == "ovmf" => (debian_guests::ovmf()?, rest),
        Some((first, rest)) if first == "linux" => (debian_guests::linux()?, rest),
        Some((first, rest)) if first == "debian" => (debian_guests::distribution()?, rest),
        _ => (uefi_probe()?, &args.words[..]),
    };
    Cmd::new(
        &workspace::shown(&guest.openvmm),
        without_given(&guest.args, given),
    )
    .args(given)
    .run()
}

/// A guest that is ready to boot.
struct Guest {
    openvmm: std::path::PathBuf,
    /// In pairs of an option and its value.
    args: Vec<String>,
}

fn uefi_probe() -> Result<Guest> {
    let built = build_igvm::run(&build_igvm::Args::uefi_probe())?;
    Ok(Guest {
        args: built.openvmm_args(),
        openvmm: built.openvmm,
    })
}

/// The default arguments, less those that the user gives too.
fn without_given(defaults: &[String], given: &[String]) -> Vec<String> {
    let names = [("-m", "--memory"), ("-p", "--processors")];
    let pairs = defaults.chunks(2).filter(|pair| {
        let name = names.iter().find(|(short, _)| pair[0] == *short);
        let again = |(short, long): &(&str, &str)| {
            given
                .iter()
                .any(|arg| arg.starts_with(long) || arg.starts_with(short))
        };
        !name.is_some_and(again)
    });
    pairs.flatten().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::without_given;

    #[test]
    fn given_arguments_replace_the_defaults() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let defaults = words("--igvm x -m 2GB -p 1");
        assert_eq!(without_given(&defaults, &words("-p 2")), words("--igvm x -m 2GB"));
        assert_eq!(
            without_given(&defaults, &words("--memory=1GB -p4")),
            words("--igvm x")
        );
        assert_eq!(without_given(&defaults, &words("--uefi-debug")), defaults);
    }
}
