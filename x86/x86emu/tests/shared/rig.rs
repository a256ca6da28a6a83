// SPDX-License-Identifier: MIT
//! A bare machine for engine tests: 4 MiB of RAM, everything else recorded.
//!
//! Layout: code 0x8000, stacks grow down from 0x7000 (kernel), 0x6800 (IST1), 0x6000 (user); page tables
//! 0x10000; GDT 0x1000, TSS 0x1800, IDT 0x2000; every IDT entry leads to the HLT at 0x3000 + 16 * vector.

#![allow(dead_code)]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use x86defs::{SegmentAttributes, SegmentRegister, TableRegister, X86State};
use x86emu::{Bus, CodeMap, Config, Cpu, Exit, MsrFault, RamPage, Tracer};

#[path = "../../examples/shared/ram.rs"]
mod ram;
pub(crate) use ram::Ram;

pub(crate) const CODE: u64 = 0x8000;
pub(crate) const HANDLERS: u64 = 0x3000;
pub(crate) const PAGE_TABLE: usize = 0x1_3000;
const RAM_LEN: u64 = 4 << 20;

/// An exception or interrupt as the tracer saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) vector: u8,
    pub(crate) error: Option<u32>,
    pub(crate) rip: u64,
    pub cr2: u64,
}

pub(crate) struct World {
    pub(crate) ram: Ram,
    pub(crate) rom_from: u64,
    pub(crate) ports: Vec<(u16, u8, u32)>,
    pub(crate) mmio: Vec<(u64, Vec<u8>, bool)>,
    pub(crate) interrupts: VecDeque<u8>,
    pub(crate) clock: u64,
}

impl Bus for World {
    fn ram(&mut self, gpn: u64) -> Option<RamPage> {
        self.ram.page(gpn, gpn << 12 < self.rom_from)
    }
    fn mmio_read(&mut self, gpa: u64, data: &mut [u8]) {
        data.fill(0xA5);
        self.mmio.push((gpa, data.to_vec(), false));
    }
    fn mmio_write(&mut self, gpa: u64, data: &[u8]) {
        self.mmio.push((gpa, data.to_vec(), true));
    }
    fn port_in(&mut self, port: u16, size: u8) -> u32 {
        0x1122_3344 + u32::from(port) + u32::from(size)
    }
    fn port_out(&mut self, port: u16, size: u8, value: u32) {
        self.ports.push((port, size, value));
    }
    fn read_msr(&mut self, msr: u32) -> Result<u64, MsrFault> {
        if msr == 0x1B {
            Ok(0xFEE0_0900)
        } else {
            Err(MsrFault)
        }
    }
    fn write_msr(&mut self, _msr: u32, _value: u64) -> Result<(), MsrFault> {
        Err(MsrFault)
    }
    fn take_interrupt(&mut self) -> Option<u8> {
        self.interrupts.pop_front()
    }
    fn tsc(&mut self) -> u64 {
        self.clock
    }
    fn at_instruction(&mut self, retired: u64) {
        self.clock = retired;
    }
}

struct Recorder(Arc<Mutex<Vec<Event>>>);
impl Tracer for Recorder {
    fn exception(&mut self, vector: u8, error: Option<u32>, rip: u64, cr2: u64) {
        self.0.lock().expect("lock").push(Event {
            vector,
            error,
            rip,
            cr2,
        });
    }
}

pub(crate) struct Rig {
    pub(crate) cpu: Cpu,
    pub(crate) world: World,
    events: Arc<Mutex<Vec<Event>>>,
}

pub(crate) fn segment(selector: u16, attributes: u32) -> SegmentRegister {
    SegmentRegister {
        selector,
        attributes: SegmentAttributes(attributes),
        limit: u32::MAX,
        base: 0,
    }
}

/// Kernel mode at [`CODE`] with the tables of [`Rig::tables`].
fn kernel_state(cs: SegmentRegister, idt_limit: u16) -> X86State {
    let mut s = X86State::reset();
    let data = segment(0x10, 0xC093);
    (s.ds, s.es, s.ss, s.fs, s.gs) = (data, data, data, data, data);
    s.cs = cs;
    s.tr = SegmentRegister {
        limit: 0x67,
        base: 0x1800,
        ..segment(0x30, 0x8B)
    };
    s.gdtr = TableRegister {
        base: 0x1000,
        limit: 0x47,
    };
    s.idtr = TableRegister {
        base: 0x2000,
        limit: idt_limit,
    };
    s.rip = CODE;
    s.gpr[4] = 0x7000;
    s
}

impl Rig {
    /// A processor in reset state with `code` at [`CODE`].
    pub(crate) fn new(code: &[u8]) -> Self {
        let mut ram = Ram::new(RAM_LEN as usize);
        ram.write(CODE as usize, code);
        let world = World {
            ram,
            rom_from: RAM_LEN,
            ports: Vec::new(),
            mmio: Vec::new(),
            interrupts: VecDeque::new(),
            clock: 0,
        };
        let mut cpu = Cpu::new(Config {
            cpuid: x86emu::cpuid::baseline(40),
            phys_bits: 40,
            code: CodeMap::new(RAM_LEN),
        });
        let events = Arc::new(Mutex::new(Vec::new()));
        cpu.set_tracer(Some(Box::new(Recorder(events.clone()))));
        Self { cpu, world, events }
    }

    /// Real mode at 0:CODE with an IVT at 0 whose entries lead to the HLTs.
    pub(crate) fn real(code: &[u8]) -> Self {
        let mut rig = Self::new(code);
        rig.handlers();
        for v in 0..64u64 {
            rig.put32(v * 4, (HANDLERS + v * 16) as u32);
        }
        let mut s = X86State::reset();
        s.cs.selector = 0;
        s.cs.base = 0;
        s.rip = CODE;
        s.gpr[4] = 0x7000;
        rig.cpu.set_state(&s);
        rig
    }

    fn handlers(&mut self) {
        for v in 0..256 {
            self.world.ram.write((HANDLERS + v * 16) as usize, &[0xF4]);
        }
    }

    fn tables(&mut self) {
        self.handlers();
        // Null, kernel code64 8, kernel data 10, user code32 18, user data 20, user code64 28, TSS 30-3F,
        // kernel code32 40.
        let gdt = [
            0,
            0x00AF_9B00_0000_FFFF,
            0x00CF_9300_0000_FFFF,
            0x00CF_FB00_0000_FFFF,
            0x00CF_F300_0000_FFFF,
            0x00AF_FB00_0000_FFFF,
            0x0000_8B00_1800_0067,
            0,
            0x00CF_9B00_0000_FFFF,
        ];
        gdt.iter()
            .enumerate()
            .for_each(|(i, &d)| self.put64(0x1000 + i as u64 * 8, d));
    }

    /// 64-bit kernel mode, the first 2 MiB mapped one to one for everybody by 4 KiB pages.
    pub(crate) fn long(code: &[u8]) -> Self {
        let mut rig = Self::new(code);
        rig.tables();
        rig.put64(0x1_0000, 0x1_1007);
        rig.put64(0x1_1000, 0x1_2007);
        rig.put64(0x1_2000, PAGE_TABLE as u64 + 7);
        for i in 0..512 {
            rig.put64(PAGE_TABLE as u64 + i * 8, i << 12 | 7);
        }
        for v in 0..256u64 {
            rig.gate(v, 0x8E, 0);
        }
        rig.put64(0x1800 + 4, 0x7000);
        rig.put64(0x1800 + 0x24, 0x6800);
        let mut s = kernel_state(segment(8, 0xA09B), 0xFFF);
        s.cr0 = 0x8001_0033;
        s.cr3 = 0x1_0000;
        s.cr4 = 0x620;
        s.efer = 0xD01;
        rig.cpu.set_state(&s);
        rig
    }

    /// 32-bit kernel mode without paging, 8-byte gates, user stack by the TSS.
    pub(crate) fn protected(code: &[u8]) -> Self {
        let mut rig = Self::new(code);
        rig.tables();
        for v in 0..256u64 {
            rig.put64(0x2000 + v * 8, 0x8E00_0040_0000 | (HANDLERS + v * 16));
        }
        rig.put32(0x1804, 0x7000);
        rig.put32(0x1808, 0x10);
        let mut s = kernel_state(segment(0x40, 0xC09B), 0x7FF);
        s.cr0 = 0x33;
        s.cr4 = 0x600;
        rig.cpu.set_state(&s);
        rig
    }

    /// A 64-bit gate with an access byte and an IST.
    pub(crate) fn gate(&mut self, vector: u64, access: u64, ist: u64) {
        let to = HANDLERS + vector * 16;
        self.put64(0x2000 + vector * 16, access << 40 | ist << 32 | 8 << 16 | to);
        self.put64(0x2008 + vector * 16, 0);
    }

    /// Changes the state.
    pub(crate) fn set(&mut self, f: impl FnOnce(&mut X86State)) {
        let mut s = self.cpu.state();
        f(&mut s);
        self.cpu.set_state(&s);
    }

    /// The page-table entry of a linear page below 2 MiB.
    pub(crate) fn page(&mut self, la: u64, entry: u64) {
        self.put64(PAGE_TABLE as u64 + (la >> 12) * 8, entry);
    }

    pub(crate) fn put32(&mut self, at: u64, v: u32) {
        self.world.ram.write(at as usize, &v.to_le_bytes());
    }
    pub(crate) fn put64(&mut self, at: u64, v: u64) {
        self.world.ram.write(at as usize, &v.to_le_bytes());
    }
    pub(crate) fn get64(&self, at: u64) -> u64 {
        let b = self.world.ram.read(at as usize, 8);
        b.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b))
    }

    pub(crate) fn run(&mut self) -> Exit {
        self.cpu.run(&mut self.world, 1_000_000)
    }

    /// Runs to a HLT.
    #[track_caller]
    pub(crate) fn run_to_hlt(&mut self) -> X86State {
        assert_eq!(
            self.run(),
            Exit::Hlt,
            "{:x?} {:x?}",
            self.cpu.state(),
            self.events()
        );
        self.cpu.state()
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().expect("lock").clone()
    }

    /// The one exception that there was.
    #[track_caller]
    pub(crate) fn event(&self) -> Event {
        let e = self.events();
        assert_eq!(e.len(), 1, "{e:x?}");
        e[0]
    }
}

/// A function that returns assembled code. Intel syntax, numeric labels.
#[macro_export]
macro_rules! payload {
    ($name:ident, $($line:literal),+ $(,)?) => {
        mod $name {
            std::arch::global_asm!(
                ".pushsection .rodata",
                concat!(".globl x86emu_payload_", stringify!($name)),
                concat!("x86emu_payload_", stringify!($name), ":"),
                $($line,)+
                concat!(".globl x86emu_payload_end_", stringify!($name)),
                concat!("x86emu_payload_end_", stringify!($name), ":"),
                "nop",
                ".code64",
                ".popsection",
            );
        }
        fn $name() -> Vec<u8> {
            unsafe extern "C" {
                #[link_name = concat!("x86emu_payload_", stringify!($name))]
                static START: u8;
                #[link_name = concat!("x86emu_payload_end_", stringify!($name))]
                static END: u8;
            }
            // SAFETY: both symbols are in the same read-only section, END behind START.
            unsafe {
                let (start, end) = (&raw const START, &raw const END);
                std::slice::from_raw_parts(start, end.offset_from(start) as usize).to_vec()
            }
        }
    };
}
