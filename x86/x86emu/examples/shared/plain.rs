// SPDX-License-Identifier: MIT
//! A bus with RAM from gpa 0 and nothing else.

use x86emu::{Bus, MsrFault, RamPage};

#[path = "ram.rs"]
mod ram;
#[allow(unused_imports)]
pub(crate) use ram::{Ram, cpu_seconds};

/// RAM; everything else reads all ones or zero and ignores writes.
pub(crate) struct Plain(pub(crate) Ram);

impl Bus for Plain {
    fn ram(&mut self, gpn: u64) -> Option<RamPage> {
        self.0.page(gpn, true)
    }
    fn mmio_read(&mut self, _gpa: u64, data: &mut [u8]) {
        data.fill(0xFF);
    }
    fn mmio_write(&mut self, _gpa: u64, _data: &[u8]) {}
    fn port_in(&mut self, _port: u16, _size: u8) -> u32 {
        0
    }
    fn port_out(&mut self, _port: u16, _size: u8, _value: u32) {}
    fn read_msr(&mut self, _msr: u32) -> Result<u64, MsrFault> {
        Err(MsrFault)
    }
    fn write_msr(&mut self, _msr: u32, _value: u64) -> Result<(), MsrFault> {
        Err(MsrFault)
    }
    fn take_interrupt(&mut self) -> Option<u8> {
        None
    }
    fn tsc(&mut self) -> u64 {
        0
    }
}
