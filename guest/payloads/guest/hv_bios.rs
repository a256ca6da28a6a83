// SPDX-License-Identifier: MIT
//! The BIOS device: every index, in the firmware's order (msvm-machine section 4).
//!
//! Always true: what is read was preset with something else, so an answer that does not come is seen.

use guest_rt::report::{check, equal, info};
use guest_rt::{memory, port};

const INDEX: u16 = 0x28;
const DATA: u16 = 0x2C;

/// Free RAM of this module: descriptor, name, data, log.
const DESCRIPTOR: u64 = 0x88_6000;
const NAME: u64 = 0x88_7000;
const VALUE: u64 = 0x88_8000;
const LOG: u64 = 0x88_9000;

/// EFI_GLOBAL_VARIABLE.
const GLOBAL: [u64; 2] = [0x11D2_93CA_8BE4_DF61, 0x8C2B_0398_E000_0DAA];
/// This payload's namespace.
const OURS: [u64; 2] = [0x4862_7650_726F_6265, 0x0123_4567_89AB_CDEF];
/// MEMORY_OVERWRITE_CONTROL.
const OVERWRITE: [u64; 2] = [0x41BE_32D4_E209_39BE, 0x2998_D485_7F89_50A1];
const USUAL: u32 = 7;
const DEVICE_ERROR: u64 = 7;
const TOO_SMALL: u64 = 5;
const WRITE_PROTECTED: u64 = 8;
const NOT_FOUND: u64 = 14;
const INVALID: u64 = 2;

fn write(index: u32, value: u32) {
    port::write_u32(INDEX, index);
    port::write_u32(DATA, value);
}

fn read(index: u32) -> u32 {
    port::write_u32(INDEX, index);
    port::read_u32(DATA)
}

/// A variable's buffer and descriptor, as the firmware fills them; the status that comes back.
struct Call<'n> {
    name: &'n str,
    vendor: [u64; 2],
    attributes: u32,
    room: u32,
}

impl Call<'_> {
    fn run(&self, command: u32) -> u64 {
        let mut name_bytes = 0;
        for unit in self.name.encode_utf16().chain([0]) {
            memory::write_u16(NAME + name_bytes, unit);
            name_bytes += 2;
        }
        (0..8).for_each(|i| memory::write_u64(DESCRIPTOR + i * 8, 0));
        memory::write_u32(DESCRIPTOR + 12, self.attributes);
        put_u64(DESCRIPTOR + 16, NAME);
        // Enumeration gives its whole buffer.
        let room = if command == 2 || command == 3 {
            2048
        } else {
            name_bytes as u32
        };
        memory::write_u32(DESCRIPTOR + 24, room);
        put_u64(DESCRIPTOR + 28, self.vendor[0]);
        put_u64(DESCRIPTOR + 36, self.vendor[1]);
        put_u64(DESCRIPTOR + 44, VALUE);
        memory::write_u32(DESCRIPTOR + 52, self.room);
        send(command)
    }
}

/// Descriptors are packed: eight bytes at a multiple of four.
fn put_u64(gpa: u64, value: u64) {
    memory::write_u32(gpa, value as u32);
    memory::write_u32(gpa + 4, (value >> 32) as u32);
}

fn get_u64(gpa: u64) -> u64 {
    u64::from(memory::read_u32(gpa)) | u64::from(memory::read_u32(gpa + 4)) << 32
}

fn send(command: u32) -> u64 {
    memory::write_u32(DESCRIPTOR, command);
    put_u64(DESCRIPTOR + 4, DEVICE_ERROR);
    write(0x24, DESCRIPTOR as u32);
    get_u64(DESCRIPTOR + 4)
}

/// The first byte of the variable that was got last.
pub(crate) fn variable_byte() -> u8 {
    memory::read_u8(VALUE)
}

/// SetVariable with a name and data that are in memory.
pub(crate) fn set_from(name: (u64, u32), vendor: [u64; 2], attributes: u32, data: (u64, u32)) -> u64 {
    memory::write_u32(DESCRIPTOR + 12, attributes);
    put_u64(DESCRIPTOR + 16, name.0);
    memory::write_u32(DESCRIPTOR + 24, name.1);
    put_u64(DESCRIPTOR + 28, vendor[0]);
    put_u64(DESCRIPTOR + 36, vendor[1]);
    put_u64(DESCRIPTOR + 44, data.0);
    memory::write_u32(DESCRIPTOR + 52, data.1);
    send(1)
}

pub(crate) fn get(name: &str, vendor: [u64; 2], room: u32) -> u64 {
    let call = Call {
        name,
        vendor,
        attributes: 0,
        room,
    };
    call.run(0)
}

fn set(name: &str, vendor: [u64; 2], attributes: u32, len: u32) -> u64 {
    let call = Call {
        name,
        vendor,
        attributes,
        room: len,
    };
    call.run(1)
}

/// What PEI does: the log's place, the watchdog, the end of early boot.
pub(crate) fn check_early() {
    write_log();
    write(0x2B, LOG as u32);
    write(0x1A, 39);
    let resolution = read(0x28);
    let watchdog = resolution != 0 && resolution != u32::MAX;
    check("watchdog-resolution", watchdog, format_args!("{resolution}"));
    write(0x27, 0x13);
    equal("watchdog-config", (read(0x27) & 0x13).into(), 0x13);
    let count = read(0x29);
    check("watchdog-counts", count > 1, format_args!("{count}"));
    write(0x29, 1000);
    equal("watchdog-count", read(0x29).into(), 1000);
    write(0x27, 0);
    equal("watchdog-stops", (read(0x27) & 3).into(), 0);
}

/// What DXE and BDS ask of the variables.
pub(crate) fn check_variables() {
    equal("nvram-secure-boot", get("SecureBoot", GLOBAL, 1), 0);
    equal(
        "nvram-secure-boot-bytes",
        memory::read_u32(DESCRIPTOR + 52).into(),
        1,
    );
    equal("nvram-missing", get("MTC", GLOBAL, 16), NOT_FOUND);
    let con_out = get("ConOut", GLOBAL, 256);
    info("con-out", format_args!("{con_out}"));
    if con_out == 0 {
        equal(
            "nvram-con-out-bytes",
            memory::read_u32(DESCRIPTOR + 52).into(),
            55,
        );
        equal(
            "nvram-con-out-attributes",
            memory::read_u32(DESCRIPTOR + 12).into(),
            7,
        );
        equal("nvram-con-out-path", get_u64(VALUE), 0x0501_41D0_000C_0102);
        equal("nvram-con-out-short", get("ConOut", GLOBAL, 54), TOO_SMALL);
        equal(
            "nvram-con-out-needs",
            memory::read_u32(DESCRIPTOR + 52).into(),
            55,
        );
    }
    write_read_delete();
    enumerate();
    equal(
        "nvram-read-only",
        set("SecureBoot", GLOBAL, 6, 1),
        WRITE_PROTECTED,
    );
    equal("nvram-volatile", set("Volatile", OURS, 6, 1), INVALID);
    query();
    count_boots();
}

fn write_read_delete() {
    memory::write_u32(VALUE, 0x1234_5678);
    equal("nvram-set", set("Boot0000", OURS, USUAL, 4), 0);
    memory::write_u32(VALUE, 0x9ABC_DEF0);
    equal("nvram-append", set("Boot0000", OURS, USUAL | 0x40, 4), 0);
    put_u64(VALUE, 0);
    equal("nvram-get", get("Boot0000", OURS, 64), 0);
    equal("nvram-data", get_u64(VALUE), 0x9ABC_DEF0_1234_5678);
    equal("nvram-other-attributes", set("Boot0000", OURS, 3, 4), INVALID);
    equal("nvram-delete", set("Boot0000", OURS, USUAL, 0), 0);
    equal("nvram-deleted", get("Boot0000", OURS, 64), NOT_FOUND);
    equal("nvram-delete-missing", set("Boot0000", OURS, USUAL, 0), NOT_FOUND);
}

/// All names, each once; two of ours among them, and one that is deleted on the way.
fn enumerate() {
    for text in ["A", "B", "C"] {
        equal("nvram-set-name", set(text, OURS, USUAL, 4), 0);
    }
    let first = Call {
        name: "",
        vendor: [0; 2],
        attributes: 0,
        room: 0,
    };
    let mut status = first.run(2);
    let (mut names, mut ours) = (0, 0);
    while status == 0 && names < 1000 {
        names += 1;
        let vendor = [get_u64(DESCRIPTOR + 28), get_u64(DESCRIPTOR + 36)];
        if vendor == OURS && memory::read_u32(NAME) & 0xFFFF_FFFC == 0x40 {
            ours += 1;
        }
        // Name and vendor stand where the next call wants them.
        memory::write_u32(DESCRIPTOR + 24, 2048);
        status = send(3);
    }
    equal("nvram-names-end", status, NOT_FOUND);
    equal("nvram-names-of-ours", ours, 3);
    info("nvram-names", format_args!("{names}"));
    equal("nvram-delete-b", set("B", OURS, USUAL, 0), 0);
    let gone = Call {
        name: "B",
        vendor: OURS,
        attributes: 0,
        room: 0,
    };
    equal("nvram-name-behind-deleted", gone.run(3), 0);
    equal("nvram-name-is-c", memory::read_u32(NAME).into(), 0x43);
    for text in ["A", "C"] {
        equal("nvram-delete-name", set(text, OURS, USUAL, 0), 0);
    }
}

fn query() {
    (0..8).for_each(|i| memory::write_u64(DESCRIPTOR + i * 8, 0));
    memory::write_u32(DESCRIPTOR + 12, USUAL);
    equal("nvram-query", send(4), 0);
    let [most, left, one] = [16, 24, 32].map(|at| get_u64(DESCRIPTOR + at));
    let sound = most >= left && left > 0x8000 && one >= 0x8000;
    check("nvram-sizes", sound, format_args!("{most:#x} {left:#x} {one:#x}"));
}

/// Boots that this VM's variables have seen: what was written is there after a reset.
fn count_boots() {
    memory::write_u32(VALUE, 0);
    let status = get("Starts", OURS, 4);
    let boots = if status == 0 { memory::read_u32(VALUE) } else { 0 };
    info("boots-before", format_args!("{boots}"));
    memory::write_u32(VALUE, boots + 1);
    equal("nvram-count-boot", set("Starts", OURS, USUAL, 4), 0);
}

/// What AcpiPlatform and the random number library do.
pub(crate) fn check_platform() {
    (0..4).for_each(|i| memory::write_u32(VALUE + i * 4, 0));
    write(0x0E, VALUE as u32);
    write(0x0F, 0);
    let id = [get_u64(VALUE), get_u64(VALUE + 8)];
    check("generation-id", id != [0, 0], format_args!(""));
    equal("nfit-size", read(0x37).into(), 0);
    equal("unknown-index", read(0x7777).into(), u32::MAX.into());
    random();
    write(0x31, 1);
    equal("memory-overwrite-stored", read(0x31).into(), 0);
    equal(
        "memory-overwrite",
        get("MemoryOverwriteRequestControl", OVERWRITE, 1),
        0,
    );
    equal("memory-overwrite-value", memory::read_u8(VALUE).into(), 1);
}

fn random() {
    let draw = || {
        memory::write_u32(DESCRIPTOR, 5);
        put_u64(DESCRIPTOR + 4, DEVICE_ERROR);
        put_u64(DESCRIPTOR + 12, VALUE);
        memory::write_u32(DESCRIPTOR + 20, 16);
        put_u64(VALUE, 0);
        put_u64(VALUE + 16, 0);
        write(0x26, DESCRIPTOR as u32);
        (get_u64(DESCRIPTOR + 4), get_u64(VALUE), get_u64(VALUE + 16))
    };
    let (first, second) = (draw(), draw());
    equal("random-status", first.0, 0);
    check("random-differs", first.1 != second.1, format_args!(""));
    equal("random-bytes-asked-for", first.2, 0);
}

/// The end of boot services: events, log, run time.
pub(crate) fn check_end() {
    write_events();
    write(0x30, VALUE as u32);
    write(0x2C, 0);
    (0..8).for_each(|i| memory::write_u64(DESCRIPTOR + i * 8, 0));
    equal("nvram-boot-only", set("StartOnly", OURS, 3, 4), 0);
    equal("nvram-runtime", send(5), 0);
    equal("nvram-hidden-at-runtime", get("StartOnly", OURS, 4), NOT_FOUND);
    equal("nvram-refused-at-runtime", set("StartOnly", OURS, 3, 4), INVALID);
    equal("nvram-visible-at-runtime", get("Starts", OURS, 4), 0);
}

fn put_bytes(gpa: u64, bytes: &[u8]) {
    (gpa..)
        .zip(bytes)
        .for_each(|(gpa, &byte)| memory::write_u8(gpa, byte));
}

/// An advanced logger's buffer with an error and something else.
fn write_log() {
    let mut behind = 80;
    for (level, text) in [
        (0x8000_0000_u32, "hv_probe logs an error\n"),
        (0x40, "hv_probe logs something\n"),
    ] {
        let entry = LOG + behind;
        put_bytes(entry, b"ALM2\x02\x00");
        put_bytes(entry + 6, &level.to_le_bytes());
        put_bytes(entry + 10, &[0; 10]);
        put_bytes(entry + 20, &(text.len() as u16).to_le_bytes());
        put_bytes(entry + 22, &24_u16.to_le_bytes());
        put_bytes(entry + 24, text.as_bytes());
        behind += (24 + text.len() as u64).next_multiple_of(8);
    }
    put_bytes(LOG, b"ALOG\x05\x00");
    memory::write_u32(LOG + 12, 80);
    memory::write_u32(LOG + 20, behind as u32);
    memory::write_u32(LOG + 28, 0x800);
}

/// A channel with the event that Boot0007 had no loader.
fn write_events() {
    const BOOT_CHANNEL: [u64; 2] = [0x4406_360D_8CC6_713B, 0x91CA_DFCF_B0F6_6892];
    (0..32).for_each(|i| memory::write_u32(VALUE + i * 4, 0));
    put_u64(VALUE, BOOT_CHANNEL[0]);
    put_u64(VALUE + 8, BOOT_CHANNEL[1]);
    memory::write_u32(VALUE + 16, 1);
    memory::write_u32(VALUE + 24, 64 + 24);
    let event = VALUE + 28;
    memory::write_u32(event + 48, 1);
    memory::write_u32(event + 56, 64);
    memory::write_u32(event + 60, 24);
    memory::write_u32(event + 64, 0x1_0001);
    memory::write_u32(event + 80, 7);
}
