// SPDX-License-Identifier: MIT
//! The ACPI tables of a direct boot, as an OS finds them.

use guest_rt::acpi::{self, Fadt, Madt, Table};
use guest_rt::acpi_walk;
use guest_rt::memory;
use guest_rt::report::{check, info};
use guest_rt::text::Ascii;

/// How to reach `\_S5`.
#[derive(Clone, Copy)]
pub(crate) struct SoftOff {
    /// PM1a control register.
    pub(crate) port: u16,
    /// SLP_TYPa.
    pub(crate) sleep_type: u8,
}

/// What the tables say.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) madt: Option<Madt>,
    pub(crate) s5: Option<SoftOff>,
}

/// Walks the tables from the RSDP that was handed over, else from the one in the BIOS area.
pub(crate) fn check_tables(handed_over: u64) -> Found {
    let in_bios_area = acpi_walk::find_rsdp();
    let rsdp = if handed_over != 0 {
        Some(handed_over)
    } else {
        in_bios_area
    };
    match rsdp {
        Some(gpa) => info("rsdp", format_args!("{gpa:#x} handed over {}", handed_over != 0)),
        None => {
            check("rsdp", false, format_args!("none"));
            return Found::default();
        }
    }
    let mut found = Found::default();
    let walked = acpi_walk::walk(rsdp.unwrap_or(0), |gpa, table| match table {
        Ok(table) => look(&mut found, gpa, &table),
        Err(flaw) => check("acpi", false, format_args!("table at {gpa:#x}: {flaw}")),
    });
    match walked {
        Ok(count) => check("xsdt", true, format_args!("{count} tables")),
        Err(flaw) => check("xsdt", false, format_args!("{flaw}")),
    }
    check("madt-found", found.madt.is_some(), format_args!(""));
    check("s5-found", found.s5.is_some(), format_args!(""));
    found
}

fn look(found: &mut Found, gpa: u64, table: &Table<'_>) {
    let name = Ascii(table.signature());
    let len = table.bytes().len();
    check(
        "acpi",
        true,
        format_args!("{name} revision {} {len} bytes at {gpa:#x}", table.revision()),
    );
    match table.signature() {
        b"APIC" => match Madt::read(table.bytes()) {
            Ok(madt) => {
                info(
                    "madt",
                    format_args!("{} processors {} ioapics", madt.processors, madt.io_apics),
                );
                found.madt = Some(madt);
            }
            Err(flaw) => check("madt", false, format_args!("{flaw}")),
        },
        b"FACP" => match Fadt::read(table.bytes()) {
            Ok(fadt) => found.s5 = check_fadt(&fadt),
            Err(flaw) => check("fadt", false, format_args!("{flaw}")),
        },
        _ => {}
    }
}

fn check_fadt(fadt: &Fadt) -> Option<SoftOff> {
    info(
        "fadt",
        format_args!(
            "pm1a event {:#x} control {:#x} timer {:#x} sci {} flags {:#x} reset {:#x} <- {}",
            fadt.pm1a_event,
            fadt.pm1a_control,
            fadt.pm_timer,
            fadt.sci,
            fadt.flags,
            fadt.reset.0,
            fadt.reset.1
        ),
    );
    if fadt.facs != 0 {
        let right = memory::bytes(fadt.facs, 4) == b"FACS" && fadt.facs.is_multiple_of(64);
        check("facs", right, format_args!("{:#x}", fadt.facs));
    }
    let dsdt = match acpi_walk::table_at(fadt.dsdt) {
        Ok(dsdt) => dsdt,
        Err(flaw) => {
            check("dsdt", false, format_args!("{:#x}: {flaw}", fadt.dsdt));
            return None;
        }
    };
    let right = dsdt.signature() == b"DSDT";
    check(
        "dsdt",
        right,
        format_args!("{} bytes at {:#x}", dsdt.bytes().len(), fadt.dsdt),
    );
    let (sleep_type, _) = acpi::s5_sleep_types(&dsdt.bytes()[acpi::HEADER_BYTES..])?;
    let port = u16::try_from(fadt.pm1a_control).ok().filter(|&port| port != 0)?;
    info(
        "s5",
        format_args!("sleep type {sleep_type} through port {port:#x}"),
    );
    Some(SoftOff { port, sleep_type })
}
