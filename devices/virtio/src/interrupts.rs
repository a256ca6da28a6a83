// SPDX-License-Identifier: MIT
//! How a function tells the driver: MSI-X messages, else the ISR register and the interrupt pin (sections
//! 4.1.4.5 and 4.1.5.3).
//!
//! Always true: the pin is high exactly while the ISR register is not zero, MSI-X is off and the command
//! register allows it.

use crate::lock;
use crate::queue::NO_VECTOR;
use chipset_device::InterruptLine;
use pci::Msix;
use std::sync::{Arc, Mutex};

/// ISR: a queue has used buffers.
const QUEUE: u8 = 1;
/// ISR: the configuration changed.
const CONFIGURATION: u8 = 2;

struct Pin {
    isr: u8,
    allowed: bool,
}

/// The interrupts of one function.
pub(crate) struct Interrupts {
    msix: Arc<Msix>,
    line: InterruptLine,
    pin: Mutex<Pin>,
}

impl Interrupts {
    pub(crate) fn new(msix: Arc<Msix>, line: InterruptLine) -> Self {
        let pin = Mutex::new(Pin {
            isr: 0,
            allowed: true,
        });
        Self { msix, line, pin }
    }

    /// Used buffers, for the queue with message `vector`.
    pub(crate) fn queue(&self, vector: u16) {
        self.signal(QUEUE, vector);
    }

    /// The device's status or configuration changed.
    pub(crate) fn configuration(&self, vector: u16) {
        self.signal(CONFIGURATION, vector);
    }

    fn signal(&self, bit: u8, vector: u16) {
        if self.msix.enabled() {
            if vector != NO_VECTOR {
                self.msix.trigger(vector);
            }
            return;
        }
        let mut pin = lock(&self.pin);
        pin.isr |= bit;
        self.drive(&pin);
    }

    fn drive(&self, pin: &Pin) {
        self.line.set(pin.isr != 0 && pin.allowed && !self.msix.enabled());
    }

    /// Reads and clears the ISR register.
    pub(crate) fn take_isr(&self) -> u8 {
        let mut pin = lock(&self.pin);
        let isr = std::mem::take(&mut pin.isr);
        self.drive(&pin);
        isr
    }

    /// Whether the pin asks for service, for the status register.
    pub(crate) fn is_pending(&self) -> bool {
        lock(&self.pin).isr != 0
    }

    /// The command register or MSI-X changed.
    pub(crate) fn allow_pin(&self, allowed: bool) {
        let mut pin = lock(&self.pin);
        pin.allowed = allowed;
        self.drive(&pin);
    }

    pub(crate) fn reset(&self) {
        let mut pin = lock(&self.pin);
        (pin.isr, pin.allowed) = (0, true);
        self.drive(&pin);
    }
}
