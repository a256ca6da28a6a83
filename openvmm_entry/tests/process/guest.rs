// SPDX-License-Identifier: MIT
//! A running binary with pipes for its streams. Always ends: every wait has a limit, and a guest that is
//! dropped is killed.

use crate::image;
use rustix::process::{Pid, Signal};
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

/// Bytes that a thread collects.
#[derive(Clone, Default)]
pub(crate) struct Collected(Arc<Mutex<Vec<u8>>>);

impl Collected {
    /// Collects until `from` ends or fails (a terminal fails when its other side is gone).
    pub(crate) fn spawn(mut from: impl Read + Send + 'static) -> (Self, std::thread::JoinHandle<()>) {
        let collected = Self::default();
        let thread = std::thread::spawn({
            let collected = collected.clone();
            move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = from.read(&mut buffer) {
                    collected.0.lock().unwrap().extend(&buffer[..count]);
                }
            }
        });
        (collected, thread)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// Waits until `done`, or panics with `what`.
pub(crate) fn wait_until(mut done: impl FnMut() -> bool, what: impl FnOnce() -> String) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LIMIT, "{}", what());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How a guest ended.
pub(crate) struct End {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A running guest.
pub(crate) struct Guest {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: (Collected, std::thread::JoinHandle<()>),
    stderr: (Collected, std::thread::JoinHandle<()>),
    _dir: tempfile::TempDir,
}

/// The command line for the test guest on the software CPU; later options win over the choice.
pub(crate) fn command(spec: &str, options: &str, dir: &tempfile::TempDir) -> Command {
    let path = dir.path().join("guest.igvm");
    image::write(&path);
    let mut command = Command::new(env!("CARGO_BIN_EXE_openvmm"));
    command
        .arg("--igvm")
        .arg(format!("{spec}{}", path.display()))
        .args(["-m", "16M"]);
    if !options.contains("--hypervisor") {
        command.args(["--hypervisor", "soft"]);
    }
    command.args(options.split_whitespace());
    command
}

impl Guest {
    /// Starts the test guest in the bare form.
    pub(crate) fn start(options: &str) -> Self {
        Self::start_as("", options)
    }

    /// Starts it with `spec` before its path.
    pub(crate) fn start_as(spec: &str, options: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = command(spec, options, &dir);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        Self {
            stdin: child.stdin.take(),
            stdout: Collected::spawn(child.stdout.take().unwrap()),
            stderr: Collected::spawn(child.stderr.take().unwrap()),
            child,
            _dir: dir,
        }
    }

    /// Types keys.
    pub(crate) fn send(&mut self, keys: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin
            .write_all(keys.as_bytes())
            .and_then(|()| stdin.flush())
            .unwrap();
    }

    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub(crate) fn send_signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn wait_until(&self, done: impl FnMut() -> bool) {
        wait_until(done, || {
            format!(
                "stdout: {}\nstderr: {}",
                self.stdout.0.text(),
                self.stderr.0.text()
            )
        });
    }

    /// Waits until everything on stdout is `text`.
    pub(crate) fn wait_stdout(&self, text: &str) {
        self.wait_until(|| self.stdout.0.text() == text);
    }

    /// Waits until stderr contains `text`.
    pub(crate) fn wait_stderr(&self, text: &str) {
        self.wait_until(|| self.stderr.0.text().contains(text));
    }

    /// What came on stderr so far.
    pub(crate) fn stderr_text(&self) -> String {
        self.stderr.0.text()
    }

    /// Waits for the process to end by itself.
    pub(crate) fn wait_end(mut self) -> End {
        let mut status = None;
        wait_until(
            || {
                status = self.child.try_wait().unwrap();
                status.is_some()
            },
            || "the process did not end".into(),
        );
        let [stdout, stderr] = [&mut self.stdout, &mut self.stderr].map(|(collected, thread)| {
            std::mem::replace(thread, std::thread::spawn(|| ()))
                .join()
                .unwrap();
            collected.text()
        });
        End {
            code: status.and_then(|s| s.code()),
            stdout,
            stderr,
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
