// SPDX-License-Identifier: MIT
//! Initial processor state of two plans, register by register and save area field by field.
//!
//! Always true: each register that differs is one line, reserved fields of a save area included. Not
//! here: when contexts are launched (`order`).

use super::effect::{Effect, Piece, effect};
use super::{Comparer, Difference};
use crate::overview::registers;
use crate::overview::schema::Field;
use launch_plan::{LaunchPlan, Origin, PlatformFacts, VbsRegister, VpContext, VpState};
use std::borrow::Cow;
use x86defs::vmsa::{VMSA_FIELDS, VMSA_SIZE, VmsaField};

/// Compares all contexts.
pub(super) fn compare(comparer: &mut Comparer<'_>, a: &LaunchPlan<'_>, b: &LaunchPlan<'_>) {
    for (context, origin) in a.vp_contexts() {
        match b.vp_contexts().find(|(other, _)| other.vp == context.vp) {
            Some((other, _)) => context_pair(comparer, &a.facts, context, other, origin),
            None => missing(comparer, &a.facts, context, true),
        }
    }
    for (context, _) in b.vp_contexts() {
        if !a.vp_contexts().any(|(other, _)| other.vp == context.vp) {
            missing(comparer, &a.facts, context, false);
        }
    }
}

fn missing(comparer: &mut Comparer<'_>, facts: &PlatformFacts, context: &VpContext<'_>, first: bool) {
    let has = [Piece::Context(context.clone())];
    let which = if first { "first" } else { "second" };
    comparer.push(Difference {
        place: format!("vp {}", context.vp),
        what: format!("has a context in the {which} file only"),
        effect: effect(facts, &has, &[]),
        ..Difference::default()
    });
}

fn context_pair(
    comparer: &mut Comparer<'_>,
    facts: &PlatformFacts,
    a: &VpContext<'_>,
    b: &VpContext<'_>,
    origin: Origin,
) {
    if a.gpa != b.gpa {
        let moved = VpContext {
            gpa: b.gpa,
            ..a.clone()
        };
        register(
            comparer,
            facts,
            a,
            &moved,
            ("gpa", &format!("{:#x}", a.gpa), &format!("{:#x}", b.gpa)),
        );
    }
    match (&a.state, &b.state) {
        (VpState::Vmsa(x), VpState::Vmsa(y)) => {
            for field in VMSA_FIELDS {
                vmsa_field(comparer, facts, (a, x, y), field);
            }
        }
        (VpState::Vbs(x), VpState::Vbs(y)) => vbs(comparer, facts, a, (x, y)),
        _ => by_name(comparer, facts, a, b, origin),
    }
}

/// Reports one register; `changed` is the first context with only that register changed.
fn register(
    comparer: &mut Comparer<'_>,
    facts: &PlatformFacts,
    a: &VpContext<'_>,
    changed: &VpContext<'_>,
    (name, first, second): (&str, &str, &str),
) {
    let effect = effect(
        facts,
        &[Piece::Context(a.clone())],
        &[Piece::Context(changed.clone())],
    );
    line(comparer, a.vp, name, (first, second), effect);
}

fn line(comparer: &mut Comparer<'_>, vp: u32, name: &str, (first, second): (&str, &str), effect: Effect) {
    comparer.push(Difference {
        place: format!("vp {vp} {name}"),
        what: format!("{first} becomes {second}"),
        effect,
        ..Difference::default()
    });
}

fn vmsa_field(
    comparer: &mut Comparer<'_>,
    facts: &PlatformFacts,
    (a, x, y): (&VpContext<'_>, &[u8], &[u8]),
    field: &VmsaField,
) {
    let range = field.offset..field.offset + field.size;
    let (Some(before), Some(after)) = (x.get(range.clone()), y.get(range.clone())) else {
        return;
    };
    if before == after {
        return;
    }
    let mut page = x.to_vec();
    page[range].copy_from_slice(after);
    let text = |page: &[u8]| registers::vmsa_value(page, field.offset).unwrap_or_else(|| "0".to_owned());
    let (first, second) = (text(x), text(&page));
    page.resize(VMSA_SIZE, 0);
    let changed = VpContext {
        state: VpState::Vmsa(Cow::Owned(page)),
        ..a.clone()
    };
    let name = field.name.to_lowercase();
    register(comparer, facts, a, &changed, (&name, &first, &second));
}

fn vbs(
    comparer: &mut Comparer<'_>,
    facts: &PlatformFacts,
    a: &VpContext<'_>,
    (x, y): (&[VbsRegister], &[VbsRegister]),
) {
    let show = |list: &[VbsRegister], wanted: &VbsRegister| {
        let found = list.iter().find(|r| r.name == wanted.name && r.vtl == wanted.vtl);
        found.map_or_else(|| "not named".to_owned(), |r| registers::vbs_value(&r.value))
    };
    let added = y
        .iter()
        .filter(|r| !x.iter().any(|o| o.name == r.name && o.vtl == r.vtl));
    for wanted in x.iter().chain(added) {
        let (first, second) = (show(x, wanted), show(y, wanted));
        if first == second {
            continue;
        }
        let mut list: Vec<VbsRegister> = Vec::new();
        for r in x {
            let same = r.name == wanted.name && r.vtl == wanted.vtl;
            match y
                .iter()
                .find(|other| same && other.name == r.name && other.vtl == r.vtl)
            {
                Some(other) => list.push(*other),
                None if same => {}
                None => list.push(*r),
            }
        }
        if !x.iter().any(|r| r.name == wanted.name && r.vtl == wanted.vtl) {
            list.push(*wanted);
        }
        let changed = VpContext {
            state: VpState::Vbs(list),
            ..a.clone()
        };
        let name = registers::vbs_name(wanted.name);
        register(comparer, facts, a, &changed, (&name, &first, &second));
    }
    let common = |list: &[VbsRegister], other: &[VbsRegister]| -> Vec<_> {
        let names = list.iter().map(|r| (r.vtl, r.name));
        names
            .filter(|key| other.iter().any(|r| (r.vtl, r.name) == *key))
            .collect()
    };
    if common(x, y) != common(y, x) {
        let changed = VpContext {
            state: VpState::Vbs(y.to_vec()),
            ..a.clone()
        };
        register(
            comparer,
            facts,
            a,
            &changed,
            ("list", "one order of registers", "another"),
        );
    }
}

/// Forms whose registers no digest covers one by one: by name.
fn by_name(
    comparer: &mut Comparer<'_>,
    facts: &PlatformFacts,
    a: &VpContext<'_>,
    b: &VpContext<'_>,
    origin: Origin,
) {
    let (before, after) = (
        registers::vp(a, origin).registers,
        registers::vp(b, origin).registers,
    );
    let value = |list: &[Field], name: &str| {
        let found = list.iter().find(|field| field.name == name);
        found.map_or_else(|| "not named".to_owned(), |field| field.value.clone())
    };
    let mut names: Vec<&str> = before.iter().chain(&after).map(|field| &*field.name).collect();
    names.dedup();
    let mut done: Vec<&str> = Vec::new();
    for name in names {
        let (first, second) = (value(&before, name), value(&after, name));
        if first != second && !done.contains(&name) {
            done.push(name);
            register(comparer, facts, a, b, (name, &first, &second));
        }
    }
}
