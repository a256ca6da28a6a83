// SPDX-License-Identifier: MIT
//! A driver for one NVMe controller: admin queues and one pair for commands, polled as the firmware's, whether or
//! not the pair interrupts too (NVM Express 1.4).
//!
//! Always true: one command at a time, so every ring has room. Not here: PCI.

use guest_rt::memory;
use guest_rt::time::Deadline;

/// Registers.
mod register {
    pub(super) const CONFIGURATION: u64 = 0x14;
    pub(super) const STATUS: u64 = 0x1C;
    pub(super) const ADMIN_SIZES: u64 = 0x24;
    pub(super) const ADMIN_SUBMISSION: u64 = 0x28;
    pub(super) const ADMIN_COMPLETION: u64 = 0x30;
    pub(super) const DOORBELLS: u64 = 0x1000;
}

/// Enabled, with submissions of 64 bytes and completions of 16.
const ENABLE: u32 = 0x46_0001;
const ENTRIES: u16 = 8;
/// Of memory for a controller: four pages of queues, then one for identify data.
const IDENTITY_AT: u64 = 0x4000;
const MEMORY_LEN: u64 = 0x5000;
const PATIENCE_MS: u64 = 5000;
/// What a command that never ends counts as.
const SILENT: u64 = u64::MAX;

/// Admin commands.
const CREATE_SUBMISSION: u8 = 1;
const CREATE_COMPLETION: u8 = 5;
const IDENTIFY: u8 = 6;
/// Commands of a namespace.
const FLUSH: u8 = 0;
const WRITE: u8 = 1;
const READ: u8 = 2;

#[derive(Default)]
struct Queue {
    tail: u16,
    head: u16,
    phase: bool,
}

/// A command: opcode, namespace, buffer, and the words from 10 on.
struct Command {
    opcode: u8,
    namespace: u32,
    buffer: u64,
    words: [u32; 3],
}

/// A controller, started.
pub(crate) struct Controller {
    bar: u64,
    /// Where its queues are.
    memory: u64,
    queues: [Queue; 2],
    next_id: u16,
    blocks: u64,
}

impl Controller {
    /// Resets, enables, identifies namespace 1, makes the queues in five free pages at `gpa`. With `interrupts`, the
    /// commands' pair sends message 1.
    pub(crate) fn start(bar: u64, gpa: u64, interrupts: bool) -> Option<Self> {
        let queue = || Queue {
            phase: true,
            ..Queue::default()
        };
        let mut made = Self {
            bar,
            memory: gpa,
            queues: [queue(), queue()],
            next_id: 1,
            blocks: 0,
        };
        if !made.stop() {
            return None;
        }
        (0..MEMORY_LEN / 8).for_each(|n| memory::write_u64(gpa + n * 8, 0));
        let last = u32::from(ENTRIES - 1);
        made.set(register::ADMIN_SIZES, last | last << 16);
        made.set_wide(register::ADMIN_SUBMISSION, made.submission(0));
        made.set_wide(register::ADMIN_COMPLETION, made.completion(0));
        made.set(register::CONFIGURATION, ENABLE);
        if !made.wait_ready(1) {
            return None;
        }
        let identify = |namespace, what| Command {
            opcode: IDENTIFY,
            namespace,
            buffer: gpa + IDENTITY_AT,
            words: [what, 0, 0],
        };
        // The controller, then the namespace.
        if made.run(0, &identify(0, 1)) != 0 || made.run(0, &identify(1, 0)) != 0 {
            return None;
        }
        made.blocks = memory::read_u64(gpa + IDENTITY_AT);
        let create = |opcode, buffer, how| Command {
            opcode,
            namespace: 0,
            buffer,
            words: [1 | last << 16, how, 0],
        };
        let (commands, answers) = (made.submission(1), made.completion(1));
        // In one piece; for completion queue 1.
        let message = if interrupts { 2 | 1 << 16 } else { 0 };
        let made_queues = made.run(0, &create(CREATE_COMPLETION, answers, 1 | message)) == 0
            && made.run(0, &create(CREATE_SUBMISSION, commands, 1 | 1 << 16)) == 0;
        made_queues.then_some(made)
    }

    /// Blocks of namespace 1.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The status of a read of `len` bytes, at most a page, from block `first` on.
    pub(crate) fn read(&mut self, first: u32, gpa: u64, len: u32) -> u64 {
        self.transfer(READ, first, gpa, len)
    }

    /// The status of a write.
    pub(crate) fn write(&mut self, first: u32, gpa: u64, len: u32) -> u64 {
        self.transfer(WRITE, first, gpa, len)
    }

    /// The status of a flush.
    pub(crate) fn flush(&mut self) -> u64 {
        self.run(
            1,
            &Command {
                opcode: FLUSH,
                namespace: 1,
                buffer: 0,
                words: [0; 3],
            },
        )
    }

    /// Disables the controller; whether it says so.
    pub(crate) fn stop(&mut self) -> bool {
        self.set(register::CONFIGURATION, 0);
        self.wait_ready(0)
    }

    fn transfer(&mut self, opcode: u8, first: u32, buffer: u64, len: u32) -> u64 {
        let words = [first, 0, len / 512 - 1];
        self.run(
            1,
            &Command {
                opcode,
                namespace: 1,
                buffer,
                words,
            },
        )
    }

    fn set(&self, at: u64, value: u32) {
        memory::write_u32(self.bar + at, value);
    }

    fn set_wide(&self, at: u64, value: u64) {
        self.set(at, value as u32);
        self.set(at + 4, (value >> 32) as u32);
    }

    fn wait_ready(&self, ready: u32) -> bool {
        let status = || memory::read_u32(self.bar + register::STATUS);
        Deadline::in_ms(PATIENCE_MS).wait(|| status() & 1 == ready)
    }

    /// Sends a command to pair `pair` and gives its status, 0 for success.
    fn run(&mut self, pair: u64, command: &Command) -> u64 {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let (commands, answers) = (self.submission(pair), self.completion(pair));
        let queue = &mut self.queues[pair as usize];
        let entry = commands + u64::from(queue.tail) * 64;
        (0..8).for_each(|n| memory::write_u64(entry + n * 8, 0));
        memory::write_u32(entry, u32::from(command.opcode) | u32::from(id) << 16);
        memory::write_u32(entry + 4, command.namespace);
        memory::write_u64(entry + 24, command.buffer);
        for (at, word) in [40, 44, 48].into_iter().zip(command.words) {
            memory::write_u32(entry + at, word);
        }
        queue.tail = (queue.tail + 1) % ENTRIES;
        let doorbell = self.bar + register::DOORBELLS + pair * 8;
        memory::write_u32(doorbell, queue.tail.into());
        let answer = answers + u64::from(queue.head) * 16;
        let phase = queue.phase;
        let came =
            Deadline::in_ms(PATIENCE_MS).wait(|| (memory::read_u32(answer + 12) >> 16 & 1 == 1) == phase);
        if !came {
            return SILENT;
        }
        let last = memory::read_u32(answer + 12);
        queue.head = (queue.head + 1) % ENTRIES;
        queue.phase ^= queue.head == 0;
        memory::write_u32(doorbell + 4, queue.head.into());
        if last as u16 == id {
            u64::from(last >> 17)
        } else {
            SILENT
        }
    }

    fn submission(&self, pair: u64) -> u64 {
        self.memory + pair * 0x2000
    }

    fn completion(&self, pair: u64) -> u64 {
        self.submission(pair) + 0x1000
    }
}
