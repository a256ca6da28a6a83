// SPDX-License-Identifier: MIT
//! Images in the shape of `MSVM.fd`, whole and broken.

use super::*;

/// Offset of the SEC file's executable in [`msvm_image`].
const EXECUTABLE: usize = x64::SEC_VOLUME_OFFSET as usize + 72 + 32 + 24 + 4;

/// A 6 MiB image whose SEC volume holds a padding file and a SEC core with one PE section; the entry
/// point is `entry` bytes into the PE image.
pub(crate) fn msvm_image(entry: u32) -> Vec<u8> {
    let mut image = vec![0xFF; x64::IMAGE_SIZE as usize];
    let volume = x64::SEC_VOLUME_OFFSET as usize;
    image[volume..volume + 72].fill(0);
    image[volume + 32..volume + 40].copy_from_slice(&0x2_0000u64.to_le_bytes());
    image[volume + 40..volume + 44].copy_from_slice(b"_FVH");
    image[volume + 48..volume + 50].copy_from_slice(&72u16.to_le_bytes());
    file(&mut image, volume + 72, 0xF0, 28);
    file(
        &mut image,
        volume + 72 + 32,
        FILE_TYPE_SECURITY_CORE,
        24 + 4 + 0x1000,
    );
    section(&mut image, EXECUTABLE - 4, SECTION_PE32, 4 + 0x1000);
    image[EXECUTABLE..EXECUTABLE + 0x1000].fill(0);
    image[EXECUTABLE..EXECUTABLE + 2].copy_from_slice(b"MZ");
    image[EXECUTABLE + 0x3C..EXECUTABLE + 0x40].copy_from_slice(&0x80u32.to_le_bytes());
    image[EXECUTABLE + 0x80..EXECUTABLE + 0x84].copy_from_slice(b"PE\0\0");
    image[EXECUTABLE + 0x80 + 40..EXECUTABLE + 0x80 + 44].copy_from_slice(&entry.to_le_bytes());
    image
}

fn file(image: &mut [u8], at: usize, kind: u8, len: u32) {
    image[at..at + FILE_HEADER].fill(0);
    image[at + 18] = kind;
    image[at + 20..at + 23].copy_from_slice(&len.to_le_bytes()[..3]);
}

fn section(image: &mut [u8], at: usize, kind: u8, len: u32) {
    image[at..at + 3].copy_from_slice(&len.to_le_bytes()[..3]);
    image[at + 3] = kind;
}

fn reason(image: &[u8]) -> &'static str {
    match find_sec_entry(image) {
        Err(FirmwareError::NoSecEntryPoint { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn pe_entry_is_found_behind_a_padding_file() {
    assert_eq!(find_sec_entry(&msvm_image(0x240)), Ok(EXECUTABLE as u64 + 0x240));
}

#[test]
fn te_entry_counts_the_stripped_bytes() {
    let mut image = msvm_image(0);
    image[EXECUTABLE..EXECUTABLE + 2].copy_from_slice(b"VZ");
    image[EXECUTABLE + 6..EXECUTABLE + 8].copy_from_slice(&0x100u16.to_le_bytes());
    image[EXECUTABLE + 8..EXECUTABLE + 12].copy_from_slice(&0x340u32.to_le_bytes());
    let expected = Ok(EXECUTABLE as u64 + 40 + 0x340 - 0x100);
    assert_eq!(find_sec_entry(&image), expected);
    image[EXECUTABLE - 1] = SECTION_TE;
    assert_eq!(find_sec_entry(&image), expected);
}

#[test]
fn other_image_sizes_are_refused() {
    let error = find_sec_entry(&vec![0; 0x80_0000]).unwrap_err();
    assert_eq!(error, FirmwareError::InvalidImageSize(0x80_0000));
    assert!(error.to_string().contains("must be exactly 0x600000"), "{error}");
}

#[test]
fn missing_volume_is_named_with_its_offset() {
    let error = find_sec_entry(&vec![0; x64::IMAGE_SIZE as usize]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no SEC entry point in the UEFI firmware image: image offset 0x5e0000: no firmware volume header \
         (signature _FVH at +0x28)"
    );
}

#[test]
fn volume_longer_than_the_image_is_refused() {
    let mut image = msvm_image(0x240);
    let at = x64::SEC_VOLUME_OFFSET as usize + 32;
    image[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(reason(&image), "the firmware volume is longer than the image");
}

#[test]
fn volume_without_sec_core_is_refused() {
    let mut image = msvm_image(0x240);
    image[x64::SEC_VOLUME_OFFSET as usize + 72 + 32 + 18] = 7;
    assert_eq!(
        reason(&image),
        "the firmware volume holds no SEC core file (type 3)"
    );
}

#[test]
fn file_of_no_size_does_not_hang_the_walk() {
    let mut image = msvm_image(0x240);
    let at = x64::SEC_VOLUME_OFFSET as usize + 72;
    file(&mut image, at, 0xF0, 0);
    assert_eq!(reason(&image), "a firmware file's size does not fit its volume");
}

#[test]
fn section_of_no_size_does_not_hang_the_walk() {
    let mut image = msvm_image(0x240);
    section(&mut image, EXECUTABLE - 4, 0x19, 0);
    assert_eq!(reason(&image), "a section's size does not fit its file");
}

#[test]
fn file_without_executable_is_refused() {
    let mut image = msvm_image(0x240);
    image[EXECUTABLE - 1] = 0x19;
    assert_eq!(
        reason(&image),
        "the SEC core file holds no executable section (type 0x10)"
    );
}

#[test]
fn entry_outside_the_executable_is_refused() {
    assert_eq!(
        reason(&msvm_image(0x1000)),
        "the executable's entry point lies outside its section"
    );
    assert_eq!(
        reason(&msvm_image(u32::MAX)),
        "the executable's entry point lies outside its section"
    );
}

#[test]
fn header_bytes_of_any_value_never_panic() {
    let image = msvm_image(0x240);
    let start = x64::SEC_VOLUME_OFFSET as usize;
    let mut broken = image.clone();
    for at in start..EXECUTABLE + 0xC0 {
        for value in [0, 1, 0x7F, 0xFF] {
            broken[at] = value;
            let _ = find_sec_entry(&broken);
        }
        broken[at] = image[at];
    }
    assert!(find_sec_entry(&broken).is_ok());
}
