// SPDX-License-Identifier: MIT
//! Fixed addresses of the firmware's memory (uefi-launch 3.1, 5.1, 5.3).
//!
//! Always true: the values are the firmware's, not choices of ours; the parts of each architecture
//! follow each other without a gap. Not here: what lies at them.

/// x86-64.
pub mod x64 {
    /// First byte of the firmware image.
    pub const IMAGE_GPA: u64 = 0x10_0000;
    /// Exact size of the firmware image in bytes.
    pub const IMAGE_SIZE: u64 = 0x60_0000;
    /// Offset of the firmware volume with the security core in the image.
    pub const SEC_VOLUME_OFFSET: u64 = 0x5E_0000;
    /// Six page table pages: identity map of 0-4 GiB.
    pub const PAGE_TABLES_GPA: u64 = IMAGE_GPA + IMAGE_SIZE;
    /// Length of the page tables in bytes.
    pub const PAGE_TABLES_SIZE: u64 = 6 << 12;
    /// One page with the GDT.
    pub const GDT_GPA: u64 = PAGE_TABLES_GPA + PAGE_TABLES_SIZE;
    /// Two zero pages that the firmware uses for hypercalls.
    pub const SCRATCH_GPA: u64 = GDT_GPA + 0x1000;
    /// Length of the scratch pages in bytes.
    pub const SCRATCH_SIZE: u64 = 2 << 12;
    /// The configuration blob, or the IGVM parameter area of `config_type: igvm`.
    pub const CONFIG_BLOB_GPA: u64 = SCRATCH_GPA + SCRATCH_SIZE;
    /// Image size as the blob's BiosInformation says it, in pages.
    pub const IMAGE_PAGES: u32 = (IMAGE_SIZE >> 12) as u32;
}

/// AArch64: constants of `uefi-aarch64.json`; this program builds such files but does not run them.
pub mod aarch64 {
    /// First byte of the firmware image.
    pub const IMAGE_GPA: u64 = 0;
    /// Exact size of the firmware image in bytes.
    pub const IMAGE_SIZE: u64 = 0x80_0000;
    /// 32 pages of stack.
    pub const STACK_GPA: u64 = IMAGE_GPA + IMAGE_SIZE;
    /// Length of the stack in bytes.
    pub const STACK_SIZE: u64 = 32 << 12;
    /// Four page table pages: 4 GiB identity, write-back below 1 GiB, device memory above.
    pub const PAGE_TABLES_GPA: u64 = STACK_GPA + STACK_SIZE;
    /// Length of the page tables in bytes.
    pub const PAGE_TABLES_SIZE: u64 = 4 << 12;
    /// The configuration blob.
    pub const CONFIG_BLOB_GPA: u64 = PAGE_TABLES_GPA + PAGE_TABLES_SIZE;
    /// Image size as the blob's BiosInformation says it, in pages.
    pub const IMAGE_PAGES: u32 = (IMAGE_SIZE >> 12) as u32;

    /// Initial registers (uefi-launch 5.3).
    pub mod registers {
        /// Entry point, also in X0.
        pub const PC: u64 = 0x1000;
        /// X1: the end of the stack.
        pub const X1: u64 = super::PAGE_TABLES_GPA;
        /// X2 with the hypervisor interface.
        pub const X2_HYPERV: u64 = 0;
        /// X2 on a generic machine.
        pub const X2_GENERIC: u64 = 1;
        /// EL1h, interrupts not masked.
        pub const CPSR: u64 = 5;
        /// Translation table base.
        pub const TTBR0_EL1: u64 = super::PAGE_TABLES_GPA;
        /// Memory attributes.
        pub const MAIR_EL1: u64 = 0x44AA_00FF_44AA_00FF;
        /// System control.
        pub const SCTLR_EL1: u64 = 0x30D0_1805;
        /// Translation control.
        pub const TCR_EL1: u64 = 0x90_3510;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_lie_where_the_firmware_expects_them() {
        assert_eq!(x64::PAGE_TABLES_GPA, 0x70_0000);
        assert_eq!(x64::GDT_GPA, 0x70_6000);
        assert_eq!(x64::SCRATCH_GPA, 0x70_7000);
        assert_eq!(x64::CONFIG_BLOB_GPA, 0x70_9000);
        assert_eq!(aarch64::PAGE_TABLES_GPA, 0x82_0000);
        assert_eq!(aarch64::CONFIG_BLOB_GPA, 0x82_4000);
    }
}
