// SPDX-License-Identifier: MIT
//! Ports, MMIO, MSRs, CPUID.

use crate::rig::{STOP, code, long_mode, long_mode_state, real_mode, real_mode_state, rig};
use virt::VpStop;
use x86defs::cpuid::CpuidEntry;
use x86defs::{msr, state::gpr};

#[test]
fn port_accesses_of_all_widths_reach_the_bus_in_order() {
    // mov dx, 0x3f8; mov eax, 0x44434241; out dx, al; out dx, ax; out dx, eax
    let writes = [
        0xBA, 0xF8, 0x03, 0x66, 0xB8, 0x41, 0x42, 0x43, 0x44, 0xEE, 0xEF, 0x66, 0xEF,
    ];
    // in al, dx; mov bl, al; in eax, dx
    let reads = [0xEC, 0x88, 0xC3, 0x66, 0xED];
    let Some(mut rig) = real_mode(&code(&[&writes, &reads, STOP])) else {
        return;
    };
    rig.bus.log().input.extend([0x11, 0x22, 0x33, 0x44, 0x55]);
    assert_eq!(rig.run(), VpStop::Requested);
    let log = rig.bus.log().out.clone();
    let expected: Vec<(u16, Vec<u8>)> = vec![
        (0x3F8, b"A".to_vec()),
        (0x3F8, b"AB".to_vec()),
        (0x3F8, b"ABCD".to_vec()),
        (0xF4, vec![0x22]),
    ];
    assert_eq!(log, expected);
    let s = rig.state();
    assert_eq!((s.gpr[gpr::RBX] & 0xFF, s.gpr[gpr::RAX]), (0x11, 0x5544_3322));
    assert_eq!(
        s.rip,
        0x1000 + 18 + 2,
        "the pending OUT is finished before registers are read"
    );
}

#[test]
fn string_port_accesses_move_every_item() {
    // cld; mov si, 0x2000; mov cx, 5; mov dx, 0x3f8; rep outsb
    let out = [
        0xFC, 0xBE, 0x00, 0x20, 0xB9, 0x05, 0x00, 0xBA, 0xF8, 0x03, 0xF3, 0x6E,
    ];
    // mov di, 0x3000; mov cx, 3; rep insw
    let input = [0xBF, 0x00, 0x30, 0xB9, 0x03, 0x00, 0xF3, 0x6D];
    let Some(mut rig) = real_mode(&code(&[&out, &input, STOP])) else {
        return;
    };
    rig.memory.write(0x2000, b"hello").unwrap();
    rig.bus.log().input.extend(*b"abcdef");
    assert_eq!(rig.run(), VpStop::Requested);
    assert_eq!(rig.written(0x3F8), b"hello");
    let mut read = [0; 6];
    rig.memory.read(0x3000, &mut read).unwrap();
    assert_eq!(&read, b"abcdef");
}

#[test]
fn loads_and_stores_outside_ram_reach_the_bus() {
    // mov rbx, 0xb8000; mov rax, 0x1122334455667788; mov [rbx+8], rax; mov byte [rbx+3], 0x5a
    let stores = [
        0x48, 0xC7, 0xC3, 0x00, 0x80, 0x0B, 0x00, 0x48, 0xB8, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
        0x48, 0x89, 0x43, 0x08, 0xC6, 0x43, 0x03, 0x5A,
    ];
    // mov rcx, [rbx+16]; movzx edx, word [rbx+2]
    let loads = [0x48, 0x8B, 0x4B, 0x10, 0x0F, 0xB7, 0x53, 0x02];
    let Some(mut rig) = long_mode(&code(&[&stores, &loads, STOP])) else {
        return;
    };
    assert_eq!(rig.run(), VpStop::Requested);
    let stores = rig.bus.log().stores.clone();
    let qword = 0x1122_3344_5566_7788u64.to_le_bytes().to_vec();
    assert_eq!(stores, [(0xB8008, qword), (0xB8003, vec![0x5A])]);
    let expected = |gpa: u64| gpa.wrapping_mul(0x0101_0101_0101_0101);
    let s = rig.state();
    assert_eq!(
        (s.gpr[gpr::RCX], s.gpr[gpr::RDX]),
        (expected(0xB8010), expected(0xB8002) & 0xFFFF)
    );
}

#[test]
fn machine_msrs_go_to_the_bus_and_unknown_ones_fault() {
    // mov ecx, 0x40000001; rdmsr; mov ebx, eax; inc eax; wrmsr; mov ecx, 0x1b; rdmsr; mov edi, eax
    let known = [
        0x66, 0xB9, 0x01, 0x00, 0x00, 0x40, 0x0F, 0x32, 0x66, 0x89, 0xC3, 0x66, 0x40, 0x0F, 0x30, 0x66, 0xB9,
        0x1B, 0, 0, 0, 0x0F, 0x32, 0x66, 0x89, 0xC7,
    ];
    // mov ecx, 0x40000105; wrmsr  (nobody has it)
    let unknown = [0x66, 0xB9, 0x05, 0x01, 0x00, 0x40, 0x0F, 0x30];
    let Some(mut rig) = real_mode(&code(&[&known, &unknown])) else {
        return;
    };
    rig.set_vector(13, 0x2000);
    rig.memory.write(0x2000, STOP).unwrap();
    rig.bus
        .log()
        .msrs
        .extend([(0x4000_0001, 0x7_0000_0041), (msr::APIC_BASE, 0xFEE0_0900)]);
    assert_eq!(rig.run(), VpStop::Requested);
    let s = rig.state();
    assert_eq!((s.gpr[gpr::RBX], s.gpr[gpr::RDI]), (0x41, 0xFEE0_0900));
    assert_eq!(rig.bus.log().msrs[&0x4000_0001], 0x7_0000_0042);
    assert_eq!(rig.written(0xF4).len(), 1, "the handler of #GP ran");
    // The stacked return address is the WRMSR's own.
    let mut stacked = [0; 2];
    rig.memory.read(s.gpr[gpr::RSP], &mut stacked).unwrap();
    assert_eq!(u64::from(u16::from_le_bytes(stacked)), 0x1000 + 26 + 6);
}

#[test]
fn an_apic_base_write_shows_in_cpuid() {
    // mov ecx, 0x1b; rdmsr; and eax, ~0x800; wrmsr; mov eax, 1; cpuid
    let guest = [
        0x66, 0xB9, 0x1B, 0, 0, 0, 0x0F, 0x32, 0x66, 0x25, 0xFF, 0xF7, 0xFF, 0xFF, 0x0F, 0x30, 0x66, 0xB8, 1,
        0, 0, 0, 0x0F, 0xA2,
    ];
    let Some(mut rig) = rig(1, Vec::new()) else { return };
    rig.bus.log().msrs.insert(msr::APIC_BASE, 0xFEE0_0900);
    rig.load(&code(&[&guest, STOP]), &real_mode_state());
    assert_eq!(rig.run(), VpStop::Requested);
    assert_eq!(rig.bus.log().msrs[&msr::APIC_BASE], 0xFEE0_0100);
    assert_eq!(
        rig.state().gpr[gpr::RDX] & 1 << 9,
        0,
        "cpuid no longer shows an apic"
    );
}

#[test]
fn cpuid_shows_the_partitions_leaves_and_hides_what_is_not_there() {
    // Runs leaves 0x40000000, 1 and 0x80000001 and stores their results at 0x3000.
    let mut guest = vec![0xBF, 0x00, 0x30, 0x00, 0x00];
    for leaf in [0x4000_0000u32, 1, 0x8000_0001, 0x4000_0100] {
        guest.push(0xB8);
        guest.extend(leaf.to_le_bytes());
        // xor ecx, ecx; cpuid; mov [rdi], eax; mov [rdi+4], ebx; mov [rdi+8], ecx; mov [rdi+12], edx; add rdi, 16
        guest.extend([
            0x31, 0xC9, 0x0F, 0xA2, 0x89, 0x07, 0x89, 0x5F, 0x04, 0x89, 0x4F, 0x08, 0x89, 0x57, 0x0C,
        ]);
        guest.extend([0x48, 0x83, 0xC7, 0x10]);
    }
    let own = CpuidEntry {
        leaf: 0x4000_0000,
        eax: 0x4000_000B,
        ebx: 1,
        ecx: 2,
        edx: 3,
        ..Default::default()
    };
    let Some(mut rig) = rig(1, vec![own]) else { return };
    rig.memory.write(0x8000, &0x9003u64.to_le_bytes()).unwrap();
    rig.memory.write(0x9000, &0xA003u64.to_le_bytes()).unwrap();
    rig.memory.write(0xA000, &0x83u64.to_le_bytes()).unwrap();
    rig.load(&code(&[&guest, STOP]), &long_mode_state());
    assert_eq!(rig.run(), VpStop::Requested);
    let mut bytes = [0; 64];
    rig.memory.read(0x3000, &mut bytes).unwrap();
    let word = |n: usize| u32::from_le_bytes(bytes[n * 4..n * 4 + 4].try_into().unwrap());
    assert_eq!([word(0), word(1), word(2), word(3)], [0x4000_000B, 1, 2, 3]);
    assert_eq!(word(5) >> 24, 0, "apic id of vp 0");
    assert_eq!(
        word(6) & (1 << 5 | 1 << 21 | 1 << 24),
        0,
        "vmx, x2apic and tsc deadline are hidden"
    );
    assert_ne!(word(6) & 1 << 31, 0, "the hypervisor bit is set");
    assert_eq!(word(10) & 1 << 2, 0, "svm is hidden");
    assert_ne!(
        word(13),
        u32::from_le_bytes(*b"KVMK"),
        "kvm's own leaves are gone"
    );
}
