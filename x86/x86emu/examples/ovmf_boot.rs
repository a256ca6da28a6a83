// SPDX-License-Identifier: MIT
//! Boots Debian's OVMF.fd on the bare engine with the few devices it insists on, up to the shell's
//! banner on the serial port, and prints what it took. A development aid: the machine proper is in the
//! device crates.
//!
//! `cargo run --release -p x86emu --example ovmf_boot [FILE.fd] [--until TEXT] [--trace-exceptions]`

use std::collections::HashMap;
use std::io::Write as _;
use std::time::Instant;
use x86emu::{Bus, MsrFault, RamPage};

#[path = "shared/boot.rs"]
mod boot;
use boot::{Arguments, Console, Ram};

const LOW_RAM: u64 = 512 << 20;

struct Machine {
    low: Ram,
    flash: Ram,
    flash_base: u64,
    cmos: u8,
    uart: [u8; 8],
    config: u32,
    pci: HashMap<u32, u32>,
    ecam: u64,
    console: String,
    start: Instant,
    apic: HashMap<u64, u32>,
    apic_start: Instant,
    apic_base: u64,
}

impl Machine {
    fn ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
    fn pci_read(&self, bdf: u32, reg: u32) -> u32 {
        let key = bdf << 12 | reg;
        if let Some(&v) = self.pci.get(&key) {
            return v;
        }
        match (bdf, reg) {
            (0, 0) => 0x29C0_8086,
            (0, 8) => 0x0600_0000,
            (0xF8, 0) => 0x2918_8086,
            (0xF8, 8) => 0x0601_0000,
            (0 | 0xF8, _) => 0,
            _ => u32::MAX,
        }
    }
    fn pci_write(&mut self, bdf: u32, reg: u32, v: u32, mask: u32) {
        if !matches!(bdf, 0 | 0xF8) || matches!(reg, 0 | 8 | 0xC) {
            return;
        }
        // No BARs: they read zero whatever is written.
        if (0x10..0x40).contains(&reg) {
            return;
        }
        let old = self.pci_read(bdf, reg);
        let v = old & !mask | v & mask;
        self.pci.insert(bdf << 12 | reg, v);
        if bdf == 0 && reg == 0x60 {
            self.ecam = if v & 1 != 0 { u64::from(v & 0xF000_0000) } else { 0 };
        }
    }
    fn cmos_read(&self) -> u8 {
        let above16 = (LOW_RAM - (16 << 20)) >> 16;
        match self.cmos {
            0x34 => above16 as u8,
            0x35 => (above16 >> 8) as u8,
            0x0A => 0x26,
            0x0B => 2,
            0x0D => 0x80,
            7 | 8 => 1,
            9 => 0x26,
            0x32 => 0x20,
            _ => 0,
        }
    }
    fn apic_read(&self, offset: u64) -> u32 {
        match offset {
            0x30 => 0x0005_0014,
            0x390 => {
                let initial = u64::from(*self.apic.get(&0x380).unwrap_or(&0));
                let gone = self.apic_start.elapsed().as_nanos() as u64;
                if initial == 0 {
                    0
                } else {
                    (initial - gone % initial) as u32
                }
            }
            _ => *self.apic.get(&offset).unwrap_or(&0),
        }
    }
}

impl Bus for Machine {
    fn ram(&mut self, gpn: u64) -> Option<RamPage> {
        let gpa = gpn << 12;
        if gpa < LOW_RAM {
            return self.low.page(gpn, true);
        }
        if (self.flash_base..1 << 32).contains(&gpa) {
            // Plain RAM, as an IGVM file would have it.
            return self.flash.page(gpn - (self.flash_base >> 12), true);
        }
        None
    }
    fn mmio_read(&mut self, gpa: u64, data: &mut [u8]) {
        let mut v = u64::MAX;
        if self.ecam != 0 && (self.ecam..self.ecam + (256 << 20)).contains(&gpa) {
            let a = (gpa - self.ecam) as u32;
            v = u64::from(self.pci_read(a >> 12, a & 0xFFC)) >> ((a & 3) * 8);
        } else if gpa & !0xFFF == 0xFEE0_0000 {
            v = self.apic_read(gpa & 0xFFF).into();
        }
        let n = data.len();
        data.copy_from_slice(&v.to_le_bytes()[..n]);
    }
    fn mmio_write(&mut self, gpa: u64, data: &[u8]) {
        let mut b = [0; 8];
        b[..data.len()].copy_from_slice(data);
        let v = u64::from_le_bytes(b);
        if self.ecam != 0 && (self.ecam..self.ecam + (256 << 20)).contains(&gpa) {
            let a = (gpa - self.ecam) as u32;
            let shift = (a & 3) * 8;
            let mask = ((1u64 << (data.len() * 8)) - 1) << shift;
            self.pci_write(a >> 12, a & 0xFFC, (v << shift) as u32, mask as u32);
        } else if gpa & !0xFFF == 0xFEE0_0000 {
            if gpa & 0xFFF == 0x380 {
                self.apic_start = Instant::now();
            }
            self.apic.insert(gpa & 0xFFF, v as u32);
        }
    }
    fn port_in(&mut self, port: u16, size: u8) -> u32 {
        match port {
            0x608 => (self.ns() as u128 * 3_579_545 / 1_000_000_000) as u32 & 0xFF_FFFF,
            0x71 => self.cmos_read().into(),
            0x3FD => 0x60,
            0x3FE => 0xB0,
            0x3F8 => 0,
            0x3FA => 1,
            0x3F9..=0x3FF => self.uart[usize::from(port & 7)].into(),
            0xCF8 => self.config,
            0xCFC..=0xCFF if self.config >> 31 != 0 => {
                let v = self.pci_read(self.config >> 8 & 0xFFFF, self.config & 0xFC);
                v >> (u32::from(port & 3) * 8) & (u32::MAX >> (32 - u32::from(size) * 8))
            }
            _ => u32::MAX >> (32 - u32::from(size) * 8),
        }
    }
    fn port_out(&mut self, port: u16, size: u8, value: u32) {
        match port {
            0x70 => self.cmos = value as u8 & 0x7F,
            0x3F8 if self.uart[3] & 0x80 == 0 => {
                self.console.push(value as u8 as char);
                let mut out = std::io::stdout();
                let _ = out.write_all(&[value as u8]).and_then(|()| out.flush());
            }
            0x3F9..=0x3FF => self.uart[usize::from(port & 7)] = value as u8,
            0xCF8 => self.config = value,
            0xCFC..=0xCFF if self.config >> 31 != 0 => {
                let shift = u32::from(port & 3) * 8;
                let mask = (u32::MAX >> (32 - u32::from(size) * 8)) << shift;
                self.pci_write(
                    self.config >> 8 & 0xFFFF,
                    self.config & 0xFC,
                    value << shift,
                    mask,
                );
            }
            _ => {}
        }
    }
    fn read_msr(&mut self, msr: u32) -> Result<u64, MsrFault> {
        match msr {
            0x1B => Ok(self.apic_base),
            0x3A | 0x8B => Ok(0),
            _ => Err(MsrFault),
        }
    }
    fn write_msr(&mut self, msr: u32, value: u64) -> Result<(), MsrFault> {
        match msr {
            0x1B => self.apic_base = value,
            _ => return Err(MsrFault),
        }
        Ok(())
    }
    fn take_interrupt(&mut self) -> Option<u8> {
        let lvt = *self.apic.get(&0x320).unwrap_or(&0x1_0000);
        let initial = u64::from(*self.apic.get(&0x380).unwrap_or(&0));
        if lvt & 0x1_0000 != 0 || initial == 0 || (self.apic_start.elapsed().as_nanos() as u64) < initial {
            return None;
        }
        self.apic_start = Instant::now();
        Some(lvt as u8)
    }
    fn tsc(&mut self) -> u64 {
        self.ns()
    }
}

impl Console for Machine {
    fn console(&self) -> &str {
        &self.console
    }
}

fn main() {
    let args = Arguments::new();
    let file = args.file().unwrap_or("/usr/share/ovmf/OVMF.fd");
    let image = std::fs::read(file).expect("firmware image");
    let mut flash = Ram::new(image.len());
    flash.write(0, &image);
    let mut machine = Machine {
        low: Ram::new(LOW_RAM as usize),
        flash,
        flash_base: (1 << 32) - image.len() as u64,
        cmos: 0,
        uart: [0; 8],
        config: 0,
        pci: HashMap::new(),
        ecam: 0,
        console: String::new(),
        start: Instant::now(),
        apic: HashMap::new(),
        apic_start: Instant::now(),
        apic_base: 0xFEE0_0900,
    };
    let mut cpu = boot::processor(&args, 1 << 32);
    let until = args.option("--until").unwrap_or("UEFI Interactive Shell");
    boot::run(&mut cpu, &mut machine, until);
}
