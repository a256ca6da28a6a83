// SPDX-License-Identifier: MIT
//! Identify data (section 5.15).

use crate::prp::MOST_PAGES_SHIFT;
use block::{Disk, SECTOR};
use guest_memory::DmaMemory;

use crate::command::{Command, Outcome, Status};
use crate::prp;
use std::sync::Arc;

/// Bytes of each structure.
const LEN: usize = 4096;
pub(crate) const VERSION: u32 = 0x0001_0400;
/// Vendor that PCI configuration space and identify name: QEMU's and everybody's for virtual devices.
pub(crate) const VENDOR: u16 = 0x1B36;
/// Events that may be asked for at a time.
pub(crate) const MOST_EVENTS: u8 = 4;

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Text padded with spaces.
fn put_text(bytes: &mut [u8], at: usize, len: usize, text: &str) {
    bytes[at..at + len].fill(b' ');
    let len = text.len().min(len);
    put(bytes, at, &text.as_bytes()[..len]);
}

fn controller(serial: &str, namespaces: usize) -> Vec<u8> {
    let mut bytes = vec![0; LEN];
    put(&mut bytes, 0, &VENDOR.to_le_bytes());
    put(&mut bytes, 2, &VENDOR.to_le_bytes());
    put_text(&mut bytes, 4, 20, serial);
    put_text(&mut bytes, 24, 40, "openvmm nvme");
    put_text(&mut bytes, 64, 8, env!("CARGO_PKG_VERSION"));
    bytes[77] = MOST_PAGES_SHIFT;
    put(&mut bytes, 80, &VERSION.to_le_bytes());
    // Aborts and events at a time, less one; one firmware slot that cannot be written.
    bytes[258] = 3;
    bytes[259] = MOST_EVENTS - 1;
    bytes[260] = 3;
    // Queue entry sizes, least and most.
    bytes[512] = 0x66;
    bytes[513] = 0x44;
    put(&mut bytes, 516, &(namespaces as u32).to_le_bytes());
    // Dataset management and write zeroes; a volatile write cache.
    put(&mut bytes, 520, &0x000C_u16.to_le_bytes());
    bytes[525] = 1;
    let name = format!("nqn.2026-01.invalid.openvmm:nvme:{serial}");
    put(&mut bytes, 768, name.as_bytes());
    // Power state 0: 10 W in hundredths.
    put(&mut bytes, 2048, &1000_u16.to_le_bytes());
    bytes
}

fn namespace(disk: &Disk) -> Vec<u8> {
    let mut bytes = vec![0; LEN];
    let blocks = disk.size() / SECTOR;
    for at in [0, 8, 16] {
        put(&mut bytes, at, &blocks.to_le_bytes());
    }
    // Bit 0: write protected (section 5.15.2.1, NSATTR).
    bytes[99] = u8::from(disk.read_only());
    // The only format: 512 bytes.
    put(&mut bytes, 128, &((SECTOR.trailing_zeros()) << 16).to_le_bytes());
    bytes
}

/// The namespace's UUID: one that its name and number give (RFC 9562 version 8).
fn descriptors(serial: &str, number: u32) -> Vec<u8> {
    let hash = |seed: u64| {
        let bytes = serial.bytes().chain(number.to_le_bytes());
        bytes.fold(seed, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
        })
    };
    let mut uuid = [0; 16];
    uuid[..8].copy_from_slice(&hash(0xCBF2_9CE4_8422_2325).to_le_bytes());
    uuid[8..].copy_from_slice(&hash(0x8422_2325_CBF2_9CE4).to_le_bytes());
    uuid[6] = uuid[6] & 0x0F | 0x80;
    uuid[8] = uuid[8] & 0x3F | 0x80;
    let mut bytes = vec![0; LEN];
    put(&mut bytes, 0, &[3, 16, 0, 0]);
    put(&mut bytes, 4, &uuid);
    bytes
}

/// Carries out Identify.
pub(crate) fn identify(ram: &DmaMemory, command: &Command, serial: &str, disks: &[Arc<Disk>]) -> Outcome {
    let number = command.namespace();
    let disk = (number as usize)
        .checked_sub(1)
        .and_then(|index| disks.get(index))
        .ok_or(Status::INVALID_NAMESPACE);
    let bytes = match command.dword(10) & 0xFF {
        // A namespace that there could be, but is not, is all zeros.
        0 => disk.map(|disk| namespace(disk))?,
        1 => controller(serial, disks.len()),
        2 if number >= 0xFFFF_FFFE => return Err(Status::INVALID_NAMESPACE),
        2 => {
            let after = (1..=disks.len() as u32).filter(|&n| n > number);
            let mut bytes: Vec<u8> = after.take(LEN / 4).flat_map(u32::to_le_bytes).collect();
            bytes.resize(LEN, 0);
            bytes
        }
        3 => disk.map(|_| descriptors(serial, number))?,
        _ => return Err(Status::INVALID_FIELD),
    };
    prp::give(ram, command, &bytes, LEN as u64)?;
    Ok(0)
}
