// SPDX-License-Identifier: MIT
//! The programs in a firmware image, so that an address can be told as a module and an offset (PI 1.8 volume 3,
//! chapters 2 and 3; Microsoft PE format).
//!
//! Always true: reads only, and an image or a guest's memory that is nonsense costs nothing but a missing name.
//! Compressed volumes are not opened: Microsoft's firmware has none (msvm-machine section 1).

use guest_memory::GuestMemory;
use std::fmt::Write;

const FILE_HEADER: usize = 24;
const FILE_PAD: u8 = 0xF0;
const SECTION_PE32: u8 = 0x10;
const SECTION_TE: u8 = 0x12;
const SECTION_NAME: u8 = 0x15;
const SECTION_VOLUME: u8 = 0x17;
const TE_HEADER: u64 = 40;
/// Volumes begin at a multiple of this.
const VOLUME_ALIGN: usize = 0x1000;
/// Volumes inside of volumes.
const MOST_DEPTH: usize = 3;
/// The largest program that is looked for around an address in RAM.
const MOST_PROGRAM: u64 = 8 << 20;
const PAGE: u64 = 4096;

/// What tells one program from another, wherever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    time: u32,
    entry: u32,
    size: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Module {
    name: String,
    /// Its bytes in the image, from where on offsets count, and how much is missing before them (TE).
    start: u64,
    len: u64,
    stripped: u64,
    identity: Option<Identity>,
}

/// All programs of an image.
#[derive(Debug, Default)]
pub(crate) struct Modules(Vec<Module>);

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn length24(bytes: &[u8], at: usize) -> Option<usize> {
    let b = bytes.get(at..at + 3)?;
    Some(usize::from(b[0]) | usize::from(b[1]) << 8 | usize::from(b[2]) << 16)
}

/// The headers of a PE32+ program.
fn identity(program: &[u8]) -> Option<Identity> {
    if program.get(..2)? != b"MZ" {
        return None;
    }
    let pe = word(program, 0x3C)? as usize;
    if program.get(pe..pe.checked_add(4)?)? != b"PE\0\0" {
        return None;
    }
    Some(Identity {
        time: word(program, pe + 8)?,
        entry: word(program, pe + 24 + 16)?,
        size: word(program, pe + 24 + 56)?,
    })
}

impl Modules {
    /// The programs of `image`, which is at `gpa`.
    pub(crate) fn read(image: &[u8], gpa: u64) -> Self {
        let mut found = Vec::new();
        volumes(image, gpa, 0, &mut found);
        Self(found)
    }

    /// `address` as a module and an offset.
    pub(crate) fn locate(&self, memory: &GuestMemory, address: u64) -> Option<String> {
        let inside = |m: &&Module| (m.start..m.start + m.len).contains(&address);
        if let Some(module) = self.0.iter().find(inside) {
            return Some(format!(
                "{}+{:#x}",
                module.name,
                address - module.start + module.stripped
            ));
        }
        let (base, found) = loaded(memory, address)?;
        let offset = address - base;
        let module = self.0.iter().find(|m| m.identity == Some(found));
        Some(match module {
            Some(module) => format!("{}+{offset:#x}, loaded at {base:#x}", module.name),
            None => format!("a program at {base:#x}, +{offset:#x}, that is not in the firmware image"),
        })
    }
}

/// The program in RAM that `address` is in: the nearest headers below it that say that they reach so far.
fn loaded(memory: &GuestMemory, address: u64) -> Option<(u64, Identity)> {
    let mut base = address & !(PAGE - 1);
    let lowest = base.saturating_sub(MOST_PROGRAM);
    let mut page = [0; PAGE as usize];
    loop {
        memory.read(base, &mut page[..2]).ok()?;
        if &page[..2] == b"MZ" {
            memory.read(base, &mut page).ok()?;
            if let Some(found) = identity(&page)
                && address - base < found.size.into()
            {
                return Some((base, found));
            }
        }
        base = base.checked_sub(PAGE).filter(|base| *base >= lowest)?;
    }
}

fn volumes(image: &[u8], gpa: u64, depth: usize, found: &mut Vec<Module>) {
    let mut at = 0;
    while at + 56 <= image.len() {
        let len = (&image[at + 40..at + 44] == b"_FVH").then(|| {
            let len = u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| image[at + 32 + i]));
            usize::try_from(len).ok()
        });
        let volume = len.flatten().and_then(|len| image.get(at..at.checked_add(len)?));
        match volume.filter(|volume| !volume.is_empty()) {
            Some(volume) => {
                files(volume, gpa + at as u64, depth, found);
                at = (at + volume.len()).next_multiple_of(VOLUME_ALIGN);
            }
            None => at += VOLUME_ALIGN,
        }
    }
}

fn files(volume: &[u8], gpa: u64, depth: usize, found: &mut Vec<Module>) -> Option<()> {
    let extended = usize::from(half(volume, 52)?);
    let mut at = match extended {
        0 => usize::from(half(volume, 48)?),
        // The extended header says its length behind the volume's name.
        at => at.checked_add(word(volume, at + 16)? as usize)?,
    }
    .next_multiple_of(8);
    loop {
        let header = volume.get(at..at.checked_add(FILE_HEADER)?)?;
        let len = length24(header, 20)?;
        if len < FILE_HEADER {
            return None;
        }
        let file = volume.get(at..at.checked_add(len)?)?;
        if header[18] != FILE_PAD {
            sections(file, gpa + at as u64, depth, found);
        }
        at = (at + len).next_multiple_of(8);
    }
}

/// Takes the programs of a file, under its name if it has one, else its GUID.
fn sections(file: &[u8], gpa: u64, depth: usize, found: &mut Vec<Module>) -> Option<()> {
    let first = found.len();
    let mut name = None;
    let mut at = FILE_HEADER;
    while let Some(len) = length24(file, at).filter(|len| *len >= 4) {
        let Some(section) = file.get(at..at.checked_add(len)?) else {
            break;
        };
        let (body, start) = (&section[4..], gpa + at as u64 + 4);
        match section[3] {
            SECTION_PE32 => found.push(Module {
                name: String::new(),
                start,
                len: body.len() as u64,
                stripped: 0,
                identity: identity(body),
            }),
            SECTION_TE if body.starts_with(b"VZ") => found.push(Module {
                name: String::new(),
                start,
                len: body.len() as u64,
                stripped: u64::from(half(body, 6)?).saturating_sub(TE_HEADER),
                identity: None,
            }),
            SECTION_NAME => name = Some(text(body)),
            SECTION_VOLUME if depth < MOST_DEPTH => volumes(body, start, depth + 1, found),
            _ => {}
        }
        at = (at + len).next_multiple_of(4);
    }
    let name = name.unwrap_or_else(|| guid(file));
    let ours = found[first..].iter_mut().filter(|module| module.name.is_empty());
    ours.for_each(|module| module.name.clone_from(&name));
    Some(())
}

/// UTF-16 up to its NUL, as far as it may be shown.
fn text(bytes: &[u8]) -> String {
    let units = bytes
        .chunks_exact(2)
        .map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).take(64).collect();
    String::from_utf16_lossy(&units).escape_debug().collect()
}

fn guid(file: &[u8]) -> String {
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut out = String::new();
    for (i, at) in order.into_iter().enumerate() {
        let dash = if matches!(i, 4 | 6 | 8 | 10) { "-" } else { "" };
        let _ = write!(out, "{dash}{:02x}", file.get(at).copied().unwrap_or(0));
    }
    out
}
