// SPDX-License-Identifier: MIT
//! The TPM, as firmware uses it: pages of RAM named through ports, then commands (msvm-machine section 12;
//! TPM 2.0 library specification, part 3).
//!
//! Always true: every command's response is looked at. A machine that has been reset has a fresh TPM: the
//! measurement of the boot before is gone.

use guest_rt::report::{check, equal};
use guest_rt::{cpu, memory, port};

const INDEX: u16 = 0x1040;
const DATA: u16 = 0x1044;
const MAP: u32 = 1;
const ESTABLISHED: u32 = 2;
const PROTOCOL: u32 = 64;
/// Control area behind the locality registers (blob flag 25).
const CONTROL: u64 = 0xFED4_0040;
const STATUS: u64 = CONTROL + 4;
const START: u64 = CONTROL + 0xC;
const COMMAND_SIZE: u64 = CONTROL + 0x18;
const COMMAND: u64 = CONTROL + 0x1C;
const RESPONSE: u64 = CONTROL + 0x28;
/// An address without RAM.
const NO_RAM: u32 = 0xF100_0000;

const STARTUP: [u8; 12] = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0];
const GET_RANDOM: [u8; 12] = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7B, 0, 8];
/// Reads the SHA-256 of register 10.
const PCR_READ: [u8; 20] = [
    0x80, 1, 0, 0, 0, 20, 0, 0, 1, 0x7E, 0, 0, 0, 1, 0, 0xB, 3, 0, 4, 0,
];
/// Where it is in the response.
const DIGEST: u64 = 30;
/// Extends register 10 with a SHA-256, by an empty password; the digest follows.
const PCR_EXTEND: [u8; 33] = [
    0x80, 2, 0, 0, 0, 65, 0, 0, 1, 0x82, 0, 0, 0, 10, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1,
    0, 0xB,
];

fn write(index: u32, value: u32) {
    port::write_u32(INDEX, index);
    port::write_u32(DATA, value);
}

fn read(index: u32) -> u32 {
    port::write_u32(INDEX, index);
    port::read_u32(DATA)
}

/// Runs the command in the first page; its response code.
fn run(buffer: u64) -> u64 {
    memory::write_u64(buffer + 0x1000, u64::MAX);
    memory::write_u64(buffer + 0x1008, u64::MAX);
    memory::write_u32(START, 1);
    // A minute and a half, as firmware waits; swtpm needs milliseconds.
    while memory::read_u32(START) != 0 && memory::read_u32(STATUS) == 0 {
        cpu::relax();
    }
    memory::read_u32(buffer + 0x1006).swap_bytes().into()
}

fn command(buffer: u64, bytes: &[u8]) -> u64 {
    memory::write(buffer, bytes);
    run(buffer)
}

/// Everything, with the two pages of RAM at `buffer`.
pub(crate) fn check_all(buffer: u64) {
    equal("tpm-not-mapped-before", read(ESTABLISHED).into(), 0);
    write(MAP, NO_RAM);
    equal("tpm-maps-ram-only", read(ESTABLISHED).into(), 0);
    write(MAP, buffer as u32);
    check("tpm-mapped", read(ESTABLISHED) != 0, format_args!(""));
    equal("tpm-protocol", read(PROTOCOL).into(), 1);
    equal("tpm-command-size", memory::read_u32(COMMAND_SIZE).into(), 0x1000);
    equal("tpm-command-address", memory::read_u32(COMMAND).into(), buffer);
    equal(
        "tpm-response-address",
        memory::read_u32(RESPONSE).into(),
        buffer + 0x1000,
    );
    equal("tpm-idle", memory::read_u32(START).into(), 0);
    equal("tpm-startup", command(buffer, &STARTUP), 0);
    equal("tpm-random-status", command(buffer, &GET_RANDOM), 0);
    let first = memory::read_u64(buffer + 0x100C);
    equal("tpm-random-again", command(buffer, &GET_RANDOM), 0);
    let second = memory::read_u64(buffer + 0x100C);
    check(
        "tpm-random",
        first != second,
        format_args!("{first:#x} {second:#x}"),
    );
    equal("tpm-pcr-read", command(buffer, &PCR_READ), 0);
    equal("tpm-pcr-is-fresh", memory::read_u64(buffer + 0x1000 + DIGEST), 0);
    memory::write(buffer, &PCR_EXTEND);
    memory::write(buffer + PCR_EXTEND.len() as u64, &[0x5A; 32]);
    equal("tpm-pcr-extend", run(buffer), 0);
    equal("tpm-pcr-read-again", command(buffer, &PCR_READ), 0);
    let digest = memory::read_u64(buffer + 0x1000 + DIGEST);
    check("tpm-pcr-extended", digest != 0, format_args!("{digest:#x}"));
    equal("tpm-status", memory::read_u32(STATUS).into(), 0);
}
