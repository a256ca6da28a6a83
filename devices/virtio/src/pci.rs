// SPDX-License-Identifier: MIT
//! The modern PCI transport (section 4.1): one function with one memory BAR that holds every structure.
//!
//! Always true: vendor 1AF4, device 1040 plus the type, revision 1; no legacy interface. BAR 0 is 32 bits
//! wide, so that firmware that places 64-bit BARs high never has to.

use crate::core::{COMMON_LEN, Core, Shared};
use crate::device::VirtioDevice;
use crate::interrupts::Interrupts;
use crate::lock;
use chipset_device::{Device, InterruptLine, MmioDevice, MsiTarget};
use guest_memory::DmaMemory;
use io_thread::{Bell, Worker};
use pci::{Bar, BarKind, ConfigSpace, Identity, Msix, MsixRegion, PciFunction};
use std::io;
use std::sync::{Arc, Mutex};

const VENDOR: u16 = 0x1AF4;
const FIRST_DEVICE: u16 = 0x1040;
const BAR: u8 = 0;
/// Vendor-specific capability.
const CAP_VENDOR: u8 = 9;
/// Types of virtio capabilities (section 4.1.4).
const COMMON: u8 = 1;
const NOTIFY: u8 = 2;
const ISR: u8 = 3;
const DEVICE: u8 = 4;
const PCI_ACCESS: u8 = 5;

/// Where the structures are in the BAR.
const COMMON_AT: u64 = 0;
const ISR_AT: u64 = 0x1000;
const DEVICE_AT: u64 = 0x2000;
const NOTIFY_AT: u64 = 0x3000;
const MSIX_AT: u64 = 0x4000;
const PAGE: u64 = 0x1000;
/// Bytes between two queues' notification registers.
const NOTIFY_STEP: u32 = 4;

/// How a device reaches the machine.
pub struct Wiring {
    /// Guest memory.
    pub ram: DmaMemory,
    /// Takes MSI-X messages.
    pub msi: Arc<dyn MsiTarget>,
    /// The function's INTA.
    pub line: InterruptLine,
    /// Devices work on threads of their own; without, on the VP that notifies, so that what happens depends on the
    /// guest alone.
    pub threads: bool,
}

/// A virtio device as a PCI function. Its BAR 0 is answered by [`VirtioPci::bar`].
pub struct VirtioPci {
    config: ConfigSpace,
    shared: Arc<Shared>,
    msix: Arc<Msix>,
    bar: Arc<Mutex<VirtioBar>>,
    /// Where the capability is through which configuration accesses reach the BAR (section 4.1.4.9).
    access_at: u16,
    /// Dropped last, ends the device's thread.
    _worker: Option<Worker>,
}

/// Makes a device look at what waits for it at the host.
#[derive(Clone)]
pub struct Waker(Arc<Shared>);

impl Waker {
    /// Lets the device work, on its thread if it has one.
    pub fn wake(&self) {
        self.0.notify();
    }
}

/// What answers in the BAR.
pub struct VirtioBar {
    shared: Arc<Shared>,
    msix: MsixRegion,
}

impl VirtioPci {
    /// Puts `device` behind a function; `name` appears in messages.
    pub fn new(name: &str, device: Box<dyn VirtioDevice>, wiring: Wiring) -> io::Result<Self> {
        let (kind, class, threaded) = (
            device.kind(),
            device.class(),
            wiring.threads || device.needs_thread(),
        );
        let works_at_once = device.works_at_once();
        let core = Core::new(name, device, &wiring.ram).map_err(io::Error::other)?;
        let msix = Msix::new(core.msix_vectors, wiring.msi);
        let shared = Arc::new(Shared {
            core: Mutex::new(core),
            interrupts: Interrupts::new(msix.clone(), wiring.line),
            works_at_once,
            bell: threaded.then(Bell::new).transpose()?,
        });
        let bar = VirtioBar {
            shared: shared.clone(),
            msix: MsixRegion::new(msix.clone()),
        };
        let mut config = ConfigSpace::new(Identity {
            vendor: VENDOR,
            device: FIRST_DEVICE + kind,
            revision: 1,
            class,
            subsystem: (VENDOR, FIRST_DEVICE + kind),
        });
        config.set_interrupt_pin(0);
        let access_at = add_capabilities(&mut config, &bar, &msix)
            .ok_or_else(|| io::Error::other("the capabilities do not fit the configuration space"))?;
        let worker = match &shared.bell {
            Some(bell) => Some(Worker::spawn(name, bell.clone(), shared.clone())?),
            None => None,
        };
        Ok(Self {
            config,
            shared,
            msix,
            bar: Arc::new(Mutex::new(bar)),
            access_at,
            _worker: worker,
        })
    }

    /// What answers in BAR 0.
    pub fn bar(&self) -> Arc<Mutex<VirtioBar>> {
        self.bar.clone()
    }

    /// For whoever brings something to the device from outside.
    pub fn waker(&self) -> Waker {
        Waker(self.shared.clone())
    }

    fn interrupts_changed(&self) {
        self.shared.interrupts.allow_pin(self.config.intx_enabled());
    }

    /// BAR offset and length that the access capability points to; only BAR 0 and 1, 2 or 4 bytes exist.
    fn window(&self) -> Option<(u64, usize)> {
        let at = self.access_at;
        let (bar, offset, len) = (
            self.config.dword(at + 4) & 0xFF,
            self.config.dword(at + 8),
            self.config.dword(at + 12),
        );
        let inside = u64::from(offset) + u64::from(len) <= lock(&self.bar).len();
        let whole = matches!(len, 1 | 2 | 4) && offset.is_multiple_of(len);
        (bar == u32::from(BAR) && whole && inside).then_some((offset.into(), len as usize))
    }

    /// Whether a configuration access is to the data of the access capability.
    fn is_window_data(&self, offset: u16, len: usize) -> bool {
        let data = self.access_at + 16;
        offset >= data && usize::from(offset - data) + len <= 4
    }
}

/// Declares the BAR and the capabilities; gives the offset of the one for access through configuration space.
fn add_capabilities(config: &mut ConfigSpace, bar: &VirtioBar, msix: &Arc<Msix>) -> Option<u16> {
    let kind = BarKind::Memory32;
    config.add_bar(Bar {
        index: BAR,
        kind,
        size: Bar::size_for(kind, bar.len()),
    });
    let pending = MSIX_AT + bar.msix.pending_offset();
    config.add_msix(msix.clone(), BAR, MSIX_AT as u32, pending as u32)?;
    let structure = |config: &mut ConfigSpace, kind, at: u64, len: u64, more: &[u8]| {
        let mut body = vec![16 + more.len() as u8, kind, BAR, 0, 0, 0];
        body.extend((at as u32).to_le_bytes());
        body.extend((len as u32).to_le_bytes());
        body.extend(more);
        let writable = if kind == PCI_ACCESS {
            &ACCESS_WRITABLE[..]
        } else {
            &[]
        };
        config.add_capability(CAP_VENDOR, &body, writable)
    };
    structure(config, COMMON, COMMON_AT, COMMON_LEN as u64, &[])?;
    structure(config, NOTIFY, NOTIFY_AT, PAGE, &NOTIFY_STEP.to_le_bytes())?;
    structure(config, ISR, ISR_AT, 1, &[])?;
    structure(config, DEVICE, DEVICE_AT, PAGE, &[])?;
    structure(config, PCI_ACCESS, 0, 0, &[0; 4])
}

/// Of the access capability's body: BAR number, offset and length; the data is answered by the function.
const ACCESS_WRITABLE: [u8; 14] = [
    0, 0, 0xFF, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
];

impl Device for VirtioPci {
    fn reset(&mut self) {
        lock(&self.shared.core).reset();
        self.shared.interrupts.reset();
        self.config.reset();
    }

    fn inspect(&self) -> String {
        let device = lock(&self.shared.core).inspect();
        format!("{}msix {}\n{device}", self.config.inspect(), self.msix.enabled())
    }
}

impl PciFunction for VirtioPci {
    fn config(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_written(&mut self, _offset: u16, _len: usize) {
        self.interrupts_changed();
    }

    fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        const STATUS: u16 = 6;
        const INTERRUPT: u8 = 8;
        self.config.read(offset, data);
        if self.is_window_data(offset, data.len())
            && let Some((at, len)) = self.window()
            && data.len() == len
        {
            lock(&self.bar).mmio_read(at, data);
        }
        if let Some(at) = STATUS.checked_sub(offset)
            && self.shared.interrupts.is_pending()
            && let Some(byte) = data.get_mut(usize::from(at))
        {
            *byte |= INTERRUPT;
        }
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) {
        if self.is_window_data(offset, data.len())
            && let Some((at, len)) = self.window()
            && data.len() == len
        {
            lock(&self.bar).mmio_write(at, data);
            return;
        }
        self.config.write(offset, data);
        self.config_written(offset, data.len());
    }
}

impl VirtioBar {
    /// Bytes that are used of the BAR.
    fn len(&self) -> u64 {
        MSIX_AT + self.msix.region_len()
    }
}

impl Device for VirtioBar {
    // The function resets what is behind the BAR.
    fn reset(&mut self) {}
}

impl MmioDevice for VirtioBar {
    fn mmio_read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let in_page = (offset % PAGE) as usize;
        match offset - offset % PAGE {
            COMMON_AT => {
                let common = lock(&self.shared.core).common();
                for (to, from) in data.iter_mut().zip(common.iter().skip(in_page)) {
                    *to = *from;
                }
            }
            ISR_AT if in_page == 0 => data[0] = self.shared.interrupts.take_isr(),
            DEVICE_AT => lock(&self.shared.core).device.read_config(in_page, data),
            MSIX_AT.. => self.msix.mmio_read(offset - MSIX_AT, data),
            _ => {}
        }
    }

    fn mmio_write(&mut self, offset: u64, data: &[u8]) {
        let in_page = (offset % PAGE) as usize;
        match offset - offset % PAGE {
            COMMON_AT => {
                let started = lock(&self.shared.core).write_common(in_page, data);
                // What the driver put into queues before it was ready.
                if started {
                    self.shared.notify();
                }
            }
            DEVICE_AT => lock(&self.shared.core).device.write_config(in_page, data),
            NOTIFY_AT => self.shared.notify(),
            MSIX_AT.. => self.msix.mmio_write(offset - MSIX_AT, data),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
