// SPDX-License-Identifier: MIT
//! Disks behind the root complexes of the blob, as the firmware finds them: ECAM of the MCFG, an aperture for each
//! bridge, BARs as the host has placed them or, with flag 31 clear, without addresses (msvm-machine section 8).
//!
//! Always true: a block of each disk is written, read back, and left so; without root complexes nothing is touched.
//! Not here: disks on VMBus (`hv_scsi`).

use crate::nvme::Controller;
use crate::virtio_blk::{Disk, IOERR, OK, UNSUPP};
use crate::virtio_pci::Function;
use guest_rt::acpi::{u16_at, u64_at};
use guest_rt::report::{check, equal, info};
use guest_rt::uefi_blob::{Aperture, Blob, apertures, types};
use guest_rt::{memory, paging};

/// The block that is written, counted in sectors, and how much of it.
pub(crate) const BLOCK: u32 = 8;
pub(crate) const LEN: u32 = 4096;

/// Offset of the first BAR in configuration space.
const BAR: u64 = 0x10;
/// What the blob sets when BARs have addresses.
const BARS_PLACED: u64 = 1 << 31;

const DATA: u64 = 0xA0_0000;
const BACK: u64 = 0xA1_0000;
const NVME_QUEUES: u64 = 0xA2_0000;
/// Vendor and device: virtio-blk, and the NVMe controller.
const VIRTIO_BLK: u32 = 0x1042_1AF4;
const NVME: u32 = 0x0010_1B36;
/// Class, subclass and interface by which drivers bind.
const NVME_CLASS: u64 = 0x01_0802;

/// Puts the pattern into one buffer and zeros into the other.
pub(crate) fn fill(data: u64, back: u64) {
    for at in (0..u64::from(LEN)).step_by(8) {
        memory::write_u64(data + at, pattern(at));
        memory::write_u64(back + at, 0);
    }
}

/// Checks that the pattern has come to `back`.
pub(crate) fn check_back(name: &str, back: u64) {
    let wrong = (0..u64::from(LEN))
        .step_by(8)
        .find(|&at| memory::read_u64(back + at) != pattern(at));
    check(name, wrong.is_none(), format_args!("first difference {wrong:x?}"));
}

fn pattern(at: u64) -> u64 {
    u64::from_le_bytes(*b"hv_probe") ^ at << 32
}

/// Every root complex of the blob.
pub(crate) fn check_disks(blob: &Blob<'_>) {
    let Some(table) = blob.tables().find(|table| table.signature() == b"MCFG") else {
        info("root-complexes", format_args!("none"));
        equal(
            "no-aperture",
            blob.find(types::APERTURES).map_or(0, |a| a.len() as u64),
            0,
        );
        return;
    };
    let windows = blob.find(types::APERTURES).unwrap_or(&[]);
    let placed = blob.flags() & BARS_PLACED != 0;
    for entry in table.bytes()[44..].chunks_exact(16) {
        let (base, segment, first, last) = (
            u64_at(entry, 0).unwrap_or(0),
            u16_at(entry, 8).unwrap_or(0),
            entry[10],
            entry[11],
        );
        let aperture =
            apertures(windows).find(|a| (a.segment, a.first_bus, a.last_bus) == (segment, first, last));
        check(
            "aperture-of-bridge",
            aperture.is_some(),
            format_args!("segment {segment} buses {first} to {last}"),
        );
        let Some(mut aperture) = aperture else { continue };
        let ecam = base + (u64::from(first) << 20);
        if let Some(function) = Function::find(ecam, VIRTIO_BLK) {
            check_virtio(&function, (placed, &mut aperture));
        }
        if let Some(function) = Function::find(ecam, NVME) {
            check_nvme(&function, (placed, &mut aperture));
        }
    }
}

/// What the firmware does to BAR 0: finds its size, restores it or places it, turns the function on.
fn open(name: &str, function: &Function, (placed, aperture): (bool, &mut Aperture)) -> u64 {
    const COMMAND: u64 = 4;
    const BARS: u64 = 6;
    /// I/O, memory, bus master, parity and system errors, as the firmware sets it.
    const ON: u32 = 0x27;
    let on = function.read(COMMAND) & 7;
    function.write(COMMAND, 0);
    let before = function.read(BAR);
    let wide = before & 6 == 4;
    function.write(BAR, u32::MAX);
    let size = u64::from(!(function.read(BAR) & !0xF)) + 1;
    function.write(BAR, before);
    let mut window = if wide { aperture.high } else { aperture.low };
    let inside = window;
    if placed {
        check(
            "bars-are-placed",
            address(function, wide) != 0,
            format_args!("{before:#x}"),
        );
    } else {
        let empty = (0..BARS).all(|bar| function.read(BAR + bar * 4) & !0xF == 0);
        check(
            "bars-are-not-placed",
            empty && on == 0,
            format_args!("{before:#x}"),
        );
        let bar = take(&mut window, size);
        function.write(BAR, bar as u32);
        if wide {
            function.write(BAR + 4, (bar >> 32) as u32);
        }
    }
    *(if wide {
        &mut aperture.high
    } else {
        &mut aperture.low
    }) = window;
    function.write(COMMAND, ON);
    let bar = address(function, wide);
    let fits = bar >= inside.0 && bar + size <= inside.0 + inside.1;
    let right = fits && bar % size == 0 && map(bar);
    check(name, right, format_args!("{bar:#x} size {size:#x}"));
    bar
}

fn address(function: &Function, wide: bool) -> u64 {
    let above = if wide { function.read(BAR + 4) } else { 0 };
    u64::from(function.read(BAR) & !0xF) | u64::from(above) << 32
}

/// The last `size` bytes of a window, a power of two: not where the host would begin. 0 when there is no room.
fn take((gpa, len): &mut (u64, u64), size: u64) -> u64 {
    let place = (*gpa + *len).saturating_sub(size) & !(size - 1);
    if place < *gpa {
        return 0;
    }
    *len = place - *gpa;
    place
}

/// Makes an address above 4 GiB reachable, one to one and uncached; the runtime's tables end there.
fn map(gpa: u64) -> bool {
    const DIRECTORY: u64 = 0xA3_0000;
    const TABLE: u64 = 0x000F_FFFF_FFFF_F000;
    const UNCACHED_LEAF: u64 = 0x9B;
    if gpa >> 32 == 0 {
        return true;
    }
    (0..512).for_each(|entry| memory::write_u64(DIRECTORY + entry * 8, 0));
    let leaf = gpa & !0x1F_FFFF;
    memory::write_u64(DIRECTORY + (gpa >> 21 & 511) * 8, leaf | UNCACHED_LEAF);
    let pointers = memory::read_u64(paging::root()) & TABLE;
    memory::write_u64(pointers + (gpa >> 30 & 511) * 8, DIRECTORY | 3);
    paging::translate(paging::root(), gpa) == Some(gpa)
}

fn check_virtio(function: &Function, place: (bool, &mut Aperture)) {
    info("virtio-blk", format_args!("device {}", function.device()));
    let bar = open("virtio-blk-bar", function, place);
    equal("virtio-blk-revision", u64::from(function.read(8)) & 0xFF, 1);
    let subsystem = function.read(0x2C) >> 16;
    check(
        "virtio-blk-subsystem",
        subsystem >= 0x40,
        format_args!("{subsystem:#x}"),
    );
    let Some(mut disk) = Disk::start(function, bar) else {
        check("virtio-blk-driver", false, format_args!("it takes no driver"));
        return;
    };
    let sectors = disk.sectors();
    fill(DATA, BACK);
    equal(
        "virtio-blk-write",
        disk.write(BLOCK.into(), DATA, LEN).into(),
        OK.into(),
    );
    equal("virtio-blk-flush", disk.flush().into(), OK.into());
    equal(
        "virtio-blk-read",
        disk.poll_read(BLOCK.into(), BACK, LEN).into(),
        OK.into(),
    );
    check_back("virtio-blk-compare", BACK);
    equal(
        "virtio-blk-past-end",
        disk.read(sectors, BACK, 512).into(),
        IOERR.into(),
    );
    equal(
        "virtio-blk-unknown",
        disk.request(77, 0, DATA, 0, false).into(),
        UNSUPP.into(),
    );
}

fn check_nvme(function: &Function, place: (bool, &mut Aperture)) {
    info("nvme", format_args!("device {}", function.device()));
    equal("nvme-class", (function.read(8) >> 8).into(), NVME_CLASS);
    let bar = open("nvme-bar", function, place);
    let Some(mut disk) = Controller::start(bar, NVME_QUEUES, false) else {
        check("nvme-driver", false, format_args!("it takes no driver"));
        return;
    };
    check(
        "nvme-namespace",
        disk.blocks() > 16,
        format_args!("{} blocks", disk.blocks()),
    );
    fill(DATA, BACK);
    equal("nvme-write", disk.write(BLOCK, DATA, LEN), 0);
    equal("nvme-flush", disk.flush(), 0);
    equal("nvme-read", disk.read(BLOCK, BACK, LEN), 0);
    check_back("nvme-compare", BACK);
    let past = disk.read(u32::MAX, BACK, 512);
    // LBA out of range.
    equal("nvme-past-end", past & 0x7FF, 0x80);
    check("nvme-stops", disk.stop(), format_args!(""));
}
