// SPDX-License-Identifier: MIT
//! The device as firmware sees it: ports, descriptors, results in memory.

use super::*;
use crate::nvram::command;
use crate::watchdog::config as watchdog;
use chipset_device::{Clock, Device, PortDevice, PowerRequest, PowerSink, Timed, TimerQueue};
use guest_memory::{DmaMemory, GuestMemory};
use std::sync::{Arc, Mutex};
use uefi_nvram::{Nvram, Status, attribute, vendor};
use uuid::Uuid;

const RAM: u64 = 0x10_0000;
const DESCRIPTOR: u32 = 0x1000;
const NAME: u32 = 0x2000;
const DATA: u32 = 0x3000;
const USUAL: u32 = attribute::USUAL;

#[derive(Default)]
struct Power(Mutex<Vec<PowerRequest>>);

impl PowerSink for Power {
    fn request(&self, request: PowerRequest) {
        self.0.lock().unwrap().push(request);
    }
}

struct Rig {
    device: UefiDevice,
    memory: DmaMemory,
    clock: Arc<Clock>,
    timers: Arc<TimerQueue>,
    power: Arc<Power>,
    // Kept: the device sees it through `memory`.
    _ram: GuestMemory,
}

impl Rig {
    fn new(nvram: Nvram) -> Self {
        let ram = GuestMemory::allocate(&[(0, RAM)]).unwrap();
        let (clock, timers) = (Arc::new(Clock::deterministic()), TimerQueue::new());
        let power = Arc::new(Power::default());
        let config = UefiConfig {
            nvram,
            generation_id: [7; 16],
            log_level: LogLevel::Problems,
        };
        let world = UefiWorld {
            memory: ram.dma(),
            clock: clock.clone(),
            timer: timers.timer(0),
            power: power.clone(),
            random: Box::new(|bytes| {
                bytes.fill(0x5A);
                Ok(())
            }),
        };
        Self {
            device: UefiDevice::new(config, world),
            memory: ram.dma(),
            clock,
            timers,
            power,
            _ram: ram,
        }
    }

    fn write(&mut self, index: u32, value: u32) {
        self.device.port_write(0, &index.to_le_bytes());
        self.device.port_write(4, &value.to_le_bytes());
    }

    fn read(&mut self, index: u32) -> u32 {
        self.device.port_write(0, &index.to_le_bytes());
        let mut data = [0; 4];
        self.device.port_read(4, &mut data);
        u32::from_le_bytes(data)
    }

    fn put(&self, gpa: u32, bytes: &[u8]) {
        self.memory.write(gpa.into(), bytes).unwrap();
    }

    fn word(&self, gpa: u32) -> u32 {
        self.memory.read_u32(gpa.into()).unwrap()
    }

    /// A descriptor as the firmware makes it, then the command; its status.
    fn call(&mut self, command: u32, text: &str, attributes: u32, room: u32) -> u64 {
        let units: Vec<u8> = text
            .encode_utf16()
            .chain([0])
            .flat_map(u16::to_le_bytes)
            .collect();
        self.put(NAME, &units);
        let mut bytes = [0; 56];
        bytes[..4].copy_from_slice(&command.to_le_bytes());
        bytes[4] = 7;
        bytes[12..16].copy_from_slice(&attributes.to_le_bytes());
        bytes[16..20].copy_from_slice(&NAME.to_le_bytes());
        bytes[24..28].copy_from_slice(&(units.len() as u32).to_le_bytes());
        bytes[28..44].copy_from_slice(&vendor::GLOBAL.to_bytes_le());
        bytes[44..48].copy_from_slice(&DATA.to_le_bytes());
        bytes[52..56].copy_from_slice(&room.to_le_bytes());
        self.put(DESCRIPTOR, &bytes);
        self.send()
    }

    fn send(&mut self) -> u64 {
        self.write(index::NVRAM, DESCRIPTOR);
        self.memory.read_u64(u64::from(DESCRIPTOR) + 4).unwrap()
    }

    fn pass(&mut self, seconds: u64) {
        self.clock.advance_to(self.clock.now() + seconds * 1_000_000_000);
        let now = self.clock.now();
        if self
            .timers
            .next_deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            self.timers.fire_due(now);
            self.device.timer_fired(0, now);
        }
    }
}

fn rig() -> Rig {
    Rig::new(Nvram::new())
}

#[test]
fn set_and_get_move_data_in_place() {
    let mut rig = rig();
    rig.put(DATA, &[1, 2, 3, 4]);
    assert_eq!(rig.call(command::SET, "Boot0000", USUAL, 4), 0);
    rig.put(DATA, &[0; 8]);
    assert_eq!(rig.call(command::GET, "Boot0000", 0, 8), 0);
    assert_eq!(rig.word(DATA), 0x0403_0201);
    assert_eq!((rig.word(DESCRIPTOR + 12), rig.word(DESCRIPTOR + 52)), (USUAL, 4));
    assert_eq!(rig.call(command::GET, "Missing", 0, 8), Status::NotFound as u64);
}

#[test]
fn a_short_or_missing_buffer_is_told_what_it_needs() {
    let mut rig = rig();
    assert_eq!(rig.call(command::SET, "Boot0000", USUAL, 16), 0);
    for room in [0, 15] {
        assert_eq!(rig.call(command::GET, "Boot0000", 0, room), 5);
        assert_eq!(
            (rig.word(DESCRIPTOR + 12), rig.word(DESCRIPTOR + 52)),
            (USUAL, 16)
        );
    }
    assert_eq!(rig.call(command::GET, "Boot0000", 0, 16), 0);
    rig.put(DESCRIPTOR + 44, &[0; 8]);
    assert_eq!(rig.send(), 5);
}

#[test]
fn names_are_enumerated_in_place_until_not_found() {
    let mut rig = rig();
    for text in ["A", "B"] {
        assert_eq!(rig.call(command::SET, text, USUAL, 4), 0);
    }
    rig.call(command::FIRST_NAME, "garbage that is not read", 0, 0);
    let mut names = Vec::new();
    loop {
        let len = rig.word(DESCRIPTOR + 24);
        let mut name = vec![0; len as usize];
        rig.memory.read(NAME.into(), &mut name).unwrap();
        let units = name.chunks(2).map(|unit| char::from(unit[0]));
        names.push(units.take_while(|&c| c != '\0').collect::<String>());
        rig.put(DESCRIPTOR, &command::NEXT_NAME.to_le_bytes());
        rig.put(DESCRIPTOR + 24, &2048_u32.to_le_bytes());
        let status = rig.send();
        if status != 0 {
            assert_eq!(status, Status::NotFound as u64);
            break;
        }
        let mut vendor = [0; 16];
        rig.memory.read(u64::from(DESCRIPTOR) + 28, &mut vendor).unwrap();
        assert_eq!(Uuid::from_bytes_le(vendor), vendor::GLOBAL);
    }
    assert_eq!(names, ["A", "B", "SecureBoot", "SetupMode"]);
    // "SecureBoot" does not fit in four bytes.
    assert_eq!(rig.call(command::NEXT_NAME, "B", 0, 0), 5);
    assert_eq!(rig.word(DESCRIPTOR + 24), 22);
    assert_eq!(rig.word(NAME), u32::from(b'B'));
}

#[test]
fn query_and_run_time() {
    let mut rig = rig();
    assert_eq!(rig.call(command::QUERY, "", USUAL, 0), 0);
    assert_eq!(
        rig.memory.read_u64(u64::from(DESCRIPTOR) + 16).unwrap(),
        256 << 10
    );
    assert_eq!(rig.call(command::SET, "BootOnly", 3, 4), 0);
    assert_eq!(rig.call(command::SIGNAL_RUNTIME, "", 1, 0), 0);
    assert_eq!(rig.call(command::GET, "BootOnly", 0, 4), Status::NotFound as u64);
    rig.device.reset();
    assert_eq!(rig.call(command::GET, "BootOnly", 0, 4), 0);
    assert_eq!(rig.call(99, "", 0, 0), Status::Unsupported as u64);
    assert_eq!(
        rig.call(command::DEBUG_STRING, "GetVariable for 'x'\u{1b}[2J", 0, 0),
        0
    );
}

#[test]
fn hostile_addresses_and_sizes_change_nothing() {
    let mut rig = rig();
    let all = u64::MAX.to_le_bytes();
    for (field, value) in [
        (16, &all),
        (44, &all),
        (16, &(RAM - 1).to_le_bytes()),
        (44, &(RAM - 1).to_le_bytes()),
    ] {
        rig.call(command::QUERY, "A", 0, 4);
        rig.put(DESCRIPTOR, &command::SET.to_le_bytes());
        rig.put(DESCRIPTOR + 12, &USUAL.to_le_bytes());
        rig.put(DESCRIPTOR + field, value);
        assert_eq!(rig.send(), Status::InvalidParameter as u64, "{field}");
    }
    for (field, len) in [
        (24, 2049_u32),
        (24, u32::MAX),
        (24, 0),
        (24, 2),
        (52, 0x1_0001),
        (52, u32::MAX),
    ] {
        rig.call(command::QUERY, "AB", 0, 4);
        rig.put(DESCRIPTOR, &command::SET.to_le_bytes());
        rig.put(DESCRIPTOR + 12, &USUAL.to_le_bytes());
        rig.put(DESCRIPTOR + field, &len.to_le_bytes());
        assert_eq!(rig.send(), Status::InvalidParameter as u64, "{field} {len:#x}");
    }
    for gpa in [RAM as u32, RAM as u32 - 8, u32::MAX, 0xFEE0_0000] {
        for index in [
            index::NVRAM,
            index::CRYPTO,
            index::EVENT_LOG,
            index::DEBUG_STRING,
            index::LOG_GPA,
        ] {
            rig.write(index, gpa);
        }
        rig.write(index::LOG_LOOK, 0);
    }
    rig.write(index::GENERATION_ID_LOW, RAM as u32 - 8);
    rig.write(index::GENERATION_ID_HIGH, u32::MAX);
    assert_eq!(rig.call(command::FIRST_NAME, "", 0, 0), 5);
}

#[test]
fn random_bytes_go_where_they_are_wanted() {
    let mut rig = rig();
    let ask = |rig: &mut Rig, command: u32, gpa: u64, len: u32| {
        rig.put(DESCRIPTOR, &command.to_le_bytes());
        rig.put(DESCRIPTOR + 4, &[7, 0, 0, 0, 0, 0, 0, 0]);
        rig.put(DESCRIPTOR + 12, &gpa.to_le_bytes());
        rig.put(DESCRIPTOR + 20, &len.to_le_bytes());
        rig.write(index::CRYPTO, DESCRIPTOR);
        rig.memory.read_u64(u64::from(DESCRIPTOR) + 4).unwrap()
    };
    assert_eq!(ask(&mut rig, 5, DATA.into(), 3), 0);
    assert_eq!(rig.word(DATA), 0x005A_5A5A);
    let invalid = Status::InvalidParameter as u64;
    assert_eq!(ask(&mut rig, 5, DATA.into(), u32::MAX), invalid);
    assert_eq!(ask(&mut rig, 5, RAM, 1), invalid);
    assert_eq!(ask(&mut rig, 5, u64::MAX, 1), invalid);
    assert_eq!(ask(&mut rig, 0, DATA.into(), 1), Status::Unsupported as u64);
    rig.device = {
        let config = UefiConfig {
            nvram: Nvram::new(),
            generation_id: [0; 16],
            log_level: LogLevel::Problems,
        };
        let world = UefiWorld {
            memory: rig.memory.clone(),
            clock: rig.clock.clone(),
            timer: rig.timers.timer(0),
            power: rig.power.clone(),
            random: Box::new(|_| Err("no".into())),
        };
        UefiDevice::new(config, world)
    };
    assert_eq!(ask(&mut rig, 5, DATA.into(), 3), Status::DeviceError as u64);
}

#[test]
fn the_generation_id_is_written_when_its_place_is_complete() {
    let mut rig = rig();
    rig.write(index::GENERATION_ID_LOW, DATA);
    assert_eq!(rig.word(DATA), 0);
    rig.write(index::GENERATION_ID_HIGH, 0);
    assert_eq!(
        [0, 4, 8, 12, 16].map(|at| rig.word(DATA + at)),
        [0x0707_0707, 0x0707_0707, 0x0707_0707, 0x0707_0707, 0]
    );
}

#[test]
fn reads_without_a_meaning_are_all_ones() {
    let mut rig = rig();
    for index in [0, 0x0E, index::NVRAM, index::LOG_LOOK, 0x38, 0x7777_7777] {
        assert_eq!(rig.read(index), u32::MAX, "{index:#x}");
    }
    assert_eq!(rig.read(index::NFIT_SIZE), 0);
    // Other widths and ports do nothing.
    let mut byte = [0];
    rig.device.port_read(4, &mut byte);
    assert_eq!(byte, [0xFF]);
    rig.device.port_write(0, &[index::NVRAM as u8]);
    assert_eq!(rig.read(index::NFIT_SIZE), 0);
}

#[test]
fn the_memory_overwrite_request_is_a_variable() {
    let mut rig = rig();
    rig.write(index::MEMORY_OVERWRITE, 0x11);
    assert_eq!(rig.read(index::MEMORY_OVERWRITE), 0);
    let key = uefi_nvram::name(vendor::MEMORY_OVERWRITE, "MemoryOverwriteRequestControl");
    rig.call(command::QUERY, "MemoryOverwriteRequestControl", 0, 1);
    rig.put(DESCRIPTOR, &command::GET.to_le_bytes());
    rig.put(DESCRIPTOR + 28, &key.vendor().to_bytes_le());
    assert_eq!(rig.send(), 0);
    assert_eq!(rig.word(DATA) & 0xFF, 0x11);
}

#[test]
fn the_watchdog_resets_a_guest_that_does_not_start() {
    let mut rig = rig();
    let seconds = rig.read(index::WATCHDOG_RESOLUTION);
    rig.write(index::WATCHDOG_COUNT, 10);
    rig.write(index::WATCHDOG_CONFIG, watchdog::RUNNING | watchdog::ONE_SHOT);
    rig.pass(u64::from(seconds) * 4);
    assert_eq!(rig.read(index::WATCHDOG_COUNT), 6);
    // Suspended, it keeps what is left.
    rig.write(index::WATCHDOG_CONFIG, watchdog::CONFIGURED | watchdog::ONE_SHOT);
    rig.pass(10_000);
    assert_eq!(rig.read(index::WATCHDOG_COUNT), 6);
    rig.write(index::WATCHDOG_CONFIG, watchdog::RUNNING | watchdog::ONE_SHOT);
    rig.pass(u64::from(seconds) * 6 - 1);
    assert!(rig.power.0.lock().unwrap().is_empty());
    rig.pass(1);
    assert_eq!(*rig.power.0.lock().unwrap(), [PowerRequest::Reset]);
    rig.device.reset();
    assert_eq!(rig.read(index::WATCHDOG_CONFIG), watchdog::BOOT_STATUS);
    rig.write(index::WATCHDOG_CONFIG, watchdog::BOOT_STATUS);
    assert_eq!(rig.read(index::WATCHDOG_CONFIG), 0);
    rig.pass(100_000);
    assert_eq!(rig.power.0.lock().unwrap().len(), 1);
}

#[test]
fn the_guests_watchdog_begins_again_when_it_is_started_while_it_runs() {
    let (clock, timers) = (Arc::new(Clock::deterministic()), TimerQueue::new());
    let power = Arc::new(Power::default());
    let mut device = GuestWatchdog::new(clock.clone(), timers.timer(0), power.clone());
    let write = |device: &mut GuestWatchdog, index: u32, value: u32| {
        device.port_write(0, &index.to_le_bytes());
        device.port_write(4, &value.to_le_bytes());
    };
    let read = |device: &mut GuestWatchdog, index: u32| {
        device.port_write(0, &index.to_le_bytes());
        let mut data = [0; 4];
        device.port_read(4, &mut data);
        u32::from_le_bytes(data)
    };
    assert_eq!(read(&mut device, index::WATCHDOG_RESOLUTION), 1);
    write(&mut device, index::WATCHDOG_COUNT, 30);
    write(&mut device, index::WATCHDOG_CONFIG, watchdog::RUNNING);
    clock.advance_to(20_000_000_000);
    assert_eq!(read(&mut device, index::WATCHDOG_COUNT), 10);
    write(&mut device, index::WATCHDOG_CONFIG, watchdog::RUNNING);
    assert_eq!(read(&mut device, index::WATCHDOG_COUNT), 30);
    assert_eq!(timers.next_deadline(), Some(50_000_000_000));
    device.timer_fired(0, 50_000_000_000);
    assert_eq!(*power.0.lock().unwrap(), [PowerRequest::Reset]);
    device.reset();
    assert_eq!(read(&mut device, index::WATCHDOG_CONFIG), watchdog::BOOT_STATUS);
    assert_eq!(read(&mut device, index::NVRAM), u32::MAX);
}

#[test]
fn the_largest_count_does_not_overflow() {
    let mut rig = rig();
    rig.write(index::WATCHDOG_COUNT, u32::MAX);
    rig.write(index::WATCHDOG_CONFIG, u32::MAX);
    assert!(rig.read(index::WATCHDOG_COUNT) > u32::MAX / 2);
    rig.write(index::WATCHDOG_COUNT, 0);
    assert_eq!(rig.timers.next_deadline(), None);
}

/// A log as the firmware keeps it.
fn log(entries: &[(u32, &str)], old: bool) -> Vec<u8> {
    let mut bytes = vec![0; 80];
    for (level, text) in entries {
        let at = bytes.len();
        let header = if old { 18 } else { 24 };
        bytes.resize(at + header, 0);
        let (level_at, len_at) = if old { (4, 16) } else { (6, 20) };
        bytes[at..at + 4].copy_from_slice(if old { b"ALMS" } else { b"ALM2" });
        bytes[at + level_at..at + level_at + 4].copy_from_slice(&level.to_le_bytes());
        bytes[at + len_at..at + len_at + 2].copy_from_slice(&(text.len() as u16).to_le_bytes());
        if !old {
            bytes[at + 22] = 24;
        }
        bytes.extend_from_slice(text.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    let behind = bytes.len() as u32;
    bytes[..6].copy_from_slice(b"ALOG\x05\0");
    bytes[12..16].copy_from_slice(&80_u32.to_le_bytes());
    bytes[20..24].copy_from_slice(&behind.to_le_bytes());
    bytes[28..32].copy_from_slice(&0x1000_u32.to_le_bytes());
    bytes
}

#[test]
fn the_firmware_log_is_read_line_by_line() {
    let entries = [(0x8000_0000, "one\r\ntw"), (0x40, "o\n\n"), (2, "three")];
    for old in [false, true] {
        let mut rig = rig();
        rig.put(DATA, &log(&entries, old));
        rig.write(index::LOG_GPA, DATA);
        rig.write(index::LOG_LOOK, 0);
        assert_eq!(rig.device.last_lines(), "one\ntwo\nthree\n");
        assert!(rig.device.inspect().contains("log two\n"));
        rig.device.reset();
        assert_eq!(rig.device.last_lines(), "");
    }
}

#[test]
fn a_log_line_is_told_once_and_weighs_what_its_parts_weigh() {
    use crate::firmware_log::FirmwareLog;
    use crate::host_log::Weight::{Detail, Information, Problem};
    let rig = rig();
    let mut reader = FirmwareLog::default();
    reader.set_gpa(DATA);
    rig.put(DATA, &log(&[(0x40, "a "), (2, "b\n"), (0x40, "c\n")], false));
    let lines = |pairs: &[(_, &str)]| {
        pairs
            .iter()
            .map(|(w, t)| (*w, (*t).to_owned()))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        reader.news(&rig.memory).unwrap(),
        lines(&[(Problem, "a b"), (Information, "c")])
    );
    assert_eq!(reader.news(&rig.memory).unwrap(), []);
    rig.put(
        DATA,
        &log(
            &[(0x40, "a "), (2, "b\n"), (0x40, "c\n"), (0x40_0000, "d\n")],
            false,
        ),
    );
    assert_eq!(reader.news(&rig.memory).unwrap(), lines(&[(Detail, "d")]));
    // That a module is loaded is no error, whatever Project Mu calls it; that one cannot be is.
    let loads = [
        (0x44, "Loading driver at 0x7FF39000 "),
        (0x8000_0004, "PcdDxe.efi"),
        (0x8000_0004, "\n"),
    ];
    rig.put(
        DATA,
        &log(&[&loads[..], &[(0x8000_0000, "it failed\n")]].concat(), false),
    );
    reader.set_gpa(DATA);
    assert_eq!(
        reader.news(&rig.memory).unwrap(),
        lines(&[
            (Information, "Loading driver at 0x7FF39000 PcdDxe.efi"),
            (Problem, "it failed")
        ])
    );
    // The log was begun anew.
    rig.put(DATA, &log(&[(0x40, "e\n")], false));
    assert_eq!(reader.news(&rig.memory).unwrap(), lines(&[(Information, "e")]));
}

#[test]
fn as_much_of_the_firmware_log_is_told_as_was_asked_for() {
    let entries = [
        (2, "warning\n"),
        (0x40, "information\n"),
        (0x40_0000, "verbose\n"),
    ];
    for (level, told) in [
        (LogLevel::Problems, 1),
        (LogLevel::Information, 2),
        (LogLevel::Everything, 3),
    ] {
        let mut rig = rig();
        rig.device.log_level = level;
        rig.put(DATA, &log(&entries, false));
        let meter = soak_case::LogMeter::default();
        tracing::subscriber::with_default(meter.clone(), || {
            rig.write(index::LOG_GPA, DATA);
            rig.write(index::LOG_LOOK, 1);
        });
        assert_eq!(meter.lines(), told, "{level:?}");
    }
}

#[test]
fn logs_that_make_no_sense_are_refused_in_words() {
    let good = log(&[(2, "text\n")], false);
    for (at, bytes, wanted) in [
        (0, &b"GOLA"[..], "it does not begin with ALOG"),
        (4, &[1, 0], "version 1 is not known"),
        (12, &[0; 4], "make no sense"),
        (20, &[0xFF; 4], "make no sense"),
        (28, &[1, 0, 0, 0], "make no sense"),
        (80, b"SMLA", "damaged at offset 0x50"),
        (102, &[0, 0], "damaged at offset 0x50"),
        (100, &[0xFF, 0xFF], "damaged at offset 0x50"),
    ] {
        let mut rig = rig();
        rig.put(DATA, &good);
        rig.put(DATA + at, bytes);
        rig.write(index::LOG_GPA, DATA);
        assert!(
            rig.device.last_lines().contains(wanted),
            "{at}: {}",
            rig.device.last_lines()
        );
    }
    let mut rig = rig();
    rig.write(index::LOG_GPA, 0xFFFF_FFF0);
    assert!(rig.device.last_lines().starts_with("the log at gpa 0xfffffff0: "));
}

#[test]
fn boot_events_become_lines() {
    let mut rig = rig();
    rig.put(DATA, &event_log::testing::channel(0x1_0001, 7));
    rig.write(index::EVENT_LOG, DATA);
    // Cut and hostile channels are survived.
    for len in [0_u32, 1, 64, 0xFFFF_FFFF] {
        rig.put(DATA + 24, &len.to_le_bytes());
        rig.write(index::EVENT_LOG, DATA);
    }
    rig.put(DATA + 24, &200_u32.to_le_bytes());
    for field in [28 + 56, 28 + 60] {
        rig.put(DATA + field, &[0xFF; 4]);
        rig.write(index::EVENT_LOG, DATA);
    }
}

#[test]
fn console_variables_name_the_port() {
    let [out, input, error] = console_variables(ComPort::Com2);
    assert!(out.0.is(vendor::GLOBAL, "ConOut") && input.0.is(vendor::GLOBAL, "ConIn"));
    assert!(error.0.is(vendor::GLOBAL, "ErrOut"));
    assert_eq!(
        (out.1.attributes, out.1.data.len(), out.1.data[8]),
        (USUAL, 55, 2)
    );
    assert_eq!(console_variables(ComPort::Com1)[0].1.data[8], 1);
}

#[test]
fn no_line_reaches_a_terminal_raw_or_endless() {
    use crate::host_log::printable;
    assert_eq!(printable("a\x1b[2J\tb\u{9b}c\n"), "a.[2J b.c");
    let long = "x".repeat(5000);
    assert_eq!(printable(&long).len(), 403);
}
