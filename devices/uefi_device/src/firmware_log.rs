// SPDX-License-Identifier: MIT
//! The firmware's log in guest memory: Project Mu's advanced logger (index 0x2B names it).
//!
//! Always true: everything read is checked against the buffer's own bounds and [`LONGEST`]; nothing is
//! written; a line is told once, unless it is asked for again. Not here: which lines reach the host's log.
//!
//! The header begins with `ALOG`, u16 version; u32 at 12 offset of the first entry, at 20 offset behind the
//! last one, at 28 bytes for entries. Entries are 8-byte aligned and begin with `ALMS` (u32 level at 4, u16
//! length at 16, text at 18) or `ALM2` (u32 level at 6, u16 length at 20, u16 offset of the text at 22).

use crate::host_log::{LONGEST_LINE, Weight};
use guest_memory::DmaMemory;
use std::ops::Range;

const HEADER: usize = 32;
/// Versions whose header has offsets; earlier ones had addresses.
const FIRST_VERSION: u16 = 4;
/// Bytes of entries that are looked at; the firmware's buffer has 4 MiB.
const LONGEST: u32 = 16 << 20;
/// Bits of an entry's level: error, warning, information. Project Mu calls it an error too that it loads a
/// module, which has a bit of its own.
const ERROR: u32 = 0x8000_0000;
const WARN: u32 = 2;
const LOAD: u32 = 4;
const INFO: u32 = 0x40;

/// Where the log is, and how much of it was told.
#[derive(Debug, Default)]
pub(crate) struct FirmwareLog {
    gpa: u32,
    told: u32,
}

/// A line, and how much it matters.
pub(crate) type Line = (Weight, String);

impl FirmwareLog {
    /// The buffer's place; 0 for none.
    pub(crate) fn set_gpa(&mut self, gpa: u32) {
        *self = Self { gpa, told: 0 };
    }

    /// Lines that were not told before.
    pub(crate) fn news(&mut self, memory: &DmaMemory) -> Result<Vec<Line>, String> {
        let Some(entries) = self.entries(memory)? else {
            return Ok(Vec::new());
        };
        // A log that has become shorter was begun anew.
        let from = if self.told > entries.end {
            entries.start
        } else {
            self.told.max(entries.start)
        };
        self.told = entries.end;
        self.lines(memory, from..entries.end)
    }

    /// All lines that are still there.
    pub(crate) fn all(&self, memory: &DmaMemory) -> Result<Vec<Line>, String> {
        match self.entries(memory)? {
            Some(entries) => self.lines(memory, entries),
            None => Ok(Vec::new()),
        }
    }

    /// Offsets of the entries that are written.
    fn entries(&self, memory: &DmaMemory) -> Result<Option<Range<u32>>, String> {
        if self.gpa == 0 {
            return Ok(None);
        }
        let mut header = [0; HEADER];
        let gpa = self.gpa;
        let unreadable = |error| format!("the log at gpa {gpa:#x}: {error}");
        memory
            .read(gpa.into(), &mut header)
            .map_err(|error| unreadable(error.to_string()))?;
        if &header[..4] != b"ALOG" {
            return Err(unreadable("it does not begin with ALOG".into()));
        }
        let version = u16::from_le_bytes([header[4], header[5]]);
        if version < FIRST_VERSION {
            return Err(unreadable(format!("version {version} is not known")));
        }
        let number =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (first, behind, size) = (number(12), number(20), number(28));
        let end = first.checked_add(size.min(LONGEST));
        match end {
            Some(end) if first as usize >= HEADER && (first..=end).contains(&behind) => {
                Ok(Some(first..behind))
            }
            _ => Err(unreadable(format!(
                "entries at {first:#x} to {behind:#x} in {size:#x} bytes make no sense"
            ))),
        }
    }

    /// The lines of the entries in `range`, an entry's beginning to an entry's end.
    fn lines(&self, memory: &DmaMemory, range: Range<u32>) -> Result<Vec<Line>, String> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        let gpa = u64::from(self.gpa) + u64::from(range.start);
        memory
            .read(gpa, &mut bytes)
            .map_err(|error| format!("the log at gpa {:#x}: {error}", self.gpa))?;
        let mut lines = Lines::default();
        let mut rest = &bytes[..];
        while let Some((level, text, len)) = entry(rest) {
            lines.push(level, text);
            rest = rest.get(len..).unwrap_or_default();
        }
        lines.end();
        if rest.len() >= 8 {
            let at = range.end - rest.len() as u32;
            let what = format!("the log at gpa {:#x} is damaged at offset {at:#x}", self.gpa);
            lines.done.push((Weight::Problem, what));
        }
        Ok(lines.done)
    }
}

/// Level and text of the entry at the front, and the bytes to the next one.
fn entry(bytes: &[u8]) -> Option<(u32, &[u8], usize)> {
    let half = |at: usize| Some(u16::from_le_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let word = |at: usize| Some(u32::from(half(at)?) | u32::from(half(at + 2)?) << 16);
    let (level, len, text) = match bytes.get(..4)? {
        b"ALMS" => (word(4)?, half(16)?, 18),
        b"ALM2" => (word(6)?, half(20)?, half(22)?),
        _ => return None,
    };
    let (text, len) = (usize::from(text), usize::from(len));
    // An entry that says its text begins in its header would be found again and again.
    if text < 18 {
        return None;
    }
    Some((
        level,
        bytes.get(text..text + len)?,
        (text + len).next_multiple_of(8),
    ))
}

/// Puts lines together from messages, which may be parts of lines or several.
#[derive(Default)]
struct Lines {
    done: Vec<Line>,
    part: Vec<u8>,
    level: u32,
}

impl Lines {
    fn push(&mut self, level: u32, text: &[u8]) {
        let level = if level & LOAD == 0 { level } else { level & !ERROR };
        for &byte in text {
            match byte {
                b'\n' => self.end(),
                // Enough for a line; the rest would not be shown.
                _ if self.part.len() > 4 * LONGEST_LINE => {}
                0 | b'\r' => {}
                _ => {
                    self.level |= level;
                    self.part.push(byte);
                }
            }
        }
    }

    fn end(&mut self) {
        let text = String::from_utf8_lossy(&self.part);
        if !text.trim().is_empty() {
            let weight = match self.level {
                level if level & (ERROR | WARN) != 0 => Weight::Problem,
                level if level & INFO != 0 => Weight::Information,
                _ => Weight::Detail,
            };
            self.done.push((weight, text.into_owned()));
        }
        self.part.clear();
        self.level = 0;
    }
}
