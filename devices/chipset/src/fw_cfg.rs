// SPDX-License-Identifier: MIT
//! fw_cfg: numbered items and named files that the host gives to firmware, read through a port or copied
//! by DMA (QEMU's fw_cfg specification; ovmf-machine section 1.7).
//!
//! Always true: the guest reads and never writes items; reads past an item's end give zeros; a transfer
//! that is not wholly RAM moves nothing and reports an error; the directory's sizes hold for the life of
//! the machine, also for files whose contents depend on what the guest has set up.
//! Not here: what is in the items (`vm_loaders`, the worker).

use chipset_device::{Device, PortDevice, unclaimed};
use guest_memory::DmaMemory;
use std::collections::BTreeMap;

/// First port.
pub const PORT: u16 = 0x510;
/// Selector, data, two unused, and the two halves of the DMA address.
pub const PORTS: u16 = 12;

const SELECTOR: u16 = 0;
const DATA: u16 = 1;
const DMA_HIGH: u16 = 4;
const DMA_LOW: u16 = 8;
/// What the DMA address reads.
const DMA_SIGNATURE: &[u8; 8] = b"QEMU CFG";

/// Well-known items.
#[allow(missing_docs)]
pub mod key {
    pub const SIGNATURE: u16 = 0;
    pub const ID: u16 = 1;
    pub const UUID: u16 = 2;
    pub const RAM_SIZE: u16 = 3;
    pub const CPU_COUNT: u16 = 5;
    pub const KERNEL_SIZE: u16 = 8;
    pub const INITRD_SIZE: u16 = 0xB;
    pub const BOOT_MENU: u16 = 0xE;
    pub const MAX_CPU_COUNT: u16 = 0xF;
    pub const KERNEL_DATA: u16 = 0x11;
    pub const INITRD_DATA: u16 = 0x12;
    pub const CMDLINE_SIZE: u16 = 0x14;
    pub const CMDLINE_DATA: u16 = 0x15;
    pub const SETUP_SIZE: u16 = 0x17;
    pub const SETUP_DATA: u16 = 0x18;
    pub const DIRECTORY: u16 = 0x19;
    pub const FIRST_FILE: u16 = 0x20;
}

/// Item `ID`: both interfaces, port and DMA.
const FEATURES: u32 = 3;
/// Bits of a selector that name the item; bit 14 selects the write channel of old, which does not exist.
const KEY_BITS: u16 = 0xBFFF;

/// DMA control bits.
const DMA_ERROR: u32 = 1;
const DMA_READ: u32 = 2;
const DMA_SKIP: u32 = 4;
const DMA_SELECT: u32 = 8;
const DMA_WRITE: u32 = 16;

/// Bytes moved at a time.
const CHUNK: usize = 64 << 10;
/// Name of a file with its zero.
const NAME_LEN: usize = 56;

/// Makes the contents of a group of files; called when one of them is selected.
pub type Generator = Box<dyn Fn() -> Vec<Vec<u8>> + Send>;

/// Why an item cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FwCfgError {
    /// The directory has fixed-size names.
    #[error("fw_cfg file name {0:?} is longer than 55 bytes or has a zero in it")]
    Name(String),
    /// Names are unique.
    #[error("fw_cfg file {0:?} is given twice")]
    Twice(String),
    /// Sizes are 32 bits.
    #[error("fw_cfg item of {len:#x} bytes; items are smaller than 4 GiB")]
    TooLarge {
        /// Its size.
        len: usize,
    },
}

struct File {
    name: String,
    key: u16,
    size: u32,
}

/// The generator that makes an item, and which of its results the item is.
#[derive(Clone, Copy)]
struct Source {
    generator: usize,
    index: usize,
}

#[derive(Default)]
struct Item {
    bytes: Vec<u8>,
    source: Option<Source>,
}

#[derive(Debug, Default)]
struct State {
    selected: u16,
    offset: u32,
    dma_address: u64,
}

/// The device.
pub struct FwCfg {
    items: BTreeMap<u16, Item>,
    files: Vec<File>,
    generators: Vec<Generator>,
    state: State,
    memory: DmaMemory,
}

impl FwCfg {
    /// A device with the identification items only, moving data to `memory`.
    pub fn new(memory: DmaMemory) -> Self {
        let mut device = Self {
            items: BTreeMap::new(),
            files: Vec::new(),
            generators: Vec::new(),
            state: State::default(),
            memory,
        };
        device.put(key::SIGNATURE, b"QEMU".to_vec(), None);
        device.put(key::ID, FEATURES.to_le_bytes().to_vec(), None);
        device.write_directory();
        device
    }

    fn put(&mut self, key: u16, bytes: Vec<u8>, source: Option<Source>) {
        self.items.insert(key, Item { bytes, source });
    }

    /// Adds or replaces a numbered item.
    pub fn set(&mut self, key: u16, bytes: Vec<u8>) -> Result<(), FwCfgError> {
        size(&bytes)?;
        self.put(key, bytes, None);
        Ok(())
    }

    /// Adds a file.
    pub fn add_file(&mut self, name: &str, bytes: Vec<u8>) -> Result<(), FwCfgError> {
        self.add_named(name, bytes, None)
    }

    /// Adds files whose contents are made anew each time one of them is selected, because they depend on
    /// what the guest has set up. Their sizes are those of `largest`; shorter results are filled up with
    /// zeros.
    pub fn add_generated(
        &mut self,
        names: &[&str],
        largest: Vec<Vec<u8>>,
        generator: Generator,
    ) -> Result<(), FwCfgError> {
        let number = self.generators.len();
        self.generators.push(generator);
        for (index, (name, bytes)) in names.iter().zip(largest).enumerate() {
            let source = Source {
                generator: number,
                index,
            };
            self.add_named(name, bytes, Some(source))?;
        }
        Ok(())
    }

    fn add_named(&mut self, name: &str, bytes: Vec<u8>, source: Option<Source>) -> Result<(), FwCfgError> {
        if name.len() >= NAME_LEN || name.contains('\0') {
            return Err(FwCfgError::Name(name.to_owned()));
        }
        if self.files.iter().any(|file| file.name == name) {
            return Err(FwCfgError::Twice(name.to_owned()));
        }
        let size = size(&bytes)?;
        let key = key::FIRST_FILE + self.files.len() as u16;
        self.files.push(File {
            name: name.to_owned(),
            key,
            size,
        });
        self.put(key, bytes, source);
        self.write_directory();
        Ok(())
    }

    /// Big-endian count and entries (size, key, reserved, name).
    fn write_directory(&mut self) {
        let mut bytes = (self.files.len() as u32).to_be_bytes().to_vec();
        for file in &self.files {
            let start = bytes.len();
            bytes.extend_from_slice(&file.size.to_be_bytes());
            bytes.extend_from_slice(&file.key.to_be_bytes());
            bytes.extend_from_slice(&[0; 2]);
            bytes.extend_from_slice(file.name.as_bytes());
            bytes.resize(start + 8 + NAME_LEN, 0);
        }
        self.put(key::DIRECTORY, bytes, None);
    }

    fn select(&mut self, key: u16) {
        self.state.selected = key & KEY_BITS;
        self.state.offset = 0;
        let source = self.items.get(&self.state.selected).and_then(|item| item.source);
        if let Some(source) = source {
            self.regenerate(source.generator);
        }
    }

    /// Renews all files of a group, so that they belong together.
    fn regenerate(&mut self, generator: usize) {
        let Some(make) = self.generators.get(generator) else {
            return;
        };
        let made = make();
        for item in self.items.values_mut() {
            let Some(source) = item.source.filter(|s| s.generator == generator) else {
                continue;
            };
            let Some(bytes) = made.get(source.index) else {
                continue;
            };
            // The directory has told the size already.
            let len = item.bytes.len();
            if bytes.len() > len {
                tracing::error!("fw_cfg: contents of {:#x} bytes cut to {len:#x}", bytes.len());
            }
            let kept = bytes.len().min(len);
            item.bytes[..kept].copy_from_slice(&bytes[..kept]);
            item.bytes[kept..].fill(0);
        }
    }

    /// What is left of the selected item.
    fn rest(&self) -> &[u8] {
        let item = self.items.get(&self.state.selected);
        item.and_then(|item| item.bytes.get(self.state.offset as usize..))
            .unwrap_or(&[])
    }

    fn next_byte(&mut self) -> u8 {
        let byte = self.rest().first().copied().unwrap_or(0);
        self.state.offset = self.state.offset.saturating_add(1);
        byte
    }

    /// Carries out the descriptor at the DMA address: big-endian control, length and address.
    fn dma(&mut self) {
        let at = std::mem::take(&mut self.state.dma_address);
        let mut descriptor = [0; 16];
        if let Err(error) = self.memory.read(at, &mut descriptor) {
            tracing::debug!("fw_cfg dma descriptor: {error}");
            return;
        }
        let half = |i: usize| u32::from_be_bytes([0, 1, 2, 3].map(|n| descriptor[4 * i + n]));
        let (control, len) = (half(0), half(1));
        let address = u64::from(half(2)) << 32 | u64::from(half(3));
        if control & DMA_SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        let moved = match control & (DMA_READ | DMA_WRITE | DMA_SKIP) {
            bits if bits & DMA_READ != 0 => self.copy_out(address, len),
            // No item takes data.
            bits if bits & DMA_WRITE != 0 => false,
            bits if bits & DMA_SKIP != 0 => {
                self.state.offset = self.state.offset.saturating_add(len);
                true
            }
            _ => true,
        };
        let result = if moved { 0 } else { DMA_ERROR };
        if let Err(error) = self.memory.write(at, &result.to_be_bytes()) {
            tracing::debug!("fw_cfg dma result: {error}");
        }
    }

    /// Copies `len` bytes of the selected item, zeros behind its end, to guest memory.
    fn copy_out(&mut self, address: u64, len: u32) -> bool {
        if len != 0 && !self.memory.is_ram(address, len.into()) {
            tracing::debug!("fw_cfg dma of {len:#x} bytes to {address:#x}: not wholly ram");
            return false;
        }
        let mut at = address;
        let mut left = len as usize;
        while left > 0 {
            let zeros = [0; CHUNK];
            let rest = self.rest();
            let chunk = if rest.is_empty() { &zeros } else { rest };
            let chunk = &chunk[..chunk.len().min(left).min(CHUNK)];
            let count = chunk.len();
            if let Err(error) = self.memory.write(at, chunk) {
                tracing::debug!("fw_cfg dma: {error}");
                return false;
            }
            self.state.offset = self.state.offset.saturating_add(count as u32);
            at += count as u64;
            left -= count;
        }
        true
    }
}

fn size(bytes: &[u8]) -> Result<u32, FwCfgError> {
    u32::try_from(bytes.len()).map_err(|_| FwCfgError::TooLarge { len: bytes.len() })
}

impl Device for FwCfg {
    fn reset(&mut self) {
        self.state = State::default();
    }

    fn inspect(&self) -> String {
        let mut out = format!(
            "selected {:#x}\noffset {:#x}\n",
            self.state.selected, self.state.offset
        );
        for file in &self.files {
            out += &format!("file {:#x} {} {:#x}\n", file.key, file.name, file.size);
        }
        out
    }
}

impl PortDevice for FwCfg {
    fn port_read(&mut self, offset: u16, data: &mut [u8]) {
        match (offset, data) {
            (DATA, [byte]) => *byte = self.next_byte(),
            (DMA_HIGH.., data) => {
                for (i, byte) in (usize::from(offset - DMA_HIGH)..).zip(data) {
                    *byte = DMA_SIGNATURE.get(i).copied().unwrap_or(0xFF);
                }
            }
            (_, data) => unclaimed(data),
        }
    }

    fn port_write(&mut self, offset: u16, data: &[u8]) {
        match (offset, data) {
            (SELECTOR, &[low, high]) => self.select(u16::from_le_bytes([low, high])),
            (DMA_HIGH, &[a, b, c, d]) => {
                self.state.dma_address = u64::from(u32::from_be_bytes([a, b, c, d])) << 32;
            }
            (DMA_LOW, &[a, b, c, d]) => {
                self.state.dma_address |= u64::from(u32::from_be_bytes([a, b, c, d]));
                self.dma();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
