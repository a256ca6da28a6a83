// SPDX-License-Identifier: MIT
//! Register state between [`X86State`] and KVM's structures.
//!
//! Always true: every field of `X86State` is carried both ways; CR8 and the APIC base belong to the local
//! APIC, which the caller asks.

use kvm_sys::bindings as kb;
use kvm_sys::{KvmError, Vcpu};
use x86defs::state::{FIXED_MTRR_MSRS, VARIABLE_MTRRS};
use x86defs::{SegmentAttributes, SegmentRegister, TableRegister, X86State, msr};

/// Registers before the MTRRs in the order of [`msr_values`].
const PLAIN_MSRS: [u32; 11] = [
    msr::PAT,
    msr::SYSENTER_CS,
    msr::SYSENTER_ESP,
    msr::SYSENTER_EIP,
    msr::STAR,
    msr::LSTAR,
    msr::CSTAR,
    msr::SFMASK,
    msr::KERNEL_GS_BASE,
    msr::TSC_AUX,
    msr::MTRR_DEF_TYPE,
];

fn msr_numbers() -> Vec<u32> {
    let variable = msr::MTRR_PHYS_BASE0..msr::MTRR_PHYS_BASE0 + 2 * VARIABLE_MTRRS as u32;
    PLAIN_MSRS
        .into_iter()
        .chain(FIXED_MTRR_MSRS)
        .chain(variable)
        .collect()
}

fn msr_values(s: &X86State) -> Vec<u64> {
    let (sysenter, syscall) = (s.sysenter, s.syscall);
    let plain = [
        s.pat,
        sysenter.0,
        sysenter.1,
        sysenter.2,
        syscall.0,
        syscall.1,
        syscall.2,
        syscall.3,
        s.kernel_gs_base,
        s.tsc_aux,
        s.mtrr.def_type,
    ];
    let variable = s.mtrr.variable.iter().flat_map(|&(base, mask)| [base, mask]);
    plain.into_iter().chain(s.mtrr.fixed).chain(variable).collect()
}

fn set_from_msrs(s: &mut X86State, values: &[u64]) {
    let (plain, mtrrs) = values.split_at(PLAIN_MSRS.len());
    s.pat = plain[0];
    s.sysenter = (plain[1], plain[2], plain[3]);
    s.syscall = (plain[4], plain[5], plain[6], plain[7]);
    s.kernel_gs_base = plain[8];
    s.tsc_aux = plain[9];
    s.mtrr.def_type = plain[10];
    let (fixed, variable) = mtrrs.split_at(FIXED_MTRR_MSRS.len());
    s.mtrr.fixed.copy_from_slice(fixed);
    for (pair, values) in s.mtrr.variable.iter_mut().zip(variable.chunks_exact(2)) {
        *pair = (values[0], values[1]);
    }
}

fn segment_to_kvm(s: &SegmentRegister) -> kb::kvm_segment {
    let a = s.attributes;
    let bit = |bit: u32| u8::from(a.has(bit));
    kb::kvm_segment {
        base: s.base,
        limit: s.limit,
        selector: s.selector,
        type_: a.segment_type(),
        present: bit(SegmentAttributes::P),
        dpl: a.dpl(),
        db: bit(SegmentAttributes::DB),
        s: bit(SegmentAttributes::S),
        l: bit(SegmentAttributes::L),
        g: bit(SegmentAttributes::G),
        avl: bit(AVL),
        unusable: bit(SegmentAttributes::UNUSABLE),
        padding: 0,
    }
}

/// Available to software.
const AVL: u32 = 1 << 12;

fn segment_from_kvm(s: &kb::kvm_segment) -> SegmentRegister {
    let bit = |on: u8, bit: u32| if on != 0 { bit } else { 0 };
    let attributes = u32::from(s.type_ & 0xF)
        | bit(s.s, SegmentAttributes::S)
        | u32::from(s.dpl & 3) << 5
        | bit(s.present, SegmentAttributes::P)
        | bit(s.avl, AVL)
        | bit(s.l, SegmentAttributes::L)
        | bit(s.db, SegmentAttributes::DB)
        | bit(s.g, SegmentAttributes::G)
        | bit(s.unusable, SegmentAttributes::UNUSABLE);
    SegmentRegister {
        selector: s.selector,
        attributes: SegmentAttributes(attributes),
        limit: s.limit,
        base: s.base,
    }
}

fn table_to_kvm(t: &TableRegister) -> kb::kvm_dtable {
    kb::kvm_dtable {
        base: t.base,
        limit: t.limit,
        ..Default::default()
    }
}

fn table_from_kvm(t: &kb::kvm_dtable) -> TableRegister {
    TableRegister {
        base: t.base,
        limit: t.limit,
    }
}

fn regs(s: &X86State) -> kb::kvm_regs {
    let [
        rax,
        rcx,
        rdx,
        rbx,
        rsp,
        rbp,
        rsi,
        rdi,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
    ] = s.gpr;
    kb::kvm_regs {
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rsp,
        rbp,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip: s.rip,
        rflags: s.rflags,
    }
}

fn set_from_regs(s: &mut X86State, r: &kb::kvm_regs) {
    s.gpr = [
        r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13,
        r.r14, r.r15,
    ];
    s.rip = r.rip;
    s.rflags = r.rflags;
}

fn sregs(s: &X86State, apic_base: u64) -> kb::kvm_sregs {
    kb::kvm_sregs {
        cs: segment_to_kvm(&s.cs),
        ds: segment_to_kvm(&s.ds),
        es: segment_to_kvm(&s.es),
        fs: segment_to_kvm(&s.fs),
        gs: segment_to_kvm(&s.gs),
        ss: segment_to_kvm(&s.ss),
        tr: segment_to_kvm(&s.tr),
        ldt: segment_to_kvm(&s.ldtr),
        gdt: table_to_kvm(&s.gdtr),
        idt: table_to_kvm(&s.idtr),
        cr0: s.cr0,
        cr2: s.cr2,
        cr3: s.cr3,
        cr4: s.cr4,
        cr8: s.cr8,
        efer: s.efer,
        apic_base,
        interrupt_bitmap: [0; 4],
    }
}

fn set_from_sregs(s: &mut X86State, k: &kb::kvm_sregs) {
    s.cs = segment_from_kvm(&k.cs);
    s.ds = segment_from_kvm(&k.ds);
    s.es = segment_from_kvm(&k.es);
    s.fs = segment_from_kvm(&k.fs);
    s.gs = segment_from_kvm(&k.gs);
    s.ss = segment_from_kvm(&k.ss);
    s.tr = segment_from_kvm(&k.tr);
    s.ldtr = segment_from_kvm(&k.ldt);
    s.gdtr = table_from_kvm(&k.gdt);
    s.idtr = table_from_kvm(&k.idt);
    s.cr0 = k.cr0;
    s.cr2 = k.cr2;
    s.cr3 = k.cr3;
    s.cr4 = k.cr4;
    s.cr8 = k.cr8;
    s.efer = k.efer;
}

fn debug_regs(dr: &[u64; 6]) -> kb::kvm_debugregs {
    let [d0, d1, d2, d3, dr6, dr7] = *dr;
    kb::kvm_debugregs {
        db: [d0, d1, d2, d3],
        dr6,
        dr7,
        ..Default::default()
    }
}

/// All registers of a VP.
pub(crate) fn read(vcpu: &Vcpu) -> Result<X86State, KvmError> {
    let mut s = X86State::reset();
    set_from_regs(&mut s, &vcpu.regs()?);
    set_from_sregs(&mut s, &vcpu.sregs()?);
    let d = vcpu.debug_regs()?;
    s.dr = [d.db[0], d.db[1], d.db[2], d.db[3], d.dr6, d.dr7];
    s.xcr0 = vcpu.xcr0()?;
    set_from_msrs(&mut s, &vcpu.msrs(&msr_numbers())?);
    Ok(s)
}

/// Replaces all registers of a VP that holds `before`; groups that do not change are left alone.
pub(crate) fn write(
    vcpu: &mut Vcpu,
    before: &X86State,
    s: &X86State,
    apic_base: u64,
) -> Result<(), KvmError> {
    // CR4.OSXSAVE first: XCR0 needs it on some kernels; EFER and CR0 are checked against each other as one.
    vcpu.set_sregs(&sregs(s, apic_base))?;
    vcpu.set_regs(&regs(s))?;
    if before.dr != s.dr {
        vcpu.set_debug_regs(&debug_regs(&s.dr))?;
    }
    if before.xcr0 != s.xcr0 {
        vcpu.set_xcr0(s.xcr0)?;
    }
    let changed: Vec<_> = msr_numbers()
        .into_iter()
        .zip(msr_values(before).into_iter().zip(msr_values(s)))
        .filter(|(_, (old, new))| old != new)
        .map(|(number, (_, new))| (number, new))
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    vcpu.set_msrs(&changed)
}

/// Replaces the APIC base alone (KVM shows CPUID's APIC bit by it).
pub(crate) fn write_apic_base(vcpu: &mut Vcpu, apic_base: u64) -> Result<(), KvmError> {
    let mut k = vcpu.sregs()?;
    if k.apic_base == apic_base {
        return Ok(());
    }
    k.apic_base = apic_base;
    vcpu.set_sregs(&k)
}

#[cfg(test)]
mod tests;
