// SPDX-License-Identifier: MIT
//! Executes random instructions with random operands on the engine and on the host processor and
//! compares registers, flags and memory.
//!
//! `cargo run --release -p x86emu --example differential -- [--seed S] [--first N] [--count N]`
//!
//! Always true: case N of a seed is the same whatever ran before, so a run can be cut into chunks and
//! resumed. What the SDM leaves undefined is masked by the table in `shared/undefined.rs`; nothing else is:
//! x87 results, transcendental ones included, are compared bit for bit. Not here: privileged instructions,
//! 16-bit code.
//!
//! Why the host is the judge and no public corpus of single steps: the known ones for this family
//! (SingleStepTests' 8086, 8088, V20, 80286 and 80386, test386.asm) are repositories of gigabytes of data or
//! of a program's source, none a package: looked for on crates.io, PyPI, npm and in Debian under the names
//! singlesteptests, single-step-tests, processortests, x86-tests, x86-testsuite, test386, moo and marty.
//! All of them are of real mode on processors without most of what is executed here.

use iced_x86::{CpuidFeature, Decoder, DecoderOptions, Instruction, Mnemonic as M, OpKind, Register};
use std::collections::BTreeMap;
use x86defs::{SegmentAttributes, SegmentRegister, X86State};
use x86emu::{CodeMap, Config, Cpu, Exit};

#[path = "shared/host.rs"]
mod host;
#[path = "shared/plain.rs"]
mod plain;
#[path = "shared/random.rs"]
mod random;
#[path = "shared/undefined.rs"]
mod undefined;
use host::{CODE, DATA, DATA_LEN, Host, INSTRUCTION, Registers};
use plain::{Plain, Ram};
use random::Random;
use undefined::{STATUS, undefined};

/// Executions with one encoding.
const PER_ENCODING: u64 = 50;
/// Guest physical address of the area that is linear CODE; page tables lie before it.
const AREA: usize = 0x10_0000;
/// Guest physical address of the data area.
const DATA_AREA: usize = AREA + (DATA - CODE) as usize;

fn segment(selector: u16, attributes: u32) -> SegmentRegister {
    SegmentRegister {
        selector,
        attributes: SegmentAttributes(attributes),
        limit: u32::MAX,
        base: 0,
    }
}

/// User mode, linear CODE onwards mapped to AREA.
fn user_state(ram: &mut Ram) -> X86State {
    let mut entry =
        |table: usize, index: u64, v: u64| ram.write(table + index as usize * 8, &v.to_le_bytes());
    entry(0x1000, CODE >> 39 & 511, 0x2007);
    entry(0x2000, CODE >> 30 & 511, 0x3007);
    entry(0x3000, CODE >> 21 & 511, 0x4007);
    for i in 0..0x30 {
        entry(0x4000, (CODE >> 12 & 511) + i, AREA as u64 + i * 4096 + 7);
    }
    let mut s = X86State::reset();
    (s.ds, s.es, s.ss) = (
        segment(0x2B, 0xC0F3),
        segment(0x2B, 0xC0F3),
        segment(0x2B, 0xC0F3),
    );
    s.cr0 = 0x8000_0031;
    s.cr3 = 0x1000;
    s.cr4 = 0x620;
    s.efer = 0x500;
    // No gate can be read: every exception ends the run.
    s.idtr.limit = 0;
    s
}

/// A random encoding that a user program may execute here, with memory operands in the data area.
fn encoding(r: &mut Random, long: bool) -> (Vec<u8>, Instruction) {
    loop {
        let bytes = candidate(r, long);
        let mut d = Decoder::with_ip(
            if long { 64 } else { 32 },
            &bytes,
            INSTRUCTION,
            DecoderOptions::NONE,
        );
        let i = d.decode();
        if !i.is_invalid() && allowed(&i) {
            return (bytes[..i.len()].to_vec(), i);
        }
    }
}

fn candidate(r: &mut Random, long: bool) -> Vec<u8> {
    let mut b = Vec::new();
    let group = r.below(10);
    match r.below(8) {
        0 => b.push(0x66),
        1 if group >= 4 => b.push(0xF2 + r.below(2) as u8),
        2 if group >= 4 => b.push(0x66),
        3 if r.below(4) == 0 => b.push(0xF0),
        _ => {}
    }
    if long && r.below(2) == 0 {
        b.push(0x40 | r.below(16) as u8);
    }
    match group {
        0..=3 => b.push(r.next() as u8),
        4..=8 => b.extend([0x0F, r.next() as u8]),
        _ => b.push(0xD8 | r.below(8) as u8),
    }
    // ModRM: registers, or memory by RBX with or without displacement, by SIB with R12, or by RIP.
    let reg = (r.below(8) as u8) << 3;
    match r.below(6) {
        0..=2 => b.push(0xC0 | reg | r.below(8) as u8),
        3 => b.extend([0x03 | reg]),
        4 => b.extend([0x43 | reg, r.next() as u8]),
        _ => b.extend([0x44 | reg, 0x23 | (r.below(4) as u8) << 6, r.next() as u8]),
    }
    b.extend((0..8).map(|_| r.next() as u8));
    b
}

fn allowed(i: &Instruction) -> bool {
    let m = i.mnemonic();
    // Images of RFLAGS have bits that differ between the two.
    let stack = matches!(
        m,
        M::Pushf | M::Pushfd | M::Pushfq | M::Popf | M::Popfd | M::Popfq
    );
    let flow = i.flow_control() != iced_x86::FlowControl::Next;
    let skip = matches!(
        m,
        M::Cpuid
            | M::Rdtsc
            | M::Rdtscp
            | M::Rdpmc
            | M::Wait
            | M::Fxsave
            | M::Fxrstor
            | M::Fxsave64
            | M::Fxrstor64
            | M::Fnstenv
            | M::Fldenv
            | M::Fnsave
            | M::Frstor
            | M::Fisttp
            | M::Popcnt
            | M::Tzcnt
            | M::Lzcnt
            | M::Xlatb
            | M::Std
            | M::Sidt
            | M::Sgdt
            | M::Sldt
            | M::Str
            | M::Smsw
            | M::Lar
            | M::Lsl
            | M::Verr
            | M::Verw
            | M::Rdfsbase
            | M::Rdgsbase
            | M::Wrfsbase
            | M::Wrgsbase
            | M::Lfs
            | M::Lgs
            | M::Lss
            | M::Nop
            | M::Reservednop
            | M::Fneni
            | M::Fndisi
            | M::Fnsetpm
            | M::Movnti
            | M::Fninit
    );
    if stack || flow || skip || i.is_privileged() || i.segment_prefix() != Register::None {
        return false;
    }
    let pointers = matches!(m, M::Lds | M::Les | M::Bound | M::Arpl);
    let known = !pointers
        && i.cpuid_features().iter().all(|f| {
            use CpuidFeature as F;
            matches!(
                f,
                F::INTEL8086
                    | F::INTEL8086_ONLY
                    | F::INTEL186
                    | F::INTEL286
                    | F::INTEL386
                    | F::INTEL486
                    | F::X64
                    | F::CMOV
                    | F::FPU
                    | F::FPU287
                    | F::FPU387
                    | F::MMX
                    | F::SSE
                    | F::SSE2
                    | F::CX8
                    | F::CMPXCHG16B
            )
        });
    let port = matches!(
        m,
        M::In | M::Out | M::Insb | M::Insw | M::Insd | M::Outsb | M::Outsw | M::Outsd | M::Cli | M::Sti
    );
    let segments = (0..i.op_count()).any(|n| {
        i.op_kind(n) == OpKind::Register
            && (i.op_register(n).is_segment_register()
                || i.op_register(n).is_cr()
                || i.op_register(n).is_dr()
                || i.op_register(n).is_tr())
    });
    // Addresses by other registers than the ones that point into the data area.
    let memory = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory);
    let inside = matches!(i.memory_base(), Register::RBX | Register::EBX)
        && matches!(i.memory_index(), Register::None | Register::R12);
    // Registers that the memory operand needs must survive the setup; LEA needs none.
    known && !port && !segments && (!memory || inside || m == M::Lea)
}

/// The words of the data area, of which vector registers take theirs.
fn data_words(r: &mut Random) -> Vec<u64> {
    (0..DATA_LEN / 8).map(|_| r.lane()).collect()
}

fn state(r: &mut Random, i: &Instruction, long: bool, words: &[u64]) -> Registers {
    let mut s = Registers {
        gpr: [0; 16],
        flags: r.next() & STATUS,
        fx: [0; 512],
    };
    for g in &mut s.gpr {
        *g = r.operand();
    }
    s.gpr[3] = DATA + 0x1000 - if r.below(2) == 0 { 0 } else { r.below(64) };
    s.gpr[12] = r.below(200);
    s.gpr[4] = DATA + 0x1800;
    (s.gpr[6], s.gpr[7]) = (DATA + 0x800 + r.below(256), DATA + 0x900 + r.below(256));
    if i.has_rep_prefix() || i.has_repne_prefix() {
        s.gpr[1] = r.below(20);
        if r.below(4) == 0 {
            s.flags |= 0x400;
        }
    }
    if matches!(i.mnemonic(), M::Bt | M::Bts | M::Btr | M::Btc) {
        // Bit offsets reach far: keep them in the data area.
        for n in (0..16).filter(|n| ![3, 4, 12].contains(n)) {
            s.gpr[n] &= 0x1FFF;
        }
    }
    if matches!(i.mnemonic(), M::Leave | M::Enter) {
        s.gpr[5] = DATA + 0x1700;
    }
    if !long {
        // 32-bit code does not see the upper halves, but may drop them.
        s.gpr[..8].iter_mut().for_each(|g| *g &= 0xFFFF_FFFF);
    }
    fpu_state(r, &mut s.fx, words);
    s
}

fn fpu_state(r: &mut Random, fx: &mut [u8; 512], words: &[u64]) {
    // One in four has unmasked exceptions, some with one pending before the instruction.
    let masks = if r.below(4) == 0 {
        r.next() as u16 & 0x3F
    } else {
        0x3F
    };
    let control = masks | (r.next() as u16 & 0xF00) | 0x40;
    // Precision control 1 is reserved.
    let control = if control & 0x300 == 0x100 {
        control | 0x200
    } else {
        control
    };
    fx[0..2].copy_from_slice(&control.to_le_bytes());
    let pending = if r.below(8) == 0 {
        r.next() as u16 & 0x3F
    } else {
        0
    };
    let summary = if pending & !masks != 0 { 0x8080 } else { 0 };
    fx[2..4].copy_from_slice(&(r.next() as u16 & 0x3800 | pending | summary).to_le_bytes());
    fx[4] = if r.below(2) == 0 { 0xFF } else { r.next() as u8 };
    let masks = if r.below(4) == 0 {
        r.next() as u32 & 0x1F80
    } else {
        0x1F80
    };
    let mxcsr = masks | (r.next() as u32 & 0xE040);
    fx[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    for n in 0..8 {
        let at = 32 + n * 16;
        fx[at..at + 10].copy_from_slice(&r.extended());
    }
    for lane in fx[160..416].chunks_exact_mut(8) {
        lane.copy_from_slice(&words[r.below(words.len() as u64) as usize].to_le_bytes());
    }
}

struct Rig {
    world: Plain,
    cpu: Cpu,
    base: X86State,
    host: Host,
    /// Whether both data areas hold what the last execution was given.
    intact: bool,
}

struct Difference {
    what: String,
}

impl Rig {
    fn new() -> Self {
        let mut ram = Ram::new(0x20_0000);
        let base = user_state(&mut ram);
        let config = Config {
            cpuid: x86emu::cpuid::baseline(40),
            phys_bits: 40,
            code: CodeMap::new(0x20_0000),
        };
        Self {
            world: Plain(ram),
            cpu: Cpu::new(config),
            base,
            host: Host::new(),
            intact: false,
        }
    }

    fn place(&mut self, bytes: &[u8], long: bool) {
        self.host.place(bytes, long);
        self.base.cs = segment(if long { 0x33 } else { 0x23 }, if long { 0xA0FB } else { 0xC0FB });
        self.world.0.write(AREA + (INSTRUCTION - CODE) as usize, bytes);
        // The page changed behind the engine's back.
        self.cpu.flush_memory_map();
    }

    fn compare(&mut self, i: &Instruction, before: &Registers, data: &[u8]) -> Result<bool, Difference> {
        if !std::mem::take(&mut self.intact) {
            self.host.set_data(data);
            self.world.0.write(DATA_AREA, data);
        }
        let mut s = self.base;
        s.gpr = before.gpr;
        s.rip = INSTRUCTION;
        s.rflags = before.flags | 2;
        self.cpu.set_state(&s);
        self.cpu.fxrstor(&before.fx);
        let exit = self.cpu.step(&mut self.world);
        let host = self.host.run(before);
        // The host may know bit 17 of MXCSR (misaligned accesses, AMD), which the engine does not have.
        if i.mnemonic() == M::Ldmxcsr && exit == Exit::TripleFault {
            return Ok(false);
        }
        let Some(want) = host else {
            return if exit == Exit::TripleFault {
                Ok(false)
            } else {
                Err(Difference {
                    what: "the host faults, the engine does not".into(),
                })
            };
        };
        if exit != Exit::Budget {
            return Err(Difference {
                what: format!("the engine stops with {exit:?}, the host does not"),
            });
        }
        let got = self.cpu.state();
        let mut what = String::new();
        if got.rip != INSTRUCTION + i.len() as u64 {
            what += &format!(" rip {:#x}", got.rip);
        }
        let (flags, result) = undefined(i, before);
        for n in 0..16 {
            if got.gpr[n] != want.gpr[n] && !result {
                what += &format!(" r{n} is {:#x}, host {:#x};", got.gpr[n], want.gpr[n]);
            }
        }
        let mask = STATUS & !flags;
        if (got.rflags ^ want.flags) & mask != 0 {
            what += &format!(
                " flags {:#x}, host {:#x}, compared {mask:#x};",
                got.rflags & STATUS,
                want.flags & STATUS
            );
        }
        what += &self.fpu_difference(&want);
        let memory = self.world.0.bytes(DATA_AREA, DATA_LEN);
        let host_memory = self.host.data();
        self.intact = memory == data && host_memory == data;
        if !self.intact && memory != host_memory && !result {
            let at = memory
                .iter()
                .zip(host_memory)
                .position(|(a, b)| a != b)
                .unwrap_or(0);
            what += &format!(
                " memory at +{at:#x}: {:02x?}, host {:02x?};",
                &memory[at..(at + 16).min(DATA_LEN)],
                &host_memory[at..(at + 16).min(DATA_LEN)]
            );
        }
        if what.is_empty() {
            Ok(true)
        } else {
            Err(Difference { what })
        }
    }

    fn fpu_difference(&self, want: &Registers) -> String {
        let got = self.cpu.fxsave();
        let mut what = String::new();
        // Control, status, tags, MXCSR, registers. Not the instruction and operand pointers, which are
        // linear addresses of different programs.
        for range in [0..5, 24..28, 32..160, 160..416] {
            if let Some(n) = range.clone().find(|&n| got[n] != want.fx[n]) {
                let end = (n + 8).min(range.end);
                what += &format!(" fx+{n}: {:02x?}, host {:02x?};", &got[n..end], &want.fx[n..end]);
            }
        }
        what
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (seed, first, count) = random::cases(&args, 1_000_000);
    let keep_going = args.iter().any(|a| a == "--keep-going");
    let verbose = args.iter().any(|a| a == "--verbose");
    let mut rig = Rig::new();
    let mut seen: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut faults = 0u64;
    let mut bad: BTreeMap<String, u64> = BTreeMap::new();
    let mut n = first / PER_ENCODING;
    let mut executed = 0;
    while executed < count {
        let mut r = Random::new(seed ^ n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        // One in four is 32-bit code.
        let long = r.below(4) != 0;
        let (bytes, i) = encoding(&mut r, long);
        if verbose {
            eprintln!("{} {:?} {bytes:02x?}", n * PER_ENCODING, i.code());
        }
        rig.place(&bytes, long);
        rig.intact = false;
        let name = format!("{:?}", i.mnemonic());
        let words = data_words(&mut r);
        let data: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        for _ in 0..PER_ENCODING {
            let before = state(&mut r, &i, long, &words);
            executed += 1;
            match rig.compare(&i, &before, &data) {
                Ok(true) => seen.entry(name.clone()).or_default().0 += 1,
                Ok(false) => {
                    faults += 1;
                    seen.entry(name.clone()).or_default().1 += 1;
                }
                Err(d) => {
                    let count = bad.entry(name.clone()).or_default();
                    *count += 1;
                    if *count == 1 || !keep_going {
                        println!(
                            "case {}: {:?} {:02x?}:{}\n  before: {:x?} flags {:x}",
                            n * PER_ENCODING,
                            i.code(),
                            bytes,
                            d.what,
                            before.gpr,
                            before.flags
                        );
                    }
                    if !keep_going {
                        std::process::exit(1);
                    }
                    break;
                }
            }
        }
        n += 1;
    }
    if args.iter().any(|a| a == "--list") {
        seen.iter()
            .for_each(|(m, (ok, fault))| println!("{m}: {ok} equal, {fault} faults on both"));
    }
    println!(
        "{executed} executions from {first}, seed {seed}: {} mnemonics, {faults} faults on both, {} mnemonics differ {bad:?}",
        seen.len(),
        bad.len()
    );
    if !bad.is_empty() {
        std::process::exit(1);
    }
}
