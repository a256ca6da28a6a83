// SPDX-License-Identifier: MIT
//! Explaining a foreign digest: which reading, VP count or missing step of an image gives it.
//!
//! Always true: an explanation was computed, not guessed: its reading gives the digest, and each of its
//! reasons is needed for it. Contents are hashed once; readings of SEV-SNP cost one short hash per page.
//! Not here: contents that differ; no digest tells which ones.

mod readings;
mod state;
mod steps;

use crate::difference::{Difference, first_difference_of};
use crate::events::Subject;
use crate::measure::{Digest, MeasureError, needed_vps};
use crate::profile::{
    Areas, EmptyPages, ForeignVmsas, LargeEmptyPages, LegacyPages, Order, Profile, Rules, SharedPages,
    VmsaAddress, VmsaContents, Vmsas,
};
use launch_plan::LaunchPlan;
use state::Cache;
use std::fmt;

/// VPs beyond those of the image that a digest is tried with.
const MORE_VPS: u32 = 512;

/// What gives a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// How the image is read.
    pub rules: Rules,
    /// Profiles that read it so.
    pub profiles: Vec<Profile>,
    /// VPs of the guest.
    pub vp_count: u32,
    /// What differs from a launch through KVM with the VPs of the image, one clause each; empty when
    /// nothing does.
    pub reasons: Vec<String>,
    /// The first step that differs from that launch.
    pub difference: Option<Difference>,
}

impl fmt::Display for Explanation {
    /// One sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((last, others)) = self.reasons.split_last() else {
            return f.write_str("it is what a launch through kvm gives");
        };
        f.write_str("it is the digest of this image when ")?;
        if !others.is_empty() {
            write!(f, "{} and ", others.join(", "))?;
        }
        f.write_str(last)?;
        let names: Vec<&str> = self.profiles.iter().map(|profile| profile.name()).collect();
        if !names.is_empty() {
            let verb = if names.len() == 1 { "reads" } else { "read" };
            write!(f, ", as {} {verb} it", names.join(" and "))?;
        }
        match &self.difference {
            Some(difference) => write!(
                f,
                "; the first difference from a launch through kvm is {difference}"
            ),
            None => Ok(()),
        }
    }
}

/// The digest of every profile for `vp_count` VPs, in the order of [`Profile::ALL`]. Contents of SEV-SNP pages
/// are hashed once for all of them.
pub fn profile_digests(
    plan: &LaunchPlan<'_>,
    others: &[LaunchPlan<'_>],
    vp_count: u32,
) -> Result<Vec<(Profile, Digest)>, MeasureError> {
    let cache = Cache::of(plan);
    let digest = |profile: Profile| {
        let subject = Subject {
            plan,
            others,
            vp_count,
            rules: profile.rules(),
        };
        Ok((profile, Digest(cache.digest(&subject)?)))
    };
    Profile::ALL.into_iter().map(digest).collect()
}

/// Looks for what gives `expected`. `others` are the plans of the same file's other platforms; `vp_count`
/// is the guest's, by default as many as the image has contexts.
pub fn explain(
    plan: &LaunchPlan<'_>,
    others: &[LaunchPlan<'_>],
    expected: &Digest,
    vp_count: Option<u32>,
) -> Result<Option<Explanation>, MeasureError> {
    let search = Search {
        plan,
        others,
        expected,
        vp_count: needed_vps(plan, vp_count)?,
        cache: Cache::of(plan),
    };
    if let Some(found) = search.readings()? {
        return search.explained(found.0, found.1).map(Some);
    }
    search.without_a_step()
}

struct Search<'s, 'a> {
    plan: &'s LaunchPlan<'a>,
    others: &'s [LaunchPlan<'a>],
    expected: &'s Digest,
    vp_count: u32,
    cache: Cache,
}

impl<'s, 'a> Search<'s, 'a> {
    fn subject(&self, rules: Rules, vp_count: u32) -> Subject<'s, 'a> {
        Subject {
            plan: self.plan,
            others: self.others,
            vp_count,
            rules,
        }
    }

    fn gives(&self, rules: Rules, vp_count: u32) -> Result<bool, MeasureError> {
        Ok(self.cache.digest(&self.subject(rules, vp_count))? == self.expected.0)
    }

    /// Drops every rule that the digest does not need, and puts the rest in words.
    fn explained(&self, rules: Rules, vp_count: u32) -> Result<Explanation, MeasureError> {
        let kvm = Profile::Kvm.rules();
        let mut needed = rules;
        for reset in RESETS {
            let without = reset(needed, kvm);
            if without != needed && self.gives(without, vp_count)? {
                needed = without;
            }
        }
        let mut reasons = reasons(&needed);
        if vp_count != self.vp_count && needed.vmsas == Vmsas::Last {
            let vps = if vp_count == 1 { "vp" } else { "vps" };
            reasons.push(format!(
                "the guest has {vp_count} {vps} instead of {}",
                self.vp_count
            ));
        }
        let mut profiles = Vec::new();
        for profile in Profile::ALL {
            if self.gives(profile.rules(), vp_count)? {
                profiles.push(profile);
            }
        }
        let ours = self.subject(kvm, self.vp_count);
        let difference = first_difference_of(&ours, &self.subject(needed, vp_count))?;
        Ok(Explanation {
            rules: needed,
            profiles,
            vp_count,
            reasons,
            difference,
        })
    }
}

/// Sets one rule of the first to the second's.
type Reset = fn(Rules, Rules) -> Rules;

const RESETS: [Reset; 10] = [
    |rules, kvm| Rules {
        order: kvm.order,
        ..rules
    },
    |rules, kvm| Rules {
        empty: kvm.empty,
        ..rules
    },
    |rules, kvm| Rules {
        areas: kvm.areas,
        ..rules
    },
    |rules, kvm| Rules {
        shared: kvm.shared,
        ..rules
    },
    |rules, kvm| Rules {
        large: kvm.large,
        ..rules
    },
    |rules, kvm| Rules {
        legacy: kvm.legacy,
        ..rules
    },
    |rules, kvm| Rules {
        foreign: kvm.foreign,
        ..rules
    },
    |rules, kvm| Rules {
        contents: kvm.contents,
        ..rules
    },
    |rules, kvm| Rules {
        address: kvm.address,
        ..rules
    },
    |rules, kvm| Rules {
        vmsas: kvm.vmsas,
        ..rules
    },
];

/// What differs from KVM's rules, in words.
fn reasons(rules: &Rules) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut say = |text: &str| out.push(text.to_owned());
    match rules.order {
        Order::File => {}
        Order::RunsHeldBack => say("parameter areas overtake the run of pages before them"),
        Order::Address => say("pages are sorted by address"),
    }
    match rules.empty {
        EmptyPages::Normal => {}
        EmptyPages::Zero => say("pages without data are ZERO pages"),
        EmptyPages::Skipped => say("pages without data are left out"),
    }
    match rules.areas {
        Areas::AllPages => {}
        Areas::FirstPage => say("only the first page of each parameter area is measured"),
        Areas::Skipped => say("parameter areas are left out"),
    }
    if rules.shared == SharedPages::Measured {
        say("shared pages are measured");
    }
    if rules.large == LargeEmptyPages::OneRecord {
        say("a 2 MiB page without data is one record");
    }
    if rules.legacy == LegacyPages::WithData {
        say("pages without data are left out and unmeasured pages with data are hashed");
    }
    match rules.vmsas {
        Vmsas::Last => {}
        Vmsas::InPlace => say("save areas are measured where they stand in the file"),
        Vmsas::Skipped => say("save areas are left out"),
    }
    if rules.address == VmsaAddress::File {
        say("save areas are measured at the file's addresses");
    }
    if rules.foreign == ForeignVmsas::Included {
        say("save areas of other platforms are measured too");
    }
    match rules.contents {
        VmsaContents::Kvm => {}
        VmsaContents::File => say("save areas are measured as the file has them"),
        VmsaContents::KvmWithoutFpu => {
            say("MXCSR and FCW of save areas are zero, as the legacy KVM_SEV_ES_INIT leaves them");
        }
        VmsaContents::KvmWithSignature(signature) => {
            say(&format!("processors have the signature {signature:#x} in RDX"));
        }
        VmsaContents::KvmWithFeatures(bits) => {
            say(&format!(
                "save areas have the bits {bits:#x} more in SEV_FEATURES"
            ));
        }
    }
    out
}
