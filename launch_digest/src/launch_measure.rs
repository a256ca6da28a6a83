// SPDX-License-Identifier: MIT
//! SEV's LAUNCH_MEASURE reply: an HMAC over the launch digest with the session's transport integrity
//! key (SEV API 55766, "LAUNCH_MEASURE").

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What the HMAC covers besides the digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeasureContext {
    /// Firmware API version, major and minor.
    pub api: (u8, u8),
    /// Firmware build.
    pub build: u8,
    /// Guest policy.
    pub policy: u32,
    /// Nonce that the firmware chose.
    pub mnonce: [u8; 16],
}

/// The 48-byte reply: the HMAC and the nonce.
pub fn launch_measure(tik: &[u8; 16], context: &MeasureContext, digest: &[u8; 32]) -> [u8; 48] {
    let mut out = [0; 48];
    out[32..].copy_from_slice(&context.mnonce);
    // HMAC takes keys of any length, so this cannot fail for 16 bytes.
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(tik) {
        mac.update(&[4, context.api.0, context.api.1, context.build]);
        mac.update(&context.policy.to_le_bytes());
        mac.update(digest);
        mac.update(&context.mnonce);
        out[..32].copy_from_slice(&mac.finalize().into_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhex<const N: usize>(text: &str) -> [u8; N] {
        std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
    }

    const TIK: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    const MNONCE: [u8; 16] = [
        0xF0, 0xF1, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8, 0xF9, 0xFA, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF,
    ];

    #[test]
    fn replies_equal_those_that_the_sev_crate_accepts() {
        let ovmf = unhex("7b456907dd0786d415999e801a1ac4637b8ed4d7cf5378cfc6edbe5e574dd773");
        let c = MeasureContext {
            api: (1, 55),
            build: 24,
            policy: 1,
            mnonce: MNONCE,
        };
        let expected: [u8; 32] = unhex("9b44cc8bec06fb0d975aef7fcfb4782e86fd9e74f04430b46752eb7414a9009f");
        assert_eq!(launch_measure(&TIK, &c, &ovmf)[..32], expected);
        let es = unhex("8590d0b6d4beced4ec5d855960dd684f2887af7ae80bb6783610620c6aa34362");
        let c = MeasureContext {
            api: (0, 24),
            build: 15,
            policy: 5,
            mnonce: MNONCE,
        };
        let expected: [u8; 32] = unhex("17cf7777e0a81974da47e020baabfbfe2423437bf3faf71f270847b3a50ad7f3");
        assert_eq!(launch_measure(&TIK, &c, &es)[..32], expected);
    }
}
