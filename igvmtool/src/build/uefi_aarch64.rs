// SPDX-License-Identifier: MIT
//! The plan of Microsoft's UEFI for aarch64 (uefi-launch 5.3). Such files are built here, not run.

use launch_plan::{
    Aarch64Register, Arch, Contents, ExpectMemory, Import, Isolation, LaunchPlan, Origin, PageKind,
    PlanBuilder, PlanError, PlatformFacts, VpContext, VpState,
};
use std::borrow::Cow;
use vm_loaders::uefi::aarch64::{self, registers};

const PAGE: usize = 4096;
/// Block and table descriptors (Arm ARM D8.3).
const VALID_BLOCK: u64 = 0b01;
const VALID_TABLE: u64 = 0b11;
const ACCESSED: u64 = 1 << 10;
const INNER_SHAREABLE: u64 = 0b11 << 8;
/// Index of the device attribute in MAIR_EL1.
const DEVICE: u64 = 1 << 2;
/// Never executable, at EL1 and EL0.
const NO_EXECUTE: u64 = 0b11 << 53;

/// Builds the plan; the error says what is wrong with the image.
pub(super) fn plan(image: &[u8]) -> Result<LaunchPlan<'_>, String> {
    if image.len() as u64 != aarch64::IMAGE_SIZE {
        let (is, must) = (image.len(), aarch64::IMAGE_SIZE);
        return Err(format!(
            "resource uefi has {is:#x} bytes; aarch64 firmware has exactly {must:#x}"
        ));
    }
    steps(image).map_err(|error| error.to_string())
}

fn steps(image: &[u8]) -> Result<LaunchPlan<'_>, PlanError> {
    let mut builder = PlanBuilder::new(PlatformFacts::new(Isolation::Vsm, Arch::Aarch64));
    let expect = ExpectMemory {
        gpa: 0,
        len: aarch64::CONFIG_BLOB_GPA,
        vtl2_protectable: false,
    };
    builder.expect_memory(expect, Origin::Host("uefi memory"))?;
    let context = VpContext {
        vp: 0,
        gpa: 0,
        state: VpState::Aarch64Vbs(boot_registers()),
    };
    builder.vp_context(context, Origin::Host("uefi boot processor"))?;
    let tables = Contents::Bytes(Cow::Owned(page_tables()));
    for (what, gpa, len, contents) in [
        (
            "uefi image",
            aarch64::IMAGE_GPA,
            aarch64::IMAGE_SIZE,
            Contents::borrowed(image),
        ),
        (
            "uefi stack",
            aarch64::STACK_GPA,
            aarch64::STACK_SIZE,
            Contents::Zero,
        ),
        (
            "uefi page tables",
            aarch64::PAGE_TABLES_GPA,
            aarch64::PAGE_TABLES_SIZE,
            tables,
        ),
    ] {
        let import = Import {
            gpa,
            len,
            large: false,
            kind: PageKind::Measured,
            contents,
        };
        builder.import(import, Origin::Host(what))?;
    }
    Ok(builder.finish())
}

/// Numbers of `HvArm64RegisterName`.
fn boot_registers() -> Vec<Aarch64Register> {
    let list = [
        (0x0002_0000, registers::PC),
        (0x0002_0001, registers::X1),
        (0x0002_0002, registers::X2_HYPERV),
        (0x0002_0022, registers::PC),
        (0x0002_0023, registers::CPSR),
        (0x0004_0002, registers::SCTLR_EL1),
        (0x0004_0005, registers::TTBR0_EL1),
        (0x0004_0007, registers::TCR_EL1),
        (0x0004_000B, registers::MAIR_EL1),
    ];
    list.into_iter()
        .map(|(name, value)| Aarch64Register { vtl: 0, name, value })
        .collect()
}

/// Level 0 and level 1: 0-1 GiB as memory, 1-4 GiB as devices, in 1 GiB blocks; two pages stay free.
fn page_tables() -> Vec<u8> {
    let block = |gib: u64| {
        let kind = if gib == 0 {
            INNER_SHAREABLE
        } else {
            DEVICE | NO_EXECUTE
        };
        (gib << 30) | kind | ACCESSED | VALID_BLOCK
    };
    let mut tables = vec![0; aarch64::PAGE_TABLES_SIZE as usize];
    let root = (aarch64::PAGE_TABLES_GPA + PAGE as u64) | VALID_TABLE;
    tables[..8].copy_from_slice(&root.to_le_bytes());
    for (slot, gib) in tables[PAGE..].chunks_exact_mut(8).zip(0..4) {
        slot.copy_from_slice(&block(gib).to_le_bytes());
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_image_sizes_are_refused() {
        let error = plan(&[0; 16]).err().unwrap();
        assert_eq!(
            error,
            "resource uefi has 0x10 bytes; aarch64 firmware has exactly 0x800000"
        );
    }

    #[test]
    fn first_gigabyte_is_memory_and_the_rest_devices() {
        let tables = page_tables();
        let entry = |at: usize| u64::from_le_bytes(tables[at..at + 8].try_into().unwrap());
        assert_eq!(entry(0), 0x82_1003);
        assert_eq!(entry(PAGE), 0x701);
        assert_eq!(entry(PAGE + 8), 0x0060_0000_4000_0405);
        assert_eq!(entry(PAGE + 24), 0x0060_0000_C000_0405);
        assert!(tables[PAGE + 32..].iter().all(|&byte| byte == 0));
    }
}
