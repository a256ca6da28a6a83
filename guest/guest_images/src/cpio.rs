// SPDX-License-Identifier: MIT
//! Initial RAM file systems: cpio archives in "newc" form (Linux Documentation,
//! driver-api/early-userspace/buffer-format.rst).
//!
//! Always true: the same entries give the same bytes.

/// Type bits of a mode.
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const DEVICE: u32 = 0o020_000;

/// An archive in the making.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds an empty folder.
    pub fn folder(self, name: &str) -> Self {
        self.entry(name, FOLDER | 0o755, (0, 0), &[])
    }

    /// Adds a file that may be executed.
    pub fn program(self, name: &str, contents: &[u8]) -> Self {
        self.entry(name, FILE | 0o755, (0, 0), contents)
    }

    /// Adds a character device.
    pub fn device(self, name: &str, major: u32, minor: u32) -> Self {
        self.entry(name, DEVICE | 0o600, (major, minor), &[])
    }

    /// The whole archive.
    pub fn finish(self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]).bytes
    }

    /// Thirteen fields of eight hexadecimal digits behind the magic, the name with its zero, the contents;
    /// name and contents end on a multiple of four bytes.
    fn entry(mut self, name: &str, mode: u32, device: (u32, u32), contents: &[u8]) -> Self {
        self.entries += 1;
        let size = u32::try_from(contents.len()).expect("files of less than 4 GiB");
        let name_size = u32::try_from(name.len() + 1).expect("short names");
        let (links, time, check) = (1, 0, 0);
        let fields = [
            self.entries,
            mode,
            0,
            0,
            links,
            time,
            size,
            0,
            0,
            device.0,
            device.1,
            name_size,
            check,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
        self
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
