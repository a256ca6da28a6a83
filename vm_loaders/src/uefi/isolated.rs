// SPDX-License-Identifier: MIT
//! Microsoft's UEFI without a paravisor on SEV-SNP and TDX: `config_type: igvm` of isolated guests
//! (uefi-launch 3.10, 7.1, 7.2).
//!
//! Always true: the firmware, its page tables and GDT are those of a guest that is not isolated; R8-R11
//! hold the hypervisor's isolation leaf (Hyper-V TLFS, CPUID 0x4000000C); a small program in front of the
//! firmware accepts the memory below 1 MiB. SEV-SNP has it in page 0 and registers in a save area behind
//! the parameter area; TDX cannot preset registers and has a reset page.
//! Not here: what a host fills in.

mod reset_page;
mod save_area;

use super::load::{ConfigType, UefiError, identity_map_4gib, owned, steps};
use super::parameters::{Extras, Places, page_gpa};
use super::x64;
use launch_plan::{
    Arch, Import, Isolation, LaunchPlan, Origin, PageKind, PlanBuilder, PlanError, PlatformFacts, VpContext,
    VpState,
};
use x86defs::paging::{LARGE_PAGE_SIZE, PAGE_SIZE, PTE_A, PTE_D, PTE_P, PTE_PS, PTE_W};

/// Page number of the architectural reset vector's page.
const RESET_PAGE_GPA: u64 = 0xFFFF_F000;
/// TDX guests have 48 address bits with the shared bit at the top.
const TDX_BOUNDARY_BITS: u8 = 47;
/// Numbers of isolation types in the hypervisor's leaf.
const TYPE_SNP: u32 = 2;
const TYPE_TDX: u32 = 3;

/// What SEV-SNP needs to know beyond the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnpOptions {
    /// Guest policy.
    pub policy: u64,
    /// vTOM as a power of two, 39 to 51: a page map level 4 entry of its own.
    pub shared_gpa_boundary_bits: u8,
}

/// Why options make no SEV-SNP plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a shared boundary of {0} bits cannot be mapped beside the first 4 GiB; it must be from 39 to 47")]
pub struct BoundaryError(pub u8);

/// The hypervisor's isolation leaf in R8-R11.
fn isolation_leaf(kind: u32, boundary_bits: u8) -> [u64; 4] {
    const BOUNDARY_ACTIVE: u32 = 1 << 5;
    let ebx = kind | BOUNDARY_ACTIVE | u32::from(boundary_bits) << 6;
    [0, ebx.into(), 0, 0]
}

/// The SEV-SNP plan of an image: VMPL 0, one processor, restricted injection and vTOM.
pub fn plan_snp<'a>(image: &'a [u8], options: &SnpOptions) -> Result<LaunchPlan<'a>, UefiError> {
    let bits = options.shared_gpa_boundary_bits;
    if !(39..=47).contains(&bits) {
        return Err(BoundaryError(bits).into());
    }
    let boundary = 1 << bits;
    let facts = PlatformFacts {
        policy: Some(options.policy),
        shared_gpa_boundary: boundary,
        ..PlatformFacts::new(Isolation::Snp, Arch::X64)
    };
    let mut builder = PlanBuilder::new(facts);
    let shared_tables = page_gpa(1);
    let extras = Extras {
        page_tables: shared_map(shared_tables, boundary),
        cpuid: Some(cpuid_page()),
    };
    let context_gpa = Places::new(&extras).end_gpa();
    let mut tables = identity_map_4gib(x64::PAGE_TABLES_GPA, PTE_P | PTE_W | PTE_A, PTE_D);
    let slot = (boundary >> 39) as usize * 8;
    tables[slot..slot + 8].copy_from_slice(&(shared_tables | PTE_P | PTE_W | PTE_A).to_le_bytes());
    let entry = steps(&mut builder, image, ConfigType::Igvm, tables, extras)?;
    let trampoline = save_area::trampoline(entry);
    page(&mut builder, 0, trampoline, "uefi memory acceptance")?;
    let registers = super::load::registers(save_area::TRAMPOLINE_ENTRY);
    let leaf = isolation_leaf(TYPE_SNP, bits);
    let context = VpContext {
        vp: 0,
        gpa: context_gpa,
        state: VpState::Vmsa(save_area::save_area(&registers, leaf, boundary).into()),
    };
    builder.vp_context(context, Origin::Host("uefi save area"))?;
    Ok(builder.finish())
}

/// The TDX plan of an image. `policy` is the attribute bits of GUEST_POLICY, 0 for none.
pub fn plan_tdx(image: &[u8], policy: u64) -> Result<LaunchPlan<'_>, UefiError> {
    let facts = PlatformFacts {
        policy: (policy != 0).then_some(policy),
        shared_gpa_boundary: 1 << TDX_BOUNDARY_BITS,
        ..PlatformFacts::new(Isolation::Tdx, Arch::X64)
    };
    let mut builder = PlanBuilder::new(facts);
    let tables = identity_map_4gib(x64::PAGE_TABLES_GPA, PTE_P | PTE_W | PTE_A, PTE_D);
    let entry = steps(&mut builder, image, ConfigType::Igvm, tables, Extras::default())?;
    let registers = super::load::registers(entry);
    let leaf = isolation_leaf(TYPE_TDX, TDX_BOUNDARY_BITS);
    let reset = reset_page::reset_page(&registers, leaf);
    page(&mut builder, RESET_PAGE_GPA, reset, "uefi reset page")?;
    Ok(builder.finish())
}

fn page<'a>(
    builder: &mut PlanBuilder<'a>,
    gpa: u64,
    bytes: Vec<u8>,
    what: &'static str,
) -> Result<(), PlanError> {
    let import = Import {
        gpa,
        len: PAGE_SIZE,
        large: false,
        kind: PageKind::Measured,
        contents: owned(bytes),
    };
    builder.import(import, Origin::Host(what))
}

/// A page directory pointer table and four page directories that map 4 GiB from `boundary` on to
/// themselves, which is the first 4 GiB shared with the host.
fn shared_map(gpa: u64, boundary: u64) -> Vec<u8> {
    let flags = PTE_P | PTE_W | PTE_A;
    let directories = (0..512).map(|index| match index {
        0..4 => (gpa + (1 + index) * PAGE_SIZE) | flags,
        _ => 0,
    });
    let leaves = (0..2048).map(|index| (boundary + index * LARGE_PAGE_SIZE) | flags | PTE_D | PTE_PS);
    directories.chain(leaves).flat_map(u64::to_le_bytes).collect()
}

/// Leaves that the firmware asks for before it can handle exceptions, as (EAX, ECX); the firmware checks
/// values against the processor, so all are 0 here and the host fills them in. The leaf with the C-bit
/// stands first.
const CPUID_LEAVES: [(u32, u32); 20] = [
    (0x8000_001F, 0),
    (0x1, 0),
    (0x2, 0),
    (0x5, 0),
    (0x6, 0),
    (0x9, 0),
    (0xA, 0),
    (0x7, 0),
    (0x4, 0),
    (0x4, 1),
    (0x4, 2),
    (0xB, 0),
    (0xB, 1),
    (0x8000_0001, 0),
    (0x8000_0005, 0),
    (0x8000_0006, 0),
    (0x8000_0007, 0),
    (0x8000_0008, 0),
    (0x8000_001D, 0),
    (0x8000_001E, 0),
];

/// The page of sev.md 2.8.
fn cpuid_page() -> Vec<u8> {
    let mut page = vec![0; 16 + 48 * CPUID_LEAVES.len()];
    page[..4].copy_from_slice(&(CPUID_LEAVES.len() as u32).to_le_bytes());
    for (entry, (eax, ecx)) in page[16..].chunks_exact_mut(48).zip(CPUID_LEAVES) {
        entry[..4].copy_from_slice(&eax.to_le_bytes());
        entry[4..8].copy_from_slice(&ecx.to_le_bytes());
    }
    page
}

#[cfg(test)]
mod tests;
