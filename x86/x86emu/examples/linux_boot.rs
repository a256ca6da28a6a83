// SPDX-License-Identifier: MIT
//! Boots a Linux bzImage by its 64-bit entry on the bare engine with a PIC, a PIT and a serial port:
//! a development aid for correctness and speed.
//!
//! `cargo run --release -p x86emu --example linux_boot VMLINUZ [--initrd FILE] [--until TEXT] [--append ARGS]`

use std::io::Write as _;
use std::time::Instant;
use x86defs::X86State;
use x86emu::{Bus, MsrFault, RamPage};

#[path = "shared/boot.rs"]
mod boot;
use boot::{Arguments, Console, Ram, flat};

const RAM: usize = 512 << 20;
const PARAMS: usize = 0x7000;
const CMDLINE: usize = 0x2_0000;
const TABLES: usize = 0x9000;
const GDT: usize = 0x500;
const KERNEL: usize = 0x100_0000;
const INITRD: usize = 0x1000_0000;
const PIT_HZ: u128 = 1_193_182;

#[derive(Default)]
struct Pic {
    mask: u8,
    base: u8,
    init: u8,
    in_service: bool,
}

/// A channel of the PIT that counts down from `reload` since `since`.
struct Channel {
    reload: u32,
    low: Option<u8>,
    read_high: bool,
    since: Instant,
}

struct Machine {
    ram: Ram,
    start: Instant,
    uart: [u8; 8],
    pic: [Pic; 2],
    pit: [Channel; 3],
    ticks: u64,
    gate: u8,
    console: String,
    apic_base: u64,
    uart_irq: bool,
}

impl Channel {
    fn new() -> Self {
        Self {
            reload: 0x10000,
            low: None,
            read_high: false,
            since: Instant::now(),
        }
    }
    fn elapsed(&self) -> u64 {
        (self.since.elapsed().as_nanos() * PIT_HZ / 1_000_000_000) as u64
    }
    fn write(&mut self, v: u8) {
        match self.low.take() {
            None => self.low = Some(v),
            Some(low) => {
                let n = u32::from(low) | u32::from(v) << 8;
                self.reload = if n == 0 { 0x10000 } else { n };
                self.since = Instant::now();
            }
        }
    }
    fn read(&mut self) -> u8 {
        let left = u64::from(self.reload).wrapping_sub(self.elapsed()) as u16;
        self.read_high = !self.read_high;
        if self.read_high {
            left as u8
        } else {
            (left >> 8) as u8
        }
    }
}

impl Bus for Machine {
    fn ram(&mut self, gpn: u64) -> Option<RamPage> {
        self.ram.page(gpn, true)
    }
    fn mmio_read(&mut self, _gpa: u64, data: &mut [u8]) {
        data.fill(0xFF);
    }
    fn mmio_write(&mut self, _gpa: u64, _data: &[u8]) {}
    fn port_in(&mut self, port: u16, size: u8) -> u32 {
        match port {
            0x3F8 => 0,
            0x3FA => {
                if std::mem::take(&mut self.uart_irq) {
                    2
                } else {
                    1
                }
            }
            0x3FD => 0x60,
            0x3FE => 0xB0,
            0x3F9..=0x3FF => self.uart[usize::from(port & 7)].into(),
            0x21 => self.pic[0].mask.into(),
            0xA1 => self.pic[1].mask.into(),
            0x40..=0x42 => self.pit[usize::from(port - 0x40)].read().into(),
            0x61 => {
                u32::from(self.gate)
                    | if self.pit[2].elapsed() >= self.pit[2].reload.into() {
                        0x20
                    } else {
                        0
                    }
            }
            0x71 => 0,
            _ => u32::MAX >> (32 - u32::from(size) * 8),
        }
    }
    fn port_out(&mut self, port: u16, _size: u8, value: u32) {
        let v = value as u8;
        match port {
            0x3F8 if self.uart[3] & 0x80 == 0 => {
                self.console.push(v as char);
                self.uart_irq = true;
                let mut out = std::io::stdout();
                let _ = out.write_all(&[v]).and_then(|()| out.flush());
            }
            0x3F9..=0x3FF => self.uart[usize::from(port & 7)] = v,
            0x20 | 0xA0 => {
                let p = &mut self.pic[usize::from(port >> 7)];
                if v & 0x10 != 0 {
                    p.init = 1;
                } else if v & 0x20 != 0 {
                    p.in_service = false;
                }
            }
            0x21 | 0xA1 => {
                let p = &mut self.pic[usize::from(port >> 7)];
                match p.init {
                    1 => (p.base, p.init) = (v, 2),
                    2 => p.init = 3,
                    3 => p.init = 0,
                    _ => p.mask = v,
                }
            }
            0x40..=0x42 => {
                self.pit[usize::from(port - 0x40)].write(v);
                if port == 0x40 {
                    self.ticks = 0;
                }
            }
            0x43 => {
                if let Some(c) = self.pit.get_mut(usize::from(v >> 6)) {
                    c.low = None;
                    c.read_high = false;
                }
            }
            0x61 => self.gate = v & 3,
            _ => {}
        }
    }
    fn read_msr(&mut self, msr: u32) -> Result<u64, MsrFault> {
        if msr == 0x1B {
            Ok(self.apic_base)
        } else {
            Err(MsrFault)
        }
    }
    fn write_msr(&mut self, msr: u32, value: u64) -> Result<(), MsrFault> {
        if msr != 0x1B {
            return Err(MsrFault);
        }
        self.apic_base = value;
        Ok(())
    }
    fn take_interrupt(&mut self) -> Option<u8> {
        if self.pic[0].in_service {
            return None;
        }
        let due = self.pit[0].elapsed() / u64::from(self.pit[0].reload);
        if self.pic[0].mask & 1 == 0 && due > self.ticks {
            self.ticks = due;
            self.pic[0].in_service = true;
            return Some(self.pic[0].base);
        }
        if self.uart_irq && self.uart[1] & 2 != 0 && self.pic[0].mask & 0x10 == 0 {
            self.pic[0].in_service = true;
            return Some(self.pic[0].base + 4);
        }
        None
    }
    fn tsc(&mut self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}

fn load(ram: &mut Ram, kernel: &[u8], initrd: &[u8], cmdline: &str) -> X86State {
    let setup = usize::from(kernel[0x1F1]).max(4) * 512 + 512;
    ram.write(KERNEL, &kernel[setup..]);
    ram.write(INITRD, initrd);
    let mut p = vec![0u8; 4096];
    let header_end = 0x202 + usize::from(kernel[0x201]);
    p[0x1F1..header_end].copy_from_slice(&kernel[0x1F1..header_end]);
    p[0x210] = 0xFF;
    p[0x211] |= 1;
    let mut put = |at: usize, v: u32| p[at..at + 4].copy_from_slice(&v.to_le_bytes());
    put(0x218, if initrd.is_empty() { 0 } else { INITRD as u32 });
    put(0x21C, initrd.len() as u32);
    put(0x228, CMDLINE as u32);
    for (n, (base, len)) in [(0u64, 0x9_F000u64), (0x10_0000, RAM as u64 - 0x10_0000)]
        .into_iter()
        .enumerate()
    {
        let at = 0x2D0 + n * 20;
        p[at..at + 8].copy_from_slice(&base.to_le_bytes());
        p[at + 8..at + 16].copy_from_slice(&len.to_le_bytes());
        p[at + 16] = 1;
    }
    p[0x1E8] = 2;
    ram.write(PARAMS, &p);
    ram.write(CMDLINE, cmdline.as_bytes());
    let gdt = [0u64, 0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF];
    gdt.iter()
        .enumerate()
        .for_each(|(i, d)| ram.write(GDT + i * 8, &d.to_le_bytes()));
    ram.write(TABLES, &(TABLES as u64 + 0x1003).to_le_bytes());
    for i in 0..4u64 {
        ram.write(
            TABLES + 0x1000 + i as usize * 8,
            &(TABLES as u64 + 0x2003 + i * 0x1000).to_le_bytes(),
        );
        for j in 0..512u64 {
            let e = (i * 512 + j) << 21 | 0x83;
            ram.write(TABLES + 0x2000 + (i * 512 + j) as usize * 8, &e.to_le_bytes());
        }
    }
    let mut s = X86State::reset();
    s.cs = flat(0x10, 0xA09B);
    (s.ds, s.es, s.ss) = (flat(0x18, 0xC093), flat(0x18, 0xC093), flat(0x18, 0xC093));
    s.gdtr.base = GDT as u64;
    s.gdtr.limit = 31;
    s.cr0 = 0x8000_0011;
    s.cr3 = TABLES as u64;
    s.cr4 = 0x20;
    s.efer = 0x500;
    s.rip = KERNEL as u64 + 0x200;
    s.gpr[6] = PARAMS as u64;
    s.gpr[4] = 0x8_0000;
    s
}

impl Console for Machine {
    fn console(&self) -> &str {
        &self.console
    }
}

fn main() {
    let args = Arguments::new();
    let kernel = std::fs::read(args.file().expect("a bzImage")).expect("kernel");
    let initrd = args.option("--initrd").map(|f| std::fs::read(f).expect("initrd"));
    let append = args.option("--append").unwrap_or_default();
    let cmdline =
        format!("earlyprintk=ttyS0,115200 console=ttyS0 nolapic noapic acpi=off pci=off panic=-1 {append}\0");
    let mut ram = Ram::new(RAM);
    let state = load(&mut ram, &kernel, &initrd.unwrap_or_default(), &cmdline);
    let mut machine = Machine {
        ram,
        start: Instant::now(),
        uart: [0; 8],
        pic: Default::default(),
        pit: [Channel::new(), Channel::new(), Channel::new()],
        ticks: 0,
        gate: 0,
        console: String::new(),
        apic_base: 0xFEE0_0900,
        uart_irq: false,
    };
    let mut cpu = boot::processor(&args, RAM as u64);
    cpu.set_state(&state);
    let until = args.option("--until").unwrap_or("Unable to mount root");
    boot::run(&mut cpu, &mut machine, until);
}
