// SPDX-License-Identifier: MIT
//! The DEVICE_TREE parameter: a flattened tree that could replace the other parameters (igvm-format
//! section 4).
//!
//! Nodes, on every machine: `cpus/cpu@N` (reg = APIC id), `memory@X` with `microsoft,igvm-type`,
//! `interrupt-controller@fec00000` (I/O APIC), `isa@legacy/serial@iX` for each COM port with a backend,
//! `chosen` (bootargs, stdout-path). With error ranges: `reserved-memory/error-range@X`, `no-map`. On
//! the Hyper-V machine with VMBus: `bus/vmbus@X` with `microsoft,vtl` and the MMIO gaps as `ranges`.
//!
//! Always true: the tree says what the other parameters say; addresses and sizes are two cells. Not
//! here: OpenHCL's nodes, PCI (its windows are in ACPI).

use super::ParamInputs;
use super::memory_map::{IgvmMemoryType, MemoryMapEntry};
use crate::acpi::hardware::IO_APIC_GPA;
use openvmm_defs::{GpaRange, Machine};
use vm_fdt::FdtWriter;

/// Phandle of the I/O APIC.
const IO_APIC_PHANDLE: u32 = 1;
/// Ports and interrupts of COM1 to COM4.
const COM_PORTS: [(u32, u32); 4] = [(0x3F8, 4), (0x2F8, 3), (0x3E8, 4), (0x2E8, 3)];
/// The ISA bus; what follows the @ is no address because it has several spaces.
const ISA_BUS: &str = "isa@legacy";
/// Clock of a 16550 in Hz.
const UART_CLOCK: u32 = 1_843_200;
/// VMBus message connection of VTL 0.
const VMBUS_CONNECTION: u32 = 1;

/// A tree that the writer refuses; names and sizes here are ours, so this is a bound exceeded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("device tree: {0}")]
pub struct DeviceTreeError(String);

impl From<vm_fdt::Error> for DeviceTreeError {
    fn from(error: vm_fdt::Error) -> Self {
        Self(error.to_string().to_lowercase())
    }
}

type Result = std::result::Result<(), DeviceTreeError>;

/// The flattened tree.
pub(super) fn device_tree(
    inputs: &ParamInputs<'_>,
    map: &[MemoryMapEntry],
) -> std::result::Result<Vec<u8>, DeviceTreeError> {
    let mut fdt = FdtWriter::new()?;
    let root = fdt.begin_node("")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    let (model, compatible) = match inputs.layout.machine {
        Machine::HyperV => ("microsoft,hyperv", "microsoft,hyperv"),
        Machine::Plain | Machine::Linux | Machine::Ovmf => ("openvmm,plain", "openvmm,plain"),
    };
    fdt.property_string("model", model)?;
    fdt.property_string("compatible", compatible)?;
    fdt.property_u32("interrupt-parent", IO_APIC_PHANDLE)?;
    cpus(&mut fdt, inputs.layout.vp_count)?;
    for entry in map.iter().filter(|e| e.kind != IgvmMemoryType::PlatformReserved) {
        memory(&mut fdt, entry)?;
    }
    reservations(&mut fdt, map)?;
    io_apic(&mut fdt)?;
    serial_ports(&mut fdt, inputs.com)?;
    if inputs.vmbus && inputs.layout.machine == Machine::HyperV {
        vmbus(&mut fdt, [inputs.layout.low_mmio, inputs.layout.high_mmio])?;
    }
    chosen(&mut fdt, inputs)?;
    fdt.end_node(root)?;
    Ok(fdt.finish()?)
}

fn cpus(fdt: &mut FdtWriter, count: u32) -> Result {
    let cpus = fdt.begin_node("cpus")?;
    fdt.property_u32("#address-cells", 1)?;
    fdt.property_u32("#size-cells", 0)?;
    for apic_id in 0..count {
        let cpu = fdt.begin_node(&format!("cpu@{apic_id:x}"))?;
        fdt.property_string("device_type", "cpu")?;
        fdt.property_u32("reg", apic_id)?;
        fdt.property_u32("numa-node-id", 0)?;
        fdt.property_string("status", "okay")?;
        fdt.end_node(cpu)?;
    }
    fdt.end_node(cpus)?;
    Ok(())
}

fn memory(fdt: &mut FdtWriter, entry: &MemoryMapEntry) -> Result {
    let node = fdt.begin_node(&format!("memory@{:x}", entry.gpa))?;
    fdt.property_string("device_type", "memory")?;
    fdt.property_array_u64("reg", &[entry.gpa, entry.len])?;
    fdt.property_u32("numa-node-id", 0)?;
    fdt.property_u32("microsoft,igvm-type", entry.kind as u32)?;
    fdt.end_node(node)?;
    Ok(())
}

/// Error ranges: the guest reads why its launch failed there, and never uses them as RAM.
fn reservations(fdt: &mut FdtWriter, map: &[MemoryMapEntry]) -> Result {
    let mut reserved = map
        .iter()
        .filter(|entry| entry.kind == IgvmMemoryType::PlatformReserved)
        .peekable();
    if reserved.peek().is_none() {
        return Ok(());
    }
    let parent = fdt.begin_node("reserved-memory")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_null("ranges")?;
    for entry in reserved {
        let node = fdt.begin_node(&format!("error-range@{:x}", entry.gpa))?;
        fdt.property_array_u64("reg", &[entry.gpa, entry.len])?;
        fdt.property_null("no-map")?;
        fdt.property_u32("microsoft,igvm-type", entry.kind as u32)?;
        fdt.end_node(node)?;
    }
    fdt.end_node(parent)?;
    Ok(())
}

fn io_apic(fdt: &mut FdtWriter) -> Result {
    let node = fdt.begin_node(&format!("interrupt-controller@{IO_APIC_GPA:x}"))?;
    fdt.property_string("compatible", "intel,ce4100-ioapic")?;
    fdt.property_array_u64("reg", &[IO_APIC_GPA.into(), 0x1000])?;
    fdt.property_u32("#interrupt-cells", 2)?;
    fdt.property_u32("#address-cells", 0)?;
    fdt.property_null("interrupt-controller")?;
    fdt.property_phandle(IO_APIC_PHANDLE)?;
    fdt.end_node(node)?;
    Ok(())
}

/// An ISA bus: the first address cell is 1 for I/O ports.
fn serial_ports(fdt: &mut FdtWriter, com: [bool; 4]) -> Result {
    if com == [false; 4] {
        return Ok(());
    }
    let isa = fdt.begin_node(ISA_BUS)?;
    fdt.property_string("compatible", "isa")?;
    fdt.property_string("device_type", "isa")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 1)?;
    // I/O ports have no place in the parent's address space.
    fdt.property_array_u32("ranges", &[1, 0, 0, 0, 0x1_0000])?;
    for ((port, irq), _) in COM_PORTS.into_iter().zip(com).filter(|(_, present)| *present) {
        let node = fdt.begin_node(&serial_name(port))?;
        fdt.property_string("compatible", "ns16550a")?;
        fdt.property_array_u32("reg", &[1, port, 8])?;
        fdt.property_u32("clock-frequency", UART_CLOCK)?;
        fdt.property_u32("current-speed", 115_200)?;
        fdt.property_array_u32("interrupts", &[irq, 0])?;
        fdt.end_node(node)?;
    }
    fdt.end_node(isa)?;
    Ok(())
}

fn serial_name(port: u32) -> String {
    format!("serial@i{port:x}")
}

fn vmbus(fdt: &mut FdtWriter, gaps: [GpaRange; 2]) -> Result {
    let bus = fdt.begin_node("bus")?;
    fdt.property_string("compatible", "simple-bus")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_null("ranges")?;
    let first = gaps.iter().find(|gap| !gap.is_empty());
    let node = fdt.begin_node(&format!("vmbus@{:x}", first.map_or(0, |gap| gap.gpa)))?;
    fdt.property_string("compatible", "microsoft,vmbus")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    let ranges: Vec<u64> = gaps
        .iter()
        .filter(|gap| !gap.is_empty())
        .flat_map(|gap| [gap.gpa, gap.gpa, gap.len])
        .collect();
    fdt.property_array_u64("ranges", &ranges)?;
    fdt.property_u32("microsoft,vtl", 0)?;
    fdt.property_u32("microsoft,message-connection-id", VMBUS_CONNECTION)?;
    fdt.end_node(node)?;
    fdt.end_node(bus)?;
    Ok(())
}

fn chosen(fdt: &mut FdtWriter, inputs: &ParamInputs<'_>) -> Result {
    let node = fdt.begin_node("chosen")?;
    fdt.property_string("bootargs", inputs.cmdline.unwrap_or(""))?;
    let first = COM_PORTS
        .into_iter()
        .zip(inputs.com)
        .find(|(_, present)| *present);
    if let Some(((port, _), _)) = first {
        fdt.property_string("stdout-path", &format!("/{ISA_BUS}/{}", serial_name(port)))?;
    }
    fdt.end_node(node)?;
    Ok(())
}
