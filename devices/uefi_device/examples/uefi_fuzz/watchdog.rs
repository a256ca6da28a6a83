// SPDX-License-Identifier: MIT
//! The guest's watchdog, done anything to, beside a model of when it must ask for a reset.
//!
//! Not here: the firmware's own watchdog, which counts in the same way behind the UEFI device's registers.

use chipset_device::{Clock, Device, PortDevice, PowerRequest, PowerSink, TimerClient, TimerQueue};
use soak_case::Random;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use uefi_device::{GuestWatchdog, index};

const SECOND: u64 = 1_000_000_000;
/// Configured and enabled.
const RUNNING: u32 = 3;

#[derive(Default)]
struct Resets(AtomicU64);

impl PowerSink for Resets {
    fn request(&self, _: PowerRequest) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Bench {
    device: Arc<Mutex<GuestWatchdog>>,
    clock: Arc<Clock>,
    timers: Arc<TimerQueue>,
    resets: Arc<Resets>,
    /// When the model's watchdog ends, while it runs.
    deadline: Option<u64>,
}

impl Bench {
    fn new() -> Self {
        let (clock, timers) = (Arc::new(Clock::deterministic()), TimerQueue::new());
        let resets = Arc::new(Resets::default());
        let timer = timers.timer(0);
        let device = GuestWatchdog::new(clock.clone(), timer.clone(), resets.clone());
        let device = Arc::new(Mutex::new(device));
        timer.connect(Arc::downgrade(&device) as Weak<dyn TimerClient>);
        Self {
            device,
            clock,
            timers,
            resets,
            deadline: None,
        }
    }

    fn with<R>(&self, act: impl FnOnce(&mut GuestWatchdog) -> R) -> R {
        act(&mut self.device.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, index: u32, value: u32) {
        self.with(|device| {
            device.port_write(0, &index.to_le_bytes());
            device.port_write(4, &value.to_le_bytes());
        });
    }

    fn read(&self, index: u32) -> u32 {
        self.with(|device| {
            device.port_write(0, &index.to_le_bytes());
            let mut bytes = [0; 4];
            device.port_read(4, &mut bytes);
            u32::from_le_bytes(bytes)
        })
    }

    /// What the registers say of the deadline, taken for the model's.
    fn follow(&mut self) {
        let running = self.read(index::WATCHDOG_CONFIG) & RUNNING == RUNNING;
        let left = u64::from(self.read(index::WATCHDOG_COUNT));
        self.deadline = (running && left > 0).then(|| self.clock.now().saturating_add(left * SECOND));
    }

    /// Lets `ns` pass; says what is wrong with what the watchdog has done.
    fn wait(&mut self, ns: u64) -> Result<(), String> {
        let before = self.resets.0.load(Ordering::Relaxed);
        let now = self.clock.now().saturating_add(ns);
        self.clock.advance_to(now);
        self.timers.fire_due(now);
        let asked = self.resets.0.load(Ordering::Relaxed) - before;
        // Counts are whole seconds, rounded up: a second before the model's end anything may be.
        let (early, late) = match self.deadline {
            Some(end) => (
                asked > 0 && now.saturating_add(SECOND) < end,
                asked == 0 && now >= end,
            ),
            None => (asked > 0, false),
        };
        if early || late || asked > 1 {
            let end = self.deadline;
            return Err(format!(
                "{asked} resets asked for at {now}; the watchdog ends at {end:?}"
            ));
        }
        self.follow();
        Ok(())
    }

    fn operation(&mut self, random: &mut Random) -> Result<(), String> {
        match random.below(16) {
            0..=2 => {
                let count = match random.below(4) {
                    0 => random.value() as u32,
                    _ => random.below(20) as u32,
                };
                self.write(index::WATCHDOG_COUNT, count);
                self.follow();
            }
            3..=6 => {
                let config = match random.below(4) {
                    0 => random.bits() as u32,
                    _ => random.pick(&[0, 1, 2, 3, 3, 3, 0x13, 0x103]),
                };
                self.write(index::WATCHDOG_CONFIG, config);
                self.follow();
            }
            7..=11 => {
                let ns = match random.below(8) {
                    0 => random.value(),
                    _ => random.below(8 * SECOND),
                };
                // Time does not end in a case.
                self.wait(ns >> 12)?;
                self.wait(ns.min(100 * SECOND))?;
            }
            12 => {
                let mut data = random.bits().to_le_bytes();
                let (offset, len) = (random.below(9) as u16, 1 + random.index(8));
                self.with(|device| {
                    device.port_read(offset, &mut data[..len]);
                    if (offset, len) != (4, 4) {
                        device.port_write(offset, &data[..len]);
                    }
                });
            }
            13 => {
                let index = random.below(0x40) as u32;
                if !(index::WATCHDOG_CONFIG..=index::WATCHDOG_COUNT).contains(&index) {
                    self.write(index, random.bits() as u32);
                    if self.read(index) != u32::MAX {
                        return Err(format!("index {index:#x} is not the watchdog's, but reads"));
                    }
                }
            }
            14 => drop(self.with(|device| device.inspect())),
            _ => {
                self.with(Device::reset);
                self.deadline = None;
                let config = self.read(index::WATCHDOG_CONFIG);
                if config & !0x100 != 0 {
                    return Err(format!("configuration {config:#x} after a reset"));
                }
            }
        }
        Ok(())
    }
}

/// So many operations.
pub(crate) fn case(mut random: Random, operations: u64) -> Result<(), String> {
    let mut bench = Bench::new();
    for _ in 0..operations {
        bench.operation(&mut random)?;
    }
    bench.with(Device::reset);
    bench.write(index::WATCHDOG_COUNT, 3);
    bench.write(index::WATCHDOG_CONFIG, RUNNING);
    bench.follow();
    bench.wait(3 * SECOND - 1)?;
    let before = bench.resets.0.load(Ordering::Relaxed);
    bench.wait(1)?;
    if bench.resets.0.load(Ordering::Relaxed) == before {
        return Err("the watchdog does not bite".into());
    }
    Ok(())
}
