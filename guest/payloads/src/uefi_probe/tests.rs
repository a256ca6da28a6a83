// SPDX-License-Identifier: MIT
//! Reads the image back the way a loader does, from the specifications and not from the builder.

use super::*;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().unwrap())
}

fn u24_at(bytes: &[u8], at: usize) -> usize {
    (u32_at(bytes, at) & 0xFF_FFFF) as usize
}

/// Offset in the image of the first SEC core's PE image.
fn find_pe(image: &[u8]) -> usize {
    let volume = 0x5E_0000;
    let mut file = volume + usize::from(u16::from_le_bytes([image[volume + 48], image[volume + 49]]));
    while image[file + 18] != 3 {
        file += u24_at(image, file + 20).next_multiple_of(8);
        assert!(file < image.len(), "no SEC core");
    }
    let mut section = file + 24;
    while image[section + 3] != 0x10 {
        section += u24_at(image, section).next_multiple_of(4);
        assert!(section < file + u24_at(image, file + 20), "no PE32 section");
    }
    section + 4
}

#[test]
fn the_image_has_the_firmware_size_and_marks() {
    let image = firmware();
    assert_eq!(image.len(), 0x60_0000);
    for (gpa, mark) in guest_protocol::uefi_image::marks() {
        let at = (gpa - 0x10_0000) as usize;
        assert_eq!(image[at..at + 8], mark.to_le_bytes());
    }
}

#[test]
fn the_volume_header_adds_up() {
    let image = firmware();
    let header = &image[0x5E_0000..0x5E_0000 + VOLUME_HEADER];
    assert_eq!(&header[40..44], b"_FVH");
    let sum = header.chunks_exact(2).fold(0_u16, |sum, two| {
        sum.wrapping_add(u16::from_le_bytes([two[0], two[1]]))
    });
    assert_eq!(sum, 0);
    assert_eq!(u64::from(u32_at(header, 32)), 0x2_0000);
    assert_eq!(u32_at(header, 56) * u32_at(header, 60), 0x2_0000);
}

#[test]
fn file_headers_add_up() {
    let image = firmware();
    let mut file = 0x5E_0000 + VOLUME_HEADER;
    for kind in [0xF0, 3] {
        let mut header = image[file..file + FILE_HEADER].to_vec();
        assert_eq!(header[18], kind);
        assert_eq!((file - 0x5E_0000) % 8, 0);
        // The header checksum leaves out the data checksum and the state.
        header[17] = 0;
        header[23] = 0;
        assert_eq!(header.iter().fold(0_u8, |sum, &b| sum.wrapping_add(b)), 0);
        file += u24_at(&image, file + 20).next_multiple_of(8);
    }
    assert!(
        image[file..].iter().all(|&byte| byte == 0xFF),
        "free space is erased"
    );
}

#[test]
fn the_entry_is_the_probes_64_bit_entry() {
    let image = firmware();
    let pe = find_pe(&image);
    assert_eq!(&image[pe..pe + 2], b"MZ");
    let header = pe + u32_at(&image, pe + 0x3C) as usize;
    assert_eq!(&image[header..header + 6], b"PE\0\0\x64\x86");
    let entry = pe + u32_at(&image, header + 24 + 16) as usize;
    assert_eq!(0x10_0000 + entry as u64, image::CODE_GPA + crate::ENTRY64_OFFSET);
    assert_eq!(image[entry..entry + 0x100], CODE[0x200..0x300]);
    // mov [rip + disp32], rax: the first instruction saves RAX.
    assert_eq!(CODE[0x200..0x203], [0x48, 0x89, 0x05]);
}

#[test]
fn the_probe_fits_below_the_page_tables() {
    let end = image::CODE_GPA + CODE.len() as u64;
    assert!(end <= 0x70_0000, "{end:#x}");
}

/// The zeroed data of a payload are not in its volume but where the image has nothing else.
#[test]
fn zeroed_data_lie_in_an_empty_part_of_the_image() {
    let list = [Write {
        status: 0,
        attributes: 7,
        vendor: [1; 16],
        name: "name",
        data: vec![1; 0x8000],
    }];
    let images: [(&[u8], Vec<u8>); 4] = [
        (crate::built!("uefi_probe.elf"), firmware()),
        (crate::built!("hv_probe.elf"), hv_firmware_with(&list)),
        (crate::built!("hv_devices.elf"), devices_firmware()),
        (crate::built!("hv_stuck.elf"), stuck_firmware(1)),
    ];
    for (elf, image) in images {
        let (gpa, len) = zeroed(elf);
        let at = (gpa - 0x10_0000) as usize;
        assert!(len >= 0x8000, "a stack at least: {len:#x}");
        assert!(at + len < 0x5E_0000);
        assert!(image[at..at + len].iter().all(|&byte| byte == 0));
    }
}

/// The segment that has no bytes in the file: gpa and length.
fn zeroed(elf: &[u8]) -> (u64, usize) {
    let number = |at: usize| u64::from_le_bytes(*elf[at..].first_chunk().unwrap());
    let headers = (0..usize::from(elf[0x38])).map(|index| number(0x20) as usize + index * 0x38);
    let mut zeroed = headers.filter(|at| elf[*at] == 1 && number(at + 0x20) == 0);
    let at = zeroed.next().expect("a segment of zeros");
    (number(at + 0x10), number(at + 0x28) as usize)
}
