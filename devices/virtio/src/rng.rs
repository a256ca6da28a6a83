// SPDX-License-Identifier: MIT
//! Entropy device (section 5.4).
//!
//! Always true: a buffer is filled with fresh bytes or given back empty.

use crate::device::VirtioDevice;
use crate::queue::{QueueError, VirtQueue};
use io_thread::Progress;

/// Most bytes for one buffer; drivers ask again.
const MOST: u64 = 4096;
/// Buffers before others are let at the device's registers.
const BATCH: usize = 64;

/// Fills a buffer with random bytes, or says why not.
pub type RandomSource = Box<dyn FnMut(&mut [u8]) -> Result<(), String> + Send>;

/// The device.
pub struct Rng {
    source: RandomSource,
    failed: bool,
}

impl Rng {
    /// A device that hands out what `source` gives.
    pub fn new(source: RandomSource) -> Self {
        Self {
            source,
            failed: false,
        }
    }
}

impl VirtioDevice for Rng {
    fn kind(&self) -> u16 {
        4
    }

    fn class(&self) -> [u8; 3] {
        // Encryption controller, other.
        [0x10, 0x80, 0]
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[64]
    }

    fn read_config(&self, _offset: usize, _data: &mut [u8]) {}

    fn activate(&mut self, _features: u64) {}

    fn process(&mut self, queues: &mut [VirtQueue]) -> Result<Progress, QueueError> {
        let Some(queue) = queues.first_mut() else {
            return Ok(Progress::Idle);
        };
        for _ in 0..BATCH {
            let Some(chain) = queue.pop()? else {
                return Ok(Progress::Idle);
            };
            let mut bytes = vec![0; chain.writable.total().min(MOST) as usize];
            let written = match (self.source)(&mut bytes) {
                Ok(()) => chain.writable.write(queue.ram(), &bytes).unwrap_or(0),
                Err(reason) => {
                    if !std::mem::replace(&mut self.failed, true) {
                        tracing::warn!("the entropy device has nothing to give: {reason} (said once)");
                    }
                    0
                }
            };
            queue.push(chain, written as u32)?;
        }
        Ok(Progress::More)
    }

    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests;
