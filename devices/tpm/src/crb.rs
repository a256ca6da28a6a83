// SPDX-License-Identifier: MIT
//! The registers: locality 0 of the command response buffer, and the ports of Hyper-V's TPM by which firmware
//! says where in RAM the buffers are (msvm-machine section 12).
//!
//! Always true: until firmware names pages of RAM, command and response share the buffer behind the
//! registers; while a command runs, `start` reads 1 and writes to the registers wait for nothing and change
//! nothing that the command uses.

use crate::swtpm::{HEADER, MOST, Plug, Swtpm, SwtpmError, size_of};
use chipset_device::{Device, MmioDevice, PortDevice, lock, unclaimed};
use guest_memory::{DmaMemory, MemoryError};
use io_thread::{Bell, Job, Progress, Worker};
use std::sync::{Arc, Mutex, MutexGuard};

/// First byte of the registers.
pub const MMIO: u64 = 0xFED4_0000;
/// Bytes of the registers and the buffer.
pub const LEN: u64 = 0x1000;
/// First port and number of ports.
pub const PORTS: (u16, u16) = (0x1040, 8);
const DATA_PORT: u16 = 4;

/// Offsets of the registers of locality 0.
mod register {
    pub(super) const LOCALITY_STATE: u64 = 0x00;
    pub(super) const LOCALITY_CONTROL: u64 = 0x08;
    pub(super) const LOCALITY_STATUS: u64 = 0x0C;
    pub(super) const INTERFACE_ID: u64 = 0x30;
    pub(super) const STATUS: u64 = 0x44;
    pub(super) const START: u64 = 0x4C;
    pub(super) const COMMAND_SIZE: u64 = 0x58;
    pub(super) const COMMAND_LOW: u64 = 0x5C;
    pub(super) const COMMAND_HIGH: u64 = 0x60;
    pub(super) const RESPONSE_SIZE: u64 = 0x64;
    pub(super) const RESPONSE_LOW: u64 = 0x68;
    pub(super) const RESPONSE_HIGH: u64 = 0x6C;
    /// The buffer behind the registers.
    pub(super) const BUFFER: u64 = 0x80;
}

/// Locality state: the registers are valid; locality 0 is in use.
const VALID: u32 = 0x80;
const ASSIGNED: u32 = 2;
const REQUEST_ACCESS: u32 = 1;
const RELINQUISH: u32 = 2;
/// Command response buffer, version 0, locality 0 only, and nothing else to choose.
const INTERFACE: u32 = 0x4011;
const FATAL: u32 = 1;
/// Bytes of the buffer behind the registers.
const BUFFER: usize = (LEN - register::BUFFER) as usize;

/// What the index port selects.
mod index {
    pub(super) const MAP: u32 = 1;
    pub(super) const ESTABLISHED: u32 = 2;
    pub(super) const PRESENCE_PENDING: u32 = 3;
    pub(super) const PRESENCE_LAST: u32 = 5;
    pub(super) const PRESENCE_RESULT: u32 = 6;
    pub(super) const PRESENCE_SET: u32 = 7;
    pub(super) const PRESENCE_CONFIRMATION: u32 = 8;
    pub(super) const PROTOCOL: u32 = 64;
}

/// Physical presence: the operation is not supported (TCG PPI 1.3, function 7).
const NOT_SUPPORTED: u32 = 1;
/// Physical presence: the operation is not implemented (function 8).
const NOT_IMPLEMENTED: u32 = 0;
/// The firmware's protocol is TCG 2.
const TCG2: u32 = 1;

struct State {
    index: u32,
    assigned: bool,
    fatal: bool,
    /// A command waits or runs.
    start: bool,
    /// Two pages of RAM, when firmware has named them: command, response.
    pages: Option<u32>,
    buffer: Box<[u8; BUFFER]>,
    /// The TPM has to be turned off and on before the next command.
    fresh: bool,
    /// Counts resets; a command of an earlier count has no result any more.
    life: u64,
    commands: u64,
}

impl State {
    fn power_on(life: u64) -> Self {
        Self {
            index: 0,
            assigned: false,
            fatal: false,
            start: false,
            pages: None,
            buffer: Box::new([0; BUFFER]),
            fresh: true,
            life,
            commands: 0,
        }
    }

    /// Where command and response are, and how long each may be.
    fn places(&self) -> (u64, u64, usize) {
        match self.pages {
            Some(gpa) => (gpa.into(), u64::from(gpa) + 0x1000, MOST),
            None => (MMIO + register::BUFFER, MMIO + register::BUFFER, BUFFER),
        }
    }

    fn read(&self, offset: u64) -> u32 {
        let (command, response, size) = self.places();
        match offset {
            register::LOCALITY_STATE => VALID | if self.assigned { ASSIGNED } else { 0 },
            register::LOCALITY_STATUS => self.assigned.into(),
            register::INTERFACE_ID => INTERFACE,
            register::STATUS if self.fatal => FATAL,
            register::START => self.start.into(),
            register::COMMAND_SIZE | register::RESPONSE_SIZE => size as u32,
            register::COMMAND_LOW => command as u32,
            register::COMMAND_HIGH => (command >> 32) as u32,
            register::RESPONSE_LOW => response as u32,
            register::RESPONSE_HIGH => (response >> 32) as u32,
            _ => 0,
        }
    }

    /// Part of the buffer behind the registers.
    fn slice(&mut self, offset: u64, len: usize) -> Option<&mut [u8]> {
        let at = usize::try_from(offset.checked_sub(register::BUFFER)?).ok()?;
        self.buffer.get_mut(at..at.checked_add(len)?)
    }
}

/// A TPM, shared by its registers, its ports and its thread.
pub struct Crb {
    memory: DmaMemory,
    tpm: Mutex<Swtpm>,
    state: Mutex<State>,
    bell: Arc<Bell>,
}

/// The registers in memory; the TPM's thread ends with them, whatever the program does.
pub struct TpmRegisters {
    crb: Arc<Crb>,
    plug: Plug,
    _thread: Worker,
}

/// The ports.
pub struct TpmPorts(Arc<Crb>);

/// Why a command was not run.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("a command says that it has {0} bytes; it must have {HEADER} to {1}")]
    Length(usize, usize),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Swtpm(#[from] SwtpmError),
}

impl Crb {
    /// Starts a TPM as after power on; gives the devices that it is on the bus.
    pub fn start(tpm: Swtpm, memory: DmaMemory) -> std::io::Result<(TpmRegisters, TpmPorts)> {
        let plug = tpm.plug()?;
        let crb = Arc::new(Self {
            memory,
            tpm: Mutex::new(tpm),
            state: Mutex::new(State::power_on(0)),
            bell: Bell::new()?,
        });
        let thread = Worker::spawn("tpm", crb.bell.clone(), crb.clone())?;
        let ports = TpmPorts(crb.clone());
        let registers = TpmRegisters {
            crb,
            plug,
            _thread: thread,
        };
        Ok((registers, ports))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The bytes of the command that waits.
    fn command(&self, state: &State) -> Result<Vec<u8>, Failure> {
        let (gpa, _, most) = state.places();
        let read = |at: usize, bytes: &mut [u8]| match state.pages {
            Some(_) => self.memory.read(gpa + at as u64, bytes),
            None => {
                bytes.copy_from_slice(&state.buffer[at..at + bytes.len()]);
                Ok(())
            }
        };
        let mut bytes = vec![0; HEADER];
        read(0, &mut bytes)?;
        let size = size_of(&bytes);
        if !(HEADER..=most).contains(&size) {
            return Err(Failure::Length(size, most));
        }
        bytes.resize(size, 0);
        // The guest may write to pages meanwhile: a header is read once, or swtpm would wait for another size.
        read(HEADER, &mut bytes[HEADER..])?;
        Ok(bytes)
    }

    fn execute(&self, command: &[u8], fresh: bool) -> Result<Vec<u8>, SwtpmError> {
        let mut tpm = lock(&self.tpm);
        if fresh {
            tpm.power_cycle()?;
        }
        tpm.execute(command)
    }

    fn answer(&self, state: &mut State, answer: &[u8]) -> Result<(), Failure> {
        let (_, response, most) = state.places();
        if answer.len() > most {
            return Err(SwtpmError::Response(answer.len()).into());
        }
        match state.pages {
            Some(_) => self.memory.write(response, answer)?,
            None => state.buffer[..answer.len()].copy_from_slice(answer),
        }
        Ok(())
    }

    /// Runs the command that waits, if there is one.
    fn run(&self) {
        let mut state = self.state();
        if !state.start {
            return;
        }
        state.commands += 1;
        let (life, fresh) = (state.life, std::mem::take(&mut state.fresh));
        let command = self.command(&state);
        drop(state);
        let answer = command.and_then(|command| Ok(self.execute(&command, fresh)?));
        let mut state = self.state();
        // Whoever asked is gone: it gets no answer, and what has failed is no fault of the new life's.
        if state.life != life {
            return;
        }
        let outcome = answer.and_then(|answer| self.answer(&mut state, &answer));
        state.fatal = outcome.is_err();
        state.start = false;
        drop(state);
        if let Err(error) = outcome {
            tracing::error!("tpm: {error}; the guest sees a fatal error");
        }
    }

    fn write(&self, offset: u64, value: u32) {
        let mut state = self.state();
        match offset {
            register::LOCALITY_CONTROL if value & RELINQUISH != 0 => state.assigned = false,
            register::LOCALITY_CONTROL if value & REQUEST_ACCESS != 0 => state.assigned = true,
            register::START if value & 1 != 0 && !state.fatal => {
                state.start = true;
                drop(state);
                self.bell.ring();
            }
            // Requests to be ready or idle are granted at once, and nothing of the rest can be written.
            _ => {}
        }
    }

    fn reset(&self) {
        let mut state = self.state();
        *state = State::power_on(state.life + 1);
    }
}

impl Job for Crb {
    fn work(&self) -> Progress {
        self.run();
        Progress::Idle
    }
}

impl Drop for TpmRegisters {
    fn drop(&mut self) {
        // A command that runs has nobody to answer any more.
        self.crb.reset();
        self.plug.pull();
    }
}

impl Device for TpmRegisters {
    fn reset(&mut self) {
        self.crb.reset();
    }

    fn inspect(&self) -> String {
        let state = self.crb.state();
        let (command, response, _) = state.places();
        format!(
            "command {command:#x}\nresponse {response:#x}\nstart {}\nfatal {}\ncommands {}\n",
            state.start, state.fatal, state.commands
        )
    }
}

impl MmioDevice for TpmRegisters {
    fn mmio_read(&mut self, offset: u64, data: &mut [u8]) {
        let mut state = self.crb.state();
        if let Some(bytes) = state.slice(offset, data.len()) {
            return data.copy_from_slice(bytes);
        }
        // Drivers read single bytes and pairs of registers, too.
        for (at, byte) in (offset..).zip(data) {
            *byte = state.read(at & !3).to_le_bytes()[(at & 3) as usize];
        }
    }

    fn mmio_write(&mut self, offset: u64, data: &[u8]) {
        let mut state = self.crb.state();
        let idle = !state.start;
        if let Some(bytes) = state.slice(offset, data.len()) {
            if idle {
                bytes.copy_from_slice(data);
            }
            return;
        }
        drop(state);
        if let Ok(word) = data.try_into() {
            self.crb.write(offset, u32::from_le_bytes(word));
        }
    }
}

impl Device for TpmPorts {
    // The registers reset what both share.
    fn reset(&mut self) {}
}

impl PortDevice for TpmPorts {
    fn port_read(&mut self, offset: u16, data: &mut [u8]) {
        if (offset, data.len()) != (DATA_PORT, 4) {
            return unclaimed(data);
        }
        let state = self.0.state();
        let value = match state.index {
            index::ESTABLISHED => state.pages.unwrap_or(0),
            index::PRESENCE_PENDING | index::PRESENCE_LAST | index::PRESENCE_RESULT => 0,
            index::PRESENCE_SET => NOT_SUPPORTED,
            index::PRESENCE_CONFIRMATION => NOT_IMPLEMENTED,
            index::PROTOCOL => TCG2,
            _ => u32::MAX,
        };
        data.copy_from_slice(&value.to_le_bytes());
    }

    fn port_write(&mut self, offset: u16, data: &[u8]) {
        let Ok(data) = data.try_into() else { return };
        let value = u32::from_le_bytes(data);
        let mut state = self.0.state();
        match (offset, state.index) {
            (0, _) => state.index = value,
            // What is no RAM is refused: established stays as it was.
            (DATA_PORT, index::MAP) if !state.start && self.0.memory.is_ram(value.into(), 0x2000) => {
                state.pages = Some(value);
            }
            _ => {}
        }
    }
}
