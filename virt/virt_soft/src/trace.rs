// SPDX-License-Identifier: MIT
//! The engine's tracer interface over `virt`'s.

use virt::{ExecutionTrace, TracedInstruction};
use x86emu::{Traced, Tracer, disassemble};

/// A trace as the engine takes it.
pub(crate) struct Adapter(pub(crate) Box<dyn ExecutionTrace>);

impl Tracer for Adapter {
    /// Always: the engine knows the exact instruction pointer of an access only when it runs one
    /// instruction at a time. A trace that blames the wrong instruction is worse than a slow one.
    fn wants_instructions(&self) -> bool {
        true
    }

    fn instruction(&mut self, state: &Traced<'_>) {
        if !self.0.wants_instructions() {
            return;
        }
        self.0.instruction(&TracedInstruction {
            cs: state.cs,
            rip: state.rip,
            bitness: state.bitness,
            bytes: state.bytes,
            disassemble: &|| disassemble(state.bitness, state.rip, state.bytes),
        });
    }

    fn exception(&mut self, vector: u8, error: Option<u32>, rip: u64, cr2: u64) {
        self.0.exception(vector, error, rip, cr2);
    }

    fn port(&mut self, port: u16, size: u8, write: bool, value: u32, rip: u64) {
        let value = value.to_le_bytes();
        self.0.port(port, write, &value[..usize::from(size).min(4)], rip);
    }

    fn mmio(&mut self, gpa: u64, data: &[u8], write: bool, rip: u64) {
        self.0.mmio(gpa, write, data, rip);
    }
}
