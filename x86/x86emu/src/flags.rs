// SPDX-License-Identifier: MIT
//! Lazy status flags: what the last operations left behind, from which each flag is computed when it
//! is asked for.
//!
//! Always true: any combination of the six status flags can be represented, and each flag is computed
//! without branches. Not here: the other bits of RFLAGS.

/// CF, PF, AF, ZF, SF and OF in a form that is cheap to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flags {
    /// ZF = (zero == 0).
    pub zero: u64,
    /// SF = bit 63, PF = even parity of the low byte.
    pub sign: u64,
    /// CF = bit 63, OF = bit 63 xor bit 62: the carries out of the two top bits.
    pub carry: u64,
    /// AF = bit 4.
    pub aux: u64,
}

const CF: u64 = 1;
const PF: u64 = 4;
const AF: u64 = 0x10;
const ZF: u64 = 0x40;
const SF: u64 = 0x80;
const OF: u64 = 0x800;
/// The six status flags.
pub(crate) const STATUS: u64 = CF | PF | AF | ZF | SF | OF;

impl Flags {
    pub(crate) fn from_bits(v: u64) -> Self {
        let cf = v & CF;
        let of = (v >> 11) & 1;
        Self {
            zero: (v >> 6) & 1 ^ 1,
            sign: (v >> 7 & 1) << 63 | (v >> 2 & 1 ^ 1),
            carry: cf << 63 | (cf ^ of) << 62,
            aux: v & AF,
        }
    }
    pub(crate) fn bits(&self) -> u64 {
        u64::from(self.cf())
            | u64::from(self.pf()) << 2
            | self.aux & AF
            | u64::from(self.zf()) << 6
            | u64::from(self.sf()) << 7
            | u64::from(self.of()) << 11
    }
    #[inline(always)]
    pub(crate) fn cf(&self) -> bool {
        self.carry >> 63 != 0
    }
    #[inline(always)]
    pub(crate) fn pf(&self) -> bool {
        (self.sign as u8).count_ones() & 1 == 0
    }
    #[inline(always)]
    pub(crate) fn zf(&self) -> bool {
        self.zero == 0
    }
    #[inline(always)]
    pub(crate) fn sf(&self) -> bool {
        (self.sign as i64) < 0
    }
    #[inline(always)]
    pub(crate) fn of(&self) -> bool {
        ((self.carry ^ self.carry << 1) as i64) < 0
    }
    /// Replaces CF and leaves the others.
    #[inline(always)]
    pub(crate) fn set_cf(&mut self, cf: bool) {
        let of = u64::from(self.of());
        let cf = u64::from(cf);
        self.carry = cf << 63 | (cf ^ of) << 62;
    }
    /// Sets CF and OF.
    #[inline(always)]
    pub(crate) fn set_cf_of(&mut self, cf: bool, of: bool) {
        let cf = u64::from(cf);
        self.carry = cf << 63 | (cf ^ u64::from(of)) << 62;
    }
    /// ZF only, the others stay.
    pub(crate) fn set_zf(&mut self, zf: bool) {
        self.zero = u64::from(!zf);
    }
    /// ZF, SF, PF from a result that is sign-extended to 64 bits.
    #[inline(always)]
    pub(crate) fn set_result(&mut self, sext: u64) {
        self.zero = sext;
        self.sign = sext;
    }
    /// The condition with the encoding number `cc` (SDM volume 1 appendix B).
    #[inline(always)]
    pub(crate) fn cond(&self, cc: u8) -> bool {
        let v = match cc >> 1 & 7 {
            0 => self.of(),
            1 => self.cf(),
            2 => self.zf(),
            3 => self.cf() | self.zf(),
            4 => self.sf(),
            5 => self.pf(),
            6 => self.sf() ^ self.of(),
            _ => self.zf() | (self.sf() ^ self.of()),
        };
        v ^ (cc & 1 != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_survives_the_round_trip() {
        for i in 0..64u64 {
            let v = (i & 1)
                | (i >> 1 & 1) << 2
                | (i >> 2 & 1) << 4
                | (i >> 3 & 1) << 6
                | (i >> 4 & 1) << 7
                | (i >> 5) << 11;
            assert_eq!(Flags::from_bits(v).bits(), v);
            for cf in [false, true] {
                let mut f = Flags::from_bits(v);
                f.set_cf(cf);
                assert_eq!(f.bits(), v & !1 | u64::from(cf));
            }
        }
    }
}
