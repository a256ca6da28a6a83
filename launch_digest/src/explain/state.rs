// SPDX-License-Identifier: MIT
//! A digest that can be continued from any point, with contents hashed once for all readings.

use crate::events::{Event, Measured, PageClass, Subject, submit_by_rules};
use crate::fold::{Fold, page_type, record};
use crate::measure::MeasureError;
use crate::pages::{Hash384, page_hash, page_hashes};
use launch_plan::{Isolation, LaunchPlan, PageContents};
use std::collections::HashMap;
use x86defs::paging::PAGE_BYTES;

/// Contents that are hashed together.
const BATCH: usize = 2048;

/// SHA-384 of pages, by where their bytes lie: the plans' bytes do not move.
pub(super) struct Cache {
    hashes: HashMap<(usize, usize), Hash384>,
}

impl Cache {
    /// Hashes of all contents of a SEV-SNP plan; other platforms hash contents into their digests.
    pub(super) fn of(plan: &LaunchPlan<'_>) -> Self {
        let mut cache = Self {
            hashes: HashMap::new(),
        };
        if plan.facts.isolation != Isolation::Snp {
            return cache;
        }
        let mut batch: Vec<&[u8]> = Vec::with_capacity(BATCH);
        for (page, _) in plan.pages() {
            if let PageContents::Bytes(bytes) = page.contents {
                for chunk in bytes.chunks(PAGE_BYTES) {
                    batch.push(chunk);
                    if batch.len() == BATCH {
                        cache.hash(&mut batch);
                    }
                }
            }
        }
        cache.hash(&mut batch);
        cache
    }

    fn hash(&mut self, batch: &mut Vec<&[u8]>) {
        let mut hashes = Vec::new();
        page_hashes(batch, &mut hashes);
        for (bytes, hash) in batch.drain(..).zip(hashes) {
            self.hashes.insert(place(bytes), hash);
        }
    }

    fn get(&self, bytes: &[u8]) -> Hash384 {
        let known = self.hashes.get(&place(bytes)).copied();
        known.unwrap_or_else(|| page_hash(bytes))
    }

    /// The digest of a whole reading.
    pub(super) fn digest(&self, subject: &Subject<'_, '_>) -> Result<Vec<u8>, MeasureError> {
        let mut state = State::new(subject.plan.facts.isolation)?;
        submit_by_rules(subject, &mut |event| {
            state.push(self, &event);
            Ok(())
        })?;
        Ok(state.value())
    }
}

fn place(bytes: &[u8]) -> (usize, usize) {
    (bytes.as_ptr() as usize, bytes.len())
}

/// A running digest that can be copied.
#[derive(Clone)]
pub(super) enum State {
    /// SEV-SNP's chain of records.
    Chain(Hash384),
    /// Any other platform.
    Other(Fold<'static>),
}

impl State {
    pub(super) fn new(isolation: Isolation) -> Result<Self, MeasureError> {
        if isolation == Isolation::Snp {
            return Ok(Self::Chain([0; 48]));
        }
        let fold = Fold::new(isolation, 1).ok_or(MeasureError::NoDigest(isolation))?;
        Ok(Self::Other(fold))
    }

    pub(super) fn push(&mut self, cache: &Cache, event: &Event<'_>) {
        match self {
            Self::Other(fold) => fold.absorb(&event.what),
            Self::Chain(digest) => {
                let (page_type, gpa, contents) = match &event.what {
                    Measured::Page { gpa, class, data } => {
                        let Some(page_type) = page_type(*class) else {
                            return;
                        };
                        let hash = (*class == PageClass::Normal).then(|| cache.get(data));
                        (page_type, *gpa, hash.unwrap_or([0; 48]))
                    }
                    Measured::Vmsa { gpa, page, .. } => (2, *gpa, page_hash(page.bytes())),
                    Measured::Register(_) => return,
                };
                *digest = record(digest, &contents, page_type, gpa);
            }
        }
    }

    pub(super) fn value(&mut self) -> Vec<u8> {
        match self {
            Self::Chain(digest) => digest.to_vec(),
            Self::Other(fold) => fold.value(),
        }
    }
}
