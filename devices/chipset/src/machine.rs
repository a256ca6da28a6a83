// SPDX-License-Identifier: MIT
//! The machines: which devices each has, as a table, and the one function that puts them together.
//!
//! Always true: a machine is the row of [`parts`] plus its serial ports and, if asked for, the test-exit
//! device. Every machine can be powered off and reset by its guest.
//! Not here: what only some configurations add (virtio, Hyper-V, UEFI devices); they go on the builder in
//! [`Composition`] before it is finished. ACPI tables must agree with the constants here.

mod q35;
mod root_complex;

pub use root_complex::{BarsBy, RootComplex};

use crate::bus::{BusError, Chipset, ChipsetBuilder, PortWidth};
use crate::ioapic::{self, IoApic};
use crate::lapic::{LapicConfig, LapicSet, LapicWorld};
use crate::pic::Pic;
use crate::pit::{self, Pit, SpeakerPort};
use crate::pm::{PmLayout, PowerManagement};
use crate::reset::{ResetControl, ResetValuePort, SystemControlA, TestExit};
use crate::routing::{OrGate, Router};
use crate::rtc::{self, CmosMemory, Rtc};
use crate::uart::{self, SerialIo, Uart};
use chipset_device::{
    Clock, Device, InterruptLine, LineTarget, MmioDevice, PortDevice, PowerSink, Timed, TimerHandle,
    TimerQueue, VpWake,
};
use openvmm_defs::Machine;
use pci::{IntxRouter, PciRoot};
use std::sync::{Arc, Mutex, Weak};

/// First port of the PM block on every machine but the OVMF one.
pub const PM_BASE: u16 = 0x400;
/// Reset register of the Hyper-V machine (also on the plain and Linux machines).
pub const RESET_PORT: u16 = 0x433;
/// What resets at [`RESET_PORT`].
pub const RESET_VALUE: u8 = 1;
/// Line of the SCI.
pub const SCI_LINE: u32 = 9;
/// Line of the real-time clock.
pub const RTC_LINE: u32 = 8;
/// Line of the interval timer.
pub const PIT_LINE: u32 = 0;
/// First port and line of COM1 to COM4; COM1 and COM3 share a line, and COM2 and COM4.
pub const COM: [(u16, u32); 4] = [(0x3F8, 4), (0x2F8, 3), (0x3E8, 4), (0x2E8, 3)];
/// The test-exit device.
pub const TEST_EXIT_PORT: u16 = 0xF4;

/// What a machine can have.
enum Part {
    Pic,
    IoApic,
    Pit,
    Rtc,
    Pm {
        base: u16,
        layout: PmLayout,
    },
    /// Writing the value to the port resets.
    Reset {
        port: u16,
        value: u8,
    },
    /// Port 0xCF9.
    ResetControl,
    /// Port 0x92.
    SystemControlA,
    /// Host bridge, LPC bridge with PM block, mechanism 1, ECAM, port 0xCF9.
    Q35,
    /// Ports that answer all ones without a log line: first and count.
    Absorb(u16, u16),
}

const HYPERV_PM: Part = Part::Pm {
    base: PM_BASE,
    layout: PmLayout::HYPERV,
};
const HYPERV_RESET: Part = Part::Reset {
    port: RESET_PORT,
    value: RESET_VALUE,
};
/// The keyboard controller's pulse-reset command; there is no keyboard controller.
const KEYBOARD_RESET: Part = Part::Reset {
    port: 0x64,
    value: 0xFE,
};

/// The plain and Linux machines (they differ in tables and RAM only).
const PC: &[Part] = &[
    Part::Pic,
    Part::IoApic,
    Part::Pit,
    Part::Rtc,
    HYPERV_PM,
    HYPERV_RESET,
    Part::ResetControl,
    KEYBOARD_RESET,
    Part::SystemControlA,
    Part::Absorb(0x80, 1),
    Part::Absorb(0xED, 1),
];

/// Hyper-V generation 2 (uefi-launch section 10.1).
const HYPERV: &[Part] = &[
    Part::IoApic,
    Part::Rtc,
    HYPERV_PM,
    HYPERV_RESET,
    Part::Absorb(0xED, 1),
    Part::Absorb(0x5658, 2),
    Part::Absorb(0x201, 1),
    Part::Absorb(0x20, 2),
    Part::Absorb(0xA0, 2),
    Part::Absorb(0x40, 4),
    Part::Absorb(0x61, 1),
    Part::Absorb(0xCF8, 8),
    Part::Absorb(0x87, 1),
];

/// The q35-shaped machine (ovmf-machine section 1); PCI brings the PM block and port 0xCF9.
const OVMF: &[Part] = &[
    Part::Pic,
    Part::IoApic,
    Part::Pit,
    Part::Rtc,
    Part::Q35,
    KEYBOARD_RESET,
    Part::SystemControlA,
    Part::Absorb(0x80, 1),
    Part::Absorb(0xED, 1),
];

const fn parts(machine: Machine) -> &'static [Part] {
    match machine {
        Machine::Plain | Machine::Linux => PC,
        Machine::HyperV => HYPERV,
        Machine::Ovmf => OVMF,
    }
}

/// What a machine is made from.
pub struct MachineConfig {
    /// Which machine.
    pub machine: Machine,
    /// Number of virtual processors.
    pub vp_count: u32,
    /// Physical address width that the guest sees.
    pub phys_bits: u8,
    /// The guest may use x2APIC (the backend's capability).
    pub x2apic: bool,
    /// TSC frequency when CPUID advertises the TSC deadline timer.
    pub tsc_hz: Option<u64>,
    /// RAM sizes for CMOS.
    pub memory: CmosMemory,
    /// The host's ends of COM1 to COM4; a port without one is absent.
    pub serial: [Option<Arc<dyn SerialIo>>; 4],
    /// Adds the test-exit device.
    pub test_exit: bool,
    /// How the devices reach the partition.
    pub world: World,
}

/// How devices reach the partition.
#[derive(Clone)]
pub struct World {
    /// The partition's clock.
    pub clock: Arc<Clock>,
    /// The partition's deadlines.
    pub timers: Arc<TimerQueue>,
    /// Gets a VP's attention.
    pub wake: Arc<dyn VpWake>,
    /// Takes power requests.
    pub power: Arc<dyn PowerSink>,
}

impl World {
    /// Puts a device with deadlines in its mutex and connects its timer.
    pub fn timed<T: Timed + 'static>(&self, make: impl FnOnce(TimerHandle) -> T) -> Arc<Mutex<T>> {
        let timer = self.timers.timer(0);
        let device = Arc::new(Mutex::new(make(timer.clone())));
        timer.connect(Arc::downgrade(&device) as Weak<dyn chipset_device::TimerClient>);
        device
    }
}

/// A machine that more devices can be added to.
pub struct Composition {
    /// Takes further devices.
    pub builder: ChipsetBuilder,
    /// Interrupt lines by GSI.
    pub lines: Arc<dyn LineTarget>,
    /// The serial ports that exist; the host calls [`Uart::input_ready`] on them.
    pub serial: [Option<Arc<Mutex<Uart>>>; 4],
    /// The PM block, for the power button.
    pub pm: Option<Arc<Mutex<PowerManagement>>>,
    /// PCI, on machines that have it.
    pub pci: Option<Pci>,
    world: World,
}

/// The PCI side of a machine.
#[derive(Clone)]
pub struct Pci {
    /// The functions.
    pub root: Arc<PciRoot>,
    /// Interrupt pins.
    pub intx: Arc<IntxRouter>,
}

/// Puts a machine together.
pub fn compose(config: MachineConfig) -> Result<Composition, BusError> {
    let world = config.world.clone();
    let lapics = LapicSet::new(
        config.vp_count,
        LapicConfig {
            x2apic: config.x2apic,
            tsc_hz: config.tsc_hz,
            // No firmware runs there that would set it up.
            virtual_wire: matches!(config.machine, Machine::Plain | Machine::Linux),
        },
        LapicWorld {
            clock: world.clock.clone(),
            timers: world.timers.clone(),
            wake: world.wake.clone(),
            phys_bits: config.phys_bits,
        },
    );
    let parts = parts(config.machine);
    let pic = parts
        .iter()
        .any(|p| matches!(p, Part::Pic))
        .then(|| Pic::new(lapics.clone()));
    let ioapic = parts
        .iter()
        .any(|p| matches!(p, Part::IoApic))
        .then(|| IoApic::new(lapics.clone()));
    let mut machine = Composition {
        builder: ChipsetBuilder::new(lapics),
        lines: Router::new(pic.clone(), ioapic.clone()),
        serial: [const { None }; 4],
        pm: None,
        pci: None,
        world,
    };
    machine.add_interrupt_controllers(pic, ioapic)?;
    machine.add_serial(&config.serial)?;
    if config.test_exit {
        let device = TestExit::new(machine.world.power.clone());
        machine.port_device("test_exit", (TEST_EXIT_PORT, 4), PortWidth::Any, device)?;
    }
    for part in parts {
        machine.add_part(part, config.memory)?;
    }
    Ok(machine)
}

impl Composition {
    /// A wire to interrupt line `line`.
    pub fn line(&self, line: u32) -> InterruptLine {
        InterruptLine::new(self.lines.clone(), line)
    }

    /// The finished machine.
    pub fn build(self) -> Chipset {
        self.builder.build()
    }

    /// Adds a device with one port range.
    pub fn port_device<D: PortDevice + 'static>(
        &mut self,
        name: &str,
        ports: (u16, u16),
        width: PortWidth,
        device: D,
    ) -> Result<(), BusError> {
        self.shared_port_device(name, ports, width, Arc::new(Mutex::new(device)))
    }

    fn shared_port_device<D: PortDevice + 'static>(
        &mut self,
        name: &str,
        ports: (u16, u16),
        width: PortWidth,
        device: Arc<Mutex<D>>,
    ) -> Result<(), BusError> {
        self.builder.add_ports(name, ports, width, device.clone())?;
        self.builder.add_device(name, device);
        Ok(())
    }

    /// Adds a device with one MMIO window.
    pub fn mmio_device<D: MmioDevice + 'static>(
        &mut self,
        name: &str,
        gpa: u64,
        len: u64,
        device: D,
    ) -> Result<(), BusError> {
        let device = Arc::new(Mutex::new(device));
        self.builder.add_mmio(name, gpa, len, device.clone())?;
        self.builder.add_device(name, device as Arc<Mutex<dyn Device>>);
        Ok(())
    }

    fn add_interrupt_controllers(
        &mut self,
        pic: Option<Arc<Pic>>,
        ioapic: Option<Arc<IoApic>>,
    ) -> Result<(), BusError> {
        if let Some(pic) = pic {
            self.port_device("elcr", (0x4D0, 2), PortWidth::Byte, pic.elcr_ports())?;
            self.port_device("pic1", (0x20, 2), PortWidth::Byte, pic.ports(false))?;
            self.port_device("pic2", (0xA0, 2), PortWidth::Byte, pic.ports(true))?;
        }
        if let Some(ioapic) = ioapic {
            self.mmio_device("ioapic", ioapic::GPA, ioapic::LEN, ioapic.window())?;
        }
        Ok(())
    }

    fn add_serial(&mut self, serial: &[Option<Arc<dyn SerialIo>>; 4]) -> Result<(), BusError> {
        // COM1 and COM3 on one gate, COM2 and COM4 on the other.
        let gates = [0, 1].map(|i: usize| OrGate::new(self.line(COM[i].1)));
        for (i, io) in serial.iter().enumerate() {
            let port = COM[i].0;
            let Some(io) = io else {
                self.builder.absorb_ports(port, uart::PORTS)?;
                continue;
            };
            let line = InterruptLine::new(gates[i % 2].clone(), i as u32);
            let uart = Arc::new(Mutex::new(Uart::new(line, io.clone())));
            let name = format!("com{}", i + 1);
            self.shared_port_device(&name, (port, uart::PORTS), PortWidth::Byte, uart.clone())?;
            self.serial[i] = Some(uart);
        }
        Ok(())
    }

    fn add_part(&mut self, part: &Part, memory: CmosMemory) -> Result<(), BusError> {
        let world = self.world.clone();
        match *part {
            // Made first, because everything else is wired to them.
            Part::Pic | Part::IoApic => Ok(()),
            Part::Pit => {
                let line = self.line(PIT_LINE);
                let pit = world.timed(|timer| Pit::new(world.clock.clone(), timer, line));
                self.shared_port_device("pit", (0x40, pit::PORTS), PortWidth::Byte, pit.clone())?;
                self.port_device("speaker", (0x61, 1), PortWidth::Byte, SpeakerPort::new(pit))
            }
            Part::Rtc => {
                let line = self.line(RTC_LINE);
                let rtc = world.timed(|timer| Rtc::new(memory, world.clock.clone(), timer, line));
                self.shared_port_device("rtc", (0x70, rtc::PORTS), PortWidth::Byte, rtc)
            }
            Part::Pm { base, layout } => {
                let pm = self.new_pm(layout);
                self.shared_port_device("pm", (base, layout.len), PortWidth::Any, pm)
            }
            Part::Reset { port, value } => {
                let device = ResetValuePort::new(value, world.power);
                self.port_device("reset", (port, 1), PortWidth::Byte, device)
            }
            Part::ResetControl => self.port_device(
                "reset_control",
                (0xCF9, 1),
                PortWidth::Byte,
                ResetControl::new(world.power),
            ),
            Part::SystemControlA => {
                let device = SystemControlA::new(world.power);
                self.port_device("system_control_a", (0x92, 1), PortWidth::Byte, device)
            }
            Part::Q35 => self.add_q35(),
            Part::Absorb(first, len) => self.builder.absorb_ports(first, len),
        }
    }

    fn new_pm(&mut self, layout: PmLayout) -> Arc<Mutex<PowerManagement>> {
        let (world, sci) = (self.world.clone(), self.line(SCI_LINE));
        let pm = world.timed(|timer| {
            PowerManagement::new(layout, world.clock.clone(), timer, sci, world.power.clone())
        });
        self.pm = Some(pm.clone());
        pm
    }
}

#[cfg(test)]
mod tests;
