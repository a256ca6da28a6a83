// SPDX-License-Identifier: MIT
//! The MEMORY_MAP parameter (igvm-format section 2; uefi-launch 4.4).
//!
//! Always true: entries are sorted, disjoint and inside RAM; error ranges become platform reserved even
//! where VTL2 could protect them; the encoded map ends with an entry of no pages. Not here: MMIO.

use launch_plan::{LaunchPlan, StepKind};
use openvmm_defs::MemoryLayout;
use x86defs::paging::PAGE_SIZE;

/// Type of a range (`IgvmMemoryMapEntryType`); only those that this program uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum IgvmMemoryType {
    /// Ordinary RAM.
    Memory = 0,
    /// Not for the guest's use.
    PlatformReserved = 1,
    /// RAM that VTL2 may protect.
    Vtl2Protectable = 3,
}

/// A range of the map in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryMapEntry {
    /// First byte.
    pub gpa: u64,
    /// Length in bytes, a multiple of 4 KiB.
    pub len: u64,
    /// What it is.
    pub kind: IgvmMemoryType,
}

/// Ranges [start, end) of one kind.
type Ranges = Vec<(u64, u64)>;

/// RAM of the layout, split where the plan has error ranges and VTL2-protectable ranges.
pub fn memory_map(plan: &LaunchPlan<'_>, layout: &MemoryLayout) -> Vec<MemoryMapEntry> {
    let (reserved, protectable) = special_ranges(plan);
    let mut cuts: Vec<u64> = reserved
        .iter()
        .chain(&protectable)
        .flat_map(|&(start, end)| [start, end])
        .collect();
    cuts.sort_unstable();
    cuts.dedup();
    let mut ram: Ranges = layout.ram.iter().map(|range| (range.gpa, range.end())).collect();
    ram.sort_unstable();
    let mut map: Vec<MemoryMapEntry> = Vec::new();
    for (start, end) in ram {
        let first = cuts.partition_point(|&cut| cut <= start);
        let inner = cuts[first..].iter().copied().take_while(|&cut| cut < end);
        let mut from = start;
        for to in inner.chain([end]) {
            push(&mut map, from, to, kind_at(from, &reserved, &protectable));
            from = to;
        }
    }
    map
}

/// Error ranges and VTL2-protectable ranges, rounded outwards to pages.
fn special_ranges(plan: &LaunchPlan<'_>) -> (Ranges, Ranges) {
    let (mut reserved, mut protectable) = (Vec::new(), Vec::new());
    for step in plan.steps() {
        let (ranges, gpa, len) = match &step.kind {
            StepKind::ErrorRange { gpa, len } => (&mut reserved, *gpa, *len),
            StepKind::ExpectMemory(expect) if expect.vtl2_protectable => {
                (&mut protectable, expect.gpa, expect.len)
            }
            _ => continue,
        };
        let mask = !(PAGE_SIZE - 1);
        let end = gpa.saturating_add(len).checked_next_multiple_of(PAGE_SIZE);
        ranges.push((gpa & mask, end.unwrap_or(mask)));
    }
    (merged(reserved), merged(protectable))
}

/// Sorted and disjoint.
fn merged(mut ranges: Ranges) -> Ranges {
    ranges.sort_unstable();
    let mut merged: Ranges = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match merged.last_mut() {
            Some((_, last)) if start <= *last => *last = end.max(*last),
            _ => merged.push((start, end)),
        }
    }
    merged
}

fn kind_at(gpa: u64, reserved: &Ranges, protectable: &Ranges) -> IgvmMemoryType {
    let holds = |ranges: &Ranges| {
        let after = ranges.partition_point(|&(start, _)| start <= gpa);
        after.checked_sub(1).is_some_and(|at| gpa < ranges[at].1)
    };
    if holds(reserved) {
        IgvmMemoryType::PlatformReserved
    } else if holds(protectable) {
        IgvmMemoryType::Vtl2Protectable
    } else {
        IgvmMemoryType::Memory
    }
}

/// Appends a range, joined with the one before when it continues it.
fn push(map: &mut Vec<MemoryMapEntry>, from: u64, to: u64, kind: IgvmMemoryType) {
    if from == to {
        return;
    }
    let len = to - from;
    match map.last_mut() {
        Some(last) if last.gpa + last.len == from && last.kind == kind => last.len += len,
        _ => map.push(MemoryMapEntry { gpa: from, len, kind }),
    }
}

/// 24-byte entries {first page u64, pages u64, type u16, flags u16, reserved u32} and a zero entry.
pub(super) fn encode(map: &[MemoryMapEntry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity((map.len() + 1) * 24);
    for entry in map {
        bytes.extend_from_slice(&(entry.gpa / PAGE_SIZE).to_le_bytes());
        bytes.extend_from_slice(&(entry.len / PAGE_SIZE).to_le_bytes());
        bytes.extend_from_slice(&(entry.kind as u16).to_le_bytes());
        bytes.extend_from_slice(&[0; 6]);
    }
    bytes.extend_from_slice(&[0; 24]);
    bytes
}
