// SPDX-License-Identifier: MIT
//! Initial virtual processor state as images carry it, and its meaning as [`X86State`].

use std::borrow::Cow;
use x86defs::{SegmentRegister, TableRegister, X86State};

/// Index of a virtual processor, 0 is the bootstrap processor.
pub type VpIndex = u32;

/// A virtual processor's initial state.
#[derive(Debug, Clone, PartialEq)]
pub struct VpContext<'a> {
    /// Which VP.
    pub vp: VpIndex,
    /// GPA of the VMSA (SEV-ES, SEV-SNP); 0 elsewhere.
    pub gpa: u64,
    /// The state.
    pub state: VpState<'a>,
}

/// State in the form that the platform defines. Kept as the image has it, so that encoding a plan
/// gives the same bytes back.
#[derive(Debug, Clone, PartialEq)]
pub enum VpState<'a> {
    /// `IgvmNativeVpContextX64` (232 bytes): NATIVE and plain SEV.
    Native(Box<NativeContext>),
    /// A VBS register list: VSM_ISOLATION. Also what our direct UEFI loader makes.
    Vbs(Vec<VbsRegister>),
    /// A 4 KiB save area: SEV-ES and SEV-SNP.
    Vmsa(Cow<'a, [u8]>),
    /// The 80-byte AArch64 CCA context.
    Cca(Cow<'a, [u8]>),
}

/// `IgvmNativeVpContextX64` in decoded form. Registers that it does not name stay at reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NativeContext {
    /// General purpose registers in encoding order.
    pub gpr: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags as the file has them; bit 1 is set when the state is applied.
    pub rflags: u64,
    /// IDTR.
    pub idtr: TableRegister,
    /// GDTR.
    pub gdtr: TableRegister,
    /// CS.
    pub cs: SegmentRegister,
    /// DS, ES, FS, GS and SS.
    pub data: SegmentRegister,
    /// GS base, applied after `data`.
    pub gs_base: u64,
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
}

impl NativeContext {
    /// Applies the context over `state`.
    pub fn apply(&self, state: &mut X86State) {
        state.gpr = self.gpr;
        state.rip = self.rip;
        state.rflags = self.rflags | x86defs::rflags::RESERVED_ONE;
        state.idtr = self.idtr;
        state.gdtr = self.gdtr;
        state.cs = self.cs;
        state.ds = self.data;
        state.es = self.data;
        state.fs = self.data;
        state.ss = self.data;
        state.gs = SegmentRegister { base: self.gs_base, ..self.data };
        state.cr0 = self.cr0;
        state.cr3 = self.cr3;
        state.cr4 = self.cr4;
        state.efer = self.efer;
    }
}

/// A register that a VBS context may name (`IgvmVbsVpContextRegister` names are Hyper-V register names).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum VbsRegisterName {
    Gdtr,
    Idtr,
    Ds,
    Es,
    Fs,
    Gs,
    Ss,
    Cs,
    Tr,
    Cr0,
    Cr3,
    Cr4,
    Efer,
    Pat,
    Rbp,
    Rip,
    Rsi,
    Rsp,
    R8,
    R9,
    R10,
    R11,
    R12,
    Rflags,
    MtrrDefType,
    MtrrPhysBase(u8),
    MtrrPhysMask(u8),
    MtrrFix64k00000,
    MtrrFix16k80000,
    MtrrFix4kE0000,
    MtrrFix4kE8000,
    MtrrFix4kF0000,
    MtrrFix4kF8000,
}

/// The value of a VBS register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VbsValue {
    /// 64-bit register.
    U64(u64),
    /// Segment register.
    Segment(SegmentRegister),
    /// GDTR or IDTR.
    Table(TableRegister),
}

/// One entry of a VBS register list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VbsRegister {
    /// The trust level it belongs to.
    pub vtl: u8,
    /// Which register.
    pub name: VbsRegisterName,
    /// Its value.
    pub value: VbsValue,
}
