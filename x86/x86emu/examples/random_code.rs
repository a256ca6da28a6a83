// SPDX-License-Identifier: MIT
//! Runs random bytes in random modes, looks for a panic or a hang of the engine, and compares blocks
//! with single steps.
//!
//! `cargo run -p x86emu --example random_code -- [--seed S] [--first N] [--count N] [--verbose]`
//!
//! One case is one start (`shared/wild.rs`) that runs twice: with interrupts and devices that answer at
//! random, and quietly, in blocks and in single steps. Always true: case N of a seed is the same whatever
//! ran before, and a case that panics or hangs is named. Without `--release` arithmetic overflow panics
//! too. Not here: right or wrong results.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use x86defs::X86State;
use x86emu::{Bus, CodeMap, Config, Cpu, Exit, MsrFault, RamPage};

#[path = "shared/ram.rs"]
mod ram;
#[path = "shared/random.rs"]
mod random;
#[path = "shared/wild.rs"]
mod wild;
use ram::Ram;
use random::Random;
use wild::{LEN, Mode, Start, TABLE_PAGES};

/// Instructions per case.
const BUDGET: u64 = 2000;
/// A case that takes longer than this hangs; they take milliseconds.
const PATIENCE: Duration = Duration::from_secs(120);

struct World {
    ram: Ram,
    random: Random,
    /// No interrupts, and devices that always answer the same.
    quiet: bool,
}

impl Bus for World {
    fn ram(&mut self, gpn: u64) -> Option<RamPage> {
        // Page tables that change without invalidation may be seen early or late: not in comparisons.
        let tables = self.quiet && TABLE_PAGES.contains(&gpn);
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

/// A processor and its world at a start.
fn machine(start: &Start, random: Random, quiet: bool) -> (Cpu, World) {
    let mut ram = Ram::new(LEN);
    ram.write(0, &start.image);
    let mut cpu = Cpu::new(Config {
        cpuid: x86emu::cpuid::baseline(40),
        phys_bits: 40,
        code: CodeMap::new(LEN as u64),
    });
    cpu.set_state(&start.state);
    cpu.fxrstor(&start.fx);
    (cpu, World { ram, random, quiet })
}

/// Runs a case with interrupts from outside.
fn run_with_events(start: &Start, random: Random, exits: &mut [u64; 5]) -> u64 {
    let (mut cpu, mut world) = machine(start, random, false);
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

/// What a run leaves in the processor.
fn outcome(cpu: &Cpu) -> (X86State, [u8; 512]) {
    (cpu.state(), cpu.fxsave())
}

/// Blocks of many instructions and blocks of one must come to the same state.
fn compare_with_single_steps(start: &Start, budget: u64) -> Result<(), String> {
    let (mut whole, mut world) = machine(start, Random::new(0), true);
    let exit = whole.run(&mut world, budget);
    let (want, memory) = (outcome(&whole), world.ram.read(0, LEN));
    let (mut stepped, mut world) = machine(start, Random::new(0), true);
    let equal = |cpu: &Cpu, world: &World| outcome(cpu) == want && world.ram.read(0, LEN) == memory;
    let mut last = Exit::Budget;
    // Deliveries of exceptions use up budget without retiring anything.
    for _ in 0..budget * 4 {
        let there = stepped.retired() == whole.retired();
        if stepped.retired() > whole.retired() || there && equal(&stepped, &world) {
            break;
        }
        last = stepped.run(&mut world, 1);
        if last != Exit::Budget {
            break;
        }
    }
    if equal(&stepped, &world) {
        return Ok(());
    }
    let got = outcome(&stepped);
    let other = world.ram.read(0, LEN);
    let at = other.iter().zip(&memory).position(|(a, b)| a != b);
    Err(format!(
        "{exit:?} after {} instructions in blocks, {last:?} after {} in steps; memory differs at {at:x?}\n{:x?}\n{:x?}",
        whole.retired(),
        stepped.retired(),
        want.0,
        got.0
    ))
}

/// Both runs of one case; answers what was started and the instructions of the first run.
fn run_case(seed: u64, n: u64, exits: &mut [u64; 5]) -> Result<((Mode, u8, u8), u64), String> {
    let mut r = Random::new(seed ^ n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let start = Start::new(&mut r);
    let retired = run_with_events(&start, r, exits);
    if compare_with_single_steps(&start, BUDGET).is_err() {
        // The shortest run that shows it.
        let first = (1..=BUDGET).find_map(|b| compare_with_single_steps(&start, b).err());
        return Err(first.unwrap_or_else(|| "blocks and steps differ".to_owned()));
    }
    Ok(((start.mode, start.levels, start.cpl), retired))
}

/// Ends the process when `current` stays the same for too long.
fn watch(current: Arc<AtomicU64>, seed: u64) {
    std::thread::spawn(move || {
        let mut seen = u64::MAX;
        loop {
            std::thread::sleep(PATIENCE);
            let now = current.load(Ordering::Relaxed);
            if now == seen {
                println!("case {now}, seed {seed}: hangs; repeat with --seed {seed} --first {now} --count 1");
                std::process::exit(1);
            }
            seen = now;
        }
    });
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (seed, first, count) = random::cases(&args, 10_000);
    let verbose = args.iter().any(|a| a == "--verbose");
    let mut exits = [0u64; 5];
    // Cases and instructions by mode, levels of page tables, privilege level.
    let mut seen: BTreeMap<(Mode, u8, u8), (u64, u64)> = BTreeMap::new();
    let current = Arc::new(AtomicU64::new(first));
    watch(current.clone(), seed);
    for n in first..first.saturating_add(count) {
        current.store(n, Ordering::Relaxed);
        if verbose {
            eprintln!("case {n}");
        }
        let outcome =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run_case(seed, n, &mut exits)));
        let problem = match outcome {
            Ok(Ok((kind, retired))) => {
                let row = seen.entry(kind).or_default();
                *row = (row.0 + 1, row.1 + retired);
                continue;
            }
            Ok(Err(difference)) => difference,
            Err(_) => "the engine panics".to_owned(),
        };
        println!("case {n}, seed {seed}: {problem}\nrepeat with --seed {seed} --first {n} --count 1");
        std::process::exit(1);
    }
    if args.iter().any(|a| a == "--list") {
        for ((mode, levels, cpl), (cases, retired)) in &seen {
            println!("{mode:?}, {levels} levels, CPL {cpl}: {cases} cases, {retired} instructions");
        }
    }
    let retired: u64 = seen.values().map(|row| row.1).sum();
    println!(
        "{count} cases from {first}, seed {seed}: {retired} instructions in {} combinations, {:.0} s of CPU; budget, hlt, triple fault, kick, breakpoint: {exits:?}",
        seen.len(),
        ram::cpu_seconds()
    );
}
