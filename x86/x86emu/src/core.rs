// SPDX-License-Identifier: MIT
//! The processor state that instruction handlers work on.
//!
//! Always true: between instructions the state is architectural, except that status flags are lazy and
//! that inside a block RIP is the block's start. A handler that answers `Err(Stop)` has changed nothing
//! but `why` (REP string instructions also their registers), so the instruction can be repeated.
//! Not here: instructions, the memory fast path.

use crate::bus::{Bus, Exit, Tracer};
use crate::code_map::CodeMap;
use crate::debug::Watch;
use crate::flags::{Flags, STATUS};
use crate::mem::{ALIGNED, PageCache, RamPage, Tlb};
use x86defs::cpuid::CpuidEntry;
use x86defs::{
    SegmentAttributes as A, SegmentRegister, TableRegister, X86State, cr0, cr4, efer, rflags, vector,
};

/// The instruction cannot go on; [`Core::why`] says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stop;

pub(crate) type Flow = Result<(), Stop>;

/// An exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub vector: u8,
    pub error: Option<u32>,
}

/// Why a handler stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Deliver this exception; RIP is the instruction's.
    Fault(Fault),
    /// INT n, INT3, INTO, INT1: deliver as software interrupt; RIP is the next instruction.
    Interrupt(u8),
    /// Run this instruction again in a block of its own (it stores over the running block).
    Single,
    /// A jump out of the middle of a block: the instruction is retired and RIP is set.
    Jump,
    /// The instruction is retired and `run` must return.
    Exit(Exit),
    /// RIP is at a debugger's breakpoint; the instruction has not run.
    Breakpoint,
    /// A string instruction yields: RIP stays, not retired.
    Yield,
}

/// Pseudo register: always zero.
pub(crate) const ZERO: usize = 16;
/// Pseudo register: RIP at the start of the running block.
pub(crate) const RIP: usize = 17;
/// Pseudo register: always 4096.
pub(crate) const PAGE: usize = 18;

/// Segment register numbers in encoding order, then the flat pseudo segment and the system segments.
pub(crate) const ES: usize = 0;
pub(crate) const CS: usize = 1;
pub(crate) const SS: usize = 2;
pub(crate) const DS: usize = 3;
pub(crate) const FS: usize = 4;
pub(crate) const GS: usize = 5;
/// Base 0 and no limit: what ES, CS, SS and DS are in 64-bit mode.
pub(crate) const FLAT: usize = 6;

/// Offsets that a data access may use: from `low` to before the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub low: u64,
    pub end_read: u64,
    pub end_write: u64,
}

const EVERYTHING: Bounds = Bounds {
    low: 0,
    end_read: u64::MAX,
    end_write: u64::MAX,
};
const NOTHING: Bounds = Bounds {
    low: 0,
    end_read: 0,
    end_write: 0,
};

/// Bits of [`Core::key`]: what a translated block depends on.
pub(crate) mod key {
    /// Code size: 0 = 16, 1 = 32, 2 = 64 bits.
    pub(crate) const CODE: u32 = 3;
    /// SS.B, outside 64-bit mode.
    pub(crate) const STACK32: u32 = 4;
    /// CPL 3.
    pub(crate) const USER: u32 = 8;
    /// FPU or SSE instructions do not simply run (CR0.TS, CR0.EM or no CR4.OSFXSR).
    pub(crate) const FPU_TRAP: u32 = 16;
    /// One instruction per block.
    pub(crate) const SINGLE: u32 = 32;
}

/// x87 and MXCSR in the layout of the first 160 bytes of an FXSAVE image; XMM registers are apart.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(crate) struct Fpu {
    pub image: [u8; 160],
}

impl Fpu {
    pub(crate) fn reset() -> Self {
        let mut image = [0; 160];
        image[0..2].copy_from_slice(&0x37Fu16.to_le_bytes());
        Self { image }
    }
    pub(crate) fn word(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.image[at], self.image[at + 1]])
    }
    pub(crate) fn set_word(&mut self, at: usize, v: u16) {
        self.image[at..at + 2].copy_from_slice(&v.to_le_bytes());
    }
}

pub(crate) struct Core {
    pub gpr: [u64; 32],
    pub flags: Flags,
    pub regime: usize,
    pub lin_mask: u64,
    pub seg_base: [u64; 8],
    pub bounds: [Bounds; 8],
    pub tlb: Tlb,
    pub xmm: [u128; 16],
    pub mxcsr: u32,
    pub fpu: Fpu,
    /// RFLAGS without the status flags.
    pub sys: u64,
    /// ES, CS, SS, DS, FS, GS.
    pub seg: [SegmentRegister; 6],
    pub ldtr: SegmentRegister,
    pub tr: SegmentRegister,
    pub cpl: u8,
    pub why: Why,
    /// Instructions of the running block retired before the current one, where somebody may ask.
    pub cur_idx: u8,
    /// Retired instructions up to the running block.
    pub icount: u64,
    /// Where `icount` ends the run.
    pub limit: u64,
    /// Guest pages of the running block.
    pub cur_gpn: u64,
    pub cur_gpn2: u64,
    /// The running block is a single instruction.
    pub single: bool,
    /// See [`key`].
    pub key: u32,
    /// Changes whenever a linear address may mean other code.
    pub epoch: u64,
    /// `epoch` and `key` together: what a link between blocks depends on.
    pub context: u64,
    /// The block boundary must look at events.
    pub recheck: bool,
    /// The value of `icount` at which interrupts wait for one more instruction (behind STI and MOV SS).
    pub shadow_at: u64,
    /// The same for single-step traps (behind MOV SS).
    pub trap_shadow_at: u64,
    /// An interrupt may be pending at the bus.
    pub irq_hint: bool,
    pub nmi_pending: bool,
    pub nmi_masked: bool,
    pub halted: bool,
    /// Faulting address for CR2.
    pub fault_la: u64,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    pub dr: [u64; 6],
    /// Derived from `dr`.
    pub watch: Watch,
    pub gdtr: TableRegister,
    pub idtr: TableRegister,
    pub msrs: Msrs,
    pub cpuid: Vec<CpuidEntry>,
    pub phys_mask: u64,
    pub code: CodeMap,
    pub tracer: Option<Box<dyn Tracer>>,
    pub pages: Box<PageCache>,
    /// Unimplemented instructions reported so far (the log is limited).
    pub reported: u32,
}

/// Model-specific registers that the engine owns and that are not elsewhere.
#[derive(Clone, Copy)]
pub(crate) struct Msrs {
    pub pat: u64,
    pub mtrr: x86defs::state::Mtrrs,
    pub sysenter: (u64, u64, u64),
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub tsc_aux: u64,
    pub misc_enable: u64,
    pub xcr0: u64,
}

impl Core {
    /// Retired instructions, exact while `cur_idx` is.
    pub(crate) fn now(&self) -> u64 {
        self.icount + u64::from(self.cur_idx)
    }

    pub(crate) fn phys_page(&mut self, bus: &mut dyn Bus, gpn: u64) -> Option<RamPage> {
        let e = &mut self.pages.entries[gpn as usize & 255];
        if e.0 != gpn {
            *e = (gpn, bus.ram(gpn));
        }
        e.1
    }

    /// Stops with an exception that has an error code.
    #[cold]
    pub(crate) fn fault<T>(&mut self, vector: u8, error: u32) -> Result<T, Stop> {
        self.why = Why::Fault(Fault {
            vector,
            error: Some(error),
        });
        Err(Stop)
    }
    /// Stops with an exception without an error code.
    #[cold]
    pub(crate) fn trap<T>(&mut self, vector: u8) -> Result<T, Stop> {
        self.why = Why::Fault(Fault { vector, error: None });
        Err(Stop)
    }
    #[cold]
    pub(crate) fn gp<T>(&mut self, error: u32) -> Result<T, Stop> {
        self.fault(vector::GP, error)
    }
    #[cold]
    pub(crate) fn ud<T>(&mut self) -> Result<T, Stop> {
        self.trap(vector::UD)
    }
    /// #GP(0) unless CPL is 0.
    pub(crate) fn need_cpl0(&mut self) -> Flow {
        if self.cpl != 0 { self.gp(0) } else { Ok(()) }
    }

    pub(crate) fn is_protected(&self) -> bool {
        self.cr0 & cr0::PE != 0
    }
    pub(crate) fn is_v86(&self) -> bool {
        self.sys & rflags::VM != 0
    }
    /// Real or virtual-8086 mode: selectors are paragraphs.
    pub(crate) fn is_real_like(&self) -> bool {
        !self.is_protected() || self.is_v86()
    }
    pub(crate) fn is_long(&self) -> bool {
        self.efer & efer::LMA != 0
    }
    pub(crate) fn is_code64(&self) -> bool {
        self.key & key::CODE == 2
    }
    pub(crate) fn iopl(&self) -> u8 {
        (self.sys >> 12 & 3) as u8
    }

    pub(crate) fn rflags(&self) -> u64 {
        self.sys | self.flags.bits() | rflags::RESERVED_ONE
    }
    /// Replaces all of RFLAGS.
    pub(crate) fn set_rflags(&mut self, v: u64) {
        const SYS: u64 = 0x3F_7702 & !STATUS;
        self.flags = Flags::from_bits(v);
        let old = self.sys;
        self.sys = v & SYS & !rflags::RESERVED_ONE;
        let changed = old ^ self.sys;
        if changed & (rflags::VM | rflags::AC | rflags::TF) != 0 {
            self.update_mode();
        }
        if self.sys & rflags::TF != 0 || (self.sys & rflags::IF != 0 && self.irq_hint) {
            self.recheck = true;
        }
    }
    pub(crate) fn direction(&self) -> bool {
        self.sys & rflags::DF != 0
    }

    /// Linear addresses may mean other code from now on.
    pub(crate) fn new_epoch(&mut self) {
        self.epoch += 1;
        self.context = self.epoch << 8 | u64::from(self.key);
    }
    /// After a change of paging.
    pub(crate) fn flush_tlb(&mut self) {
        self.tlb.flush();
        self.new_epoch();
    }

    /// Derives everything that depends on the mode. Call after changes of CR0, CR4, EFER, CS, SS, CPL,
    /// VM, AC or TF.
    pub(crate) fn update_mode(&mut self) {
        let code64 = self.is_long() && self.seg[CS].attributes.has(A::L) && !self.is_v86();
        let size = match () {
            () if code64 => 2,
            () if self.seg[CS].attributes.has(A::DB) && !self.is_v86() => 1,
            () => 0,
        };
        let mut k = size;
        if !code64 && self.seg[SS].attributes.has(A::DB) {
            k |= key::STACK32;
        }
        if self.cpl == 3 {
            k |= key::USER;
        }
        if self.cr0 & (cr0::TS | cr0::EM) != 0 || self.cr4 & cr4::OSFXSR == 0 {
            k |= key::FPU_TRAP;
        }
        self.regime = match () {
            () if self.cpl == 3 && self.cr0 & cr0::AM != 0 && self.sys & rflags::AC != 0 => ALIGNED,
            () if self.cpl == 3 => 1,
            () if self.cr4 & cr4::SMAP != 0 && self.sys & rflags::AC == 0 => 2,
            () => 0,
        };
        self.lin_mask = if code64 { u64::MAX } else { 0xFFFF_FFFF };
        let was64 = self.key & key::CODE == 2;
        self.key = k;
        self.context = self.epoch << 8 | u64::from(k);
        if was64 != code64 {
            (0..6).for_each(|i| self.update_segment(i));
        }
    }

    /// Derives base and bounds of a segment register.
    pub(crate) fn update_segment(&mut self, i: usize) {
        let s = &self.seg[i];
        let base = if self.is_code64() && i < FS { 0 } else { s.base };
        if i == CS && (self.seg_base[CS] != base || !self.is_code64()) {
            self.seg_base[CS] = base;
            self.new_epoch();
        }
        self.seg_base[i] = base;
        self.bounds[i] = if self.is_code64() {
            EVERYTHING
        } else {
            segment_bounds(&self.seg[i], self.is_real_like())
        };
    }

    /// Everything derived, from scratch.
    pub(crate) fn update_all(&mut self) {
        self.update_mode();
        (0..6).for_each(|i| self.update_segment(i));
        self.flush_tlb();
        self.recheck = true;
    }
}

fn segment_bounds(s: &SegmentRegister, real: bool) -> Bounds {
    let a = s.attributes;
    let end = u64::from(s.limit) + 1;
    if real {
        return Bounds {
            low: 0,
            end_read: end,
            end_write: end,
        };
    }
    if a.has(A::UNUSABLE) || !a.has(A::P) || !a.has(A::S) {
        return NOTHING;
    }
    let t = a.segment_type();
    if t & 8 != 0 {
        return Bounds {
            low: 0,
            end_read: if t & 2 != 0 { end } else { 0 },
            end_write: 0,
        };
    }
    let (low, end) = match (t & 4 != 0, a.has(A::DB)) {
        (false, _) => (0, end),
        (true, true) => (end, 1 << 32),
        (true, false) => (end, 1 << 16),
    };
    Bounds {
        low,
        end_read: end,
        end_write: if t & 2 != 0 { end } else { 0 },
    }
}

impl Bounds {
    /// Whether `len` bytes from `offset` may be accessed.
    #[inline(always)]
    pub(crate) fn allow(&self, offset: u64, len: u64, write: bool) -> bool {
        let end = if write { self.end_write } else { self.end_read };
        offset >= self.low && offset.saturating_add(len) <= end
    }
}

impl Core {
    /// A processor at reset.
    pub(crate) fn new(cpuid: Vec<CpuidEntry>, phys_bits: u8, code: CodeMap) -> Self {
        let mut gpr = [0; 32];
        gpr[PAGE] = 4096;
        let mut bounds = [NOTHING; 8];
        bounds[FLAT] = EVERYTHING;
        let mut c = Self {
            gpr,
            flags: Flags::from_bits(0),
            regime: 0,
            lin_mask: 0,
            seg_base: [0; 8],
            bounds,
            tlb: Tlb::new(),
            xmm: [0; 16],
            mxcsr: 0x1F80,
            fpu: Fpu::reset(),
            sys: 0,
            seg: [SegmentRegister::default(); 6],
            ldtr: SegmentRegister::default(),
            tr: SegmentRegister::default(),
            cpl: 0,
            why: Why::Jump,
            cur_idx: 0,
            icount: 0,
            limit: 0,
            cur_gpn: u64::MAX,
            cur_gpn2: u64::MAX,
            single: false,
            key: 0,
            epoch: 0,
            context: 0,
            recheck: true,
            shadow_at: u64::MAX,
            trap_shadow_at: u64::MAX,
            irq_hint: true,
            nmi_pending: false,
            nmi_masked: false,
            halted: false,
            fault_la: 0,
            cr0: 0,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            efer: 0,
            dr: [0; 6],
            watch: Watch::default(),
            gdtr: TableRegister::default(),
            idtr: TableRegister::default(),
            msrs: Msrs {
                pat: 0,
                mtrr: Default::default(),
                sysenter: (0, 0, 0),
                star: 0,
                lstar: 0,
                cstar: 0,
                sfmask: 0,
                kernel_gs_base: 0,
                tsc_aux: 0,
                misc_enable: 1,
                xcr0: 1,
            },
            cpuid,
            phys_mask: (1u64 << phys_bits.clamp(32, 52)) - 1,
            code,
            tracer: None,
            pages: Box::new(PageCache::new()),
            reported: 0,
        };
        c.set_state(&X86State::reset());
        c
    }

    /// The architectural registers.
    pub(crate) fn state(&self) -> X86State {
        let mut gpr = [0; 16];
        gpr.copy_from_slice(&self.gpr[..16]);
        let m = &self.msrs;
        X86State {
            gpr,
            rip: self.gpr[RIP],
            rflags: self.rflags(),
            cs: self.seg[CS],
            ds: self.seg[DS],
            es: self.seg[ES],
            fs: self.seg[FS],
            gs: self.seg[GS],
            ss: self.seg[SS],
            tr: self.tr,
            ldtr: self.ldtr,
            gdtr: self.gdtr,
            idtr: self.idtr,
            cr0: self.cr0,
            cr2: self.cr2,
            cr3: self.cr3,
            cr4: self.cr4,
            cr8: 0,
            dr: self.dr,
            xcr0: m.xcr0,
            efer: self.efer,
            pat: m.pat,
            mtrr: m.mtrr,
            sysenter: m.sysenter,
            syscall: (m.star, m.lstar, m.cstar, m.sfmask),
            kernel_gs_base: m.kernel_gs_base,
            tsc_aux: m.tsc_aux,
        }
    }

    /// Replaces the architectural registers. CR8 is the bus's. Wakes a halted processor.
    pub(crate) fn set_state(&mut self, s: &X86State) {
        self.gpr[..16].copy_from_slice(&s.gpr);
        self.gpr[RIP] = s.rip;
        self.seg = [s.es, s.cs, s.ss, s.ds, s.fs, s.gs];
        self.tr = s.tr;
        self.ldtr = s.ldtr;
        self.gdtr = s.gdtr;
        self.idtr = s.idtr;
        self.cr0 = s.cr0 | cr0::ET;
        self.cr2 = s.cr2;
        self.cr3 = s.cr3;
        self.cr4 = s.cr4;
        self.dr = s.dr;
        self.efer = s.efer;
        if self.cr0 & cr0::PG != 0 && self.efer & efer::LME != 0 {
            self.efer |= efer::LMA;
        }
        self.msrs = Msrs {
            pat: s.pat,
            mtrr: s.mtrr,
            sysenter: s.sysenter,
            star: s.syscall.0,
            lstar: s.syscall.1,
            cstar: s.syscall.2,
            sfmask: s.syscall.3,
            kernel_gs_base: s.kernel_gs_base,
            tsc_aux: s.tsc_aux,
            misc_enable: self.msrs.misc_enable,
            xcr0: s.xcr0,
        };
        self.cpl = match () {
            () if self.cr0 & cr0::PE == 0 => 0,
            () if s.rflags & rflags::VM != 0 => 3,
            () => s.ss.attributes.dpl(),
        };
        self.halted = false;
        self.shadow_at = u64::MAX;
        self.set_rflags(s.rflags);
        self.watch.hits = 0;
        self.update_watch();
        self.update_all();
    }
}
