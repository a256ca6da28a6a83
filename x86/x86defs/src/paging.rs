// SPDX-License-Identifier: MIT
//! Page-table entry bits and page sizes (APM2 section 5.3).

/// Smallest page, in bytes; the page of every IGVM file here.
pub const PAGE_SIZE: u64 = 4096;
/// `PAGE_SIZE` as a `usize`.
pub const PAGE_BYTES: usize = 4096;
/// 2 MiB page, in bytes.
pub const LARGE_PAGE_SIZE: u64 = 2 << 20;
/// 1 GiB page, in bytes.
pub const HUGE_PAGE_SIZE: u64 = 1 << 30;

/// Present.
pub const PTE_P: u64 = 1 << 0;
/// Writable.
pub const PTE_W: u64 = 1 << 1;
/// User accessible.
pub const PTE_U: u64 = 1 << 2;
/// Write-through.
pub const PTE_PWT: u64 = 1 << 3;
/// Cache disable.
pub const PTE_PCD: u64 = 1 << 4;
/// Accessed.
pub const PTE_A: u64 = 1 << 5;
/// Dirty (leaves).
pub const PTE_D: u64 = 1 << 6;
/// Large leaf (level 2 and 3 entries).
pub const PTE_PS: u64 = 1 << 7;
/// Global (leaves).
pub const PTE_G: u64 = 1 << 8;
/// No execute.
pub const PTE_NX: u64 = 1 << 63;
/// Physical address field of an entry, bits 12 to 51.
pub const PTE_ADDR: u64 = 0x000F_FFFF_FFFF_F000;
