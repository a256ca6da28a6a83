// SPDX-License-Identifier: MIT
//! What an encrypted guest sees in CPUID, and SEV-SNP's CPUID page (`spec/sev.md` 2.8, 5.3).
//!
//! Always true: the page and the leaves that KVM answers from are made from one table; bits that KVM only
//! synthesises, which the firmware refuses, are in neither. Not here: what the firmware makes of the page.

use crate::host::Offer;
use crate::platform::Platform;
use kvm_sys::bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2 as Leaf};
use x86defs::paging::PAGE_BYTES;

/// Entries that fit the page.
const MAX_ENTRIES: usize = 64;
/// Bytes of the page's header and of each entry.
const HEADER: usize = 16;
const ENTRY: usize = 48;
/// Offset of EAX in an entry; EBX, ECX and EDX follow.
const RESULTS: usize = 24;
/// Legacy area and header of an XSAVE image, which leaf 0xD counts for x87 and SSE alone.
const XSAVE_BASE: u32 = 0x240;

/// Leaf 1 ECX: MONITOR, x2APIC (interrupt controllers are ours and have none), TSC deadline.
const LEAF1_ECX: u32 = 1 << 3 | 1 << 21 | 1 << 24;
const LEAF1_ECX_HYPERVISOR: u32 = 1 << 31;
/// Leaf 7.0 EBX: TSC_ADJUST.
const LEAF7_EBX: u32 = 1 << 1;
/// Leaf 7.0 EDX: SPEC_CTRL, STIBP, L1D flush, ARCH_CAP, CORE_CAP, SSBD.
const LEAF7_EDX: u32 = 0x3F << 26;
/// Leaf 0x80000008 EBX: VIRT_SSBD.
const LEAF8_EBX: u32 = 1 << 25;
/// Leaf 0x80000021 EAX: NO_SMM_CTL_MSR.
const LEAF21_EAX: u32 = 1 << 9;

/// The leaves of VP `vp`.
pub(crate) fn leaves(supported: &[Leaf], platform: Platform, offer: &Offer, vp: u32) -> Vec<Leaf> {
    let dropped =
        |leaf: u32| leaf >> 24 == 0x40 || matches!(leaf, 5 | 0x8000_000A | 0x8000_001F | 0x8000_0026);
    let mut leaves: Vec<Leaf> = supported
        .iter()
        .filter(|l| !dropped(l.function))
        .copied()
        .collect();
    for l in &mut leaves {
        match (l.function, l.index) {
            (1, _) => {
                l.ecx = l.ecx & !LEAF1_ECX | LEAF1_ECX_HYPERVISOR;
                l.ebx = l.ebx & 0x00FF_FFFF | vp << 24;
            }
            (7, 0) => {
                l.ebx &= !LEAF7_EBX;
                l.edx &= !LEAF7_EDX;
            }
            (0xB, _) => l.edx = vp,
            (0x8000_0008, _) => l.ebx &= !LEAF8_EBX,
            (0x8000_001E, _) => l.eax = vp,
            (0x8000_0021, _) => {
                l.eax &= !LEAF21_EAX;
                l.ecx = 0;
            }
            _ => {}
        }
    }
    leaves.push(Leaf {
        function: crate::facts::ENCRYPTION_LEAF,
        eax: platform.guest_cpuid_bits(),
        ebx: offer.c_bit | offer.reduced_bits << 6,
        ..Default::default()
    });
    leaves.sort_by_key(|l| (l.function, l.index));
    leaves
}

/// The CPUID page with those leaves that are not zero: a guest takes a missing leaf for zero.
pub(crate) fn page(leaves: &[Leaf]) -> Result<Box<[u8; PAGE_BYTES]>, String> {
    let filled: Vec<&Leaf> = leaves
        .iter()
        .filter(|l| l.eax | l.ebx | l.ecx | l.edx != 0)
        .collect();
    if filled.len() > MAX_ENTRIES {
        return Err(format!(
            "the guest's {} cpuid leaves do not fit the {MAX_ENTRIES} of the cpuid page",
            filled.len()
        ));
    }
    let mut page = Box::new([0; PAGE_BYTES]);
    page[..4].copy_from_slice(&(filled.len() as u32).to_le_bytes());
    for (entry, leaf) in page[HEADER..].chunks_exact_mut(ENTRY).zip(filled) {
        let indexed = leaf.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0;
        let index = if indexed { leaf.index } else { 0 };
        let xsave = leaf.function == 0xD && index < 2;
        let ebx = if xsave { XSAVE_BASE } else { leaf.ebx };
        entry[..4].copy_from_slice(&leaf.function.to_le_bytes());
        entry[4..8].copy_from_slice(&index.to_le_bytes());
        entry[8] = xsave.into();
        for (at, value) in [leaf.eax, ebx, leaf.ecx, leaf.edx].into_iter().enumerate() {
            entry[RESULTS + 4 * at..][..4].copy_from_slice(&value.to_le_bytes());
        }
    }
    Ok(page)
}

/// Whether a file's CPUID page has entries; one without is the host's to fill.
pub(crate) fn has_entries(page: &[u8]) -> bool {
    page.iter().take(4).any(|&byte| byte != 0)
}

fn word(page: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    if let Some(from) = page.get(at..at + 4) {
        bytes.copy_from_slice(from);
    }
    u32::from_le_bytes(bytes)
}

/// What the firmware corrected, one line for each register.
pub(crate) fn corrections(ours: &[u8], corrected: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    let count = (word(ours, 0) as usize).min(MAX_ENTRIES);
    for at in (0..count).map(|n| HEADER + n * ENTRY) {
        for (n, register) in ["eax", "ebx", "ecx", "edx"].into_iter().enumerate() {
            let (a, b) = (
                word(ours, at + RESULTS + 4 * n),
                word(corrected, at + RESULTS + 4 * n),
            );
            if a != b {
                lines.push(format!(
                    "cpuid page: leaf {:#x}.{} {register} is {a:#x}, firmware accepts {b:#x}",
                    word(ours, at),
                    word(ours, at + 4)
                ));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Interface;

    const OFFER: Offer = Offer {
        interface: Interface::Init2,
        features: 0,
        policy_bits: None,
        c_bit: 51,
        reduced_bits: 5,
    };

    fn leaf(function: u32, index: Option<u32>, results: [u32; 4]) -> Leaf {
        let [eax, ebx, ecx, edx] = results;
        Leaf {
            function,
            index: index.unwrap_or(0),
            flags: if index.is_some() {
                KVM_CPUID_FLAG_SIGNIFCANT_INDEX
            } else {
                0
            },
            eax,
            ebx,
            ecx,
            edx,
            ..Default::default()
        }
    }

    fn supported() -> Vec<Leaf> {
        vec![
            leaf(0, None, [0xD, 1, 2, 3]),
            leaf(1, None, [0xA0_0F11, 0, u32::MAX, u32::MAX]),
            leaf(7, Some(0), [0, u32::MAX, u32::MAX, u32::MAX]),
            leaf(0xD, Some(0), [7, 0x988, 0x988, 0]),
            leaf(0x8000_0021, None, [u32::MAX, 0, 9, 0]),
            leaf(0x8000_0026, Some(0), [1, 1, 1, 1]),
            leaf(0x8000_001F, None, [0xFF, 0xFF, 509, 100]),
            leaf(0x4000_0000, None, [1, 2, 3, 4]),
            leaf(6, None, [0; 4]),
        ]
    }

    #[test]
    fn guest_learns_its_platform_and_nothing_that_firmware_refuses() {
        let leaves = leaves(&supported(), Platform::Snp, &OFFER, 3);
        let find = |function| *leaves.iter().find(|l| l.function == function).unwrap();
        assert_eq!(
            (find(0x8000_001F).eax, find(0x8000_001F).ebx),
            (0x1A, 5 << 6 | 51)
        );
        assert_eq!((find(0x8000_001F).ecx, find(0x8000_001F).edx), (0, 0));
        assert_eq!(find(1).ecx & LEAF1_ECX, 0);
        assert_eq!(find(1).ebx >> 24, 3, "apic id");
        assert_eq!((find(7).ebx & LEAF7_EBX, find(7).edx & LEAF7_EDX), (0, 0));
        assert_eq!(
            (find(0x8000_0021).eax & LEAF21_EAX, find(0x8000_0021).ecx),
            (0, 0)
        );
        assert!(
            leaves
                .iter()
                .all(|l| !matches!(l.function, 0x4000_0000 | 0x8000_0026))
        );
        assert_eq!(Platform::Sev.guest_cpuid_bits(), 2);
        assert_eq!(Platform::SevEs.guest_cpuid_bits(), 0xA);
    }

    #[test]
    fn page_lists_leaves_that_are_not_zero() {
        let leaves = leaves(&supported(), Platform::Snp, &OFFER, 0);
        let page = page(&leaves).unwrap();
        assert_eq!(word(&page[..], 0), 6, "leaf 6 is all zero");
        assert!(has_entries(&page[..]) && !has_entries(&[0; 4096]));
        let entries: Vec<&[u8]> = page[HEADER..].chunks_exact(ENTRY).take(6).collect();
        let xsave = entries.iter().find(|e| word(e, 0) == 0xD).unwrap();
        assert_eq!((xsave[8], word(xsave, RESULTS + 4)), (1, XSAVE_BASE));
        let many: Vec<Leaf> = (0..65).map(|n| leaf(n, None, [1; 4])).collect();
        assert!(super::page(&many).unwrap_err().contains("65 cpuid leaves"));
    }

    #[test]
    fn corrections_name_leaf_index_and_register() {
        let ours = page(&[leaf(7, Some(0), [0, 0xFF, 0, 0]), leaf(1, None, [1, 2, 3, 4])]).unwrap();
        let mut theirs = ours.clone();
        theirs[HEADER + RESULTS + 4] = 0xF0;
        theirs[HEADER + ENTRY + RESULTS + 12] = 0;
        assert_eq!(
            corrections(&ours[..], &theirs[..]),
            [
                "cpuid page: leaf 0x7.0 ebx is 0xff, firmware accepts 0xf0",
                "cpuid page: leaf 0x1.0 edx is 0x4, firmware accepts 0x0"
            ]
        );
    }
}
