// SPDX-License-Identifier: MIT
//! What a guest sees in CPUID: what KVM can show, less what is not ours to give, plus topology and the
//! partition's own leaves (Intel SDM volume 2 CPUID; APM volume 3 appendix E).
//!
//! Always true: KVM's paravirtual leaves, x2APIC, the TSC deadline timer, VMX, SVM, performance counters
//! and enclaves are hidden; the hypervisor bit is set; one package with one thread per core, APIC ids are
//! VP indexes. On software-nested KVM only instructions that its emulator knows are asked for
//! (`spec/software-cpu.md` section 2); the one we know (kvm_pvm) then puts the host's leaf 1 ECX and EDX,
//! leaf 7 and leaf 0xD back, because guest user code runs natively and sees them anyway, so a guest kernel
//! there may still find XSAVE and AVX.

use crate::probe::Virtualisation;
use kvm_sys::bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2 as Leaf};
use x86defs::cpuid::CpuidEntry;

/// Bits of leaf 1 ECX: debug store, MONITOR, CPL-qualified debug store, VMX, SMX, PDCM, x2APIC, TSC deadline.
const LEAF1_ECX_HIDDEN: u32 = 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 15 | 1 << 21 | 1 << 24;
/// Hypervisor present.
const LEAF1_ECX_HYPERVISOR: u32 = 1 << 31;
/// More than one logical processor id in the package.
const LEAF1_EDX_HTT: u32 = 1 << 28;
/// Debug store in leaf 1 EDX.
const LEAF1_EDX_DS: u32 = 1 << 21;
/// SGX in leaf 7 EBX.
const LEAF7_EBX_SGX: u32 = 1 << 2;
/// SVM, IBS, SKINIT, LWP, performance counter extensions, MWAITX in leaf 0x80000001 ECX.
const EXT1_ECX_HIDDEN: u32 = 1 << 2 | 1 << 10 | 1 << 12 | 1 << 15 | 1 << 23 | 1 << 24 | 1 << 28 | 1 << 29;
/// HTT means cores, not threads (AMD).
const EXT1_ECX_CMP_LEGACY: u32 = 1 << 1;
/// Leaves that describe hidden features: MWAIT, performance counters, SGX, processor trace, topology V2,
/// SVM, AMD performance counters, memory encryption.
const HIDDEN_LEAVES: &[u32] = &[
    5,
    0xA,
    0x12,
    0x14,
    0x1F,
    0x8000_000A,
    0x8000_001B,
    0x8000_001F,
    0x8000_0022,
];

/// RDRAND is all that software-nested KVM emulates of leaf 1 ECX.
const NESTED_LEAF1_ECX: u32 = 1 << 30;
/// SMEP and fast string operations of leaf 7 EBX.
const NESTED_LEAF7_EBX: u32 = 1 << 7 | 1 << 9;
/// UMIP of leaf 7 ECX.
const NESTED_LEAF7_ECX: u32 = 1 << 2;
/// LAHF, CMP_LEGACY, CR8 in 32-bit mode and topology extensions of leaf 0x80000001 ECX.
const NESTED_EXT1_ECX: u32 = 1 | 1 << 1 | 1 << 4 | 1 << 22;
/// Physical address width on software-nested KVM: 64 GiB. Firmware maps the whole width, in pages of 2 MiB
/// because larger ones are not there, and each entry takes hundreds of emulated instructions; the host's
/// width would take OVMF hours.
const NESTED_PHYS_BITS: u32 = 36;
/// 1 GiB pages in leaf 0x80000001 EDX.
const EXT1_EDX_1GIB_PAGES: u32 = 1 << 26;
/// The widest physical address without them: Microsoft's firmware maps all of it before it has memory for more
/// (msvm-machine section 2: a page fault in DxeIpl from 48 bits on).
const PHYS_BITS_OF_2MIB_PAGES: u32 = 46;
/// What leaf 0x80000001 EDX loses: FFXSR, RDTSCP, 3DNow!.
const NESTED_EXT1_EDX_HIDDEN: u32 = 1 << 25 | 1 << 27 | 1 << 30 | 1 << 31;

/// The leaves that every VP of every partition here starts from.
pub(crate) fn policy(supported: &[Leaf], virtualisation: Virtualisation) -> Vec<Leaf> {
    let nested = virtualisation == Virtualisation::Software;
    let hidden = |leaf: u32| {
        HIDDEN_LEAVES.contains(&leaf)
            || (leaf >> 24) == 0x40
            || (nested && matches!(leaf, 0xD | 0x19 | 0x1D | 0x1E))
    };
    let mut leaves: Vec<Leaf> = supported
        .iter()
        .filter(|l| !hidden(l.function))
        .copied()
        .collect();
    for l in &mut leaves {
        hide_features(l);
        if nested {
            hide_not_emulated(l);
        }
    }
    if !has_large_pages(&leaves) {
        leaves.iter_mut().for_each(limit_phys_bits);
    }
    leaves
}

fn has_large_pages(leaves: &[Leaf]) -> bool {
    leaves
        .iter()
        .any(|l| l.function == 0x8000_0001 && l.edx & EXT1_EDX_1GIB_PAGES != 0)
}

fn limit_phys_bits(l: &mut Leaf) {
    if l.function == 0x8000_0008 {
        l.eax = l.eax & 0xFF00 | (l.eax & 0xFF).min(PHYS_BITS_OF_2MIB_PAGES);
    }
}

fn hide_features(l: &mut Leaf) {
    match (l.function, l.index) {
        (1, _) => {
            l.ecx = l.ecx & !LEAF1_ECX_HIDDEN | LEAF1_ECX_HYPERVISOR;
            l.edx &= !LEAF1_EDX_DS;
        }
        (7, 0) => l.ebx &= !LEAF7_EBX_SGX,
        (0x8000_0001, _) => l.ecx &= !EXT1_ECX_HIDDEN,
        _ => {}
    }
}

fn hide_not_emulated(l: &mut Leaf) {
    match (l.function, l.index) {
        (1, _) => l.ecx &= NESTED_LEAF1_ECX | LEAF1_ECX_HYPERVISOR,
        (7, 0) => {
            (l.eax, l.edx) = (0, 0);
            l.ebx &= NESTED_LEAF7_EBX;
            l.ecx &= NESTED_LEAF7_ECX;
        }
        (7, _) => (l.eax, l.ebx, l.ecx, l.edx) = (0, 0, 0, 0),
        (0x8000_0001, _) => {
            l.ecx &= NESTED_EXT1_ECX;
            l.edx &= !NESTED_EXT1_EDX_HIDDEN;
        }
        (0x8000_0008, _) => {
            l.eax = l.eax & 0xFF00 | (l.eax & 0xFF).min(NESTED_PHYS_BITS);
            l.ebx = 0;
        }
        _ => {}
    }
}

/// Guest physical address width; 36 when KVM does not say (APM volume 3: the default without the leaf).
pub(crate) fn phys_bits(leaves: &[Leaf]) -> u8 {
    leaves
        .iter()
        .find(|l| l.function == 0x8000_0008)
        .map_or(36, |l| l.eax as u8)
}

/// The leaves of VP `vp` of `count`: topology, then the partition's own, which replace what is there.
pub(crate) fn for_vp(base: &[Leaf], vp: u32, count: u32, own: &[CpuidEntry]) -> Vec<Leaf> {
    let mut leaves = base.to_vec();
    leaves.retain(|l| !matches!(l.function, 0xB | 0x8000_001E));
    for l in &mut leaves {
        set_topology(l, vp, count);
    }
    if base.iter().any(|l| l.function == 0 && l.eax >= 0xB) {
        leaves.extend(topology_leaf(vp, count));
    }
    if base.iter().any(|l| l.function == 0x8000_001E) {
        leaves.push(Leaf {
            function: 0x8000_001E,
            eax: vp,
            ebx: vp & 0xFF,
            ..Default::default()
        });
    }
    for entry in own {
        let same = |l: &Leaf| l.function == entry.leaf && entry.subleaf.is_none_or(|s| s == l.index);
        leaves.retain(|l| !same(l));
        leaves.push(to_kvm(entry));
    }
    leaves
}

/// Bits of an APIC id that number the cores of the package.
fn core_bits(count: u32) -> u32 {
    count.next_power_of_two().trailing_zeros()
}

fn set_topology(l: &mut Leaf, vp: u32, count: u32) {
    let many = count > 1;
    match l.function {
        1 => {
            l.ebx = l.ebx & 0xFFFF | vp << 24 | (1 << core_bits(count)).min(255) << 16;
            l.edx = if many {
                l.edx | LEAF1_EDX_HTT
            } else {
                l.edx & !LEAF1_EDX_HTT
            };
        }
        // Caches: ids that share one in 25:14, core ids of the package in 31:26 (each less one).
        4 if l.eax & 0x1F != 0 => {
            let cores = (1 << core_bits(count)) - 1;
            let sharing = if l.eax >> 5 & 7 >= 3 { cores } else { 0 };
            l.eax = l.eax & 0x3FFF | sharing << 14 | cores.min(0x3F) << 26;
        }
        0x8000_0001 if !many => l.ecx &= !EXT1_ECX_CMP_LEGACY,
        0x8000_0008 => l.ecx = l.ecx & !0xF0FF | core_bits(count) << 12 | (count - 1) & 0xFF,
        0x8000_001D if l.eax & 0x1F != 0 => {
            let sharing = if l.eax >> 5 & 7 >= 3 { count - 1 } else { 0 };
            l.eax = l.eax & !0x03FF_C000 | sharing << 14;
        }
        _ => {}
    }
}

/// Leaf 0xB: one thread per core, then all cores of the package, then the end.
fn topology_leaf(vp: u32, count: u32) -> [Leaf; 3] {
    let level = |index: u32, shift: u32, ids: u32, kind: u32| Leaf {
        function: 0xB,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: ids,
        ecx: kind << 8 | index,
        edx: vp,
        ..Default::default()
    };
    [
        level(0, 0, 1, 1),
        level(1, core_bits(count), count, 2),
        level(2, 0, 0, 0),
    ]
}

fn to_kvm(e: &CpuidEntry) -> Leaf {
    Leaf {
        function: e.leaf,
        index: e.subleaf.unwrap_or(0),
        flags: if e.subleaf.is_some() {
            KVM_CPUID_FLAG_SIGNIFCANT_INDEX
        } else {
            0
        },
        eax: e.eax,
        ebx: e.ebx,
        ecx: e.ecx,
        edx: e.edx,
        ..Default::default()
    }
}

/// The same leaves in the form that the instruction engine takes.
pub(crate) fn to_entries(leaves: &[Leaf]) -> Vec<CpuidEntry> {
    let entry = |l: &Leaf| CpuidEntry {
        leaf: l.function,
        subleaf: (l.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0).then_some(l.index),
        eax: l.eax,
        ebx: l.ebx,
        ecx: l.ecx,
        edx: l.edx,
    };
    leaves.iter().map(entry).collect()
}

#[cfg(test)]
mod tests;
