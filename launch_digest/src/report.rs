// SPDX-License-Identifier: MIT
//! SEV-SNP attestation reports: the fields that a launch decides (SNP ABI 56860, "ATTESTATION_REPORT
//! Structure"). The report's own signature is not checked here: that needs AMD's certificates.

/// Size of a report.
pub const REPORT_SIZE: usize = 0x4A0;

/// The fields of a report that follow from how the guest was launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Structure version.
    pub version: u32,
    /// Guest security version, from the ID block.
    pub guest_svn: u32,
    /// Guest policy.
    pub policy: u64,
    /// Family id, from the ID block.
    pub family_id: [u8; 16],
    /// Image id, from the ID block.
    pub image_id: [u8; 16],
    /// Launch digest.
    pub measurement: [u8; 48],
    /// Host data given at launch.
    pub host_data: [u8; 32],
    /// SHA-384 of the ID key; zero without one.
    pub id_key_digest: [u8; 48],
    /// SHA-384 of the author key; zero without one.
    pub author_key_digest: [u8; 48],
}

/// The bytes are not a report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a sev-snp attestation report has {REPORT_SIZE:#x} bytes; there are {0:#x}")]
pub struct NotAReport(pub usize);

impl Report {
    /// Reads a report. Longer input (a report response with its header is 0x20 bytes longer) is refused.
    pub fn read(bytes: &[u8]) -> Result<Self, NotAReport> {
        let bytes: &[u8; REPORT_SIZE] = bytes.try_into().map_err(|_| NotAReport(bytes.len()))?;
        fn field<const N: usize>(bytes: &[u8; REPORT_SIZE], at: usize) -> [u8; N] {
            let mut out = [0; N];
            out.copy_from_slice(&bytes[at..at + N]);
            out
        }
        Ok(Self {
            version: u32::from_le_bytes(field(bytes, 0)),
            guest_svn: u32::from_le_bytes(field(bytes, 4)),
            policy: u64::from_le_bytes(field(bytes, 8)),
            family_id: field(bytes, 0x10),
            image_id: field(bytes, 0x20),
            measurement: field(bytes, 0x90),
            host_data: field(bytes, 0xC0),
            id_key_digest: field(bytes, 0xE0),
            author_key_digest: field(bytes, 0x110),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_at_the_documented_places() {
        let mut bytes = vec![0; REPORT_SIZE];
        bytes[0] = 2;
        bytes[8] = 0x7;
        bytes[0x90] = 0xAA;
        bytes[0xBF] = 0xBB;
        bytes[0xC0] = 0xCC;
        let r = Report::read(&bytes).unwrap();
        assert_eq!(
            (r.version, r.policy, r.measurement[0], r.measurement[47]),
            (2, 7, 0xAA, 0xBB)
        );
        assert_eq!(r.host_data[0], 0xCC);
        assert_eq!(Report::read(&bytes[1..]), Err(NotAReport(REPORT_SIZE - 1)));
    }
}
