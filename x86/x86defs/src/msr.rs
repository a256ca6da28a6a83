// SPDX-License-Identifier: MIT
//! Model-specific register numbers (Intel SDM volume 4, APM2 appendix A).

/// Time-stamp counter.
pub const TSC: u32 = 0x10;
/// Local APIC base and enables.
pub const APIC_BASE: u32 = 0x1B;
/// `APIC_BASE`: this is the bootstrap processor.
pub const APIC_BASE_BSP: u64 = 1 << 8;
/// `APIC_BASE`: x2APIC mode.
pub const APIC_BASE_X2APIC: u64 = 1 << 10;
/// `APIC_BASE`: APIC enabled.
pub const APIC_BASE_ENABLE: u64 = 1 << 11;
/// Feature control (locked at reset by firmware).
pub const FEATURE_CONTROL: u32 = 0x3A;
/// TSC adjust.
pub const TSC_ADJUST: u32 = 0x3B;
/// Microcode update signature.
pub const BIOS_SIGN_ID: u32 = 0x8B;
/// MTRR capabilities: variable count, fixed support, WC.
pub const MTRR_CAP: u32 = 0xFE;
/// SYSENTER code segment.
pub const SYSENTER_CS: u32 = 0x174;
/// SYSENTER stack pointer.
pub const SYSENTER_ESP: u32 = 0x175;
/// SYSENTER instruction pointer.
pub const SYSENTER_EIP: u32 = 0x176;
/// Machine-check capabilities.
pub const MCG_CAP: u32 = 0x179;
/// Machine-check status.
pub const MCG_STATUS: u32 = 0x17A;
/// Miscellaneous enables.
pub const MISC_ENABLE: u32 = 0x1A0;
/// First variable MTRR base; masks are the odd numbers after each base.
pub const MTRR_PHYS_BASE0: u32 = 0x200;
/// First variable MTRR mask.
pub const MTRR_PHYS_MASK0: u32 = 0x201;
/// Fixed MTRR 64 KiB at 0.
pub const MTRR_FIX64K_00000: u32 = 0x250;
/// Fixed MTRR 16 KiB at 0x80000.
pub const MTRR_FIX16K_80000: u32 = 0x258;
/// Fixed MTRR 16 KiB at 0xA0000.
pub const MTRR_FIX16K_A0000: u32 = 0x259;
/// Fixed MTRR 4 KiB at 0xC0000; seven more follow, 0x8000 bytes of address space each.
pub const MTRR_FIX4K_C0000: u32 = 0x268;
/// Fixed MTRR 4 KiB at 0xE0000.
pub const MTRR_FIX4K_E0000: u32 = 0x26C;
/// Fixed MTRR 4 KiB at 0xE8000.
pub const MTRR_FIX4K_E8000: u32 = 0x26D;
/// Fixed MTRR 4 KiB at 0xF0000.
pub const MTRR_FIX4K_F0000: u32 = 0x26E;
/// Fixed MTRR 4 KiB at 0xF8000.
pub const MTRR_FIX4K_F8000: u32 = 0x26F;
/// Page attribute table.
pub const PAT: u32 = 0x277;
/// `PAT` at reset (APM2 section 7.8.2).
pub const PAT_RESET: u64 = 0x0007_0406_0007_0406;
/// MTRR default type and enables.
pub const MTRR_DEF_TYPE: u32 = 0x2FF;
/// TSC deadline of the local APIC timer.
pub const TSC_DEADLINE: u32 = 0x6E0;
/// System configuration of AMD processors: memory encryption and MTRR extensions (APM2 section 3.2.1).
pub const SYSCFG: u32 = 0xC001_0010;
/// Interrupt pending messages of early AMD processors, with their C1E enables (BKDG of family 0Fh).
pub const INT_PENDING_MSG: u32 = 0xC001_0055;
/// First x2APIC register; register n of the xAPIC page at offset n*16 is MSR 0x800+n.
pub const X2APIC_BASE: u32 = 0x800;
/// Last x2APIC register number.
pub const X2APIC_LAST: u32 = 0x8FF;
/// Extended features.
pub const EFER: u32 = 0xC000_0080;
/// SYSCALL target selectors.
pub const STAR: u32 = 0xC000_0081;
/// SYSCALL 64-bit target.
pub const LSTAR: u32 = 0xC000_0082;
/// SYSCALL compatibility-mode target.
pub const CSTAR: u32 = 0xC000_0083;
/// SYSCALL flag mask.
pub const SFMASK: u32 = 0xC000_0084;
/// FS base.
pub const FS_BASE: u32 = 0xC000_0100;
/// GS base.
pub const GS_BASE: u32 = 0xC000_0101;
/// GS base swapped in by SWAPGS.
pub const KERNEL_GS_BASE: u32 = 0xC000_0102;
/// RDTSCP/RDPID auxiliary value.
pub const TSC_AUX: u32 = 0xC000_0103;
