// SPDX-License-Identifier: MIT
//! Readings with one group of steps left out, or two neighbouring groups exchanged.
//!
//! A group is a run of pages of one class with adjacent addresses, or a save area. Images with more groups
//! or bytes than the bounds below are not searched this way.

use super::state::State;
use super::{Explanation, Search};
use crate::difference::first_difference_of;
use crate::events::{Event, Measured, submit_by_rules};
use crate::measure::{MeasureError, describe};
use crate::profile::{Profile, Rules};
use std::ops::Range;
use x86defs::paging::PAGE_SIZE;

/// More groups than this are not tried.
const MAX_GROUPS: usize = 512;
/// Most steps that may be folded for one image.
const MAX_WORK: usize = 1 << 24;

impl Search<'_, '_> {
    /// An explanation by a missing group or by two groups in another order.
    pub(super) fn without_a_step(&self) -> Result<Option<Explanation>, MeasureError> {
        for profile in [Profile::Kvm, Profile::FileOrder] {
            let rules = profile.rules();
            let subject = self.subject(rules, self.vp_count);
            let mut events = Vec::new();
            submit_by_rules(&subject, &mut |event| {
                events.push(event);
                Ok(())
            })?;
            let groups = groups(&events);
            if groups.len() > MAX_GROUPS || groups.len().saturating_mul(events.len()) > MAX_WORK {
                continue;
            }
            if let Some(reason) = self.changed(&events, &groups)? {
                return self.by_steps(rules, profile, reason).map(Some);
            }
        }
        Ok(None)
    }

    fn changed(&self, events: &[Event<'_>], groups: &[Range<usize>]) -> Result<Option<String>, MeasureError> {
        let mut before = State::new(self.plan.facts.isolation)?;
        for (number, group) in groups.iter().enumerate() {
            let mut without = before.clone();
            self.push_all(&mut without, &events[group.end..]);
            if without.value() == self.expected.0 {
                return Ok(Some(format!("{} is left out", name(&events[group.clone()]))));
            }
            if let Some(next) = groups.get(number + 1) {
                let mut exchanged = before.clone();
                self.push_all(&mut exchanged, &events[next.clone()]);
                self.push_all(&mut exchanged, &events[group.clone()]);
                self.push_all(&mut exchanged, &events[next.end..]);
                if exchanged.value() == self.expected.0 {
                    let (first, second) = (name(&events[group.clone()]), name(&events[next.clone()]));
                    return Ok(Some(format!("{second} comes before {first}")));
                }
            }
            self.push_all(&mut before, &events[group.clone()]);
        }
        Ok(None)
    }

    fn push_all(&self, state: &mut State, events: &[Event<'_>]) {
        for event in events {
            state.push(&self.cache, event);
        }
    }

    fn by_steps(&self, rules: Rules, profile: Profile, reason: String) -> Result<Explanation, MeasureError> {
        let mut reasons = super::reasons(&rules);
        reasons.push(reason);
        let ours = self.subject(Profile::Kvm.rules(), self.vp_count);
        let difference = if profile == Profile::Kvm {
            None
        } else {
            first_difference_of(&ours, &self.subject(rules, self.vp_count))?
        };
        Ok(Explanation {
            rules,
            profiles: Vec::new(),
            vp_count: self.vp_count,
            reasons,
            difference,
        })
    }
}

/// Runs of events that belong together.
fn groups(events: &[Event<'_>]) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    for (at, event) in events.iter().enumerate() {
        match groups.last_mut() {
            Some(group) if follows(&events[at - 1].what, &event.what) => group.end = at + 1,
            _ => groups.push(at..at + 1),
        }
    }
    groups
}

fn follows(last: &Measured<'_>, next: &Measured<'_>) -> bool {
    match (last, next) {
        (
            Measured::Page { gpa, class, .. },
            Measured::Page {
                gpa: next_gpa,
                class: next_class,
                ..
            },
        ) => class == next_class && gpa.checked_add(PAGE_SIZE) == Some(*next_gpa),
        _ => false,
    }
}

fn name(group: &[Event<'_>]) -> String {
    let Some(first) = group.first() else {
        return String::new();
    };
    let text = format!("{} ({})", describe(first), first.origin);
    match group.len() {
        1 => text,
        more => format!("the run of {more} pages from {text} on"),
    }
}
