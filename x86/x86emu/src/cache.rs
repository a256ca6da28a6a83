// SPDX-License-Identifier: MIT
//! Translated blocks and how they are found again.
//!
//! Always true: a block is found by the guest physical address of its first byte and by
//! [`crate::core::key`]; before a block runs, the generations of its pages are compared; a block whose
//! page moved runs only after its bytes have been compared with memory. Links and the jump cache hold
//! linear addresses and are valid for one [`crate::core::Core::context`].
//! Not here: decoding.

use crate::mem::Generation;
use crate::uop::Uop;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Where a block went last time.
#[derive(Clone, Copy)]
pub(crate) struct Link {
    pub rip: u64,
    pub context: u64,
    pub block: u32,
}

const NO_LINK: Link = Link {
    rip: 0,
    context: u64::MAX,
    block: 0,
};

/// A run of instructions that is entered only at its start.
pub(crate) struct Block {
    /// First uop and one past the last.
    pub first: u32,
    pub end: u32,
    /// Instructions.
    pub count: u16,
    /// Code bytes.
    pub len: u16,
    /// The last instruction leaves RIP to the run loop: add `len`.
    pub falls_through: bool,
    pub generation: Generation,
    pub gpn: u64,
    /// Second page, if the block's only instruction crosses into one.
    pub second: Option<(Generation, u64)>,
    /// Of the first byte.
    pub gpa: u64,
    pub key: u32,
    /// Start of the code bytes in [`Cache::bytes`].
    pub bytes: u32,
    pub links: [Link; 2],
}

impl Block {
    #[inline(always)]
    pub(crate) fn stale(&self) -> bool {
        self.generation.moved() || self.second.as_ref().is_some_and(|s| s.0.moved())
    }
    pub(crate) fn no_links() -> [Link; 2] {
        [NO_LINK; 2]
    }
}

/// Multiplicative hash of one word.
#[derive(Default)]
pub(crate) struct WordHash(u64);

impl Hasher for WordHash {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.write_u64(b.into());
        }
    }
    fn write_u64(&mut self, v: u64) {
        self.0 = (self.0 ^ v).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }
}

const JUMPS: usize = 4096;
/// More uops than this, and everything is dropped.
const MAX_UOPS: usize = 1 << 20;

pub(crate) struct Cache {
    pub blocks: Vec<Block>,
    pub uops: Vec<Uop>,
    pub bytes: Vec<u8>,
    found: HashMap<u64, u32, BuildHasherDefault<WordHash>>,
    jumps: Box<[Link; JUMPS]>,
}

impl Cache {
    pub(crate) fn new() -> Self {
        Self {
            blocks: Vec::new(),
            uops: Vec::new(),
            bytes: Vec::new(),
            found: HashMap::default(),
            jumps: Box::new([NO_LINK; JUMPS]),
        }
    }
    pub(crate) fn clear(&mut self) {
        self.blocks.clear();
        self.uops.clear();
        self.bytes.clear();
        self.found.clear();
        self.jumps.fill(NO_LINK);
    }
    pub(crate) fn is_full(&self) -> bool {
        self.uops.len() > MAX_UOPS
    }
    fn name(gpa: u64, key: u32) -> u64 {
        gpa ^ u64::from(key) << 56
    }
    pub(crate) fn find(&self, gpa: u64, key: u32) -> Option<u32> {
        self.found.get(&Self::name(gpa, key)).copied()
    }
    /// Adds a block, replacing one of the same name.
    pub(crate) fn insert(&mut self, block: Block) -> u32 {
        let n = self.blocks.len() as u32;
        self.found.insert(Self::name(block.gpa, block.key), n);
        self.blocks.push(block);
        n
    }
    #[inline(always)]
    fn jump_slot(rip: u64) -> usize {
        (rip ^ rip >> 12) as usize & (JUMPS - 1)
    }
    #[inline(always)]
    pub(crate) fn jump(&self, rip: u64, context: u64) -> Option<u32> {
        let j = &self.jumps[Self::jump_slot(rip)];
        (j.rip == rip && j.context == context).then_some(j.block)
    }
    pub(crate) fn set_jump(&mut self, rip: u64, context: u64, block: u32) {
        self.jumps[Self::jump_slot(rip)] = Link { rip, context, block };
    }
}
