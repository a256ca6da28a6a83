// SPDX-License-Identifier: MIT
//! Ports that end or restart the machine: one struct per port, each with the few bits that it has.

use chipset_device::{Device, LogBudget, PortDevice, PowerRequest, PowerSink, unclaimed};
use std::sync::Arc;

/// A port at which one exact value resets the machine; reads are all ones. The Hyper-V reset register
/// 0x433 (msvm-machine section 11) and the keyboard controller's command port 0x64 are two.
pub struct ResetValuePort {
    value: u8,
    power: Arc<dyn PowerSink>,
}

impl ResetValuePort {
    /// Writing `value` resets.
    pub fn new(value: u8, power: Arc<dyn PowerSink>) -> Self {
        Self { value, power }
    }
}

impl Device for ResetValuePort {
    fn reset(&mut self) {}
}

impl PortDevice for ResetValuePort {
    fn port_read(&mut self, _offset: u16, data: &mut [u8]) {
        unclaimed(data);
    }

    fn port_write(&mut self, _offset: u16, data: &[u8]) {
        if data.first() == Some(&self.value) {
            self.power.request(PowerRequest::Reset);
        }
    }
}

/// The reset control register, port 0xCF9: bit 2 from 0 to 1 resets; bits 1 and 3 choose how hard and read
/// back (ICH9 data sheet section 13.7.5).
pub struct ResetControl {
    value: u8,
    power: Arc<dyn PowerSink>,
}

impl ResetControl {
    /// The register after power on.
    pub fn new(power: Arc<dyn PowerSink>) -> Self {
        Self { value: 0, power }
    }

    /// IN.
    pub fn read(&self) -> u8 {
        self.value
    }

    /// OUT.
    pub fn write(&mut self, value: u8) {
        let rising = value & !self.value & 4 != 0;
        self.value = value & 0xE;
        if rising {
            self.power.request(PowerRequest::Reset);
        }
    }
}

impl Device for ResetControl {
    fn reset(&mut self) {
        self.value = 0;
    }

    fn inspect(&self) -> String {
        format!("value {:#x}\n", self.value)
    }
}

impl PortDevice for ResetControl {
    fn port_read(&mut self, _offset: u16, data: &mut [u8]) {
        data.fill(self.value);
    }

    fn port_write(&mut self, _offset: u16, data: &[u8]) {
        if let Some(&value) = data.first() {
            self.write(value);
        }
    }
}

/// Port 0x92: A20 (always on here) in bit 1, fast reset on a rising bit 0.
pub struct SystemControlA {
    value: u8,
    power: Arc<dyn PowerSink>,
}

/// A20 enabled.
const A20: u8 = 2;

impl SystemControlA {
    /// The port after power on.
    pub fn new(power: Arc<dyn PowerSink>) -> Self {
        Self { value: A20, power }
    }
}

impl Device for SystemControlA {
    fn reset(&mut self) {
        self.value = A20;
    }
}

impl PortDevice for SystemControlA {
    fn port_read(&mut self, _offset: u16, data: &mut [u8]) {
        data.fill(self.value);
    }

    fn port_write(&mut self, _offset: u16, data: &[u8]) {
        let Some(&value) = data.first() else { return };
        let rising = value & !self.value & 1 != 0;
        self.value = (value & 1) | A20;
        if rising {
            self.power.request(PowerRequest::Reset);
        }
    }
}

/// The test-exit device: a 32-bit write ends the VM with the low seven bits as exit code.
pub struct TestExit {
    power: Arc<dyn PowerSink>,
    log: LogBudget,
}

impl TestExit {
    /// The device.
    pub fn new(power: Arc<dyn PowerSink>) -> Self {
        Self {
            power,
            log: LogBudget::default(),
        }
    }
}

impl Device for TestExit {
    fn reset(&mut self) {
        self.log.refill();
    }
}

impl PortDevice for TestExit {
    fn port_read(&mut self, _offset: u16, data: &mut [u8]) {
        unclaimed(data);
    }

    fn port_write(&mut self, offset: u16, data: &[u8]) {
        match (offset, data.len()) {
            (0, 4) => self.power.request(PowerRequest::TestExit(data[0] & 0x7F)),
            (_, len) => {
                let text =
                    || format!("test exit: write of {len} bytes at offset {offset}; it takes four at once");
                if let Some(line) = self.log.line(text) {
                    tracing::warn!("{line}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
