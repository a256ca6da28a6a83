// SPDX-License-Identifier: MIT
//! Running programs: each is printed before it starts, and a failure names it.

use crate::workspace;
use anyhow::{Context, Result, bail};
use std::process::{Command, Stdio};

/// A command that runs in the workspace's folder.
#[derive(Debug)]
pub(crate) struct Cmd {
    inner: Command,
    text: String,
}

impl Cmd {
    /// `program` with `args`.
    pub(crate) fn new<S: AsRef<str>>(program: &str, args: impl IntoIterator<Item = S>) -> Self {
        let mut cmd = Self {
            inner: Command::new(program),
            text: program.to_owned(),
        };
        cmd.inner.current_dir(workspace::root());
        cmd.args(args)
    }

    /// Cargo, the one that runs us.
    pub(crate) fn cargo<S: AsRef<str>>(args: impl IntoIterator<Item = S>) -> Self {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let mut cmd = Self {
            inner: Command::new(cargo),
            text: "cargo".to_owned(),
        };
        cmd.inner.current_dir(workspace::root());
        // Set by `cargo run` for us; a cargo below must find out by itself.
        for leaked in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"] {
            cmd.inner.env_remove(leaked);
        }
        cmd.args(args)
    }

    /// More arguments.
    pub(crate) fn args<S: AsRef<str>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        for arg in args {
            let arg = arg.as_ref();
            self.inner.arg(arg);
            self.text.push(' ');
            self.text.push_str(&quoted(arg));
        }
        self
    }

    /// An environment variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.inner.env(name, value);
        self.text = format!("{name}={} {}", quoted(value), self.text);
        self
    }

    /// The same where there is no /dev/kvm: in a mount namespace of its own, whose /dev is a copy without it;
    /// needs root. Where there is none anyway, nothing changes.
    pub(crate) fn without_kvm(self) -> Self {
        const HIDE: &str = include_str!("command/without_kvm.sh");
        let mut inner = Command::new("unshare");
        inner
            .args(["--mount", "sh", "-c", HIDE, "sh"])
            .arg(self.inner.get_program());
        inner.args(self.inner.get_args());
        for (name, value) in self.inner.get_envs() {
            match value {
                Some(value) => inner.env(name, value),
                None => inner.env_remove(name),
            };
        }
        if let Some(folder) = self.inner.get_current_dir() {
            inner.current_dir(folder);
        }
        Self {
            inner,
            text: format!(
                "unshare --mount sh xtask/src/command/without_kvm.sh {}",
                self.text
            ),
        }
    }

    /// The command as one could type it.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Runs it with our terminal; anything but exit code 0 is an error.
    pub(crate) fn run(mut self) -> Result<()> {
        eprintln!("$ {}", self.text);
        let status = self
            .inner
            .status()
            .with_context(|| format!("cannot start {}", self.text))?;
        if !status.success() {
            bail!("`{}` ended with {status}", self.text);
        }
        Ok(())
    }

    /// Runs it quietly and gives its standard output; a failure shows its standard error.
    pub(crate) fn output(mut self) -> Result<String> {
        let output = self
            .inner
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", self.text))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!(
                "`{}` ended with {}: {}",
                self.text,
                output.status,
                said.trim_end()
            );
        }
        String::from_utf8(output.stdout).with_context(|| format!("`{}` printed no UTF-8", self.text))
    }

    /// The command itself, for callers that handle its streams.
    pub(crate) fn into_inner(self) -> Command {
        self.inner
    }
}

/// Whether `program` can be started, by asking a shell's rule: a file of that name in `PATH`.
pub(crate) fn installed(program: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else {
        return false;
    };
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn quoted(arg: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c);
    if !arg.is_empty() && arg.chars().all(plain) {
        arg.to_owned()
    } else {
        format!("'{}'", arg.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_with_blanks_are_quoted() {
        let cmd = Cmd::new("prog", ["plain", "two words", "it's"]);
        assert_eq!(cmd.text(), r"prog plain 'two words' 'it'\''s'");
    }

    #[test]
    fn failing_command_is_named() {
        let error = Cmd::new("false", ["x"]).run().unwrap_err();
        assert_eq!(error.to_string(), "`false x` ended with exit status: 1");
    }
}
