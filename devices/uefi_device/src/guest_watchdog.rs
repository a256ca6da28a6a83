// SPDX-License-Identifier: MIT
//! The watchdog of the operating system, which Microsoft's WDAT describes: index and data registers at 0x30,
//! with the indexes of the firmware's own (msvm-machine section 4).
//!
//! Always true: only 32-bit accesses count; what has no meaning reads all ones and writes nothing. Not here:
//! the table, which the firmware brings.

use crate::watchdog::{Pace, Watchdog};
use chipset_device::{Clock, Device, PortDevice, PowerRequest, PowerSink, Timed, TimerHandle, unclaimed};
use std::sync::Arc;

/// First port and number of ports.
pub const GUEST_WATCHDOG_PORTS: (u16, u16) = (0x30, 8);
const DATA: u16 = 4;

/// The watchdog.
pub struct GuestWatchdog {
    index: u32,
    watchdog: Watchdog,
    power: Arc<dyn PowerSink>,
}

impl GuestWatchdog {
    /// A watchdog that does not run.
    pub fn new(clock: Arc<Clock>, timer: TimerHandle, power: Arc<dyn PowerSink>) -> Self {
        Self {
            index: 0,
            watchdog: Watchdog::new(clock, timer, Pace::GUEST),
            power,
        }
    }
}

impl Device for GuestWatchdog {
    fn reset(&mut self) {
        self.index = 0;
        self.watchdog.reset();
    }

    fn inspect(&self) -> String {
        self.watchdog.text()
    }
}

impl PortDevice for GuestWatchdog {
    fn port_read(&mut self, offset: u16, data: &mut [u8]) {
        match (offset, data.len(), self.watchdog.read(self.index)) {
            (DATA, 4, Some(value)) => data.copy_from_slice(&value.to_le_bytes()),
            _ => unclaimed(data),
        }
    }

    fn port_write(&mut self, offset: u16, data: &[u8]) {
        let Ok(data) = data.try_into() else { return };
        let value = u32::from_le_bytes(data);
        match offset {
            0 => self.index = value,
            DATA => {
                self.watchdog.write(self.index, value);
            }
            _ => {}
        }
    }
}

impl Timed for GuestWatchdog {
    fn timer_fired(&mut self, _id: u32, now: u64) {
        if self.watchdog.expired(now) {
            tracing::warn!("the guest's watchdog has expired: the guest is reset");
            self.power.request(PowerRequest::Reset);
        }
    }
}
