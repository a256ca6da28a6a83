// SPDX-License-Identifier: MIT
//! FNV-1a, 64 bits: how reports show contents that are too long to print.
//!
//! Always true: deterministic and byte order independent. Not here: anything cryptographic; these values
//! tell equal from different, nothing more.

/// A running FNV-1a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fnv1a(u64);

impl Fnv1a {
    /// The hash of no bytes.
    pub const fn new() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }

    /// Takes more bytes in.
    pub const fn update(mut self, bytes: &[u8]) -> Self {
        let mut at = 0;
        while at < bytes.len() {
            self.0 = (self.0 ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01B3);
            at += 1;
        }
        self
    }

    /// The hash of everything taken in.
    pub const fn finish(self) -> u64 {
        self.0
    }

    /// The hash of `bytes`.
    pub const fn of(bytes: &[u8]) -> u64 {
        Self::new().update(bytes).finish()
    }
}

impl Default for Fnv1a {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::Fnv1a;

    #[test]
    fn known_values_of_the_published_function() {
        assert_eq!(Fnv1a::of(b""), 0xCBF2_9CE4_8422_2325);
        assert_eq!(Fnv1a::of(b"a"), 0xAF63_DC4C_8601_EC8C);
        assert_eq!(Fnv1a::of(b"foobar"), 0x8594_4171_F739_67E8);
        assert_eq!(
            Fnv1a::new().update(b"foo").update(b"bar").finish(),
            Fnv1a::of(b"foobar")
        );
    }
}
