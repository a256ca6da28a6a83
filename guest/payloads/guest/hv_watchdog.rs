// SPDX-License-Identifier: MIT
//! The two watchdogs and the generation id, behind index and data registers (msvm-machine section 4).

use guest_rt::report::{equal, line};
use guest_rt::{cpu, memory, port};

const CONFIG: u32 = 0x27;
const RESOLUTION: u32 = 0x28;
const COUNT: u32 = 0x29;
/// Configured, enabled, one shot.
const RUNNING: u32 = 0x13;
const STOPPED: u32 = 1;
const BOOT_STATUS: u32 = 0x100;

/// A watchdog's index port; the data port follows.
pub(crate) struct Watchdog {
    index: u16,
    seconds: u32,
}

/// The firmware's own.
pub(crate) const FIRMWARE: Watchdog = Watchdog {
    index: 0x28,
    seconds: 5,
};
/// The operating system's.
pub(crate) const GUEST: Watchdog = Watchdog {
    index: 0x30,
    seconds: 1,
};

impl Watchdog {
    fn read(&self, index: u32) -> u32 {
        port::write_u32(self.index, index);
        port::read_u32(self.index + 4)
    }

    fn write(&self, index: u32, value: u32) {
        port::write_u32(self.index, index);
        port::write_u32(self.index + 4, value);
    }

    /// A watchdog that is fed does not bite.
    pub(crate) fn feed(&self) {
        equal(
            "watchdog-has-not-bitten",
            u64::from(self.read(CONFIG) & BOOT_STATUS),
            0,
        );
        self.write(COUNT, 30);
        self.write(CONFIG, RUNNING);
        self.write(CONFIG, RUNNING);
        equal("watchdog-fed", self.read(COUNT).into(), 30);
        self.write(CONFIG, STOPPED);
    }

    /// Starts it and waits for the machine to be reset.
    pub(crate) fn starve(&self, count: u32) -> ! {
        equal(
            "watchdog-resolution",
            self.read(RESOLUTION).into(),
            self.seconds.into(),
        );
        self.write(COUNT, count);
        self.write(CONFIG, RUNNING);
        equal("watchdog-runs", (self.read(CONFIG) & 0xFF).into(), RUNNING.into());
        equal("watchdog-count", self.read(COUNT).into(), count.into());
        line(format_args!("info: watchdog: starving"));
        loop {
            cpu::enable_interrupts();
            cpu::wait_for_interrupt();
        }
    }

    /// After the reset it says that it was its doing, until it is told to forget.
    pub(crate) fn check_bite(&self, name: &str) {
        equal(name, self.read(CONFIG).into(), BOOT_STATUS.into());
        self.write(CONFIG, BOOT_STATUS);
        equal("watchdog-forgets", self.read(CONFIG).into(), 0);
    }
}

/// Has the generation id written to `buffer`; its halves.
pub(crate) fn generation_id(buffer: u64) -> (u64, u64) {
    memory::write_u64(buffer, 0);
    memory::write_u64(buffer + 8, 0);
    FIRMWARE.write(0x0E, buffer as u32);
    FIRMWARE.write(0x0F, (buffer >> 32) as u32);
    (memory::read_u64(buffer), memory::read_u64(buffer + 8))
}
