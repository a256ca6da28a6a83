// SPDX-License-Identifier: MIT
//! Request numbers and names as the kernel has them (`spec/sev.md` 1.1, 1.2).
//!
//! Always true: the numbers are literal, so a wrong one in `kvm_sys` meets ENOTTY here as it would in the
//! kernel. Not here: what the requests do.

/// All requests that the model knows, with `name` for any.
macro_rules! requests {
    ($($name:ident = $number:literal),* $(,)?) => {
        $(pub(crate) const $name: u32 = $number;)*

        /// The name of a request.
        pub(crate) fn name(number: u32) -> &'static str {
            match number {
                $($name => concat!("KVM_", stringify!($name)),)*
                SEV_ISSUE_CMD => "SEV_ISSUE_CMD",
                _ => "an unknown request",
            }
        }
    };
}

requests! {
    GET_API_VERSION = 0xAE00,
    CREATE_VM = 0xAE01,
    CHECK_EXTENSION = 0xAE03,
    GET_VCPU_MMAP_SIZE = 0xAE04,
    GET_SUPPORTED_CPUID = 0xC008_AE05,
    CREATE_VCPU = 0xAE41,
    SET_USER_MEMORY_REGION = 0x4020_AE46,
    SET_USER_MEMORY_REGION2 = 0x40A0_AE49,
    RUN = 0xAE80,
    GET_REGS = 0x8090_AE81,
    SET_REGS = 0x4090_AE82,
    GET_SREGS = 0x8138_AE83,
    SET_SREGS = 0x4138_AE84,
    GET_MSRS = 0xC008_AE88,
    SET_MSRS = 0x4008_AE89,
    SET_CPUID2 = 0x4008_AE90,
    SET_GUEST_DEBUG = 0x4048_AE9B,
    GET_DEBUGREGS = 0x8080_AEA1,
    SET_DEBUGREGS = 0x4080_AEA2,
    ENABLE_CAP = 0x4068_AEA3,
    GET_XSAVE = 0x9000_AEA4,
    SET_XSAVE = 0x5000_AEA5,
    GET_XCRS = 0x8188_AEA6,
    SET_XCRS = 0x4188_AEA7,
    MEMORY_ENCRYPT_OP = 0xC008_AEBA,
    MEMORY_ENCRYPT_REG_REGION = 0x8010_AEBB,
    MEMORY_ENCRYPT_UNREG_REGION = 0x8010_AEBC,
    SET_MEMORY_ATTRIBUTES = 0x4020_AED2,
    CREATE_GUEST_MEMFD = 0xC040_AED4,
    GET_DEVICE_ATTR = 0x4018_AEE2,
    HAS_DEVICE_ATTR = 0x4018_AEE3,
}

pub(crate) const SEV_ISSUE_CMD: u32 = 0xC010_5300;

/// Commands of MEMORY_ENCRYPT_OP.
pub(crate) mod command {
    pub(crate) const INIT: u32 = 0;
    pub(crate) const ES_INIT: u32 = 1;
    pub(crate) const LAUNCH_START: u32 = 2;
    pub(crate) const LAUNCH_UPDATE_DATA: u32 = 3;
    pub(crate) const LAUNCH_UPDATE_VMSA: u32 = 4;
    pub(crate) const LAUNCH_SECRET: u32 = 5;
    pub(crate) const LAUNCH_MEASURE: u32 = 6;
    pub(crate) const LAUNCH_FINISH: u32 = 7;
    pub(crate) const GUEST_STATUS: u32 = 16;
    pub(crate) const DBG_DECRYPT: u32 = 17;
    pub(crate) const DBG_ENCRYPT: u32 = 18;
    pub(crate) const INIT2: u32 = 22;
    pub(crate) const SNP_LAUNCH_START: u32 = 100;
    pub(crate) const SNP_LAUNCH_UPDATE: u32 = 101;
    pub(crate) const SNP_LAUNCH_FINISH: u32 = 102;

    /// Commands of migration and of the firmware's own report, which the model does not have.
    pub(crate) fn is_without_model(id: u32) -> bool {
        matches!(id, 8 | 9 | 11 | 12 | 13 | 15 | 20 | 21)
    }

    pub(crate) fn name(id: u32) -> &'static str {
        match id {
            INIT => "KVM_SEV_INIT",
            ES_INIT => "KVM_SEV_ES_INIT",
            LAUNCH_START => "KVM_SEV_LAUNCH_START",
            LAUNCH_UPDATE_DATA => "KVM_SEV_LAUNCH_UPDATE_DATA",
            LAUNCH_UPDATE_VMSA => "KVM_SEV_LAUNCH_UPDATE_VMSA",
            LAUNCH_SECRET => "KVM_SEV_LAUNCH_SECRET",
            LAUNCH_MEASURE => "KVM_SEV_LAUNCH_MEASURE",
            LAUNCH_FINISH => "KVM_SEV_LAUNCH_FINISH",
            GUEST_STATUS => "KVM_SEV_GUEST_STATUS",
            DBG_DECRYPT => "KVM_SEV_DBG_DECRYPT",
            DBG_ENCRYPT => "KVM_SEV_DBG_ENCRYPT",
            INIT2 => "KVM_SEV_INIT2",
            SNP_LAUNCH_START => "KVM_SEV_SNP_LAUNCH_START",
            SNP_LAUNCH_UPDATE => "KVM_SEV_SNP_LAUNCH_UPDATE",
            SNP_LAUNCH_FINISH => "KVM_SEV_SNP_LAUNCH_FINISH",
            _ => "KVM_MEMORY_ENCRYPT_OP",
        }
    }
}
