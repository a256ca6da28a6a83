// SPDX-License-Identifier: MIT
//! The controller's registers and the walk over its queues (sections 3.1, 7.2 and 7.6).
//!
//! Always true: commands are only fetched while the controller is ready; after a queue was found outside RAM
//! it says so in its status (CFS) until the guest resets it.

use crate::admin::{self, KEPT_FEATURES};
use crate::command::{Command, Outcome};
use crate::identify::VERSION;
use crate::io;
use crate::prp::PAGE;
use crate::queues::{Completion, Doorbells, MOST_ENTRIES, Submission};
use block::Disk;
use guest_memory::{DmaMemory, MemoryError};
use io_thread::Progress;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Commands of each queue before the next gets its turn.
const BATCH: usize = 32;

/// Controller configuration: enable, I/O command set, page size, arbitration, shutdown, queue entry sizes.
const ENABLE: u32 = 1;
const CC_FIXED: u32 = 0x3FF0;
const SHUTDOWN: u32 = 0xC000;
/// Controller status: ready, fatal, shutdown complete.
const READY: u32 = 1;
const FATAL: u32 = 2;
const SHUTDOWN_DONE: u32 = 0x8;

/// Entries of the largest queue less one, contiguous queues, 10 s to get ready, NVM command set.
const CAPABILITIES: u64 = (MOST_ENTRIES as u64 - 1) | 1 << 16 | 20 << 24 | 1 << 37;

/// Everything behind the registers.
pub(crate) struct Controller {
    pub(crate) name: String,
    pub(crate) serial: String,
    pub(crate) ram: DmaMemory,
    pub(crate) disks: Vec<Arc<Disk>>,
    pub(crate) doorbells: Arc<Doorbells>,
    pub(crate) submissions: BTreeMap<u16, Submission>,
    pub(crate) completions: BTreeMap<u16, Completion>,
    /// Event requests that wait.
    pub(crate) events: u8,
    pub(crate) features: [u32; KEPT_FEATURES.len()],
    configuration: u32,
    status: u32,
    admin_sizes: u32,
    admin_submission: u64,
    admin_completion: u64,
    /// Vectors whose pin interrupt is masked.
    mask: u32,
    commands: u64,
    errors: u64,
}

impl Controller {
    pub(crate) fn new(name: &str, disks: Vec<Arc<Disk>>, ram: DmaMemory, doorbells: Arc<Doorbells>) -> Self {
        Self {
            name: name.to_owned(),
            serial: name.chars().filter(char::is_ascii_graphic).take(20).collect(),
            ram,
            disks,
            doorbells,
            submissions: BTreeMap::new(),
            completions: BTreeMap::new(),
            events: 0,
            features: [0; KEPT_FEATURES.len()],
            configuration: 0,
            status: 0,
            admin_sizes: 0,
            admin_submission: 0,
            admin_completion: 0,
            mask: 0,
            commands: 0,
            errors: 0,
        }
    }

    /// The registers as bytes, as far as they can be read.
    pub(crate) fn registers(&self) -> [u8; 0x40] {
        let mut bytes = [0; 0x40];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0x00, &CAPABILITIES.to_le_bytes());
        put(0x08, &VERSION.to_le_bytes());
        put(0x0C, &self.mask.to_le_bytes());
        put(0x10, &self.mask.to_le_bytes());
        put(0x14, &self.configuration.to_le_bytes());
        put(0x1C, &self.status.to_le_bytes());
        put(0x24, &self.admin_sizes.to_le_bytes());
        put(0x28, &self.admin_submission.to_le_bytes());
        put(0x30, &self.admin_completion.to_le_bytes());
        bytes
    }

    /// A write of a doubleword.
    pub(crate) fn write(&mut self, offset: u64, value: u32) {
        let low = |old: u64| old & !0xFFFF_FFFF | u64::from(value);
        let high = |old: u64| old & 0xFFFF_FFFF | u64::from(value) << 32;
        match offset {
            0x0C => self.mask |= value,
            0x10 => self.mask &= !value,
            0x14 => self.configure(value),
            0x24 => self.admin_sizes = value & 0x0FFF_0FFF,
            0x28 => self.admin_submission = low(self.admin_submission),
            0x2C => self.admin_submission = high(self.admin_submission),
            0x30 => self.admin_completion = low(self.admin_completion),
            0x34 => self.admin_completion = high(self.admin_completion),
            _ => {}
        }
    }

    fn configure(&mut self, value: u32) {
        let before = std::mem::replace(&mut self.configuration, value);
        match (before & ENABLE != 0, value & ENABLE != 0) {
            (false, true) => self.enable(),
            (true, false) => self.stop(),
            _ => {}
        }
        if value & SHUTDOWN != 0 && before & SHUTDOWN == 0 {
            // Nothing waits: commands are finished when they were fetched. What was written goes to stable storage.
            for disk in &self.disks {
                if let Err(error) = disk.flush() {
                    complain(&self.name, &mut self.errors, disk, &error);
                }
            }
            self.status |= SHUTDOWN_DONE;
        }
    }

    /// Controller reset (section 7.3.2): queues go, the admin queue registers stay.
    fn stop(&mut self) {
        self.submissions.clear();
        self.completions.clear();
        self.events = 0;
        self.features = [0; KEPT_FEATURES.len()];
        self.status = 0;
    }

    fn enable(&mut self) {
        // A shutdown, or a failure to get ready, ends here.
        self.stop();
        let sizes = [self.admin_sizes & 0xFFF, self.admin_sizes >> 16].map(|size| size + 1);
        let [submission, completion] = sizes;
        // Page size 4 KiB, NVM command set, round robin. Entry sizes are set later by some drivers.
        let fixed = self.configuration & CC_FIXED;
        let aligned = (self.admin_submission | self.admin_completion).is_multiple_of(PAGE);
        if fixed != 0 || !aligned || submission < 2 || completion < 2 {
            self.status |= FATAL;
            return;
        }
        self.doorbells.clear_tail(0);
        self.doorbells.clear_head(0);
        self.submissions.insert(
            0,
            Submission {
                base: self.admin_submission,
                size: submission,
                head: 0,
                completion: 0,
            },
        );
        self.completions.insert(
            0,
            Completion {
                base: self.admin_completion,
                size: completion,
                tail: 0,
                phase: true,
                vector: Some(0),
                fresh: false,
            },
        );
        self.status |= READY;
    }

    /// Back to power on.
    pub(crate) fn reset(&mut self) {
        self.stop();
        self.configuration = 0;
        self.admin_sizes = 0;
        self.admin_submission = 0;
        self.admin_completion = 0;
        self.mask = 0;
    }

    /// Carries out commands, some of each queue.
    pub(crate) fn work(&mut self) -> Progress {
        if self.status & (READY | FATAL) != READY {
            return Progress::Idle;
        }
        let mut progress = Progress::Idle;
        let queues: Vec<u16> = self.submissions.keys().copied().collect();
        for queue in queues {
            match self.serve(queue) {
                Ok(Progress::Idle) => {}
                Ok(Progress::More) => progress = Progress::More,
                Err(error) => {
                    self.status |= FATAL;
                    self.errors += 1;
                    if self.errors == 1 {
                        tracing::warn!(
                            "{}: queue {queue}: {error}; the controller stops until the guest resets it (said once)",
                            self.name
                        );
                    }
                    return Progress::Idle;
                }
            }
        }
        progress
    }

    fn serve(&mut self, id: u16) -> Result<Progress, MemoryError> {
        for _ in 0..BATCH {
            let tail = self.doorbells.tail(id);
            // A command of the admin queue may have deleted it.
            let Some(queue) = self.submissions.get_mut(&id) else {
                return Ok(Progress::Idle);
            };
            let to = queue.completion;
            let full = self
                .completions
                .get(&to)
                .is_none_or(|completions| completions.is_full(self.doorbells.head(to)));
            if full {
                return Ok(Progress::Idle);
            }
            let Some(command) = queue.next(&self.ram, tail)? else {
                return Ok(Progress::Idle);
            };
            let head = queue.head;
            self.commands += 1;
            let Some(outcome) = self.execute(id, &command) else {
                continue;
            };
            if let Some(completions) = self.completions.get_mut(&to) {
                completions.push(&self.ram, &command, outcome, (id, head))?;
            }
        }
        Ok(Progress::More)
    }

    fn execute(&mut self, queue: u16, command: &Command) -> Option<Outcome> {
        if queue == 0 {
            return admin::execute(self, command);
        }
        let (name, errors) = (&self.name, &mut self.errors);
        let mut failed = |disk: &Disk, error: &std::io::Error| complain(name, errors, disk, error);
        Some(io::execute(&self.ram, command, &self.disks, &mut failed))
    }

    /// Vectors with new completions since the last call.
    pub(crate) fn take_fresh(&mut self) -> Vec<u16> {
        let fresh = self.completions.values_mut().filter_map(|queue| {
            let fresh = std::mem::take(&mut queue.fresh);
            queue.vector.filter(|_| fresh)
        });
        fresh.collect()
    }

    /// Whether the pin should be high: completions that wait, on a vector that is not masked.
    pub(crate) fn pin(&self) -> bool {
        self.completions.iter().any(|(id, queue)| {
            let open = |vector: u16| vector >= 32 || self.mask & 1 << vector == 0;
            queue.vector.is_some_and(open) && queue.is_waiting(self.doorbells.head(*id))
        })
    }

    /// Whether a completion queue is full, so that the guest's taking from it makes work.
    pub(crate) fn is_stuck(&self) -> bool {
        self.completions
            .iter()
            .any(|(id, queue)| queue.is_full(self.doorbells.head(*id)))
    }

    /// Whether a command waits that has room for its completion.
    pub(crate) fn has_work(&self) -> bool {
        let ready = self.status & (READY | FATAL) == READY;
        let open = |queue: &Submission| {
            let completions = self.completions.get(&queue.completion);
            completions.is_some_and(|c| !c.is_full(self.doorbells.head(queue.completion)))
        };
        ready
            && self
                .submissions
                .iter()
                .any(|(&id, queue)| queue.waits(self.doorbells.tail(id)) && open(queue))
    }

    pub(crate) fn inspect(&self) -> String {
        let mut out = format!(
            "configuration {:#x}\nstatus {:#x}\nqueues {}\ncommands {}\nerrors {}\n",
            self.configuration,
            self.status,
            self.submissions.len(),
            self.commands,
            self.errors
        );
        for (number, disk) in (1..).zip(&self.disks) {
            out += &format!("namespace{number} {disk:?}\n");
        }
        out
    }
}

fn complain(name: &str, errors: &mut u64, disk: &Disk, error: &std::io::Error) {
    *errors += 1;
    if *errors == 1 {
        tracing::warn!(
            "{name}: disk {}: {error}; the guest gets an error (said once)",
            disk.serial()
        );
    }
}
