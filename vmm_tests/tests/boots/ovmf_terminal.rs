// SPDX-License-Identifier: MIT
//! OVMF on a terminal, as `cargo xtask run ovmf` gives it to a user: the shell takes keys, Ctrl-C is the
//! guest's, Ctrl-Q and `quit` give the terminal back.

use crate::guests;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use std::fs::File;
use std::io::{Read, Write};
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use vmm_tests::{Backend, Vm, skip};

const PATIENCE: Duration = Duration::from_secs(150);

/// A program whose three streams are a terminal.
struct Session {
    child: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    /// What came and was not waited for yet.
    text: String,
}

impl Session {
    fn keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for `wanted` and gives what came before it.
    fn wait_for(&mut self, wanted: &str) -> String {
        let limit = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.text.find(wanted) {
                let rest = self.text.split_off(at + wanted.len());
                return std::mem::replace(&mut self.text, rest);
            }
            let left = limit.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.text.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("no {wanted:?} in {}", self.text),
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn shell_takes_keys_on_a_terminal_that_quit_gives_back() {
    let ovmf = match guests::ovmf() {
        Ok(ovmf) => ovmf,
        Err(reason) => return skip("shell_takes_keys_on_a_terminal_that_quit_gives_back", &reason),
    };
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap().into_string().unwrap();
    let line = File::options().read(true).write(true).open(name).unwrap();
    let before = tcgetattr(&line).unwrap();
    let stream = || line.try_clone().unwrap();
    let mut command = Vm::builder(Backend::Soft)
        .args(["-m", "128M"])
        .args(["--ovmf".as_ref(), ovmf.as_os_str()])
        .command();
    let child = command.stdin(stream()).stdout(stream()).stderr(stream()).spawn();
    let keyboard = File::from(controller);
    let (sender, screen) = channel();
    let mut output = keyboard.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = output.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    let mut session = Session {
        child: child.unwrap(),
        keyboard,
        screen,
        text: String::new(),
    };
    session.wait_for("seconds to skip");
    let modes = tcgetattr(&line).unwrap().local_modes;
    assert!(!modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
    session.keys("\u{1B}");
    session.wait_for("Shell> ");
    session.keys("map\r");
    session.wait_for("No mapping found");
    session.wait_for("Shell> ");
    // Ctrl-C is a key like others: nothing ends, and the shell goes on.
    session.keys("\u{3}\rver\r");
    session.wait_for("EDK II");
    session.wait_for("Shell> ");
    session.keys("\u{11}");
    session.wait_for("openvmm> ");
    session.keys("quit\r");
    assert_eq!(session.child.wait().unwrap().code(), Some(0));
    let after = tcgetattr(&line).unwrap();
    assert_eq!(after.local_modes, before.local_modes);
    assert_eq!(after.input_modes, before.input_modes);
    assert_eq!(after.output_modes, before.output_modes);
}
