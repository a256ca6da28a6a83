// SPDX-License-Identifier: MIT
//! A disk with a GUID partition table and one EFI system partition (UEFI 2.10 section 5.3, FAT by the
//! crate `fatfs`).
//!
//! Always true: primary and backup table agree; the partition is as large as its files need and a little
//! more. Not here: other partitions, writing to devices.

use anyhow::{Context, Result};
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use std::io::{Cursor, Write};

const SECTOR: usize = 512;
/// First sector of the partition: 1 MiB, as partitioning tools align.
const FIRST: usize = 2048;
/// Sectors of 128 entries of 128 bytes.
const ENTRIES: usize = 32;
/// Least size of a FAT32 file system that every reader takes for one.
const LEAST: usize = 36 << 20;
/// EFI system partition, as stored.
const ESP_TYPE: [u8; 16] = [
    0x28, 0x73, 0x2A, 0xC1, 0x1F, 0xF8, 0xD2, 0x11, 0xBA, 0x4B, 0x00, 0xA0, 0xC9, 0x3E, 0xC9, 0x3B,
];
const DISK_GUID: [u8; 16] = *b"openvmm esp disk";
const PARTITION_GUID: [u8; 16] = *b"openvmm esp part";

/// A disk whose EFI system partition holds `files`: paths with forward slashes, and contents.
pub fn esp_disk(files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let size: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    let size = (size + size / 16 + (4 << 20))
        .max(LEAST)
        .next_multiple_of(1 << 20);
    let mut partition = Cursor::new(vec![0; size]);
    let options = FormatVolumeOptions::new()
        .fat_type(fatfs::FatType::Fat32)
        .bytes_per_cluster(SECTOR as u32)
        .volume_label(*b"OPENVMM ESP");
    fatfs::format_volume(&mut partition, options).context("cannot format the EFI system partition")?;
    fill(&mut partition, files)?;
    Ok(with_table(&partition.into_inner()))
}

fn fill(partition: &mut Cursor<Vec<u8>>, files: &[(&str, &[u8])]) -> Result<()> {
    let system = FileSystem::new(partition, FsOptions::new())?;
    let root = system.root_dir();
    for (path, bytes) in files {
        let mut folder = root.clone();
        let mut parts: Vec<&str> = path.split('/').collect();
        let name = parts.pop().unwrap_or(path);
        for part in parts {
            folder = folder.create_dir(part).with_context(|| (*path).to_owned())?;
        }
        let mut file = folder.create_file(name).with_context(|| (*path).to_owned())?;
        file.write_all(bytes).with_context(|| (*path).to_owned())?;
    }
    Ok(())
}

/// The partition between the primary table and its backup.
fn with_table(partition: &[u8]) -> Vec<u8> {
    let partition_sectors = partition.len() / SECTOR;
    let backup_entries = FIRST + partition_sectors;
    let last = backup_entries + ENTRIES;
    let mut disk = vec![0; (last + 1) * SECTOR];
    protective_mbr(&mut disk, last);
    let mut entries = vec![0; ENTRIES * SECTOR];
    entries[..16].copy_from_slice(&ESP_TYPE);
    entries[16..32].copy_from_slice(&PARTITION_GUID);
    entries[32..40].copy_from_slice(&(FIRST as u64).to_le_bytes());
    entries[40..48].copy_from_slice(&(backup_entries as u64 - 1).to_le_bytes());
    for (i, unit) in "EFI system partition".encode_utf16().enumerate() {
        entries[56 + 2 * i..58 + 2 * i].copy_from_slice(&unit.to_le_bytes());
    }
    let put = |disk: &mut Vec<u8>, sector: usize, bytes: &[u8]| {
        disk[sector * SECTOR..sector * SECTOR + bytes.len()].copy_from_slice(bytes);
    };
    let usable = (2 + ENTRIES, backup_entries - 1);
    put(&mut disk, 1, &header((1, last), 2, usable, &entries));
    put(&mut disk, 2, &entries);
    put(&mut disk, FIRST, partition);
    put(&mut disk, backup_entries, &entries);
    put(
        &mut disk,
        last,
        &header((last, 1), backup_entries, usable, &entries),
    );
    disk
}

/// A header at the first of `places`, whose twin is at the second.
fn header(places: (usize, usize), entries_at: usize, usable: (usize, usize), entries: &[u8]) -> [u8; 92] {
    let mut header = [0; 92];
    header[..8].copy_from_slice(b"EFI PART");
    header[8..16].copy_from_slice(&[0, 0, 1, 0, 92, 0, 0, 0]);
    for (at, value) in [
        (24, places.0),
        (32, places.1),
        (40, usable.0),
        (48, usable.1),
        (72, entries_at),
    ] {
        header[at..at + 8].copy_from_slice(&(value as u64).to_le_bytes());
    }
    header[56..72].copy_from_slice(&DISK_GUID);
    header[80..84].copy_from_slice(&128u32.to_le_bytes());
    header[84..88].copy_from_slice(&128u32.to_le_bytes());
    header[88..92].copy_from_slice(&crc32fast::hash(entries).to_le_bytes());
    let sum = crc32fast::hash(&header);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    header
}

fn protective_mbr(disk: &mut [u8], last: usize) {
    let entry = &mut disk[446..462];
    entry[2] = 2;
    entry[4] = 0xEE;
    entry[5..8].fill(0xFF);
    entry[8..12].copy_from_slice(&1u32.to_le_bytes());
    entry[12..16].copy_from_slice(&(last as u32).to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn files_are_found_again_in_the_partition_that_the_table_names() {
        let kernel: Vec<u8> = (0..3_000_000).map(|i| (i % 253) as u8).collect();
        let disk = esp_disk(&[("EFI/BOOT/BOOTX64.EFI", &kernel), ("startup.nsh", b"map\r\n")]).unwrap();
        let entry = &disk[2 * SECTOR..2 * SECTOR + 128];
        let first = u64::from_le_bytes(entry[32..40].try_into().unwrap()) as usize;
        let last = u64::from_le_bytes(entry[40..48].try_into().unwrap()) as usize;
        let partition = Cursor::new(disk[first * SECTOR..(last + 1) * SECTOR].to_vec());
        let system = FileSystem::new(partition, FsOptions::new()).unwrap();
        assert_eq!(system.fat_type(), fatfs::FatType::Fat32);
        let mut found = Vec::new();
        let mut file = system.root_dir().open_file("efi/boot/bootx64.efi").unwrap();
        file.read_to_end(&mut found).unwrap();
        assert!(found == kernel);
    }

    #[test]
    fn both_tables_have_right_sums_and_name_each_other() {
        let disk = esp_disk(&[("a", b"b")]).unwrap();
        let last = disk.len() / SECTOR - 1;
        for (sector, twin) in [(1, last), (last, 1)] {
            let mut header: [u8; 92] = disk[sector * SECTOR..][..92].try_into().unwrap();
            assert_eq!(header[32..40], (twin as u64).to_le_bytes());
            let sum = std::mem::take(&mut header[16..20].to_vec());
            header[16..20].fill(0);
            assert_eq!(sum, crc32fast::hash(&header).to_le_bytes());
        }
        assert_eq!(disk, esp_disk(&[("a", b"b")]).unwrap());
    }
}
