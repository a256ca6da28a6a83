// SPDX-License-Identifier: MIT
//! The two registers and what the indexes do.
//!
//! Always true: only 32-bit accesses count; what has no meaning reads all ones and writes nothing.
//! Not here: the formats behind the addresses that are handed over.

use crate::event_log;
use crate::firmware_log::FirmwareLog;
use crate::host_log::{HostLog, Weight, printable};
use crate::nvram;
use crate::watchdog::{Pace, Watchdog};
use chipset_device::{Clock, Device, PortDevice, PowerRequest, PowerSink, Timed, TimerHandle, unclaimed};
use guest_memory::{DmaMemory, MemoryError};
use std::fmt::Write;
use std::sync::Arc;
use uefi_nvram::{Nvram, Status, Variable, attribute, name, vendor};

/// First port and number of ports.
pub const PORTS: (u16, u16) = (0x28, 8);
const DATA: u16 = 4;

/// Indexes (msvm-machine section 4).
pub mod index {
    /// Low half of the gpa that the generation id goes to.
    pub const GENERATION_ID_LOW: u32 = 0x0E;
    /// High half; the id is written when this is.
    pub const GENERATION_ID_HIGH: u32 = 0x0F;
    /// The firmware wants MTRRs set up; the VMM has done so.
    pub const BOOT_FINALIZE: u32 = 0x1A;
    /// gpa of an NVRAM command.
    pub const NVRAM: u32 = 0x24;
    /// gpa of a crypto command.
    pub const CRYPTO: u32 = 0x26;
    /// Configuration of the watchdog.
    pub const WATCHDOG_CONFIG: u32 = 0x27;
    /// Seconds of one count of the watchdog.
    pub const WATCHDOG_RESOLUTION: u32 = 0x28;
    /// Counts left.
    pub const WATCHDOG_COUNT: u32 = 0x29;
    /// gpa of the firmware's log; 0 for none.
    pub const LOG_GPA: u32 = 0x2B;
    /// Look at the log now.
    pub const LOG_LOOK: u32 = 0x2C;
    /// gpa of an event channel.
    pub const EVENT_LOG: u32 = 0x30;
    /// Value of the memory overwrite request; reads whether it was stored.
    pub const MEMORY_OVERWRITE: u32 = 0x31;
    /// gpa of a debug string.
    pub const DEBUG_STRING: u32 = 0x36;
    /// Bytes of the NFIT; there is none.
    pub const NFIT_SIZE: u32 = 0x37;
}

/// Crypto descriptor: u32 command, u64 status at 4, u64 gpa at 12, u32 bytes at 20.
mod crypto {
    pub(super) const LEN: usize = 24;
    pub(super) const STATUS: u64 = 4;
    pub(super) const RANDOM: u32 = 5;
    /// Bytes of one request.
    pub(super) const MOST: u32 = 64 << 10;
}

/// Bytes of a debug string; the firmware's buffer.
const DEBUG_STRING: usize = 1024;
/// Lines of the firmware's log that `inspect` and a crash show.
const LAST_LINES: usize = 40;

/// What the device starts with.
pub struct UefiConfig {
    /// The variables.
    pub nvram: Nvram,
    /// Changes when the VM's past does; the same over resets.
    pub generation_id: [u8; 16],
    /// Which lines of the firmware's log are told.
    pub log_level: LogLevel,
}

/// Which lines of the firmware's log are told to whoever asks for no details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Errors and warnings.
    #[default]
    Problems,
    /// What the firmware calls information as well.
    Information,
    /// All.
    Everything,
}

impl LogLevel {
    fn weigh(self, weight: Weight) -> Weight {
        match (self, weight) {
            (Self::Everything, Weight::Information | Weight::Detail)
            | (Self::Information, Weight::Information) => Weight::Notice,
            _ => weight,
        }
    }
}

/// Fills a buffer with random bytes, or says why not.
pub type RandomSource = Box<dyn FnMut(&mut [u8]) -> Result<(), String> + Send>;

/// How the device reaches the machine.
pub struct UefiWorld {
    /// RAM.
    pub memory: DmaMemory,
    /// For the watchdog.
    pub clock: Arc<Clock>,
    /// The watchdog's deadline, connected to the device.
    pub timer: TimerHandle,
    /// Takes the watchdog's reset.
    pub power: Arc<dyn PowerSink>,
    /// Random bytes for the guest.
    pub random: RandomSource,
}

/// The device.
pub struct UefiDevice {
    memory: DmaMemory,
    power: Arc<dyn PowerSink>,
    random: RandomSource,
    nvram: Nvram,
    generation_id: [u8; 16],
    pub(crate) log_level: LogLevel,
    watchdog: Watchdog,
    state: State,
}

/// What a reset clears.
#[derive(Default)]
struct State {
    index: u32,
    generation_id_low: u32,
    memory_overwrite_failed: bool,
    firmware_log: FirmwareLog,
    host_log: HostLog,
}

impl UefiDevice {
    /// A device as after power on.
    pub fn new(config: UefiConfig, world: UefiWorld) -> Self {
        Self {
            memory: world.memory,
            power: world.power,
            random: world.random,
            nvram: config.nvram,
            generation_id: config.generation_id,
            log_level: config.log_level,
            watchdog: Watchdog::new(world.clock, world.timer, Pace::FIRMWARE),
            state: State::default(),
        }
    }

    /// The last lines of the firmware's log, for a report about a crash; empty when there is none.
    pub fn last_lines(&self) -> String {
        let mut text = String::new();
        match self.state.firmware_log.all(&self.memory) {
            Ok(lines) => {
                let from = lines.len().saturating_sub(LAST_LINES);
                for (_, line) in &lines[from..] {
                    let _ = writeln!(text, "{}", printable(line));
                }
            }
            Err(error) => {
                let _ = writeln!(text, "{error}");
            }
        }
        text
    }

    fn read(&self) -> u32 {
        match self.state.index {
            index::MEMORY_OVERWRITE => self.state.memory_overwrite_failed.into(),
            index::NFIT_SIZE => 0,
            other => self.watchdog.read(other).unwrap_or(u32::MAX),
        }
    }

    fn write(&mut self, value: u32) {
        let result = match self.state.index {
            index::GENERATION_ID_LOW => {
                self.state.generation_id_low = value;
                Ok(())
            }
            index::GENERATION_ID_HIGH => {
                let gpa = u64::from(value) << 32 | u64::from(self.state.generation_id_low);
                self.memory.write(gpa, &self.generation_id)
            }
            index::BOOT_FINALIZE => Ok(()),
            index::NVRAM => nvram::handle(&mut self.nvram, &self.memory, value, &mut self.state.host_log),
            index::CRYPTO => self.crypto(value),
            index::LOG_GPA => {
                self.state.firmware_log.set_gpa(value);
                Ok(())
            }
            index::LOG_LOOK => {
                self.tell_news();
                Ok(())
            }
            index::EVENT_LOG => event_log::tell(&self.memory, value, &mut self.state.host_log),
            index::MEMORY_OVERWRITE => {
                self.memory_overwrite(value);
                Ok(())
            }
            index::DEBUG_STRING => self.debug_string(value),
            other if self.watchdog.write(other, value) => Ok(()),
            other => {
                let line = format!("index {other:#x} of the bios device is not known; {value:#x} is dropped");
                self.state.host_log.line(Weight::Detail, &line);
                Ok(())
            }
        };
        if let Err(error) = result {
            let line = format!("index {:#x} of the bios device: {error}", self.state.index);
            self.state.host_log.line(Weight::Problem, &line);
        }
    }

    fn crypto(&mut self, gpa: u32) -> Result<(), MemoryError> {
        let gpa = gpa.into();
        let mut bytes = [0; crypto::LEN];
        self.memory.read(gpa, &mut bytes)?;
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let to = u64::from(number(12)) | u64::from(number(16)) << 32;
        let result = match number(0) {
            crypto::RANDOM => self.random(to, number(20)),
            _ => Err(Status::Unsupported),
        };
        let status = result.map_or_else(|status| status as u64, |()| 0);
        self.memory.write(gpa + crypto::STATUS, &status.to_le_bytes())
    }

    fn random(&mut self, gpa: u64, len: u32) -> Result<(), Status> {
        if len > crypto::MOST || !self.memory.is_ram(gpa, len.into()) {
            return Err(Status::InvalidParameter);
        }
        let mut bytes = vec![0; len as usize];
        if let Err(error) = (self.random)(&mut bytes) {
            let line = format!("no random numbers: {error}");
            self.state.host_log.line(Weight::Problem, &line);
            return Err(Status::DeviceError);
        }
        self.memory
            .write(gpa, &bytes)
            .map_err(|_| Status::InvalidParameter)
    }

    /// ACPI's memory clear interface (TCG Platform Reset Attack Mitigation): bit 0 asks the next start to
    /// clear memory. RAM of this machine is zeroed at every reset anyway.
    fn memory_overwrite(&mut self, value: u32) {
        let key = name(vendor::MEMORY_OVERWRITE, "MemoryOverwriteRequestControl");
        let variable = Variable::plain(attribute::USUAL, [value as u8]);
        self.state.memory_overwrite_failed = self.nvram.set_by_host(&key, variable).is_err();
    }

    fn debug_string(&mut self, gpa: u32) -> Result<(), MemoryError> {
        let mut bytes = Vec::new();
        let mut byte = [0];
        while bytes.len() < DEBUG_STRING {
            self.memory.read(u64::from(gpa) + bytes.len() as u64, &mut byte)?;
            if byte == [0] {
                break;
            }
            bytes.push(byte[0]);
        }
        self.state
            .host_log
            .line(Weight::Detail, &String::from_utf8_lossy(&bytes));
        Ok(())
    }

    fn tell_news(&mut self) {
        let (log, level) = (&mut self.state.host_log, self.log_level);
        match self.state.firmware_log.news(&self.memory) {
            Ok(lines) => lines
                .iter()
                .for_each(|(weight, line)| log.line(level.weigh(*weight), line)),
            Err(error) => log.line(Weight::Problem, &error),
        }
    }
}

impl Device for UefiDevice {
    fn reset(&mut self) {
        self.state = State::default();
        self.watchdog.reset();
        self.nvram.reset();
    }

    fn inspect(&self) -> String {
        let mut text = self.watchdog.text();
        let phase = if self.nvram.at_runtime() {
            "run time"
        } else {
            "boot services"
        };
        let _ = writeln!(text, "phase {phase}");
        for line in self.last_lines().lines() {
            let _ = writeln!(text, "log {line}");
        }
        text
    }
}

impl PortDevice for UefiDevice {
    fn port_read(&mut self, offset: u16, data: &mut [u8]) {
        match (offset, data.len()) {
            (DATA, 4) => data.copy_from_slice(&self.read().to_le_bytes()),
            _ => unclaimed(data),
        }
    }

    fn port_write(&mut self, offset: u16, data: &[u8]) {
        let Ok(data) = data.try_into() else { return };
        match offset {
            0 => self.state.index = u32::from_le_bytes(data),
            DATA => self.write(u32::from_le_bytes(data)),
            _ => {}
        }
    }
}

impl Timed for UefiDevice {
    fn timer_fired(&mut self, _id: u32, now: u64) {
        if self.watchdog.expired(now) {
            tracing::warn!(
                "the firmware's watchdog has expired: the guest has not started in time and is reset"
            );
            self.power.request(PowerRequest::Reset);
        }
    }
}
