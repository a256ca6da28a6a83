// SPDX-License-Identifier: MIT
//! The virtual battery that Microsoft's ACPI tables describe: seven 32-bit registers in a page (msvm-machine
//! section 11), read by `_STA`, `_BST` and `_PSR`.
//!
//! Always true: what the registers say is what the host last said, over resets too; a change sets the notify
//! bit, and whoever changes it raises [`GPE`]. Capacities are in mWh of a battery of [`CAPACITY_MWH`].
//! Not here: the general purpose event itself (`pm`), the host's own battery.

use chipset_device::{Device, MmioDevice};

/// First byte of the page.
pub const GPA: u64 = 0xFED3_F000;
/// Bytes of the page.
pub const LEN: u64 = 0x1000;
/// General purpose event of a change.
pub const GPE: u8 = 9;
/// What a full battery holds, as the tables say.
pub const CAPACITY_MWH: u32 = 5000;

/// Offsets of the registers.
mod register {
    pub(super) const STATUS: u64 = 0x00;
    pub(super) const STATE: u64 = 0x04;
    pub(super) const RATE: u64 = 0x08;
    pub(super) const REMAINING: u64 = 0x0C;
    pub(super) const MAINS: u64 = 0x10;
    pub(super) const NOTIFY: u64 = 0x14;
    pub(super) const NOTIFY_CLEAR: u64 = 0x18;
}

/// `_STA` of a device that is there and works, with a battery in it (ACPI 6.5, 6.3.7 and 10.2.2.10).
const PRESENT: u32 = 0x1F;
/// `_BST` states (ACPI 6.5, 10.2.2.11).
const DISCHARGING: u32 = 1;
const CHARGING: u32 = 2;
/// A rate that is not known.
const UNKNOWN: u32 = u32::MAX;
/// Notify bit: everything about the battery may have changed.
const CHANGED: u32 = 2;

/// What the host says of its battery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// How full it is; more than 100 counts as 100.
    pub percent: u8,
    /// Whether the machine is on mains.
    pub mains: bool,
}

/// The battery.
#[derive(Debug)]
pub struct Battery {
    charge: Charge,
    notify: u32,
}

impl Battery {
    /// A battery that is `charge`d.
    pub fn new(charge: Charge) -> Self {
        Self { charge, notify: 0 }
    }

    /// The host's battery has changed. The caller raises [`GPE`].
    pub fn change(&mut self, charge: Charge) {
        self.charge = charge;
        self.notify |= CHANGED;
    }

    fn read(&self, offset: u64) -> u32 {
        let full = self.charge.percent >= 100;
        match offset {
            register::STATUS => PRESENT,
            register::STATE if !self.charge.mains => DISCHARGING,
            register::STATE if !full => CHARGING,
            register::RATE => UNKNOWN,
            register::REMAINING => CAPACITY_MWH * u32::from(self.charge.percent.min(100)) / 100,
            register::MAINS => self.charge.mains.into(),
            register::NOTIFY => self.notify,
            _ => 0,
        }
    }
}

impl Device for Battery {
    fn reset(&mut self) {
        self.notify = 0;
    }

    fn inspect(&self) -> String {
        let Charge { percent, mains } = self.charge;
        format!("percent {percent}\nmains {mains}\nnotify {:#x}\n", self.notify)
    }
}

impl MmioDevice for Battery {
    fn mmio_read(&mut self, offset: u64, data: &mut [u8]) {
        // The tables read whole registers; a part of one, or two at once, is answered as memory would be.
        for (at, byte) in (offset..).zip(data) {
            *byte = self.read(at & !3).to_le_bytes()[(at & 3) as usize];
        }
    }

    fn mmio_write(&mut self, offset: u64, data: &[u8]) {
        if let (register::NOTIFY_CLEAR, Ok(bits)) = (offset, data.try_into()) {
            self.notify &= !u32::from_le_bytes(bits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(battery: &mut Battery, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        battery.mmio_read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    #[test]
    fn a_change_is_noted_until_the_guest_clears_it() {
        let full = Charge {
            percent: 100,
            mains: true,
        };
        let mut battery = Battery::new(full);
        let words = |battery: &mut Battery| (0..7).map(|i| word(battery, i * 4)).collect::<Vec<_>>();
        assert_eq!(words(&mut battery), [0x1F, 0, UNKNOWN, 5000, 1, 0, 0]);
        battery.change(Charge {
            percent: 40,
            mains: false,
        });
        assert_eq!(words(&mut battery), [0x1F, 1, UNKNOWN, 2000, 0, 2, 0]);
        battery.mmio_write(0x18, &1_u32.to_le_bytes());
        assert_eq!(word(&mut battery, 0x14), 2);
        battery.mmio_write(0x18, &2_u32.to_le_bytes());
        assert_eq!(word(&mut battery, 0x14), 0);
        battery.change(Charge {
            percent: 200,
            mains: true,
        });
        battery.reset();
        assert_eq!(words(&mut battery), [0x1F, 0, UNKNOWN, 5000, 1, 0, 0]);
        battery.change(Charge {
            percent: 99,
            mains: true,
        });
        assert_eq!(word(&mut battery, 4), CHARGING);
    }

    #[test]
    fn other_accesses_do_nothing() {
        let mut battery = Battery::new(Charge {
            percent: 50,
            mains: true,
        });
        battery.change(Charge {
            percent: 50,
            mains: true,
        });
        battery.mmio_write(0x18, &[0xFF; 8]);
        battery.mmio_write(0x18, &[0xFF]);
        battery.mmio_write(0x0C, &[0; 4]);
        let mut bytes = [0; 8];
        battery.mmio_read(0x0D, &mut bytes);
        assert_eq!(bytes, [0x09, 0, 0, 1, 0, 0, 0, 2]);
        battery.mmio_read(0xFF8, &mut bytes);
        assert_eq!(bytes, [0; 8]);
    }
}
