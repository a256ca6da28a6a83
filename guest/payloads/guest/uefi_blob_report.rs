// SPDX-License-Identifier: MIT
//! Reads the configuration blob and prints it field by field.

use crate::uefi_state::BLOB;
use guest_rt::acpi::{self, Madt, Srat, Table};
use guest_rt::entry::Entry;
use guest_rt::memory;
use guest_rt::protocol::Fnv1a;
use guest_rt::report::{check, info};
use guest_rt::text::{Ascii, Guid};
use guest_rt::uefi_blob::{self, Blob, Structure, types};

/// Largest blob that is believed: it must end below the 16 MiB that every VM here has.
const MAX_BLOB: usize = 8 << 20;

/// Checks and prints the blob; `None` when the firmware would refuse it.
pub(crate) fn report(entry: &Entry) -> Option<Blob<'static>> {
    let given = entry.saved.gpr[12];
    if given != 0 {
        check("r12-names-blob", given == BLOB, format_args!("{given:#x}"));
    }
    let size = uefi_blob::declared_size(memory::bytes(BLOB, 16));
    let size = size.and_then(|size| match size {
        0..=MAX_BLOB => Ok(size),
        _ => Err(uefi_blob::Refusal::Total),
    });
    match size.and_then(|size| Blob::read(memory::bytes(BLOB, size)).map(|blob| (size, blob))) {
        Ok((size, blob)) => {
            check(
                "blob",
                true,
                format_args!("{} structures {size} bytes at {BLOB:#x}", blob.count),
            );
            show(&blob, memory::bytes(BLOB, size));
            Some(blob)
        }
        Err(refusal) => {
            check("blob", false, format_args!("at {BLOB:#x}: {refusal:x?}"));
            None
        }
    }
}

/// The processors that the blob's MADT names.
pub(crate) fn apic_ids(blob: &Blob<'_>) -> Option<Madt> {
    let table = blob.tables().find(|table| table.signature() == b"APIC")?;
    Madt::read(table.bytes()).ok()
}

fn show(blob: &Blob<'_>, bytes: &[u8]) {
    let mut without_entropy = Fnv1a::new();
    for structure in blob.structures() {
        let end = structure.offset + 8 + structure.payload.len();
        if structure.kind != types::ENTROPY {
            without_entropy = without_entropy.update(&bytes[structure.offset..end]);
        }
        show_structure(blob, &structure);
    }
    info(
        "blob-hash",
        format_args!("{:016x} without entropy", without_entropy.finish()),
    );
    show_consistency(blob);
}

fn show_structure(blob: &Blob<'_>, structure: &Structure<'_>) {
    let payload = structure.payload;
    let word = |field: usize| acpi::u32_at(payload, field * 4).unwrap_or(0);
    match structure.kind {
        types::COUNT => {}
        types::BIOS_INFORMATION => {
            info("bios", format_args!("pages {:#x} flags {:#x}", word(0), word(1)));
            check("bios-pages", word(0) == 0x600, format_args!("{:#x}", word(0)));
        }
        types::MEMORY_MAP => {
            for (base, len, flags) in blob.memory_map() {
                info("memory", format_args!("{base:#x}+{len:#x} flags {flags}"));
            }
        }
        types::ENTROPY => {
            let zero = payload.iter().all(|&byte| byte == 0);
            let hash = Fnv1a::of(payload);
            check("entropy", !zero, format_args!("hash {hash:016x}"));
        }
        types::BIOS_GUID => {
            if let Some(guid) = payload.first_chunk() {
                info("guid", format_args!("{}", Guid(guid)));
            }
        }
        types::FLAGS => info("flags", format_args!("{:#x}", blob.flags())),
        types::PROCESSORS => info(
            "processors",
            format_args!(
                "max {} count {} per-socket {} threads {}",
                word(0),
                word(1),
                word(2),
                word(3)
            ),
        ),
        types::MMIO => {
            if let Some((low, high)) = blob.mmio() {
                info("mmio-low", format_args!("{:#x}+{:#x}", low.0 << 12, low.1 << 12));
                info(
                    "mmio-high",
                    format_args!("{:#x}+{:#x}", high.0 << 12, high.1 << 12),
                );
            }
        }
        types::APERTURES => show_apertures(payload),
        0x06..=0x0A | 0x0C..=0x11 | 0x1A..=0x1F => {
            let end = payload.iter().position(|&b| b == 0).unwrap_or(payload.len());
            info(
                "smbios",
                format_args!("{:#x} {}", structure.kind, Ascii(&payload[..end])),
            );
        }
        kind => match Table::new(payload) {
            Ok(table) => show_table(kind, &table),
            Err(_) => info("structure", format_args!("{kind:#x} {} bytes", payload.len())),
        },
    }
}

fn show_apertures(payload: &[u8]) {
    for aperture in uefi_blob::apertures(payload) {
        info(
            "aperture",
            format_args!(
                "segment {} buses {:#x}..={:#x}",
                aperture.segment, aperture.first_bus, aperture.last_bus
            ),
        );
    }
}

fn show_table(kind: u32, table: &Table<'_>) {
    let hash = Fnv1a::of(table.bytes());
    info(
        "acpi",
        format_args!(
            "{} revision {} {} bytes type {kind:#x} oem {} hash {hash:016x}",
            Ascii(table.signature()),
            table.revision(),
            table.bytes().len(),
            Ascii(table.oem()),
        ),
    );
    check("acpi-type", kind == types::ACPI_TABLE, format_args!("{kind:#x}"));
}

/// What must agree with each other across structures.
fn show_consistency(blob: &Blob<'_>) {
    let processors = blob.find(types::PROCESSORS).and_then(|p| acpi::u32_at(p, 4));
    let processors = processors.unwrap_or(0) as usize;
    match apic_ids(blob) {
        Some(madt) => {
            let right = madt.processors == processors;
            check(
                "madt",
                right,
                format_args!("{} of {processors} processors", madt.processors),
            );
            info(
                "madt",
                format_args!(
                    "lapic {:#x} flags {} ioapics {} overrides {}",
                    madt.local_apic, madt.flags, madt.io_apics, madt.overrides
                ),
            );
        }
        None => check("madt", false, format_args!("none that can be read")),
    }
    let ram = blob.memory_map().filter(|&(_, _, flags)| flags == 0);
    let ram = ram.fold(0_u64, |sum, (_, len, _)| sum.wrapping_add(len));
    let srat = blob.tables().find(|table| table.signature() == b"SRAT");
    match srat.map(|table| Srat::read(table.bytes())) {
        Some(Ok(srat)) => check(
            "srat",
            srat.processors == processors && srat.memory == ram,
            format_args!(
                "{} processors {:#x} bytes of {ram:#x}",
                srat.processors, srat.memory
            ),
        ),
        Some(Err(flaw)) => check("srat", false, format_args!("{flaw}")),
        None => check("srat", false, format_args!("none")),
    }
    let mut end = 0;
    let sorted = blob.memory_map().all(|(base, len, _)| {
        let right = base >= end && len != 0 && base % 4096 == 0 && len % 4096 == 0;
        end = base.wrapping_add(len);
        right
    });
    check("memory-map-sorted", sorted, format_args!("{ram:#x} bytes"));
    let from_zero = blob
        .memory_map()
        .next()
        .is_some_and(|(base, len, _)| base == 0 && len > BLOB);
    check("memory-from-0-past-blob", from_zero, format_args!(""));
}
