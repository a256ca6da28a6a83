// SPDX-License-Identifier: MIT
//! Every device of the OVMF machine, by a guest without firmware: PCI bridges, PM block, timers, interrupt
//! controllers, CMOS, serial port, fw_cfg, flash, virtio devices, NVMe, reset and power off.
//!
//! Always true: it boots twice. The first boot runs the cases, spoils a page of the image and RAM, and
//! resets the machine; the second one checks that everything is as imported, and powers off. `devices=A,B`
//! on the command line says which devices beyond the machine's own there must be. Not here: other
//! machines (`test_suite`).
#![no_std]
#![no_main]

mod cases;
mod cases_firmware;
mod cases_interrupts;
mod cases_nvme;
mod cases_pci;
mod cases_ports;
mod cases_q35;
mod cases_time;
mod cases_virtio;
mod nvme;
mod q35;
mod virtio_blk;
mod virtio_driver;
mod virtio_pci;

use cases::{Case, Outcome, expect};
use core::sync::atomic::{AtomicU64, Ordering};
use guest_rt::entry::Entry;
use guest_rt::power::End;
use guest_rt::protocol::control::argument;
use guest_rt::protocol::flat::{DEVICES_ARGUMENT, FREE_END};
use guest_rt::protocol::ports::{BOOT_MARK, CMOS_BOOT_MARK};
use guest_rt::report::{self, check, equal, start};
use guest_rt::time::Deadline;
use guest_rt::{cmos, memory, port};

guest_rt::entry!(main);

/// The cases of the machine's own devices.
const MACHINE: [&[Case]; 5] = [
    cases_pci::CASES,
    cases_ports::CASES,
    cases_time::CASES,
    cases_interrupts::CASES,
    cases_q35::CASES,
];

/// A word of the image that the first boot changes.
static IMPORTED: AtomicU64 = AtomicU64::new(ORIGINAL);
const ORIGINAL: u64 = 0x1611_6D61_6765_2121;
const SPOILED: u64 = 0xDEAD_DEAD_DEAD_DEAD;
/// A word of RAM that nothing is imported to and no case uses.
const RAM_WORD: u64 = FREE_END - 8;

fn main(entry: &Entry) -> End {
    let command_line = match entry.saved.gpr[6] {
        0 => &[],
        gpa => memory::c_string(gpa, 4096),
    };
    let command_line = core::str::from_utf8(command_line).unwrap_or("");
    let devices = argument(command_line, DEVICES_ARGUMENT).unwrap_or("");
    start("machine_suite");
    if cmos::read(CMOS_BOOT_MARK) == BOOT_MARK {
        second_boot(devices);
        return End::PowerOff;
    }
    q35::set_up();
    let mut groups = [&[][..]; MACHINE.len() + DEVICES.len()];
    groups[..MACHINE.len()].copy_from_slice(&MACHINE);
    for (group, (name, cases)) in groups[MACHINE.len()..].iter_mut().zip(DEVICES) {
        if has(devices, name) {
            *group = cases;
        }
    }
    let known = devices
        .split(',')
        .all(|name| DEVICES.iter().any(|(known, _)| *known == name));
    check("devices", known, format_args!("{devices}"));
    cases::run(&groups, command_line);
    if report::failed() != 0 {
        return End::TestExit;
    }
    report::done();
    spoil_and_reset()
}

/// Names on the command line, and the cases of each device.
const DEVICES: [(&str, &[Case]); 8] = [
    ("fw_cfg", cases_firmware::FW_CFG),
    ("flash", cases_firmware::FLASH),
    ("blk", cases_virtio::BLK),
    ("nvme", cases_nvme::CASES),
    ("rng", cases_virtio::RNG),
    ("console", cases_virtio::CONSOLE),
    ("vsock", cases_virtio::VSOCK),
    ("net", cases_virtio::NET),
];

fn has(devices: &str, name: &str) -> bool {
    devices.split(',').any(|device| device == name)
}

fn spoil_and_reset() -> ! {
    IMPORTED.store(SPOILED, Ordering::SeqCst);
    memory::write_u64(RAM_WORD, SPOILED);
    cmos::write(CMOS_BOOT_MARK, BOOT_MARK);
    port::write_u8(q35::RESET_CONTROL, 6);
    Deadline::in_ms(200).wait(|| false);
    report::line(format_args!("panic: port 0xcf9 did nothing"));
    guest_rt::power::test_exit(report::failed() + 1)
}

/// What a reset restores: the imported pages, the rest of RAM, the devices; and what it keeps.
fn second_boot(devices: &str) {
    cmos::write(CMOS_BOOT_MARK, 0);
    equal("imported-page", IMPORTED.load(Ordering::SeqCst), ORIGINAL);
    equal("ram", memory::read_u64(RAM_WORD), 0);
    equal("pciexbar", q35::read(0, 0x60).into(), 0);
    equal("pmbase", q35::read(31, 0x40).into(), 1);
    q35::set_up();
    if has(devices, "flash") {
        equal(
            "flash",
            memory::read_u8(cases_firmware::FLASH_KEPT).into(),
            cases_firmware::KEPT.into(),
        );
    }
}
