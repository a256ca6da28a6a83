// SPDX-License-Identifier: MIT
//! What two plans say beside pages and registers: platform facts, policy, endorsements, relocation,
//! parameters, required memory, error ranges.

use super::effect::{Effect, Piece, effect};
use super::{Comparer, Difference};
use crate::overview::memory::bytes_of;
use crate::overview::schema::{Field, PlatformView};
use launch_plan::{Contents, Import, LaunchPlan, StepKind};
use std::collections::{BTreeMap, BTreeSet};

/// Compares everything of this module. The views are those of the plans.
pub(super) fn compare(
    comparer: &mut Comparer<'_>,
    (a, view_a): (&LaunchPlan<'_>, &PlatformView),
    (b, view_b): (&LaunchPlan<'_>, &PlatformView),
) {
    let outside = Effect::outside(Some(&a.facts));
    let mut plain = |place: &str, first: String, second: String| {
        if first != second {
            comparer.push(Difference {
                place: place.to_owned(),
                what: format!("{first} becomes {second}"),
                effect: outside.clone(),
                ..Difference::default()
            });
        }
    };
    plain("architecture", a.facts.arch.to_string(), b.facts.arch.to_string());
    plain("mask", view_a.mask.to_string(), view_b.mask.to_string());
    plain(
        "highest vtl",
        a.facts.highest_vtl.to_string(),
        b.facts.highest_vtl.to_string(),
    );
    plain(
        "shared gpa boundary",
        view_a.shared_gpa_boundary.to_string(),
        view_b.shared_gpa_boundary.to_string(),
    );
    for (place, first, second) in named(view_a, view_b) {
        plain(&place, first, second);
    }
    let tables = |view: &PlatformView| {
        view.page_tables.as_ref().map_or_else(
            || "none".to_owned(),
            |t| format!("{} of {:#x} bytes, {:#x} used", t.gpa, t.bytes, t.used),
        )
    };
    plain("page table region", tables(view_a), tables(view_b));
    sets(comparer, &outside, view_a, view_b);
    area_contents(comparer, a, b);
    error_ranges(comparer, a, b);
}

/// Rows of (place, first, second) of everything that has names.
fn named(a: &PlatformView, b: &PlatformView) -> Vec<(String, String, String)> {
    let mut rows = Vec::new();
    let mut add = |group: &str, first: &[Field], second: &[Field]| {
        let value = |list: &[Field], name: &str| {
            let found = list.iter().find(|field| field.name == name);
            found.map_or_else(|| "absent".to_owned(), |field| field.value.clone())
        };
        let names: BTreeSet<(usize, &str)> = first
            .iter()
            .enumerate()
            .chain(second.iter().enumerate())
            .map(|(index, field)| (index, &*field.name))
            .collect();
        let mut done = BTreeSet::new();
        for (_, name) in names {
            if done.insert(name) {
                rows.push((format!("{group} {name}"), value(first, name), value(second, name)));
            }
        }
    };
    for (group, first, second) in [
        ("policy", &a.policy, &b.policy),
        ("realm policy", &a.realm_policy, &b.realm_policy),
    ] {
        let fields = |policy: &Option<crate::overview::schema::Policy>| {
            policy.as_ref().map_or(Vec::new(), |policy| policy.fields.clone())
        };
        match (first, second) {
            (Some(_), Some(_)) => add(group, &fields(first), &fields(second)),
            _ => {
                let value = |policy: &Option<crate::overview::schema::Policy>| {
                    policy
                        .as_ref()
                        .map_or_else(Vec::new, |policy| vec![Field::new("value", policy.value)])
                };
                add(group, &value(first), &value(second));
            }
        }
    }
    let block = |view: &PlatformView| {
        view.id_block.as_ref().map_or_else(Vec::new, |block| {
            let mut fields = vec![Field::new("launch digest", &block.launch_digest)];
            fields.extend(block.fields.iter().cloned());
            fields
        })
    };
    add("id block", &block(a), &block(b));
    add("vbs measurement", &a.vbs_measurement, &b.vbs_measurement);
    add("corim", &a.corim, &b.corim);
    rows
}

/// Things that are there or not: parameters, required memory, relocatable regions.
fn sets(comparer: &mut Comparer<'_>, outside: &Effect, a: &PlatformView, b: &PlatformView) {
    let items = |view: &PlatformView| -> BTreeSet<(String, String)> {
        let parameters = view.parameters.iter().map(|p| {
            let area_gpa = p.gpa.0.wrapping_sub(p.byte_offset.into());
            (
                "parameter".to_owned(),
                format!(
                    "{} at gpa {} ({:#x} + {:#x})",
                    p.name, p.gpa, area_gpa, p.byte_offset
                ),
            )
        });
        let memory = view.required_memory.iter().map(|r| {
            let note = r.note.map_or_else(String::new, |note| format!(", {note}"));
            (
                "required memory".to_owned(),
                format!("{:#x} bytes at gpa {}{note}", r.bytes, r.gpa),
            )
        });
        let regions = view.relocatable.iter().map(|r| {
            (
                "relocatable region".to_owned(),
                format!(
                    "{:#x} bytes at gpa {}, to {}..{} at multiples of {}, moves {}",
                    r.bytes, r.gpa, r.minimum, r.maximum, r.alignment, r.moves
                ),
            )
        });
        parameters.chain(memory).chain(regions).collect()
    };
    let (first, second) = (items(a), items(b));
    let only = |one: &BTreeSet<(String, String)>, other: &BTreeSet<(String, String)>, which: &str| {
        let rows = one.difference(other).map(|(place, text)| Difference {
            place: place.clone(),
            what: format!("{text}, in the {which} file only"),
            effect: outside.clone(),
            ..Difference::default()
        });
        rows.collect::<Vec<_>>()
    };
    for row in only(&first, &second, "first")
        .into_iter()
        .chain(only(&second, &first, "second"))
    {
        comparer.push(row);
    }
}

/// A parameter area of a plan: its place, its length, its initial bytes without trailing zeros.
fn areas<'p>(plan: &'p LaunchPlan<'_>) -> impl Iterator<Item = (&'p Import<'p>, &'p [u8])> {
    plan.steps().iter().filter_map(|step| match &step.kind {
        StepKind::Import(import) if matches!(import.contents, Contents::Parameters(_)) => {
            let bytes = bytes_of(&import.contents);
            let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
            Some((import, &bytes[..used]))
        }
        _ => None,
    })
}

/// Length and initial bytes of the parameter areas at one place.
fn area_contents(comparer: &mut Comparer<'_>, a: &LaunchPlan<'_>, b: &LaunchPlan<'_>) {
    let second: BTreeMap<u64, (&Import<'_>, &[u8])> = areas(b)
        .map(|(import, bytes)| (import.gpa, (import, bytes)))
        .collect();
    for (import, bytes) in areas(a) {
        let Some((other_import, other)) = second.get(&import.gpa) else {
            continue;
        };
        let place = format!("parameter area at gpa {:#x}", import.gpa);
        if import.len != other_import.len {
            // One page more stands for any number of them: measuring all could take long.
            let longer = import.len > other_import.len;
            let sides = [longer, !longer].map(|longer| {
                let len = if longer { 2 * 4096 } else { 4096 };
                Piece::Import(Import {
                    len,
                    ..import.clone()
                })
            });
            comparer.push(Difference {
                place: place.clone(),
                what: format!("{:#x} bytes become {:#x}", import.len, other_import.len),
                effect: effect(&a.facts, &sides[..1], &sides[1..]),
                ..Difference::default()
            });
        }
        let longest = bytes.len().max(other.len());
        let byte = |bytes: &[u8], at: usize| bytes.get(at).copied().unwrap_or(0);
        if let Some(at) = (0..longest).find(|&at| byte(bytes, at) != byte(other, at)) {
            comparer.push(Difference {
                place,
                what: format!("initial data differs from byte {at:#x} on"),
                effect: Effect::outside(Some(&a.facts)),
                ..Difference::default()
            });
        }
    }
}

fn error_ranges(comparer: &mut Comparer<'_>, a: &LaunchPlan<'_>, b: &LaunchPlan<'_>) {
    let ranges = |plan: &LaunchPlan<'_>| -> BTreeSet<(u64, u64)> {
        plan.steps()
            .iter()
            .filter_map(|step| match step.kind {
                StepKind::ErrorRange { gpa, len } => Some((gpa, len)),
                _ => None,
            })
            .collect()
    };
    let (first, second) = (ranges(a), ranges(b));
    for (one, other, which) in [(&first, &second, "first"), (&second, &first, "second")] {
        for &(gpa, len) in one.difference(other) {
            comparer.push(Difference {
                place: format!("error range {gpa:#x}"),
                what: format!("{len:#x} bytes, in the {which} file only"),
                effect: effect(&a.facts, &[Piece::ErrorRange(gpa)], &[]),
                ..Difference::default()
            });
        }
    }
}
