// SPDX-License-Identifier: MIT
//! Where random bytes come from: the host, or a seed.
//!
//! Always true: a source that fails is an error for whoever asked, never zeros and never a panic. Not
//! here: what the bytes are for.

/// The source could not deliver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the host's random number source failed: {0}")]
pub struct EntropyError(pub String);

/// Fills a buffer.
type Fill = Box<dyn FnMut(&mut [u8]) -> Result<(), EntropyError> + Send>;

/// A source of random bytes, owned by one VM.
pub struct EntropySource {
    fill: Fill,
}

impl std::fmt::Debug for EntropySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EntropySource")
    }
}

impl EntropySource {
    /// The host's source, or with a seed a reproducible one.
    pub fn new(seed: Option<u64>) -> Self {
        match seed {
            None => Self::with(|buffer| getrandom::fill(buffer).map_err(|e| EntropyError(e.to_string()))),
            Some(seed) => {
                let mut state = seed;
                Self::with(move |buffer| {
                    for chunk in buffer.chunks_mut(8) {
                        chunk.copy_from_slice(&split_mix(&mut state).to_le_bytes()[..chunk.len()]);
                    }
                    Ok(())
                })
            }
        }
    }

    /// A source that calls `fill`.
    pub fn with(fill: impl FnMut(&mut [u8]) -> Result<(), EntropyError> + Send + 'static) -> Self {
        Self { fill: Box::new(fill) }
    }

    /// Fills `buffer` with fresh bytes.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        (self.fill)(buffer)
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough to be reproducible, not to be secret.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_source_never_repeats_and_a_seed_always_does() {
        let draw = |seed| {
            let mut bytes = [0; 20];
            EntropySource::new(seed).fill(&mut bytes).unwrap();
            bytes
        };
        assert_ne!(draw(None), draw(None));
        assert_eq!(draw(Some(7)), draw(Some(7)));
        assert_ne!(draw(Some(7)), draw(Some(8)));
    }
}
