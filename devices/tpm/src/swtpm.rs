// SPDX-License-Identifier: MIT
//! A client of swtpm: commands to control it on one Unix socket, TPM commands and responses on another that
//! it is handed over the first (swtpm's manual, "swtpm_ioctls").
//!
//! Always true: waiting for the program is bounded, however little it sends at a time; a response is as long as
//! its header says and at most [`MOST`]; what came unasked is thrown away before a command.
//! Not here: what commands mean.

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest command and response.
pub(crate) const MOST: usize = 4096;
/// Bytes of the header of a command and a response: tag, size, code.
pub(crate) const HEADER: usize = 10;
/// Most bytes that come unasked.
const MOST_UNASKED: usize = 16 * MOST;

/// How long the program may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a TPM command.
    pub command: Duration,
    /// For what controls it.
    pub control: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            // Making an RSA key may take this long on a busy host; the firmware gives up after 90 seconds, too.
            command: Duration::from_secs(90),
            // It answers at once.
            control: Duration::from_secs(10),
        }
    }
}

/// Control commands.
mod control {
    pub(super) const INIT: u32 = 2;
    pub(super) const STOP: u32 = 0xE;
    pub(super) const SET_DATA_FD: u32 = 0x10;
}

/// swtpm cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SwtpmError {
    /// The socket.
    #[error("{path}: {error}; start swtpm socket --tpm2 --tpmstate dir=FOLDER --ctrl type=unixio,path={path} first", path = path.display())]
    Connect {
        /// The control socket.
        path: PathBuf,
        /// What the host says.
        error: io::Error,
    },
    /// Talking to it.
    #[error("swtpm does not answer: {0}")]
    Io(#[from] io::Error),
    /// It refuses.
    #[error("swtpm refuses control command {command:#x} with result {result:#x}")]
    Refused {
        /// The command.
        command: u32,
        /// Its result.
        result: u32,
    },
    /// The response makes no sense.
    #[error("swtpm gives a response of {0} bytes; it must have {HEADER} to {MOST}")]
    Response(usize),
    /// It does not stop talking.
    #[error("swtpm has sent more than {MOST_UNASKED} bytes that nobody asked for")]
    Unasked,
}

/// A running swtpm.
#[derive(Debug)]
pub struct Swtpm {
    control: UnixStream,
    data: UnixStream,
    patience: Patience,
    /// Control commands whose results have not come yet.
    owed: u32,
    /// A TPM command was given up before anything of its answer had come.
    unanswered: bool,
}

impl Swtpm {
    /// Takes over the program behind the control socket `path`.
    pub fn connect(path: &Path) -> Result<Self, SwtpmError> {
        let control = UnixStream::connect(path).map_err(|error| SwtpmError::Connect {
            path: path.to_owned(),
            error,
        })?;
        let (data, theirs) = UnixStream::pair()?;
        let mut tpm = Self::over(control, data, Patience::default());
        hand_over(&tpm.control, &theirs)?;
        tpm.result(control::SET_DATA_FD, Instant::now() + tpm.patience.control)?;
        Ok(tpm)
    }

    /// A program that has both sockets already, for tests that have none of their own.
    pub fn over(control: UnixStream, data: UnixStream, patience: Patience) -> Self {
        Self {
            control,
            data,
            patience,
            owed: 0,
            unanswered: false,
        }
    }

    /// What ends all waiting for the program, from another thread.
    pub(crate) fn plug(&self) -> io::Result<Plug> {
        Ok(Plug([self.control.try_clone()?, self.data.try_clone()?]))
    }

    /// Turns the TPM off and on.
    pub fn power_cycle(&mut self) -> Result<(), SwtpmError> {
        if self.unanswered {
            // It comes, and would be taken for the next command's.
            self.response(Instant::now() + self.patience.command)?;
        }
        self.call(control::STOP, &[])?;
        // No flags: volatile state is lost, as it should be.
        self.call(control::INIT, &[0; 4])
    }

    /// Runs one command.
    pub fn execute(&mut self, command: &[u8]) -> Result<Vec<u8>, SwtpmError> {
        let end = Instant::now() + self.patience.command;
        // There may be more of an answer that made no sense.
        self.forget_unasked()?;
        write_until(&self.data, command, end)?;
        self.unanswered = true;
        self.response(end)
    }

    /// The answer to the command that was sent last.
    fn response(&mut self, end: Instant) -> Result<Vec<u8>, SwtpmError> {
        let mut response = vec![0; HEADER];
        let (first, rest) = response.split_at_mut(1);
        read_until(&self.data, first, end)?;
        self.unanswered = false;
        read_until(&self.data, rest, end)?;
        let size = size_of(&response);
        if !(HEADER..=MOST).contains(&size) {
            return Err(SwtpmError::Response(size));
        }
        response.resize(size, 0);
        read_until(&self.data, &mut response[HEADER..], end)?;
        Ok(response)
    }

    fn call(&mut self, command: u32, body: &[u8]) -> Result<(), SwtpmError> {
        let end = Instant::now() + self.patience.control;
        write_until(&self.control, &[&command.to_be_bytes(), body].concat(), end)?;
        self.result(command, end)
    }

    /// The result of the control command that was sent last; those before it were given up, but come first.
    fn result(&mut self, command: u32, end: Instant) -> Result<(), SwtpmError> {
        self.owed += 1;
        let mut bytes = [0; 4];
        while self.owed > 0 {
            read_until(&self.control, &mut bytes, end)?;
            self.owed -= 1;
        }
        match u32::from_be_bytes(bytes) {
            0 => Ok(()),
            result => Err(SwtpmError::Refused { command, result }),
        }
    }

    fn forget_unasked(&self) -> Result<(), SwtpmError> {
        let mut bytes = [0; MOST];
        for _ in 0..MOST_UNASKED / MOST {
            match recv(&self.data, &mut bytes, RecvFlags::DONTWAIT) {
                // The next command will say that it has hung up.
                Ok((_, 0)) | Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
        }
        Err(SwtpmError::Unasked)
    }
}

/// Both sockets of a program.
#[derive(Debug)]
pub(crate) struct Plug([UnixStream; 2]);

impl Plug {
    /// Whoever waits for the program is told that it has hung up.
    pub(crate) fn pull(&self) {
        for socket in &self.0 {
            // One that is closed already needs no end.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// The size in the header of a command or a response, which has [`HEADER`] bytes.
pub(crate) fn size_of(header: &[u8]) -> usize {
    u32::from_be_bytes([header[2], header[3], header[4], header[5]]) as usize
}

/// What is left until `end`; a timeout of zero would be none at all.
fn left(end: Instant) -> io::Result<Option<Duration>> {
    match end.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(ErrorKind::TimedOut.into()),
        left => Ok(Some(left)),
    }
}

fn read_until(mut stream: &UnixStream, bytes: &mut [u8], end: Instant) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        stream.set_read_timeout(left(end)?)?;
        match stream.read(rest) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => rest = &mut rest[read..],
            // Before the end of time, or at it.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write_until(mut stream: &UnixStream, bytes: &[u8], end: Instant) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        stream.set_write_timeout(left(end)?)?;
        match stream.write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sends the command that takes a descriptor, with `theirs` as that.
fn hand_over(control: &UnixStream, theirs: &UnixStream) -> io::Result<()> {
    let fds = [theirs.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    rights.push(SendAncillaryMessage::ScmRights(&fds));
    let command = control::SET_DATA_FD.to_be_bytes();
    sendmsg(
        control,
        &[IoSlice::new(&command)],
        &mut rights,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}
