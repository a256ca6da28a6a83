// SPDX-License-Identifier: MIT
//! The machine around one VP, as the engine asks for it.
//!
//! Always true: in a deterministic partition the clock is brought up to the instruction before any
//! device sees an access, and an access that makes an earlier deadline ends the slice.

use crate::Ram;
use crate::guest_time::GuestTime;
use chipset_device::{Clock, TimerQueue, VpBus, VpIndex};
use std::sync::Arc;
use x86emu::{Attention, Bus, MsrFault, RamPage};

/// Nanoseconds of guest time for one retired instruction of a deterministic partition: 200 MIPS, near
/// what the engine really does, so that waits cost about as many instructions as they would in real time.
pub(crate) const NS_PER_INSTRUCTION: u64 = 5;

/// Parts that all VPs of a partition share.
pub(crate) struct Shared {
    pub ram: Ram,
    pub bus: Arc<dyn VpBus>,
    pub clock: Arc<Clock>,
    pub timers: Arc<TimerQueue>,
}

/// What a VP last asked of the machine; helps to see what a spinning guest waits for.
#[derive(Debug, Default)]
pub(crate) struct Last {
    port: Option<u16>,
    mmio: Option<u64>,
}

impl std::fmt::Display for Last {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(port) = self.port {
            write!(f, "; its last port access was {port:#x}")?;
        }
        if let Some(gpa) = self.mmio {
            write!(f, "; its last mmio access was at {gpa:#x}")?;
        }
        Ok(())
    }
}

/// One VP's world for one slice.
pub(crate) struct World<'a> {
    pub shared: &'a Shared,
    pub vp: VpIndex,
    pub attention: &'a Attention,
    /// Clock and retired instructions at the start of the slice.
    pub start: (u64, u64),
    /// The deadline that the slice was cut for.
    pub deadline: Option<u64>,
    pub last: &'a mut Last,
    pub time: &'a mut GuestTime,
}

impl World<'_> {
    /// After something that may have armed a timer: leave the slice when a deadline moved closer.
    fn deadline_moved(&self) {
        if !self.shared.clock.is_deterministic() {
            return;
        }
        let next = self.shared.timers.next_deadline();
        if next.is_some_and(|n| self.deadline.is_none_or(|d| n < d)) {
            self.attention.kick();
        }
    }
}

impl Bus for World<'_> {
    fn ram(&mut self, gpn: u64) -> Option<RamPage> {
        self.shared.ram.page(gpn)
    }

    fn mmio_read(&mut self, gpa: u64, data: &mut [u8]) {
        self.last.mmio = Some(gpa);
        self.shared.bus.mmio_read(self.vp, gpa, data);
    }

    fn mmio_write(&mut self, gpa: u64, data: &[u8]) {
        self.last.mmio = Some(gpa);
        self.shared.bus.mmio_write(self.vp, gpa, data);
        self.deadline_moved();
    }

    fn port_in(&mut self, port: u16, size: u8) -> u32 {
        self.last.port = Some(port);
        let mut data = [0; 4];
        self.shared
            .bus
            .port_read(self.vp, port, &mut data[..usize::from(size).min(4)]);
        u32::from_le_bytes(data)
    }

    fn port_out(&mut self, port: u16, size: u8, value: u32) {
        self.last.port = Some(port);
        self.shared
            .bus
            .port_write(self.vp, port, &value.to_le_bytes()[..usize::from(size).min(4)]);
        self.deadline_moved();
    }

    /// SYSCFG and INT_PENDING_MSG are there on every AMD processor of this family, and guests read them
    /// without looking first; none of their features is on or can be turned on.
    fn read_msr(&mut self, msr: u32) -> Result<u64, MsrFault> {
        if matches!(msr, x86defs::msr::SYSCFG | x86defs::msr::INT_PENDING_MSG) {
            return Ok(0);
        }
        if let Some(value) = self.time.read_msr(msr) {
            return Ok(value);
        }
        self.shared.bus.msr_read(self.vp, msr).ok_or(MsrFault)
    }

    fn write_msr(&mut self, msr: u32, value: u64) -> Result<(), MsrFault> {
        let clock = &self.shared.clock;
        let now = (clock.now(), clock.wall());
        if self.time.write_msr((msr, value), now, self.shared.ram.memory()) {
            return Ok(());
        }
        let accepted = self.shared.bus.msr_write(self.vp, msr, value);
        self.deadline_moved();
        if accepted { Ok(()) } else { Err(MsrFault) }
    }

    fn take_interrupt(&mut self) -> Option<u8> {
        self.shared.bus.acknowledge(self.vp)
    }

    fn tsc(&mut self) -> u64 {
        self.time.tsc(self.shared.clock.now())
    }

    fn cr8(&mut self) -> u64 {
        self.shared.bus.cr8(self.vp).into()
    }

    fn set_cr8(&mut self, value: u64) {
        self.shared.bus.set_cr8(self.vp, value as u8);
    }

    fn at_instruction(&mut self, retired: u64) {
        let (clock, first) = self.start;
        let ran = retired.saturating_sub(first);
        self.shared
            .clock
            .advance_to(clock.saturating_add(ran.saturating_mul(NS_PER_INSTRUCTION)));
    }
}
