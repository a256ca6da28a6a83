// SPDX-License-Identifier: MIT
//! The folds: one per platform, fed with events.

use crate::events::{Event, Measured, PageClass};
use crate::kvm_vmsa::VmsaPage;
use crate::pages::{Hash384, padding, page_hash, page_hashes};
use launch_plan::{Isolation, VbsRegister};
use sha2::{Digest as _, Sha256, Sha384};
use x86defs::paging::{PAGE_BYTES, PAGE_SIZE};

/// A running digest. `push` may hold events back; `value` flushes.
#[derive(Clone)]
pub(crate) enum Fold<'p> {
    Snp(Snp<'p>),
    /// SHA-256 over the submitted plaintext; VMSAs too for SEV-ES (sev.md 2.1, 2.3).
    Sev(Sha256),
    /// One running SHA-384 (sev.md 2.10).
    Tdx(Sha384),
    /// SHA-256 chain (sev.md 2.11).
    Vbs([u8; 32]),
}

impl<'p> Fold<'p> {
    /// The fold of a platform; `None` when it has no launch digest. `batch` is how many pages may be
    /// held back, 1 to have a value after each.
    pub(crate) fn new(isolation: Isolation, batch: usize) -> Option<Self> {
        match isolation {
            Isolation::Snp => Some(Self::Snp(Snp::new(batch))),
            Isolation::Sev | Isolation::SevEs => Some(Self::Sev(Sha256::new())),
            Isolation::Tdx => Some(Self::Tdx(Sha384::new())),
            Isolation::Vsm => Some(Self::Vbs([0; 32])),
            Isolation::Native | Isolation::Cca => None,
        }
    }

    pub(crate) fn push(&mut self, event: Event<'p>) {
        match self {
            Self::Snp(s) => s.push(event),
            _ => self.absorb(&event.what),
        }
    }

    /// Takes something over at once. SEV-SNP's fold holds pages back and takes nothing this way.
    pub(crate) fn absorb(&mut self, what: &Measured<'_>) {
        match self {
            Self::Snp(_) => {}
            Self::Sev(h) => sev(h, what),
            Self::Tdx(h) => tdx(h, what),
            Self::Vbs(digest) => vbs(digest, what),
        }
    }

    /// The digest of everything pushed so far.
    pub(crate) fn value(&mut self) -> Vec<u8> {
        match self {
            Self::Snp(s) => {
                s.flush();
                s.digest.to_vec()
            }
            Self::Sev(h) => h.clone().finalize().to_vec(),
            Self::Tdx(h) => h.clone().finalize().to_vec(),
            Self::Vbs(digest) => digest.to_vec(),
        }
    }
}

fn sev(hash: &mut Sha256, what: &Measured<'_>) {
    let bytes = match what {
        Measured::Page {
            class: PageClass::Normal | PageClass::Zero,
            data,
            ..
        } => *data,
        Measured::Vmsa { page, .. } => page.bytes(),
        _ => return,
    };
    hash.update(bytes);
    hash.update(padding(bytes));
}

/// The SEV-SNP record chain (sev.md 2.4).
#[derive(Clone)]
pub(crate) struct Snp<'p> {
    digest: Hash384,
    batch: usize,
    held: Vec<Measured<'p>>,
    hashes: Vec<Hash384>,
}

impl<'p> Snp<'p> {
    fn new(batch: usize) -> Self {
        Self {
            digest: [0; 48],
            batch,
            held: Vec::new(),
            hashes: Vec::new(),
        }
    }

    fn push(&mut self, event: Event<'p>) {
        self.held.push(event.what);
        if self.held.len() >= self.batch {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let normal: Vec<&[u8]> = self
            .held
            .iter()
            .filter_map(|m| match m {
                Measured::Page {
                    class: PageClass::Normal,
                    data,
                    ..
                } => Some(*data),
                _ => None,
            })
            .collect();
        page_hashes(&normal, &mut self.hashes);
        let mut hashes = self.hashes.iter();
        for what in &self.held {
            let (page_type, gpa, contents) = match what {
                Measured::Page { gpa, class, .. } => {
                    let Some(page_type) = page_type(*class) else {
                        continue;
                    };
                    let hash = (*class == PageClass::Normal).then(|| hashes.next().copied());
                    (page_type, *gpa, hash.flatten().unwrap_or([0; 48]))
                }
                Measured::Vmsa { gpa, page, .. } => (2, *gpa, page_hash(page.bytes())),
                Measured::Register(_) => continue,
            };
            self.digest = record(&self.digest, &contents, page_type, gpa);
        }
        self.held.clear();
    }
}

/// The SNP page type; of these, only NORMAL pages have a contents hash.
pub(crate) const fn page_type(class: PageClass) -> Option<u8> {
    match class {
        PageClass::Normal => Some(1),
        PageClass::Zero => Some(3),
        PageClass::Unmeasured => Some(4),
        PageClass::Secrets => Some(5),
        PageClass::Cpuid => Some(6),
        PageClass::ErrorRange => None,
    }
}

/// One link of the chain: SHA-384 of the 112-byte PAGE_INFO record.
pub(crate) fn record(digest: &Hash384, contents: &Hash384, page_type: u8, gpa: u64) -> Hash384 {
    let mut r = [0; 112];
    r[..48].copy_from_slice(digest);
    r[48..96].copy_from_slice(contents);
    r[0x60..0x62].copy_from_slice(&0x70u16.to_le_bytes());
    r[0x62] = page_type;
    r[0x68..0x70].copy_from_slice(&gpa.to_le_bytes());
    Sha384::digest(r).into()
}

fn tdx(hash: &mut Sha384, what: &Measured<'_>) {
    let Measured::Page { gpa, class, data } = what else {
        return;
    };
    let mut header = |name: &[u8], gpa: u64| {
        let mut h = [0; 128];
        h[..name.len()].copy_from_slice(name);
        h[16..24].copy_from_slice(&gpa.to_le_bytes());
        hash.update(h);
    };
    header(b"MEM.PAGE.ADD", *gpa);
    if !matches!(class, PageClass::Normal | PageClass::Zero) {
        return;
    }
    let mut page = [0; PAGE_BYTES];
    page[..data.len()].copy_from_slice(data);
    for (i, chunk) in page.chunks(256).enumerate() {
        let mut h = [0; 128];
        h[..9].copy_from_slice(b"MR.EXTEND");
        h[16..24].copy_from_slice(&(gpa + 256 * i as u64).to_le_bytes());
        hash.update(h);
        hash.update(chunk);
    }
}

fn vbs(digest: &mut [u8; 32], what: &Measured<'_>) {
    let mut h = Sha256::new();
    h.update(*digest);
    match what {
        Measured::Page { gpa, class, data } => {
            let metadata: u64 = match class {
                PageClass::Unmeasured => 4,
                PageClass::ErrorRange => 3 | 4,
                _ => 0,
            };
            h.update((PAGE_BYTES as u32 + 32).to_le_bytes());
            h.update(2u32.to_le_bytes());
            h.update([0; 8]);
            h.update(metadata.to_le_bytes());
            h.update((gpa / PAGE_SIZE).to_le_bytes());
            let bytes = if metadata & 4 != 0 { &[][..] } else { data };
            h.update(bytes);
            h.update(padding(bytes));
        }
        Measured::Register(r) => register_chunk(&mut h, r),
        Measured::Vmsa { .. } => return,
    }
    *digest = h.finalize().into();
}

fn register_chunk(h: &mut Sha256, register: &VbsRegister) {
    h.update(48u32.to_le_bytes());
    h.update([0; 12]);
    h.update([0; 4]);
    h.update([register.vtl, 0, 0, 0]);
    h.update([0; 4]);
    h.update(register.name.hv_number().to_le_bytes());
    h.update(register.value.to_bytes());
}

impl VmsaPage<'_> {
    /// Whether the page is the file's own.
    pub fn is_from_file(&self) -> bool {
        matches!(self, Self::Borrowed(_))
    }
}
