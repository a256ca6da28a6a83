// SPDX-License-Identifier: MIT
//! bzImage: the setup header and the protected-mode part (Linux Documentation/arch/x86/boot.rst).
//!
//! Always true: offsets are those of the file, which equal those of the zero page. Not here: the zero
//! page (`super::boot_params`).

use super::boot_params::{HEADER_START, offset};
use super::{Entry, Kernel, LinuxError, part};
use openvmm_defs::GpaRange;

/// Boot protocol 2.12: `xloadflags`.
const MIN_PROTOCOL: u16 = 0x20C;
/// `loadflags`: the protected-mode part loads at 1 MiB or above.
const LOADED_HIGH: u8 = 1;
/// `xloadflags`: the 64-bit entry point is at 0x200.
const KERNEL_64: u16 = 1;
/// Offset of the 64-bit entry point in the protected-mode part.
const ENTRY_64: u64 = 0x200;
/// `setup_sects` of 0 means this.
const DEFAULT_SETUP_SECTORS: usize = 4;
const SECTOR: usize = 512;
/// Last byte for an initrd when the header says nothing.
const DEFAULT_INITRD_MAX: u32 = 0x37FF_FFFF;
/// Command line limit when the header says nothing.
const DEFAULT_CMDLINE_SIZE: u32 = 255;
/// Load address when the header prefers none.
const DEFAULT_LOAD_GPA: u64 = 0x10_0000;

/// Whether the file has a bzImage's two signatures.
pub(super) fn is_bzimage(bytes: &[u8]) -> bool {
    bytes.get(offset::BOOT_FLAG..offset::BOOT_FLAG + 2) == Some(&[0x55, 0xAA])
        && bytes.get(offset::MAGIC..offset::MAGIC + 4) == Some(b"HdrS")
}

/// Reads the header.
pub(super) fn parse(bytes: &[u8]) -> Result<Kernel<'_>, LinuxError> {
    let version = u16_at(bytes, offset::VERSION)?;
    if version < MIN_PROTOCOL {
        return Err(LinuxError::OldProtocol(version));
    }
    if u8_at(bytes, offset::LOADFLAGS)? & LOADED_HIGH == 0 {
        return Err(LinuxError::LoadsLow);
    }
    let xloadflags = u16_at(bytes, offset::XLOADFLAGS)?;
    if xloadflags & KERNEL_64 == 0 {
        return Err(LinuxError::No64BitEntry(xloadflags));
    }
    let payload = protected_mode_part(bytes)?;
    let load = match u64_at(bytes, offset::PREF_ADDRESS)? {
        0 => DEFAULT_LOAD_GPA,
        preferred => preferred,
    };
    let len = u64::from(u32_at(bytes, offset::INIT_SIZE)?).max(payload.len() as u64);
    let range = GpaRange::new(load, len);
    if load < DEFAULT_LOAD_GPA {
        return Err(LinuxError::LoadsLow);
    }
    let header_end = offset::MAGIC + usize::from(u8_at(bytes, offset::JUMP + 1)?);
    let header_end = header_end.clamp(offset::INIT_SIZE + 4, offset::HEADER_LIMIT);
    let setup_header = part(bytes, HEADER_START, header_end - HEADER_START, "the setup header")?;
    let initrd_max = or_default(u32_at(bytes, offset::INITRD_ADDR_MAX)?, DEFAULT_INITRD_MAX);
    let cmdline = or_default(u32_at(bytes, offset::CMDLINE_SIZE)?, DEFAULT_CMDLINE_SIZE);
    Ok(Kernel {
        parts: vec![(load, payload.into())],
        range,
        entry: Entry::Long(load.saturating_add(ENTRY_64)),
        cmdline_limit: cmdline as usize,
        initrd_limit: u64::from(initrd_max) + 1,
        setup_header: Some(setup_header),
    })
}

/// The bytes that are loaded: `syssize` paragraphs, or the rest of the file when the header has none.
/// A kernel file as its real-mode set-up part and the rest, the way that fw_cfg hands it over; files that
/// are not a bzImage are all rest.
pub fn split_setup(bytes: &[u8]) -> (&[u8], &[u8]) {
    let setup = setup_len(bytes).ok().filter(|_| is_bzimage(bytes));
    bytes.split_at(setup.unwrap_or(0).min(bytes.len()))
}

/// Bytes of the boot sector and the set-up sectors.
fn setup_len(bytes: &[u8]) -> Result<usize, LinuxError> {
    let sectors = match usize::from(u8_at(bytes, offset::SETUP_SECTS)?) {
        0 => DEFAULT_SETUP_SECTORS,
        sectors => sectors,
    };
    Ok((sectors + 1) * SECTOR)
}

fn protected_mode_part(bytes: &[u8]) -> Result<&[u8], LinuxError> {
    let start = setup_len(bytes)?;
    let rest = bytes.len().saturating_sub(start);
    let len = match u32_at(bytes, offset::SYSSIZE)? as usize * 16 {
        0 => rest,
        len => len,
    };
    let least = ENTRY_64 as usize + 1;
    part(bytes, start, len.max(least), "its protected-mode part")
}

fn or_default(value: u32, default: u32) -> u32 {
    if value == 0 { default } else { value }
}

fn field<const LEN: usize>(bytes: &[u8], at: usize) -> Result<[u8; LEN], LinuxError> {
    let mut field = [0; LEN];
    field.copy_from_slice(part(bytes, at, LEN, "the setup header")?);
    Ok(field)
}

fn u8_at(bytes: &[u8], at: usize) -> Result<u8, LinuxError> {
    field::<1>(bytes, at).map(|[byte]| byte)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, LinuxError> {
    field(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, LinuxError> {
    field(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, LinuxError> {
    field(bytes, at).map(u64::from_le_bytes)
}
