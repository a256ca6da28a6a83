// SPDX-License-Identifier: MIT
//! A running program whose output is read as it comes.
//!
//! Always true: both streams are read all the time, so the program never blocks on them; every wait has
//! a limit; dropping kills the program and waits for its end.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl Ended {
    /// The guest has powered off, and that was the end that was asked for.
    #[track_caller]
    pub fn assert_powered_off(&self) {
        assert_eq!(self.code, 0, "{}", self.stderr);
        assert!(
            self.stderr.contains("the guest has powered off"),
            "{}",
            self.stderr
        );
    }
}

/// A stream's text so far.
#[derive(Debug, Default)]
struct Stream {
    text: Mutex<Text>,
    grown: Condvar,
}

#[derive(Debug, Default)]
struct Text {
    bytes: Vec<u8>,
    ended: bool,
}

impl Stream {
    fn lossy(&self) -> String {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text.bytes).into_owned()
    }

    fn read_all(&self, mut from: impl Read) {
        let mut buffer = [0; 4096];
        loop {
            let count = match from.read(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                // A terminal reports the end of the program at its other side as an error.
                Ok(0) | Err(_) => break,
                Ok(count) => count,
            };
            let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
            text.bytes.extend_from_slice(&buffer[..count]);
            self.grown.notify_all();
        }
        self.text.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.grown.notify_all();
    }

    /// Waits for `wanted` at or behind `from`; gives the position behind it.
    fn wait_for(&self, wanted: &[u8], from: usize, limit: Instant) -> Option<usize> {
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let rest = &text.bytes[from.min(text.bytes.len())..];
            if let Some(at) = rest
                .windows(wanted.len().max(1))
                .position(|window| window == wanted)
            {
                return Some(from + at + wanted.len());
            }
            let left = limit.checked_duration_since(Instant::now())?;
            if text.ended {
                return None;
            }
            text = self
                .grown
                .wait_timeout(text, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// A running program.
#[derive(Debug)]
pub struct Process {
    child: Child,
    command: String,
    stdin: Option<ChildStdin>,
    stdout: Arc<Stream>,
    stderr: Arc<Stream>,
    readers: Vec<JoinHandle<()>>,
    read: usize,
    read_err: usize,
    limit: Duration,
}

impl Process {
    /// Starts `command` with all three streams connected to us; no wait takes longer than `limit`.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(mut command: Command, limit: Duration) -> Self {
        let shown = format!("{command:?}");
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.unwrap_or_else(|error| panic!("cannot start {shown}: {error}"));
        let stdin = child.stdin.take();
        let (stdout, stderr) = (Arc::new(Stream::default()), Arc::new(Stream::default()));
        let mut readers = Vec::new();
        if let Some(from) = child.stdout.take() {
            let to = stdout.clone();
            readers.push(std::thread::spawn(move || to.read_all(from)));
        }
        if let Some(from) = child.stderr.take() {
            let to = stderr.clone();
            readers.push(std::thread::spawn(move || to.read_all(from)));
        }
        Self {
            child,
            command: shown,
            stdin,
            stdout,
            stderr,
            readers,
            read: 0,
            read_err: 0,
            limit,
        }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `wanted` comes on standard output and gives everything since the last wait up to it.
    ///
    /// # Panics
    /// With the transcript, if the limit passes or the output ends before it comes.
    #[track_caller]
    pub fn wait_for(&mut self, wanted: &str) -> String {
        let limit = Instant::now() + self.limit;
        match self.stdout.wait_for(wanted.as_bytes(), self.read, limit) {
            Some(end) => {
                let text = self.stdout.text.lock().unwrap_or_else(PoisonError::into_inner);
                let new = String::from_utf8_lossy(&text.bytes[self.read..end]).into_owned();
                drop(text);
                self.read = end;
                new
            }
            None => self.fail(&format!("{wanted:?} did not come on standard output")),
        }
    }

    /// Waits until `wanted` comes on standard error.
    ///
    /// # Panics
    /// As [`Self::wait_for`].
    #[track_caller]
    pub fn wait_for_err(&mut self, wanted: &str) {
        let limit = Instant::now() + self.limit;
        match self.stderr.wait_for(wanted.as_bytes(), self.read_err, limit) {
            Some(end) => self.read_err = end,
            None => self.fail(&format!("{wanted:?} did not come on standard error")),
        }
    }

    /// Types `keys`.
    ///
    /// # Panics
    /// If the program does not take them.
    #[track_caller]
    pub fn send(&mut self, keys: &[u8]) {
        let sent = self
            .stdin
            .as_mut()
            .map(|stdin| stdin.write_all(keys).and_then(|()| stdin.flush()));
        if !matches!(sent, Some(Ok(()))) {
            self.fail("standard input is closed");
        }
    }

    /// Closes standard input.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Waits for the end of the program.
    ///
    /// # Panics
    /// With the transcript, if the limit passes.
    #[track_caller]
    pub fn wait_for_exit(&mut self) -> Ended {
        let limit = Instant::now() + self.limit;
        let status: ExitStatus = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < limit => std::thread::sleep(Duration::from_millis(2)),
                Ok(None) => self.fail("the program did not end"),
                Err(error) => self.fail(&format!("cannot wait: {error}")),
            }
        };
        for reader in self.readers.drain(..) {
            // A reader only ends early by a panic of its own, which is printed already.
            let _ = reader.join();
        }
        Ended {
            code: status.code().unwrap_or(-1),
            stdout: self.stdout.lossy(),
            stderr: self.stderr.lossy(),
        }
    }

    /// What came so far on both streams, for messages.
    pub fn transcript(&self) -> String {
        let (out, err) = (self.stdout.lossy(), self.stderr.lossy());
        format!(
            "command: {}\n--- standard output\n{out}\n--- standard error\n{err}\n---",
            self.command
        )
    }

    #[track_caller]
    fn fail(&self, what: &str) -> ! {
        panic!("{what} within {:?}\n{}", self.limit, self.transcript());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start(command, limit)
    }

    #[test]
    fn waits_see_output_in_order_and_the_exit_code() {
        let mut sh = shell(
            "echo one; echo two; read x; echo got $x; echo bad >&2; exit 7",
            Duration::from_secs(20),
        );
        assert_eq!(sh.wait_for("one"), "one");
        assert_eq!(sh.wait_for("two"), "\ntwo");
        sh.send(b"key\n");
        sh.wait_for("got key");
        sh.wait_for_err("bad");
        let ended = sh.wait_for_exit();
        assert_eq!((ended.code, ended.stderr.as_str()), (7, "bad\n"));
    }

    #[test]
    #[should_panic(expected = "\"never\" did not come on standard output")]
    fn missing_output_fails_with_the_transcript() {
        shell("echo something; sleep 30", Duration::from_millis(300)).wait_for("never");
    }

    #[test]
    #[should_panic(expected = "the program did not end")]
    fn program_that_does_not_end_fails() {
        shell("sleep 30", Duration::from_millis(100)).wait_for_exit();
    }

    #[test]
    fn dropping_ends_the_program() {
        let sh = shell("sleep 30", Duration::from_secs(1));
        let proc_folder = format!("/proc/{}", sh.id());
        drop(sh);
        assert!(!std::path::Path::new(&proc_folder).exists());
    }
}
