// SPDX-License-Identifier: MIT
//! Where two sequences of submissions part: the answer to "why is this another digest".
//!
//! Always true: only fixed-size keys of the sequences are held, so memory stays small for large files.
//! Not here: hashing for a digest; keys only compare.

use crate::events::{Event, Measured, Subject, submit_by_rules};
use crate::measure::{MeasureError, describe};
use crate::profile::Profile;
use launch_plan::LaunchPlan;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

/// A plan read one way for some VPs.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'p, 'a> {
    /// The plan.
    pub plan: &'p LaunchPlan<'a>,
    /// Whose reading.
    pub profile: Profile,
    /// VPs of the guest.
    pub vp_count: u32,
}

/// The first step that two readings do not share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its number, from 0.
    pub step: usize,
    /// What the first reading has there; `None` when it has ended.
    pub first: Option<String>,
    /// What the second reading has there; `None` when it has ended.
    pub second: Option<String>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let side = |s: &Option<String>| s.clone().unwrap_or_else(|| "nothing (it has ended)".into());
        write!(
            f,
            "step {}: {} against {}",
            self.step,
            side(&self.first),
            side(&self.second)
        )
    }
}

impl<'p, 'a> Reading<'p, 'a> {
    fn subject(&self) -> Subject<'p, 'a> {
        Subject {
            plan: self.plan,
            others: &[],
            vp_count: self.vp_count,
            rules: self.profile.rules(),
        }
    }
}

/// The first step in which two readings differ, by what is submitted or by its bytes; `None` when they
/// give the same digest.
pub fn first_difference(a: Reading<'_, '_>, b: Reading<'_, '_>) -> Result<Option<Difference>, MeasureError> {
    first_difference_of(&a.subject(), &b.subject())
}

/// The first step in which two readings by rules differ.
pub fn first_difference_of(
    a: &Subject<'_, '_>,
    b: &Subject<'_, '_>,
) -> Result<Option<Difference>, MeasureError> {
    // Readings of one plan submit the same bytes from the same place, which need not be read again.
    let same_bytes = std::ptr::eq(a.plan, b.plan);
    let (keys_a, keys_b) = (keys(a, same_bytes)?, keys(b, same_bytes)?);
    let longest = keys_a.len().max(keys_b.len());
    let Some(step) = (0..longest).find(|i| keys_a.get(*i) != keys_b.get(*i)) else {
        return Ok(None);
    };
    Ok(Some(Difference {
        step,
        first: nth(a, step)?,
        second: nth(b, step)?,
    }))
}

fn keys(subject: &Subject<'_, '_>, by_place: bool) -> Result<Vec<u64>, MeasureError> {
    let mut keys = Vec::new();
    submit_by_rules(subject, &mut |event| {
        keys.push(key(&event, by_place));
        Ok(())
    })?;
    Ok(keys)
}

/// A key over everything of an event that a digest sees; pages may be known by where their bytes are.
fn key(event: &Event<'_>, by_place: bool) -> u64 {
    let mut h = DefaultHasher::new();
    let padded = |h: &mut DefaultHasher, bytes: &[u8]| {
        let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
        bytes[..used].hash(h);
    };
    match &event.what {
        Measured::Page { gpa, class, data } => {
            (0, gpa, class).hash(&mut h);
            if by_place && !data.is_empty() {
                (data.as_ptr() as usize, data.len()).hash(&mut h);
            } else {
                padded(&mut h, data);
            }
        }
        Measured::Vmsa { gpa, page, .. } => {
            (1, gpa).hash(&mut h);
            padded(&mut h, page.bytes());
        }
        Measured::Register(r) => (2, r.vtl, r.name, r.value.to_bytes()).hash(&mut h),
    }
    h.finish()
}

/// The description of step `step`, with its origin.
fn nth(subject: &Subject<'_, '_>, step: usize) -> Result<Option<String>, MeasureError> {
    let mut seen = 0;
    let mut found = None;
    submit_by_rules(subject, &mut |event| {
        if seen == step {
            found = Some(format!("{} ({})", describe(&event), event.origin));
        }
        seen += 1;
        Ok(())
    })?;
    Ok(found)
}
