// SPDX-License-Identifier: MIT
//! What the examples that boot something share: options, the processor, the loop until a console line,
//! segments.
//!
//! Always true: the loop sleeps while the processor is halted, and says every five seconds where it is.

use std::time::{Duration, Instant};
use x86defs::{SegmentAttributes, SegmentRegister};
use x86emu::{Bus, CodeMap, Config, Cpu, Exit, Tracer};

#[path = "ram.rs"]
mod ram;
pub(crate) use ram::{Ram, cpu_seconds};

/// The program's arguments.
pub(crate) struct Arguments(Vec<String>);

impl Arguments {
    pub(crate) fn new() -> Self {
        Self(std::env::args().skip(1).collect())
    }
    /// The first one, unless it is an option.
    pub(crate) fn file(&self) -> Option<&str> {
        self.0
            .first()
            .map(String::as_str)
            .filter(|a| !a.starts_with("--"))
    }
    /// The value behind `name`.
    pub(crate) fn option(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|a| a == name)?;
        self.0.get(at + 1).map(String::as_str)
    }
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|a| a == name)
    }
}

/// A machine whose console can be looked at.
pub(crate) trait Console: Bus {
    /// Everything that the guest has printed.
    fn console(&self) -> &str;
}

struct Exceptions;
impl Tracer for Exceptions {
    fn exception(&mut self, vector: u8, error: Option<u32>, rip: u64, cr2: u64) {
        eprintln!("exception {vector:#x} error {error:x?} rip {rip:#x} cr2 {cr2:#x}");
    }
}

/// A flat segment.
#[allow(dead_code, reason = "firmware starts at reset")]
pub(crate) fn flat(selector: u16, attributes: u32) -> SegmentRegister {
    SegmentRegister {
        selector,
        attributes: SegmentAttributes(attributes),
        limit: u32::MAX,
        base: 0,
    }
}

/// A processor with translated code anywhere below `code_len`; `--trace-exceptions` is obeyed.
pub(crate) fn processor(args: &Arguments, code_len: u64) -> Cpu {
    let mut cpu = Cpu::new(Config {
        cpuid: x86emu::cpuid::baseline(40),
        phys_bits: 40,
        code: CodeMap::new(code_len),
    });
    if args.has("--trace-exceptions") {
        cpu.set_tracer(Some(Box::new(Exceptions)));
    }
    cpu
}

/// Runs until the console shows `until` or the processor cannot go on, and prints what that took.
pub(crate) fn run(cpu: &mut Cpu, machine: &mut impl Console, until: &str) {
    let attention = cpu.attention();
    let before = cpu_seconds();
    let start = Instant::now();
    let mut reported = start;
    while !machine.console().contains(until) {
        match cpu.run(machine, 100_000) {
            Exit::Budget | Exit::Kicked => {}
            Exit::Hlt => std::thread::sleep(Duration::from_micros(500)),
            exit => {
                println!("\nstopped: {exit:?}\n{:x?}", cpu.state());
                break;
            }
        }
        attention.interrupt();
        if reported.elapsed().as_secs() >= 5 {
            reported = Instant::now();
            eprintln!(
                "[{:.1} s, {} M instructions, rip {:#x}]",
                start.elapsed().as_secs_f64(),
                cpu.retired() / 1_000_000,
                cpu.rip()
            );
        }
    }
    let cpu_time = cpu_seconds() - before;
    println!(
        "\n{} instructions, {cpu_time:.2} s cpu, {:.0} mips",
        cpu.retired(),
        cpu.retired() as f64 / cpu_time / 1e6
    );
}
