// SPDX-License-Identifier: MIT
//! A device's registers and the driver's handshake (sections 2.1 to 2.4 and 4.1.4.3).
//!
//! Always true: the device is only called between DRIVER_OK and the next reset, and not after its queues
//! were found broken; then NEEDS_RESET is set, as section 2.1.2 asks.

use crate::device::VirtioDevice;
use crate::interrupts::Interrupts;
use crate::lock;
use crate::queue::{NO_VECTOR, QueueError, VirtQueue};
use guest_memory::DmaMemory;
use io_thread::{Bell, Job, Progress, Watch};
use std::sync::{Arc, Mutex};
use virtio_queue::QueueT;

/// Bits of the device status register.
const FEATURES_OK: u8 = 8;
const DRIVER_OK: u8 = 4;
const NEEDS_RESET: u8 = 0x40;

/// Features of every device: indirect descriptors, event index, version 1.
pub(crate) const INDIRECT: u64 = 1 << 28;
pub(crate) const EVENT_INDEX: u64 = 1 << 29;
pub(crate) const VERSION_1: u64 = 1 << 32;

/// Bytes of the common configuration structure.
pub(crate) const COMMON_LEN: usize = 0x40;

/// What the guest's accesses and the device's thread share.
pub(crate) struct Shared {
    pub(crate) core: Mutex<Core>,
    pub(crate) interrupts: Interrupts,
    /// The device has work that takes no waiting.
    pub(crate) works_at_once: bool,
    /// Rings the device's thread; without one, VPs do the work.
    pub(crate) bell: Option<Arc<Bell>>,
}

impl Shared {
    /// The driver has put something into a queue.
    pub(crate) fn notify(&self) {
        match &self.bell {
            Some(bell) => {
                if !self.work_now() {
                    bell.ring();
                }
            }
            None => self.work_here(),
        }
    }

    /// Does what takes no waiting; `false` when there is more.
    fn work_now(&self) -> bool {
        if !self.works_at_once {
            return false;
        }
        // While the device's thread is at work, it takes what is new.
        self.core
            .try_lock()
            .is_ok_and(|mut core| core.work_now(&self.interrupts))
    }

    /// Works on the thread that asks. A driver cannot add to its queues meanwhile, so they are empty after as many
    /// rounds; rings that the device's own writes refill are left for the next notification.
    fn work_here(&self) {
        const ROUNDS: u32 = 64;
        for _ in 0..ROUNDS {
            if self.work() == Progress::Idle {
                break;
            }
        }
    }
}

impl Job for Shared {
    fn work(&self) -> Progress {
        lock(&self.core).work(&self.interrupts)
    }

    fn watches(&self) -> Vec<Watch> {
        lock(&self.core).device.watches()
    }
}

/// The registers, the queues and the device.
pub(crate) struct Core {
    name: String,
    pub(crate) device: Box<dyn VirtioDevice>,
    queues: Vec<VirtQueue>,
    pub(crate) msix_vectors: u16,
    status: u8,
    driver_features: u64,
    feature_select: [u32; 2],
    queue_select: u16,
    config_vector: u16,
    /// What went wrong, once; later mistakes are only counted.
    mistakes: u64,
}

impl Core {
    pub(crate) fn new(
        name: &str,
        device: Box<dyn VirtioDevice>,
        ram: &DmaMemory,
    ) -> Result<Self, virtio_queue::Error> {
        let queues = device
            .queue_sizes()
            .iter()
            .map(|&size| VirtQueue::new(size, ram.clone()))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            name: name.to_owned(),
            device,
            // One for each queue and one for the configuration.
            msix_vectors: queues.len() as u16 + 1,
            queues,
            status: 0,
            driver_features: 0,
            feature_select: [0; 2],
            queue_select: 0,
            config_vector: NO_VECTOR,
            mistakes: 0,
        })
    }

    pub(crate) fn offered(&self) -> u64 {
        self.device.features() | INDIRECT | EVENT_INDEX | VERSION_1
    }

    fn runs(&self) -> bool {
        self.status & (DRIVER_OK | NEEDS_RESET) == DRIVER_OK
    }

    fn work(&mut self, interrupts: &Interrupts) -> Progress {
        if !self.runs() {
            return Progress::Idle;
        }
        self.serve(interrupts).unwrap_or_else(|error| {
            self.fail(&error, interrupts);
            Progress::Idle
        })
    }

    fn serve(&mut self, interrupts: &Interrupts) -> Result<Progress, QueueError> {
        for queue in &mut self.queues {
            queue.quiet()?;
        }
        let progress = self.device.process(&mut self.queues)?;
        let came = self.settle(interrupts)?;
        Ok(if came { Progress::More } else { progress })
    }

    /// Does what takes no waiting; `false` when there is more.
    fn work_now(&mut self, interrupts: &Interrupts) -> bool {
        if !self.runs() {
            return true;
        }
        let done = self.device.process_now(&mut self.queues);
        let settled = done.and_then(|done| Ok(!self.settle(interrupts)? && done));
        settled.unwrap_or_else(|error| {
            self.fail(&error, interrupts);
            true
        })
    }

    /// Interrupts for what was returned, and notifications again; whether chains came meanwhile.
    fn settle(&mut self, interrupts: &Interrupts) -> Result<bool, QueueError> {
        for queue in &mut self.queues {
            if queue.take_interrupt()? {
                interrupts.queue(queue.vector);
            }
        }
        let mut came = false;
        for queue in &mut self.queues {
            came |= queue.listen()?;
        }
        Ok(came)
    }

    fn fail(&mut self, error: &QueueError, interrupts: &Interrupts) {
        self.mistakes += 1;
        if self.mistakes == 1 {
            tracing::warn!(
                "{}: {error}; the device stops until its driver resets it (said once)",
                self.name
            );
        }
        self.status |= NEEDS_RESET;
        interrupts.configuration(self.config_vector);
    }

    pub(crate) fn reset(&mut self) {
        self.device.reset();
        self.queues.iter_mut().for_each(VirtQueue::reset);
        self.status = 0;
        self.driver_features = 0;
        self.feature_select = [0; 2];
        self.queue_select = 0;
        self.config_vector = NO_VECTOR;
    }

    pub(crate) fn inspect(&self) -> String {
        let mut out = format!(
            "status {:#x}\nfeatures {:#x}\nmistakes {}\n",
            self.status, self.driver_features, self.mistakes
        );
        for (i, queue) in self.queues.iter().enumerate().filter(|(_, q)| q.queue.ready()) {
            let (next, used) = (queue.queue.next_avail(), queue.queue.next_used());
            out += &format!("queue{i} size {} avail {next} used {used}\n", queue.size());
        }
        out + &self.device.inspect()
    }

    /// The common configuration structure as bytes.
    pub(crate) fn common(&self) -> [u8; COMMON_LEN] {
        let mut bytes = [0; COMMON_LEN];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        let half = |value: u64, select: u32| match select {
            0 => value as u32,
            1 => (value >> 32) as u32,
            _ => 0,
        };
        let [device_select, driver_select] = self.feature_select;
        put(0x00, &device_select.to_le_bytes());
        put(0x04, &half(self.offered(), device_select).to_le_bytes());
        put(0x08, &driver_select.to_le_bytes());
        put(0x0C, &half(self.driver_features, driver_select).to_le_bytes());
        put(0x10, &self.config_vector.to_le_bytes());
        put(0x12, &(self.queues.len() as u16).to_le_bytes());
        put(0x14, &[self.status]);
        put(0x16, &self.queue_select.to_le_bytes());
        if let Some(queue) = self.queues.get(usize::from(self.queue_select)) {
            put(0x18, &queue.queue.size().to_le_bytes());
            put(0x1A, &queue.vector.to_le_bytes());
            put(0x1C, &u16::from(queue.queue.ready()).to_le_bytes());
            // Notifications of queue n go to n times the multiplier.
            put(0x1E, &self.queue_select.to_le_bytes());
            put(0x20, &queue.queue.desc_table().to_le_bytes());
            put(0x28, &queue.queue.avail_ring().to_le_bytes());
            put(0x30, &queue.queue.used_ring().to_le_bytes());
        }
        bytes
    }

    /// A write of 1, 2, 4 or 8 bytes to the common configuration structure; others have no effect. Gives whether
    /// the device was started.
    pub(crate) fn write_common(&mut self, offset: usize, data: &[u8]) -> bool {
        let mut bytes = [0; 8];
        bytes[..data.len().min(8)].copy_from_slice(&data[..data.len().min(8)]);
        let value = u64::from_le_bytes(bytes);
        let low = value as u32;
        match (offset, data.len()) {
            (0x00, 4) => self.feature_select[0] = low,
            (0x08, 4) => self.feature_select[1] = low,
            (0x0C, 4) if self.status & FEATURES_OK == 0 => self.select_features(low),
            (0x10, 2) => self.config_vector = self.vector(low as u16),
            (0x14, 1) => return self.write_status(low as u8),
            (0x16, 2) => self.queue_select = low as u16,
            (0x18..0x38, _) => self.write_queue(offset, data.len(), value),
            _ => {}
        }
        false
    }

    fn select_features(&mut self, value: u32) {
        let value = u64::from(value);
        match self.feature_select[1] {
            0 => self.driver_features = self.driver_features & !0xFFFF_FFFF | value,
            1 => self.driver_features = self.driver_features & 0xFFFF_FFFF | value << 32,
            _ => {}
        }
    }

    /// A message number as the register keeps it: none when the function has no such message.
    fn vector(&self, wanted: u16) -> u16 {
        if wanted < self.msix_vectors {
            wanted
        } else {
            NO_VECTOR
        }
    }

    fn write_status(&mut self, value: u8) -> bool {
        if value == 0 {
            self.reset();
            return false;
        }
        let acceptable = self.driver_features & !self.offered() == 0 && self.driver_features & VERSION_1 != 0;
        let mut value = value & !NEEDS_RESET | self.status & NEEDS_RESET;
        if !acceptable {
            value &= !FEATURES_OK;
        }
        let starts = value & DRIVER_OK != 0 && self.status & DRIVER_OK == 0;
        if starts && value & FEATURES_OK == 0 {
            // A driver that goes on without agreement (section 3.1.1 step 6) gets no device.
            value &= !DRIVER_OK;
        }
        self.status = value;
        if !starts || !self.runs() {
            return false;
        }
        self.device.activate(self.driver_features);
        let event_index = self.driver_features & EVENT_INDEX != 0;
        for queue in &mut self.queues {
            queue.queue.set_event_idx(event_index);
            queue.active = queue.queue.ready();
        }
        true
    }

    fn write_queue(&mut self, offset: usize, len: usize, value: u64) {
        let (vector, runs) = (self.vector(value as u16), self.runs());
        let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else {
            return;
        };
        let low = value as u32;
        match (offset, len) {
            (0x1A, 2) => {
                queue.vector = vector;
                return;
            }
            // Only then may the rest change (section 4.1.4.3.2).
            _ if queue.queue.ready() => return,
            _ => {}
        }
        let ring = &mut queue.queue;
        match (offset, len) {
            // A size that is no power of two, or too large, is not taken; the driver reads back what holds.
            (0x18, 2) if ring.try_set_size(low as u16).is_err() => {}
            (0x1C, 2) if low == 1 => {
                ring.set_ready(true);
                queue.active = runs;
            }
            (0x20, 4) => ring.set_desc_table_address(Some(low), None),
            (0x24, 4) => ring.set_desc_table_address(None, Some(low)),
            (0x28, 4) => ring.set_avail_ring_address(Some(low), None),
            (0x2C, 4) => ring.set_avail_ring_address(None, Some(low)),
            (0x30, 4) => ring.set_used_ring_address(Some(low), None),
            (0x34, 4) => ring.set_used_ring_address(None, Some(low)),
            (0x20 | 0x28 | 0x30, 8) => {
                let (low, high) = (Some(low), Some((value >> 32) as u32));
                match offset {
                    0x20 => ring.set_desc_table_address(low, high),
                    0x28 => ring.set_avail_ring_address(low, high),
                    _ => ring.set_used_ring_address(low, high),
                }
            }
            _ => {}
        }
    }
}
