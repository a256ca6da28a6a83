// SPDX-License-Identifier: MIT
//! `--guest-*-action exit[:CODE]|reset|halt`.

use openvmm_defs::EndAction;

/// A parsed end action; `exit` without a code takes its cause's default code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndActionArg {
    Exit(Option<u8>),
    Reset,
    Halt,
}

impl EndActionArg {
    /// The action, with `default` as the code of a bare `exit`.
    pub(crate) fn resolve(self, default: u8) -> EndAction {
        match self {
            Self::Exit(code) => EndAction::Exit(code.unwrap_or(default)),
            Self::Reset => EndAction::Reset,
            Self::Halt => EndAction::Halt,
        }
    }
}

/// Parses the value.
pub(crate) fn parse(text: &str) -> Result<EndActionArg, String> {
    match text.split_once(':') {
        None if text == "exit" => Ok(EndActionArg::Exit(None)),
        None if text == "reset" => Ok(EndActionArg::Reset),
        None if text == "halt" => Ok(EndActionArg::Halt),
        Some(("exit", code)) => match code.parse() {
            Ok(code) => Ok(EndActionArg::Exit(Some(code))),
            Err(_) => Err(format!(
                "{code:?} is not an exit code; write a number from 0 to 255"
            )),
        },
        _ => Err(format!(
            "unknown action {text:?}; known are exit, exit:CODE, reset and halt"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_exit_takes_the_code_of_its_cause() {
        assert_eq!(parse("exit").unwrap().resolve(3), EndAction::Exit(3));
        assert_eq!(parse("exit:7").unwrap().resolve(3), EndAction::Exit(7));
        assert_eq!(parse("reset").unwrap().resolve(3), EndAction::Reset);
        assert_eq!(parse("halt").unwrap().resolve(3), EndAction::Halt);
    }
}
