// SPDX-License-Identifier: MIT
//! A VP as KVM keeps it: registers, CPUID, what was sealed.
//!
//! Always true: a new one is in KVM's own reset state (`spec/sev.md` 2.6, "raw reset"); nothing is copied
//! from a file. Not here: the ioctls that change it ([`registers`]), and the save area ([`save_area`]).

pub(crate) mod registers;
pub(crate) mod save_area;

use crate::script::Script;
use std::collections::BTreeMap;

/// The order of `struct kvm_sregs`.
pub(crate) const CS: usize = 0;
pub(crate) const DS: usize = 1;
pub(crate) const ES: usize = 2;
pub(crate) const FS: usize = 3;
pub(crate) const GS: usize = 4;
pub(crate) const SS: usize = 5;
pub(crate) const TR: usize = 6;
pub(crate) const LDT: usize = 7;

/// `struct kvm_regs`: RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP, R8 to R15, RIP, RFLAGS.
pub(crate) const REGS: usize = 18;
pub(crate) const RIP: usize = 16;
pub(crate) const RFLAGS: usize = 17;

/// A segment as SVM keeps it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) selector: u16,
    /// Type, S, DPL, P, AVL, L, D and G from bit 0.
    pub(crate) attributes: u16,
    pub(crate) limit: u32,
    pub(crate) base: u64,
}

/// A CPUID leaf: function, index, flags, EAX to EDX.
pub(crate) type Leaf = [u32; 7];

/// A VP.
#[derive(Debug)]
pub(crate) struct Vcpu {
    /// The number it was created with.
    pub(crate) id: u32,
    pub(crate) regs: [u64; REGS],
    pub(crate) segments: [Segment; 8],
    /// Base and limit.
    pub(crate) gdt: (u64, u16),
    pub(crate) idt: (u64, u16),
    pub(crate) cr0: u64,
    pub(crate) cr2: u64,
    pub(crate) cr3: u64,
    pub(crate) cr4: u64,
    pub(crate) cr8: u64,
    pub(crate) efer: u64,
    pub(crate) apic_base: u64,
    /// Of SS as it was last set.
    pub(crate) cpl: u8,
    pub(crate) db: [u64; 4],
    pub(crate) dr6: u64,
    pub(crate) dr7: u64,
    pub(crate) xcr0: u64,
    pub(crate) msrs: BTreeMap<u32, u64>,
    /// FXSAVE image.
    pub(crate) fx: Box<[u8; 512]>,
    pub(crate) ymm: Box<[u8; 256]>,
    pub(crate) pkru: u32,
    /// Guest debugging is on.
    pub(crate) debugged: bool,
    pub(crate) cpuid: Vec<Leaf>,
    pub(crate) sealed: bool,
    /// The page of its save area, once sealed (SEV-SNP).
    pub(crate) save_area: Option<u64>,
    /// Its run structure: address and length, while mapped.
    pub(crate) run: Option<(u64, usize)>,
    pub(crate) script: Script,
}

pub(crate) const MSR_PAT: u32 = 0x277;

impl Vcpu {
    pub(crate) fn new(id: u32) -> Self {
        let segment = |attributes| Segment {
            attributes,
            limit: 0xFFFF,
            ..Default::default()
        };
        let mut segments = [segment(0x92); 8];
        segments[CS] = Segment {
            selector: 0xF000,
            base: 0xFFFF_0000,
            ..segment(0x9A)
        };
        segments[TR] = segment(0x83);
        segments[LDT] = segment(0x82);
        let mut regs = [0; REGS];
        regs[3] = 0x600;
        regs[RIP] = 0xFFF0;
        regs[RFLAGS] = 2;
        Self {
            id,
            regs,
            segments,
            gdt: (0, 0xFFFF),
            idt: (0, 0xFFFF),
            cr0: 0x6000_0010,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            cr8: 0,
            efer: 0,
            apic_base: 0xFEE0_0000 | 1 << 11 | u64::from(id == 0) << 8,
            cpl: 0,
            db: [0; 4],
            dr6: 0xFFFF_0FF0,
            dr7: 0x400,
            xcr0: 1,
            msrs: [(MSR_PAT, 0x0007_0406_0007_0406)].into(),
            fx: registers::reset_fx(),
            ymm: Box::new([0; 256]),
            pkru: 0,
            debugged: false,
            cpuid: Vec::new(),
            sealed: false,
            save_area: None,
            run: None,
            script: Script::default(),
        }
    }

    pub(crate) fn msr(&self, number: u32) -> u64 {
        self.msrs.get(&number).copied().unwrap_or(0)
    }

    /// A CPUID leaf of the guest.
    pub(crate) fn leaf(&self, function: u32) -> Option<&Leaf> {
        self.cpuid.iter().find(|leaf| leaf[0] == function)
    }
}
