// SPDX-License-Identifier: MIT
//! The security processor's answers (`spec/sev.md` 1.7).

/// Answers that launches explain.
pub(crate) mod status {
    pub(crate) const POLICY_FAILURE: u32 = 0x07;
    pub(crate) const BAD_SIGNATURE: u32 = 0x0A;
    pub(crate) const BAD_MEASUREMENT: u32 = 0x0B;
    pub(crate) const INVALID_PARAM: u32 = 0x16;
    pub(crate) const RESOURCE_LIMIT: u32 = 0x17;
}

/// Names from 1 on; empty where there is none.
const NAMES: [&str; 0x27] = [
    "INVALID_PLATFORM_STATE",
    "INVALID_GUEST_STATE",
    "INVALID_CONFIG",
    "INVALID_LEN",
    "ALREADY_OWNED",
    "INVALID_CERTIFICATE",
    "POLICY_FAILURE",
    "INACTIVE",
    "INVALID_ADDRESS",
    "BAD_SIGNATURE",
    "BAD_MEASUREMENT",
    "ASID_OWNED",
    "INVALID_ASID",
    "WBINVD_REQUIRED",
    "DFFLUSH_REQUIRED",
    "INVALID_GUEST",
    "INVALID_COMMAND",
    "ACTIVE",
    "HWERROR_PLATFORM",
    "HWERROR_UNSAFE",
    "UNSUPPORTED",
    "INVALID_PARAM",
    "RESOURCE_LIMIT",
    "SECURE_DATA_INVALID",
    "INVALID_PAGE_SIZE",
    "INVALID_PAGE_STATE",
    "INVALID_MDATA_ENTRY",
    "INVALID_PAGE_OWNER",
    "AEAD_OFLOW",
    "",
    "EXIT_RING_BUFFER",
    "RMP_INIT_REQUIRED",
    "BAD_SVN",
    "BAD_VERSION",
    "SHUTDOWN_REQUIRED",
    "UPDATE_FAILED",
    "RESTORE_REQUIRED",
    "RMP_INITIALIZATION_FAILED",
    "INVALID_KEY",
];

/// A status in words.
pub(crate) fn name(status: u32) -> String {
    let known = status.checked_sub(1).and_then(|at| NAMES.get(at as usize));
    match known {
        Some(name) if !name.is_empty() => format!("{name} ({status:#x})"),
        _ => format!("status {status:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_amds_names() {
        for (value, text) in [
            (4, "INVALID_LEN (0x4)"),
            (status::POLICY_FAILURE, "POLICY_FAILURE (0x7)"),
            (status::BAD_SIGNATURE, "BAD_SIGNATURE (0xa)"),
            (status::BAD_MEASUREMENT, "BAD_MEASUREMENT (0xb)"),
            (status::INVALID_PARAM, "INVALID_PARAM (0x16)"),
            (status::RESOURCE_LIMIT, "RESOURCE_LIMIT (0x17)"),
            (0x1E, "status 0x1e"),
            (0x20, "RMP_INIT_REQUIRED (0x20)"),
            (0x27, "INVALID_KEY (0x27)"),
            (0, "status 0x0"),
            (u32::MAX, "status 0xffffffff"),
        ] {
            assert_eq!(name(value), text);
        }
    }
}
