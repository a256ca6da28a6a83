// SPDX-License-Identifier: MIT
//! Initial virtual processor state as images carry it, and its meaning as [`X86State`].

mod wire;

use std::borrow::Cow;
use x86defs::state::{VARIABLE_MTRRS, gpr};
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
    /// A VBS register list of an AArch64 image; every register is 64 bits wide.
    Aarch64Vbs(Vec<Aarch64Register>),
}

/// One entry of an AArch64 VBS register list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aarch64Register {
    /// The trust level it belongs to.
    pub vtl: u8,
    /// Hyper-V register number (`HvArm64RegisterName`).
    pub name: u32,
    /// Its value.
    pub value: u64,
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
        state.gs = SegmentRegister {
            base: self.gs_base,
            ..self.data
        };
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

impl VbsRegisterName {
    /// Whether a register of this name can hold `value`, and exists.
    pub fn accepts(self, value: &VbsValue) -> bool {
        match self {
            Self::Gdtr | Self::Idtr => matches!(value, VbsValue::Table(_)),
            Self::Ds | Self::Es | Self::Fs | Self::Gs | Self::Ss | Self::Cs | Self::Tr => {
                matches!(value, VbsValue::Segment(_))
            }
            Self::MtrrPhysBase(pair) | Self::MtrrPhysMask(pair) => {
                matches!(value, VbsValue::U64(_)) && usize::from(pair) < VARIABLE_MTRRS
            }
            _ => matches!(value, VbsValue::U64(_)),
        }
    }

    /// Index into [`x86defs::state::Mtrrs::fixed`] of a fixed MTRR.
    pub const fn fixed_mtrr_index(self) -> Option<usize> {
        match self {
            Self::MtrrFix64k00000 => Some(0),
            Self::MtrrFix16k80000 => Some(1),
            Self::MtrrFix4kE0000 => Some(7),
            Self::MtrrFix4kE8000 => Some(8),
            Self::MtrrFix4kF0000 => Some(9),
            Self::MtrrFix4kF8000 => Some(10),
            _ => None,
        }
    }
}

impl VbsRegister {
    /// Applies the register over `state`. The builder guarantees that the value's shape fits the name;
    /// a register that does not fit changes nothing.
    pub fn apply(&self, state: &mut X86State) {
        match self.value {
            VbsValue::Table(value) => match self.name {
                VbsRegisterName::Gdtr => state.gdtr = value,
                VbsRegisterName::Idtr => state.idtr = value,
                _ => {}
            },
            VbsValue::Segment(value) => self.apply_segment(state, value),
            VbsValue::U64(value) => self.apply_u64(state, value),
        }
    }

    fn apply_segment(&self, state: &mut X86State, value: SegmentRegister) {
        let target = match self.name {
            VbsRegisterName::Ds => &mut state.ds,
            VbsRegisterName::Es => &mut state.es,
            VbsRegisterName::Fs => &mut state.fs,
            VbsRegisterName::Gs => &mut state.gs,
            VbsRegisterName::Ss => &mut state.ss,
            VbsRegisterName::Cs => &mut state.cs,
            VbsRegisterName::Tr => &mut state.tr,
            _ => return,
        };
        *target = value;
    }

    fn apply_u64(&self, state: &mut X86State, value: u64) {
        use VbsRegisterName as Name;
        if let Some(fixed) = self.name.fixed_mtrr_index() {
            state.mtrr.fixed[fixed] = value;
            return;
        }
        let target = match self.name {
            Name::Cr0 => &mut state.cr0,
            Name::Cr3 => &mut state.cr3,
            Name::Cr4 => &mut state.cr4,
            Name::Efer => &mut state.efer,
            Name::Pat => &mut state.pat,
            Name::Rbp => &mut state.gpr[gpr::RBP],
            Name::Rip => &mut state.rip,
            Name::Rsi => &mut state.gpr[gpr::RSI],
            Name::Rsp => &mut state.gpr[gpr::RSP],
            Name::R8 => &mut state.gpr[gpr::R8],
            Name::R9 => &mut state.gpr[gpr::R9],
            Name::R10 => &mut state.gpr[gpr::R10],
            Name::R11 => &mut state.gpr[gpr::R11],
            Name::R12 => &mut state.gpr[gpr::R12],
            Name::Rflags => &mut state.rflags,
            Name::MtrrDefType => &mut state.mtrr.def_type,
            Name::MtrrPhysBase(pair) => match state.mtrr.variable.get_mut(usize::from(pair)) {
                Some((base, _)) => base,
                None => return,
            },
            Name::MtrrPhysMask(pair) => match state.mtrr.variable.get_mut(usize::from(pair)) {
                Some((_, mask)) => mask,
                None => return,
            },
            _ => return,
        };
        *target = value;
    }
}

impl VpState<'_> {
    /// The state as registers, applied over reset: native contexts and VBS lists. `None` for forms whose
    /// registers the platform itself loads (VMSA) or that are not x86.
    pub fn to_x86(&self) -> Option<X86State> {
        let mut state = X86State::reset();
        match self {
            VpState::Native(context) => context.apply(&mut state),
            VpState::Vbs(registers) => registers.iter().for_each(|register| register.apply(&mut state)),
            VpState::Vmsa(_) | VpState::Cca(_) | VpState::Aarch64Vbs(_) => return None,
        }
        Some(state)
    }

    /// Whether the image gives R12: a VBS list names it, even as 0, or a native context holds a non-zero
    /// value (a native context cannot leave a register out).
    pub fn gives_r12(&self) -> bool {
        match self {
            VpState::Native(context) => context.gpr[gpr::R12] != 0,
            VpState::Vbs(_) => self.names(VbsRegisterName::R12),
            VpState::Vmsa(_) | VpState::Cca(_) | VpState::Aarch64Vbs(_) => true,
        }
    }

    /// Whether a VBS list names `register`; false for every other form.
    pub fn names(&self, register: VbsRegisterName) -> bool {
        matches!(self, VpState::Vbs(list) if list.iter().any(|r| r.name == register))
    }
}
