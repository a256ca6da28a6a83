// SPDX-License-Identifier: MIT
//! The controller as a PCI function: registers, doorbells and MSI-X in BAR 0 (NVMe over PCIe 1.4 section 3).
//!
//! Always true: a doorbell never waits for a command that is being carried out.

use crate::controller::Controller;
use crate::identify::VENDOR;
use crate::lock;
use crate::queues::{Doorbells, IO_QUEUES, QUEUES};
use block::Disk;
use chipset_device::{Device, InterruptLine, MmioDevice, MsiTarget};
use guest_memory::DmaMemory;
use io_thread::{Bell, Job, Progress, Worker};
use pci::{Bar, BarKind, ConfigSpace, Identity, Msix, MsixRegion, PciFunction};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// The device id that goes with [`VENDOR`] for an NVMe controller.
const DEVICE: u16 = 0x0010;
const DOORBELLS_AT: u64 = 0x1000;
const MSIX_AT: u64 = 0x2000;
const REGISTERS: u64 = 0x40;

/// How the controller reaches the machine.
pub struct Wiring {
    /// Guest memory.
    pub ram: DmaMemory,
    /// Takes MSI-X messages.
    pub msi: Arc<dyn MsiTarget>,
    /// The function's INTA.
    pub line: InterruptLine,
    /// Commands are carried out on a thread of their own; without, on the VP that rings.
    pub threads: bool,
}

struct Shared {
    controller: Mutex<Controller>,
    doorbells: Arc<Doorbells>,
    msix: Arc<Msix>,
    line: InterruptLine,
    pin_allowed: AtomicBool,
    /// A completion queue is full, or the pin is in use: the guest's taking of completions matters.
    heads_matter: AtomicBool,
    bell: Option<Arc<Bell>>,
}

impl Job for Shared {
    fn work(&self) -> Progress {
        let mut controller = lock(&self.controller);
        let progress = controller.work();
        let fresh = controller.take_fresh();
        if self.msix.enabled() {
            fresh.into_iter().for_each(|vector| self.msix.trigger(vector));
        }
        self.drive(&controller);
        // What the guest took before it was told that this matters.
        if progress == Progress::Idle && controller.has_work() {
            return Progress::More;
        }
        progress
    }
}

impl Shared {
    fn wake(&self) {
        match &self.bell {
            Some(bell) => bell.ring(),
            None => self.work_here(),
        }
    }

    /// Works on the thread that asks. A guest cannot ring meanwhile, so its queues are empty after as many rounds.
    fn work_here(&self) {
        const ROUNDS: u32 = 64;
        for _ in 0..ROUNDS {
            if self.work() == Progress::Idle {
                break;
            }
        }
    }

    fn drive(&self, controller: &Controller) {
        let pin_in_use = !self.msix.enabled();
        let high = pin_in_use && self.pin_allowed.load(Ordering::Acquire) && controller.pin();
        self.line.set(high);
        self.heads_matter
            .store(pin_in_use || controller.is_stuck(), Ordering::SeqCst);
    }
}

/// The function. Its BAR 0 is answered by [`NvmePci::bar`].
pub struct NvmePci {
    config: ConfigSpace,
    shared: Arc<Shared>,
    bar: Arc<Mutex<NvmeBar>>,
    /// Dropped last, ends the controller's thread.
    _worker: Option<Worker>,
}

/// What answers in the BAR.
pub struct NvmeBar {
    shared: Arc<Shared>,
    msix: MsixRegion,
}

impl NvmePci {
    /// A controller whose namespaces 1, 2, ... are `disks`; `name` appears in messages and as serial number.
    pub fn new(name: &str, disks: Vec<Arc<Disk>>, wiring: Wiring) -> io::Result<Self> {
        let doorbells = Arc::new(Doorbells::default());
        let msix = Msix::new(IO_QUEUES + 1, wiring.msi);
        let shared = Arc::new(Shared {
            controller: Mutex::new(Controller::new(name, disks, wiring.ram, doorbells.clone())),
            doorbells,
            msix: msix.clone(),
            line: wiring.line,
            pin_allowed: AtomicBool::new(true),
            heads_matter: AtomicBool::new(true),
            bell: wiring.threads.then(Bell::new).transpose()?,
        });
        let region = MsixRegion::new(msix.clone());
        let mut config = ConfigSpace::new(Identity {
            vendor: VENDOR,
            device: DEVICE,
            revision: 1,
            // Mass storage, non-volatile memory, NVM Express.
            class: [1, 8, 2],
            subsystem: (VENDOR, DEVICE),
        });
        config.set_interrupt_pin(0);
        let kind = BarKind::Memory64 { prefetchable: false };
        config.add_bar(Bar {
            index: 0,
            kind,
            size: Bar::size_for(kind, MSIX_AT + region.region_len()),
        });
        let pending = MSIX_AT + region.pending_offset();
        config
            .add_msix(msix, 0, MSIX_AT as u32, pending as u32)
            .ok_or_else(|| io::Error::other("the capability does not fit the configuration space"))?;
        let worker = match &shared.bell {
            Some(bell) => Some(Worker::spawn(name, bell.clone(), shared.clone())?),
            None => None,
        };
        let bar = NvmeBar {
            shared: shared.clone(),
            msix: region,
        };
        Ok(Self {
            config,
            shared,
            bar: Arc::new(Mutex::new(bar)),
            _worker: worker,
        })
    }

    /// What answers in BAR 0.
    pub fn bar(&self) -> Arc<Mutex<NvmeBar>> {
        self.bar.clone()
    }
}

impl Device for NvmePci {
    fn reset(&mut self) {
        let mut controller = lock(&self.shared.controller);
        controller.reset();
        self.shared.pin_allowed.store(true, Ordering::Release);
        self.shared.drive(&controller);
        drop(controller);
        self.config.reset();
    }

    fn inspect(&self) -> String {
        let controller = lock(&self.shared.controller).inspect();
        format!(
            "{}msix {}\n{controller}",
            self.config.inspect(),
            self.shared.msix.enabled()
        )
    }
}

impl PciFunction for NvmePci {
    fn config(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_written(&mut self, _offset: u16, _len: usize) {
        self.shared
            .pin_allowed
            .store(self.config.intx_enabled(), Ordering::Release);
        self.shared.drive(&lock(&self.shared.controller));
    }
}

impl NvmeBar {
    fn ring(&self, offset: u64, value: u32) {
        let n = ((offset - DOORBELLS_AT) / 4) as usize;
        self.shared.doorbells.ring(n, value);
        if n < 2 * QUEUES && (n.is_multiple_of(2) || self.shared.heads_matter.load(Ordering::SeqCst)) {
            self.shared.wake();
        }
    }
}

impl Device for NvmeBar {
    // The function resets what is behind the BAR.
    fn reset(&mut self) {}
}

impl MmioDevice for NvmeBar {
    fn mmio_read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match offset {
            0..REGISTERS => {
                let registers = lock(&self.shared.controller).registers();
                for (to, from) in data.iter_mut().zip(registers.iter().skip(offset as usize)) {
                    *to = *from;
                }
            }
            MSIX_AT.. => self.msix.mmio_read(offset - MSIX_AT, data),
            _ => {}
        }
    }

    fn mmio_write(&mut self, offset: u64, data: &[u8]) {
        if offset >= MSIX_AT {
            self.msix.mmio_write(offset - MSIX_AT, data);
            return;
        }
        // Registers take aligned doublewords, one or two; other accesses have no effect.
        let (dwords, rest) = data.as_chunks::<4>();
        if !offset.is_multiple_of(4) || !rest.is_empty() {
            return;
        }
        for (at, dword) in (offset..).step_by(4).zip(dwords) {
            let value = u32::from_le_bytes(*dword);
            if at >= DOORBELLS_AT {
                self.ring(at, value);
            } else {
                let mut controller = lock(&self.shared.controller);
                controller.write(at, value);
                self.shared.drive(&controller);
            }
        }
    }
}

#[cfg(test)]
mod tests;
