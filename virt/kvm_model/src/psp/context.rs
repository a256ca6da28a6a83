// SPDX-License-Identifier: MIT
//! SEV-SNP guests: context, launch digest, page types (`spec/sev.md` 2.4, 4.3, 4.4).
//!
//! Always true: each page extends the digest by one record of 112 bytes, whatever its type; a refused page
//! leaves the digest as it was. Not here: who assigned the page.

use super::id_block::{self, IdentityRecord};
use super::{Psp, cpuid_page, page_type};
use crate::firmware::{put, status};
use crate::physical::{ALL_PERMISSIONS, PAGE, Physical};
use sha2::{Digest, Sha384};

/// Bits of the policy that demand something of the host: XTS, RAPL off, ciphertext hiding.
const REQUIREMENTS: u64 = 7 << 22;
const SMT_ALLOWED: u64 = 1 << 16;
/// Length of a record.
const RECORD: usize = 0x70;

/// A guest.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// Once activated.
    pub(crate) asid: u32,
    pub(crate) policy: u64,
    /// Between START and FINISH.
    pub(crate) launching: bool,
    pub(crate) digest: [u8; 48],
    pub(crate) host_data: [u8; 32],
    pub(crate) identity: Option<IdentityRecord>,
}

/// ID block and ID authentication page.
pub(crate) type IdBlobs = (Box<[u8; 96]>, Box<[u8; PAGE]>);

/// What SNP_LAUNCH_FINISH carries.
#[derive(Debug)]
pub(crate) struct Finish {
    pub(crate) id: Option<IdBlobs>,
    pub(crate) author_key: bool,
    pub(crate) host_data: [u8; 32],
}

impl Psp {
    /// SNP_GCTX_CREATE.
    pub(crate) fn create_context(&mut self, physical: &mut Physical) -> u64 {
        let address = physical.allocate();
        let context = Context {
            asid: 0,
            policy: 0,
            launching: false,
            digest: [0; 48],
            host_data: [0; 32],
            identity: None,
        };
        physical.assign(
            address,
            Some(crate::physical::RmpEntry {
                asid: 0,
                gpa: 0,
                immutable: true,
                validated: false,
                save_area: false,
                permissions: [0; 4],
            }),
        );
        self.contexts.insert(address, context);
        address
    }

    /// SNP_DECOMMISSION, with the context page given back.
    pub(crate) fn decommission(&mut self, physical: &mut Physical, context: u64) {
        self.contexts.remove(&context);
        physical.free(context);
    }

    /// SNP_LAUNCH_START.
    pub(crate) fn snp_start(&mut self, context: u64, policy: u64) -> Result<(), u32> {
        let old = self.is_older_than((policy >> 8) as u8, policy as u8);
        let unmet = policy & REQUIREMENTS & !self.requirements_met != 0;
        if old || unmet || (self.smt && policy & SMT_ALLOWED == 0) {
            return Err(status::POLICY_FAILURE);
        }
        let context = self.contexts.get_mut(&context).ok_or(status::INVALID_GUEST)?;
        context.policy = policy;
        context.launching = true;
        Ok(())
    }

    /// SNP_ACTIVATE.
    pub(crate) fn snp_activate(&mut self, context: u64, asid: u32) -> Result<(), u32> {
        let owned = self.contexts.values().any(|other| other.asid == asid)
            || self.guests.values().any(|guest| guest.asid == Some(asid));
        if owned {
            return Err(status::ASID_OWNED);
        }
        let context = self.contexts.get_mut(&context).ok_or(status::INVALID_GUEST)?;
        context.asid = asid;
        Ok(())
    }

    /// SNP_LAUNCH_UPDATE of one page, whose contents the firmware may replace.
    pub(crate) fn snp_update(
        &mut self,
        context: u64,
        physical: &mut Physical,
        page: u64,
        kind: u8,
    ) -> Result<(), u32> {
        let secrets = if kind == page_type::SECRETS {
            Some(self.secrets())
        } else {
            None
        };
        let checked = self.cpuid_pages_are_checked;
        let context = self.contexts.get_mut(&context).ok_or(status::INVALID_GUEST)?;
        if !context.launching {
            return Err(status::INVALID_GUEST_STATE);
        }
        let entry = physical.rmp(page).ok_or(status::INVALID_PAGE_STATE)?;
        if !entry.immutable || entry.validated {
            return Err(status::INVALID_PAGE_STATE);
        }
        if entry.asid != context.asid {
            return Err(status::INVALID_PAGE_OWNER);
        }
        let bytes = physical.frame(page).ok_or(status::INVALID_ADDRESS)?;
        let contents = match kind {
            page_type::NORMAL | page_type::SAVE_AREA => Sha384::digest(&bytes[..]).into(),
            page_type::UNMEASURED => [0; 48],
            page_type::ZERO => {
                bytes.fill(0);
                [0; 48]
            }
            page_type::SECRETS => {
                bytes.copy_from_slice(&secrets.unwrap_or_else(|| Box::new([0; PAGE]))[..]);
                [0; 48]
            }
            page_type::CPUID => {
                if checked {
                    cpuid_page::check(bytes)?;
                }
                [0; 48]
            }
            _ => return Err(status::INVALID_PARAM),
        };
        context.extend(&contents, kind, entry.gpa);
        if let Some(entry) = physical.rmp_mut(page) {
            entry.immutable = false;
            entry.validated = true;
            entry.save_area = kind == page_type::SAVE_AREA;
            entry.permissions = [ALL_PERMISSIONS, 0, 0, 0];
        }
        Ok(())
    }

    /// SNP_LAUNCH_FINISH.
    pub(crate) fn snp_finish(&mut self, context: u64, finish: &Finish) -> Result<(), u32> {
        let context = self.contexts.get_mut(&context).ok_or(status::INVALID_GUEST)?;
        if !context.launching {
            return Err(status::INVALID_GUEST_STATE);
        }
        if let Some((block, auth)) = &finish.id {
            let identity = id_block::verify(block, auth, finish.author_key)?;
            if identity.launch_digest != context.digest {
                return Err(status::BAD_MEASUREMENT);
            }
            if identity.policy != context.policy {
                return Err(status::POLICY_FAILURE);
            }
            context.identity = Some(identity);
        }
        context.host_data = finish.host_data;
        context.launching = false;
        Ok(())
    }

    /// A secrets page: version 3, and a key for each VMPL (the layout that guests know).
    fn secrets(&mut self) -> Box<[u8; PAGE]> {
        let mut page = Box::new([0; PAGE]);
        put::<4>(&mut page[..], 0, 3);
        for vmpl in 0..4 {
            page[0x20 + 32 * vmpl..][..32].copy_from_slice(&self.random());
        }
        page
    }
}

impl Context {
    /// One record: digest so far, contents, length, type, no IMI, no permissions of lower VMPLs, gpa.
    fn extend(&mut self, contents: &[u8; 48], kind: u8, gpa: u64) {
        let mut record = [0; RECORD];
        record[..48].copy_from_slice(&self.digest);
        record[48..96].copy_from_slice(contents);
        put::<2>(&mut record, 0x60, RECORD as u64);
        record[0x62] = kind;
        put::<8>(&mut record, 0x68, gpa);
        self.digest = Sha384::digest(record).into();
    }
}
