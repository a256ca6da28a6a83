// SPDX-License-Identifier: MIT
//! `--trace`: what the guest does, line by line in a file.
//!
//! Always true: the file holds only what was asked for, in the order of execution (VPs take turns on the
//! software CPU); a file that cannot be written ends the trace with one message, never the guest.
//! Not here: how execution is watched ([`virt::ExecutionTrace`]).

use anyhow::Context;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use virt::{ExecutionTrace, RunError, Runner, TracedInstruction, VpIndex};

/// What to trace, and where to.
#[derive(Debug, Clone)]
pub struct TraceOptions {
    /// The file to write.
    pub file: PathBuf,
    /// Instructions at these addresses (RIP); `None` for none.
    pub instructions: Option<RangeInclusive<u64>>,
    /// Exceptions and interrupts, when delivered.
    pub exceptions: bool,
    /// Accesses to these ports.
    pub ports: Option<RangeInclusive<u64>>,
    /// Accesses outside RAM at these gpas.
    pub mmio: Option<RangeInclusive<u64>>,
}

/// The open trace file, shared by the VPs.
pub(crate) struct Trace {
    options: TraceOptions,
    out: Arc<Mutex<Option<BufWriter<File>>>>,
}

impl Trace {
    /// Creates the file.
    pub(crate) fn create(options: TraceOptions) -> anyhow::Result<Self> {
        let file = File::create(&options.file).with_context(|| context(&options.file))?;
        let out = Arc::new(Mutex::new(Some(BufWriter::with_capacity(1 << 20, file))));
        Ok(Self { options, out })
    }

    /// Watches the VPs of `runner`.
    pub(crate) fn attach(&self, runner: &mut dyn Runner) -> anyhow::Result<()> {
        let mut make = |vp| {
            let line = Line {
                vp,
                options: self.options.clone(),
                out: self.out.clone(),
                text: String::new(),
            };
            Box::new(line) as Box<dyn ExecutionTrace>
        };
        let refused = || RunError::Unavailable {
            hypervisor: "tracing",
            reason: "this hypervisor cannot be watched; add --hypervisor soft".into(),
        };
        let debug = runner.debug().ok_or_else(refused)?;
        debug
            .set_trace(&mut make)
            .with_context(|| context(&self.options.file))
    }
}

fn context(file: &Path) -> String {
    format!("--trace {}", file.display())
}

/// One VP's writer.
struct Line {
    vp: VpIndex,
    options: TraceOptions,
    out: Arc<Mutex<Option<BufWriter<File>>>>,
    text: String,
}

impl Line {
    /// Writes the line in `text`.
    fn finish(&mut self) {
        self.text.push('\n');
        let mut out = self.out.lock().unwrap_or_else(|e| e.into_inner());
        let Some(file) = &mut *out else { return };
        if let Err(error) = file.write_all(self.text.as_bytes()) {
            tracing::error!("{}: {error}; the trace ends here", context(&self.options.file));
            *out = None;
        }
    }

    fn begin(&mut self, what: &str, rip: u64) {
        self.text.clear();
        let _ = write!(self.text, "vp{} {rip:016x} {what}", self.vp);
    }

    fn access(&mut self, what: &str, at: u64, write: bool, data: &[u8], rip: u64) {
        self.begin(what, rip);
        let direction = if write { "<-" } else { "->" };
        let _ = write!(self.text, " {at:#x} {direction} ");
        // As a number: the most significant byte first.
        data.iter().rev().for_each(|byte| {
            let _ = write!(self.text, "{byte:02x}");
        });
        self.finish();
    }
}

fn wanted(range: &Option<RangeInclusive<u64>>, at: u64) -> bool {
    range.as_ref().is_some_and(|r| r.contains(&at))
}

impl ExecutionTrace for Line {
    fn wants_instructions(&self) -> bool {
        self.options.instructions.is_some()
    }

    fn instruction(&mut self, instruction: &TracedInstruction<'_>) {
        if !wanted(&self.options.instructions, instruction.rip) {
            return;
        }
        self.begin("run", instruction.rip);
        let (len, text) = (instruction.disassemble)();
        let _ = write!(self.text, " {:04x} ", instruction.cs);
        let used = instruction.bytes.get(..len).unwrap_or(instruction.bytes);
        used.iter().for_each(|byte| {
            let _ = write!(self.text, "{byte:02x}");
        });
        let _ = write!(self.text, " {text}");
        self.finish();
    }

    fn exception(&mut self, vector: u8, error: Option<u32>, rip: u64, cr2: u64) {
        if !self.options.exceptions {
            return;
        }
        self.begin("vector", rip);
        let _ = write!(self.text, " {vector:#x}");
        if let Some(error) = error {
            let _ = write!(self.text, " error {error:#x}");
        }
        if vector == x86defs::vector::PF {
            let _ = write!(self.text, " cr2 {cr2:#x}");
        }
        self.finish();
    }

    fn port(&mut self, port: u16, write: bool, data: &[u8], rip: u64) {
        if wanted(&self.options.ports, port.into()) {
            self.access("port", port.into(), write, data, rip);
        }
    }

    fn mmio(&mut self, gpa: u64, write: bool, data: &[u8], rip: u64) {
        if wanted(&self.options.mmio, gpa) {
            self.access("mmio", gpa, write, data, rip);
        }
    }
}
