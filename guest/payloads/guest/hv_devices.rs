// SPDX-License-Identifier: MIT
//! A firmware in the MSVM.fd shape that drives the devices which a Hyper-V generation 2 machine has only when
//! it is asked for them: watchdogs, battery, TPM. Which there are it reads from the flags of its configuration blob.
//!
//! Always true: each device does what it is for, seen from the guest: a watchdog resets the machine, so this
//! payload starts again, and CMOS keeps how far it had come. Not here: what every machine has (`hv_probe`).
#![no_std]
#![no_main]

mod hv_battery;
mod hv_tpm;
mod hv_watchdog;

use guest_rt::entry::Entry;
use guest_rt::power::End;
use guest_rt::report::{check, start};
use guest_rt::uefi_blob::{Blob, declared_size};
use guest_rt::{cmos, lapic, memory};

guest_rt::entry!(main);

/// Where the blob is (uefi-launch 3.1).
const BLOB: u64 = 0x70_9000;
/// Flags of the blob (uefi-launch 3.4).
const TPM: u64 = 1 << 5;
const BATTERY: u64 = 1 << 10;
const GUEST_WATCHDOG: u64 = 1 << 24;
/// The pages of memory that devices are given.
const BUFFER: u64 = 0x80_6000;

/// CMOS byte that counts the parts that are over; CMOS has a battery of its own.
const PROGRESS: u8 = 0x52;
/// First CMOS byte of the generation id's first half.
const GENERATION_ID: u8 = 0x53;

fn main(_entry: &Entry) -> End {
    start("hv_devices");
    lapic::enable();
    let flags = flags();
    let (low, high) = hv_watchdog::generation_id(BUFFER);
    check(
        "generation-id",
        low != 0 || high != 0,
        format_args!("{low:#x} {high:#x}"),
    );
    if flags & TPM != 0 {
        hv_tpm::check_all(BUFFER);
    }
    let progress = cmos::read(PROGRESS);
    if progress == 0 {
        (GENERATION_ID..)
            .zip(low.to_le_bytes())
            .for_each(|(at, byte)| cmos::write(at, byte));
        cmos::write(PROGRESS, 1);
        hv_watchdog::FIRMWARE.starve(1);
    }
    let before = [0, 1, 2, 3, 4, 5, 6, 7].map(|i| cmos::read(GENERATION_ID + i));
    check(
        "generation-id-outlives-a-reset",
        before == low.to_le_bytes(),
        format_args!(""),
    );
    if progress == 1 {
        hv_watchdog::FIRMWARE.check_bite("firmware-watchdog");
        cmos::write(PROGRESS, 2);
        if flags & GUEST_WATCHDOG != 0 {
            hv_watchdog::GUEST.feed();
            hv_watchdog::GUEST.starve(5);
        }
    } else {
        hv_watchdog::GUEST.check_bite("guest-watchdog");
    }
    if flags & BATTERY != 0 {
        hv_battery::check_all();
    }
    End::PowerOff
}

fn flags() -> u64 {
    let size = declared_size(memory::bytes(BLOB, 16)).unwrap_or(0);
    Blob::read(memory::bytes(BLOB, size)).map_or(0, |blob| blob.flags())
}
