// SPDX-License-Identifier: MIT
//! Console device (section 5.3): one port, bytes in and out.
//!
//! Always true: input waits at the host while the guest has no buffers. Whoever brings input calls
//! [`crate::Waker::wake`].

use crate::device::VirtioDevice;
use crate::pieces::Pieces;
use crate::queue::{QueueError, VirtQueue};
use guest_memory::DmaMemory;
use io_thread::Progress;
use std::sync::Arc;

const INPUT: usize = 0;
const OUTPUT: usize = 1;
/// Bytes moved at a time.
const PART: usize = 4096;
/// Most bytes of one chain that are shown; no driver writes as much at a time.
const MOST_OUTPUT: usize = 1 << 20;
/// Chains in each direction before others are let at the device's registers.
const BATCH: usize = 64;

/// The host's end of a console. Neither call may block.
pub trait ConsoleIo: Send + Sync {
    /// Takes the guest's bytes.
    fn output(&self, bytes: &[u8]);
    /// Gives bytes for the guest; how many.
    fn input(&self, buffer: &mut [u8]) -> usize;
}

/// The device.
pub struct Console {
    io: Arc<dyn ConsoleIo>,
}

impl Console {
    /// A console that leads to `io`.
    pub fn new(io: Arc<dyn ConsoleIo>) -> Self {
        Self { io }
    }

    /// Hands over the guest's bytes, at most [`MOST_OUTPUT`] of one chain.
    fn output(&self, ram: &DmaMemory, pieces: &Pieces) {
        let mut budget = MOST_OUTPUT;
        let mut bytes = [0; PART];
        for &(gpa, len) in pieces.as_slice() {
            let mut done = 0;
            while done < u64::from(len) && budget > 0 {
                let count = (u64::from(len) - done).min(PART as u64) as usize;
                let Some(at) = gpa.checked_add(done) else { return };
                if ram.read(at, &mut bytes[..count]).is_err() {
                    return;
                }
                self.io.output(&bytes[..count]);
                done += count as u64;
                budget = budget.saturating_sub(count);
            }
        }
    }

    fn input(&self, queue: &mut VirtQueue) -> Result<(), QueueError> {
        let mut bytes = [0; PART];
        for _ in 0..BATCH {
            let Some(chain) = queue.pop()? else { break };
            let room = chain.writable.total().min(PART as u64) as usize;
            let count = self.io.input(&mut bytes[..room]);
            if count == 0 {
                queue.unpop();
                break;
            }
            let written = chain.writable.write(queue.ram(), &bytes[..count]).unwrap_or(0);
            queue.push(chain, written as u32)?;
        }
        Ok(())
    }
}

impl VirtioDevice for Console {
    fn kind(&self) -> u16 {
        3
    }

    fn class(&self) -> [u8; 3] {
        // Communication controller, other.
        [7, 0x80, 0]
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[64, 64]
    }

    fn read_config(&self, _offset: usize, _data: &mut [u8]) {}

    fn activate(&mut self, _features: u64) {}

    fn process(&mut self, queues: &mut [VirtQueue]) -> Result<Progress, QueueError> {
        if let Some(queue) = queues.get_mut(INPUT) {
            self.input(queue)?;
        }
        let Some(queue) = queues.get_mut(OUTPUT) else {
            return Ok(Progress::Idle);
        };
        for _ in 0..BATCH {
            let Some(chain) = queue.pop()? else {
                return Ok(Progress::Idle);
            };
            self.output(queue.ram(), &chain.readable);
            queue.push(chain, 0)?;
        }
        Ok(Progress::More)
    }

    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests;
