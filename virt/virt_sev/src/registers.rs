// SPDX-License-Identifier: MIT
//! A save area as the register calls that make KVM build the same one (`spec/sev.md` 2.6).
//!
//! Always true: every segment is set explicitly, because reading and writing back is not an identity on
//! SVM; EFER goes without SVME, which the setter refuses and KVM adds. Not here: whether the save area can
//! be reproduced at all ([`crate::contexts`]).

use crate::contexts::read;
use kvm_sys::bindings as kb;
use kvm_sys::{Fpu, KvmError, Vcpu};
use launch_digest::kvm_vmsa::Vmsa;
use x86defs::vmsa::offset;
use x86defs::{efer, msr};

/// Gives `vcpu` the state of `page`, and reads back what decides.
pub(crate) fn load(vcpu: &mut Vcpu, page: &Vmsa) -> Result<(), KvmError> {
    let mut wanted = sregs(page);
    let now = vcpu.sregs()?;
    (wanted.apic_base, wanted.cr8) = (now.apic_base, now.cr8);
    vcpu.set_sregs(&wanted)?;
    let general = regs(page);
    vcpu.set_regs(&general)?;
    vcpu.set_debug_regs(&kb::kvm_debugregs {
        dr6: word(page, offset::DR6),
        dr7: word(page, offset::DR7),
        ..Default::default()
    })?;
    vcpu.set_xcr0(word(page, offset::XCR0))?;
    vcpu.set_msrs(&[(msr::PAT, word(page, offset::PAT))])?;
    vcpu.set_fpu(&mut fpu(page))?;
    check(vcpu, &general, &wanted)
}

/// Whether KVM kept the state; it clamps some values without an error.
fn check(vcpu: &Vcpu, general: &kb::kvm_regs, wanted: &kb::kvm_sregs) -> Result<(), KvmError> {
    let (regs, sregs) = (vcpu.regs()?, vcpu.sregs()?);
    let control = |s: &kb::kvm_sregs| [s.cr0, s.cr3, s.cr4, s.efer & !efer::SVME];
    let kept = regs == *general && control(&sregs) == control(wanted) && sregs.cs.base == wanted.cs.base;
    if kept {
        return Ok(());
    }
    let text = format!(
        "kvm changed the registers: cr0, cr3, cr4, efer {:x?} became {:x?}, rip {:#x} became {:#x}",
        control(wanted),
        control(&sregs),
        general.rip,
        regs.rip
    );
    Err(KvmError::new(
        "reading registers back",
        std::io::Error::other(text),
    ))
}

fn word(page: &Vmsa, at: usize) -> u64 {
    read(&page[at..at + 8])
}

fn regs(page: &Vmsa) -> kb::kvm_regs {
    let high = |n: usize| word(page, offset::R8 + 8 * n);
    kb::kvm_regs {
        rax: word(page, offset::RAX),
        rbx: word(page, offset::RBX),
        rcx: word(page, offset::RCX),
        rdx: word(page, offset::RDX),
        rsi: word(page, offset::RSI),
        rdi: word(page, offset::RDI),
        rsp: word(page, offset::RSP),
        rbp: word(page, offset::RBP),
        r8: high(0),
        r9: high(1),
        r10: high(2),
        r11: high(3),
        r12: high(4),
        r13: high(5),
        r14: high(6),
        r15: high(7),
        rip: word(page, offset::RIP),
        rflags: word(page, offset::RFLAGS),
    }
}

/// Selector u16, attributes u16 (type, S, DPL, P, AVL, L, D, G from bit 0), limit u32, base u64.
fn segment(page: &Vmsa, at: usize) -> kb::kvm_segment {
    let attributes = read(&page[at + 2..at + 4]);
    let bit = |n: u32| (attributes >> n & 1) as u8;
    kb::kvm_segment {
        selector: read(&page[at..at + 2]) as u16,
        limit: read(&page[at + 4..at + 8]) as u32,
        base: word(page, at + 8),
        type_: (attributes & 0xF) as u8,
        s: bit(4),
        dpl: (attributes >> 5 & 3) as u8,
        present: bit(7),
        avl: bit(8),
        l: bit(9),
        db: bit(10),
        g: bit(11),
        unusable: 0,
        padding: 0,
    }
}

fn table(page: &Vmsa, at: usize) -> kb::kvm_dtable {
    kb::kvm_dtable {
        limit: read(&page[at + 4..at + 6]) as u16,
        base: word(page, at + 8),
        ..Default::default()
    }
}

fn sregs(page: &Vmsa) -> kb::kvm_sregs {
    kb::kvm_sregs {
        cs: segment(page, offset::CS),
        ds: segment(page, offset::DS),
        es: segment(page, offset::ES),
        fs: segment(page, offset::FS),
        gs: segment(page, offset::GS),
        ss: segment(page, offset::SS),
        tr: segment(page, offset::TR),
        ldt: segment(page, offset::LDTR),
        gdt: table(page, offset::GDTR),
        idt: table(page, offset::IDTR),
        cr0: word(page, offset::CR0),
        cr3: word(page, offset::CR3),
        cr4: word(page, offset::CR4),
        efer: word(page, offset::EFER) & !efer::SVME,
        ..Default::default()
    }
}

/// FCW and MXCSR at their places in an FXSAVE image; the rest of the state is zero.
fn fpu(page: &Vmsa) -> Fpu {
    let mut image = [0; 512];
    image[0..2].copy_from_slice(&page[offset::FCW..offset::FCW + 2]);
    image[24..28].copy_from_slice(&page[offset::MXCSR..offset::MXCSR + 4]);
    let mut fpu = Fpu::reset();
    fpu.set_fxsave(&image);
    fpu
}

#[cfg(test)]
mod tests {
    use super::*;
    use x86defs::vmsa::{ResetState, reset_page};

    #[test]
    fn reset_save_area_becomes_the_reset_state() {
        let page: Vmsa = Box::new(reset_page(&ResetState {
            entry: 0x80_B004,
            rdx: 0x600,
            code: 0xA9B,
            data: 0xC93,
            task: 0x8B,
            features: 1,
        }));
        let s = sregs(&page);
        assert_eq!(
            (s.cs.base, s.cs.selector, s.cs.limit),
            (0x80_0000, 0xF000, 0xFFFF)
        );
        assert_eq!(
            (s.cs.type_, s.cs.s, s.cs.present, s.cs.l, s.cs.db, s.cs.g),
            (0xB, 1, 1, 1, 0, 1)
        );
        assert_eq!((s.ds.type_, s.ds.db, s.ds.g, s.ds.unusable), (3, 1, 1, 0));
        assert_eq!((s.tr.type_, s.tr.s, s.ldt.type_), (0xB, 0, 2));
        assert_eq!((s.cr0, s.cr4, s.efer), (0x10, 0x40, 0), "kvm adds SVME");
        let r = regs(&page);
        assert_eq!((r.rip, r.rdx, r.rflags), (0xB004, 0x600, 2));
        let image = fpu(&page).fxsave();
        assert_eq!((image[0], image[1], image[24], image[25]), (0x7F, 3, 0x80, 0x1F));
    }
}
