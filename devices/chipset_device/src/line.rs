// SPDX-License-Identifier: MIT
//! Interrupt wires.

use std::sync::Arc;

/// Who receives the level of numbered input lines (an IO-APIC and 8259 pair, a test).
pub trait LineTarget: Send + Sync {
    /// Input `line` is now at `level`. Repeating a level is allowed and has no effect.
    fn set_line(&self, line: u32, level: bool);
}

/// Who receives message-signalled interrupts.
pub trait MsiTarget: Send + Sync {
    /// A 32-bit write of `data` to `address` (0xFEExxxxx).
    fn signal_msi(&self, address: u64, data: u32);
}

/// One wire, held by the device that drives it.
#[derive(Clone)]
pub struct InterruptLine {
    target: Option<Arc<dyn LineTarget>>,
    line: u32,
}

impl InterruptLine {
    /// A wire to input `line` of `target`.
    pub fn new(target: Arc<dyn LineTarget>, line: u32) -> Self {
        Self {
            target: Some(target),
            line,
        }
    }
    /// A wire to nowhere.
    pub fn unconnected() -> Self {
        Self {
            target: None,
            line: 0,
        }
    }
    /// Drives the wire.
    pub fn set(&self, level: bool) {
        if let Some(t) = &self.target {
            t.set_line(self.line, level);
        }
    }
    /// A low-high-low pulse, for edge-triggered inputs.
    pub fn pulse(&self) {
        self.set(true);
        self.set(false);
    }
}

impl std::fmt::Debug for InterruptLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "line {}{}",
            self.line,
            if self.target.is_some() {
                ""
            } else {
                " (unconnected)"
            }
        )
    }
}
