// SPDX-License-Identifier: MIT
//! The SEV-ES and SEV-SNP save area (VMSA) as a table of named fields (APM2 appendix B, table B-4).
//!
//! Always true: the table covers all 4096 bytes; bytes that no field names belong to the reserved entry
//! before the next field. Not here: what KVM makes of a field (`launch_digest::kvm_vmsa`).

/// Size of the page that is measured.
pub const VMSA_SIZE: usize = 4096;
/// Bytes that the save area proper uses; the rest is padding.
pub const VMSA_USED: usize = 0x670;
/// GPA that KVM gives every VMSA: all ones, page aligned, cut at bit 47.
pub const KVM_VMSA_GPA: u64 = 0xFFFF_FFFF_F000;

/// One field of the save area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VmsaField {
    /// Name as AMD's table spells it.
    pub name: &'static str,
    /// Byte offset.
    pub offset: usize,
    /// Size in bytes.
    pub size: usize,
    /// Whether an IGVM file may set it (QEMU's documented list, plus SEV_FEATURES).
    pub settable: bool,
}

const fn field(name: &'static str, offset: usize, size: usize) -> VmsaField {
    VmsaField {
        name,
        offset,
        size,
        settable: false,
    }
}

const fn settable(name: &'static str, offset: usize, size: usize) -> VmsaField {
    VmsaField {
        name,
        offset,
        size,
        settable: true,
    }
}

/// SEV_FEATURES bits (APM2 table B-4; sections 15.36.7 ff).
pub mod sev_features {
    /// SEV-SNP is active.
    pub const SNP_ACTIVE: u64 = 1 << 0;
    /// Virtual top of memory.
    pub const VTOM: u64 = 1 << 1;
    /// Reflect #VC.
    pub const REFLECT_VC: u64 = 1 << 2;
    /// Restricted injection.
    pub const RESTRICTED_INJECTION: u64 = 1 << 3;
    /// Alternate injection.
    pub const ALTERNATE_INJECTION: u64 = 1 << 4;
    /// Debug register swap.
    pub const DEBUG_SWAP: u64 = 1 << 5;
    /// Secure TSC.
    pub const SECURE_TSC: u64 = 1 << 9;
}

/// Offsets that code needs by name.
#[allow(missing_docs)]
pub mod offset {
    pub const ES: usize = 0x000;
    pub const CS: usize = 0x010;
    pub const SS: usize = 0x020;
    pub const DS: usize = 0x030;
    pub const FS: usize = 0x040;
    pub const GS: usize = 0x050;
    pub const GDTR: usize = 0x060;
    pub const LDTR: usize = 0x070;
    pub const IDTR: usize = 0x080;
    pub const TR: usize = 0x090;
    pub const VMPL: usize = 0x0CA;
    pub const CPL: usize = 0x0CB;
    pub const EFER: usize = 0x0D0;
    pub const CR4: usize = 0x148;
    pub const CR3: usize = 0x150;
    pub const CR0: usize = 0x158;
    pub const DR7: usize = 0x160;
    pub const DR6: usize = 0x168;
    pub const RFLAGS: usize = 0x170;
    pub const RIP: usize = 0x178;
    pub const RSP: usize = 0x1D8;
    pub const RAX: usize = 0x1F8;
    pub const PAT: usize = 0x268;
    pub const RCX: usize = 0x308;
    pub const RDX: usize = 0x310;
    pub const RBX: usize = 0x318;
    pub const RBP: usize = 0x328;
    pub const RSI: usize = 0x330;
    pub const RDI: usize = 0x338;
    pub const R8: usize = 0x340;
    pub const SEV_FEATURES: usize = 0x3B0;
    pub const VIRTUAL_TOM: usize = 0x3C8;
    pub const XCR0: usize = 0x3E8;
    pub const MXCSR: usize = 0x408;
    pub const FCW: usize = 0x410;
}

/// Every byte of the save area, in ascending order without gaps.
pub const VMSA_FIELDS: &[VmsaField] = &[
    settable("ES", 0x000, 16),
    settable("CS", 0x010, 16),
    settable("SS", 0x020, 16),
    settable("DS", 0x030, 16),
    settable("FS", 0x040, 16),
    settable("GS", 0x050, 16),
    settable("GDTR", 0x060, 16),
    settable("LDTR", 0x070, 16),
    settable("IDTR", 0x080, 16),
    settable("TR", 0x090, 16),
    field("PL0_SSP", 0x0A0, 8),
    field("PL1_SSP", 0x0A8, 8),
    field("PL2_SSP", 0x0B0, 8),
    field("PL3_SSP", 0x0B8, 8),
    field("U_CET", 0x0C0, 8),
    field("reserved 0xc8", 0x0C8, 2),
    field("VMPL", 0x0CA, 1),
    field("CPL", 0x0CB, 1),
    field("reserved 0xcc", 0x0CC, 4),
    settable("EFER", 0x0D0, 8),
    field("reserved 0xd8", 0x0D8, 0x68),
    field("XSS", 0x140, 8),
    settable("CR4", 0x148, 8),
    settable("CR3", 0x150, 8),
    settable("CR0", 0x158, 8),
    settable("DR7", 0x160, 8),
    settable("DR6", 0x168, 8),
    settable("RFLAGS", 0x170, 8),
    settable("RIP", 0x178, 8),
    field("DR0", 0x180, 8),
    field("DR1", 0x188, 8),
    field("DR2", 0x190, 8),
    field("DR3", 0x198, 8),
    field("DR0_ADDR_MASK", 0x1A0, 8),
    field("DR1_ADDR_MASK", 0x1A8, 8),
    field("DR2_ADDR_MASK", 0x1B0, 8),
    field("DR3_ADDR_MASK", 0x1B8, 8),
    field("reserved 0x1c0", 0x1C0, 0x18),
    settable("RSP", 0x1D8, 8),
    field("S_CET", 0x1E0, 8),
    field("SSP", 0x1E8, 8),
    field("ISST_ADDR", 0x1F0, 8),
    settable("RAX", 0x1F8, 8),
    field("STAR", 0x200, 8),
    field("LSTAR", 0x208, 8),
    field("CSTAR", 0x210, 8),
    field("SFMASK", 0x218, 8),
    field("KERNEL_GS_BASE", 0x220, 8),
    field("SYSENTER_CS", 0x228, 8),
    field("SYSENTER_ESP", 0x230, 8),
    field("SYSENTER_EIP", 0x238, 8),
    field("CR2", 0x240, 8),
    field("reserved 0x248", 0x248, 0x20),
    settable("G_PAT", 0x268, 8),
    field("DBGCTL", 0x270, 8),
    field("BR_FROM", 0x278, 8),
    field("BR_TO", 0x280, 8),
    field("LASTEXCPFROM", 0x288, 8),
    field("LASTEXCPTO", 0x290, 8),
    field("reserved 0x298", 0x298, 0x48),
    field("SPEC_CTRL", 0x2E0, 8),
    field("PKRU", 0x2E8, 4),
    field("TSC_AUX", 0x2EC, 4),
    field("GUEST_TSC_SCALE", 0x2F0, 8),
    field("GUEST_TSC_OFFSET", 0x2F8, 8),
    field("REG_PROT_NONCE", 0x300, 8),
    settable("RCX", 0x308, 8),
    settable("RDX", 0x310, 8),
    settable("RBX", 0x318, 8),
    field("SECURE_AVIC_CTL", 0x320, 8),
    settable("RBP", 0x328, 8),
    settable("RSI", 0x330, 8),
    settable("RDI", 0x338, 8),
    settable("R8", 0x340, 8),
    settable("R9", 0x348, 8),
    settable("R10", 0x350, 8),
    settable("R11", 0x358, 8),
    settable("R12", 0x360, 8),
    settable("R13", 0x368, 8),
    settable("R14", 0x370, 8),
    settable("R15", 0x378, 8),
    field("reserved 0x380", 0x380, 0x10),
    field("GUEST_EXITINFO1", 0x390, 8),
    field("GUEST_EXITINFO2", 0x398, 8),
    field("GUEST_EXITINTINFO", 0x3A0, 8),
    field("GUEST_NRIP", 0x3A8, 8),
    settable("SEV_FEATURES", 0x3B0, 8),
    field("VINTR_CTRL", 0x3B8, 8),
    field("GUEST_EXITCODE", 0x3C0, 8),
    field("VIRTUAL_TOM", 0x3C8, 8),
    field("TLB_ID", 0x3D0, 8),
    field("PCPU_ID", 0x3D8, 8),
    field("EVENTINJ", 0x3E0, 8),
    settable("XCR0", 0x3E8, 8),
    field("reserved 0x3f0", 0x3F0, 0x10),
    field("X87_DP", 0x400, 8),
    settable("MXCSR", 0x408, 4),
    field("X87_FTW", 0x40C, 2),
    field("X87_FSW", 0x40E, 2),
    settable("X87_FCW", 0x410, 2),
    field("X87_FOP", 0x412, 2),
    field("X87_DS", 0x414, 2),
    field("X87_CS", 0x416, 2),
    field("X87_RIP", 0x418, 8),
    field("FPREG_X87", 0x420, 0x50),
    field("FPREG_XMM", 0x470, 0x100),
    field("FPREG_YMM", 0x570, 0x100),
    field("padding", 0x670, VMSA_SIZE - VMSA_USED),
];

/// What differs between the reset states that hypervisors and loaders give a VP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetState {
    /// Linear address of the first instruction; CS holds its upper half, RIP its lower.
    pub entry: u32,
    /// RDX, by convention the processor's CPUID signature.
    pub rdx: u64,
    /// Attributes of CS.
    pub code: u16,
    /// Attributes of DS, ES, FS, GS and SS.
    pub data: u16,
    /// Attributes of TR.
    pub task: u16,
    /// SEV_FEATURES.
    pub features: u64,
}

/// The save area of a VP in reset state (APM2 table 14-1, with what SEV-ES adds).
pub fn reset_page(state: &ResetState) -> [u8; VMSA_SIZE] {
    let mut page = [0; VMSA_SIZE];
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    let segments = [
        (offset::ES, 0, state.data, 0),
        (
            offset::CS,
            0xF000,
            state.code,
            u64::from(state.entry & 0xFFFF_0000),
        ),
        (offset::SS, 0, state.data, 0),
        (offset::DS, 0, state.data, 0),
        (offset::FS, 0, state.data, 0),
        (offset::GS, 0, state.data, 0),
        (offset::GDTR, 0, 0, 0),
        (offset::LDTR, 0, 0x82, 0),
        (offset::IDTR, 0, 0, 0),
        (offset::TR, 0, state.task, 0),
    ];
    for (at, selector, attributes, base) in segments {
        put(at, &u16::to_le_bytes(selector));
        put(at + 2, &u16::to_le_bytes(attributes));
        put(at + 4, &0xFFFFu32.to_le_bytes());
        put(at + 8, &u64::to_le_bytes(base));
    }
    let registers = [
        (offset::EFER, crate::efer::SVME),
        (offset::CR4, crate::cr4::MCE),
        (offset::CR0, crate::cr0::ET),
        (offset::DR7, 0x400),
        (offset::DR6, 0xFFFF_0FF0),
        (offset::RFLAGS, crate::rflags::RESERVED_ONE),
        (offset::RIP, u64::from(state.entry & 0xFFFF)),
        (offset::PAT, crate::msr::PAT_RESET),
        (offset::RDX, state.rdx),
        (offset::SEV_FEATURES, state.features),
        (offset::XCR0, 1),
    ];
    for (at, value) in registers {
        put(at, &u64::to_le_bytes(value));
    }
    put(offset::MXCSR, &0x1F80u32.to_le_bytes());
    put(offset::FCW, &0x37Fu16.to_le_bytes());
    page
}

/// A segment register as save areas hold it: selector, packed attributes (the access byte, then AVL, L, D
/// and G without the limit between them), limit, base.
pub fn descriptor(segment: &crate::SegmentRegister) -> [u8; 16] {
    let attributes = segment.attributes.0;
    let packed = ((attributes & 0xFF) | ((attributes >> 4) & 0xF00)) as u16;
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&segment.selector.to_le_bytes());
    bytes[2..4].copy_from_slice(&packed.to_le_bytes());
    bytes[4..8].copy_from_slice(&segment.limit.to_le_bytes());
    bytes[8..].copy_from_slice(&segment.base.to_le_bytes());
    bytes
}

/// The field that holds byte `offset`, which must be below [`VMSA_SIZE`].
pub fn field_at(offset: usize) -> Option<&'static VmsaField> {
    let i = VMSA_FIELDS
        .partition_point(|f| f.offset <= offset)
        .checked_sub(1)?;
    VMSA_FIELDS.get(i).filter(|f| offset < f.offset + f.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_covers_every_byte_once() {
        let mut next = 0;
        for f in VMSA_FIELDS {
            assert_eq!(f.offset, next, "{}", f.name);
            next += f.size;
        }
        assert_eq!(next, VMSA_SIZE);
        assert_eq!(field_at(0x3B3).unwrap().name, "SEV_FEATURES");
        assert!(field_at(VMSA_SIZE).is_none());
    }
}
