// SPDX-License-Identifier: MIT
//! From numbered interrupt lines (GSIs) to the inputs of the 8259 pair and the IO-APIC.
//!
//! Always true: line n below 16 is 8259 input n and IO-APIC pin n, except line 0, which is pin 2 (the
//! MADT's interrupt source override); lines from 16 on are IO-APIC pins only.

use crate::ioapic::IoApic;
use crate::lock;
use crate::pic::Pic;
use chipset_device::{InterruptLine, LineTarget};
use std::sync::{Arc, Mutex};

/// IO-APIC pin of line 0, the timer.
pub const TIMER_PIN: u32 = 2;

/// The wires between devices and interrupt controllers.
pub struct Router {
    pic: Option<Arc<Pic>>,
    ioapic: Option<Arc<IoApic>>,
}

impl Router {
    /// Wires to the controllers that the machine has.
    pub fn new(pic: Option<Arc<Pic>>, ioapic: Option<Arc<IoApic>>) -> Arc<Self> {
        Arc::new(Self { pic, ioapic })
    }
}

impl LineTarget for Router {
    fn set_line(&self, line: u32, level: bool) {
        if let Some(pic) = &self.pic {
            pic.set_line(line, level);
        }
        if let Some(ioapic) = &self.ioapic {
            match line {
                0 => ioapic.set_line(TIMER_PIN, level),
                TIMER_PIN => {}
                _ => ioapic.set_line(line, level),
            }
        }
    }
}

/// Wires several devices to one line: the line is high while any input is. Inputs are 0 to 31.
pub struct OrGate {
    inputs: Mutex<u32>,
    output: InterruptLine,
}

impl OrGate {
    /// A gate with all inputs low.
    pub fn new(output: InterruptLine) -> Arc<Self> {
        Arc::new(Self {
            inputs: Mutex::new(0),
            output,
        })
    }
}

impl LineTarget for OrGate {
    fn set_line(&self, line: u32, level: bool) {
        let Some(bit) = 1u32.checked_shl(line) else { return };
        let mut inputs = lock(&self.inputs);
        *inputs = if level { *inputs | bit } else { *inputs & !bit };
        // Held, so that the output sees the changes in their order.
        self.output.set(*inputs != 0);
    }
}
