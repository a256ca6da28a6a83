// SPDX-License-Identifier: MIT
//! CPUID leaves and synthetic registers (msvm-machine section 6; TLFS).

use guest_rt::cpu::{cpuid, rdmsr, wrmsr};
use guest_rt::memory;
use guest_rt::report::{check, equal, info};

/// Synthetic registers.
#[allow(missing_docs, reason = "the names of the TLFS")]
pub(crate) mod msr {
    pub(crate) const GUEST_OS_ID: u32 = 0x4000_0000;
    pub(crate) const HYPERCALL: u32 = 0x4000_0001;
    pub(crate) const VP_INDEX: u32 = 0x4000_0002;
    pub(crate) const TIME_REF_COUNT: u32 = 0x4000_0020;
    pub(crate) const REFERENCE_TSC: u32 = 0x4000_0021;
    pub(crate) const TSC_FREQUENCY: u32 = 0x4000_0022;
    pub(crate) const APIC_FREQUENCY: u32 = 0x4000_0023;
    pub(crate) const VP_ASSIST_PAGE: u32 = 0x4000_0073;
    pub(crate) const SCONTROL: u32 = 0x4000_0080;
    pub(crate) const SVERSION: u32 = 0x4000_0081;
    pub(crate) const SIEFP: u32 = 0x4000_0082;
    pub(crate) const SIMP: u32 = 0x4000_0083;
    pub(crate) const EOM: u32 = 0x4000_0084;
    pub(crate) const SINT0: u32 = 0x4000_0090;
    pub(crate) const STIMER0_CONFIG: u32 = 0x4000_00B0;
    pub(crate) const STIMER0_COUNT: u32 = 0x4000_00B1;
    pub(crate) const CRASH_CTL: u32 = 0x4000_0105;
}

/// Free RAM above the image and the blob.
pub(crate) const HYPERCALL_PAGE: u64 = 0x88_0000;
pub(crate) const MESSAGE_PAGE: u64 = 0x88_1000;
pub(crate) const EVENT_PAGE: u64 = 0x88_2000;
pub(crate) const TSC_PAGE: u64 = 0x88_3000;
pub(crate) const PARAMETERS: u64 = 0x88_4000;
const ASSIST_PAGE: u64 = 0x88_5000;

const ENABLED: u64 = 1;
const SINT_MASKED: u64 = 1 << 16;
/// Operating system id that the firmware gives: vendor 1 (Microsoft's UEFI).
const OS_ID: u64 = 0x0000_0100_0000_0000;

/// The leaves that the firmware reads, and those that the operating system will.
pub(crate) fn check_leaves() {
    check("hypervisor-present", cpuid(1, 0)[2] >> 31 == 1, format_args!(""));
    let [max, b, c, d] = cpuid(0x4000_0000, 0);
    check("leaf-max", max >= 0x4000_0005, format_args!("{max:#x}"));
    let vendor = [b, c, d] == [0x7263_694D, 0x666F_736F, 0x7648_2074];
    check("leaf-vendor", vendor, format_args!("{b:#x} {c:#x} {d:#x}"));
    equal("leaf-interface", cpuid(0x4000_0001, 0)[0].into(), 0x3123_7648);
    let [privileges, calls, _, features] = cpuid(0x4000_0003, 0);
    // Reference counter, SynIC, synthetic timers, hypercall registers, VP index.
    let wanted = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6;
    equal("leaf-privileges", (privileges & wanted).into(), wanted.into());
    equal("leaf-not-isolated", (calls >> 22 & 1).into(), 0);
    equal("leaf-post-and-signal", (calls >> 4 & 3).into(), 3);
    equal("leaf-direct-timers", (features >> 19 & 1).into(), 1);
    equal("leaf-crash-registers", (features >> 10 & 1).into(), 1);
    let hints = cpuid(0x4000_0004, 0)[0];
    equal("leaf-no-auto-eoi", (hints >> 9 & 1).into(), 1);
    equal("leaf-no-pinning", (hints >> 22 & 1).into(), 0);
    // Without 1 GiB pages the firmware maps up to 46 bits.
    let (large, bits) = (
        cpuid(0x8000_0001, 0)[3] >> 26 & 1,
        cpuid(0x8000_0008, 0)[0] & 0xFF,
    );
    check(
        "address-width",
        large == 1 || bits <= 46,
        format_args!("{bits} bits"),
    );
    let processors = cpuid(0x4000_0005, 0)[0];
    check(
        "leaf-max-processors",
        processors > 0,
        format_args!("{processors}"),
    );
}

/// Guest OS id, then the hypercall page.
pub(crate) fn identify() {
    wrmsr(msr::HYPERCALL, HYPERCALL_PAGE | ENABLED);
    equal("hypercall-needs-identity", rdmsr(msr::HYPERCALL) & ENABLED, 0);
    wrmsr(msr::GUEST_OS_ID, OS_ID);
    equal("guest-os-id", rdmsr(msr::GUEST_OS_ID), OS_ID);
    equal("hypercall-starts-disabled", rdmsr(msr::HYPERCALL) & ENABLED, 0);
    wrmsr(msr::HYPERCALL, HYPERCALL_PAGE | ENABLED);
    equal(
        "hypercall-register",
        rdmsr(msr::HYPERCALL),
        HYPERCALL_PAGE | ENABLED,
    );
    let first = memory::read_u32(HYPERCALL_PAGE) & 0xFF_FFFF;
    check("hypercall-page-filled", first != 0, format_args!("{first:#x}"));
}

/// Message and event pages.
pub(crate) fn enable_pages() {
    equal("scontrol", rdmsr(msr::SCONTROL), 1);
    equal("sversion", rdmsr(msr::SVERSION), 1);
    for (name, register, page) in [
        ("simp", msr::SIMP, MESSAGE_PAGE),
        ("siefp", msr::SIEFP, EVENT_PAGE),
    ] {
        equal("synic-page-starts-disabled", rdmsr(register) & ENABLED, 0);
        wrmsr(register, page | ENABLED);
        equal(name, rdmsr(register), page | ENABLED);
    }
    for sint in 0..16 {
        if rdmsr(msr::SINT0 + sint) & SINT_MASKED == 0 {
            check("sint-starts-masked", false, format_args!("{sint}"));
        }
    }
}

/// Registers that the operating system uses.
pub(crate) fn check_other_registers() {
    equal("vp-index", rdmsr(msr::VP_INDEX), 0);
    if cpuid(0x4000_0003, 0)[0] >> 11 & 1 == 1 {
        info("tsc-frequency", format_args!("{}", rdmsr(msr::TSC_FREQUENCY)));
        info("apic-frequency", format_args!("{}", rdmsr(msr::APIC_FREQUENCY)));
    }
    memory::write_u32(ASSIST_PAGE, 0xAAAA_AAAA);
    wrmsr(msr::VP_ASSIST_PAGE, ASSIST_PAGE | ENABLED);
    equal("vp-assist-page-covers", memory::read_u32(ASSIST_PAGE).into(), 0);
    wrmsr(msr::VP_ASSIST_PAGE, 0);
    equal(
        "vp-assist-page-uncovers",
        memory::read_u32(ASSIST_PAGE).into(),
        0xAAAA_AAAA,
    );
    equal("crash-control", rdmsr(msr::CRASH_CTL) >> 63, 1);
}

/// What happens at the end of boot services.
pub(crate) fn tear_down() {
    for timer in 0..4 {
        wrmsr(msr::STIMER0_COUNT + 2 * timer, 0);
        wrmsr(msr::STIMER0_CONFIG + 2 * timer, 0);
    }
    (0..16).for_each(|sint| wrmsr(msr::SINT0 + sint, SINT_MASKED));
    for register in [msr::SIMP, msr::SIEFP, msr::HYPERCALL, msr::GUEST_OS_ID] {
        wrmsr(register, 0);
        equal("switched-off", rdmsr(register), 0);
    }
    let below = memory::read_u32(HYPERCALL_PAGE);
    equal("hypercall-page-uncovers", below.into(), 0);
}
