// SPDX-License-Identifier: MIT
//! Network device (section 5.1) on a tap interface: one pair of queues.
//!
//! Always true: a frame that the guest cannot take whole is dropped, never cut; the host's frames wait in the
//! interface while the guest has no buffers.

use crate::device::VirtioDevice;
use crate::queue::{Chain, QueueError, VirtQueue};
use io_thread::{Progress, Watch};
use std::io;
use tap::{HEADER, MAX_FRAME, Offload, Tap};

const QUEUE_SIZE: u16 = 256;
const RECEIVE: usize = 0;
const SEND: usize = 1;
/// Frames in each direction before others are let at the device's registers.
const BATCH: usize = 64;

const CHECKSUM: u64 = 1;
const GUEST_CHECKSUM: u64 = 1 << 1;
const MAC: u64 = 1 << 5;
const GUEST_TSO4: u64 = 1 << 7;
const GUEST_TSO6: u64 = 1 << 8;
const HOST_TSO4: u64 = 1 << 11;
const HOST_TSO6: u64 = 1 << 12;
const MERGE: u64 = 1 << 15;
/// Where the header says how many buffers a frame took.
const BUFFERS_AT: usize = 10;

/// The device.
pub struct Net {
    tap: Tap,
    mac: [u8; 6],
    merge: bool,
    /// A frame that waits for buffers: its length in `frame`.
    pending: Option<usize>,
    frame: Vec<u8>,
    /// Room for a frame of the guest's.
    outgoing: Vec<u8>,
    /// The guest has no buffers, so there is no use in waiting for frames.
    starved: bool,
    received: u64,
    sent: u64,
    dropped: u64,
    complained: bool,
}

impl Net {
    /// A device on `tap` with the address `mac`.
    pub fn new(tap: Tap, mac: [u8; 6]) -> Self {
        Self {
            tap,
            mac,
            merge: false,
            pending: None,
            frame: vec![0; MAX_FRAME],
            outgoing: vec![0; MAX_FRAME],
            starved: true,
            received: 0,
            sent: 0,
            dropped: 0,
            complained: false,
        }
    }

    fn complain(&mut self, what: &str, error: &io::Error) {
        self.dropped += 1;
        if !self.complained {
            self.complained = true;
            tracing::warn!("{}: cannot {what} a frame: {error} (said once)", self.tap.name());
        }
    }

    fn receive(&mut self, queue: &mut VirtQueue) -> Result<Progress, QueueError> {
        for _ in 0..BATCH {
            let len = match self.pending.take() {
                Some(len) => len,
                None if !queue.is_waiting() => {
                    self.starved = true;
                    return Ok(Progress::Idle);
                }
                None => match self.tap.read(&mut self.frame) {
                    Ok(len) => len,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.starved = false;
                        return Ok(Progress::Idle);
                    }
                    Err(error) => {
                        self.complain("receive", &error);
                        self.starved = false;
                        return Ok(Progress::Idle);
                    }
                },
            };
            if !self.deliver(queue, len)? {
                self.pending = Some(len);
                self.starved = true;
                return Ok(Progress::Idle);
            }
        }
        Ok(Progress::More)
    }

    /// Puts the frame into the guest's buffers; `false` when there are not enough yet.
    fn deliver(&mut self, queue: &mut VirtQueue, len: usize) -> Result<bool, QueueError> {
        let mut chains: Vec<Chain> = Vec::new();
        let mut room = 0;
        while room < len as u64 {
            let Some(chain) = queue.pop()? else {
                chains.iter().for_each(|_| queue.unpop());
                return Ok(false);
            };
            room += chain.writable.total();
            chains.push(chain);
            if !self.merge && room < len as u64 || chains.len() > usize::from(queue.size()) {
                // It never fits: the buffers go back empty.
                self.dropped += 1;
                for chain in chains {
                    queue.push(chain, 0)?;
                }
                return Ok(true);
            }
        }
        let buffers = chains.len() as u16;
        self.frame[BUFFERS_AT..HEADER].copy_from_slice(&buffers.to_le_bytes());
        let mut at = 0;
        for chain in chains {
            // A buffer outside RAM swallows its part.
            let want = (len - at).min(chain.writable.total() as usize);
            let part = chain.writable.write(queue.ram(), &self.frame[at..at + want]);
            at += want;
            queue.push(chain, part.unwrap_or(0) as u32)?;
        }
        self.received += 1;
        Ok(true)
    }

    fn send(&mut self, queue: &mut VirtQueue) -> Result<Progress, QueueError> {
        let mut frame = std::mem::take(&mut self.outgoing);
        let progress = self.send_batch(queue, &mut frame);
        self.outgoing = frame;
        progress
    }

    fn send_batch(&mut self, queue: &mut VirtQueue, frame: &mut [u8]) -> Result<Progress, QueueError> {
        for _ in 0..BATCH {
            let Some(chain) = queue.pop()? else {
                return Ok(Progress::Idle);
            };
            let total = chain.readable.total();
            let sent = match chain.readable.read(queue.ram(), frame) {
                Ok(len) if total == len as u64 && len > HEADER => {
                    // Only for received frames.
                    frame[BUFFERS_AT..HEADER].fill(0);
                    self.tap.write(&frame[..len])
                }
                Ok(_) => Err(io::Error::other(format!(
                    "a frame of {total:#x} bytes with its header"
                ))),
                Err(error) => Err(io::Error::other(error)),
            };
            match sent {
                Ok(()) => self.sent += 1,
                // The interface is full: frames get lost, as on a wire.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.dropped += 1,
                Err(error) => self.complain("send", &error),
            }
            queue.push(chain, 0)?;
        }
        Ok(Progress::More)
    }
}

impl VirtioDevice for Net {
    fn kind(&self) -> u16 {
        1
    }

    fn class(&self) -> [u8; 3] {
        // Ethernet controller.
        [2, 0, 0]
    }

    fn features(&self) -> u64 {
        CHECKSUM | GUEST_CHECKSUM | MAC | GUEST_TSO4 | GUEST_TSO6 | HOST_TSO4 | HOST_TSO6 | MERGE
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        for (to, from) in data.iter_mut().zip(self.mac.iter().skip(offset)) {
            *to = *from;
        }
    }

    fn activate(&mut self, features: u64) {
        self.merge = features & MERGE != 0;
        let offload = Offload {
            checksum: features & GUEST_CHECKSUM != 0,
            tcp4: features & GUEST_TSO4 != 0,
            tcp6: features & GUEST_TSO6 != 0,
        };
        if let Err(error) = self.tap.set_offload(offload) {
            self.complain("agree on the form of", &error);
        }
    }

    fn process(&mut self, queues: &mut [VirtQueue]) -> Result<Progress, QueueError> {
        let mut progress = Progress::Idle;
        if let Some(queue) = queues.get_mut(SEND)
            && self.send(queue)? == Progress::More
        {
            progress = Progress::More;
        }
        if let Some(queue) = queues.get_mut(RECEIVE)
            && self.receive(queue)? == Progress::More
        {
            progress = Progress::More;
        }
        Ok(progress)
    }

    fn watches(&self) -> Vec<Watch> {
        let frames = Watch {
            fd: self.tap.fd(),
            readable: true,
            writable: false,
        };
        (!self.starved).then_some(frames).into_iter().collect()
    }

    fn needs_thread(&self) -> bool {
        true
    }

    fn reset(&mut self) {
        self.merge = false;
        self.pending = None;
        self.starved = true;
    }

    fn inspect(&self) -> String {
        let mac = self.mac.map(|byte| format!("{byte:02x}")).join(":");
        format!(
            "tap {}\nmac {mac}\nreceived {}\nsent {}\ndropped {}\n",
            self.tap.name(),
            self.received,
            self.sent,
            self.dropped
        )
    }
}

#[cfg(test)]
mod tests;
