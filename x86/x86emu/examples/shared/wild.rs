// SPDX-License-Identifier: MIT
//! Random starts for the engine: every mode, paging depth and privilege level, with descriptor tables,
//! page tables and code that are plausible often enough to get somewhere.
//!
//! Always true: a start depends on its random source only. Not here: running it.

use crate::random::Random;
use x86defs::{SegmentAttributes, SegmentRegister, TableRegister, X86State};

/// Bytes of memory.
pub(crate) const LEN: usize = 0x4_0000;
/// Pages that hold page tables.
pub(crate) const TABLE_PAGES: [u64; 7] = [1, 2, 3, 4, 5, 0xA, 0xB];

const PML4: usize = 0x1000;
const PDPT: usize = 0x2000;
const DIRECTORY: usize = 0x3000;
const TABLE: usize = 0x4000;
const DIRECTORY32: usize = 0x5000;
const GDT: usize = 0x6000;
const IDT: usize = 0x7000;
const TSS: usize = 0x9000;
const TABLE32: usize = 0xA000;
const PDPT_PAE: usize = 0xB000;
const CODE: usize = 0x1_0000;

/// What kind of code a start runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Mode {
    Real,
    Virtual8086,
    Protected16,
    Protected32,
    Compatibility16,
    Compatibility32,
    Long,
}

const MODES: [Mode; 7] = [
    Mode::Real,
    Mode::Virtual8086,
    Mode::Protected16,
    Mode::Protected32,
    Mode::Compatibility16,
    Mode::Compatibility32,
    Mode::Long,
];

/// One start.
pub(crate) struct Start {
    pub mode: Mode,
    /// Levels of page tables; 0 without paging.
    pub levels: u8,
    pub cpl: u8,
    pub state: X86State,
    pub fx: [u8; 512],
    pub image: Vec<u8>,
}

impl Start {
    /// The next start of a random source.
    pub(crate) fn new(r: &mut Random) -> Self {
        let mode = MODES[r.below(7) as usize];
        let levels = match mode {
            Mode::Real => 0,
            Mode::Virtual8086 | Mode::Protected16 | Mode::Protected32 => [0, 2, 3][r.below(3) as usize],
            _ => 4,
        };
        let cpl = match mode {
            Mode::Real => 0,
            Mode::Virtual8086 => 3,
            _ => r.below(4) as u8,
        };
        let image = image(r, mode);
        let state = state(r, mode, levels, cpl);
        let mut fx = [0; 512];
        fx.fill_with(|| r.next() as u8);
        // MXCSR has reserved bits; all others may be anything.
        fx[26..28].fill(0);
        Self {
            mode,
            levels,
            cpl,
            state,
            fx,
            image,
        }
    }
}

/// One of the values.
macro_rules! pick {
    ($r:expr, $of:expr $(,)?) => {{
        let of = $of;
        of[$r.below(of.len() as u64) as usize]
    }};
}

/// Model-specific registers worth touching.
const MSRS: [u32; 22] = [
    0x10,
    0x1B,
    0x174,
    0x175,
    0x176,
    0x179,
    0x1A0,
    0x200,
    0x20F,
    0x250,
    0x26F,
    0x277,
    0x2FF,
    0xDA0,
    0xC000_0080,
    0xC000_0081,
    0xC000_0082,
    0xC000_0084,
    0xC000_0100,
    0xC000_0101,
    0xC000_0102,
    0xC000_0103,
];

/// `mov r32, imm32`.
fn mov(b: &mut Vec<u8>, register: u8, v: u32) {
    b.push(0xB8 | register);
    b.extend(v.to_le_bytes());
}

/// Instructions that random bytes hit too rarely, with operands that are often right.
fn privileged(r: &mut Random, b: &mut Vec<u8>) {
    let wild = r.next() as u32;
    match r.below(6) {
        0 => {
            mov(b, 1, if r.below(8) == 0 { wild } else { pick!(r, &MSRS) });
            mov(b, 2, if r.below(2) == 0 { 0 } else { wild });
            mov(b, 0, pick!(r, [wild, 0, 0xD01, 0x501, wild & 0xFFFF]));
            b.extend([0x0F, pick!(r, [0x30, 0x30, 0x32])]);
        }
        1 => {
            mov(b, 0, wild & 0xE005_003F | 0x8000_0011);
            b.extend([0x0F, 0x22, 0xC0]);
        }
        2 => {
            mov(
                b,
                0,
                pick!(r, [PML4 as u32, DIRECTORY32 as u32, PDPT_PAE as u32, wild]),
            );
            b.extend([0x0F, 0x22, 0xD8]);
        }
        3 => {
            mov(b, 0, wild & 0x37_07FF | pick!(r, [0, 0x20, 0x4_0620]));
            b.extend([0x0F, 0x22, 0xE0]);
        }
        4 => {
            // A breakpoint: its address, then DR7.
            mov(b, 0, wild & 0x3_FFFF);
            b.extend([0x0F, 0x23, 0xC0 | (r.below(4) as u8) << 3]);
            mov(b, 0, wild & 0xFFFF_03FF);
            b.extend([0x0F, 0x23, 0xF8]);
        }
        _ => {
            mov(b, 1, 0);
            mov(b, 2, 0);
            mov(b, 0, pick!(r, [1, 3, wild & 0xFF]));
            b.extend([0x0F, 0x01, pick!(r, [0xD0, 0xD1, 0xD1, 0xC8, 0xCA, 0xCB, 0xF8])]);
        }
    }
}

/// Bytes that decode to something more often than uniform ones.
fn code(r: &mut Random, len: usize) -> Vec<u8> {
    let mut b = Vec::with_capacity(len + 32);
    while b.len() < len {
        match r.below(32) {
            0..=3 => b.extend([0x0F, r.next() as u8]),
            4..=7 => b.push(pick!(
                r,
                [0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x2E, 0x64, 0x48, 0x4C, 0x41],
            )),
            8 | 9 => b.extend([0x0F, r.below(2) as u8, r.next() as u8]),
            10 => b.extend([0x0F, pick!(r, [0xAE, 0xC7, 0xB0, 0xB1]), r.next() as u8]),
            11 => b.extend([0x0F, 0x20 | r.below(4) as u8, 0xC0 | r.next() as u8]),
            12..=15 => b.extend([0xD8 | r.below(8) as u8, r.next() as u8]),
            16 => b.extend([0x66, 0x0F, r.next() as u8]),
            17 => b.extend([0xF2 | r.below(2) as u8, 0xA4 | r.below(12) as u8]),
            18 => privileged(r, &mut b),
            19..=21 => b.extend(r.next().to_le_bytes()),
            _ => b.push(r.next() as u8),
        }
    }
    b.truncate(len);
    b
}

/// Page tables of all depths: the memory at linear 0 in small pages with random rights, large pages
/// behind.
fn page_tables(r: &mut Random, put: &mut impl FnMut(usize, u64)) {
    for i in 0..4 {
        put(PML4 + i * 8, PDPT as u64 | 7);
        put(
            PDPT + i * 8,
            pick!(r, [DIRECTORY as u64 | 7, DIRECTORY as u64 | 7, 0x87]),
        );
        put(DIRECTORY + i * 8, 0x87 | r.below(2) << 8 | r.below(2) << 63);
        put(PDPT_PAE + i * 8, DIRECTORY as u64 | 1);
    }
    put(PDPT, DIRECTORY as u64 | 7);
    put(DIRECTORY, TABLE as u64 | 7);
    put(DIRECTORY32, TABLE32 as u64 | 7 | 0x87 << 32);
    put(DIRECTORY32 + 8, r.next());
    let mut low = 0;
    for i in 0..(LEN / 4096) as u64 {
        // The tables that the processor itself reads are mostly there.
        let own = i < 16 && r.below(64) != 0;
        let rights = if own {
            7
        } else {
            pick!(r, [7, 7, 7, 7, 7, 5, 3, 0x67, 0x107, 6])
        };
        let never = u64::from(!own && r.below(16) == 0) << 63;
        put(TABLE + i as usize * 8, i << 12 | rights | never);
        // 4-byte entries, two at a time.
        let entry = i << 12 | rights;
        if i % 2 == 0 {
            low = entry;
        } else {
            put(TABLE32 + (i as usize - 1) * 4, low | entry << 32);
        }
    }
}

/// Segments of all kinds, gates, and stacks in the task state segment.
fn descriptor_tables(r: &mut Random, mode: Mode, put: &mut impl FnMut(usize, u64)) {
    const KINDS: [u64; 12] = [
        0xCF_9B00, 0xCF_9300, 0xAF_9B00, 0xCF_FB00, 0xCF_F300, 0x8900, 0xEC00, 0xAF_FB00, 0x0F_9B00,
        0xCF_9700, 0x8500, 0xCF_9F00,
    ];
    for i in 1..64 {
        let kind = match i {
            // The handlers' code segment and the stack's usually fit.
            1 if mode == Mode::Long || r.below(8) == 0 => 0xAF_9B00,
            1 => pick!(r, [0xCF_9B00, 0xAF_9B00, 0x0F_9B00]),
            2 => 0xCF_9300,
            _ => pick!(r, &KINDS),
        };
        let gate = kind & 0x1F00 == 0x0C00;
        let low = if gate {
            0x0008_0000 | r.next() & 0x3_FFFF
        } else {
            0xFFFF
        };
        put(GDT + i * 8, kind << 32 | low);
    }
    let wide = !matches!(
        mode,
        Mode::Real | Mode::Virtual8086 | Mode::Protected16 | Mode::Protected32
    );
    let step = if wide { 16 } else { 8 };
    for i in 0..0x1000 / step {
        let kind = pick!(r, [0x8E, 0x8E, 0x8F, 0xEE, 0xEF, 0x8E, 0x86, 0x85, 0x0E, 0x8C]);
        let stack = if wide { r.below(3) } else { 0 };
        let selector = pick!(r, [8, 8, 8, 8, 0x18, 0x40]);
        let offset = CODE as u64 + r.below(0x2_0000);
        let low = offset & 0xFFFF | selector << 16 | stack << 32 | kind << 40 | (offset >> 16) << 48;
        put(IDT + i * step, low);
        if wide {
            put(IDT + i * step + 8, 0);
        }
    }
    for i in 0..16 {
        let stack = 0x3_8000 + r.below(0x4000);
        let selector = if wide { 0 } else { 0x10 << 32 };
        put(TSS + 4 + i * 8, stack | selector);
    }
}

fn image(r: &mut Random, mode: Mode) -> Vec<u8> {
    let mut b = code(r, CODE);
    let part = code(r, CODE);
    while b.len() < LEN {
        b.extend_from_slice(&part);
    }
    let mut put = |at: usize, v: u64| b[at..at + 8].copy_from_slice(&v.to_le_bytes());
    page_tables(r, &mut put);
    descriptor_tables(r, mode, &mut put);
    b
}

fn data_segment(r: &mut Random, cpl: u8, real: bool) -> SegmentRegister {
    let base = pick!(
        r,
        [0, 0, 0, 0, 0, 0x1000, r.next() & 0xFFFF, r.next() & 0xFFFF_FFFF]
    );
    if real {
        let selector = r.next() as u16 & 0x3FFF;
        return SegmentRegister {
            selector,
            attributes: SegmentAttributes(0x93 | u32::from(cpl) << 5),
            limit: pick!(r, [0xFFFF, 0xFFFF, u32::MAX]),
            base: u64::from(selector) << 4,
        };
    }
    let kind = pick!(r, [0x93, 0x93, 0x97, 0x91, 0x9B, 0x1_0000]);
    SegmentRegister {
        selector: r.next() as u16 & 0xFFFC | u16::from(cpl),
        attributes: SegmentAttributes(kind | u32::from(cpl) << 5 | pick!(r, [0, 0x4000])),
        limit: pick!(r, [0xFFFF, u32::MAX, u32::MAX, 0x3_FFFF, 0, r.next() as u32]),
        base,
    }
}

/// CS for a mode. Kinds beyond what the mode needs are conforming or unreadable.
fn code_segment(r: &mut Random, mode: Mode, cpl: u8) -> SegmentRegister {
    if matches!(mode, Mode::Real | Mode::Virtual8086) {
        let selector = r.below(0x3000) as u16;
        return SegmentRegister {
            selector,
            attributes: SegmentAttributes(0x9B | u32::from(cpl) << 5),
            limit: 0xFFFF,
            base: u64::from(selector) << 4,
        };
    }
    let size = match mode {
        Mode::Long => 0x2000,
        Mode::Protected32 | Mode::Compatibility32 => 0x4000,
        _ => 0,
    };
    SegmentRegister {
        selector: 8 | u16::from(cpl),
        attributes: SegmentAttributes(pick!(r, [0x9B, 0x9B, 0x99, 0x9F]) | size | u32::from(cpl) << 5),
        limit: pick!(r, [u32::MAX, u32::MAX, 0x3_FFFF]),
        base: if mode == Mode::Long {
            0
        } else {
            pick!(r, [0, 0, 0x100])
        },
    }
}

fn state(r: &mut Random, mode: Mode, levels: u8, cpl: u8) -> X86State {
    let mut s = X86State::reset();
    s.gpr = std::array::from_fn(|_| {
        if r.below(2) == 0 {
            r.next() & 0x3_FFFF
        } else {
            r.operand()
        }
    });
    if r.below(4) != 0 {
        s.gpr[4] = 0x3_8000 + r.below(0x4000);
    }
    s.rip = match mode {
        Mode::Real | Mode::Virtual8086 | Mode::Protected16 | Mode::Compatibility16 => r.next() & 0xFFFF,
        _ => CODE as u64 + r.below(0x2_0000),
    };
    s.rflags = r.next() & 0x24_4FD5 | r.below(4) << 12 | 2;
    if r.below(4) != 0 {
        // Mostly without single steps.
        s.rflags &= !0x100;
    }
    let table = |base: usize, limit| TableRegister {
        base: base as u64,
        limit,
    };
    (s.gdtr, s.idtr) = (table(GDT, 0x1FF), table(IDT, 0xFFF));
    let real = matches!(mode, Mode::Real | Mode::Virtual8086);
    let mut data = || data_segment(r, cpl, real);
    (s.ds, s.es, s.ss, s.fs, s.gs) = (data(), data(), data(), data(), data());
    if !real {
        // The privilege level is that of SS.
        s.ss.attributes.0 = s.ss.attributes.0 & !0x1_0060 | 0x80 | u32::from(cpl) << 5;
    }
    s.cs = code_segment(r, mode, cpl);
    s.cr0 = 0x10 | r.next() & 0x1_002E;
    if r.below(4) != 0 {
        // Mostly with the FPU.
        s.cr0 &= !0xC;
    }
    s.cr4 = r.next() & 0x37_0FDF | pick!(r, [0, 0x600]);
    s.efer = r.below(2) | r.below(2) << 11;
    // PCID is not there; SMEP and SMAP make most of the memory useless to supervisors.
    s.cr4 &= if r.below(4) == 0 { !0x2_0000 } else { !0x32_0000 };
    if mode != Mode::Real {
        s.cr0 |= 1;
    }
    if mode == Mode::Virtual8086 {
        s.rflags |= 1 << 17;
    }
    let paging = [(0, 0), (0, 0), (DIRECTORY32, 0), (PDPT_PAE, 0x20), (PML4, 0x20)][usize::from(levels)];
    if levels > 0 {
        s.cr0 |= 1 << 31;
        s.cr3 = paging.0 as u64;
        s.cr4 |= paging.1;
    }
    if levels == 4 {
        s.efer |= 0x500;
    }
    s.xcr0 = if r.below(2) == 0 { 1 } else { 3 };
    if r.below(4) == 0 {
        for d in &mut s.dr[..4] {
            *d = CODE as u64 + r.below(0x3_0000);
        }
        s.dr[5] = r.next() & 0xFFFF_03FF | 0x400;
    }
    s.tr = SegmentRegister {
        selector: 0x28,
        attributes: SegmentAttributes(0x8B),
        limit: pick!(r, [0x67, 0x67, 0x2000, 10]),
        base: TSS as u64,
    };
    s
}
