// SPDX-License-Identifier: MIT
//! CPUID, MSRs, control and table registers, flags.
//!
//! Always true: one instruction per call. Not here: what the values mean (`x86defs` on the host knows the
//! same numbers; payloads name the few that they need).

use core::arch::asm;
use core::arch::x86_64::__cpuid_count;

/// MSR numbers that payloads read or write (Intel SDM volume 4).
#[allow(missing_docs)]
pub mod msr {
    pub const APIC_BASE: u32 = 0x1B;
    pub const MTRR_CAP: u32 = 0xFE;
    pub const MTRR_PHYS_BASE0: u32 = 0x200;
    pub const MTRR_DEF_TYPE: u32 = 0x2FF;
    pub const PAT: u32 = 0x277;
    pub const EFER: u32 = 0xC000_0080;
    pub const FS_BASE: u32 = 0xC000_0100;
    pub const GS_BASE: u32 = 0xC000_0101;
    /// Fixed MTRRs and the first address of each.
    pub const MTRR_FIXED: [(u32, u32); 11] = [
        (0x250, 0x00000),
        (0x258, 0x80000),
        (0x259, 0xA0000),
        (0x268, 0xC0000),
        (0x269, 0xC8000),
        (0x26A, 0xD0000),
        (0x26B, 0xD8000),
        (0x26C, 0xE0000),
        (0x26D, 0xE8000),
        (0x26E, 0xF0000),
        (0x26F, 0xF8000),
    ];
}

/// CPUID: EAX, EBX, ECX, EDX.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let r = __cpuid_count(leaf, subleaf);
    [r.eax, r.ebx, r.ecx, r.edx]
}

/// This processor's initial APIC id.
pub fn apic_id() -> u8 {
    (cpuid(1, 0)[1] >> 24) as u8
}

/// RDMSR.
pub fn rdmsr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a register; an unknown one traps and is reported.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high,
            options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// WRMSR.
pub fn wrmsr(msr: u32, value: u64) {
    // SAFETY: payloads write registers that do not move memory under running code.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags));
    }
}

macro_rules! read_register {
    ($name:ident, $type:ty, $text:literal, $doc:literal) => {
        #[doc = $doc]
        pub fn $name() -> $type {
            let value: $type;
            // SAFETY: reads a register.
            unsafe { asm!($text, out(reg) value, options(nomem, nostack, preserves_flags)) };
            value
        }
    };
}

read_register!(cr0, u64, "mov {}, cr0", "CR0.");
read_register!(cr2, u64, "mov {}, cr2", "CR2.");
read_register!(cr3, u64, "mov {}, cr3", "CR3.");
read_register!(cr4, u64, "mov {}, cr4", "CR4.");
read_register!(cs, u16, "mov {:x}, cs", "CS selector.");
read_register!(ds, u16, "mov {:x}, ds", "DS selector.");
read_register!(es, u16, "mov {:x}, es", "ES selector.");
read_register!(fs, u16, "mov {:x}, fs", "FS selector.");
read_register!(gs, u16, "mov {:x}, gs", "GS selector.");
read_register!(ss, u16, "mov {:x}, ss", "SS selector.");
read_register!(tr, u16, "str {:x}", "Task register selector.");

/// Loads CR3.
pub fn set_cr3(value: u64) {
    // SAFETY: the runtime's tables map everything that the old ones mapped below 4 GiB one to one.
    unsafe { asm!("mov cr3, {}", in(reg) value, options(nostack, preserves_flags)) };
}

/// A table register as SGDT, SIDT, LGDT and LIDT see it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C, packed)]
pub struct TableRegister {
    /// Limit in bytes, less one.
    pub limit: u16,
    /// Base address.
    pub base: u64,
}

/// SGDT.
pub fn gdtr() -> TableRegister {
    let mut value = TableRegister::default();
    // SAFETY: stores ten bytes into `value`.
    unsafe { asm!("sgdt [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
    value
}

/// SIDT.
pub fn idtr() -> TableRegister {
    let mut value = TableRegister::default();
    // SAFETY: stores ten bytes into `value`.
    unsafe { asm!("sidt [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
    value
}

/// LIDT.
pub fn load_idt(value: &TableRegister) {
    // SAFETY: the table is static or, to crash on purpose, empty.
    unsafe { asm!("lidt [{}]", in(reg) value, options(nostack, preserves_flags, readonly)) };
}

/// LGDT and a reload of all segment registers: code 0x08, data 0x10.
pub fn load_gdt(value: &TableRegister) {
    // SAFETY: the table is static and holds a 64-bit code segment at 0x08 and flat data at 0x10; GS and FS
    // bases become 0, nothing here uses them.
    unsafe {
        asm!(
            "lgdt [{table}]",
            "push 0x08",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            "mov {scratch:e}, 0x10",
            "mov ds, {scratch:e}",
            "mov es, {scratch:e}",
            "mov fs, {scratch:e}",
            "mov gs, {scratch:e}",
            "mov ss, {scratch:e}",
            table = in(reg) value,
            scratch = out(reg) _,
        );
    }
}

/// LTR.
pub fn load_task_register(selector: u16) {
    // SAFETY: the selector names an available task state segment.
    unsafe { asm!("ltr {:x}", in(reg) selector, options(nostack, preserves_flags)) };
}

/// Loads CR0.
pub fn set_cr0(value: u64) {
    // SAFETY: payloads change WP, AM and TS, nothing that code here needs.
    unsafe { asm!("mov cr0, {}", in(reg) value, options(nostack, preserves_flags)) };
}

/// Loads CR4.
pub fn set_cr4(value: u64) {
    // SAFETY: payloads turn protections on and off again whose faults they expect.
    unsafe { asm!("mov cr4, {}", in(reg) value, options(nostack, preserves_flags)) };
}

macro_rules! write_register {
    ($name:ident, $text:literal, $doc:literal) => {
        #[doc = $doc]
        pub fn $name(value: u64) {
            // SAFETY: a case of a payload that expects what follows, and clears it again.
            unsafe { asm!($text, in(reg) value, options(nostack, preserves_flags)) };
        }
    };
}

write_register!(set_cr8, "mov cr8, {}", "Loads CR8.");
write_register!(set_dr0, "mov dr0, {}", "Loads DR0.");
write_register!(set_dr6, "mov dr6, {}", "Loads DR6.");
write_register!(set_dr7, "mov dr7, {}", "Loads DR7.");
read_register!(dr0, u64, "mov {}, dr0", "DR0.");
read_register!(dr6, u64, "mov {}, dr6", "DR6.");

/// RFLAGS.
pub fn rflags() -> u64 {
    let value: u64;
    // SAFETY: pushes and pops one word.
    unsafe { asm!("pushfq", "pop {}", out(reg) value, options(preserves_flags)) };
    value
}

/// STI.
pub fn enable_interrupts() {
    // SAFETY: the runtime's IDT has a handler for every vector.
    unsafe { asm!("sti", options(nostack)) };
}

/// CLI.
pub fn disable_interrupts() {
    // SAFETY: masks interrupts, nothing else.
    unsafe { asm!("cli", options(nostack)) };
}

/// STI; HLT; CLI: sleeps until an interrupt has been handled.
pub fn wait_for_interrupt() {
    // SAFETY: as for `enable_interrupts`; the STI shadow keeps an interrupt from getting lost.
    unsafe { asm!("sti", "hlt", "cli", options(nostack)) };
}

/// HLT with interrupts off, forever.
pub fn halt() -> ! {
    loop {
        // SAFETY: stops this processor; an NMI or a reset from outside still gets through.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// PAUSE.
pub fn relax() {
    core::hint::spin_loop();
}

/// RDTSC.
pub fn tsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter.
    unsafe {
        asm!("rdtsc", out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// An empty IDT and INT3: a triple fault.
pub fn triple_fault() -> ! {
    let none = TableRegister::default();
    load_idt(&none);
    loop {
        // SAFETY: the processor shuts down here, which is what is asked for.
        unsafe { asm!("ud2", options(nomem, nostack)) };
    }
}

/// Leaves a status and a source line in RAX and RCX and triple faults, as Microsoft's firmware does when it gives up.
pub fn fail_fast(status: u64, line: u64) -> ! {
    let none = TableRegister { limit: 0, base: 0 };
    // SAFETY: nothing runs afterwards: without an IDT the first fault is the last.
    unsafe {
        asm!("lidt [{none}]", "ud2", none = in(reg) &raw const none, in("rax") status, in("rcx") line, options(noreturn));
    }
}
