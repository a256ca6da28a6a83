// SPDX-License-Identifier: MIT
//! A client of swtpm: commands to control it on one Unix socket, TPM commands and responses on another that
//! it is handed over the first (swtpm's manual, "swtpm_ioctls").
//!
//! Always true: waiting for the program is bounded; a response is as long as its header says and at most
//! [`MOST`]. Not here: what commands mean.

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest command and response.
pub(crate) const MOST: usize = 4096;
/// Bytes of the header of a command and a response: tag, size, code.
pub(crate) const HEADER: usize = 10;
/// Making an RSA key may take this long on a busy host; the firmware gives up after 90 seconds, too.
const COMMAND: Duration = Duration::from_secs(90);
/// What controls the program answers at once.
const CONTROL: Duration = Duration::from_secs(10);

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
}

/// A running swtpm.
#[derive(Debug)]
pub struct Swtpm {
    control: UnixStream,
    data: UnixStream,
}

impl Swtpm {
    /// Takes over the program behind the control socket `path`.
    pub fn connect(path: &Path) -> Result<Self, SwtpmError> {
        let control = UnixStream::connect(path).map_err(|error| SwtpmError::Connect {
            path: path.to_owned(),
            error,
        })?;
        control.set_read_timeout(Some(CONTROL))?;
        control.set_write_timeout(Some(CONTROL))?;
        let (data, theirs) = UnixStream::pair()?;
        data.set_read_timeout(Some(COMMAND))?;
        data.set_write_timeout(Some(CONTROL))?;
        hand_over(&control, &theirs)?;
        let mut tpm = Self { control, data };
        tpm.result(control::SET_DATA_FD)?;
        Ok(tpm)
    }

    /// Sockets that are set up already.
    #[cfg(test)]
    pub(crate) fn from_parts(control: UnixStream, data: UnixStream) -> Self {
        Self { control, data }
    }

    /// Turns the TPM off and on.
    pub fn power_cycle(&mut self) -> Result<(), SwtpmError> {
        self.call(control::STOP, &[])?;
        // No flags: volatile state is lost, as it should be.
        self.call(control::INIT, &[0; 4])
    }

    /// Runs one command.
    pub fn execute(&mut self, command: &[u8]) -> Result<Vec<u8>, SwtpmError> {
        self.data.write_all(command)?;
        let mut response = vec![0; HEADER];
        self.data.read_exact(&mut response)?;
        let size = u32::from_be_bytes([response[2], response[3], response[4], response[5]]) as usize;
        if !(HEADER..=MOST).contains(&size) {
            return Err(SwtpmError::Response(size));
        }
        response.resize(size, 0);
        self.data.read_exact(&mut response[HEADER..])?;
        Ok(response)
    }

    fn call(&mut self, command: u32, body: &[u8]) -> Result<(), SwtpmError> {
        self.control.write_all(&[&command.to_be_bytes(), body].concat())?;
        self.result(command)
    }

    fn result(&mut self, command: u32) -> Result<(), SwtpmError> {
        let mut bytes = [0; 4];
        self.control.read_exact(&mut bytes)?;
        match u32::from_be_bytes(bytes) {
            0 => Ok(()),
            result => Err(SwtpmError::Refused { command, result }),
        }
    }
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
