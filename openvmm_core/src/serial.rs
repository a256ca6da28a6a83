// SPDX-License-Identifier: MIT
//! Between a UART or a virtio console and whatever it leads to.
//!
//! Always true: the device never waits. Only the thread that brings input waits, when the
//! guest does not read. Not here: files, sockets, terminals (the binary's).

use chipset::uart::SerialIo;
use chipset_device::lock;
use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use virtio::ConsoleIo;

/// Most bytes that wait for the guest to read them.
const INPUT_CAPACITY: usize = 64 << 10;

/// Takes bytes for the guest; waits while the guest has too many unread.
pub type InputSink = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// The outer end of a serial port.
pub struct SerialEnd {
    /// Takes the guest's bytes. Must not block.
    pub output: Box<dyn Write + Send>,
    /// Called once, when the port exists, with where input goes.
    pub connect_input: Box<dyn FnOnce(InputSink) + Send>,
}

/// The outer ends of everything serial that a VM has.
#[derive(Debug, Default)]
pub struct SerialEnds {
    /// COM1 to COM4.
    pub com: [Option<SerialEnd>; 4],
    /// The virtio console.
    pub virtio: Option<SerialEnd>,
}

impl std::fmt::Debug for SerialEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SerialEnd")
    }
}

/// The inner end, which the device talks to.
pub(crate) struct SerialBridge {
    output: Mutex<Box<dyn Write + Send>>,
    input: Mutex<VecDeque<u8>>,
    taken: Condvar,
}

impl SerialBridge {
    pub(crate) fn new(output: Box<dyn Write + Send>) -> Arc<Self> {
        Arc::new(Self {
            output: Mutex::new(output),
            input: Mutex::default(),
            taken: Condvar::new(),
        })
    }

    fn write(&self, bytes: &[u8]) {
        let mut output = lock(&self.output);
        // The output is a queue that reports its own troubles.
        let _ = output.write_all(bytes);
    }

    fn take(&self, buffer: &mut [u8]) -> usize {
        let mut queue = self.waiting();
        let count = buffer.len().min(queue.len());
        for (slot, byte) in buffer.iter_mut().zip(queue.drain(..count)) {
            *slot = byte;
        }
        if count > 0 {
            self.taken.notify_all();
        }
        count
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<u8>> {
        lock(&self.input)
    }

    /// A sink that queues bytes and then calls `ready`.
    pub(crate) fn sink(self: &Arc<Self>, ready: impl Fn() + Send + Sync + 'static) -> InputSink {
        let bridge = self.clone();
        Arc::new(move |bytes: &[u8]| {
            for chunk in bytes.chunks(INPUT_CAPACITY / 2) {
                let full = |queue: &mut VecDeque<u8>| queue.len() + chunk.len() > INPUT_CAPACITY;
                let queue = bridge.taken.wait_while(bridge.waiting(), full);
                queue.unwrap_or_else(PoisonError::into_inner).extend(chunk);
                ready();
            }
        })
    }
}

impl SerialIo for SerialBridge {
    fn output(&self, byte: u8) {
        self.write(&[byte]);
    }

    fn input(&self, buffer: &mut [u8]) -> usize {
        self.take(buffer)
    }
}

impl ConsoleIo for SerialBridge {
    fn output(&self, bytes: &[u8]) {
        self.write(bytes);
    }

    fn input(&self, buffer: &mut [u8]) -> usize {
        self.take(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn input_waits_for_room_and_loses_nothing() {
        let bridge = SerialBridge::new(Box::new(std::io::sink()));
        let rings = Arc::new(AtomicU32::new(0));
        let sink = bridge.sink({
            let rings = rings.clone();
            move || {
                rings.fetch_add(1, Ordering::SeqCst);
            }
        });
        let sent: Vec<u8> = (0..3 * INPUT_CAPACITY).map(|i| i as u8).collect();
        let writer = std::thread::spawn({
            let sent = sent.clone();
            move || sink(&sent)
        });
        let mut seen: Vec<u8> = Vec::new();
        let mut buffer = [0; 1000];
        while seen.len() < sent.len() {
            let count = bridge.take(&mut buffer);
            assert!(bridge.waiting().len() <= INPUT_CAPACITY);
            seen.extend(&buffer[..count]);
        }
        writer.join().unwrap();
        assert!(seen == sent);
        assert_eq!(rings.load(Ordering::SeqCst), 6);
        assert_eq!(bridge.take(&mut buffer), 0);
    }
}
