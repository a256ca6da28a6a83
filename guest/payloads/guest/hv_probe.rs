// SPDX-License-Identifier: MIT
//! A firmware in the MSVM.fd shape that uses the Hyper-V generation 2 machine in the order in which
//! Microsoft's firmware does, and checks each answer.
//!
//! Always true: every promise is one `probe:` line; what is switched on is switched off again as at the end
//! of boot services, before it powers off. Not here: the entry state and what the blob says (`uefi_probe`).
#![no_std]
#![no_main]

mod hv_bios;
mod hv_disks;
mod hv_hypercalls;
mod hv_interface;
mod hv_keyboard;
mod hv_message;
mod hv_ring;
mod hv_scsi;
mod hv_signed;
mod hv_time;
mod hv_video;
mod hv_vmbus;
mod nvme;
mod virtio_blk;
mod virtio_driver;
mod virtio_pci;

use guest_rt::entry::Entry;
use guest_rt::lapic;
use guest_rt::memory;
use guest_rt::power::End;
use guest_rt::report::{check, info, start};
use guest_rt::uefi_blob::{Blob, declared_size};

guest_rt::entry!(main);

/// The configuration blob: nine pages behind the image.
const BLOB: u64 = 0x70_9000;
/// What the blob sets when there is no VMBus.
const VMBUS_DISABLED: u64 = 1 << 30;

fn main(_entry: &Entry) -> End {
    start("hv_probe");
    let Some(blob) = blob() else {
        return End::PowerOff;
    };
    hv_bios::check_early();
    hv_interface::check_leaves();
    hv_time::check_reference_counter();
    lapic::enable();
    hv_interface::identify();
    hv_hypercalls::check_all();
    hv_interface::enable_pages();
    hv_time::check_direct_timer();
    hv_time::check_message_timer();
    hv_time::check_one_shot();
    hv_time::check_reference_page();
    hv_interface::check_other_registers();
    hv_signed::check_writes();
    hv_bios::check_variables();
    if blob.flags() & VMBUS_DISABLED == 0 {
        hv_vmbus::check_bus(&blob);
    } else {
        hv_vmbus::check_absent();
    }
    hv_bios::check_platform();
    hv_disks::check_disks(&blob);
    hv_bios::check_end();
    hv_interface::tear_down();
    End::PowerOff
}

/// The blob, if the firmware would take it.
fn blob() -> Option<Blob<'static>> {
    let size = declared_size(memory::bytes(BLOB, 16));
    let blob = size.and_then(|size| Blob::read(memory::bytes(BLOB, size)));
    check("blob", blob.is_ok(), format_args!(""));
    let blob = blob.ok()?;
    info("flags", format_args!("{:#x}", blob.flags()));
    Some(blob)
}
