// SPDX-License-Identifier: MIT
//! Manual pages and shell completions of a program, from its command line's definition.
//!
//! Always true: the output depends on the definition only. Not here: the definitions, the guide.

use clap::Command;
use clap_complete::{Shell, generate_to};
use std::io::Result;
use std::path::PathBuf;
use std::process::ExitCode;

/// Writes `man` and `completions` into the folder that the command line of this program names.
pub(crate) fn write(command: Command) -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("name the folder to write to");
        return ExitCode::from(2);
    };
    match write_to(command, &folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

fn write_to(mut command: Command, folder: &std::path::Path) -> Result<()> {
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    std::fs::create_dir_all(&man)?;
    std::fs::create_dir_all(&completions)?;
    // A page for "help inspect" beside that for "inspect" would say nothing new. Completions, which offer
    // it, add it to the definition.
    clap_mangen::generate_to(command.clone().disable_help_subcommand(true), man)?;
    let name = command.get_name().to_owned();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command, &name, &completions)?;
    }
    Ok(())
}
