// SPDX-License-Identifier: MIT
//! Drives a virtio block device by itself: PCI through ECAM, BAR, MSI-X, queue, requests.
//!
//! Always true: the disk is overwritten; `ecam=N` on the command line says where configuration space is;
//! `bench=N` adds N random reads of 4 KiB, one at a time, and a sequential read, timed with the APIC timer at
//! 1 GHz. Not here: other devices.
#![no_std]
#![no_main]

mod virtio_blk;
mod virtio_driver;
mod virtio_pci;

use guest_rt::entry::Entry;
use guest_rt::lapic;
use guest_rt::memory;
use guest_rt::power::End;
use guest_rt::protocol::control::argument;
use guest_rt::protocol::flat::{BENCH_ARGUMENT, ECAM_ARGUMENT, FREE_GPA};
use guest_rt::report::{check, done, equal, info, start};
use virtio_blk::{Disk, IOERR, OK, UNSUPP};
use virtio_driver::Driver;
use virtio_pci::Function;

guest_rt::entry!(main);

const DATA: u64 = FREE_GPA + 0x10_0000;
const BACK: u64 = FREE_GPA + 0x20_0000;
/// Bytes of the write that is compared.
const LEN: u32 = 0x1_0000;
const SECTOR: u64 = 512;

fn main(entry: &Entry) -> End {
    start("virtio_probe");
    let command_line = match entry.saved.gpr[6] {
        0 => &[],
        gpa => memory::c_string(gpa, 4096),
    };
    let command_line = core::str::from_utf8(command_line).unwrap_or("");
    let number = |key| argument(command_line, key).and_then(parse);
    match number(ECAM_ARGUMENT) {
        Some(ecam) => probe(ecam, number(BENCH_ARGUMENT).unwrap_or(0)),
        None => check(
            "ecam",
            false,
            format_args!("the command line does not say where it is"),
        ),
    }
    done();
    End::TestExit
}

/// A hexadecimal number with 0x, or a decimal one.
fn parse(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn probe(ecam: u64, reads: u64) {
    let Some(function) = Function::find(ecam, 0x1042_1AF4) else {
        check(
            "function",
            false,
            format_args!("no virtio block device on the first bus"),
        );
        return;
    };
    info("function", format_args!("device {}", function.device()));
    equal("revision", function.read(8) as u64 & 0xFF, 1);
    let (bar, size) = function.bar();
    check(
        "bar",
        bar != 0 && bar % size == 0,
        format_args!("{bar:#x} size {size:#x}"),
    );
    let Some(mut disk) = Disk::start(&function, bar) else {
        check(
            "driver",
            false,
            format_args!("the device did not take its driver"),
        );
        return;
    };
    let sectors = disk.sectors();
    check(
        "capacity",
        sectors * SECTOR >= 4 * u64::from(LEN),
        format_args!("{sectors:#x} sectors"),
    );
    write_and_read_back(&mut disk);
    refusals(&mut disk, sectors);
    if reads > 0 {
        bench(&mut disk, sectors, reads);
    }
}

fn write_and_read_back(disk: &mut Disk) {
    for at in (0..u64::from(LEN)).step_by(8) {
        memory::write_u64(DATA + at, pattern(at));
        memory::write_u64(BACK + at, 0);
    }
    let before = Driver::interrupts();
    equal("write", disk.write(16, DATA, LEN).into(), OK.into());
    equal("flush", disk.flush().into(), OK.into());
    equal("read", disk.read(16, BACK, LEN).into(), OK.into());
    let wrong = (0..u64::from(LEN))
        .step_by(8)
        .find(|&at| memory::read_u64(BACK + at) != pattern(at));
    check(
        "compare",
        wrong.is_none(),
        format_args!("first difference {wrong:x?}"),
    );
    let came = Driver::interrupts().wrapping_sub(before);
    check(
        "interrupts",
        (1..=3).contains(&came),
        format_args!("{came} for 3 requests"),
    );
}

fn pattern(at: u64) -> u64 {
    at.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ at
}

fn refusals(disk: &mut Disk, sectors: u64) {
    equal(
        "read-past-end",
        disk.read(sectors, BACK, 512).into(),
        IOERR.into(),
    );
    equal(
        "write-past-end",
        disk.write(u64::MAX / 1024, DATA, 512).into(),
        IOERR.into(),
    );
    equal(
        "read-to-nowhere",
        disk.read(0, 0xFFFF_FFFF_0000, 512).into(),
        IOERR.into(),
    );
    equal(
        "unknown-request",
        disk.request(77, 0, DATA, 0, false).into(),
        UNSUPP.into(),
    );
    equal("read-after-errors", disk.read(0, BACK, 512).into(), OK.into());
}

/// Nanoseconds of `work`, less than four seconds of it.
fn timed(work: impl FnOnce()) -> u64 {
    const VECTOR: u8 = 0x70;
    lapic::start_masked_timer(VECTOR, u32::MAX);
    work();
    let left = lapic::timer_count();
    lapic::stop_timer();
    u64::from(u32::MAX - left)
}

fn bench(disk: &mut Disk, sectors: u64, reads: u64) {
    let blocks = (sectors / 8).max(1);
    let mut state = 0x1234_5678_9ABC_DEF1u64;
    let mut failed = 0;
    let ns = timed(|| {
        for _ in 0..reads {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            failed += u64::from(disk.poll_read(state % blocks * 8, BACK, 4096) != OK);
        }
    });
    equal("bench-reads-failed", failed, 0);
    info("random-read-4k-ns", format_args!("{}", ns / reads));
    let (mut at, mut bytes) = (0, 0);
    let ns = timed(|| {
        while bytes < reads * 4096 {
            failed += u64::from(disk.poll_read(at, BACK, LEN) != OK);
            at = (at + u64::from(LEN) / SECTOR) % (sectors - u64::from(LEN) / SECTOR);
            bytes += u64::from(LEN);
        }
    });
    equal("bench-sequential-failed", failed, 0);
    info(
        "sequential-read-mb-per-s",
        format_args!("{}", bytes * 1000 / ns.max(1)),
    );
}
