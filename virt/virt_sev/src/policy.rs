// SPDX-License-Identifier: MIT
//! Guest policies: which one a launch takes, and what can be said against it before the firmware is asked
//! (`spec/sev.md` 1.3, 4.7).

use crate::platform::Platform;

/// SEV and SEV-ES: debugging refused.
const SEV_NO_DEBUG: u64 = 1 << 0;
/// SEV and SEV-ES: encrypted state required.
const SEV_ES_REQUIRED: u64 = 1 << 2;
/// Bits of a SEV or SEV-ES policy that have a meaning: the six flags and the API version.
const SEV_KNOWN: u64 = 0xFFFF_003F;
/// SEV-SNP: must be one.
const SNP_MUST_BE_ONE: u64 = 1 << 17;
/// SEV-SNP: a migration agent may be associated, which KVM refuses.
const SNP_MIGRATION_AGENT: u64 = 1 << 18;
/// SEV-SNP: debugging allowed.
const SNP_DEBUG: u64 = 1 << 19;
/// Bits of a SEV-SNP policy that have a meaning.
const SNP_KNOWN: u64 = 0x03FF_FFFF;

/// Why a policy is not launched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum PolicyError {
    #[error(
        "the file has no guest policy for {platform}; build it with one, or add policy=N to --isolation (the usual one is {usual:#x})"
    )]
    Missing { platform: Platform, usual: u64 },
    #[error("policy {policy:#x} has bits {bits:#x}, which mean nothing for {platform}")]
    Unknown {
        platform: Platform,
        policy: u64,
        bits: u64,
    },
    #[error(
        "policy {policy:#x} does not fit {platform}: bit 2 (encrypted state required) must be {want}; {platform} usually has {usual:#x}"
    )]
    EncryptedState {
        platform: Platform,
        policy: u64,
        want: u8,
        usual: u64,
    },
    #[error("policy {0:#x} has bit 17 clear, which must be one; SEV-SNP usually has 0x30000")]
    MustBeOne(u64),
    #[error("policy {0:#x} allows a migration agent (bit 18), which kvm refuses; clear the bit")]
    MigrationAgent(u64),
    #[error("policy {policy:#x} asks for bits {bits:#x}, the host allows {allowed:#x}")]
    Host { policy: u64, bits: u64, allowed: u64 },
}

/// What most guests of a platform have.
pub const fn usual(platform: Platform) -> u64 {
    match platform {
        Platform::Sev => SEV_NO_DEBUG,
        Platform::SevEs => SEV_NO_DEBUG | SEV_ES_REQUIRED,
        Platform::Snp => SNP_MUST_BE_ONE | 1 << 16,
    }
}

/// The policy of a launch: the one asked for, else the file's, checked against the platform and, for
/// SEV-SNP, against the bits that the host allows.
pub fn decide(
    platform: Platform,
    file: Option<u64>,
    asked: Option<u64>,
    allowed: Option<u64>,
) -> Result<u64, PolicyError> {
    let policy = asked.or(file).ok_or(PolicyError::Missing {
        platform,
        usual: usual(platform),
    })?;
    let known = if platform == Platform::Snp {
        SNP_KNOWN
    } else {
        SEV_KNOWN
    };
    if policy & !known != 0 {
        let bits = policy & !known;
        return Err(PolicyError::Unknown {
            platform,
            policy,
            bits,
        });
    }
    if platform == Platform::Snp {
        return check_snp(policy, allowed);
    }
    let want = platform == Platform::SevEs;
    if (policy & SEV_ES_REQUIRED != 0) != want {
        return Err(PolicyError::EncryptedState {
            platform,
            policy,
            want: want.into(),
            usual: usual(platform),
        });
    }
    Ok(policy)
}

fn check_snp(policy: u64, allowed: Option<u64>) -> Result<u64, PolicyError> {
    if policy & SNP_MUST_BE_ONE == 0 {
        return Err(PolicyError::MustBeOne(policy));
    }
    if policy & SNP_MIGRATION_AGENT != 0 {
        return Err(PolicyError::MigrationAgent(policy));
    }
    match allowed {
        Some(allowed) if policy & !allowed != 0 => Err(PolicyError::Host {
            policy,
            bits: policy & !allowed,
            allowed,
        }),
        _ => Ok(policy),
    }
}

/// Whether the host may read a guest of this policy by debugging it.
pub const fn allows_debug(platform: Platform, policy: u64) -> bool {
    match platform {
        Platform::Sev | Platform::SevEs => policy & SEV_NO_DEBUG == 0,
        Platform::Snp => policy & SNP_DEBUG != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Platform::{Sev, SevEs, Snp};

    #[test]
    fn what_is_asked_for_comes_before_the_file() {
        assert_eq!(decide(Snp, Some(0x3_0000), None, None), Ok(0x3_0000));
        assert_eq!(decide(Snp, Some(0x3_0000), Some(0xB_0000), None), Ok(0xB_0000));
        for platform in Platform::ALL {
            assert_eq!(
                decide(platform, None, Some(usual(platform)), None),
                Ok(usual(platform))
            );
            assert_eq!(
                decide(platform, None, None, None),
                Err(PolicyError::Missing {
                    platform,
                    usual: usual(platform)
                })
            );
        }
    }

    #[test]
    fn every_rule_has_its_message() {
        for (platform, policy, allowed, message) in [
            (
                Sev,
                5,
                None,
                "policy 0x5 does not fit SEV: bit 2 (encrypted state required) must be 0; SEV usually has 0x1",
            ),
            (
                SevEs,
                1,
                None,
                "policy 0x1 does not fit SEV-ES: bit 2 (encrypted state required) must be 1; SEV-ES usually has 0x5",
            ),
            (
                Sev,
                0x41,
                None,
                "policy 0x41 has bits 0x40, which mean nothing for SEV",
            ),
            (
                SevEs,
                1 << 32 | 5,
                None,
                "policy 0x100000005 has bits 0x100000000, which mean nothing for SEV-ES",
            ),
            (
                Snp,
                1 << 26 | 0x3_0000,
                None,
                "policy 0x4030000 has bits 0x4000000, which mean nothing for SEV-SNP",
            ),
            (
                Snp,
                0x1_0000,
                None,
                "policy 0x10000 has bit 17 clear, which must be one; SEV-SNP usually has 0x30000",
            ),
            (
                Snp,
                0x7_0000,
                None,
                "policy 0x70000 allows a migration agent (bit 18), which kvm refuses; clear the bit",
            ),
            (
                Snp,
                0x23_0000,
                Some(0x1F_FFFF),
                "policy 0x230000 asks for bits 0x200000, the host allows 0x1fffff",
            ),
        ] {
            assert_eq!(
                decide(platform, Some(policy), None, allowed)
                    .unwrap_err()
                    .to_string(),
                message
            );
        }
        // Bits of the API version are the firmware's to judge.
        assert_eq!(decide(SevEs, Some(0x0100_0005), None, None), Ok(0x0100_0005));
    }

    #[test]
    fn debugging_is_seen_in_both_forms() {
        assert!(allows_debug(Sev, 0) && !allows_debug(Sev, 1));
        assert!(allows_debug(Snp, 0xB_0000) && !allows_debug(Snp, 0x3_0000));
    }
}
