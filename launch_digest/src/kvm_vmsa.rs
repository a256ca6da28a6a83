// SPDX-License-Identifier: MIT
//! What KVM makes of a VMSA: it never takes one from a file but rebuilds it from VP state.
//!
//! Always true: [`kvm_image`] is the one prediction that the backend, the model and `measure` share.
//! Facts: Linux 7.2 `arch/x86/kvm/svm/sev.c`, `sev_es_sync_vmsa` and the setters in front of it.
//! Not here: the ioctls.

use launch_plan::Isolation;
use x86defs::vmsa::{ResetState, VMSA_FIELDS, VMSA_SIZE, VmsaField, offset, reset_page, sev_features};

/// A 4 KiB save area.
pub type Vmsa = Box<[u8; VMSA_SIZE]>;

/// A save area, from the file or made here.
#[derive(Debug, Clone)]
pub enum VmsaPage<'p> {
    /// The file's, at most 4096 bytes, zero padded.
    Borrowed(&'p [u8]),
    /// Predicted.
    Owned(Vmsa),
}

impl VmsaPage<'_> {
    /// The bytes, at most 4096.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(b) => b,
            Self::Owned(b) => &b[..],
        }
    }
}

/// A field that KVM would build differently from the file, or that a file may not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldIssue {
    /// The field.
    pub field: &'static VmsaField,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl std::fmt::Display for FieldIssue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} (offset {:#x}): {}",
            self.field.name, self.field.offset, self.reason
        )
    }
}

/// What KVM will build, and where it differs from the file.
#[derive(Debug, Clone)]
pub struct KvmImage {
    /// The predicted page.
    pub page: Vmsa,
    /// Fields that differ from the file, in ascending order. Empty means that the launch is faithful.
    pub differences: Vec<FieldIssue>,
}

fn get<const N: usize>(page: &[u8], at: usize) -> u64 {
    let mut b = [0; 8];
    if let Some(src) = page.get(at..at + N) {
        b[..N].copy_from_slice(src);
    }
    u64::from_le_bytes(b)
}

fn put<const N: usize>(page: &mut [u8; VMSA_SIZE], at: usize, value: u64) {
    page[at..at + N].copy_from_slice(&value.to_le_bytes()[..N]);
}

/// Predicts the page that KVM builds from `file` (zero padded to 4096 bytes).
pub fn kvm_image(file: &[u8], isolation: Isolation) -> KvmImage {
    let mut padded = [0; VMSA_SIZE];
    let n = file.len().min(VMSA_SIZE);
    padded[..n].copy_from_slice(&file[..n]);
    let mut page: Vmsa = Box::new([0; VMSA_SIZE]);
    for f in VMSA_FIELDS.iter().filter(|f| f.settable) {
        page[f.offset..f.offset + f.size].copy_from_slice(&padded[f.offset..f.offset + f.size]);
    }
    for at in [
        offset::ES,
        offset::CS,
        offset::SS,
        offset::DS,
        offset::FS,
        offset::GS,
        offset::LDTR,
        offset::TR,
    ] {
        let attributes = get::<2>(&page[..], at + 2) & 0xFFF;
        put::<2>(&mut page, at + 2, attributes);
    }
    for at in [offset::GDTR, offset::IDTR] {
        put::<4>(&mut page, at, 0);
        let limit = get::<4>(&page[..], at + 4) & 0xFFFF;
        put::<4>(&mut page, at + 4, limit);
    }
    let ss_dpl = (get::<2>(&page[..], offset::SS + 2) >> 5) & 3;
    put::<1>(&mut page, offset::CPL, ss_dpl);
    let or = |page: &mut Vmsa, at, bits| {
        let v = get::<8>(&page[..], at) | bits;
        put::<8>(page, at, v);
    };
    or(&mut page, offset::EFER, x86defs::efer::SVME);
    or(&mut page, offset::CR4, x86defs::cr4::MCE);
    or(&mut page, offset::RFLAGS, x86defs::rflags::RESERVED_ONE);
    let cr0 = get::<8>(&page[..], offset::CR0) & !(x86defs::cr0::CD | x86defs::cr0::NW);
    put::<8>(&mut page, offset::CR0, cr0);
    if get::<8>(&page[..], offset::DR7) != 0 {
        put::<8>(&mut page, offset::DR7, 0x400);
    }
    let dr6 = get::<8>(&page[..], offset::DR6) & 0xFFFF_FFFF;
    put::<8>(&mut page, offset::DR6, dr6);
    or(&mut page, offset::XCR0, 1);
    if isolation == Isolation::Snp {
        or(&mut page, offset::SEV_FEATURES, sev_features::SNP_ACTIVE);
    } else {
        let f = get::<8>(&page[..], offset::SEV_FEATURES) & !sev_features::SNP_ACTIVE;
        put::<8>(&mut page, offset::SEV_FEATURES, f);
    }
    let differences = VMSA_FIELDS
        .iter()
        .filter(|f| page[f.offset..f.offset + f.size] != padded[f.offset..f.offset + f.size])
        .map(|field| FieldIssue {
            field,
            reason: difference(field, isolation),
        })
        .collect();
    KvmImage { page, differences }
}

/// Why KVM cannot keep a field, for messages.
fn difference(field: &VmsaField, isolation: Isolation) -> &'static str {
    if !field.settable && field.name != "CPL" {
        return "must be zero: a loader may not set this field";
    }
    match field.name {
        "EFER" => "kvm sets SVME (bit 12); the file must have it set",
        "CR4" => "kvm sets MCE (bit 6); the file must have it set",
        "RFLAGS" => "bit 1 is always one; the file must have it set",
        "CR0" => "kvm clears CD and NW (bits 30 and 29); the file must have them clear",
        "DR7" => "kvm accepts 0 and 0x400 only",
        "DR6" => "the upper half must be zero",
        "XCR0" => "bit 0 (x87) must be one",
        "CPL" => "kvm derives it from SS.DPL",
        "SEV_FEATURES" if isolation == Isolation::Snp => "bit 0 (SNP active) must be one for sev-snp",
        "SEV_FEATURES" => "bit 0 (SNP active) must be zero without sev-snp",
        "GDTR" | "IDTR" => "selector and attributes must be zero and the limit must fit 16 bits",
        _ => "segment attribute bits above 11 must be zero",
    }
}

/// Fields outside the list that a file may set (QEMU's documented list plus SEV_FEATURES) that are not
/// zero: all of them, in ascending order.
pub fn forbidden_fields(file: &[u8]) -> Vec<FieldIssue> {
    VMSA_FIELDS
        .iter()
        .filter(|f| !f.settable)
        .filter(|f| {
            let end = (f.offset + f.size).min(file.len());
            file.get(f.offset.min(end)..end)
                .is_some_and(|b| b.iter().any(|&b| b != 0))
        })
        .map(|field| FieldIssue {
            field,
            reason: "must be zero: a loader may not set this field",
        })
        .collect()
}

/// The save area of a VP that no context describes: KVM's own reset state (sev.md 2.6, "raw reset").
pub fn reset_state(isolation: Isolation) -> Vmsa {
    reset_state_with(isolation, 0)
}

/// The same in a VM that was made with SEV features (INIT2), which KVM gives all of its VPs.
pub fn reset_state_with(isolation: Isolation, features: u64) -> Vmsa {
    let active = if isolation == Isolation::Snp {
        sev_features::SNP_ACTIVE
    } else {
        0
    };
    Box::new(reset_page(&ResetState {
        entry: 0xFFFF_FFF0,
        rdx: 0x600,
        code: 0x9A,
        data: 0x92,
        task: 0x83,
        features: features & !sev_features::SNP_ACTIVE | active,
    }))
}

/// Makes of a save area what KVM before 6.10 (`KVM_SEV_ES_INIT`) measures: no FPU state (sev.md 0 fact 5).
pub fn clear_fpu(page: &mut Vmsa) {
    page[offset::MXCSR..offset::MXCSR + 4].fill(0);
    page[offset::FCW..offset::FCW + 2].fill(0);
}

/// SEV_FEATURES of a save area.
pub fn features(page: &[u8]) -> u64 {
    get::<8>(page, offset::SEV_FEATURES)
}
