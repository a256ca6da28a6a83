// SPDX-License-Identifier: MIT
//! How flat payloads (`test_suite`, `machine_suite`, `virtio_probe`, `spin`, `triple_fault`,
//! `unhandled_instruction`) are entered.
//!
//! Always true: linked at [`IMAGE_GPA`]; entered in 64-bit mode at `ENTRY64_OFFSET` with at least the
//! first 4 GiB identity mapped, by any state that gives that. Registers name what else there is; 0 means
//! not there, so a VMM that sets none of them is right too.

/// First byte of the image, where it is linked.
pub const IMAGE_GPA: u64 = 0x20_0000;
/// Six page table pages, and after them a page with the GDT.
pub const TABLES_GPA: u64 = 0x18_0000;
/// Command line, NUL-terminated: one page, in RSI.
pub const COMMAND_LINE_GPA: u64 = 0x18_8000;
/// MADT: two pages, in R8.
pub const MADT_GPA: u64 = 0x18_A000;
/// Free memory for tests, from here to [`FREE_END`].
pub const FREE_GPA: u64 = 0x80_0000;
/// End of the free memory; a VM for a flat payload has at least this much RAM.
pub const FREE_END: u64 = 0x100_0000;
/// Key of the command line argument of `virtio_probe` that says where configuration space is.
pub const ECAM_ARGUMENT: &str = "ecam";
/// Key of the command line argument of `virtio_probe` that asks for so many timed reads.
pub const BENCH_ARGUMENT: &str = "bench";
/// Key of the command line argument that names a case of `test_suite` which shall fail.
pub const FAIL_ARGUMENT: &str = "fail";
/// Key of the command line argument that names the devices which `machine_suite` must find, with commas between.
pub const DEVICES_ARGUMENT: &str = "devices";
/// First byte of the flash of `machine_suite`: three blocks of variables, below one of code.
pub const MACHINE_FLASH_GPA: u64 = 0xFFFF_C000;
/// What `machine_suite` prints on a virtio console.
pub const CONSOLE_TEXT: &str = "hello over virtio\n";
/// Port of the host at which `machine_suite` wants its bytes back over virtio-vsock.
pub const VSOCK_PORT: u32 = 5000;
/// Port of the host at which nobody may listen.
pub const SILENT_PORT: u32 = 4999;
/// The host's address on the network interface of `machine_suite`.
pub const NET_HOST_IP: [u8; 4] = [192, 168, 77, 1];
/// The address that `machine_suite` takes there.
pub const NET_GUEST_IP: [u8; 4] = [192, 168, 77, 2];
