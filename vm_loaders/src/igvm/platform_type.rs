// SPDX-License-Identifier: MIT
//! What isolation an IGVM platform type stands for (`IGVM_VHS_SUPPORTED_PLATFORM`), and back.
//!
//! Always true: each isolation has one type, and a type that is not known has none. Not here: which
//! highest VTL and boundary go with a type (`check`).

use igvm_defs::IgvmPlatformType;
use launch_plan::Isolation;

/// The platform type of `isolation`.
pub fn platform_type(isolation: Isolation) -> IgvmPlatformType {
    match isolation {
        Isolation::Native => IgvmPlatformType::NATIVE,
        Isolation::Vsm => IgvmPlatformType::VSM_ISOLATION,
        Isolation::Sev => IgvmPlatformType::SEV,
        Isolation::SevEs => IgvmPlatformType::SEV_ES,
        Isolation::Snp => IgvmPlatformType::SEV_SNP,
        Isolation::Tdx => IgvmPlatformType::TDX,
        Isolation::Cca => IgvmPlatformType::CCA,
    }
}

/// The isolation that `platform` stands for; `None` when the type is not known.
pub fn isolation_of(platform: IgvmPlatformType) -> Option<Isolation> {
    Some(match platform {
        IgvmPlatformType::NATIVE => Isolation::Native,
        IgvmPlatformType::VSM_ISOLATION => Isolation::Vsm,
        IgvmPlatformType::SEV_SNP => Isolation::Snp,
        IgvmPlatformType::TDX => Isolation::Tdx,
        IgvmPlatformType::SEV => Isolation::Sev,
        IgvmPlatformType::SEV_ES => Isolation::SevEs,
        IgvmPlatformType::CCA => Isolation::Cca,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_known_type_has_one_isolation() {
        let known = (0..=u8::MAX).filter_map(|number| {
            let platform = IgvmPlatformType(number);
            isolation_of(platform).map(|isolation| (platform, isolation))
        });
        let known: Vec<_> = known.collect();
        assert_eq!(known.len(), 7);
        assert!(
            known
                .iter()
                .all(|(platform, isolation)| platform_type(*isolation) == *platform)
        );
    }
}
