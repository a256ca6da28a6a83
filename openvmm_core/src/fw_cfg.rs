// SPDX-License-Identifier: MIT
//! What the firmware of the OVMF machine finds in fw_cfg: processors, memory map, ACPI and SMBIOS
//! tables, a kernel to boot (ovmf-machine section 1.7).
//!
//! Always true: the ACPI tables say where the guest itself has put ECAM and the PM block, because they
//! are made when the firmware asks for them. Not here: the formats (`vm_loaders`), the device.

use crate::load::Files;
use anyhow::Context;
use chipset::fw_cfg::{FwCfg, key};
use guest_memory::DmaMemory;
use openvmm_defs::{Config, GpaRange, LoadMode, MemoryLayout, SerialBackend};
use pci::{HostBridge, IntxRouter, LpcBridge, PciRoot};
use std::sync::Arc;
use vm_loaders::acpi::{FwCfgTables, Q35Facts, q35_tables};
use vm_loaders::igvm::MappedFile;
use vm_loaders::linux::split_setup;
use vm_loaders::smbios::{self, Smbios};

/// Where Debian's OVMF of 2022 puts ECAM; any place gives tables of the same size.
const USUAL_ECAM: GpaRange = GpaRange::new(0xB000_0000, 256 << 20);
/// Where OVMF puts the PM block.
const USUAL_PM_BASE: u16 = 0x600;

/// What the items are made from.
pub(crate) struct Inputs<'v> {
    pub(crate) config: &'v Config,
    pub(crate) layout: &'v MemoryLayout,
    pub(crate) files: &'v Files,
    pub(crate) memory: DmaMemory,
    pub(crate) pci: Arc<PciRoot>,
    /// OpenFirmware paths of the devices to boot from, in order.
    pub(crate) boot_order: Vec<String>,
}

/// The device with all items.
pub(crate) fn build(inputs: Inputs<'_>) -> anyhow::Result<FwCfg> {
    let Inputs {
        config,
        layout,
        files,
        memory,
        pci,
        boot_order,
    } = inputs;
    let mut device = FwCfg::new(memory);
    // The field has 16 bits, and a layout has fewer processors than that.
    let count = (layout.vp_count.min(0xFFFF) as u16).to_le_bytes().to_vec();
    device.set(key::CPU_COUNT, count.clone())?;
    device.set(key::MAX_CPU_COUNT, count)?;
    device.set(key::UUID, config.bios_guid.as_bytes().to_vec())?;
    device.set(key::RAM_SIZE, layout.ram_size().to_le_bytes().to_vec())?;
    // No menu, no wait.
    device.set(key::BOOT_MENU, vec![0; 2])?;
    device.add_file("etc/e820", e820(layout))?;
    let smbios = smbios::build(layout, config.bios_guid);
    device.add_file(Smbios::ANCHOR, smbios.anchor)?;
    device.add_file(Smbios::TABLES, smbios.tables)?;
    add_acpi(&mut device, config, layout, pci)?;
    if !boot_order.is_empty() {
        device.add_file("bootorder", (boot_order.join("\n") + "\0").into_bytes())?;
    }
    if let (
        LoadMode::Ovmf {
            direct: Some(direct), ..
        },
        Files::Ovmf {
            kernel: Some(kernel),
            initrd,
            ..
        },
    ) = (&config.load, files)
    {
        add_kernel(&mut device, kernel, initrd.as_ref(), &direct.cmdline)?;
    }
    Ok(device)
}

/// Base, length and type of each RAM range.
fn e820(layout: &MemoryLayout) -> Vec<u8> {
    const MEMORY: u32 = 1;
    let entry = |range: &GpaRange| {
        let mut bytes = range.gpa.to_le_bytes().to_vec();
        bytes.extend_from_slice(&range.len.to_le_bytes());
        bytes.extend_from_slice(&MEMORY.to_le_bytes());
        bytes
    };
    layout.ram.iter().flat_map(entry).collect()
}

fn add_acpi(
    device: &mut FwCfg,
    config: &Config,
    layout: &MemoryLayout,
    pci: Arc<PciRoot>,
) -> anyhow::Result<()> {
    let usual = Q35Facts {
        ecam: Some(USUAL_ECAM),
        pm_base: USUAL_PM_BASE,
        intx_line: IntxRouter::line_of,
        com: config
            .com
            .each_ref()
            .map(|backend| *backend != SerialBackend::None),
    };
    let files = |tables: FwCfgTables| vec![tables.rsdp, tables.tables, tables.loader];
    let largest = files(q35_tables(layout, &usual));
    let layout = layout.clone();
    let generate = move || {
        let now = Q35Facts {
            ecam: HostBridge::ecam_window(&pci).map(|(gpa, len)| GpaRange::new(gpa, len)),
            pm_base: LpcBridge::pm_window(&pci).unwrap_or(USUAL_PM_BASE),
            ..usual
        };
        files(q35_tables(&layout, &now))
    };
    let names = [FwCfgTables::RSDP, FwCfgTables::TABLES, FwCfgTables::LOADER];
    Ok(device.add_generated(&names, largest, Box::new(generate))?)
}

/// The kernel as its set-up part and the rest, the initial RAM disk and the command line.
fn add_kernel(
    device: &mut FwCfg,
    kernel: &MappedFile,
    initrd: Option<&MappedFile>,
    cmdline: &str,
) -> anyhow::Result<()> {
    let (setup, rest) = split_setup(kernel.bytes());
    let initrd = initrd.map_or(&[][..], MappedFile::bytes);
    let mut text = cmdline.as_bytes().to_vec();
    text.push(0);
    for (size, data, bytes) in [
        (key::SETUP_SIZE, key::SETUP_DATA, setup),
        (key::KERNEL_SIZE, key::KERNEL_DATA, rest),
        (key::INITRD_SIZE, key::INITRD_DATA, initrd),
        (key::CMDLINE_SIZE, key::CMDLINE_DATA, &text[..]),
    ] {
        let len = u32::try_from(bytes.len()).context("a kernel or initrd of 4 GiB or more")?;
        device.set(size, len.to_le_bytes().to_vec())?;
        device.set(data, bytes.to_vec())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{HostLimits, resolve};
    use crate::testing::config;
    use openvmm_defs::Machine;

    fn layout(memory: u64) -> MemoryLayout {
        resolve(&Config { memory, ..config() }, Machine::Ovmf, HostLimits::ASSUMED).unwrap()
    }

    #[test]
    fn memory_map_lists_ram_around_the_gap() {
        let map = e820(&layout(5 << 30));
        let entries: Vec<_> = map
            .chunks(20)
            .map(|e| {
                let at = |i: usize| u64::from_le_bytes(e[i..i + 8].try_into().unwrap());
                (at(0), at(8), e[16])
            })
            .collect();
        assert_eq!(entries, [(0, 2 << 30, 1), (1 << 32, 3 << 30, 1)]);
        assert_eq!(e820(&layout(512 << 20)).len(), 20);
    }
}
