// SPDX-License-Identifier: MIT
//! ID blocks and VBS measurements between their IGVM structures and the plan's types.
//!
//! Always true: field by field, both ways, nothing lost but reserved bytes. Not here: signatures.

use super::header::Header;
use igvm_defs::*;
use launch_plan::{IdBlock, IdKey, IdSignature, VbsMeasurement};

pub(super) fn id_block(raw: &IGVM_VHS_SNP_ID_BLOCK) -> IdBlock {
    let signature = |raw: &IGVM_VHS_SNP_ID_BLOCK_SIGNATURE| IdSignature {
        r: raw.r_comp,
        s: raw.s_comp,
    };
    let key = |raw: &IGVM_VHS_SNP_ID_BLOCK_PUBLIC_KEY| IdKey {
        curve: raw.curve,
        qx: raw.qx,
        qy: raw.qy,
    };
    IdBlock {
        author_key_enabled: raw.author_key_enabled,
        launch_digest: raw.ld,
        family_id: raw.family_id,
        image_id: raw.image_id,
        version: raw.version,
        guest_svn: raw.guest_svn,
        id_key_algorithm: raw.id_key_algorithm,
        author_key_algorithm: raw.author_key_algorithm,
        id_signature: signature(&raw.id_key_signature),
        id_key: key(&raw.id_public_key),
        author_signature: signature(&raw.author_key_signature),
        author_key: key(&raw.author_public_key),
    }
}

/// The header of an ID block, for [`super::Edit`].
pub fn snp_id_block(block: &IdBlock, mask: u32) -> Header<'static> {
    Header::SnpIdBlock(Box::new(raw_id_block(block, mask)))
}

pub(super) fn raw_id_block(block: &IdBlock, mask: u32) -> IGVM_VHS_SNP_ID_BLOCK {
    let signature = |it: &IdSignature| IGVM_VHS_SNP_ID_BLOCK_SIGNATURE {
        r_comp: it.r,
        s_comp: it.s,
    };
    let key = |it: &IdKey| IGVM_VHS_SNP_ID_BLOCK_PUBLIC_KEY {
        curve: it.curve,
        reserved: 0,
        qx: it.qx,
        qy: it.qy,
    };
    IGVM_VHS_SNP_ID_BLOCK {
        compatibility_mask: mask,
        author_key_enabled: block.author_key_enabled,
        reserved: [0; 3],
        ld: block.launch_digest,
        family_id: block.family_id,
        image_id: block.image_id,
        version: block.version,
        guest_svn: block.guest_svn,
        id_key_algorithm: block.id_key_algorithm,
        author_key_algorithm: block.author_key_algorithm,
        id_key_signature: signature(&block.id_signature),
        id_public_key: key(&block.id_key),
        author_key_signature: signature(&block.author_signature),
        author_public_key: key(&block.author_key),
    }
}

pub(super) fn vbs_measurement(raw: &IGVM_VHS_VBS_MEASUREMENT) -> VbsMeasurement {
    VbsMeasurement {
        version: raw.version,
        product_id: raw.product_id,
        module_id: raw.module_id,
        security_version: raw.security_version,
        policy_flags: raw.policy_flags,
        digest_algorithm: raw.boot_digest_algo,
        signing_algorithm: raw.signing_algo,
        digest: raw.boot_measurement_digest,
        signature: raw.signature,
        public_key: raw.public_key,
    }
}

pub(super) fn raw_vbs_measurement(measurement: &VbsMeasurement, mask: u32) -> IGVM_VHS_VBS_MEASUREMENT {
    IGVM_VHS_VBS_MEASUREMENT {
        compatibility_mask: mask,
        version: measurement.version,
        product_id: measurement.product_id,
        module_id: measurement.module_id,
        security_version: measurement.security_version,
        policy_flags: measurement.policy_flags,
        boot_digest_algo: measurement.digest_algorithm,
        signing_algo: measurement.signing_algorithm,
        boot_measurement_digest: measurement.digest,
        signature: measurement.signature,
        public_key: measurement.public_key,
    }
}
