// SPDX-License-Identifier: MIT
//! The FXSAVE image.

use crate::core::Core;

impl Core {
    /// x87, MXCSR and XMM as a 64-bit FXSAVE image.
    pub(crate) fn fxsave_image(&self) -> [u8; 512] {
        let mut b = [0; 512];
        b[..160].copy_from_slice(&self.fpu.image);
        b[24..28].copy_from_slice(&self.mxcsr.to_le_bytes());
        b[28..32].copy_from_slice(&0xFFFFu32.to_le_bytes());
        for (i, x) in self.xmm.iter().enumerate() {
            b[160 + i * 16..176 + i * 16].copy_from_slice(&x.to_le_bytes());
        }
        b
    }
    /// Loads a 64-bit FXSAVE image.
    pub(crate) fn load_fx_image(&mut self, b: &[u8; 512]) {
        self.fpu.image.copy_from_slice(&b[..160]);
        self.mxcsr = u32::from_le_bytes([b[24], b[25], b[26], b[27]]) & 0xFFFF;
        for (i, x) in self.xmm.iter_mut().enumerate() {
            let mut v = [0; 16];
            v.copy_from_slice(&b[160 + i * 16..176 + i * 16]);
            *x = u128::from_le_bytes(v);
        }
    }
}
