// SPDX-License-Identifier: MIT
//! Runs random bytes in random modes, looks for a panic of the engine, and compares blocks with single
//! steps.
//!
//! `cargo run -p x86emu --example random_code -- [--seed S] [--first N] [--count N]`
//!
//! One case is one start in a random mode with random memory. Always true: case N of a seed is the same
//! whatever ran before. Without `--release` arithmetic overflow panics too. Not here: right or wrong
//! results.

use x86defs::{SegmentAttributes, SegmentRegister, TableRegister, X86State};
use x86emu::{Bus, CodeMap, Config, Cpu, Exit, MsrFault, RamPage};

#[path = "shared/ram.rs"]
mod ram;
#[path = "shared/random.rs"]
mod random;
use ram::Ram;
use random::Random;

const LEN: usize = 0x4_0000;
/// Instructions per case.
const BUDGET: u64 = 2000;

struct World {
    ram: Ram,
    random: Random,
    /// No interrupts, and devices that always answer the same.
    quiet: bool,
}

impl Bus for World {
    fn ram(&mut self, gpn: u64) -> Option<RamPage> {
        // Page tables that change without invalidation may be seen early or late: not in comparisons.
        let tables = self.quiet && (1..=5).contains(&gpn);
        self.ram.page(gpn, gpn % 16 != 15 && !tables)
    }
    fn mmio_read(&mut self, _gpa: u64, data: &mut [u8]) {
        if self.quiet {
            return data.fill(0x5A);
        }
        data.fill_with(|| self.random.next() as u8);
    }
    fn mmio_write(&mut self, _gpa: u64, _data: &[u8]) {}
    fn port_in(&mut self, _port: u16, _size: u8) -> u32 {
        if self.quiet {
            0x5A5A_5A5A
        } else {
            self.random.next() as u32
        }
    }
    fn port_out(&mut self, _port: u16, _size: u8, _value: u32) {}
    fn read_msr(&mut self, _msr: u32) -> Result<u64, MsrFault> {
        if self.random.below(2) == 0 {
            Ok(self.random.next())
        } else {
            Err(MsrFault)
        }
    }
    fn write_msr(&mut self, _msr: u32, _value: u64) -> Result<(), MsrFault> {
        if self.random.below(2) == 0 {
            Ok(())
        } else {
            Err(MsrFault)
        }
    }
    fn take_interrupt(&mut self) -> Option<u8> {
        (!self.quiet && self.random.below(8) == 0).then(|| self.random.next() as u8)
    }
    fn tsc(&mut self) -> u64 {
        if self.quiet { 1 } else { self.random.next() }
    }
}

/// Bytes that decode to something more often than uniform ones.
fn code(r: &mut Random, len: usize) -> Vec<u8> {
    let mut b = Vec::with_capacity(len + 16);
    while b.len() < len {
        match r.below(8) {
            0 => b.extend([0x0F, r.next() as u8]),
            1 => b.push([0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x2E, 0x64, 0x48][r.below(8) as usize]),
            2 => b.extend([0x0F, r.below(2) as u8, r.next() as u8]),
            3 => b.extend([0xD8 | r.below(8) as u8, r.next() as u8]),
            4 => b.extend((0..8).map(|_| r.next() as u8)),
            _ => b.push(r.next() as u8),
        }
    }
    b.truncate(len);
    b
}

fn segment(r: &mut Random, code: Option<u32>) -> SegmentRegister {
    let kind = match code {
        Some(size) => 0x9B | size,
        None => {
            [0x93, 0x97, 0x91, 0x9B, 0x1_0000][r.below(5) as usize] | if r.below(2) == 0 { 0x4000 } else { 0 }
        }
    };
    let limit = [0xFFFF, u32::MAX, 0x3_FFFF, 0, r.next() as u32][r.below(5) as usize];
    let base = [0, 0x1000, r.next() & 0xFFFF, r.next() & 0xFFFF_FFFF][r.below(4) as usize];
    let limit = if code.is_some() { u32::MAX } else { limit };
    SegmentRegister {
        selector: r.next() as u16 & 0xFFFC,
        attributes: SegmentAttributes(kind),
        limit,
        base: if code.is_some() { 0 } else { base },
    }
}

/// Descriptor tables, page tables and code.
fn fill(r: &mut Random, ram: &mut Ram) {
    ram.write(0, &code(r, LEN));
    let mut entry = |at: usize, v: u64| ram.write(at, &v.to_le_bytes());
    for i in 0..4 {
        entry(0x1000 + i * 8, 0x2007);
        entry(0x2000 + i * 8, 0x3007);
        // A 2-level directory whose first entries are the same pages.
        entry(0x5000 + i * 8, 0x4007_0000_4007 & 0xFFFF_FFFF | 0x4007 << 32);
    }
    entry(0x3000, 0x4007);
    for i in 0..(LEN / 4096) as u64 {
        let flags = [7, 7, 7, 5, 3, 0x67][r.below(6) as usize];
        entry(0x4000 + i as usize * 8, i << 12 | flags);
    }
    for i in 1..64u64 {
        let kind = [
            0x00CF_9B00,
            0x00CF_9300,
            0x00AF_9B00,
            0x00CF_FB00,
            0x00CF_F300,
            0x0000_8900,
            0x0000_EC00,
            0x00AF_FB00,
        ][r.below(8) as usize];
        entry(
            0x6000 + i as usize * 8,
            kind << 32
                | if kind & 0x1F00 == 0x0C00 {
                    0x0008_0000 | r.next() & 0xFFFF
                } else {
                    0xFFFF
                },
        );
    }
    for i in 0..256usize {
        let v = 0x8E00_0008_0000 | r.next() & 0xFFFF | (r.below(4) << 45) | (r.below(2) << 40);
        entry(0x7000 + i * 16, v);
        entry(0x7008 + i * 16, if r.below(2) == 0 { v } else { 0 });
    }
}

fn state(r: &mut Random) -> X86State {
    let mut s = X86State::reset();
    s.gpr = std::array::from_fn(|_| {
        if r.below(2) == 0 {
            r.next() & 0x3_FFFF
        } else {
            r.operand()
        }
    });
    s.rip = 0x1_0000 + r.below(0x2_0000);
    s.rflags = r.next() & 0x24_4FD5 | r.below(4) << 12 | 2;
    s.gdtr = TableRegister {
        base: 0x6000,
        limit: 0x1FF,
    };
    s.idtr = TableRegister {
        base: 0x7000,
        limit: 0xFFF,
    };
    (s.ds, s.es, s.ss, s.fs, s.gs) = (
        segment(r, None),
        segment(r, None),
        segment(r, None),
        segment(r, None),
        segment(r, None),
    );
    s.cr4 = r.next() & 0x31_0620;
    s.efer = r.below(2) | r.below(2) << 11;
    s.cr0 = 0x10 | r.next() & 0x1_002E;
    match r.below(5) {
        0 => {
            s.rip &= 0xFFFF;
            s.cs.base = r.next() & 0x2_FFF0;
        }
        n => {
            s.cr0 |= 1;
            let size = [0, 0x4000, 0x2000][r.below(3) as usize];
            s.cs = segment(r, Some(size));
            if n >= 2 {
                s.cr0 |= 1 << 31;
                s.cr3 = 0x5000;
            }
            if n >= 3 {
                s.cr4 |= 0x20;
                s.cr3 = 0x1000;
                s.efer |= 0x500;
            }
            if r.below(3) == 0 {
                s.cs.attributes.0 |= 0x60;
                s.ss.attributes.0 |= 0x60;
            }
            if n == 2 && r.below(4) == 0 {
                s.rflags |= 1 << 17;
                s.rip &= 0xFFFF;
            }
        }
    }
    s.tr = SegmentRegister {
        selector: 0x28,
        attributes: SegmentAttributes(0x8B),
        limit: [0x67, 0x2000, 10][r.below(3) as usize],
        base: 0x9000,
    };
    s
}

/// A processor and its world at the start of case `n`.
fn case(seed: u64, n: u64) -> (Cpu, World) {
    let mut r = Random::new(seed ^ n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut ram = Ram::new(LEN);
    fill(&mut r, &mut ram);
    let start = state(&mut r);
    let world = World {
        ram,
        random: r,
        quiet: false,
    };
    let mut cpu = Cpu::new(Config {
        cpuid: x86emu::cpuid::baseline(40),
        phys_bits: 40,
        code: CodeMap::new(LEN as u64),
    });
    cpu.set_state(&start);
    (cpu, world)
}

/// Runs a case with interrupts from outside.
fn run_with_events(seed: u64, n: u64, exits: &mut [u64; 5]) -> u64 {
    let (mut cpu, mut world) = case(seed, n);
    let attention = cpu.attention();
    for _ in 0..4 {
        attention.interrupt();
        if world.random.below(4) == 0 {
            attention.nmi();
        }
        let exit = cpu.run(&mut world, BUDGET / 4);
        exits[match exit {
            Exit::Budget => 0,
            Exit::Hlt => 1,
            Exit::TripleFault => 2,
            Exit::Kicked => 3,
            Exit::Breakpoint => 4,
        }] += 1;
        if exit == Exit::TripleFault {
            break;
        }
    }
    cpu.retired()
}

/// What a run leaves.
fn outcome(cpu: &Cpu, world: &World) -> (X86State, [u8; 512], Vec<u8>) {
    (cpu.state(), cpu.fxsave(), world.ram.read(0, LEN))
}

/// Blocks of many instructions and blocks of one must come to the same state.
fn compare_with_single_steps(seed: u64, n: u64, budget: u64) -> Result<(), String> {
    let (mut whole, mut world) = case(seed, n);
    world.quiet = true;
    let exit = whole.run(&mut world, budget);
    let want = outcome(&whole, &world);
    let (mut stepped, mut world) = case(seed, n);
    world.quiet = true;
    let mut last = Exit::Budget;
    // Deliveries of exceptions use up budget without retiring anything.
    for _ in 0..budget * 4 {
        let there = stepped.retired() == whole.retired();
        if stepped.retired() > whole.retired() || there && outcome(&stepped, &world) == want {
            break;
        }
        last = stepped.run(&mut world, 1);
        if last != Exit::Budget {
            break;
        }
    }
    let got = outcome(&stepped, &world);
    if got == want {
        return Ok(());
    }
    let memory = got.2.iter().zip(&want.2).position(|(a, b)| a != b);
    Err(format!(
        "case {n}: {exit:?} after {} instructions in blocks, {last:?} after {} in steps; memory differs at {memory:x?}\n{:x?}\n{:x?}",
        whole.retired(),
        stepped.retired(),
        want.0,
        got.0
    ))
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (seed, first, count) = random::cases(&args, 10_000);
    let verbose = args.iter().any(|a| a == "--verbose");
    let mut exits = [0u64; 5];
    let mut retired = 0;
    for n in first..first.saturating_add(count) {
        if verbose {
            eprintln!("case {n}");
        }
        retired += run_with_events(seed, n, &mut exits);
        if compare_with_single_steps(seed, n, BUDGET).is_err() {
            // The shortest run that shows it.
            let first = (1..=BUDGET).find_map(|b| compare_with_single_steps(seed, n, b).err());
            println!("{}", first.unwrap_or_default());
            std::process::exit(1);
        }
    }
    println!(
        "{count} cases from {first}, seed {seed}: {retired} instructions; budget, hlt, triple fault, kick, breakpoint: {exits:?}"
    );
}
