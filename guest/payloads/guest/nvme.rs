// SPDX-License-Identifier: MIT
//! A driver for one NVMe controller: the admin queues and one pair of I/O queues, one command at a time
//! (NVM Express 1.4).

use crate::virtio_pci::Function;
use guest_rt::protocol::flat::FREE_GPA;
use guest_rt::time::Deadline;
use guest_rt::{cpu, lapic, memory, trap};

/// Queue pairs, a page per queue.
const QUEUES: u64 = FREE_GPA + 0x30_0000;
const ENTRIES: u32 = 16;
const VECTOR: u8 = 0x55;
const PATIENCE_MS: u64 = 5000;
/// Enabled, entries of 64 and 16 bytes.
const CONFIGURATION: u32 = 0x0046_0001;

const ADMIN: u16 = 0;
/// The pair for reads and writes.
pub(crate) const IO: u16 = 1;
const CREATE_SUBMISSION: u8 = 1;
const CREATE_COMPLETION: u8 = 5;
const IDENTIFY: u8 = 6;
/// What a command that never ends gives.
pub(crate) const SILENT: u16 = 0xFFFF;

#[derive(Clone, Copy, Default)]
struct Pair {
    tail: u32,
    head: u32,
    /// The phase of entries that are old.
    old: u16,
}

/// What a command says beyond its opcode.
#[derive(Clone, Copy, Default)]
pub(crate) struct Command {
    pub(crate) namespace: u32,
    pub(crate) gpa: u64,
    /// Dwords 10 to 12.
    pub(crate) dwords: [u32; 3],
}

/// The controller, started.
pub(crate) struct Controller {
    bar: u64,
    pairs: [Pair; 2],
    next: u16,
}

impl Controller {
    /// Starts it and makes the pair [`IO`], which interrupts.
    pub(crate) fn start(function: &Function) -> Option<Self> {
        let (bar, _) = function.bar();
        lapic::enable();
        (0..4 * 0x1000 / 8).for_each(|n| memory::write_u64(QUEUES + n * 8, 0));
        let write = |offset, value| memory::write_u32(bar + offset, value);
        write(0x14, 0);
        write(0x24, (ENTRIES - 1) << 16 | (ENTRIES - 1));
        for (at, gpa) in [(0x28, submission(ADMIN)), (0x30, completion(ADMIN))] {
            write(at, gpa as u32);
            write(at + 4, 0);
        }
        write(0x14, CONFIGURATION);
        let is_ready = || memory::read_u32(bar + 0x1C) & 1 != 0;
        if !Deadline::in_ms(PATIENCE_MS).wait(is_ready) {
            return None;
        }
        function.open_message(bar, IO.into(), VECTOR)?;
        let mut controller = Self {
            bar,
            pairs: [Pair::default(); 2],
            next: 0,
        };
        let id = u32::from(IO) | (ENTRIES - 1) << 16;
        // Contiguous; interrupts through the message of the same number; belongs to that completion queue.
        for (opcode, gpa, more) in [
            (CREATE_COMPLETION, completion(IO), u32::from(IO) << 16 | 3),
            (CREATE_SUBMISSION, submission(IO), u32::from(IO) << 16 | 1),
        ] {
            let command = Command {
                gpa,
                dwords: [id, more, 0],
                ..Command::default()
            };
            if controller.send(ADMIN, opcode, command) != 0 {
                return None;
            }
        }
        Some(controller)
    }

    /// Identifies the controller (1) or a namespace (0) to `gpa`; gives the status.
    pub(crate) fn identify(&mut self, what: u32, namespace: u32, gpa: u64) -> u16 {
        let command = Command {
            namespace,
            gpa,
            dwords: [what, 0, 0],
        };
        self.send(ADMIN, IDENTIFY, command)
    }

    /// A command for blocks of namespace 1; gives the status.
    pub(crate) fn io(&mut self, opcode: u8, block: u32, count: u32, gpa: u64) -> u16 {
        let command = Command {
            namespace: 1,
            gpa,
            dwords: [block, 0, count.wrapping_sub(1) & 0xFFFF],
        };
        self.send(IO, opcode, command)
    }

    /// Interrupts of the I/O pair so far.
    pub(crate) fn interrupts() -> u32 {
        trap::count(VECTOR)
    }

    /// Sends a command and waits for its end: its status, 0 for success.
    fn send(&mut self, queue: u16, opcode: u8, command: Command) -> u16 {
        self.next = self.next.wrapping_add(1);
        let pair = &mut self.pairs[usize::from(queue)];
        let at = submission(queue) + u64::from(pair.tail) * 64;
        (0..8).for_each(|n| memory::write_u64(at + n * 8, 0));
        memory::write_u32(at, u32::from(self.next) << 16 | u32::from(opcode));
        memory::write_u32(at + 4, command.namespace);
        memory::write_u64(at + 24, command.gpa);
        for (n, dword) in (0u64..).zip(command.dwords) {
            memory::write_u32(at + 40 + n * 4, dword);
        }
        pair.tail = (pair.tail + 1) % ENTRIES;
        let doorbell = self.bar + 0x1000 + u64::from(queue) * 8;
        memory::write_u32(doorbell, pair.tail);
        let entry = completion(queue) + u64::from(pair.head) * 16;
        let ended = || memory::read_u16(entry + 14) & 1 != pair.old;
        cpu::enable_interrupts();
        let came = Deadline::in_ms(PATIENCE_MS).wait(ended);
        cpu::disable_interrupts();
        if !came || memory::read_u16(entry + 12) != self.next {
            return SILENT;
        }
        pair.head = (pair.head + 1) % ENTRIES;
        if pair.head == 0 {
            pair.old ^= 1;
        }
        memory::write_u32(doorbell + 4, pair.head);
        // Without the phase and the bits about retrying.
        memory::read_u16(entry + 14) >> 1 & 0x7FF
    }
}

fn submission(queue: u16) -> u64 {
    QUEUES + u64::from(queue) * 0x2000
}

fn completion(queue: u16) -> u64 {
    submission(queue) + 0x1000
}
