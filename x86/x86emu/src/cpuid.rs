// SPDX-License-Identifier: MIT
//! The CPUID leaves that describe what the engine implements.
//!
//! Always true: nothing is advertised that does not work; AVX, BMI, POPCNT and SSE3 and later are not
//! advertised, which keeps guests on the instructions that are here; XSAVE holds the x87 and SSE states.
//! Not here: topology, APIC ids, hypervisor leaves: the embedder adds or replaces those.

use x86defs::cpuid::CpuidEntry;

/// FPU DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE MCA CMOV PAT PSE36 CLFSH MMX FXSR SSE SSE2.
const LEAF1_EDX: u32 = 0x078B_FBFD;
/// CX16, XSAVE, hypervisor present.
const LEAF1_ECX: u32 = 1 << 13 | 1 << 26 | 1 << 31;
/// SYSCALL, NX, 1 GiB pages, RDTSCP, long mode, and the bits that mirror leaf 1.
const EXT1_EDX: u32 = 0x0183_F3FD | 1 << 11 | 1 << 20 | 1 << 26 | 1 << 27 | 1 << 29;
/// LAHF in long mode, CR8 in 32-bit mode absent.
const EXT1_ECX: u32 = 1;
/// FSGSBASE, SMEP.
const LEAF7_EBX: u32 = 1 | 1 << 7;

fn leaf(leaf: u32, eax: u32, ebx: u32, ecx: u32, edx: u32) -> CpuidEntry {
    CpuidEntry {
        leaf,
        subleaf: None,
        eax,
        ebx,
        ecx,
        edx,
    }
}

/// The engine's own leaves for one processor: vendor and brand are neutral, the APIC id is 0.
pub fn baseline(phys_bits: u8) -> Vec<CpuidEntry> {
    let word = |s: &[u8; 4]| u32::from_le_bytes(*s);
    let mut v = vec![
        leaf(0, 0xD, word(b"Auth"), word(b"cAMD"), word(b"enti")),
        // Family 15, model 107, stepping 1: an early 64-bit processor without known errata flags.
        leaf(1, 0x0006_0FB1, 0x0001_0800, LEAF1_ECX, LEAF1_EDX),
        CpuidEntry {
            subleaf: Some(0),
            ..leaf(7, 0, LEAF7_EBX, 0, 0)
        },
        // States x87 and SSE: legacy region and header, whatever of them is enabled.
        CpuidEntry {
            subleaf: Some(0),
            ..leaf(0xD, 3, 0x240, 0x240, 0)
        },
        leaf(
            0x8000_0000,
            0x8000_0008,
            word(b"Auth"),
            word(b"cAMD"),
            word(b"enti"),
        ),
        leaf(0x8000_0001, 0x0006_0FB1, 0, EXT1_ECX, EXT1_EDX),
        leaf(0x8000_0007, 0, 0, 0, 1 << 8),
        leaf(0x8000_0008, 0x3000 | u32::from(phys_bits), 0, 0, 0),
    ];
    let brand = *b"openvmm software processor                     \0";
    for (n, part) in brand.chunks_exact(16).enumerate() {
        let r = |i: usize| u32::from_le_bytes([part[i], part[i + 1], part[i + 2], part[i + 3]]);
        v.push(leaf(0x8000_0002 + n as u32, r(0), r(4), r(8), r(12)));
    }
    v
}
