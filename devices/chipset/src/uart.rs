// SPDX-License-Identifier: MIT
//! The 16550A serial port (National Semiconductor PC16550D data sheet).
//!
//! Always true: the interrupt output is a level that follows the enabled conditions, gated by OUT2 as on
//! a PC; transmission takes no time, so the transmitter is always empty; input is pulled from the host
//! only while the receive FIFO has room, so nothing is lost between the two.
//! Not here: where bytes come from and go to ([`SerialIo`]); line speed, parity and breaks.
//! The crate vm-superio is not used: its `Serial` reports two pending interrupts as a third one, forgets
//! the receive interrupt while bytes are left, and has no FIFO control.

use chipset_device::{Device, InterruptLine, PortDevice};
use std::collections::VecDeque;
use std::sync::Arc;

/// The host's end of a serial port.
pub trait SerialIo: Send + Sync {
    /// A byte from the guest. Must not block.
    fn output(&self, byte: u8);
    /// Takes up to `buffer.len()` waiting bytes for the guest and says how many. Must not block. When
    /// bytes arrive later, the host calls [`Uart::input_ready`].
    fn input(&self, buffer: &mut [u8]) -> usize;
}

/// Register offsets (data sheet table II).
mod reg {
    pub(super) const DATA: u16 = 0;
    pub(super) const IER: u16 = 1;
    /// Interrupt identification when read, FIFO control when written.
    pub(super) const IIR_FCR: u16 = 2;
    pub(super) const LCR: u16 = 3;
    pub(super) const MCR: u16 = 4;
    pub(super) const LSR: u16 = 5;
    pub(super) const MSR: u16 = 6;
    pub(super) const SCRATCH: u16 = 7;
}

/// Number of ports.
pub const PORTS: u16 = 8;

const IER_RECEIVE: u8 = 1;
const IER_TRANSMIT: u8 = 2;
const IER_LINE: u8 = 4;
const IER_MODEM: u8 = 8;
const IIR_NONE: u8 = 1;
const IIR_TRANSMIT: u8 = 2;
const IIR_RECEIVE: u8 = 4;
const IIR_LINE: u8 = 6;
const IIR_FIFO: u8 = 0xC0;
const FCR_ENABLE: u8 = 1;
const FCR_CLEAR_RECEIVE: u8 = 2;
const LCR_DLAB: u8 = 0x80;
const MCR_LOOP: u8 = 0x10;
const MCR_OUT2: u8 = 8;
const LSR_READY: u8 = 1;
const LSR_OVERRUN: u8 = 2;
/// Holding register and shift register empty.
const LSR_IDLE: u8 = 0x60;
/// Clear to send, data set ready, carrier.
const MSR_CONNECTED: u8 = 0xB0;
const FIFO_SIZE: usize = 16;

#[derive(Debug, Default)]
struct State {
    ier: u8,
    fifo: bool,
    lcr: u8,
    mcr: u8,
    scratch: u8,
    divisor: [u8; 2],
    receive: VecDeque<u8>,
    overrun: bool,
    /// The transmitter became empty and nobody has been told.
    transmit_pending: bool,
    /// Delta bits 3:0 of the modem status register.
    modem_delta: u8,
}

impl State {
    fn capacity(&self) -> usize {
        if self.fifo { FIFO_SIZE } else { 1 }
    }

    fn looped(&self) -> bool {
        self.mcr & MCR_LOOP != 0
    }

    /// Bits 7:4 of the modem status register.
    fn modem_inputs(&self) -> u8 {
        if !self.looped() {
            return MSR_CONNECTED;
        }
        // RTS to CTS, DTR to DSR, OUT1 to RI, OUT2 to DCD.
        (self.mcr & 2) << 3 | (self.mcr & 1) << 5 | (self.mcr & 4) << 4 | (self.mcr & 8) << 4
    }

    /// The highest-priority pending interrupt, as IIR encodes it.
    fn pending(&self) -> u8 {
        if self.ier & IER_LINE != 0 && self.overrun {
            IIR_LINE
        } else if self.ier & IER_RECEIVE != 0 && !self.receive.is_empty() {
            IIR_RECEIVE
        } else if self.ier & IER_TRANSMIT != 0 && self.transmit_pending {
            IIR_TRANSMIT
        } else if self.ier & IER_MODEM != 0 && self.modem_delta != 0 {
            0
        } else {
            IIR_NONE
        }
    }

    fn set_mcr(&mut self, value: u8) {
        let before = self.modem_inputs();
        self.mcr = value & 0x1F;
        let after = self.modem_inputs();
        let mut changed = before ^ after;
        if after & 0x40 != 0 {
            // The ring indicator reports its trailing edge only.
            changed &= !0x40;
        }
        self.modem_delta |= changed >> 4;
    }

    fn push(&mut self, byte: u8) {
        if self.receive.len() < self.capacity() {
            self.receive.push_back(byte);
        } else {
            self.overrun = true;
        }
    }
}

/// One serial port.
pub struct Uart {
    state: State,
    line: InterruptLine,
    io: Arc<dyn SerialIo>,
}

impl Uart {
    /// A serial port after power on, interrupting on `line`.
    pub fn new(line: InterruptLine, io: Arc<dyn SerialIo>) -> Self {
        Self {
            state: State::default(),
            line,
            io,
        }
    }

    /// The host has bytes: takes what there is room for.
    pub fn input_ready(&mut self) {
        if !self.state.looped() {
            let mut buffer = [0; FIFO_SIZE];
            let room = self.state.capacity().saturating_sub(self.state.receive.len());
            let got = self.io.input(&mut buffer[..room]).min(room);
            self.state.receive.extend(&buffer[..got]);
        }
        self.update();
    }

    fn update(&self) {
        let enabled = self.state.mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2;
        self.line.set(enabled && self.state.pending() != IIR_NONE);
    }

    fn transmit(&mut self, byte: u8) {
        self.state.transmit_pending = false;
        self.update();
        if self.state.looped() {
            self.state.push(byte);
        } else {
            self.io.output(byte);
        }
        self.state.transmit_pending = true;
        self.update();
    }

    fn receive(&mut self) -> u8 {
        let byte = self.state.receive.pop_front().unwrap_or(0);
        if self.state.receive.is_empty() {
            // A new edge for the bytes that the host still holds.
            self.update();
            self.input_ready();
        }
        byte
    }

    fn line_status(&mut self) -> u8 {
        if self.state.receive.is_empty() {
            self.input_ready();
        }
        let ready = if self.state.receive.is_empty() {
            0
        } else {
            LSR_READY
        };
        let overrun = if std::mem::take(&mut self.state.overrun) {
            LSR_OVERRUN
        } else {
            0
        };
        LSR_IDLE | ready | overrun
    }

    fn read(&mut self, offset: u16) -> u8 {
        let dlab = self.state.lcr & LCR_DLAB != 0;
        let value = match offset {
            reg::DATA | reg::IER if dlab => self.state.divisor[usize::from(offset)],
            reg::DATA => self.receive(),
            reg::IER => self.state.ier,
            reg::IIR_FCR => {
                let pending = self.state.pending();
                if pending == IIR_TRANSMIT {
                    self.state.transmit_pending = false;
                }
                pending | if self.state.fifo { IIR_FIFO } else { 0 }
            }
            reg::LCR => self.state.lcr,
            reg::MCR => self.state.mcr,
            reg::LSR => self.line_status(),
            reg::MSR => self.state.modem_inputs() | std::mem::take(&mut self.state.modem_delta),
            reg::SCRATCH => self.state.scratch,
            _ => 0xFF,
        };
        self.update();
        value
    }

    fn write(&mut self, offset: u16, value: u8) {
        let dlab = self.state.lcr & LCR_DLAB != 0;
        match offset {
            reg::DATA | reg::IER if dlab => self.state.divisor[usize::from(offset)] = value,
            reg::DATA => self.transmit(value),
            reg::IER => {
                if value & !self.state.ier & IER_TRANSMIT != 0 {
                    self.state.transmit_pending = true;
                }
                self.state.ier = value & 0xF;
            }
            reg::IIR_FCR => {
                let fifo = value & FCR_ENABLE != 0;
                if fifo != self.state.fifo || value & FCR_CLEAR_RECEIVE != 0 {
                    self.state.receive.clear();
                }
                self.state.fifo = fifo;
            }
            reg::LCR => self.state.lcr = value,
            reg::MCR => self.state.set_mcr(value),
            reg::SCRATCH => self.state.scratch = value,
            // Line and modem status are read-only.
            _ => {}
        }
        self.update();
    }
}

impl Device for Uart {
    fn reset(&mut self) {
        self.state = State::default();
        self.update();
    }

    fn inspect(&self) -> String {
        let s = &self.state;
        format!(
            "ier {:#x}\nlcr {:#x}\nmcr {:#x}\nfifo {}\ndivisor {}\nwaiting {}\npending {:#x}\n",
            s.ier,
            s.lcr,
            s.mcr,
            s.fifo,
            u16::from_le_bytes(s.divisor),
            s.receive.len(),
            s.pending()
        )
    }
}

impl PortDevice for Uart {
    fn port_read(&mut self, offset: u16, data: &mut [u8]) {
        for (i, byte) in (0..).zip(data) {
            *byte = self.read(offset.wrapping_add(i));
        }
    }

    fn port_write(&mut self, offset: u16, data: &[u8]) {
        for (i, &byte) in (0..).zip(data) {
            self.write(offset.wrapping_add(i), byte);
        }
    }
}

#[cfg(test)]
mod tests;
