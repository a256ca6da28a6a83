// SPDX-License-Identifier: MIT
//! The blob's wire format: structure types, their lengths and the flag bits (uefi-launch 3.2-3.4).
//!
//! Always true: this is the only place that knows a type's number or a flag's bit; builder and parser
//! both use it. Little-endian; every structure is {u32 type, u32 length, payload, zero padding to 8}.

/// Length of a structure's type and length fields.
pub const HEADER_BYTES: usize = 8;
/// Alignment of every structure and of its length.
pub const ALIGNMENT: usize = 8;
/// Length of an ACPI table's own header, the least that a table structure may hold.
pub const ACPI_HEADER_BYTES: usize = 36;
/// Length of a PCIe aperture entry.
pub const APERTURE_BYTES: usize = 40;
/// Length of a memory map entry, format V5.
pub const MEMORY_ENTRY_BYTES: usize = 24;
/// Length of a memory map entry in the legacy format.
pub const LEGACY_MEMORY_ENTRY_BYTES: usize = 16;
/// Bytes of the Entropy structure's payload.
pub const ENTROPY_BYTES: usize = 64;

/// Structure type numbers.
#[allow(missing_docs)]
pub mod types {
    pub const STRUCTURE_COUNT: u32 = 0x00;
    pub const BIOS_INFORMATION: u32 = 0x01;
    pub const SRAT: u32 = 0x02;
    pub const MEMORY_MAP: u32 = 0x03;
    pub const ENTROPY: u32 = 0x04;
    pub const BIOS_GUID: u32 = 0x05;
    pub const SMBIOS_SYSTEM_SERIAL: u32 = 0x06;
    pub const SMBIOS_BASE_BOARD_SERIAL: u32 = 0x07;
    pub const SMBIOS_CHASSIS_SERIAL: u32 = 0x08;
    pub const SMBIOS_CHASSIS_ASSET_TAG: u32 = 0x09;
    pub const SMBIOS_BIOS_LOCK_STRING: u32 = 0x0A;
    pub const SMBIOS_PROCESSOR_INFORMATION: u32 = 0x0B;
    pub const SMBIOS_PROCESSOR_SOCKET: u32 = 0x0C;
    pub const SMBIOS_PROCESSOR_MANUFACTURER: u32 = 0x0D;
    pub const SMBIOS_PROCESSOR_VERSION: u32 = 0x0E;
    pub const SMBIOS_PROCESSOR_SERIAL: u32 = 0x0F;
    pub const SMBIOS_PROCESSOR_ASSET_TAG: u32 = 0x10;
    pub const SMBIOS_PROCESSOR_PART_NUMBER: u32 = 0x11;
    pub const FLAGS: u32 = 0x12;
    pub const PROCESSOR_INFORMATION: u32 = 0x13;
    pub const MMIO_RANGES: u32 = 0x14;
    pub const AARCH64_MPIDR: u32 = 0x15;
    pub const ACPI_TABLE: u32 = 0x16;
    pub const NVDIMM_COUNT: u32 = 0x17;
    pub const MADT: u32 = 0x18;
    pub const VPCI_INSTANCE_FILTER: u32 = 0x19;
    pub const SMBIOS_SYSTEM_MANUFACTURER: u32 = 0x1A;
    pub const SMBIOS_SYSTEM_PRODUCT: u32 = 0x1B;
    pub const SMBIOS_SYSTEM_VERSION: u32 = 0x1C;
    pub const SMBIOS_SYSTEM_SKU: u32 = 0x1D;
    pub const SMBIOS_SYSTEM_FAMILY: u32 = 0x1E;
    pub const SMBIOS_MEMORY_SERIAL: u32 = 0x1F;
    pub const SLIT: u32 = 0x20;
    pub const ASPT: u32 = 0x21;
    pub const PPTT: u32 = 0x22;
    pub const GIC: u32 = 0x23;
    pub const MCFG: u32 = 0x24;
    pub const SSDT: u32 = 0x25;
    pub const HMAT: u32 = 0x26;
    pub const IORT: u32 = 0x27;
    pub const PCIE_BAR_APERTURES: u32 = 0x28;
}

/// What the payload of a structure type is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// Exactly this length, header included.
    Fixed(u32),
    /// Any non-empty payload.
    Variable,
    /// NUL-terminated 8-bit string.
    Text,
    /// A whole ACPI table.
    AcpiTable,
    /// Not known to the firmware, or retired: skipped.
    Ignored,
}

/// Name and payload of a structure type.
pub const fn describe(structure_type: u32) -> (&'static str, Payload) {
    use Payload::{AcpiTable, Fixed, Ignored, Text, Variable};
    match structure_type {
        types::STRUCTURE_COUNT => ("StructureCount", Fixed(16)),
        types::BIOS_INFORMATION => ("BiosInformation", Fixed(16)),
        types::SRAT => ("Srat", AcpiTable),
        types::MEMORY_MAP => ("MemoryMap", Variable),
        types::ENTROPY => ("Entropy", Fixed(72)),
        types::BIOS_GUID => ("BiosGuid", Fixed(24)),
        types::SMBIOS_SYSTEM_SERIAL => ("SmbiosSystemSerial", Text),
        types::SMBIOS_BASE_BOARD_SERIAL => ("SmbiosBaseBoardSerial", Text),
        types::SMBIOS_CHASSIS_SERIAL => ("SmbiosChassisSerial", Text),
        types::SMBIOS_CHASSIS_ASSET_TAG => ("SmbiosChassisAssetTag", Text),
        types::SMBIOS_BIOS_LOCK_STRING => ("SmbiosBiosLockString", Text),
        types::SMBIOS_PROCESSOR_INFORMATION => ("SmbiosProcessorInformation", Fixed(32)),
        types::SMBIOS_PROCESSOR_SOCKET => ("SmbiosProcessorSocket", Text),
        types::SMBIOS_PROCESSOR_MANUFACTURER => ("SmbiosProcessorManufacturer", Text),
        types::SMBIOS_PROCESSOR_VERSION => ("SmbiosProcessorVersion", Text),
        types::SMBIOS_PROCESSOR_SERIAL => ("SmbiosProcessorSerial", Text),
        types::SMBIOS_PROCESSOR_ASSET_TAG => ("SmbiosProcessorAssetTag", Text),
        types::SMBIOS_PROCESSOR_PART_NUMBER => ("SmbiosProcessorPartNumber", Text),
        types::FLAGS => ("Flags", Fixed(16)),
        types::PROCESSOR_INFORMATION => ("ProcessorInformation", Fixed(24)),
        types::MMIO_RANGES => ("MmioRanges", Fixed(40)),
        types::AARCH64_MPIDR => ("Aarch64Mpidr", Ignored),
        types::ACPI_TABLE => ("AcpiTable", AcpiTable),
        types::NVDIMM_COUNT => ("NvdimmCount", Fixed(16)),
        types::MADT => ("Madt", AcpiTable),
        types::VPCI_INSTANCE_FILTER => ("VpciInstanceFilter", Fixed(24)),
        types::SMBIOS_SYSTEM_MANUFACTURER => ("SmbiosSystemManufacturer", Text),
        types::SMBIOS_SYSTEM_PRODUCT => ("SmbiosSystemProduct", Text),
        types::SMBIOS_SYSTEM_VERSION => ("SmbiosSystemVersion", Text),
        types::SMBIOS_SYSTEM_SKU => ("SmbiosSystemSku", Text),
        types::SMBIOS_SYSTEM_FAMILY => ("SmbiosSystemFamily", Text),
        types::SMBIOS_MEMORY_SERIAL => ("SmbiosMemorySerial", Text),
        types::SLIT => ("Slit", AcpiTable),
        types::ASPT => ("Aspt", AcpiTable),
        types::PPTT => ("Pptt", AcpiTable),
        types::GIC => ("Gic", Fixed(24)),
        types::MCFG => ("Mcfg", AcpiTable),
        types::SSDT => ("Ssdt", AcpiTable),
        types::HMAT => ("Hmat", AcpiTable),
        types::IORT => ("Iort", AcpiTable),
        types::PCIE_BAR_APERTURES => ("PcieBarApertures", Variable),
        _ => ("unknown", Ignored),
    }
}

/// The structures without which the firmware refuses to start.
pub const REQUIRED: [u32; 7] = [
    types::BIOS_INFORMATION,
    types::MEMORY_MAP,
    types::ENTROPY,
    types::BIOS_GUID,
    types::FLAGS,
    types::PROCESSOR_INFORMATION,
    types::MMIO_RANGES,
];

/// Bits of the Flags structure (uefi-launch 3.4).
#[allow(missing_docs)]
pub mod flags {
    pub const SERIAL: u64 = 1 << 0;
    pub const PAUSE_AFTER_BOOT_FAILURE: u64 = 1 << 1;
    pub const PXE_IPV6: u64 = 1 << 2;
    pub const DEBUGGER: u64 = 1 << 3;
    pub const LOAD_OEMP: u64 = 1 << 4;
    pub const TPM: u64 = 1 << 5;
    pub const HIBERNATE_LAYOUT: u64 = 1 << 6;
    pub const CONSOLE_SHIFT: u32 = 7;
    pub const MEMORY_ATTRIBUTES_TABLE: u64 = 1 << 9;
    pub const BATTERY: u64 = 1 << 10;
    pub const SGX: u64 = 1 << 11;
    pub const VMBFS_BOOT: u64 = 1 << 12;
    pub const MEASURE_ADDITIONAL_PCRS: u64 = 1 << 13;
    pub const DISABLE_FRONTPAGE: u64 = 1 << 14;
    pub const DEFAULT_BOOT_ALWAYS_ATTEMPT: u64 = 1 << 15;
    pub const LOW_POWER_S0: u64 = 1 << 16;
    pub const VPCI_BOOT: u64 = 1 << 17;
    pub const PROCESSOR_IDLE: u64 = 1 << 18;
    pub const NO_SHA384: u64 = 1 << 19;
    pub const MEDIA_PRESENT: u64 = 1 << 20;
    pub const MEMORY_PROTECTION_SHIFT: u32 = 21;
    pub const IMC_WHEN_ISOLATED: u64 = 1 << 23;
    pub const WATCHDOG: u64 = 1 << 24;
    pub const TPM_LOCALITY: u64 = 1 << 25;
    pub const DHCP6_LLT: u64 = 1 << 26;
    pub const CXL: u64 = 1 << 27;
    pub const MTRRS_INITIALIZED: u64 = 1 << 28;
    pub const VMBUS_DISABLED: u64 = 1 << 30;
    pub const PCI_PREASSIGNED: u64 = 1 << 31;
    pub const FORCE_DMA_BOUNCE: u64 = 1 << 32;
    pub const IPMI: u64 = 1 << 33;

    /// Single-bit flags and what a listing calls them.
    pub const NAMES: [(u64, &str); 28] = [
        (SERIAL, "serial"),
        (PAUSE_AFTER_BOOT_FAILURE, "pause-after-boot-failure"),
        (PXE_IPV6, "pxe-ipv6"),
        (DEBUGGER, "debugger"),
        (LOAD_OEMP, "oemp-table"),
        (TPM, "tpm"),
        (HIBERNATE_LAYOUT, "hibernate-layout"),
        (MEMORY_ATTRIBUTES_TABLE, "memory-attributes-table"),
        (BATTERY, "battery"),
        (SGX, "sgx"),
        (VMBFS_BOOT, "vmbfs-boot"),
        (MEASURE_ADDITIONAL_PCRS, "measure-additional-pcrs"),
        (DISABLE_FRONTPAGE, "no-frontpage"),
        (DEFAULT_BOOT_ALWAYS_ATTEMPT, "default-boot-always"),
        (LOW_POWER_S0, "low-power-s0"),
        (VPCI_BOOT, "vpci-boot"),
        (PROCESSOR_IDLE, "processor-idle"),
        (NO_SHA384, "no-sha384"),
        (MEDIA_PRESENT, "media-present"),
        (IMC_WHEN_ISOLATED, "imc-when-isolated"),
        (WATCHDOG, "watchdog"),
        (TPM_LOCALITY, "tpm-locality"),
        (DHCP6_LLT, "dhcp6-llt"),
        (CXL, "cxl"),
        (MTRRS_INITIALIZED, "mtrrs-initialized"),
        (VMBUS_DISABLED, "no-vmbus"),
        (PCI_PREASSIGNED, "pci-preassigned"),
        (FORCE_DMA_BOUNCE, "force-dma-bounce"),
    ];
}
