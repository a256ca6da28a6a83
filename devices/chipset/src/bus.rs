// SPDX-License-Identifier: MIT
//! The bus: which device answers an access, and the [`VpBus`] that backends call.
//!
//! Always true: nothing claimed twice; what nobody claims reads all ones; devices are locked one by one
//! and only for one access. No global lock is on the way of a port access.
//! Not here: which devices a machine has (`machine`).

mod mmio;
mod ports;
mod unclaimed;

#[cfg(test)]
mod tests;

pub use ports::PortWidth;

use crate::lapic::LapicSet;
use crate::lock;
use chipset_device::{
    Device, MmioDevice, MsrHandler, Placement, PortDevice, VpBus, VpEvents, VpIndex, VpPorts,
};
use mmio::MmioMap;
use ports::{Owner, PortMap};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, Weak};

/// A run of ports or of guest physical addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First address.
    pub first: u64,
    /// Number of addresses.
    pub len: u64,
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}..{:#x}", self.first, self.first.saturating_add(self.len))
    }
}

/// Why a device cannot be put where it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// Two devices want the same port.
    #[error("{name}: ports {span} overlap those of {other}")]
    PortOverlap {
        /// The device.
        name: String,
        /// Where it was to go.
        span: Span,
        /// Who is there.
        other: String,
    },
    /// Ports end at 0xffff.
    #[error("{name}: ports {span} are empty or go past 0xffff")]
    BadPortRange {
        /// The device.
        name: String,
        /// Where it was to go.
        span: Span,
    },
    /// Two devices want the same address.
    #[error("{name}: mmio {span} overlaps that of {other}")]
    MmioOverlap {
        /// The device.
        name: String,
        /// Where it was to go.
        span: Span,
        /// Who is there.
        other: String,
    },
    /// Addresses end at 2^64.
    #[error("{name}: mmio {span} is empty or goes past the end of the address space")]
    BadMmioRange {
        /// The device.
        name: String,
        /// Where it was to go.
        span: Span,
    },
    /// The port table names slots with one byte.
    #[error("more than {limit} port ranges")]
    TooManyDevices {
        /// The limit.
        limit: usize,
    },
    /// A PCI function cannot be where it was asked for.
    #[error("{name}: {reason}")]
    Pci {
        /// The function.
        name: String,
        /// Why.
        reason: String,
    },
    /// Two handlers want the same MSR.
    #[error("{name}: MSRs {first:#x}..={last:#x} overlap those of {other}")]
    MsrOverlap {
        /// The handler.
        name: String,
        /// First MSR.
        first: u32,
        /// Last MSR.
        last: u32,
        /// Who is there.
        other: String,
    },
}

/// A port range of one device, which may move. It does not keep the bus alive: the bus holds the device, and the
/// device this.
#[derive(Clone)]
pub struct PortWindow {
    map: Weak<PortMap>,
    id: u8,
}

impl PortWindow {
    /// Moves the range to `base`, or takes it off the bus. On an error nothing changes.
    pub fn map(&self, base: Option<u16>) -> Result<(), BusError> {
        // Once the bus is gone, nothing is anywhere.
        self.map.upgrade().map_or(Ok(()), |map| map.map(self.id, base))
    }
}

/// An MMIO window of one device, which may move. Like [`PortWindow`], it does not keep the bus alive.
#[derive(Clone)]
pub struct MmioWindow {
    map: Weak<MmioMap>,
    id: usize,
}

impl MmioWindow {
    /// Moves the window to `base`, or takes it off the bus. On an error nothing changes.
    pub fn map(&self, base: Option<u64>) -> Result<(), BusError> {
        let len = self.map.upgrade().map_or(0, |map| map.default_len(self.id));
        self.put(base.map(|first| Span { first, len }))
    }

    /// Moves the window to `base` with another length. On an error nothing changes.
    pub fn map_sized(&self, base: u64, len: u64) -> Result<(), BusError> {
        self.put(Some(Span { first: base, len }))
    }

    fn put(&self, place: Option<Span>) -> Result<(), BusError> {
        self.map.upgrade().map_or(Ok(()), |map| map.map(self.id, place))
    }
}

impl Placement for PortWindow {
    /// The length is that of the range.
    fn place(&self, at: Option<(u64, u64)>) -> Result<(), String> {
        let base = at.map(|(base, _)| u16::try_from(base)).transpose();
        let base = base.map_err(|_| "ports end at 0xffff".to_owned())?;
        self.map(base).map_err(|e| e.to_string())
    }
}

impl Placement for MmioWindow {
    fn place(&self, at: Option<(u64, u64)>) -> Result<(), String> {
        match at {
            Some((base, len)) => self.map_sized(base, len),
            None => self.map(None),
        }
        .map_err(|e| e.to_string())
    }
}

struct MsrRange {
    name: String,
    range: RangeInclusive<u32>,
    handler: Arc<dyn MsrHandler>,
}

/// Anything that `reset` and `inspect` reach.
type Part = (String, Arc<Mutex<dyn Device>>);

/// Puts devices on the bus.
pub struct ChipsetBuilder {
    lapics: Arc<LapicSet>,
    ports: Arc<PortMap>,
    mmio: Arc<MmioMap>,
    msrs: Vec<MsrRange>,
    parts: Vec<Part>,
}

impl ChipsetBuilder {
    /// A machine with nothing but local APICs.
    pub fn new(lapics: Arc<LapicSet>) -> Self {
        Self {
            lapics,
            ports: Arc::new(PortMap::new()),
            mmio: Arc::new(MmioMap::new()),
            msrs: Vec::new(),
            parts: Vec::new(),
        }
    }

    /// The local APICs.
    pub fn lapics(&self) -> &Arc<LapicSet> {
        &self.lapics
    }

    /// Names a device for reset and inspect. Once per device, however many ranges it has; devices are
    /// reset in the order in which they were named.
    pub fn add_device(&mut self, name: &str, device: Arc<Mutex<dyn Device>>) {
        self.parts.push((name.to_owned(), device));
    }

    /// Gives `device` a port range of `len` ports that is not mapped yet.
    pub fn add_port_window(
        &mut self,
        name: &str,
        len: u16,
        width: PortWidth,
        device: Arc<Mutex<dyn PortDevice>>,
    ) -> Result<PortWindow, BusError> {
        let id = self.ports.add(name, len, width, Owner::Device(device))?;
        Ok(PortWindow {
            map: Arc::downgrade(&self.ports),
            id,
        })
    }

    /// Gives `device` the ports `first..first + len`.
    pub fn add_ports(
        &mut self,
        name: &str,
        ports: (u16, u16),
        width: PortWidth,
        device: Arc<Mutex<dyn PortDevice>>,
    ) -> Result<(), BusError> {
        let (first, len) = ports;
        self.add_port_window(name, len, width, device)?.map(Some(first))
    }

    /// Gives `owner`, who has to know which VP asks, the ports `first..first + len`.
    pub fn add_vp_ports(
        &mut self,
        name: &str,
        ports: (u16, u16),
        owner: Arc<dyn VpPorts>,
    ) -> Result<(), BusError> {
        let (first, len) = ports;
        let id = self.ports.add(name, len, PortWidth::Any, Owner::PerVp(owner))?;
        self.ports.map(id, Some(first))
    }

    /// Takes `len` ports at `first` silently: they read all ones, writes are dropped, nothing is logged.
    /// Ports that a device has stay the device's.
    pub fn absorb_ports(&mut self, first: u16, len: u16) -> Result<(), BusError> {
        self.ports.absorb(first, len)
    }

    /// Gives `device` an MMIO window of `len` bytes that is not mapped yet.
    pub fn add_mmio_window(
        &mut self,
        name: &str,
        len: u64,
        device: Arc<Mutex<dyn MmioDevice>>,
    ) -> MmioWindow {
        MmioWindow {
            map: Arc::downgrade(&self.mmio),
            id: self.mmio.add(name, len, device),
        }
    }

    /// Gives `device` the addresses `first..first + len`.
    pub fn add_mmio(
        &mut self,
        name: &str,
        first: u64,
        len: u64,
        device: Arc<Mutex<dyn MmioDevice>>,
    ) -> Result<(), BusError> {
        self.add_mmio_window(name, len, device).map(Some(first))
    }

    /// Gives `handler` a range of MSRs.
    pub fn add_msrs(
        &mut self,
        name: &str,
        range: RangeInclusive<u32>,
        handler: Arc<dyn MsrHandler>,
    ) -> Result<(), BusError> {
        let (first, last) = (*range.start(), *range.end());
        if let Some(other) = self
            .msrs
            .iter()
            .find(|m| *m.range.start() <= last && first <= *m.range.end())
        {
            return Err(BusError::MsrOverlap {
                name: name.to_owned(),
                first,
                last,
                other: other.name.clone(),
            });
        }
        let at = self.msrs.partition_point(|m| *m.range.start() < first);
        self.msrs.insert(
            at,
            MsrRange {
                name: name.to_owned(),
                range,
                handler,
            },
        );
        Ok(())
    }

    /// The finished machine.
    pub fn build(self) -> Chipset {
        Chipset {
            lapics: self.lapics,
            ports: self.ports,
            mmio: self.mmio,
            msrs: self.msrs,
            parts: self.parts,
        }
    }
}

/// All devices of a partition.
pub struct Chipset {
    lapics: Arc<LapicSet>,
    ports: Arc<PortMap>,
    mmio: Arc<MmioMap>,
    msrs: Vec<MsrRange>,
    parts: Vec<Part>,
}

impl Chipset {
    /// The local APICs.
    pub fn lapics(&self) -> &Arc<LapicSet> {
        &self.lapics
    }

    /// Everything back to power on. The VPs must be stopped.
    pub fn reset(&self) {
        for (_, device) in &self.parts {
            lock(device).reset();
        }
        for msrs in &self.msrs {
            msrs.handler.reset();
        }
        self.ports.unclaimed().reset();
        self.mmio.unclaimed().reset();
        self.lapics.reset();
    }

    /// State of everything, device by device.
    pub fn inspect(&self) -> String {
        let mut out = format!(
            "[ports]\n{}unclaimed {}\n[mmio]\n{}unclaimed {}\n[lapic]\n{}",
            self.ports.inspect(),
            self.ports.unclaimed().count(),
            self.mmio.inspect(),
            self.mmio.unclaimed().count(),
            self.lapics.inspect(),
        );
        let parts = self
            .parts
            .iter()
            .map(|(name, device)| (name, lock(device).inspect()));
        let msrs = self.msrs.iter().map(|m| (&m.name, m.handler.inspect()));
        for (name, text) in parts.chain(msrs).filter(|(_, text)| !text.is_empty()) {
            out += &format!("[{name}]\n{}\n", text.trim_end());
        }
        out
    }

    fn msr_handler(&self, msr: u32) -> Option<&dyn MsrHandler> {
        let after = self.msrs.partition_point(|m| *m.range.start() <= msr);
        let found = self.msrs[..after].last().filter(|m| m.range.contains(&msr))?;
        Some(&*found.handler)
    }

    /// Whether an access is in the local APIC's page, and where; one that leaves the page is not.
    fn lapic_offset(&self, vp: VpIndex, gpa: u64, len: usize) -> Option<u64> {
        let offset = gpa & 0xFFF;
        (offset + len as u64 <= 0x1000 && self.lapics.claims(vp, gpa)).then_some(offset)
    }
}

impl VpBus for Chipset {
    fn port_read(&self, vp: VpIndex, port: u16, data: &mut [u8]) {
        self.ports.read(vp, port, data);
    }

    fn port_write(&self, vp: VpIndex, port: u16, data: &[u8]) {
        self.ports.write(vp, port, data);
    }

    fn mmio_read(&self, vp: VpIndex, gpa: u64, data: &mut [u8]) {
        match self.lapic_offset(vp, gpa, data.len()) {
            Some(offset) => self.lapics.mmio_read(vp, offset, data),
            None if data.is_empty() => {}
            None => self.mmio.read(gpa, data),
        }
    }

    fn mmio_write(&self, vp: VpIndex, gpa: u64, data: &[u8]) {
        match self.lapic_offset(vp, gpa, data.len()) {
            Some(offset) => self.lapics.mmio_write(vp, offset, data),
            None if data.is_empty() => {}
            None => self.mmio.write(gpa, data),
        }
    }

    fn msr_read(&self, vp: VpIndex, msr: u32) -> Option<u64> {
        if LapicSet::owns_msr(msr) {
            return self.lapics.msr_read(vp, msr);
        }
        self.msr_handler(msr)?.msr_read(vp, msr)
    }

    fn msr_write(&self, vp: VpIndex, msr: u32, value: u64) -> bool {
        if LapicSet::owns_msr(msr) {
            return self.lapics.msr_write(vp, msr, value);
        }
        self.msr_handler(msr).is_some_and(|h| h.msr_write(vp, msr, value))
    }

    fn poll(&self, vp: VpIndex) -> VpEvents {
        self.lapics.poll(vp)
    }

    fn acknowledge(&self, vp: VpIndex) -> Option<u8> {
        self.lapics.acknowledge(vp)
    }

    fn cr8(&self, vp: VpIndex) -> u8 {
        self.lapics.cr8(vp)
    }

    fn set_cr8(&self, vp: VpIndex, value: u8) {
        self.lapics.set_cr8(vp, value);
    }
}
