// SPDX-License-Identifier: MIT
//! Readings to try: the named profiles, then every combination of rules that can matter for the image,
//! each with any number of VPs.
//!
//! Always true: combinations are tried by how many rules differ from the nearest profile, so that the
//! first hit is the simplest; pages are folded once per combination of page rules, however many save
//! areas are tried behind them.

use super::state::State;
use super::{MORE_VPS, Search};
use crate::events::{Measured, submit_by_rules};
use crate::measure::MeasureError;
use crate::profile::{
    Areas, EmptyPages, ForeignVmsas, LargeEmptyPages, LegacyPages, Order, Profile, Rules, SharedPages,
    VmsaAddress, VmsaContents, Vmsas,
};
use launch_plan::{Contents, Isolation, PageKind, StepKind, VpState};
use x86defs::vmsa::sev_features;

/// CPUID signatures that QEMU's processor models and common EPYC parts have: Naples, Rome, Milan, Genoa,
/// Turin, and none.
const SIGNATURES: [u32; 8] = [
    0x0080_0F12,
    0x0080_0F02,
    0x0083_0F10,
    0x00A0_0F11,
    0x00A1_0F10,
    0x00A1_0F11,
    0x00B0_0F21,
    0,
];

/// What an image has that rules can disagree about.
#[derive(Default)]
struct Features {
    empty: bool,
    large_empty: bool,
    areas: bool,
    shared: bool,
    foreign: bool,
    own_vmsas: bool,
}

impl Search<'_, '_> {
    /// A reading that gives the digest.
    pub(super) fn readings(&self) -> Result<Option<(Rules, u32)>, MeasureError> {
        for profile in Profile::ALL {
            if self.gives(profile.rules(), self.vp_count)? {
                return Ok(Some((profile.rules(), self.vp_count)));
            }
        }
        let features = self.features();
        for pages in self.page_rules(&features) {
            if let Some(found) = self.save_areas(pages, &features)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn features(&self) -> Features {
        let mut features = Features::default();
        for step in self.plan.steps() {
            match &step.kind {
                StepKind::Import(import) => {
                    let empty = matches!(import.contents, Contents::Zero);
                    features.areas |= matches!(import.contents, Contents::Parameters(_));
                    features.empty |= empty;
                    features.large_empty |= empty && import.large;
                    features.shared |= import.kind == PageKind::Shared;
                }
                StepKind::VpContext(context) => {
                    features.own_vmsas |= matches!(context.state, VpState::Vmsa(_));
                }
                _ => {}
            }
        }
        let mut foreign = self.others.iter().flat_map(|plan| plan.vp_contexts());
        features.foreign = foreign.any(|(context, _)| matches!(context.state, VpState::Vmsa(_)));
        features
    }

    /// Combinations of page rules, without save areas, those that differ least from KVM's first.
    fn page_rules(&self, features: &Features) -> Vec<Rules> {
        let isolation = self.plan.facts.isolation;
        let legacy = matches!(isolation, Isolation::Sev | Isolation::SevEs);
        let kvm = Profile::Kvm.rules();
        let orders = [Order::File, Order::RunsHeldBack, Order::Address];
        let mut list = vec![kvm];
        expand(&mut list, true, &orders, |rules, order| rules.order = order);
        let empty = [EmptyPages::Normal, EmptyPages::Zero, EmptyPages::Skipped];
        expand(&mut list, features.empty, &empty, |rules, empty| {
            rules.empty = empty;
        });
        let areas = [Areas::AllPages, Areas::FirstPage, Areas::Skipped];
        expand(&mut list, features.areas && !legacy, &areas, |rules, areas| {
            rules.areas = areas;
        });
        let shared = [SharedPages::Skipped, SharedPages::Measured];
        expand(&mut list, features.shared, &shared, |rules, shared| {
            rules.shared = shared;
        });
        let large = [LargeEmptyPages::AllPages, LargeEmptyPages::OneRecord];
        expand(&mut list, features.large_empty, &large, |rules, large| {
            rules.large = large;
        });
        let hashed = [LegacyPages::Submitted, LegacyPages::WithData];
        expand(&mut list, legacy, &hashed, |rules, legacy| rules.legacy = legacy);
        list.sort_by_key(|rules| distance(rules, &kvm));
        list
    }

    /// Tries everything that save areas can be behind or among pages that are read by `pages`.
    fn save_areas(&self, pages: Rules, features: &Features) -> Result<Option<(Rules, u32)>, MeasureError> {
        let isolation = self.plan.facts.isolation;
        let bare = Rules {
            vmsas: Vmsas::Skipped,
            ..pages
        };
        let mut state = State::new(isolation)?;
        submit_by_rules(&self.subject(bare, self.vp_count), &mut |event| {
            state.push(&self.cache, &event);
            Ok(())
        })?;
        if state.value() == self.expected.0 {
            return Ok(Some((bare, self.vp_count)));
        }
        if !matches!(isolation, Isolation::Snp | Isolation::SevEs) {
            return Ok(None);
        }
        for (contents, address) in self.variants() {
            let rules = Rules {
                contents,
                address,
                ..pages
            };
            if let Some(vp_count) = self.count(&state, rules)? {
                return Ok(Some((rules, vp_count)));
            }
        }
        self.in_place(pages, features)
    }

    /// The number of VPs whose save areas behind `pages` give the digest.
    fn count(&self, pages: &State, rules: Rules) -> Result<Option<u32>, MeasureError> {
        // Pages were folded already: only what save areas add is pushed.
        let subject = self.subject(rules, self.vp_count.saturating_add(MORE_VPS));
        let (mut state, mut vps, mut found) = (pages.clone(), 0, None);
        submit_by_rules(&subject, &mut |event| {
            if found.is_none() && matches!(event.what, Measured::Vmsa { .. }) {
                state.push(&self.cache, &event);
                vps += 1;
                if state.value() == self.expected.0 {
                    found = Some(vps);
                }
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn in_place(&self, pages: Rules, features: &Features) -> Result<Option<(Rules, u32)>, MeasureError> {
        if !features.own_vmsas && !features.foreign {
            return Ok(None);
        }
        for foreign in [ForeignVmsas::Skipped, ForeignVmsas::Included] {
            if foreign == ForeignVmsas::Included && !features.foreign {
                continue;
            }
            for contents in [VmsaContents::File, VmsaContents::Kvm] {
                for address in [VmsaAddress::File, VmsaAddress::Kvm] {
                    let rules = Rules {
                        vmsas: Vmsas::InPlace,
                        contents,
                        address,
                        foreign,
                        ..pages
                    };
                    if self.gives(rules, self.vp_count)? {
                        return Ok(Some((rules, self.vp_count)));
                    }
                }
            }
        }
        Ok(None)
    }

    /// What save areas behind the pages may hold, and where.
    fn variants(&self) -> Vec<(VmsaContents, VmsaAddress)> {
        let kvm = VmsaAddress::Kvm;
        let mut list = vec![
            (VmsaContents::Kvm, kvm),
            (VmsaContents::File, kvm),
            (VmsaContents::File, VmsaAddress::File),
            (VmsaContents::Kvm, VmsaAddress::File),
            (VmsaContents::KvmWithFeatures(sev_features::DEBUG_SWAP), kvm),
            (VmsaContents::KvmWithFeatures(sev_features::SECURE_TSC), kvm),
        ];
        if self.plan.facts.isolation == Isolation::SevEs {
            list.push((VmsaContents::KvmWithoutFpu, kvm));
        }
        list.extend(SIGNATURES.map(|signature| (VmsaContents::KvmWithSignature(signature), kvm)));
        list
    }
}

/// Multiplies the list by the values of a rule that matters.
fn expand<T: Copy>(list: &mut Vec<Rules>, matters: bool, values: &[T], set: impl Fn(&mut Rules, T)) {
    if !matters {
        return;
    }
    *list = list
        .iter()
        .flat_map(|rules| {
            values.iter().map(|value| {
                let mut rules = *rules;
                set(&mut rules, *value);
                rules
            })
        })
        .collect();
}

/// How many page rules differ.
fn distance(a: &Rules, b: &Rules) -> usize {
    usize::from(a.order != b.order)
        + usize::from(a.empty != b.empty)
        + usize::from(a.areas != b.areas)
        + usize::from(a.shared != b.shared)
        + usize::from(a.large != b.large)
        + usize::from(a.legacy != b.legacy)
}
