// SPDX-License-Identifier: MIT
//! `uefi_probe`, `hv_probe` and `hv_devices` as firmware images in the MSVM.fd shape.
//!
//! Always true: exactly 6 MiB; the SEC volume's header and files are well formed (PI specification 1.8
//! volume 3, chapters 2 and 3), so a loader's own search finds the entry. The SEC core is not the first
//! file and the PE32 section not the first section, as in a real image. Not here: loading it.

use crate::pe;
use guest_protocol::uefi_image as image;
use guest_protocol::uefi_image::writes;

/// The probe's code and data, flat, linked at [`image::CODE_GPA`].
pub const CODE: &[u8] = super::built!("uefi_probe.bin");

const VOLUME_HEADER: usize = 0x48;
const FILE_HEADER: usize = 24;
const SECTION_HEADER: usize = 4;
/// Firmware file system 2: 8c8ce578-8a3d-4f1c-9935-896185c32dd3.
const FILE_SYSTEM: [u8; 16] = [
    0x78, 0xE5, 0x8C, 0x8C, 0x3D, 0x8A, 0x1C, 0x4F, 0x99, 0x35, 0x89, 0x61, 0x85, 0xC3, 0x2D, 0xD3,
];
/// Name of the SEC core file; any unique value.
const SEC_CORE: [u8; 16] = *b"openvmm sec core";
const FILE_TYPE_SEC: u8 = 0x03;
const FILE_TYPE_PAD: u8 = 0xF0;
const SECTION_PE32: u8 = 0x10;
const SECTION_NAME: u8 = 0x15;
/// EFI boot service driver, as EDK2 marks its SEC cores, executed in place.
const SEC_CORE_IMAGE: pe::Kind = pe::Kind {
    subsystem: 11,
    base: Some(image::SEC_VOLUME_GPA + image::PE_OFFSET),
};
/// State of a file whose header and data are valid, in a volume that is erased to ones.
const FILE_STATE: u8 = 0xF8;
/// Offset of the SEC file: so that its PE image lies at [`image::PE_OFFSET`], behind a name section.
const SEC_FILE: usize = image::PE_OFFSET as usize - SECTION_HEADER - NAME_SECTION - FILE_HEADER;
/// Length of the name section: header and "SEC" with its NUL in UTF-16.
const NAME_SECTION: usize = SECTION_HEADER + 8;

/// `hv_probe`'s code and data, flat, linked there too.
pub const HV_PROBE: &[u8] = super::built!("hv_probe.bin");

/// `hv_devices`' code and data, flat, linked there too.
pub const HV_DEVICES: &[u8] = super::built!("hv_devices.bin");

/// The firmware image of `uefi_probe`.
pub fn firmware() -> Vec<u8> {
    image_of(CODE)
}

/// The firmware image of `hv_probe`.
pub fn hv_firmware() -> Vec<u8> {
    image_of(HV_PROBE)
}

/// A SetVariable that `hv_probe` carries out before it looks at the variables.
#[derive(Debug, Clone)]
pub struct Write<'d> {
    /// The status that it must have.
    pub status: u32,
    /// Attributes.
    pub attributes: u32,
    /// The namespace, as in memory.
    pub vendor: [u8; 16],
    /// The name.
    pub name: &'d str,
    /// The data.
    pub data: Vec<u8>,
}

/// The firmware image of `hv_probe` with variables to write.
///
/// # Panics
/// If they do not fit.
pub fn hv_firmware_with(list: &[Write<'_>]) -> Vec<u8> {
    let mut firmware = hv_firmware();
    let mut bytes = writes::MAGIC.to_vec();
    for write in list {
        let name: Vec<u8> = write
            .name
            .encode_utf16()
            .chain([0])
            .flat_map(u16::to_le_bytes)
            .collect();
        for number in [
            write.status,
            write.attributes,
            name.len() as u32,
            write.data.len() as u32,
        ] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(write.vendor);
        bytes.extend(name);
        bytes.extend(&write.data);
    }
    // A status that there is not ends the list.
    bytes.extend(writes::END.to_le_bytes());
    assert!(bytes.len() <= writes::MOST, "{} bytes of variables", bytes.len());
    put(&mut firmware, (writes::GPA - image::IMAGE_GPA) as usize, &bytes);
    firmware
}

/// The firmware image of `hv_stuck` that goes no further in this way, one of [`guest_protocol::uefi_image::stuck`].
pub fn stuck_firmware(way: u32) -> Vec<u8> {
    let mut firmware = image_of(super::built!("hv_stuck.bin"));
    let at = (image::stuck::GPA - image::IMAGE_GPA) as usize;
    put(&mut firmware, at, &way.to_le_bytes());
    firmware
}

/// A firmware image whose first instruction is the last one, a loop.
pub fn silent_firmware() -> Vec<u8> {
    let mut code = vec![0x90; crate::ENTRY64_OFFSET as usize];
    // pause; jmp to it
    code.extend([0xF3, 0x90, 0xEB, 0xFC]);
    image_of(&code)
}

/// The firmware image of `hv_devices`.
pub fn devices_firmware() -> Vec<u8> {
    image_of(HV_DEVICES)
}

fn image_of(code: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; image::IMAGE_SIZE as usize];
    for (gpa, mark) in image::marks() {
        let at = (gpa - image::IMAGE_GPA) as usize;
        bytes[at..at + 8].copy_from_slice(&mark.to_le_bytes());
    }
    bytes[image::SEC_VOLUME_OFFSET as usize..].copy_from_slice(&sec_volume(code));
    bytes
}

fn sec_volume(code: &[u8]) -> Vec<u8> {
    let pe = pe::image(code, &SEC_CORE_IMAGE);
    let mut volume = vec![0xFF; image::SEC_VOLUME_SIZE as usize];
    let room = volume.len() - image::PE_OFFSET as usize;
    assert!(
        pe.len() <= room,
        "a payload of {} bytes in a volume with room for {room}",
        pe.len()
    );
    put(&mut volume, 0, &volume_header());
    let pad = file_header([0xFF; 16], FILE_TYPE_PAD, SEC_FILE - VOLUME_HEADER);
    put(&mut volume, VOLUME_HEADER, &pad);
    let length = image::PE_OFFSET as usize + pe.len() - SEC_FILE;
    put(
        &mut volume,
        SEC_FILE,
        &file_header(SEC_CORE, FILE_TYPE_SEC, length),
    );
    let name = SEC_FILE + FILE_HEADER;
    put(&mut volume, name, &section_header(SECTION_NAME, NAME_SECTION));
    put(&mut volume, name + SECTION_HEADER, b"S\0E\0C\0\0\0");
    let section = section_header(SECTION_PE32, SECTION_HEADER + pe.len());
    put(&mut volume, name + NAME_SECTION, &section);
    put(&mut volume, image::PE_OFFSET as usize, &pe);
    volume
}

fn put(to: &mut [u8], at: usize, bytes: &[u8]) {
    to[at..at + bytes.len()].copy_from_slice(bytes);
}

fn volume_header() -> [u8; VOLUME_HEADER] {
    /// Readable, writable, erased to ones, 16-byte aligned files.
    const ATTRIBUTES: u32 = 0x0004_FEFF;
    const BLOCK: u32 = 0x1000;
    let mut header = [0; VOLUME_HEADER];
    put(&mut header, 16, &FILE_SYSTEM);
    put(&mut header, 32, &image::SEC_VOLUME_SIZE.to_le_bytes());
    put(&mut header, 40, b"_FVH");
    put(&mut header, 44, &ATTRIBUTES.to_le_bytes());
    put(&mut header, 48, &(VOLUME_HEADER as u16).to_le_bytes());
    header[55] = 2;
    let blocks = image::SEC_VOLUME_SIZE as u32 / BLOCK;
    put(&mut header, 56, &blocks.to_le_bytes());
    put(&mut header, 60, &BLOCK.to_le_bytes());
    let sum = header.chunks_exact(2).fold(0_u16, |sum, two| {
        sum.wrapping_add(u16::from_le_bytes([two[0], two[1]]))
    });
    put(&mut header, 50, &sum.wrapping_neg().to_le_bytes());
    header
}

fn file_header(name: [u8; 16], kind: u8, length: usize) -> [u8; FILE_HEADER] {
    /// Data checksum of a file without the checksum attribute.
    const NO_CHECKSUM: u8 = 0xAA;
    let mut header = [0; FILE_HEADER];
    put(&mut header, 0, &name);
    header[18] = kind;
    put(&mut header, 20, &(length as u32).to_le_bytes()[..3]);
    let sum = header.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
    header[16] = sum.wrapping_neg();
    header[17] = NO_CHECKSUM;
    header[23] = FILE_STATE;
    header
}

fn section_header(kind: u8, length: usize) -> [u8; SECTION_HEADER] {
    let length = (length as u32).to_le_bytes();
    [length[0], length[1], length[2], kind]
}

#[cfg(test)]
mod tests;
