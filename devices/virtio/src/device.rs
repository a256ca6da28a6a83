// SPDX-License-Identifier: MIT
//! What a virtio device is to the transport.

use crate::queue::{QueueError, VirtQueue};
use io_thread::{Progress, Watch};

/// A device type. The transport owns the queues and calls the device with its lock held, on a VP's thread or on
/// the device's own.
pub trait VirtioDevice: Send {
    /// Device type (section 5).
    fn kind(&self) -> u16;

    /// PCI class code: class, subclass, programming interface.
    fn class(&self) -> [u8; 3];

    /// Offered features of this type, bits 0 to 23 and 50 to 63; the transport adds its own.
    fn features(&self) -> u64;

    /// Largest size of each queue, powers of two.
    fn queue_sizes(&self) -> &[u16];

    /// Device configuration from `offset` on; bytes past its end stay as they are (zero).
    fn read_config(&self, offset: usize, data: &mut [u8]);

    /// The driver writes device configuration.
    fn write_config(&mut self, _offset: usize, _data: &[u8]) {}

    /// The driver is ready, with these of the offered features.
    fn activate(&mut self, features: u64);

    /// Does what can be done now: serve queues, move host data. Called after a notification and after something
    /// watched became ready; queues that the driver has not enabled have nothing to pop.
    fn process(&mut self, queues: &mut [VirtQueue]) -> Result<Progress, QueueError>;

    /// Does what takes no waiting, on the VP that notifies, before the device's thread is woken; `true` when nothing is
    /// left. Only asked when [`VirtioDevice::works_at_once`].
    fn process_now(&mut self, _queues: &mut [VirtQueue]) -> Result<bool, QueueError> {
        Ok(false)
    }

    /// Some of its work takes no waiting. Waking a thread costs more than that work.
    fn works_at_once(&self) -> bool {
        false
    }

    /// What to wait for besides notifications. Only asked on a thread of its own.
    fn watches(&self) -> Vec<Watch> {
        Vec::new()
    }

    /// The device works on threads only, because the host decides when things happen.
    fn needs_thread(&self) -> bool {
        false
    }

    /// Back to what it was when made.
    fn reset(&mut self);

    /// State for `inspect`, as lines of `name value`.
    fn inspect(&self) -> String {
        String::new()
    }
}
