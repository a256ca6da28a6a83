// SPDX-License-Identifier: MIT
//! Rules about initialization headers: policies, relocation, CoRIM, version string.

use super::Checker;
use crate::igvm::codes::Code;
use igvm_defs::*;
use launch_plan::Isolation;
use x86defs::paging::PAGE_SIZE;

/// Policy bits that a SEV-SNP firmware knows: ABI version, SMT, the bit that is always one, migration
/// agent, debug, single socket, and the five of ABI 1.55 and later (CXL, AES-256-XTS, RAPL off,
/// ciphertext hiding, page swap off).
const SNP_POLICY: u64 = 0x03FF_FFFF;
/// SEV and SEV-ES: six flags and the firmware API version in bits 16-31.
const SEV_POLICY: u64 = 0xFFFF_003F;
/// TDX: debug, SEPT #VE disable, migratable.
const TDX_POLICY: u64 = 0x7;
/// Encrypted state.
const SEV_POLICY_ES: u64 = 1 << 2;

impl Checker<'_, '_> {
    pub(super) fn check_policy(&mut self, header: &IGVM_VHS_GUEST_POLICY) {
        self.check_reserved("reserved field", header.reserved.into());
        if header.compatibility_mask & self.seen.policy != 0 {
            self.report(
                Code::PolicyDuplicate,
                "a platform of this mask already has a guest policy",
            );
        }
        self.seen.policy |= header.compatibility_mask;
        let policy = header.policy;
        for platform in self.platforms_of(header.compatibility_mask) {
            let isolation = platform.isolation;
            let known = match isolation {
                Isolation::Snp => SNP_POLICY,
                Isolation::Sev | Isolation::SevEs => SEV_POLICY,
                Isolation::Tdx => TDX_POLICY,
                Isolation::Native | Isolation::Vsm | Isolation::Cca => {
                    self.report(
                        Code::PolicyPlatform,
                        format!("platform {isolation} takes no guest policy"),
                    );
                    continue;
                }
            };
            if policy & !known != 0 {
                let message = format!(
                    "policy {policy:#x} of {isolation} has reserved bits {:#x}",
                    policy & !known
                );
                self.report(Code::PolicyReserved, message);
            }
            if isolation == Isolation::Snp && policy & (1 << 17) == 0 {
                self.report(
                    Code::PolicyMustBeOne,
                    format!("policy {policy:#x} of snp has bit 17 clear"),
                );
            }
            let es = policy & SEV_POLICY_ES != 0;
            if (isolation == Isolation::SevEs && !es) || (isolation == Isolation::Sev && es) {
                let message =
                    format!("policy {policy:#x} does not fit platform {isolation} (bit 2, encrypted state)");
                self.report(Code::PolicyMismatch, message);
            }
        }
    }

    pub(super) fn check_cca_policy(&mut self, header: &IGVM_VHS_CCA_POLICY) {
        self.check_reserved("reserved field", header.reserved.into());
        self.check_reserved(
            "reserved field",
            header.reserved2.iter().map(|&byte| u64::from(byte)).sum(),
        );
        if header.compatibility_mask & self.seen.cca_policy != 0 {
            self.report(
                Code::PolicyDuplicate,
                "a platform of this mask already has a realm policy",
            );
        }
        self.seen.cca_policy |= header.compatibility_mask;
        for platform in self.platforms_of(header.compatibility_mask) {
            if platform.isolation != Isolation::Cca {
                self.report(
                    Code::PolicyPlatform,
                    format!("platform {} takes no realm policy", platform.isolation),
                );
            }
        }
        let both = header.attributes_required_zeroes & header.attributes_required_ones;
        if both != 0 {
            self.report(
                Code::CcaPolicyConflict,
                format!("attributes {both:#x} are required both zero and one"),
            );
        }
        let (hash, lfa) = (header.hash_algorithm.0, header.lfa_policy.0);
        if hash > 2 || lfa > 1 {
            let message =
                format!("hash algorithm {hash} must be 0 to 2, firmware activation policy {lfa} 0 or 1");
            self.report(Code::CcaPolicyValue, message);
        }
    }

    pub(super) fn check_region(&mut self, header: &IGVM_VHS_RELOCATABLE_REGION) {
        self.check_reserved("undefined flags", u64::from(header.flags & !7));
        let align = header.relocation_alignment;
        if align == 0 || !align.is_multiple_of(PAGE_SIZE) {
            return self.report(
                Code::RelocationAlignment,
                format!("relocation alignment {align:#x} must be a non-zero multiple of 0x1000"),
            );
        }
        let (gpa, size) = (header.relocation_region_gpa, header.relocation_region_size);
        let (min, max) = (header.minimum_relocation_gpa, header.maximum_relocation_gpa);
        let aligned = [gpa, min, max].iter().all(|value| value.is_multiple_of(align));
        let fits = min.checked_add(size).is_some_and(|end| end <= max) && gpa.checked_add(size).is_some();
        if !aligned || !fits || size == 0 || !size.is_multiple_of(PAGE_SIZE) {
            let message = format!(
                "region of {size:#x} bytes with minimum {min:#x} and maximum {max:#x} breaks alignment {align:#x} or does not fit"
            );
            self.report(Code::RelocationRegion, message);
        }
        let is_vtl2 = header.flags & IGVM_VHF_RELOCATABLE_REGION_IS_VTL2 != 0;
        if !matches!(header.vtl, 0 | 2) || (is_vtl2 && header.vtl != 2) {
            let message = format!("region of vtl {} with flags {:#x}", header.vtl, header.flags);
            self.report(Code::RelocationVtl, message);
        }
    }

    pub(super) fn check_page_tables(&mut self, header: &IGVM_VHS_PAGE_TABLE_RELOCATION) {
        self.check_reserved("reserved field", header.reserved.into());
        if header.compatibility_mask & self.seen.page_tables != 0 {
            self.report(
                Code::PageTableDuplicate,
                "a platform of this mask already has a page table region",
            );
        }
        self.seen.page_tables |= header.compatibility_mask;
        let IGVM_VHS_PAGE_TABLE_RELOCATION {
            gpa, size, used_size, ..
        } = *header;
        let aligned = [gpa, size, used_size]
            .iter()
            .all(|value| value.is_multiple_of(PAGE_SIZE));
        if !aligned || size == 0 || used_size > size || gpa.checked_add(size).is_none() {
            let message = format!("page table region of {size:#x} bytes, {used_size:#x} used");
            self.report(Code::PageTableRegion, message);
        }
        if !matches!(header.vtl, 0 | 2) {
            self.report(
                Code::RelocationVtl,
                format!("page table region of vtl {}", header.vtl),
            );
        }
    }

    pub(super) fn check_corim(&mut self, header: &IGVM_VHS_CORIM_DATA, is_signature: bool) {
        self.check_reserved("reserved field", header.reserved.into());
        let mask = header.compatibility_mask;
        let seen = if is_signature {
            &mut self.seen.corim_signature
        } else {
            &mut self.seen.corim_document
        };
        let twice = *seen & mask != 0;
        *seen |= mask;
        if twice {
            let what = if is_signature { "signature" } else { "document" };
            self.report(
                Code::CorimDuplicate,
                format!("a platform of this mask already has a CoRIM {what}"),
            );
        }
        if is_signature && mask & !self.seen.corim_document != 0 {
            self.report(Code::CorimOrder, "a CoRIM signature stands before its document");
        }
        self.check_data(header.file_offset, header.size_bytes.into());
    }

    pub(super) fn check_version_string(&mut self, text: &[u8]) {
        if std::str::from_utf8(text).is_err() {
            self.report(Code::VersionStringText, "the version string is not UTF-8");
        }
        if self.seen.version_string {
            self.report(
                Code::VersionStringDuplicate,
                "the file already has a version string",
            );
        }
        self.seen.version_string = true;
    }
}
