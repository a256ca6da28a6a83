// SPDX-License-Identifier: MIT
//! On a terminal: raw while the guest runs, lines at the prompt, restored on every way out.

use crate::guest::{Collected, command, wait_until};
use rustix::process::{Pid, Signal};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, tcgetattr};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::Child;

/// A guest whose three streams are a terminal.
struct OnTerminal {
    child: Child,
    keyboard: File,
    screen: Collected,
    /// Our own handle of the guest's side.
    line: File,
    before: Termios,
    _dir: tempfile::TempDir,
}

fn start(options: &str) -> OnTerminal {
    let controller: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap().into_string().unwrap();
    let line = File::options().read(true).write(true).open(name).unwrap();
    let before = tcgetattr(&line).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut command = command("", options, &dir);
    let stream = || line.try_clone().unwrap();
    let child = command
        .stdin(stream())
        .stdout(stream())
        .stderr(stream())
        .spawn()
        .unwrap();
    let keyboard = File::from(controller);
    let (screen, _) = Collected::spawn(keyboard.try_clone().unwrap());
    OnTerminal {
        child,
        keyboard,
        screen,
        line,
        before,
        _dir: dir,
    }
}

impl OnTerminal {
    fn keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    fn wait_screen(&self, text: &str) {
        wait_until(
            || self.screen.text().contains(text),
            || format!("no {text:?} in {}", self.screen.text()),
        );
    }

    fn raw(&self) -> bool {
        let modes = tcgetattr(&self.line).unwrap().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// The exit code, after a check that the terminal is as it was found.
    fn end(mut self) -> Option<i32> {
        let mut status = None;
        wait_until(
            || {
                status = self.child.try_wait().unwrap();
                status.is_some()
            },
            || format!("still running: {}", self.screen.text()),
        );
        let after = tcgetattr(&self.line).unwrap();
        assert_eq!(after.local_modes, self.before.local_modes);
        assert_eq!(after.input_modes, self.before.input_modes);
        assert_eq!(after.output_modes, self.before.output_modes);
        status.and_then(|s| s.code())
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_key_reaches_the_guest_and_the_terminal_is_restored_after_a_power_off() {
    let mut t = start("");
    t.wait_screen(">");
    assert!(t.raw());
    // Ctrl-C, Ctrl-Z, Ctrl-D, Ctrl-S, Ctrl-\, carriage return: all are bytes for the guest.
    t.keys("a\u{3}\u{1a}\u{4}\u{13}\u{1c}\rb");
    t.wait_screen(">a\u{3}\u{1a}\u{4}\u{13}\u{1c}\rb");
    t.keys("q");
    assert_eq!(t.end(), Some(0));
}

#[test]
fn the_prompt_edits_lines_and_gives_the_terminal_back() {
    let mut t = start("");
    t.wait_screen(">");
    t.keys("\u{11}");
    t.wait_screen("openvmm> ");
    assert!(!t.raw());
    // Ctrl-C drops the line, an empty line leaves.
    t.keys("dum\u{3}\rinspect\r");
    t.wait_screen("[com1]");
    t.keys("\r");
    wait_until(|| t.raw(), || "not raw again".into());
    t.keys("z");
    t.wait_screen("z");
    t.keys("\u{11}quit\r");
    assert_eq!(t.end(), Some(0));
}

#[test]
fn signals_crashes_and_errors_restore_the_terminal() {
    let t = start("");
    t.wait_screen(">");
    rustix::process::kill_process(Pid::from_child(&t.child), Signal::TERM).unwrap();
    assert_eq!(t.end(), Some(143));
    let mut t = start("");
    t.wait_screen(">");
    t.keys("c");
    assert_eq!(t.end(), Some(3));
    let t = start("--report /no/such/dir/report.json");
    t.wait_screen("openvmm: --report /no/such/dir/report.json: No such file or directory");
    assert_eq!(t.end(), Some(1));
}
