// SPDX-License-Identifier: MIT
//! Hashing page contents on several threads, each with as many lanes as the processor has.
//!
//! Only the 112-byte record chain of SEV-SNP is serial; the contents hashes are independent.

use crate::lanes::{self, Page};
use sha2::{Digest, Sha384};
use std::sync::OnceLock;
use x86defs::paging::PAGE_BYTES;

/// SHA-384.
pub(crate) type Hash384 = [u8; 48];

/// Below this many pages a second thread costs more than it saves.
const WORTH_A_THREAD: usize = 64;

static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// The zeros that pad `data` to a page.
pub(crate) fn padding(data: &[u8]) -> &'static [u8] {
    &ZEROS[data.len().min(PAGE_BYTES)..]
}

fn zero_page_hash() -> Hash384 {
    static HASH: OnceLock<Hash384> = OnceLock::new();
    *HASH.get_or_init(|| Sha384::digest(ZEROS).into())
}

/// SHA-384 of a page given by at most 4096 bytes, zero padded.
pub(crate) fn page_hash(data: &[u8]) -> Hash384 {
    if data.is_empty() {
        return zero_page_hash();
    }
    let mut h = Sha384::new();
    h.update(data);
    h.update(padding(data));
    h.finalize().into()
}

/// SHA-384 of every page, in order, on all processors.
pub(crate) fn page_hashes(pages: &[&[u8]], out: &mut Vec<Hash384>) {
    out.clear();
    out.resize(pages.len(), [0; 48]);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(8);
    let share = pages.len().div_ceil(threads).max(WORTH_A_THREAD);
    std::thread::scope(|scope| {
        let mut parts = pages.chunks(share).zip(out.chunks_mut(share));
        let first = parts.next();
        for (pages, out) in parts {
            scope.spawn(move || hash_part(pages, out));
        }
        if let Some((pages, out)) = first {
            hash_part(pages, out);
        }
    });
}

/// Runs of whole pages go through SIMD lanes; what is short, empty or left over through `sha2`.
fn hash_part(pages: &[&[u8]], out: &mut [Hash384]) {
    let mut at = 0;
    while at < pages.len() {
        let whole: Vec<&Page> = pages[at..]
            .iter()
            .map_while(|page| page.first_chunk().filter(|_| page.len() == PAGE_BYTES))
            .collect();
        let done = lanes::hash(&whole, &mut out[at..at + whole.len()]);
        let end = (at + whole.len()).max(at + 1);
        for (page, slot) in pages[at + done..end].iter().zip(&mut out[at + done..end]) {
            *slot = page_hash(page);
        }
        at = end;
    }
}
