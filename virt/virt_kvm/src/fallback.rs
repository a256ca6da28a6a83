// SPDX-License-Identifier: MIT
//! Stepping an instruction that KVM refuses to emulate, with the engine of the software CPU.
//!
//! Always true: the engine sees the VP's whole state (FPU through XSAVE), the same memory and the same
//! bus; it remembers nothing between steps, because the guest's own stores do not tell it about changed
//! code (an empty `CodeMap` keeps it from keeping blocks). LOCK prefixes are atomic against VPs in the guest: the engine uses host atomics on guest memory.
//! Not here: any instruction.

use guest_memory::GuestMemory;
use kvm_sys::Fpu;
use std::sync::Arc;
use virt::{VpBus, VpIndex};
use x86defs::X86State;
use x86defs::cpuid::CpuidEntry;
use x86emu::{Bus, CodeMap, Config, Cpu, Exit, MsrFault, RamPage};

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stepped {
    /// The instruction retired, or its exception was delivered.
    Done,
    /// It was HLT.
    Halted,
    /// Its exception could not be delivered, nor the double fault.
    TripleFault,
}

/// The engine, ready to step one VP.
pub(crate) struct Fallback {
    cpu: Cpu,
    world: World,
    /// Instructions stepped so far.
    pub steps: u64,
}

struct World {
    vp: VpIndex,
    bus: Arc<dyn VpBus>,
    memory: GuestMemory,
    tsc: u64,
}

impl Fallback {
    pub(crate) fn new(
        vp: VpIndex,
        bus: Arc<dyn VpBus>,
        memory: GuestMemory,
        cpuid: Vec<CpuidEntry>,
        phys_bits: u8,
    ) -> Self {
        let cpu = Cpu::new(Config {
            cpuid,
            phys_bits,
            code: CodeMap::new(0),
        });
        Self {
            cpu,
            world: World {
                vp,
                bus,
                memory,
                tsc: 0,
            },
            steps: 0,
        }
    }

    /// Steps the instruction at `state`; on return both hold what it left. `tsc` is what RDTSCP reads.
    pub(crate) fn step(&mut self, state: &mut X86State, fpu: &mut Fpu, tsc: u64) -> Stepped {
        self.cpu.flush_memory_map();
        self.cpu.set_state(state);
        self.cpu.fxrstor(&fpu.fxsave());
        self.world.tsc = tsc;
        self.steps += 1;
        let exit = self.cpu.step(&mut self.world);
        let cr8 = self.world.bus.cr8(self.world.vp).into();
        *state = X86State {
            cr8,
            ..self.cpu.state()
        };
        fpu.set_fxsave(&self.cpu.fxsave());
        self.cpu.flush_memory_map();
        match exit {
            Exit::Hlt => Stepped::Halted,
            Exit::TripleFault => Stepped::TripleFault,
            Exit::Budget | Exit::Kicked | Exit::Breakpoint => Stepped::Done,
        }
    }
}

impl Bus for World {
    fn ram(&mut self, gpn: u64) -> Option<RamPage> {
        let page = self.memory.page(gpn)?;
        // SAFETY: the page is 4096 bytes of a page-aligned mapping with its generation beside it; `memory`
        // keeps both, and the engine is told to forget pages after every step and dropped before it.
        // Nobody makes references into guest RAM.
        Some(unsafe { RamPage::new(page.host, page.generation, true) })
    }

    fn mmio_read(&mut self, gpa: u64, data: &mut [u8]) {
        self.bus.mmio_read(self.vp, gpa, data);
    }

    fn mmio_write(&mut self, gpa: u64, data: &[u8]) {
        self.bus.mmio_write(self.vp, gpa, data);
    }

    fn port_in(&mut self, port: u16, size: u8) -> u32 {
        let mut value = [0; 4];
        self.bus
            .port_read(self.vp, port, &mut value[..usize::from(size).min(4)]);
        u32::from_le_bytes(value)
    }

    fn port_out(&mut self, port: u16, size: u8, value: u32) {
        let value = value.to_le_bytes();
        self.bus
            .port_write(self.vp, port, &value[..usize::from(size).min(4)]);
    }

    fn read_msr(&mut self, msr: u32) -> Result<u64, MsrFault> {
        self.bus.msr_read(self.vp, msr).ok_or(MsrFault)
    }

    fn write_msr(&mut self, msr: u32, value: u64) -> Result<(), MsrFault> {
        if self.bus.msr_write(self.vp, msr, value) {
            Ok(())
        } else {
            Err(MsrFault)
        }
    }

    /// Interrupts are KVM's to deliver.
    fn take_interrupt(&mut self) -> Option<u8> {
        None
    }

    fn tsc(&mut self) -> u64 {
        self.tsc
    }

    fn cr8(&mut self) -> u64 {
        self.bus.cr8(self.vp).into()
    }

    fn set_cr8(&mut self, value: u64) {
        self.bus.set_cr8(self.vp, value as u8);
    }
}
