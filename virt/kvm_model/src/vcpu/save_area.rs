// SPDX-License-Identifier: MIT
//! The save area (VMSA) that KVM builds when it seals a VP (`spec/sev.md` 2.6, the kernel's `sev_es_sync_vmsa`).
//!
//! Always true: every byte comes from the VP's state as the ioctls left it, so a backend that forgets a
//! register gets another digest, as it would on hardware. What KVM does not copy (CR2, DR0 to DR3, TSC_AUX)
//! is zero here too. Not here: a prediction from a file; that is `launch_digest`'s.

use super::{CS, DS, ES, FS, GS, LDT, MSR_PAT, RFLAGS, RIP, SS, Segment, TR, Vcpu};
use crate::firmware::put;
use crate::physical::PAGE;

/// CR0.NW and CR0.CD, which KVM takes out of what the processor gets.
const CR0_CACHE: u64 = 3 << 29;
const CR4_MCE: u64 = 1 << 6;
const EFER_SVME: u64 = 1 << 12;

/// Offsets of the general registers in the order of `struct kvm_regs`.
const GENERAL: [usize; 16] = [
    0x1F8, 0x318, 0x308, 0x310, 0x330, 0x338, 0x1D8, 0x328, 0x340, 0x348, 0x350, 0x358, 0x360, 0x368, 0x370,
    0x378,
];
/// MSRs that land in the save area, with how many bytes of them.
const MSRS: [(u32, usize); 11] = [
    (0xC000_0081, 0x200),
    (0xC000_0082, 0x208),
    (0xC000_0083, 0x210),
    (0xC000_0084, 0x218),
    (0xC000_0102, 0x220),
    (0x174, 0x228),
    (0x175, 0x230),
    (0x176, 0x238),
    (MSR_PAT, 0x268),
    (0xDA0, 0x140),
    (0x48, 0x2E0),
];

/// The page. `features` is what INIT2 set, with SNP_ACTIVE; `with_fpu` is false after the legacy ES_INIT.
pub(crate) fn build(vcpu: &Vcpu, features: u64, with_fpu: bool) -> Box<[u8; PAGE]> {
    let mut page = Box::new([0; PAGE]);
    segments(vcpu, &mut page);
    page[0xCB] = vcpu.cpl;
    put::<8>(&mut page[..], 0xD0, vcpu.efer | EFER_SVME);
    for (msr, at) in MSRS {
        put::<8>(&mut page[..], at, vcpu.msr(msr));
    }
    let control = [
        (0x148, vcpu.cr4 | CR4_MCE),
        (0x150, vcpu.cr3),
        (0x158, vcpu.cr0 & !CR0_CACHE),
        (0x160, vcpu.dr7),
        (0x168, vcpu.dr6),
        (0x170, vcpu.regs[RFLAGS]),
        (0x178, vcpu.regs[RIP]),
        (0x3B0, features),
        (0x3E8, vcpu.xcr0),
    ];
    for (at, value) in control {
        put::<8>(&mut page[..], at, value);
    }
    for (value, at) in vcpu.regs.iter().zip(GENERAL) {
        put::<8>(&mut page[..], at, *value);
    }
    put::<4>(&mut page[..], 0x2E8, vcpu.pkru.into());
    if with_fpu {
        fpu(vcpu, &mut page);
    }
    page
}

fn segments(vcpu: &Vcpu, page: &mut [u8; PAGE]) {
    let table = |(base, limit): (u64, u16)| Segment {
        base,
        limit: limit.into(),
        ..Default::default()
    };
    let all = [
        (0x00, vcpu.segments[ES]),
        (0x10, vcpu.segments[CS]),
        (0x20, vcpu.segments[SS]),
        (0x30, vcpu.segments[DS]),
        (0x40, vcpu.segments[FS]),
        (0x50, vcpu.segments[GS]),
        (0x60, table(vcpu.gdt)),
        (0x70, vcpu.segments[LDT]),
        (0x80, table(vcpu.idt)),
        (0x90, vcpu.segments[TR]),
    ];
    for (at, segment) in all {
        put::<2>(page, at, segment.selector.into());
        put::<2>(page, at + 2, segment.attributes.into());
        put::<4>(page, at + 4, segment.limit.into());
        put::<8>(page, at + 8, segment.base);
    }
}

/// From the FXSAVE image: DP, MXCSR, FTW in its short form, FSW, FCW, FOP, RIP, the registers' low halves
/// and then their high ones, XMM and the upper halves of YMM.
fn fpu(vcpu: &Vcpu, page: &mut [u8; PAGE]) {
    let fx = &vcpu.fx[..];
    let copies = [
        (0x400, 16, 8),
        (0x408, 24, 4),
        (0x40C, 4, 1),
        (0x40E, 2, 2),
        (0x410, 0, 2),
        (0x412, 6, 2),
        (0x418, 8, 8),
        (0x470, 160, 256),
    ];
    for (to, from, len) in copies {
        page[to..to + len].copy_from_slice(&fx[from..from + len]);
    }
    for register in 0..8 {
        let from = 32 + 16 * register;
        page[0x420 + 8 * register..][..8].copy_from_slice(&fx[from..from + 8]);
        page[0x460 + 2 * register..][..2].copy_from_slice(&fx[from + 8..from + 10]);
    }
    page[0x570..0x670].copy_from_slice(&vcpu.ymm[..]);
}
