// SPDX-License-Identifier: MIT
//! CMOS memory of the RTC.

use crate::port;
use guest_protocol::ports::{CMOS_DATA, CMOS_INDEX};

/// Reads a byte.
pub fn read(index: u8) -> u8 {
    port::write_u8(CMOS_INDEX, index);
    port::read_u8(CMOS_DATA)
}

/// Writes a byte.
pub fn write(index: u8, value: u8) {
    port::write_u8(CMOS_INDEX, index);
    port::write_u8(CMOS_DATA, value);
}
