// SPDX-License-Identifier: MIT
//! The register state of one virtual processor, as every loader writes it and every backend takes it.
//!
//! Always true: `X86State::reset()` is the architectural state after RESET (APM2 table 14-1); loaders
//! change what they name and leave the rest. Not here: FPU and vector contents (they stay at reset
//! until a guest changes them), local APIC state (a device).

/// Segment attributes in the form that VMX, Hyper-V and IGVM's native context share: bits 0-7 are the
/// descriptor's access byte, bits 12-15 its AVL, L, D/B and G bits; bit 16 marks the segment unusable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SegmentAttributes(pub u32);

impl SegmentAttributes {
    /// Present bit.
    pub const P: u32 = 1 << 7;
    /// Code or data (not a system descriptor).
    pub const S: u32 = 1 << 4;
    /// Long mode code.
    pub const L: u32 = 1 << 13;
    /// Default operand size.
    pub const DB: u32 = 1 << 14;
    /// Limit granularity.
    pub const G: u32 = 1 << 15;
    /// Not usable (null selector loaded).
    pub const UNUSABLE: u32 = 1 << 16;

    /// The four type bits.
    pub fn segment_type(self) -> u8 {
        (self.0 & 0xF) as u8
    }
    /// Descriptor privilege level.
    pub fn dpl(self) -> u8 {
        ((self.0 >> 5) & 3) as u8
    }
    /// Whether all of `bits` are set.
    pub fn has(self, bits: u32) -> bool {
        self.0 & bits == bits
    }
    /// The 12-bit form a VMSA holds (SEV-SNP: access byte in bits 0-7, AVL/L/DB/G in bits 8-11).
    pub fn to_vmcb(self) -> u16 {
        ((self.0 & 0xFF) | ((self.0 >> 4) & 0xF00)) as u16
    }
    /// The inverse of [`Self::to_vmcb`].
    pub fn from_vmcb(v: u16) -> Self {
        Self((u32::from(v) & 0xFF) | ((u32::from(v) & 0xF00) << 4))
    }
}

/// A segment register with its hidden part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SegmentRegister {
    /// Selector.
    pub selector: u16,
    /// Attributes.
    pub attributes: SegmentAttributes,
    /// Limit in bytes (already scaled by granularity).
    pub limit: u32,
    /// Base address.
    pub base: u64,
}

/// GDTR or IDTR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TableRegister {
    /// Base address.
    pub base: u64,
    /// Limit in bytes, inclusive.
    pub limit: u16,
}

/// Index of a general purpose register in [`X86State::gpr`] (encoding order).
#[allow(missing_docs)]
pub mod gpr {
    pub const RAX: usize = 0;
    pub const RCX: usize = 1;
    pub const RDX: usize = 2;
    pub const RBX: usize = 3;
    pub const RSP: usize = 4;
    pub const RBP: usize = 5;
    pub const RSI: usize = 6;
    pub const RDI: usize = 7;
    pub const R8: usize = 8;
    pub const R9: usize = 9;
    pub const R10: usize = 10;
    pub const R11: usize = 11;
    pub const R12: usize = 12;
    pub const R13: usize = 13;
    pub const R14: usize = 14;
    pub const R15: usize = 15;
}

/// Number of variable MTRR pairs.
pub const VARIABLE_MTRRS: usize = 8;

/// Memory type range registers (APM2 section 7.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mtrrs {
    /// MTRR_DEF_TYPE.
    pub def_type: u64,
    /// Fixed ranges in the order 64K_00000, 16K_80000, 16K_A0000, 4K_C0000 .. 4K_F8000.
    pub fixed: [u64; 11],
    /// Variable pairs (base, mask).
    pub variable: [(u64, u64); VARIABLE_MTRRS],
}

/// The MSR number of each entry of [`Mtrrs::fixed`].
pub const FIXED_MTRR_MSRS: [u32; 11] = [
    0x250, 0x258, 0x259, 0x268, 0x269, 0x26A, 0x26B, 0x26C, 0x26D, 0x26E, 0x26F,
];

/// Everything a loader can preset and a debugger can show of one virtual processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct X86State {
    /// General purpose registers in encoding order (see [`gpr`]).
    pub gpr: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// Code segment.
    pub cs: SegmentRegister,
    /// Data segment.
    pub ds: SegmentRegister,
    /// Extra segment.
    pub es: SegmentRegister,
    /// FS.
    pub fs: SegmentRegister,
    /// GS.
    pub gs: SegmentRegister,
    /// Stack segment.
    pub ss: SegmentRegister,
    /// Task register.
    pub tr: SegmentRegister,
    /// Local descriptor table.
    pub ldtr: SegmentRegister,
    /// Global descriptor table.
    pub gdtr: TableRegister,
    /// Interrupt descriptor table.
    pub idtr: TableRegister,
    /// CR0.
    pub cr0: u64,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// CR8 (task priority).
    pub cr8: u64,
    /// Debug registers 0-3, 6, 7.
    pub dr: [u64; 6],
    /// XCR0.
    pub xcr0: u64,
    /// EFER.
    pub efer: u64,
    /// Page attribute table.
    pub pat: u64,
    /// Memory type range registers.
    pub mtrr: Mtrrs,
    /// SYSENTER CS, ESP, EIP.
    pub sysenter: (u64, u64, u64),
    /// STAR, LSTAR, CSTAR, SFMASK.
    pub syscall: (u64, u64, u64, u64),
    /// Swapped GS base.
    pub kernel_gs_base: u64,
    /// TSC_AUX.
    pub tsc_aux: u64,
}

impl X86State {
    /// The state after RESET: real mode at F000:FFF0 with CS base 0xFFFF0000 (APM2 table 14-1).
    pub const fn reset() -> Self {
        const fn seg(selector: u16, base: u64, attributes: u32) -> SegmentRegister {
            SegmentRegister {
                selector,
                attributes: SegmentAttributes(attributes),
                limit: 0xFFFF,
                base,
            }
        }
        const DATA: SegmentRegister = seg(0, 0, 0x93);
        let mut gpr = [0; 16];
        gpr[gpr::RDX] = 0x600;
        Self {
            gpr,
            rip: 0xFFF0,
            rflags: 2,
            cs: seg(0xF000, 0xFFFF_0000, 0x9B),
            ds: DATA,
            es: DATA,
            fs: DATA,
            gs: DATA,
            ss: DATA,
            tr: seg(0, 0, 0x8B),
            ldtr: seg(0, 0, 0x82),
            gdtr: TableRegister {
                base: 0,
                limit: 0xFFFF,
            },
            idtr: TableRegister {
                base: 0,
                limit: 0xFFFF,
            },
            cr0: 0x6000_0010,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            cr8: 0,
            dr: [0, 0, 0, 0, 0xFFFF_0FF0, 0x400],
            xcr0: 1,
            efer: 0,
            pat: super::msr::PAT_RESET,
            mtrr: Mtrrs {
                def_type: 0,
                fixed: [0; 11],
                variable: [(0, 0); VARIABLE_MTRRS],
            },
            sysenter: (0, 0, 0),
            syscall: (0, 0, 0, 0),
            kernel_gs_base: 0,
            tsc_aux: 0,
        }
    }

    /// The state of an application processor after INIT and a SIPI with `vector` (APM2 section 15.27.8):
    /// real mode at `vector << 12`.
    pub const fn after_sipi(vector: u8) -> Self {
        let mut s = Self::reset();
        s.cs.selector = (vector as u16) << 8;
        s.cs.base = (vector as u64) << 12;
        s.rip = 0;
        s
    }

    /// Whether the state runs 64-bit code (long mode active and CS.L).
    pub fn is_64bit(&self) -> bool {
        self.efer & super::efer::LMA != 0 && self.cs.attributes.has(SegmentAttributes::L)
    }
}

impl Default for X86State {
    fn default() -> Self {
        Self::reset()
    }
}
