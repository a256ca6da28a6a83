// SPDX-License-Identifier: MIT
//! The variables that put the firmware's console on a serial port (msvm-machine section 9).
//!
//! Always true: the device path is the one that the firmware makes for that port. Not here: whether the
//! firmware drives the port at all, which its configuration blob says.

use uefi_nvram::{Key, Variable, attribute, name, vendor};

/// A serial port that the firmware knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComPort {
    /// COM1.
    Com1,
    /// COM2.
    Com2,
}

/// ACPI device path node: hardware id PNP0501.
const ACPI: [u8; 8] = [0x02, 0x01, 0x0C, 0x00, 0xD0, 0x41, 0x01, 0x05];
/// UART node: 115200 baud, 8 bits, no parity, one stop bit. Vendor messaging node: VT-UTF8. End.
const LINE: [u8; 43] = [
    0x03, 0x0E, 0x13, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xC2, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x08,
    0x01, 0x01, // UART
    0x03, 0x0A, 0x14, 0x00, 0xD6, 0xA0, 0x15, 0xAD, 0xEC, 0x8B, 0xCF, 0x4A, 0xA0, 0x73, 0xD0, 0x1D, 0xE7,
    0x7E, 0x2D, 0x88, // VT-UTF8
    0x7F, 0xFF, 0x04, 0x00,
];

/// Device path of a terminal at `port`.
fn device_path(port: ComPort) -> Vec<u8> {
    // Unique ids 1 and 2, as in the firmware's DSDT.
    let uid: u32 = match port {
        ComPort::Com1 => 1,
        ComPort::Com2 => 2,
    };
    [&ACPI[..], &uid.to_le_bytes(), &LINE].concat()
}

/// `ConOut`, `ConIn` and `ErrOut` for a console at `port`.
pub fn console_variables(port: ComPort) -> [(Key, Variable); 3] {
    ["ConOut", "ConIn", "ErrOut"].map(|text| {
        let variable = Variable::plain(attribute::USUAL, device_path(port));
        (name(vendor::GLOBAL, text), variable)
    })
}
