// SPDX-License-Identifier: MIT
//! Interrupt pins of PCI devices to interrupt lines, as in the ICH9: eight shared wires PIRQA to PIRQH,
//! each on line 16 to 23 and, when its route register says so, on one of the ISA lines (ICH9 data sheet
//! sections 5.8.6 and 13.1.11).
//!
//! Always true: a wire is high while any pin on it is. Device d's pin p is on PIRQ E + (d + p) mod 4.

use crate::lock;
use chipset_device::{InterruptLine, LineTarget};
use std::sync::{Arc, Mutex};

/// Line of PIRQA.
const FIRST_LINE: u32 = 16;
/// Route register: not routed to an ISA line.
const ROUTE_OFF: u8 = 0x80;
/// ISA lines that a PIRQ may be routed to: 3 to 7, 9 to 12, 14, 15.
const ROUTABLE: u16 = 0xDEF8;

struct State {
    /// Pins that are high, one bit per device, for each of the eight wires and four pins.
    high: [[u32; 4]; 8],
    routes: [u8; 8],
}

impl State {
    fn wire(&self, pirq: usize) -> bool {
        self.high[pirq].iter().any(|devices| *devices != 0)
    }

    /// ISA lines that some wire drives high, and ISA lines that some wire is routed to.
    fn isa(&self) -> (u16, u16) {
        let mut levels = 0;
        let mut routed = 0;
        for (pirq, route) in self
            .routes
            .iter()
            .enumerate()
            .filter(|(_, r)| **r & ROUTE_OFF == 0)
        {
            let bit = 1u16 << (route & 15) & ROUTABLE;
            routed |= bit;
            if self.wire(pirq) {
                levels |= bit;
            }
        }
        (levels, routed)
    }
}

/// The wires.
pub struct IntxRouter {
    state: Mutex<State>,
    lines: Arc<dyn LineTarget>,
}

impl IntxRouter {
    /// Wires to `lines`, none of them routed to an ISA line.
    pub fn new(lines: Arc<dyn LineTarget>) -> Arc<Self> {
        let state = State {
            high: [[0; 4]; 8],
            routes: [ROUTE_OFF; 8],
        };
        Arc::new(Self {
            state: Mutex::new(state),
            lines,
        })
    }

    /// The wire of `device`'s pin (0 for INTA to 3 for INTD).
    pub fn pin(self: &Arc<Self>, device: u8, pin: u8) -> InterruptLine {
        InterruptLine::new(self.clone(), u32::from(device & 31) << 2 | u32::from(pin & 3))
    }

    /// The line (GSI) that `device`'s pin ends at on the IO-APIC, for interrupt routing tables.
    pub fn line_of(device: u8, pin: u8) -> u32 {
        FIRST_LINE + Self::pirq(device, pin) as u32
    }

    fn pirq(device: u8, pin: u8) -> usize {
        4 + usize::from(device.wrapping_add(pin) & 3)
    }

    /// Sets the route register of wire `pirq` (0 for A).
    pub(crate) fn set_route(&self, pirq: usize, route: u8) {
        self.change(|s| s.routes[pirq & 7] = route);
    }

    fn change(&self, f: impl FnOnce(&mut State)) {
        let mut s = lock(&self.state);
        let (_, before) = s.isa();
        f(&mut s);
        let (levels, after) = s.isa();
        // Held while lines are driven, so that they see changes in their order.
        for pirq in 0..8 {
            self.lines.set_line(FIRST_LINE + pirq as u32, s.wire(pirq));
        }
        for line in (0..16).filter(|l| (before | after) & 1 << l != 0) {
            self.lines.set_line(line, levels & 1 << line != 0);
        }
    }
}

impl LineTarget for IntxRouter {
    fn set_line(&self, line: u32, level: bool) {
        let (device, pin) = ((line >> 2) as u8 & 31, (line & 3) as u8);
        self.change(|s| {
            let devices = &mut s.high[Self::pirq(device, pin)][usize::from(pin)];
            *devices = if level {
                *devices | 1 << device
            } else {
                *devices & !(1 << device)
            };
        });
    }
}
