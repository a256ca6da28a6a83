// SPDX-License-Identifier: MIT
//! Port numbers and values that payloads use.
//!
//! Always true: these are the addresses of the machine, not choices of a payload. Not here: device
//! behaviour.

/// COM1, a 16550.
pub const COM1: u16 = 0x3F8;
/// Test-exit device: a 32-bit write ends the VM; the exit code is the low 7 bits.
pub const TEST_EXIT: u16 = 0xF4;
/// Mask of the bits of a test-exit write that become the exit code.
pub const TEST_EXIT_MASK: u32 = 0x7F;
/// PM1a event block (status, then enable).
pub const PM1A_EVENT: u16 = 0x400;
/// PM1a control register, 16 bits.
pub const PM1A_CONTROL: u16 = 0x404;
/// `PM1A_CONTROL`: SLP_EN; with SLP_TYP 0 the machine powers off.
pub const PM1A_SLP_EN: u16 = 1 << 13;
/// ACPI PM timer, 32 bits, 3.579545 MHz.
pub const PM_TIMER: u16 = 0x408;
/// Ticks of the PM timer in a millisecond, rounded up.
pub const PM_TIMER_TICKS_PER_MS: u32 = 3580;
/// Reset register.
pub const RESET: u16 = 0x433;
/// Value that resets the machine when written to [`RESET`].
pub const RESET_VALUE: u8 = 1;
/// CMOS index port; bit 7 masks NMIs.
pub const CMOS_INDEX: u16 = 0x70;
/// CMOS data port.
pub const CMOS_DATA: u16 = 0x71;
/// CMOS byte in which a payload notes that it asked for a reset; battery-backed, so it survives one.
pub const CMOS_BOOT_MARK: u8 = 0x50;
/// Value of [`CMOS_BOOT_MARK`] after a payload asked for a reset.
pub const BOOT_MARK: u8 = 0x5A;
