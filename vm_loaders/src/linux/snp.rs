// SPDX-License-Identifier: MIT
//! A kernel started directly as a SEV-SNP guest (`snp_linux_direct` in a manifest).
//!
//! Always true: every page of the guest's RAM is part of the launch and measured, so the kernel may touch
//! all of it at once; everything that the kernel is told (command line, memory map, tables) is measured;
//! page tables and CR3 have the C-bit; processors that are not the first are in reset state. The kernel
//! finds the secrets page and the CPUID page through setup data (Linux `SETUP_CC_BLOB`,
//! arch/x86/include/asm/sev.h).
//! Not here: kernels without a 64-bit entry point, vTOM, measured boot of an initrd from elsewhere.

use super::memory::{GDT_GPA, PAGE_TABLES_GPA};
use super::{
    Entry, LinuxError, LinuxInputs, ZERO_PAGE_GPA, add, boot_params, boot_state, identity_map_4gib,
    plan_parts,
};
use crate::ovmf::{ResetVp, reset_save_area, zeros};
use launch_plan::{
    Arch, Contents, Import, Isolation, LaunchPlan, NativeContext, Origin, PageKind, PlanBuilder, PlanError,
    PlatformFacts, StepKind, VpContext, VpState,
};
use x86defs::paging::{PAGE_BYTES, PAGE_SIZE, PTE_A, PTE_D, PTE_P, PTE_W};
use x86defs::vmsa::{KVM_VMSA_GPA, descriptor, offset};
use x86defs::{cr4, efer};

/// Secrets page, CPUID page and setup data: in the reserved memory below 1 MiB.
const SECRETS_GPA: u64 = 0xD_0000;
const CPUID_GPA: u64 = 0xD_1000;
const SETUP_DATA_GPA: u64 = 0xD_2000;
/// `SETUP_CC_BLOB`.
const SETUP_CC_BLOB: u32 = 7;
/// Length of a setup data header.
const SETUP_DATA_HEADER: usize = 16;
/// Where the blob stands in the page.
const BLOB: usize = 0x40;
/// `CC_BLOB_SEV_HDR_MAGIC`, "AMDE".
const BLOB_MAGIC: u32 = 0x4544_4D41;
/// Linear address of the reset vector.
const RESET_VECTOR: u32 = 0xFFFF_FFF0;
/// RDX of a processor in KVM's reset state.
const RESET_SIGNATURE: u32 = 0x600;

/// What SEV-SNP needs to know beyond the inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnpDirect {
    /// Position of the C-bit in page tables, 32 to 51; the host must have the same.
    pub c_bit: u8,
    /// Guest policy.
    pub policy: u64,
}

/// The SEV-SNP plan for a kernel, with a context for each VP of the layout. The command line is measured.
pub fn plan_snp<'a>(inputs: &LinuxInputs<'a, '_>, direct: &SnpDirect) -> Result<LaunchPlan<'a>, LinuxError> {
    let facts = PlatformFacts {
        policy: Some(direct.policy),
        ..PlatformFacts::new(Isolation::Snp, Arch::X64)
    };
    let inputs = LinuxInputs {
        replaceable_cmdline: false,
        ..*inputs
    };
    let (native, entry) = plan_parts(&inputs)?;
    if !matches!(entry, Entry::Long(_)) {
        return Err(LinuxError::SnpNeedsLongEntry);
    }
    let c_bit = 1 << direct.c_bit;
    let mut builder = PlanBuilder::new(facts);
    for step in native.into_steps() {
        let origin = step.origin;
        match step.kind {
            StepKind::Import(import) => builder.import(confidential(import, c_bit), origin)?,
            StepKind::ExpectMemory(expect) => builder.expect_memory(expect, origin)?,
            StepKind::ErrorRange { gpa, len } => builder.error_range(gpa, len, origin)?,
            StepKind::VpContext(_) => {}
        }
    }
    special_pages(&mut builder)?;
    fill(
        &mut builder,
        inputs.layout.ram.iter().map(|range| (range.gpa, range.end())),
    )?;
    for vp in 0..inputs.layout.vp_count {
        let page = if vp == 0 {
            boot_save_area(&boot_state(entry), c_bit)
        } else {
            reset_save_area(
                Isolation::Snp,
                ResetVp {
                    entry: RESET_VECTOR,
                    signature: RESET_SIGNATURE,
                },
            )
        };
        let context = VpContext {
            vp,
            gpa: KVM_VMSA_GPA,
            state: VpState::Vmsa(page.into()),
        };
        builder.vp_context(context, Origin::Host("linux save area"))?;
    }
    Ok(builder.finish())
}

/// The native plan's page as this guest needs it.
fn confidential(mut import: Import<'_>, c_bit: u64) -> Import<'_> {
    if import.gpa == PAGE_TABLES_GPA {
        let tables = identity_map_4gib(PAGE_TABLES_GPA, PTE_P | PTE_W | PTE_A | c_bit, PTE_D);
        import.contents = Contents::Bytes(tables.into());
    } else if import.gpa == ZERO_PAGE_GPA
        && let Contents::Bytes(page) = &mut import.contents
    {
        let at = boot_params::offset::SETUP_DATA;
        page.to_mut()[at..at + 8].copy_from_slice(&SETUP_DATA_GPA.to_le_bytes());
    }
    import
}

fn special_pages(builder: &mut PlanBuilder<'_>) -> Result<(), PlanError> {
    for (gpa, kind, what) in [
        (SECRETS_GPA, PageKind::Secrets, "linux secrets page"),
        (CPUID_GPA, PageKind::Cpuid, "linux cpuid page"),
    ] {
        zeros(builder, gpa, PAGE_SIZE, kind, what)?;
    }
    add(builder, SETUP_DATA_GPA, setup_data().into(), "linux setup data")
}

/// One setup data entry and the blob that it points to.
fn setup_data() -> Vec<u8> {
    let mut page = vec![0; PAGE_BYTES];
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    put(8, &SETUP_CC_BLOB.to_le_bytes());
    put(12, &4u32.to_le_bytes());
    put(
        SETUP_DATA_HEADER,
        &(SETUP_DATA_GPA as u32 + BLOB as u32).to_le_bytes(),
    );
    put(BLOB, &BLOB_MAGIC.to_le_bytes());
    put(BLOB + 8, &SECRETS_GPA.to_le_bytes());
    put(BLOB + 16, &(PAGE_SIZE as u32).to_le_bytes());
    put(BLOB + 24, &CPUID_GPA.to_le_bytes());
    put(BLOB + 32, &(PAGE_SIZE as u32).to_le_bytes());
    page
}

/// Imports zeros wherever RAM has no page yet.
fn fill(builder: &mut PlanBuilder<'_>, ram: impl Iterator<Item = (u64, u64)>) -> Result<(), PlanError> {
    let mut taken: Vec<(u64, u64)> = builder
        .plan_mut()
        .steps()
        .iter()
        .filter_map(|step| match &step.kind {
            StepKind::Import(import) => Some((import.gpa, import.gpa + import.len)),
            _ => None,
        })
        .collect();
    taken.sort_unstable();
    for (start, end) in ram {
        let mut from = start;
        for &(first, behind) in taken
            .iter()
            .filter(|(first, behind)| *behind > start && *first < end)
        {
            if first > from {
                zeros(
                    builder,
                    from,
                    first - from,
                    PageKind::Measured,
                    "linux free memory",
                )?;
            }
            from = from.max(behind);
        }
        if from < end {
            zeros(builder, from, end - from, PageKind::Measured, "linux free memory")?;
        }
    }
    Ok(())
}

/// The first processor: the native entry state over the reset state.
fn boot_save_area(state: &NativeContext, c_bit: u64) -> Vec<u8> {
    let reset = ResetVp {
        entry: RESET_VECTOR,
        signature: 0,
    };
    let mut page = reset_save_area(Isolation::Snp, reset);
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    for (at, segment) in [
        (offset::ES, state.data),
        (offset::CS, state.cs),
        (offset::SS, state.data),
        (offset::DS, state.data),
        (offset::FS, state.data),
        (offset::GS, state.data),
    ] {
        put(at, &descriptor(&segment));
    }
    put(offset::GDTR + 4, &u32::from(state.gdtr.limit).to_le_bytes());
    put(offset::GDTR + 8, &GDT_GPA.to_le_bytes());
    // In encoding order: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi.
    let places = [
        offset::RAX,
        offset::RCX,
        offset::RDX,
        offset::RBX,
        offset::RSP,
        offset::RBP,
        offset::RSI,
        offset::RDI,
    ];
    for (at, value) in places.into_iter().zip(state.gpr) {
        put(at, &value.to_le_bytes());
    }
    for (at, value) in [
        (offset::RIP, state.rip),
        (offset::RFLAGS, state.rflags),
        (offset::CR0, state.cr0),
        (offset::CR3, state.cr3 | c_bit),
        (offset::CR4, state.cr4 | cr4::MCE),
        (offset::EFER, state.efer | efer::SVME),
    ] {
        put(at, &value.to_le_bytes());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_between_pages_are_filled_and_the_descriptor_is_packed() {
        let mut builder = PlanBuilder::new(PlatformFacts::new(Isolation::Snp, Arch::X64));
        add(&mut builder, 0x3000, vec![1; 0x1000].into(), "test").unwrap();
        add(&mut builder, 0x1000, vec![1; 0x1000].into(), "test").unwrap();
        fill(&mut builder, [(0, 0x8000)].into_iter()).unwrap();
        let plan = builder.finish();
        let mut pages: Vec<u64> = plan.pages().map(|(page, _)| page.gpa).collect();
        pages.sort_unstable();
        assert_eq!(pages, (0..8).map(|page| page * 0x1000).collect::<Vec<_>>());
        let code = x86defs::SegmentRegister {
            selector: 0x10,
            attributes: x86defs::SegmentAttributes(super::super::CODE_64),
            limit: u32::MAX,
            base: 0,
        };
        assert_eq!(
            descriptor(&code)[..8],
            [0x10, 0, 0x9B, 0x0A, 0xFF, 0xFF, 0xFF, 0xFF]
        );
    }

    #[test]
    fn setup_data_leads_to_the_pages() {
        let page = setup_data();
        let u32_at = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().unwrap());
        assert_eq!((u32_at(8), u32_at(12), u32_at(16)), (7, 4, 0xD_2040));
        assert_eq!(u32_at(BLOB), u32::from_le_bytes(*b"AMDE"));
        assert_eq!((u32_at(BLOB + 8), u32_at(BLOB + 24)), (0xD_0000, 0xD_1000));
    }
}
