// SPDX-License-Identifier: MIT
//! The two bridges of the OVMF machine, set up as firmware does it (Intel 3 Series Express Chipset and ICH9
//! data sheets): ECAM and the PM block, at the places that other cases here expect them at.

use guest_rt::port;
use guest_rt::protocol::ports::PM1A_EVENT;

/// Where ECAM is afterwards.
pub(crate) const ECAM: u64 = 0xB000_0000;
/// Port 0xCF9.
pub(crate) const RESET_CONTROL: u16 = 0xCF9;

const ADDRESS: u16 = 0xCF8;
const DATA: u16 = 0xCFC;
const PCIEXBAR: u16 = 0x60;
const PMBASE: u16 = 0x40;
const ACPI_CONTROL: u16 = 0x44;
const ACPI_ENABLE: u32 = 0x80;

fn select(device: u16, register: u16) {
    port::write_u32(ADDRESS, 1 << 31 | u32::from(device) << 11 | u32::from(register));
}

/// Configuration space of bus 0 through mechanism 1.
pub(crate) fn read(device: u16, register: u16) -> u32 {
    select(device, register);
    port::read_u32(DATA)
}

/// The same, written.
pub(crate) fn write(device: u16, register: u16, value: u32) {
    select(device, register);
    port::write_u32(DATA, value);
}

/// Puts 256 MiB of ECAM at `base`.
pub(crate) fn place_ecam(base: u64) {
    write(0, PCIEXBAR + 4, (base >> 32) as u32);
    write(0, PCIEXBAR, base as u32 | 1);
}

/// Puts the PM block at `port`.
pub(crate) fn place_pm(port: u16) {
    write(31, PMBASE, port.into());
    write(31, ACPI_CONTROL, ACPI_ENABLE);
}

/// Both bridges, with the PM block where the other machines have it.
pub(crate) fn set_up() {
    place_ecam(ECAM);
    place_pm(PM1A_EVENT);
}
