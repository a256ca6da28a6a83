// SPDX-License-Identifier: MIT
//! The hypervisor's CPUID leaves (TLFS "Feature and interface discovery"; `msvm-machine` section 6).
//!
//! Always true: a privilege is advertised exactly when the registers or hypercalls behind it work.
//! Not here: the hypervisor-present bit of leaf 1, which backends set.

use crate::partition::HyperVConfig;
use x86defs::cpuid::CpuidEntry;

/// Vendor string "Microsoft Hv" as EBX, ECX and EDX of leaf 0x40000000.
const VENDOR: [u32; 3] = [0x7263_694D, 0x666F_736F, 0x7648_2074];
/// "Hv#1": the interface is the one of the TLFS.
const INTERFACE: u32 = 0x3123_7648;
/// Highest leaf.
const MAX_LEAF: u32 = 0x4000_0006;
/// Logical processors that the interface can name.
const MAX_LOGICAL_PROCESSORS: u32 = 2048;

/// EAX of leaf 0x40000003.
pub mod privilege {
    /// Partition reference counter.
    pub const TIME_REF_COUNT: u32 = 1 << 1;
    /// Synthetic interrupt controller.
    pub const SYNIC: u32 = 1 << 2;
    /// Synthetic timers.
    pub const SYNTHETIC_TIMERS: u32 = 1 << 3;
    /// EOI, ICR, TPR and the VP assist page.
    pub const INTERRUPT_CONTROL: u32 = 1 << 4;
    /// Guest OS id and hypercall page.
    pub const HYPERCALL: u32 = 1 << 5;
    /// Virtual processor index.
    pub const VP_INDEX: u32 = 1 << 6;
    /// Reset register.
    pub const RESET: u32 = 1 << 7;
    /// Reference TSC page.
    pub const REFERENCE_TSC: u32 = 1 << 9;
    /// Frequencies of TSC and local APIC.
    pub const FREQUENCIES: u32 = 1 << 11;
    /// TSC invariant control.
    pub const TSC_INVARIANT: u32 = 1 << 15;
}

/// EBX of leaf 0x40000003.
pub mod hypercall_privilege {
    /// HvPostMessage.
    pub const POST_MESSAGES: u32 = 1 << 4;
    /// HvSignalEvent.
    pub const SIGNAL_EVENTS: u32 = 1 << 5;
}

/// EDX of leaf 0x40000003.
pub mod feature {
    /// The frequency registers can be read.
    pub const FREQUENCIES: u32 = 1 << 8;
    /// Crash registers.
    pub const CRASH: u32 = 1 << 10;
    /// Timers can raise a vector without a message.
    pub const DIRECT_TIMERS: u32 = 1 << 19;
}

/// EAX of leaf 0x40000004.
pub mod hint {
    /// Watchdogs should be patient: virtual time is not exact.
    pub const RELAXED_TIMING: u32 = 1 << 5;
    /// Do not use auto-EOI.
    pub const NO_AUTO_EOI: u32 = 1 << 9;
}

/// All leaves of the interface.
pub fn leaves(config: &HyperVConfig) -> Vec<CpuidEntry> {
    let leaf = |leaf, eax, ebx, ecx, edx| CpuidEntry {
        leaf,
        subleaf: None,
        eax,
        ebx,
        ecx,
        edx,
    };
    vec![
        leaf(0x4000_0000, MAX_LEAF, VENDOR[0], VENDOR[1], VENDOR[2]),
        leaf(0x4000_0001, INTERFACE, 0, 0, 0),
        // Version 10.0 build 20348, the first whose interface has everything above.
        leaf(0x4000_0002, 20348, 10 << 16, 0, 0),
        leaf(
            0x4000_0003,
            privileges(config),
            hypercall_privilege::POST_MESSAGES | hypercall_privilege::SIGNAL_EVENTS,
            0,
            features(config),
        ),
        // EBX: never notify the hypervisor of spinning.
        leaf(
            0x4000_0004,
            hint::RELAXED_TIMING | hint::NO_AUTO_EOI,
            u32::MAX,
            config.phys_bits.into(),
            0,
        ),
        leaf(0x4000_0005, config.vp_count, MAX_LOGICAL_PROCESSORS, 0, 0),
        leaf(0x4000_0006, 0, 0, 0, 0),
    ]
}

fn privileges(config: &HyperVConfig) -> u32 {
    use privilege::*;
    let always = TIME_REF_COUNT | SYNIC | SYNTHETIC_TIMERS | INTERRUPT_CONTROL | HYPERCALL | VP_INDEX | RESET;
    let frequencies = config.tsc_hz.map_or(0, |_| FREQUENCIES);
    let tsc = config
        .reference_tsc_hz()
        .map_or(0, |_| REFERENCE_TSC | TSC_INVARIANT);
    always | frequencies | tsc
}

fn features(config: &HyperVConfig) -> u32 {
    let frequencies = config.tsc_hz.map_or(0, |_| feature::FREQUENCIES);
    feature::CRASH | feature::DIRECT_TIMERS | frequencies
}
