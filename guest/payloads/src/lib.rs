// SPDX-License-Identifier: MIT
//! The guest payloads as bytes, and the shapes in which they are booted.
//!
//! Always true: the build script compiles them with the workspace's own compiler; nothing here runs them.
//! Each flat image is the payload's memory from its link address on, zeroed data included, with the 64-bit
//! entry at [`ENTRY64_OFFSET`]. Not here: how they are loaded (`vm_loaders`), what they print
//! (`guest_protocol::report`).
#![forbid(unsafe_code)]

// The guest's own readers, compiled for the host as well so that tests hold them against the host's
// builders.
#[cfg(test)]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "payloads use what the tests here do not, from another crate"
)]
#[path = "../../guest_rt/src/acpi.rs"]
mod acpi;
#[cfg(test)]
#[allow(dead_code, unreachable_pub, reason = "as above")]
#[path = "../../guest_rt/src/fdt.rs"]
mod fdt;
#[cfg(test)]
#[allow(dead_code, unreachable_pub, reason = "as above")]
#[path = "../../guest_rt/src/uefi_blob.rs"]
mod uefi_blob;

pub mod boot_probe;
mod pe;
pub mod plan;
pub mod uefi_probe;

/// Offset of the 64-bit entry in every flat image.
pub const ENTRY64_OFFSET: u64 = 0x200;

macro_rules! built {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name))
    };
}
pub(crate) use built;

/// Prints `!` on COM1 and writes 0 to the test-exit port: an ELF file with a PVH note, linked at 1 MiB.
pub const FIRST_BYTE_ELF: &[u8] = built!("first_byte.elf");
/// The same, flat: 32-bit or 64-bit code from its first byte on, position independent.
pub const FIRST_BYTE: &[u8] = built!("first_byte.bin");

/// An EFI application that says that it runs and powers the machine off.
pub fn efi_hello() -> Vec<u8> {
    const APPLICATION: pe::Kind = pe::Kind {
        subsystem: 10,
        base: None,
    };
    pe::image(built!("efi_hello.bin"), &APPLICATION)
}

/// Named cases for `type=test`, flat, linked at `guest_protocol::flat::IMAGE_GPA`.
pub const TEST_SUITE: &[u8] = built!("test_suite.bin");
/// Spins, flat, linked there too.
pub const SPIN: &[u8] = built!("spin.bin");
/// Crashes, flat, linked there too.
pub const TRIPLE_FAULT: &[u8] = built!("triple_fault.bin");
/// Executes an instruction that no emulator of ring 0 knows, flat, linked there too.
pub const UNHANDLED_INSTRUCTION: &[u8] = built!("unhandled_instruction.bin");
/// A transcript of faults, transfers and interrupts, flat, linked there too.
pub const CONFORMANCE: &[u8] = built!("conformance.bin");
/// Drives a virtio block device, flat, linked there too.
pub const VIRTIO_PROBE: &[u8] = built!("virtio_probe.bin");
/// Every device of the OVMF machine, flat, linked there too.
pub const MACHINE_SUITE: &[u8] = built!("machine_suite.bin");
/// Checks an IGVM launch, flat, position independent; 32-bit entry at 0.
pub const IGVM_PROBE: &[u8] = built!("igvm_probe.bin");

#[cfg(test)]
mod tests;
