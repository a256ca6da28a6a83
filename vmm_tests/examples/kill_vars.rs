// SPDX-License-Identifier: MIT
//! Kills VMs that write UEFI variables, at random moments, and looks whether every variable that was
//! reported written is there.
//!
//! `cargo run --release -p vmm_tests --example kill_vars -- [--seed S] [--first N] [--count N]`
//!
//! One case is one start of Debian's OVMF over the file that the case before left: its shell shows the
//! variable, writes it again and again with growing values, and dies by SIGKILL some time after; every
//! fourth case dies while the firmware starts. Always true: a run ends with a start that only looks. Where
//! OVMF is not installed the soak says that it is skipped. Not here: loss of power on the host.

use rustix::process::{Pid, Signal, kill_process};
use soak_case::{Cases, Random};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, ExitCode, Stdio};
use std::time::Duration;
use vmm_tests::{Backend, Vm};

const OVMF: &str = "/usr/share/ovmf/OVMF.fd";
const SETVAR: &str = "setvar counter -guid 0d0d1e2f-0102-0304-0506-0708090a0b0c";
const PROMPT: &str = "Shell> ";
/// A start that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(180);

/// What the shell has said about the variable so far.
#[derive(Debug, Default)]
struct Written {
    /// The last value whose command came back to the prompt.
    reported: Option<u32>,
    /// The value of a command that did not.
    in_flight: Option<u32>,
}

/// A VM whose end is not an error.
struct Guest {
    child: Child,
    keys: ChildStdin,
    screen: ChildStdout,
}

impl Guest {
    fn start(file: &Path) -> std::io::Result<Self> {
        let mut command = Vm::builder(Backend::Soft)
            .args(["-m", "128M", "--ovmf", OVMF])
            .args(["--vars".as_ref(), file.as_os_str()])
            .command();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (keys, screen) = (child.stdin.take(), child.stdout.take());
        match (keys, screen) {
            (Some(keys), Some(screen)) => Ok(Self { child, keys, screen }),
            _ => Err(std::io::Error::other("the streams of openvmm are not ours")),
        }
    }

    /// Kills it after `delay`. A process that has ended by then is still ours: nobody has waited for it.
    fn doom(&self, delay: Duration) -> std::thread::JoinHandle<()> {
        let pid = Pid::from_child(&self.child);
        std::thread::spawn(move || {
            std::thread::sleep(delay);
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        })
    }

    /// What comes before and with `wanted`; `None` when the VM has ended.
    fn read_until(&mut self, wanted: &str) -> Option<String> {
        let mut text = Vec::new();
        let mut byte = [0];
        while !text.ends_with(wanted.as_bytes()) {
            match self.screen.read(&mut byte) {
                Ok(1) => text.push(byte[0]),
                _ => return None,
            }
        }
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    fn reach_shell(&mut self) -> Option<()> {
        self.read_until("seconds to skip")?;
        self.keys.write_all(b"\x1B").ok()?;
        self.read_until(PROMPT).map(drop)
    }

    /// Types a command; the answer begins with the new line.
    fn ask(&mut self, command: &str) -> Option<String> {
        self.keys.write_all(format!("{command}\r").as_bytes()).ok()?;
        self.read_until("\n")?;
        self.read_until(PROMPT)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The variable's value in the shell's answer.
fn value(answer: &str) -> Option<u32> {
    let bytes = answer.split("0004 Bytes").nth(1)?;
    let hex: String = bytes.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    u32::from_str_radix(&hex, 16).ok()
}

/// When to kill: some time after so many commands have come back.
#[derive(Clone, Copy)]
struct Death {
    commands: u64,
    delay: Duration,
}

/// Starts the VM, checks the variable and, if there is a death to die, writes until then.
fn round(file: &Path, written: &mut Written, death: Option<Death>) -> Result<(), String> {
    let mut guest = Guest::start(file).map_err(|error| error.to_string())?;
    drop(guest.doom(PATIENCE));
    guest
        .reach_shell()
        .ok_or("the firmware did not reach its shell")?;
    let answer = guest.ask(SETVAR).ok_or("the shell does not answer")?;
    let found = value(&answer);
    if found != written.reported && (found.is_none() || found != written.in_flight) {
        return Err(format!("found {found:x?} after {written:x?}: {answer}"));
    }
    *written = Written {
        reported: found,
        in_flight: None,
    };
    let Some(death) = death else { return Ok(()) };
    let mut killer = None;
    for command in 0.. {
        if command == death.commands {
            killer = Some(guest.doom(death.delay));
        }
        let next = written.reported.unwrap_or(0) + 1;
        written.in_flight = Some(next);
        if guest.ask(&format!("{SETVAR} -nv -bs ={next:08X}")).is_none() {
            break;
        }
        written.reported = Some(next);
    }
    let killer = killer.ok_or("the vm has ended by itself")?;
    killer.join().map_err(|_| "the killer has died".to_owned())
}

/// Kills the VM while its firmware starts.
fn early_death(file: &Path, delay: Duration) -> Result<(), String> {
    let mut guest = Guest::start(file).map_err(|error| error.to_string())?;
    let killer = guest.doom(delay);
    while guest.read_until("\n").is_some() {}
    killer.join().map_err(|_| "the killer has died".to_owned())
}

fn run(cases: Cases) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let file = folder.path().join("vars");
    let seed = cases.seed;
    let mut written = Written::default();
    let mut values = 0;
    for case in cases.numbers() {
        let mut random = Random::of_case(seed, case);
        let name = |error| format!("seed {seed}: case {case}: {error}");
        if case % 4 == 3 {
            let delay = Duration::from_millis(random.below(3000));
            early_death(&file, delay).map_err(name)?;
        } else {
            let before = written.reported.unwrap_or(0);
            let death = Death {
                commands: random.below(4),
                delay: Duration::from_millis(random.below(1000)),
            };
            round(&file, &mut written, Some(death)).map_err(name)?;
            values += written.reported.unwrap_or(0) - before.min(written.reported.unwrap_or(0));
        }
    }
    round(&file, &mut written, None).map_err(|error| format!("seed {seed}: at the end: {error}"))?;
    println!(
        "{} kills, {values} variables reported written, none lost",
        cases.count
    );
    Ok(())
}

fn main() -> ExitCode {
    let cases = Cases::from_command_line(5);
    if !Path::new(OVMF).exists() {
        println!("skipped: {OVMF} is not installed; cargo xtask test installs ovmf");
        return ExitCode::SUCCESS;
    }
    match run(cases) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
