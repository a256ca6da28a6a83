// SPDX-License-Identifier: MIT
//! A PCI segment: its functions, and the ports and the memory window that reach their configuration space.
//!
//! Always true: functions are locked one by one and never while the list is locked.

use crate::{Bdf, PciFunction, lock};
use chipset_device::{Device, MmioDevice, PortDevice, unclaimed};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Why a function cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PciError {
    /// Something is there already.
    #[error("PCI address {0} is taken")]
    Taken(Bdf),
    /// All devices of the bus are used.
    #[error("no free PCI device on bus {0:#04x}")]
    Full(u8),
}

type Shared = Arc<Mutex<dyn PciFunction>>;

/// One segment.
#[derive(Default)]
pub struct PciRoot {
    functions: RwLock<BTreeMap<Bdf, Shared>>,
}

impl PciRoot {
    /// A segment without functions.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Puts a function at `bdf`.
    pub fn add(&self, bdf: Bdf, function: Shared) -> Result<(), PciError> {
        let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
        if functions.contains_key(&bdf) {
            return Err(PciError::Taken(bdf));
        }
        functions.insert(bdf, function);
        Ok(())
    }

    /// The first free device number of `bus`, function 0.
    pub fn free_device(&self, bus: u8) -> Result<Bdf, PciError> {
        let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        let free = |d: &u8| (0..8).all(|f| !functions.contains_key(&Bdf::new(bus, *d, f)));
        (0..32)
            .find(free)
            .map(|d| Bdf::new(bus, d, 0))
            .ok_or(PciError::Full(bus))
    }

    /// Every function in address order.
    pub fn functions(&self) -> Vec<(Bdf, Shared)> {
        let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        functions.iter().map(|(bdf, f)| (*bdf, f.clone())).collect()
    }

    fn get(&self, bdf: Bdf) -> Option<Shared> {
        self.functions
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&bdf)
            .cloned()
    }

    /// Reads configuration space; `data` lies inside one doubleword.
    pub fn config_read(&self, bdf: Bdf, offset: u16, data: &mut [u8]) {
        match self.get(bdf) {
            Some(function) => lock(&function).config_read(offset, data),
            None => unclaimed(data),
        }
    }

    /// Writes configuration space; `data` lies inside one doubleword.
    pub fn config_write(&self, bdf: Bdf, offset: u16, data: &[u8]) {
        if let Some(function) = self.get(bdf) {
            lock(&function).config_write(offset, data);
        }
    }
}

/// Configuration mechanism 1: address port 0xCF8, data ports 0xCFC to 0xCFF (PCI Local Bus 3.0 section
/// 3.2.2.3.2). The reset control register, port 0xCF9, lies between and answers byte accesses.
pub struct ConfigPorts {
    root: Arc<PciRoot>,
    reset_control: Option<Arc<Mutex<dyn PortDevice>>>,
    address: u32,
}

/// Number of ports from 0xCF8 on.
const CONFIG_PORTS: u16 = 8;
const ADDRESS_ENABLE: u32 = 1 << 31;
const ADDRESS_WRITABLE: u32 = 0x80FF_FFFC;
const DATA: u16 = 4;

impl ConfigPorts {
    /// Ports that a [`ConfigPorts`] takes, from 0xCF8 on.
    pub const LEN: u16 = CONFIG_PORTS;

    /// The ports of `root`, with what answers at 0xCF9.
    pub fn new(root: Arc<PciRoot>, reset_control: Option<Arc<Mutex<dyn PortDevice>>>) -> Self {
        Self {
            root,
            reset_control,
            address: 0,
        }
    }

    /// What an access to the data ports at `offset` means.
    fn target(&self, offset: u16, len: usize) -> Option<(Bdf, u16)> {
        let in_dword = offset.checked_sub(DATA)?;
        let whole = usize::from(in_dword) + len <= 4 && self.address & ADDRESS_ENABLE != 0;
        let bdf = Bdf::from_bits((self.address >> 8) as u16);
        whole.then_some((bdf, (self.address & 0xFC) as u16 + in_dword))
    }
}

impl Device for ConfigPorts {
    fn reset(&mut self) {
        self.address = 0;
    }

    fn inspect(&self) -> String {
        format!("address {:#x}\n", self.address)
    }
}

impl PortDevice for ConfigPorts {
    fn port_read(&mut self, offset: u16, data: &mut [u8]) {
        if let Some((bdf, register)) = self.target(offset, data.len()) {
            self.root.config_read(bdf, register, data);
        } else if offset == 0 && data.len() == 4 {
            data.copy_from_slice(&self.address.to_le_bytes());
        } else if let (1, 1, Some(reset)) = (offset, data.len(), &self.reset_control) {
            lock(reset).port_read(0, data);
        } else {
            unclaimed(data);
        }
    }

    fn port_write(&mut self, offset: u16, data: &[u8]) {
        if let Some((bdf, register)) = self.target(offset, data.len()) {
            self.root.config_write(bdf, register, data);
        } else if let (0, Ok(value)) = (offset, data.try_into()) {
            self.address = u32::from_le_bytes(value) & ADDRESS_WRITABLE;
        } else if let (1, 1, Some(reset)) = (offset, data.len(), &self.reset_control) {
            lock(reset).port_write(0, data);
        }
    }
}

/// The memory-mapped configuration window: 4 KiB per function, 1 MiB per bus (PCI Express Base 5.0 section
/// 7.2.2).
pub struct Ecam {
    root: Arc<PciRoot>,
    first_bus: u8,
}

impl Ecam {
    /// A window whose first bus is `first_bus`.
    pub fn new(root: Arc<PciRoot>, first_bus: u8) -> Self {
        Self { root, first_bus }
    }

    fn target(&self, offset: u64) -> Option<(Bdf, u16)> {
        let routing = u16::try_from(offset >> 12).ok()?;
        let bdf = routing.checked_add(u16::from(self.first_bus) << 8)?;
        Some((Bdf::from_bits(bdf), (offset & 0xFFF) as u16))
    }
}

/// Bytes from `offset` to the end of its doubleword, at most `len`.
fn in_dword(offset: u64, len: usize) -> usize {
    len.min(4 - (offset & 3) as usize)
}

impl Device for Ecam {
    fn reset(&mut self) {}
}

impl MmioDevice for Ecam {
    fn mmio_read(&mut self, mut offset: u64, mut data: &mut [u8]) {
        while !data.is_empty() {
            let (head, tail) = data.split_at_mut(in_dword(offset, data.len()));
            match self.target(offset) {
                Some((bdf, register)) => self.root.config_read(bdf, register, head),
                None => unclaimed(head),
            }
            offset += head.len() as u64;
            data = tail;
        }
    }

    fn mmio_write(&mut self, mut offset: u64, mut data: &[u8]) {
        while !data.is_empty() {
            let (head, tail) = data.split_at(in_dword(offset, data.len()));
            if let Some((bdf, register)) = self.target(offset) {
                self.root.config_write(bdf, register, head);
            }
            offset += head.len() as u64;
            data = tail;
        }
    }
}

#[cfg(test)]
mod tests;
