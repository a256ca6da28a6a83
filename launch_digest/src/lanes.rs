// SPDX-License-Identifier: MIT
//! SHA-384 of several pages at once, one page per SIMD lane (FIPS 180-4, section 6.4 and 5.3.4).
//!
//! Always true: used only after the processor was asked for the instructions; everything else, and pages
//! that do not fill the lanes, are hashed by the `sha2` crate, which the tests compare with.
//! Not here: threads, short pages (`pages`).

use crate::pages::Hash384;
use x86defs::paging::PAGE_BYTES;

/// A whole page.
pub(crate) type Page = [u8; PAGE_BYTES];

/// Bytes per block.
const BLOCK: usize = 128;

/// FIPS 180-4 section 5.3.4.
const INITIAL: [u64; 8] = [
    0xCBBB_9D5D_C105_9ED8,
    0x629A_292A_367C_D507,
    0x9159_015A_3070_DD17,
    0x152F_ECD8_F70E_5939,
    0x6733_2667_FFC0_0B31,
    0x8EB4_4A87_6858_1511,
    0xDB0C_2E0D_64F9_8FA7,
    0x47B5_481D_BEFA_4FA4,
];

/// The block behind a page: a one bit, zeros, the length in bits.
const PADDING: [u8; BLOCK] = {
    let mut block = [0; BLOCK];
    block[0] = 0x80;
    let bits = (PAGE_BYTES as u32 * 8).to_be_bytes();
    let mut i = 0;
    while i < 4 {
        block[BLOCK - 4 + i] = bits[i];
        i += 1;
    }
    block
};

/// FIPS 180-4 section 4.2.3.
const ROUND: [u64; 80] = [
    0x428a2f98d728ae22,
    0x7137449123ef65cd,
    0xb5c0fbcfec4d3b2f,
    0xe9b5dba58189dbbc,
    0x3956c25bf348b538,
    0x59f111f1b605d019,
    0x923f82a4af194f9b,
    0xab1c5ed5da6d8118,
    0xd807aa98a3030242,
    0x12835b0145706fbe,
    0x243185be4ee4b28c,
    0x550c7dc3d5ffb4e2,
    0x72be5d74f27b896f,
    0x80deb1fe3b1696b1,
    0x9bdc06a725c71235,
    0xc19bf174cf692694,
    0xe49b69c19ef14ad2,
    0xefbe4786384f25e3,
    0x0fc19dc68b8cd5b5,
    0x240ca1cc77ac9c65,
    0x2de92c6f592b0275,
    0x4a7484aa6ea6e483,
    0x5cb0a9dcbd41fbd4,
    0x76f988da831153b5,
    0x983e5152ee66dfab,
    0xa831c66d2db43210,
    0xb00327c898fb213f,
    0xbf597fc7beef0ee4,
    0xc6e00bf33da88fc2,
    0xd5a79147930aa725,
    0x06ca6351e003826f,
    0x142929670a0e6e70,
    0x27b70a8546d22ffc,
    0x2e1b21385c26c926,
    0x4d2c6dfc5ac42aed,
    0x53380d139d95b3df,
    0x650a73548baf63de,
    0x766a0abb3c77b2a8,
    0x81c2c92e47edaee6,
    0x92722c851482353b,
    0xa2bfe8a14cf10364,
    0xa81a664bbc423001,
    0xc24b8b70d0f89791,
    0xc76c51a30654be30,
    0xd192e819d6ef5218,
    0xd69906245565a910,
    0xf40e35855771202a,
    0x106aa07032bbd1b8,
    0x19a4c116b8d2d0c8,
    0x1e376c085141ab53,
    0x2748774cdf8eeb99,
    0x34b0bcb5e19b48a8,
    0x391c0cb3c5c95a63,
    0x4ed8aa4ae3418acb,
    0x5b9cca4f7763e373,
    0x682e6ff3d6b2b8a3,
    0x748f82ee5defb2fc,
    0x78a5636f43172f60,
    0x84c87814a1f0ab72,
    0x8cc702081a6439ec,
    0x90befffa23631e28,
    0xa4506cebde82bde9,
    0xbef9a3f7b2c67915,
    0xc67178f2e372532b,
    0xca273eceea26619c,
    0xd186b8c721c0c207,
    0xeada7dd6cde0eb1e,
    0xf57d4f7fee6ed178,
    0x06f067aa72176fba,
    0x0a637dc5a2c898a6,
    0x113f9804bef90dae,
    0x1b710b35131c471b,
    0x28db77f523047d84,
    0x32caab7b40c72493,
    0x3c9ebe0a15c9bebc,
    0x431d67c49c100d4c,
    0x4cc5d4becb3e42b6,
    0x597f299cfc657e2a,
    0x5fcb6fab3ad6faec,
    0x6c44198c4a475817,
];

/// Hashes as many of `pages` as fill lanes of this processor, from the first on, and says how many.
pub(crate) fn hash(pages: &[&Page], out: &mut [Hash384]) -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            return hash_by(pages, out, |pages, out| {
                // SAFETY: the processor has AVX-512F; the function needs nothing else.
                unsafe { eight::hash(pages, out) }
            });
        }
        if is_x86_feature_detected!("avx2") {
            return hash_by(pages, out, |pages, out| {
                // SAFETY: the processor has AVX2; the function needs nothing else.
                unsafe { four::hash(pages, out) }
            });
        }
    }
    let _ = (pages, out);
    0
}

/// Full groups of `LANES` pages.
fn hash_by<const LANES: usize>(
    pages: &[&Page],
    out: &mut [Hash384],
    hash: impl Fn(&[&Page; LANES], &mut [Hash384; LANES]),
) -> usize {
    let mut done = 0;
    for (pages, out) in pages.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        hash(pages, out);
        done += LANES;
    }
    done
}

/// One big-endian word of a block.
fn word(page: &[u8], at: usize) -> i64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&page[at..at + 8]);
    i64::from_be_bytes(bytes)
}

/// A module that hashes with one vector type: `lanes` pages at once. The eight functions are the vector
/// forms of FIPS 180-4 section 4.1.3 and of the additions between them.
macro_rules! lanes {
    ($module:ident, $feature:literal, $lanes:literal, $vector:ident, $ops:tt) => {
        #[cfg(target_arch = "x86_64")]
        mod $module {
            use super::*;
            use std::arch::x86_64::*;

            lanes!(@ops $feature, $vector, $ops);

            #[target_feature(enable = $feature)]
            pub(super) fn hash(pages: &[&Page; $lanes], out: &mut [Hash384; $lanes]) {
                let mut state = INITIAL.map(|word| splat(word as i64));
                for block in 0..PAGE_BYTES / BLOCK {
                    let at = block * BLOCK;
                    let words = std::array::from_fn(|i| gather(|lane| word(pages[lane], at + 8 * i)));
                    compress(&mut state, words);
                }
                compress(&mut state, std::array::from_fn(|i| splat(word(&PADDING, 8 * i))));
                for (number, vector) in state.into_iter().take(6).enumerate() {
                    for (hash, lane) in out.iter_mut().zip(spread(vector)) {
                        hash[8 * number..8 * number + 8].copy_from_slice(&lane.to_be_bytes());
                    }
                }
            }

            #[inline]
            #[target_feature(enable = $feature)]
            fn compress(state: &mut [$vector; 8], mut w: [$vector; 16]) {
                let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
                for sixteen in ROUND.as_chunks::<16>().0 {
                    for (i, k) in sixteen.iter().enumerate() {
                        let t1 = add(add(add(h, big1(e)), add(choose(e, f, g), splat(*k as i64))), w[i]);
                        let t2 = add(big0(a), majority(a, b, c));
                        (h, g, f, e, d, c, b, a) = (g, f, e, add(d, t1), c, b, a, add(t1, t2));
                        // The word of 16 rounds later; the last sixteen are not used.
                        let next = add(small1(w[(i + 14) % 16]), w[(i + 9) % 16]);
                        w[i] = add(add(w[i], small0(w[(i + 1) % 16])), next);
                    }
                }
                for (word, add_to) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
                    *word = add(*word, add_to);
                }
            }
        }
    };
    (@ops $feature:literal, $vector:ident, { $(fn $name:ident($($arg:ident: $typ:ty),*) -> $ret:ty $body:block)* }) => {
        $(
            #[inline]
            #[target_feature(enable = $feature)]
            fn $name($($arg: $typ),*) -> $ret $body
        )*
    };
}

lanes!(eight, "avx512f", 8, __m512i, {
    fn splat(value: i64) -> __m512i {
        _mm512_set1_epi64(value)
    }
    fn add(a: __m512i, b: __m512i) -> __m512i {
        _mm512_add_epi64(a, b)
    }
    fn choose(e: __m512i, f: __m512i, g: __m512i) -> __m512i {
        _mm512_ternarylogic_epi64::<0xCA>(e, f, g)
    }
    fn majority(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
        _mm512_ternarylogic_epi64::<0xE8>(a, b, c)
    }
    fn big0(a: __m512i) -> __m512i {
        _mm512_ternarylogic_epi64::<0x96>(
            _mm512_ror_epi64::<28>(a),
            _mm512_ror_epi64::<34>(a),
            _mm512_ror_epi64::<39>(a),
        )
    }
    fn big1(e: __m512i) -> __m512i {
        _mm512_ternarylogic_epi64::<0x96>(
            _mm512_ror_epi64::<14>(e),
            _mm512_ror_epi64::<18>(e),
            _mm512_ror_epi64::<41>(e),
        )
    }
    fn small0(w: __m512i) -> __m512i {
        _mm512_ternarylogic_epi64::<0x96>(
            _mm512_ror_epi64::<1>(w),
            _mm512_ror_epi64::<8>(w),
            _mm512_srli_epi64::<7>(w),
        )
    }
    fn small1(w: __m512i) -> __m512i {
        _mm512_ternarylogic_epi64::<0x96>(
            _mm512_ror_epi64::<19>(w),
            _mm512_ror_epi64::<61>(w),
            _mm512_srli_epi64::<6>(w),
        )
    }
    fn gather(lane: impl Fn(usize) -> i64) -> __m512i {
        _mm512_set_epi64(
            lane(7),
            lane(6),
            lane(5),
            lane(4),
            lane(3),
            lane(2),
            lane(1),
            lane(0),
        )
    }
    fn spread(v: __m512i) -> [i64; 8] {
        let (low, high) = (_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64::<1>(v));
        let four = |v: __m256i| {
            let (low, high) = (_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
            let second = |v: __m128i| _mm_cvtsi128_si64(_mm_unpackhi_epi64(v, v));
            [
                _mm_cvtsi128_si64(low),
                second(low),
                _mm_cvtsi128_si64(high),
                second(high),
            ]
        };
        let ([a, b, c, d], [e, f, g, h]) = (four(low), four(high));
        [a, b, c, d, e, f, g, h]
    }
});

lanes!(four, "avx2", 4, __m256i, {
    fn splat(value: i64) -> __m256i {
        _mm256_set1_epi64x(value)
    }
    fn add(a: __m256i, b: __m256i) -> __m256i {
        _mm256_add_epi64(a, b)
    }
    fn xor3(a: __m256i, b: __m256i, c: __m256i) -> __m256i {
        _mm256_xor_si256(_mm256_xor_si256(a, b), c)
    }
    fn choose(e: __m256i, f: __m256i, g: __m256i) -> __m256i {
        _mm256_xor_si256(g, _mm256_and_si256(e, _mm256_xor_si256(f, g)))
    }
    fn majority(a: __m256i, b: __m256i, c: __m256i) -> __m256i {
        _mm256_or_si256(_mm256_and_si256(a, b), _mm256_and_si256(c, _mm256_or_si256(a, b)))
    }
    fn big0(a: __m256i) -> __m256i {
        xor3(
            _mm256_or_si256(_mm256_srli_epi64::<28>(a), _mm256_slli_epi64::<36>(a)),
            _mm256_or_si256(_mm256_srli_epi64::<34>(a), _mm256_slli_epi64::<30>(a)),
            _mm256_or_si256(_mm256_srli_epi64::<39>(a), _mm256_slli_epi64::<25>(a)),
        )
    }
    fn big1(e: __m256i) -> __m256i {
        xor3(
            _mm256_or_si256(_mm256_srli_epi64::<14>(e), _mm256_slli_epi64::<50>(e)),
            _mm256_or_si256(_mm256_srli_epi64::<18>(e), _mm256_slli_epi64::<46>(e)),
            _mm256_or_si256(_mm256_srli_epi64::<41>(e), _mm256_slli_epi64::<23>(e)),
        )
    }
    fn small0(w: __m256i) -> __m256i {
        xor3(
            _mm256_or_si256(_mm256_srli_epi64::<1>(w), _mm256_slli_epi64::<63>(w)),
            _mm256_or_si256(_mm256_srli_epi64::<8>(w), _mm256_slli_epi64::<56>(w)),
            _mm256_srli_epi64::<7>(w),
        )
    }
    fn small1(w: __m256i) -> __m256i {
        xor3(
            _mm256_or_si256(_mm256_srli_epi64::<19>(w), _mm256_slli_epi64::<45>(w)),
            _mm256_or_si256(_mm256_srli_epi64::<61>(w), _mm256_slli_epi64::<3>(w)),
            _mm256_srli_epi64::<6>(w),
        )
    }
    fn gather(lane: impl Fn(usize) -> i64) -> __m256i {
        _mm256_set_epi64x(lane(3), lane(2), lane(1), lane(0))
    }
    fn spread(v: __m256i) -> [i64; 4] {
        let (low, high) = (_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
        let second = |v: __m128i| _mm_cvtsi128_si64(_mm_unpackhi_epi64(v, v));
        [
            _mm_cvtsi128_si64(low),
            second(low),
            _mm_cvtsi128_si64(high),
            second(high),
        ]
    }
});

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha384};

    fn pages() -> Vec<Page> {
        let fill = |seed: u32| {
            std::array::from_fn(|at| {
                (seed.wrapping_mul(31) ^ at as u32)
                    .wrapping_mul(0x9E37_79B1)
                    .to_be_bytes()[0]
            })
        };
        (0..19).map(fill).collect()
    }

    fn judged(pages: &[&Page]) -> Vec<Hash384> {
        pages.iter().map(|page| Sha384::digest(page).into()).collect()
    }

    #[test]
    fn every_lane_gives_what_sha2_gives() {
        let pages = pages();
        let pages: Vec<&Page> = pages.iter().collect();
        let mut out = vec![[0; 48]; pages.len()];
        let done = hash(&pages, &mut out);
        assert_eq!(out[..done], judged(&pages)[..done]);
        assert!(out[done..].iter().all(|hash| *hash == [0; 48]));
    }

    #[test]
    fn four_lanes_give_what_sha2_gives() {
        if !is_x86_feature_detected!("avx2") {
            println!("skipped: four_lanes_give_what_sha2_gives: the processor has no AVX2");
            return;
        }
        let pages = pages();
        let group: [&Page; 4] = std::array::from_fn(|lane| &pages[lane]);
        let mut out = [[0; 48]; 4];
        // SAFETY: the processor has AVX2; the function needs nothing else.
        unsafe { four::hash(&group, &mut out) };
        assert_eq!(out[..], judged(&group)[..]);
    }
}
