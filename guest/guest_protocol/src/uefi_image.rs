// SPDX-License-Identifier: MIT
//! The shape of `uefi_probe`'s firmware image (uefi-launch 5.1).
//!
//! Always true: 6 MiB at 1 MiB; the SEC volume is the last 128 KiB; everything before it is empty but for
//! a mark at the start of every 64 KiB, by which the probe sees that the whole image was loaded.

/// First byte of the image.
pub const IMAGE_GPA: u64 = 0x10_0000;
/// Length of the image in bytes.
pub const IMAGE_SIZE: u64 = 0x60_0000;
/// Offset of the SEC volume in the image.
pub const SEC_VOLUME_OFFSET: u64 = 0x5E_0000;
/// Length of the SEC volume in bytes.
pub const SEC_VOLUME_SIZE: u64 = IMAGE_SIZE - SEC_VOLUME_OFFSET;
/// First byte of the SEC volume.
pub const SEC_VOLUME_GPA: u64 = IMAGE_GPA + SEC_VOLUME_OFFSET;
/// Offset of the PE image in the SEC volume.
pub const PE_OFFSET: u64 = 0x1000;
/// Length of the PE image's headers; the code follows.
pub const PE_HEADERS: u64 = 0x1000;
/// First byte of the code, where it is linked.
pub const CODE_GPA: u64 = SEC_VOLUME_GPA + PE_OFFSET + PE_HEADERS;
/// Distance of two marks.
const MARK_SPACING: u64 = 0x1_0000;
/// A mark is its own gpa, changed by this.
const MARK_SALT: u64 = 0x4F42_4550_0000_0000;

/// The marks: gpa and value.
pub fn marks() -> impl Iterator<Item = (u64, u64)> {
    (IMAGE_GPA..SEC_VOLUME_GPA)
        .step_by(MARK_SPACING as usize)
        .map(|gpa| (gpa, gpa ^ MARK_SALT))
}

/// Variables that a test gives `hv_probe` to write, in the image between two marks: [`writes::MAGIC`], then for each
/// the status that it must have, attributes, bytes of name and data (u32 each), vendor, name, data; [`writes::END`].
pub mod writes {
    /// Where they are.
    pub const GPA: u64 = super::IMAGE_GPA + 0x20_1000;
    /// Bytes that there is room for.
    pub const MOST: usize = 0xF000;
    /// What begins the list.
    pub const MAGIC: [u8; 8] = *b"variable";
    /// In place of a status.
    pub const END: u32 = u32::MAX;
}

/// How `hv_stuck` goes no further: a number at [`stuck::GPA`] in the image.
pub mod stuck {
    /// Where the number is, a u32.
    pub const GPA: u64 = super::IMAGE_GPA + 0x20_0100;
    /// Reads COM1's line status for ever.
    pub const LINE_STATUS: u32 = 1;
    /// Reads the reference counter for ever.
    pub const COUNTER: u32 = 2;
    /// Lists the variables' names for ever.
    pub const NAMES: u32 = 3;
    /// Writes a variable that cannot be written, for ever.
    pub const FAILURE: u32 = 4;
    /// Says that it could not boot, and halts.
    pub const NO_BOOT: u32 = 5;
    /// Says so, and powers off.
    pub const NO_BOOT_POWER_OFF: u32 = 6;
    /// Stops itself with [`STATUS`] at source line [`LINE`].
    pub const FAIL_FAST: u32 = 7;
    /// Spins in memory.
    pub const SILENT: u32 = 8;
    /// Asks for VMBus' offers for ever, and takes no message.
    pub const MESSAGES: u32 = 9;
    /// Faults where nobody takes faults.
    pub const FAULT: u32 = 10;
    /// EFI_SECURITY_VIOLATION.
    pub const STATUS: u64 = 1 << 63 | 26;
    /// A source line.
    pub const LINE: u64 = 1234;
}
