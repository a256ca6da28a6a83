// SPDX-License-Identifier: MIT
//! What memory holds: firmware volumes, OVMF's tables, page tables, zero pages and the like, recognised in
//! a plan's own bytes.
//!
//! Always true: looking is bounded (two thousand places, a thousand tables, 16 MiB of OVMF image) whatever
//! the file, so that of a large one only little is read; what is not recognised gets no name, never a wrong one by its address alone. Not
//! here: deciding what the image is (`vm_loaders::detect`).

use super::memory::Memory;
use super::registers::{gdt, long_mode_root};
use super::schema::{Hex, Region};
use launch_plan::{LaunchPlan, PlanRun, VpState};
use std::collections::BTreeSet;
use vm_loaders::detect::PayloadKind;
use vm_loaders::linux::START_INFO_MAGIC;
use vm_loaders::ovmf::{SectionKind, Tables};
use vm_loaders::uefi::x64;
use x86defs::paging::{PAGE_BYTES, PAGE_SIZE, PTE_ADDR, PTE_P, PTE_PS};
use x86defs::state::gpr;

/// Places that are looked at for firmware volumes, and for other beginnings.
const MAX_PLACES: usize = 1 << 11;
/// Places within one run: the first 16 MiB of it, as long as no volume is found.
const MAX_PLACES_OF_RUN: usize = 1 << 8;
/// Firmware volumes start at multiples of this within an image.
const VOLUME_STEP: u64 = 1 << 16;
/// Page tables that are followed.
const MAX_TABLES: usize = 1 << 10;
/// Largest OVMF image.
const MAX_OVMF: u64 = 16 << 20;
/// Largest firmware volume that is believed.
const MAX_VOLUME: u64 = 256 << 20;
const FOUR_GIB: u64 = 1 << 32;

/// Every region that is recognised, in address order.
pub(crate) fn find(plan: &LaunchPlan<'_>, memory: &Memory<'_, '_>, payload: PayloadKind) -> Vec<Region> {
    let mut found = Found::default();
    if payload == PayloadKind::Ovmf {
        ovmf(memory, &mut found);
    }
    if payload == PayloadKind::Uefi {
        found.imported(memory, x64::IMAGE_GPA, x64::IMAGE_SIZE, "uefi firmware image");
        found.imported(
            memory,
            x64::SCRATCH_GPA,
            x64::SCRATCH_SIZE,
            "hypercall scratch pages",
        );
        found.imported(memory, x64::CONFIG_BLOB_GPA, PAGE_SIZE, "uefi configuration");
    }
    volumes(plan, memory, &mut found);
    let mut tables = BTreeSet::new();
    for (context, _) in plan.vp_contexts() {
        page_tables(memory, &context.state, &mut tables, &mut found);
        if let Some((base, len)) = gdt(&context.state) {
            found.imported(memory, base, len, "global descriptor table");
        }
        if context.vp == 0 {
            linux(memory, &context.state, &mut found);
        }
    }
    signatures(plan, memory, &mut found);
    found.finish()
}

#[derive(Default)]
struct Found(BTreeSet<Region>);

impl Found {
    fn add(&mut self, gpa: u64, bytes: u64, name: impl Into<String>) {
        self.0.insert(Region {
            gpa: Hex(gpa),
            bytes,
            name: name.into(),
        });
    }

    /// Adds a region if its first byte is imported.
    fn imported(&mut self, memory: &Memory<'_, '_>, gpa: u64, bytes: u64, name: &str) {
        if bytes > 0 && memory.at(gpa).is_some() {
            self.add(gpa, bytes, name);
        }
    }

    /// The regions, neighbours of one name joined.
    fn finish(self) -> Vec<Region> {
        let mut regions: Vec<Region> = Vec::new();
        for region in self.0 {
            match regions.iter_mut().rev().take(4).find(|r| r.name == region.name) {
                Some(last) if last.gpa.0.checked_add(last.bytes) == Some(region.gpa.0) => {
                    last.bytes += region.bytes;
                }
                _ => regions.push(region),
            }
        }
        regions
    }
}

/// The image below 4 GiB and what its tables point to (igvm-format section 12).
fn ovmf(memory: &Memory<'_, '_>, found: &mut Found) {
    let Some((start, _)) = memory.extent(FOUR_GIB - 1, MAX_OVMF) else {
        return;
    };
    let start = start.max(FOUR_GIB - MAX_OVMF);
    let mut image = vec![0; (FOUR_GIB - start) as usize];
    if !memory.read(start, &mut image) {
        return;
    }
    found.add(start, FOUR_GIB - start, "ovmf image");
    let Ok(tables) = Tables::read(&image) else { return };
    let length = &image[image.len() - 50..image.len() - 48];
    let total = u64::from(u16::from_le_bytes([length[0], length[1]]));
    found.add(FOUR_GIB - 32 - total, total, "ovmf tables");
    for section in tables.sections.iter().flatten() {
        let name = match section.kind {
            SectionKind::Memory => "ovmf sev memory",
            SectionKind::Secrets => "ovmf secrets page",
            SectionKind::Cpuid => "ovmf cpuid page",
            SectionKind::SvsmCaa => "ovmf svsm calling area",
            SectionKind::KernelHashes => "ovmf kernel hashes page",
        };
        found.imported(memory, section.gpa, section.len, name);
    }
    if let Some((base, len)) = tables.hash_table {
        found.imported(memory, base.into(), len.into(), "ovmf kernel hash table");
    }
    if let Some(area) = tables.igvm {
        let (base, len) = area.parameters;
        found.imported(memory, base, len, "ovmf igvm parameters");
        if let Some((base, len)) = area.hob {
            found.imported(memory, base, len, "ovmf igvm hand-off blocks");
        }
    }
}

/// Firmware volumes (PI specification volume 3, 3.2.1): at the start of a run, at multiples of 64 KiB in
/// it, and behind each other.
fn volumes(plan: &LaunchPlan<'_>, memory: &Memory<'_, '_>, found: &mut Found) {
    let mut places = 0;
    for run in plan.runs() {
        let PlanRun::Import(run) = run else { continue };
        if run.contents != "data" {
            continue;
        }
        let end = run.gpa.saturating_add(run.len);
        let mut at = run.gpa;
        let mut places_of_run = 0;
        while at < end && places < MAX_PLACES && places_of_run < MAX_PLACES_OF_RUN {
            places += 1;
            places_of_run += 1;
            let next = match volume(memory, at) {
                Some((len, name)) => {
                    found.add(at, len, name);
                    at.saturating_add(len)
                }
                None => at.saturating_add(VOLUME_STEP),
            };
            // Volumes that do not end on a page have no neighbour that could be looked at. Nothing is behind
            // the last page that there can be.
            let Some(next) = next.checked_next_multiple_of(PAGE_SIZE) else {
                break;
            };
            at = next.max(at.saturating_add(PAGE_SIZE));
        }
    }
}

fn volume(memory: &Memory<'_, '_>, gpa: u64) -> Option<(u64, &'static str)> {
    /// `EFI_FIRMWARE_FILE_SYSTEM2_GUID` and `3`, and the volume that holds variables.
    const KNOWN: [([u8; 4], &str); 3] = [
        ([0x78, 0xE5, 0x8C, 0x8C], "firmware volume (ffs2)"),
        ([0x7A, 0xC0, 0x73, 0x54], "firmware volume (ffs3)"),
        ([0x8D, 0x2B, 0xF1, 0xFF], "variable store volume"),
    ];
    let header: [u8; 56] = memory.array(gpa)?;
    if &header[40..44] != b"_FVH" {
        return None;
    }
    let len = u64::from_le_bytes(header[32..40].try_into().ok()?);
    let name = KNOWN
        .iter()
        .find(|(guid, _)| header[16..20] == *guid)
        .map_or("firmware volume", |(_, name)| *name);
    let fits = (56..=MAX_VOLUME).contains(&len) && memory.at(gpa.checked_add(len - 1)?).is_some();
    fits.then_some((len, name))
}

/// Page tables below CR3 (APM2 5.3) that no other VP showed. An encryption bit in an entry is skipped over.
fn page_tables(memory: &Memory<'_, '_>, state: &VpState<'_>, seen: &mut BTreeSet<u64>, found: &mut Found) {
    let Some(root) = long_mode_root(state) else {
        return;
    };
    let mut todo = vec![(root, 4_u8)];
    while let Some((entry, level)) = todo.pop() {
        let Some(gpa) = table_address(memory, entry) else {
            continue;
        };
        if seen.len() >= MAX_TABLES || !seen.insert(gpa) {
            continue;
        }
        found.add(gpa, PAGE_SIZE, "page tables");
        let mut table = [0; PAGE_BYTES];
        if level <= 1 || !memory.read(gpa, &mut table) {
            continue;
        }
        for entry in table.chunks_exact(8).rev() {
            let entry = u64::from_le_bytes(entry.try_into().unwrap_or_default());
            let is_table = entry & PTE_P != 0 && (level == 4 || entry & PTE_PS == 0);
            if is_table && todo.len() < MAX_TABLES {
                todo.push((entry, level - 1));
            }
        }
    }
}

/// The address of a table in an entry or CR3, with or without an encryption bit (47 or 51).
fn table_address(memory: &Memory<'_, '_>, entry: u64) -> Option<u64> {
    let plain = entry & PTE_ADDR;
    [0, 1 << 51, 1 << 47]
        .into_iter()
        .map(|bit: u64| plain & !bit)
        .find(|&gpa| memory.at(gpa).is_some())
}

/// The zero page in RSI and what it points to (Linux, Documentation/arch/x86/zero-page.rst), or PVH start
/// info in RBX.
fn linux(memory: &Memory<'_, '_>, state: &VpState<'_>, found: &mut Found) {
    if !matches!(state, VpState::Native(_) | VpState::Vbs(_)) {
        return;
    }
    let Some(state) = state.to_x86() else { return };
    let start_info = state.gpr[gpr::RBX];
    if memory.u32(start_info) == Some(START_INFO_MAGIC) {
        found.add(start_info, 56, "pvh start info");
    }
    let zero_page = state.gpr[gpr::RSI];
    let field = |offset: u64| memory.u32(zero_page.checked_add(offset)?);
    if field(0x202) != Some(u32::from_le_bytes(*b"HdrS")) {
        return;
    }
    found.add(zero_page, PAGE_SIZE, "linux zero page");
    if let (Some(base), Some(len)) = (field(0x218), field(0x21C)) {
        found.imported(memory, base.into(), len.into(), "initrd");
    }
    if let Some(base) = field(0x228).map(u64::from).filter(|&base| base != 0)
        && let Some((start, len)) = memory.extent(base, PAGE_SIZE)
    {
        let room = (start + len - base).min(PAGE_SIZE - base % PAGE_SIZE);
        found.add(base, room, "linux command line");
    }
}

/// What the first bytes of a run say.
fn signatures(plan: &LaunchPlan<'_>, memory: &Memory<'_, '_>, found: &mut Found) {
    const KNOWN: [(&[u8], &str); 6] = [
        (b"\x7FELF", "elf image"),
        (b"MZ", "pe image"),
        (b"\xD0\x0D\xFE\xED", "device tree"),
        (b"RSD PTR ", "acpi root pointer"),
        (b"070701", "cpio archive"),
        (b"\x1F\x8B\x08", "gzip archive"),
    ];
    for run in plan.runs().take(MAX_PLACES) {
        let PlanRun::Import(run) = run else { continue };
        if run.contents != "data" {
            continue;
        }
        let Some(start) = memory.array::<8>(run.gpa) else {
            continue;
        };
        if let Some((_, name)) = KNOWN.iter().find(|(magic, _)| start.starts_with(magic)) {
            found.add(run.gpa, run.len, *name);
        }
    }
}
