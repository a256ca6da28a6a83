// SPDX-License-Identifier: MIT
//! A whole set of tables for a guest without firmware: RSDP, XSDT, FADT, FACS, DSDT, MADT, TPM2, MCFG
//! (ACPI 6.5 section 5.2).
//!
//! Always true: the set is one block that works at the address it was made for; the RSDP is its first
//! byte and the FACS is 64-byte aligned. Not here: reserving the memory (`crate::linux`).

use super::dsdt::dsdt;
use super::table::{HV, Table};
use super::{madt, mcfg};
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::{Aml, rsdp::Rsdp};
use openvmm_defs::{GpaRange, MemoryLayout};

/// Where the machines' fixed hardware is, as tables and device trees say it.
#[allow(missing_docs)]
pub mod hardware {
    pub const LOCAL_APIC_GPA: u32 = 0xFEE0_0000;
    pub const IO_APIC_GPA: u32 = 0xFEC0_0000;
    /// System control interrupt.
    pub const SCI: u8 = 9;
    pub const COM1_PORT: u16 = 0x3F8;
    pub const COM1_IRQ: u32 = 4;
    pub const RTC_PORT: u16 = 0x70;
    pub const RTC_IRQ: u32 = 8;
    /// PM1a event block: status and enable.
    pub const PM1A_EVENT_PORT: u16 = 0x400;
    /// PM1a control.
    pub const PM1A_CONTROL_PORT: u16 = 0x404;
    /// 32-bit PM timer.
    pub const PM_TIMER_PORT: u16 = 0x408;
    pub const GPE0_PORT: u16 = 0x40C;
    /// Reset register; writing 1 resets.
    pub const RESET_PORT: u16 = 0x433;
}

use hardware::{GPE0_PORT, PM_TIMER_PORT, PM1A_CONTROL_PORT, PM1A_EVENT_PORT, RESET_PORT, SCI};

/// The fixed hardware that a FADT describes.
pub(super) struct FixedHardware {
    pub(super) event_port: u16,
    pub(super) control_port: u16,
    pub(super) timer_port: u16,
    /// The timer has 32 bits, not 24.
    pub(super) wide_timer: bool,
    pub(super) gpe0_port: u16,
    /// Bytes of status and enable together.
    pub(super) gpe0_len: u8,
    pub(super) reset_port: u16,
    pub(super) reset_value: u8,
}

/// The PM block at 0x400.
const HYPERV: FixedHardware = FixedHardware {
    event_port: PM1A_EVENT_PORT,
    control_port: PM1A_CONTROL_PORT,
    timer_port: PM_TIMER_PORT,
    wide_timer: true,
    gpe0_port: GPE0_PORT,
    gpe0_len: 4,
    reset_port: RESET_PORT,
    reset_value: 1,
};

/// Tables ready to be copied to guest memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcpiSet {
    /// Address of the first byte, and of the RSDP.
    pub gpa: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Why a set cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum SetError {
    #[error(
        "ACPI tables of {bytes:#x} bytes for {vps} processors do not fit the {room:#x} bytes at gpa {gpa:#x}"
    )]
    TooLarge {
        bytes: u64,
        vps: u32,
        room: u64,
        gpa: u64,
    },
}

/// The set for a Linux or plain machine at `gpa`, which must be 64-byte aligned and below 4 GiB;
/// at most `room` bytes long.
pub fn linux_set(layout: &MemoryLayout, gpa: u32, room: u64) -> Result<AcpiSet, SetError> {
    let mut block = Block {
        gpa: gpa.into(),
        bytes: vec![0; Rsdp::len()],
    };
    let mut facs = Vec::new();
    FACS::new().to_aml_bytes(&mut facs);
    let facs = block.place(&facs);
    let dsdt = block.place(&dsdt(layout));
    let mut tables = vec![
        block.place(&fadt(&HYPERV, dsdt, facs)),
        block.place(&madt(layout)),
    ];
    tables.extend(layout.tpm.map(|range| block.place(&tpm2(range))));
    tables.extend(mcfg(layout).map(|table| block.place(&table)));
    let mut xsdt = Table::new(b"XSDT", 1, &HV);
    for table in tables {
        xsdt.u64(table);
    }
    let xsdt = block.place(&xsdt.finish());
    let mut rsdp = Vec::new();
    Rsdp::new(*HV.oem_id, xsdt).to_aml_bytes(&mut rsdp);
    block.bytes[..rsdp.len()].copy_from_slice(&rsdp);
    let bytes = block.bytes.len() as u64;
    if bytes > room {
        let (gpa, vps) = (block.gpa, layout.vp_count);
        return Err(SetError::TooLarge {
            bytes,
            vps,
            room,
            gpa,
        });
    }
    Ok(AcpiSet {
        gpa: block.gpa,
        bytes: block.bytes,
    })
}

/// The TPM2 table (TCG ACPI specification 1.4, section 7.3): a command response buffer whose control area
/// follows the 64 bytes of locality registers.
fn tpm2(range: GpaRange) -> Vec<u8> {
    const CONTROL_AREA: u64 = 0x40;
    const COMMAND_RESPONSE_BUFFER: u32 = 7;
    let mut table = Table::new(b"TPM2", 3, &HV);
    // A client platform.
    table.u32(0);
    table.u64(range.gpa + CONTROL_AREA);
    table.u32(COMMAND_RESPONSE_BUFFER);
    table.finish()
}

struct Block {
    gpa: u64,
    bytes: Vec<u8>,
}

impl Block {
    /// Appends a table on a 64-byte boundary (the FACS needs one) and gives its address.
    fn place(&mut self, table: &[u8]) -> u64 {
        let offset = self.bytes.len().next_multiple_of(64);
        self.bytes.resize(offset, 0);
        self.bytes.extend_from_slice(table);
        self.gpa + offset as u64
    }
}

/// The FADT: full hardware ACPI, no SMI, a fixed power button, no sleep button.
pub(super) fn fadt(hardware: &FixedHardware, dsdt: u64, facs: u64) -> Vec<u8> {
    /// IAPC_BOOT_ARCH: there are ISA devices, and no VGA to probe for.
    const LEGACY_DEVICES_NO_VGA: u16 = 1 | 1 << 2;
    /// CMOS index of the century.
    const CENTURY: u8 = 0x32;
    let mut fadt = FADTBuilder::new(*HV.oem_id, *HV.table_id, HV.oem_revision)
        .dsdt_64(dsdt)
        .firmware_ctrl_64(facs)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::ResetRegSup);
    if hardware.wide_timer {
        fadt = fadt.flag(Flags::TmrValExt);
    }
    // The set lies below 4 GiB, so both forms hold; older guests read the short one.
    fadt.dsdt = (dsdt as u32).into();
    fadt.firmware_ctrl = (facs as u32).into();
    fadt.x_firmware_ctrl = 0.into();
    fadt.sci_int = u16::from(SCI).into();
    fadt.pm1a_evt_blk = u32::from(hardware.event_port).into();
    fadt.pm1_evt_len = 4;
    fadt.pm1a_cnt_blk = u32::from(hardware.control_port).into();
    fadt.pm1_cnt_len = 2;
    fadt.pm_tmr_blk = u32::from(hardware.timer_port).into();
    fadt.pm_tmr_len = 4;
    fadt.gpe0_blk = u32::from(hardware.gpe0_port).into();
    fadt.gpe0_blk_len = hardware.gpe0_len;
    // Above 100 and 1000: no C2 and C3.
    fadt.p_lvl2_lat = 0xFFF.into();
    fadt.p_lvl3_lat = 0xFFF.into();
    fadt.century = CENTURY;
    fadt.iapc_boot_arch = LEGACY_DEVICES_NO_VGA.into();
    fadt.reset_reg = GAS::new(
        AddressSpace::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        hardware.reset_port.into(),
    );
    fadt.reset_value = hardware.reset_value;
    fadt.creator_id = *HV.creator_id;
    fadt.creator_revision = HV.creator_revision.to_le_bytes();
    let mut bytes = Vec::new();
    fadt.finalize().to_aml_bytes(&mut bytes);
    bytes
}
