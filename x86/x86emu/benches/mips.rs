// SPDX-License-Identifier: MIT
//! Guest instructions per second of host CPU time on three loops: integer, memory, calls.
//!
//! `cargo bench -p x86emu`. Reports the best of three runs; a run is 200 million instructions (20 with
//! `--quick`).

use x86defs::{SegmentAttributes, SegmentRegister, X86State};
use x86emu::{CodeMap, Config, Cpu, Exit};

#[path = "../examples/shared/plain.rs"]
mod plain;
use plain::{Plain, Ram, cpu_seconds};

const START: u64 = 0x10_0000;

/// add, xor, shifts, lea, dec, jnz.
const INTEGER: &[u8] = &[
    0x48, 0x01, 0xD8, // add rax, rbx
    0x48, 0x31, 0xC3, // xor rbx, rax
    0x48, 0xC1, 0xE0, 0x03, // shl rax, 3
    0x89, 0xC2, // mov edx, eax
    0x48, 0x8D, 0x7C, 0x13, 0x05, // lea rdi, [rbx+rdx+5]
    0xFF, 0xC9, // dec ecx
    0x75, 0xEB, // jnz
    0xEB, 0xE9, // jmp
];
/// Copy and sum over 64 KiB.
const MEMORY: &[u8] = &[
    0x48, 0x8B, 0x04, 0x0E, // mov rax, [rsi+rcx]
    0x48, 0x03, 0x04, 0x0F, // add rax, [rdi+rcx]
    0x48, 0x89, 0x04, 0x0F, // mov [rdi+rcx], rax
    0x0F, 0xB6, 0x16, // movzx edx, byte [rsi]
    0x83, 0xC1, 0x08, // add ecx, 8
    0x81, 0xE1, 0xF8, 0xFF, 0x00, 0x00, // and ecx, 0xfff8
    0xEB, 0xE6, // jmp
];
/// A function that saves registers and calls another.
const CALLS: &[u8] = &[
    0xE8, 0x02, 0x00, 0x00, 0x00, // call f
    0xEB, 0xF9, // jmp
    0x53, // f: push rbx
    0x55, // push rbp
    0x89, 0xFB, // mov ebx, edi
    0xE8, 0x06, 0x00, 0x00, 0x00, // call g
    0x01, 0xD8, // add eax, ebx
    0x5D, // pop rbp
    0x5B, // pop rbx
    0xC3, // ret
    0x90, 0x8D, 0x47, 0x01, // g: lea eax, [rdi+1]
    0x83, 0xF8, 0x10, // cmp eax, 16
    0x77, 0x01, // ja +1
    0xC3, // ret
    0xC3, // ret
];

fn mips(code: &[u8], count: u64) -> f64 {
    let mut ram = Ram::new(4 << 20);
    ram.write(START as usize, code);
    let mut entry = |at: usize, v: u64| ram.write(at, &v.to_le_bytes());
    entry(0x1000, 0x2003);
    entry(0x2000, 0x3003);
    entry(0x3000, 0x83);
    entry(0x3008, 0x20_0083);
    let seg = |selector, a| SegmentRegister {
        selector,
        attributes: SegmentAttributes(a),
        limit: u32::MAX,
        base: 0,
    };
    let mut s = X86State::reset();
    s.cs = seg(0x10, 0xA09B);
    s.ss = seg(0x18, 0xC093);
    s.cr0 = 0x8000_0011;
    s.cr3 = 0x1000;
    s.cr4 = 0x20;
    s.efer = 0x500;
    s.rip = START;
    s.gpr = [0; 16];
    s.gpr[4] = 0x20_0000;
    (s.gpr[6], s.gpr[7]) = (0x22_0000, 0x24_0000);
    let mut world = Plain(ram);
    let mut best: f64 = 0.0;
    for _ in 0..3 {
        let mut cpu = Cpu::new(Config {
            cpuid: x86emu::cpuid::baseline(40),
            phys_bits: 40,
            code: CodeMap::new(4 << 20),
        });
        cpu.set_state(&s);
        let start = cpu_seconds();
        let exit = cpu.run(&mut world, count);
        let t = cpu_seconds() - start;
        assert_eq!((exit, cpu.retired()), (Exit::Budget, count));
        best = best.max(count as f64 / t / 1e6);
    }
    best
}

fn main() {
    let quick = std::env::args().any(|a| a == "--quick");
    let count = if quick { 20_000_000 } else { 200_000_000 };
    for (name, code) in [("integer", INTEGER), ("memory", MEMORY), ("calls", CALLS)] {
        println!("{name:8} {:7.0} mips", mips(code, count));
    }
}
