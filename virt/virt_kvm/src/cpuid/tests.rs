// SPDX-License-Identifier: MIT
//! The policy on leaves that a machine could have.

use super::*;

fn leaf(function: u32, index: u32, regs: [u32; 4]) -> Leaf {
    let [eax, ebx, ecx, edx] = regs;
    let has_subleaves = matches!(function, 4 | 7 | 0xB | 0xD | 0x1F | 0x8000_001D);
    let flags = if has_subleaves {
        KVM_CPUID_FLAG_SIGNIFCANT_INDEX
    } else {
        0
    };
    Leaf {
        function,
        index,
        flags,
        eax,
        ebx,
        ecx,
        edx,
        ..Default::default()
    }
}

fn machine() -> Vec<Leaf> {
    vec![
        leaf(0, 0, [0x20, 0, 0, 0]),
        leaf(1, 0, [0x0080_0F12, 0x0102_0800, u32::MAX, u32::MAX]),
        leaf(4, 0, [0x0400_0121, 0, 0, 0]),
        leaf(4, 3, [0x0400_0163, 0, 0, 0]),
        leaf(4, 4, [0, 0, 0, 0]),
        leaf(5, 0, [64, 64, 3, 0]),
        leaf(7, 0, [1, u32::MAX, u32::MAX, u32::MAX]),
        leaf(7, 1, [u32::MAX, 0, 0, 0]),
        leaf(0xB, 0, [1, 2, 0x100, 9]),
        leaf(0xD, 0, [7, 0x340, 0x340, 0]),
        leaf(0x1F, 0, [1, 2, 0x100, 9]),
        leaf(0x4000_0000, 0, [0x4000_0001, u32::from_le_bytes(*b"KVMK"), 0, 0]),
        leaf(0x4000_0001, 0, [u32::MAX, 0, 0, 0]),
        leaf(0x8000_0001, 0, [0, 0, u32::MAX, u32::MAX]),
        leaf(0x8000_0008, 0, [0x3030, u32::MAX, 0x4007, 0]),
        leaf(0x8000_000A, 0, [1, 2, 3, 4]),
        leaf(0x8000_001D, 3, [0x0000_4163, 0, 0, 0]),
        leaf(0x8000_001E, 0, [9, 9, 9, 0]),
    ]
}

fn get(leaves: &[Leaf], function: u32, index: u32) -> Option<Leaf> {
    leaves
        .iter()
        .find(|l| l.function == function && l.index == index)
        .copied()
}

#[test]
fn features_that_are_not_ours_are_hidden_on_hardware() {
    let leaves = policy(&machine(), Virtualisation::Vmx);
    let one = get(&leaves, 1, 0).unwrap();
    assert_eq!(!one.ecx, LEAF1_ECX_HIDDEN);
    assert_eq!(!one.edx, LEAF1_EDX_DS);
    assert_eq!(!get(&leaves, 7, 0).unwrap().ebx, LEAF7_EBX_SGX);
    assert_eq!(get(&leaves, 0x8000_0001, 0).unwrap().ecx & 1 << 2, 0);
    for hidden in [5, 0x1F, 0x4000_0000, 0x4000_0001, 0x8000_000A] {
        assert!(!leaves.iter().any(|l| l.function == hidden), "{hidden:#x}");
    }
    assert!(get(&leaves, 0xD, 0).is_some());
    assert_eq!(phys_bits(&leaves), 48);
}

#[test]
fn only_emulated_instructions_are_advertised_on_software_nested_kvm() {
    let leaves = policy(&machine(), Virtualisation::Software);
    assert_eq!(
        get(&leaves, 1, 0).unwrap().ecx,
        1 << 31 | 1 << 30,
        "rdrand and the hypervisor bit"
    );
    let seven = get(&leaves, 7, 0).unwrap();
    let bmi_smap_invpcid = 1 << 3 | 1 << 8 | 1 << 20 | 1 << 10;
    assert_eq!((seven.ebx & bmi_smap_invpcid, seven.eax, seven.edx), (0, 0, 0));
    assert_eq!(get(&leaves, 0x8000_0001, 0).unwrap().edx & 1 << 27, 0, "rdtscp");
    assert_ne!(
        get(&leaves, 0x8000_0001, 0).unwrap().edx & 1 << 29,
        0,
        "long mode"
    );
    assert!(get(&leaves, 0xD, 0).is_none());
    assert_eq!(
        get(&leaves, 0x8000_0008, 0).unwrap().eax,
        0x3024,
        "36 of 48 physical address bits"
    );
    assert_eq!(phys_bits(&leaves), 36);
}

#[test]
fn addresses_are_narrow_where_there_are_no_1_gib_pages() {
    let mut host = machine();
    for (edx, bits, shown) in [
        (u32::MAX, 52, 52),
        (!EXT1_EDX_1GIB_PAGES, 52, 46),
        (!EXT1_EDX_1GIB_PAGES, 48, 46),
        (!EXT1_EDX_1GIB_PAGES, 39, 39),
    ] {
        for leaf in &mut host {
            match leaf.function {
                0x8000_0001 => leaf.edx = edx,
                0x8000_0008 => leaf.eax = 0x3000 | bits,
                _ => {}
            }
        }
        let leaves = policy(&host, Virtualisation::Svm);
        assert_eq!(
            get(&leaves, 0x8000_0008, 0).unwrap().eax,
            0x3000 | shown,
            "{edx:#x} {bits}"
        );
        assert_eq!(u32::from(phys_bits(&leaves)), shown);
    }
}

#[test]
fn topology_says_one_package_of_cores_with_apic_ids_by_index() {
    let base = policy(&machine(), Virtualisation::Svm);
    let leaves = for_vp(&base, 2, 3, &[]);
    let one = get(&leaves, 1, 0).unwrap();
    assert_eq!((one.ebx >> 24, one.ebx >> 16 & 0xFF), (2, 4));
    assert_ne!(one.edx & LEAF1_EDX_HTT, 0);
    let (smt, core, end) = (get(&leaves, 0xB, 0), get(&leaves, 0xB, 1), get(&leaves, 0xB, 2));
    let shape = |l: Option<Leaf>| l.map(|l| [l.eax, l.ebx, l.ecx, l.edx]).unwrap();
    assert_eq!(shape(smt), [0, 1, 0x100, 2]);
    assert_eq!(shape(core), [2, 3, 0x201, 2]);
    assert_eq!(shape(end), [0, 0, 2, 2]);
    assert_eq!(get(&leaves, 0x8000_001E, 0).unwrap().eax, 2);
    assert_eq!(get(&leaves, 0x8000_0008, 0).unwrap().ecx, 0x2002);
    // First-level caches are private, the third level is shared by the package.
    assert_eq!(get(&leaves, 4, 0).unwrap().eax >> 14, 3 << 12);
    assert_eq!(get(&leaves, 4, 3).unwrap().eax >> 14, 3 << 12 | 3);
    assert_eq!(get(&leaves, 0x8000_001D, 3).unwrap().eax >> 14 & 0xFFF, 2);
}

#[test]
fn a_single_processor_has_no_siblings() {
    let leaves = for_vp(&policy(&machine(), Virtualisation::Svm), 0, 1, &[]);
    let one = get(&leaves, 1, 0).unwrap();
    assert_eq!((one.edx & LEAF1_EDX_HTT, one.ebx >> 16), (0, 1));
    assert_eq!(get(&leaves, 0x8000_0001, 0).unwrap().ecx & EXT1_ECX_CMP_LEGACY, 0);
    assert_eq!(get(&leaves, 4, 3).unwrap().eax >> 14, 0);
}

#[test]
fn the_partitions_leaves_replace_whole_leaves_or_one_subleaf() {
    let own = [
        CpuidEntry {
            leaf: 0x4000_0000,
            eax: 7,
            ..Default::default()
        },
        CpuidEntry {
            leaf: 7,
            subleaf: Some(0),
            ebx: 5,
            ..Default::default()
        },
        CpuidEntry {
            leaf: 4,
            ..Default::default()
        },
    ];
    let leaves = for_vp(&policy(&machine(), Virtualisation::Svm), 0, 1, &own);
    assert_eq!(get(&leaves, 0x4000_0000, 0).unwrap().eax, 7);
    assert_eq!(
        (get(&leaves, 7, 0).unwrap().ebx, get(&leaves, 7, 1).unwrap().eax),
        (5, u32::MAX)
    );
    assert_eq!(leaves.iter().filter(|l| l.function == 4).count(), 1);
    let entries = to_entries(&leaves);
    assert_eq!(x86defs::cpuid::find(&entries, 7, 0).unwrap().ebx, 5);
    assert_eq!(x86defs::cpuid::find(&entries, 0x4000_0000, 9).unwrap().eax, 7);
}
