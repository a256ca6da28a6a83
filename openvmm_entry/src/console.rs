// SPDX-License-Identifier: MIT
//! Keys from stdin: to the guest, or after Ctrl-Q to the prompt.
//!
//! Always true: every byte but Ctrl-Q goes to the guest unchanged, also when stdin is a pipe or a file;
//! the end of stdin ends the reading and nothing else. The prompt writes to stderr, so stdout carries
//! the guest's bytes only. Not here: the terminal's mode, what the verbs do.

use crate::terminal;
use openvmm_core::InputSink;
use openvmm_core::rpc::{Charge, VerbError, VmClient};
use std::io::{BufRead, StdinLock, Write};

/// Ctrl-Q.
const PROMPT_KEY: u8 = 0x11;
/// Bytes that `memory` shows when no length is given.
const MEMORY_SHOWN: u64 = 64;

const HELP: &str = "\
pause                 stop the guest and its clock
resume                let it run (also after --paused)
reset                 launch it again
nmi                   raise an NMI on vp 0
shutdown              ask the guest to power off
battery PERCENT [ac]  tell the guest what its battery holds, and that it is on mains
type TEXT             type a line on the guest's keyboard
inspect               state of the vm and its devices
memory GPA [LEN]      show guest memory
dump                  registers of all vps
quit                  end the vm
help                  this list
(empty line)          back to the guest
";

/// Reads stdin on a thread of its own until it ends.
pub(crate) fn spawn(sink: InputSink, client: VmClient) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name("console".into())
        .spawn(move || {
            if let Err(error) = serve(&mut std::io::stdin().lock(), &sink, &client) {
                tracing::warn!("stdin: {error}; the guest gets no more keys");
            }
        })?;
    Ok(())
}

fn serve(stdin: &mut StdinLock<'_>, sink: &InputSink, client: &VmClient) -> std::io::Result<()> {
    loop {
        let bytes = match stdin.fill_buf() {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            bytes => bytes?,
        };
        if bytes.is_empty() {
            return Ok(());
        }
        let key = bytes.iter().position(|&b| b == PROMPT_KEY);
        let for_guest = key.unwrap_or(bytes.len());
        sink(&bytes[..for_guest]);
        stdin.consume(for_guest + usize::from(key.is_some()));
        if key.is_some() {
            terminal::lines();
            prompt(stdin, client)?;
            terminal::raw();
        }
    }
}

/// Carries out lines until an empty one, or until the VM is gone.
fn prompt(input: &mut impl BufRead, client: &VmClient) -> std::io::Result<()> {
    let mut err = std::io::stderr();
    let mut lines = Lines::default();
    writeln!(err)?;
    loop {
        write!(err, "openvmm> ")?;
        err.flush()?;
        let Some(line) = lines.next(input)? else {
            return Ok(());
        };
        // Ctrl-C at the prompt is a key that drops the line.
        if line.contains('\u{3}') {
            continue;
        }
        if line.trim().is_empty() {
            return Ok(());
        }
        match Command::parse(&line).map(|command| command.carry_out(client)) {
            Err(text) => writeln!(err, "{text}")?,
            Ok(Err(VerbError::Gone)) => return Ok(()),
            Ok(Err(error)) => writeln!(err, "{error}")?,
            Ok(Ok(text)) => write!(err, "{text}")?,
        }
    }
}

/// Lines that end with a newline, a carriage return (what was typed while the terminal was still raw), or
/// both.
#[derive(Default)]
struct Lines {
    after_return: bool,
}

impl Lines {
    /// The next line; `None` at the end of input.
    fn next(&mut self, input: &mut impl BufRead) -> std::io::Result<Option<String>> {
        let mut line = Vec::new();
        loop {
            let mut byte = [0];
            if input.read(&mut byte)? == 0 {
                return Ok((!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned()));
            }
            let second_half = byte[0] == b'\n' && self.after_return && line.is_empty();
            self.after_return = byte[0] == b'\r';
            match byte[0] {
                _ if second_half => {}
                b'\n' | b'\r' => return Ok(Some(String::from_utf8_lossy(&line).into_owned())),
                other => line.push(other),
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Command {
    Pause,
    Resume,
    Reset,
    Nmi,
    Shutdown,
    Battery(Charge),
    Type(String),
    Inspect,
    Memory { gpa: u64, len: u64 },
    Dump,
    Quit,
    Help,
}

impl Command {
    fn parse(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        Ok(match words[..] {
            ["pause"] => Self::Pause,
            ["resume"] => Self::Resume,
            ["reset"] => Self::Reset,
            ["nmi"] => Self::Nmi,
            ["shutdown"] => Self::Shutdown,
            ["battery", percent] => Self::Battery(charge(percent, false)?),
            ["battery", percent, "ac"] => Self::Battery(charge(percent, true)?),
            ["battery", ..] => return Err("write battery PERCENT or battery PERCENT ac".into()),
            ["type", _, ..] => {
                let text = line.trim().strip_prefix("type ").unwrap_or_default();
                Self::Type(text.to_owned())
            }
            ["type"] => return Err("write type TEXT".into()),
            ["inspect"] => Self::Inspect,
            ["memory", gpa] => Self::Memory {
                gpa: number(gpa)?,
                len: MEMORY_SHOWN,
            },
            ["memory", gpa, len] => Self::Memory {
                gpa: number(gpa)?,
                len: number(len)?,
            },
            ["memory", ..] => return Err("write memory GPA [LEN]".into()),
            ["dump"] => Self::Dump,
            ["quit"] => Self::Quit,
            ["help"] => Self::Help,
            _ => return Err(format!("unknown command {:?}; help lists them", line.trim())),
        })
    }

    /// The text to show.
    fn carry_out(self, client: &VmClient) -> Result<String, VerbError> {
        match self {
            Self::Pause => client.pause().map(|()| "paused\n".into()),
            Self::Resume => client.resume().map(|()| "running\n".into()),
            Self::Reset => client.reset().map(|()| "reset\n".into()),
            Self::Shutdown => client.shutdown().map(|how| format!("{how}\n")),
            Self::Battery(charge) => client.set_battery(charge).map(|()| "the guest was told\n".into()),
            Self::Type(text) => client.type_line(text).map(|()| "typed\n".into()),
            Self::Nmi => client.nmi().map(|()| "nmi raised on vp 0\n".into()),
            Self::Inspect => client.inspect(),
            Self::Memory { gpa, len } => client.read_memory(gpa, len).map(|bytes| hexdump(gpa, &bytes)),
            Self::Dump => client.dump(),
            // The vm is gone after this, which ends the prompt.
            Self::Quit => client.stop(0).and(Err(VerbError::Gone)),
            Self::Help => Ok(HELP.into()),
        }
    }
}

fn charge(percent: &str, mains: bool) -> Result<Charge, String> {
    match percent.parse() {
        Ok(percent @ 0..=100) => Ok(Charge { percent, mains }),
        _ => Err(format!("{percent:?} is not a number from 0 to 100")),
    }
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text:?} is not a number; write decimal or 0x"))
}

fn hexdump(gpa: u64, bytes: &[u8]) -> String {
    let mut out = String::new();
    for (row, chunk) in (0u64..).zip(bytes.chunks(16)) {
        let hex: String = chunk.iter().map(|b| format!("{b:02x} ")).collect();
        let text: String = chunk
            .iter()
            .map(|&b| {
                if b.is_ascii_graphic() || b == b' ' {
                    char::from(b)
                } else {
                    '.'
                }
            })
            .collect();
        out += &format!("{:#012x}  {hex:<48} {text}\n", gpa.wrapping_add(row * 16));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_of_the_help_text_is_understood() {
        for line in HELP.lines().filter(|l| !l.starts_with('(')) {
            let words = line
                .split("  ")
                .next()
                .unwrap()
                .replace("GPA", "0x1000")
                .replace("[LEN]", "32")
                .replace("PERCENT [ac]", "40 ac");
            Command::parse(&words).unwrap();
        }
        assert_eq!(
            Command::parse(" memory 0x10 \n"),
            Ok(Command::Memory {
                gpa: 16,
                len: MEMORY_SHOWN
            })
        );
    }

    #[test]
    fn what_is_not_a_command_says_where_to_look() {
        assert_eq!(
            Command::parse("frob 1\n").unwrap_err(),
            "unknown command \"frob 1\"; help lists them"
        );
        assert_eq!(
            Command::parse("battery 101\n").unwrap_err(),
            "\"101\" is not a number from 0 to 100"
        );
        assert_eq!(Command::parse("type a  B\n"), Ok(Command::Type("a  B".into())));
        assert_eq!(Command::parse("memory\n").unwrap_err(), "write memory GPA [LEN]");
        assert_eq!(
            Command::parse("memory x\n").unwrap_err(),
            "\"x\" is not a number; write decimal or 0x"
        );
    }

    #[test]
    fn lines_end_with_either_key_or_both() {
        let mut input = &b"a\rb\nc\r\nd\n\r\ne"[..];
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        while let Some(line) = lines.next(&mut input).unwrap() {
            seen.push(line);
        }
        assert_eq!(seen, ["a", "b", "c", "d", "", "e"]);
    }

    #[test]
    fn memory_is_shown_as_hex_and_text() {
        assert_eq!(
            hexdump(0x1000, b"hello\0world 12345"),
            "0x0000001000  68 65 6c 6c 6f 00 77 6f 72 6c 64 20 31 32 33 34  hello.world 1234\n\
             0x0000001010  35                                               5\n"
        );
    }
}
