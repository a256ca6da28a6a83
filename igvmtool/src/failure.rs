// SPDX-License-Identifier: MIT
//! How a command ends: exit codes that scripts can rely on.

use std::process::ExitCode;

/// Why a command gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line or the manifest is wrong: exit code 2, as clap's own errors.
    #[error("{0}")]
    Usage(String),
    /// A file could not be read or written, or is not IGVM: exit code 3.
    #[error("{0}")]
    Unreadable(String),
}

/// How a command that worked ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing to complain about: exit code 0.
    Fine,
    /// Problems were found, or files differ: exit code 1.
    Findings,
}

/// The exit code of a command.
pub(crate) fn exit_code(result: &Result<Outcome, Failure>) -> ExitCode {
    ExitCode::from(match result {
        Ok(Outcome::Fine) => 0,
        Ok(Outcome::Findings) => 1,
        Err(Failure::Usage(_)) => 2,
        Err(Failure::Unreadable(_)) => 3,
    })
}
