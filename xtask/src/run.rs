// SPDX-License-Identifier: MIT
//! `cargo xtask run`: from a fresh clone to a guest's report on the terminal.

use crate::build_igvm;
use crate::command::Cmd;
use crate::workspace;
use anyhow::Result;

/// Options of `run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// More arguments for openvmm, for example `-p 2 --hypervisor soft`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    openvmm: Vec<String>,
}

/// Builds `uefi_probe` into an IGVM file and boots it.
pub(crate) fn run(args: &Args) -> Result<()> {
    let built = build_igvm::run(&build_igvm::Args::uefi_probe())?;
    let defaults = without_given(&built.openvmm_args(), &args.openvmm);
    Cmd::new(&workspace::shown(&built.openvmm), defaults)
        .args(&args.openvmm)
        .run()
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
