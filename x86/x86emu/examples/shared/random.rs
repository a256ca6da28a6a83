// SPDX-License-Identifier: MIT
//! Reproducible random operands, with the values where instructions have their corners.

/// `--seed`, `--first` and `--count` from the command line.
#[allow(dead_code)]
pub(crate) fn cases(args: &[String], count: u64) -> (u64, u64, u64) {
    let number = |name: &str, default: u64| {
        let v = args.iter().position(|a| a == name).and_then(|i| args.get(i + 1));
        v.map_or(default, |v| v.parse().expect("a number"))
    };
    (
        number("--seed", 1),
        number("--first", 0),
        number("--count", count),
    )
}

/// xorshift64* generator.
pub(crate) struct Random(u64);

#[allow(dead_code)]
impl Random {
    /// From any seed.
    pub(crate) fn new(seed: u64) -> Self {
        let mut r = Self(
            seed.wrapping_mul(0xD120_0000_0001_0001)
                .wrapping_add(0x9E37_79B9_7F4A_7C15)
                | 1,
        );
        (0..4).for_each(|_| {
            r.next();
        });
        r
    }
    /// 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    /// Below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
    /// An integer operand: random, small, near a power of two, or near a sign boundary.
    pub(crate) fn operand(&mut self) -> u64 {
        let v = self.next();
        match self.below(8) {
            0 => 0,
            1 => v & 0xFF,
            2 => u64::MAX - (v & 0xF),
            3 => (1 << (v & 63)) - (v >> 8 & 1),
            4 => 0x8000_0000 + (v & 3),
            5 => 0x8080_8080_7F7F_7F7F ^ (v & 0x0101_0101_0101_0101),
            _ => v,
        }
    }
    /// A vector lane or memory word: integer, single or double corner cases.
    pub(crate) fn lane(&mut self) -> u64 {
        let v = self.next();
        let single = |v: u64| -> u64 {
            [
                0,
                0x8000_0000,
                0x3F80_0000,
                0x7F80_0000,
                0x7FC0_0001,
                0x7FA0_0000,
                1,
                0x007F_FFFF,
                0x4B00_0001,
                0xBF00_0000,
            ][v as usize % 10]
        };
        match self.below(8) {
            0 => [
                0,
                1 << 63,
                0x3FF0 << 48,
                0x7FF0 << 48,
                0x7FF8 << 48 | 1,
                0x7FF4 << 48,
                1,
                0x000F_FFFF_FFFF_FFFF,
            ][v as usize % 8],
            1 | 2 => single(v >> 8) | single(v >> 32) << 32,
            3 => (f64::from((v >> 40) as u32) * 0.37 - 1000.0).to_bits(),
            4 => {
                u64::from(((v >> 44) as f32 * 0.11 - 77.0).to_bits())
                    | u64::from(((v & 0xFFFF) as f32 * 1.7).to_bits()) << 32
            }
            5 => self.operand(),
            _ => v,
        }
    }
    /// An x87 register: valid numbers, zeros, infinities, NaNs, denormals.
    pub(crate) fn extended(&mut self) -> [u8; 10] {
        let v = self.next();
        let sign = (v >> 60 & 1) << 15;
        let (exponent, mantissa) = match self.below(8) {
            0 => (0, 0),
            1 => (0x7FFF, 1 << 63),
            2 => (0x7FFF, 3 << 62 | v >> 8),
            3 => (0, 1 | v >> 32),
            4 => (0x3FFF, 1 << 63),
            5 => (0x3FFF + self.below(70), 1 << 63 | v),
            6 => (0x3FC0 + self.below(128), 1 << 63 | v),
            _ => (1 + self.below(0x7FFD), 1 << 63 | v),
        };
        let mut b = [0; 10];
        b[..8].copy_from_slice(&mantissa.to_le_bytes());
        b[8..].copy_from_slice(&((exponent | sign) as u16).to_le_bytes());
        b
    }
}
