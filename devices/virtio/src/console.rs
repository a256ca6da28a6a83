// SPDX-License-Identifier: MIT
//! Console device (section 5.3): one port, bytes in and out.
//!
//! Always true: input waits at the host while the guest has no buffers. Whoever brings input calls
//! [`crate::Waker::wake`].

use crate::device::VirtioDevice;
use crate::queue::{QueueError, VirtQueue};
use io_thread::Progress;
use std::sync::Arc;

const INPUT: usize = 0;
const OUTPUT: usize = 1;
/// Bytes moved at a time.
const PART: usize = 4096;
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
            let mut done = 0;
            while done < chain.readable.total() {
                let mut bytes = [0; PART];
                let part = chain.readable.part(done, PART as u64);
                let Ok(count @ 1..) = part.read(queue.ram(), &mut bytes) else {
                    break;
                };
                self.io.output(&bytes[..count]);
                done += count as u64;
            }
            queue.push(chain, 0)?;
        }
        Ok(Progress::More)
    }

    fn reset(&mut self) {}
}
