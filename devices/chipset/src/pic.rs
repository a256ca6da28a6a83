// SPDX-License-Identifier: MIT
//! The pair of 8259A interrupt controllers with edge/level registers (Intel 8259A data sheet; ELCR as in
//! the ICH9 data sheet section 13.4).
//!
//! Always true: the output follows requests, masks and what is in service; an acknowledge with nothing
//! pending yields the spurious vector (IR7) without touching the in-service register.
//! Not here: buffered and special fully nested mode, MCS-80 vectors; nothing on a PC uses them.

use crate::lapic::{ExtIntSource, LapicSet};
use crate::lock;
use chipset_device::{Device, LineTarget, PortDevice};
use std::fmt::Write;
use std::sync::{Arc, Mutex};

/// Input of the first controller that the second one drives.
const CASCADE: u8 = 2;
/// Inputs whose trigger mode is fixed to edge: timer, keyboard, cascade; clock and coprocessor.
const ELCR_WRITABLE: [u8; 2] = [0xF8, 0xDE];

/// Where an initialisation sequence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Init {
    #[default]
    Done,
    Icw2,
    Icw3,
    Icw4,
}

#[derive(Debug, Clone, Copy, Default)]
struct Controller {
    /// Wires now.
    level: u8,
    /// Requests: latched edges, and levels of level-triggered inputs.
    irr: u8,
    isr: u8,
    imr: u8,
    elcr: u8,
    vector_base: u8,
    init: Init,
    needs_icw4: bool,
    single: bool,
    auto_eoi: bool,
    rotate_on_auto_eoi: bool,
    special_mask: bool,
    read_isr: bool,
    poll: bool,
    /// Input with the highest priority.
    first: u8,
}

impl Controller {
    /// After power on everything is masked, as firmware leaves it: a guest that never programs the pair
    /// never hears of it. (The data sheet leaves the masks undefined until ICW1 clears them.)
    fn power_on(level: u8) -> Self {
        Self {
            level,
            imr: 0xFF,
            ..Self::default()
        }
    }

    /// The index of the highest-priority bit of `bits`, in rotated order.
    fn highest(&self, bits: u8) -> Option<u8> {
        (0..8)
            .map(|i| (self.first + i) & 7)
            .find(|i| bits & (1 << i) != 0)
    }

    fn rank(&self, input: u8) -> u8 {
        input.wrapping_sub(self.first) & 7
    }

    /// The input that would be acknowledged now.
    fn pending(&self) -> Option<u8> {
        let request = self.highest(self.irr & !self.imr)?;
        let blocking = if self.special_mask {
            self.isr & !self.imr
        } else {
            self.isr
        };
        match self.highest(blocking) {
            Some(served) if self.rank(served) <= self.rank(request) => None,
            _ => Some(request),
        }
    }

    fn set_input(&mut self, input: u8, level: bool) {
        let bit = 1 << input;
        let rising = level && self.level & bit == 0;
        if level {
            self.level |= bit;
        } else {
            self.level &= !bit;
        }
        if self.elcr & bit != 0 {
            self.irr = self.irr & !bit | self.level & bit;
        } else if rising {
            self.irr |= bit;
        }
    }

    /// INTA for `input`.
    fn take(&mut self, input: u8) {
        let bit = 1 << input;
        if self.elcr & bit == 0 {
            self.irr &= !bit;
        }
        if !self.auto_eoi {
            self.isr |= bit;
        } else if self.rotate_on_auto_eoi {
            self.first = (input + 1) & 7;
        }
    }

    /// INTA: the vector, and the input if it was not spurious.
    fn acknowledge(&mut self) -> (u8, Option<u8>) {
        match self.pending() {
            Some(input) => {
                self.take(input);
                (self.vector_base + input, Some(input))
            }
            None => (self.vector_base + 7, None),
        }
    }

    fn read_command(&mut self) -> u8 {
        if std::mem::take(&mut self.poll) {
            return match self.pending() {
                Some(input) => {
                    self.take(input);
                    0x80 | input
                }
                None => 0,
            };
        }
        if self.read_isr { self.isr } else { self.irr }
    }

    fn write_command(&mut self, value: u8) {
        if value & 0x10 != 0 {
            // ICW1: the edge circuit, masks and priorities start again; wires and ELCR stay.
            *self = Self {
                level: self.level,
                elcr: self.elcr,
                irr: self.level & self.elcr,
                init: Init::Icw2,
                needs_icw4: value & 1 != 0,
                single: value & 2 != 0,
                ..Self::default()
            };
        } else if value & 8 != 0 {
            self.operation_command_3(value);
        } else {
            self.operation_command_2(value);
        }
    }

    fn operation_command_3(&mut self, value: u8) {
        if value & 0x40 != 0 {
            self.special_mask = value & 0x20 != 0;
        }
        if value & 4 != 0 {
            self.poll = true;
        } else if value & 2 != 0 {
            self.read_isr = value & 1 != 0;
        }
    }

    fn operation_command_2(&mut self, value: u8) {
        let (rotate, specific, eoi) = (value & 0x80 != 0, value & 0x40 != 0, value & 0x20 != 0);
        let input = value & 7;
        match (eoi, specific) {
            (true, true) => {
                self.isr &= !(1 << input);
                if rotate {
                    self.first = (input + 1) & 7;
                }
            }
            (true, false) => {
                if let Some(served) = self.highest(self.isr) {
                    self.isr &= !(1 << served);
                    if rotate {
                        self.first = (served + 1) & 7;
                    }
                }
            }
            (false, true) if rotate => self.first = (input + 1) & 7,
            (false, true) => {}
            (false, false) => self.rotate_on_auto_eoi = rotate,
        }
    }

    fn write_data(&mut self, value: u8) {
        match self.init {
            Init::Done => self.imr = value,
            Init::Icw2 => {
                self.vector_base = value & 0xF8;
                self.init = match (self.single, self.needs_icw4) {
                    (false, _) => Init::Icw3,
                    (true, true) => Init::Icw4,
                    (true, false) => Init::Done,
                };
            }
            // How the two are wired is fixed.
            Init::Icw3 => self.init = if self.needs_icw4 { Init::Icw4 } else { Init::Done },
            Init::Icw4 => {
                self.auto_eoi = value & 2 != 0;
                self.init = Init::Done;
            }
        }
    }

    fn set_elcr(&mut self, value: u8) {
        self.elcr = value;
        self.irr = self.irr & !value | self.level & value;
    }
}

/// Both controllers; the first one's output is LINT0 of the local APICs.
pub struct Pic {
    pair: Mutex<[Controller; 2]>,
    lapics: Arc<LapicSet>,
}

impl Pic {
    /// The pair after power on.
    pub fn new(lapics: Arc<LapicSet>) -> Arc<Self> {
        let pic = Arc::new(Self {
            pair: Mutex::new([Controller::power_on(0); 2]),
            lapics,
        });
        let source: Arc<dyn ExtIntSource> = pic.clone();
        pic.lapics.connect_extint(Arc::downgrade(&source));
        pic
    }

    /// Changes the pair, then drives the cascade and the output.
    fn with<R>(&self, f: impl FnOnce(&mut [Controller; 2]) -> R) -> R {
        let mut pair = lock(&self.pair);
        let result = f(&mut pair);
        Self::cascade(&mut pair);
        // The lock is held, so that outputs reach the local APICs in the order of the changes.
        self.lapics.set_extint(pair[0].pending().is_some());
        result
    }

    fn cascade(pair: &mut [Controller; 2]) {
        let second = pair[1].pending().is_some();
        pair[0].set_input(CASCADE, second);
        if !second {
            // The cascade input is a level in effect: the second controller withdraws its request.
            pair[0].irr &= !(1 << CASCADE);
        }
    }

    /// The ports of one half of the pair: 0x20 and 0x21, or 0xA0 and 0xA1.
    pub fn ports(self: &Arc<Self>, second: bool) -> PicPorts {
        PicPorts {
            pic: self.clone(),
            index: usize::from(second),
        }
    }

    /// The edge/level control registers, ports 0x4D0 and 0x4D1.
    pub fn elcr_ports(self: &Arc<Self>) -> ElcrPorts {
        ElcrPorts { pic: self.clone() }
    }
}

impl LineTarget for Pic {
    fn set_line(&self, line: u32, level: bool) {
        if line < 16 && line != u32::from(CASCADE) {
            self.with(|pair| pair[(line >> 3) as usize].set_input((line & 7) as u8, level));
        }
    }
}

impl ExtIntSource for Pic {
    fn acknowledge(&self) -> u8 {
        self.with(|pair| match pair[0].acknowledge() {
            (_, Some(CASCADE)) => {
                let vector = pair[1].acknowledge().0;
                // If the second request persists, it is a new one for the first controller.
                pair[0].level &= !(1 << CASCADE);
                vector
            }
            (vector, _) => vector,
        })
    }
}

/// Command and data port of one controller.
pub struct PicPorts {
    pic: Arc<Pic>,
    index: usize,
}

impl Device for PicPorts {
    fn reset(&mut self) {
        self.pic.with(|pair| {
            pair[self.index] = Controller::power_on(pair[self.index].level);
        });
    }

    fn inspect(&self) -> String {
        let c = lock(&self.pic.pair)[self.index];
        let mut out = String::new();
        let values = [
            ("irr", c.irr),
            ("isr", c.isr),
            ("imr", c.imr),
            ("elcr", c.elcr),
            ("vector_base", c.vector_base),
        ];
        for (name, value) in values {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{name} {value:#04x}");
        }
        out
    }
}

impl PortDevice for PicPorts {
    fn port_read(&mut self, offset: u16, data: &mut [u8]) {
        let value = self.pic.with(|pair| match offset {
            0 => pair[self.index].read_command(),
            // A poll command answers on either port.
            _ if pair[self.index].poll => pair[self.index].read_command(),
            _ => pair[self.index].imr,
        });
        data.fill(value);
    }

    fn port_write(&mut self, offset: u16, data: &[u8]) {
        let Some(&value) = data.first() else { return };
        self.pic.with(|pair| match offset {
            0 => pair[self.index].write_command(value),
            _ => pair[self.index].write_data(value),
        });
    }
}

/// The edge/level control registers.
pub struct ElcrPorts {
    pic: Arc<Pic>,
}

impl Device for ElcrPorts {
    fn reset(&mut self) {
        self.pic.with(|pair| pair.iter_mut().for_each(|c| c.set_elcr(0)));
    }
}

impl PortDevice for ElcrPorts {
    fn port_read(&mut self, offset: u16, data: &mut [u8]) {
        data.fill(self.pic.with(|pair| pair[usize::from(offset & 1)].elcr));
    }

    fn port_write(&mut self, offset: u16, data: &[u8]) {
        let Some(&value) = data.first() else { return };
        let index = usize::from(offset & 1);
        self.pic
            .with(|pair| pair[index].set_elcr(value & ELCR_WRITABLE[index]));
    }
}

#[cfg(test)]
mod tests;
