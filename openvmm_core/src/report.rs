// SPDX-License-Identifier: MIT
//! What the loader did, as text (`--dry-run`) and as JSON (`--report`); the JSON gets how the VM ended.
//!
//! Always true: both show the bound plan, with every value that the host deposited; nothing is computed
//! that the launch does not use. Not here: what the guest does in between.

use crate::ending::{Done, Ended};
use crate::load::Loaded;
use crate::registers;
use launch_plan::{BoundPlan, Contents, HostValues, PlanRun, StepKind};
use openvmm_defs::{GpaRange, MemoryLayout};
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::{Duration, Instant};
use virt::LaunchSummary;
use x86defs::X86State;

/// How long each stage of a start took.
#[derive(Debug)]
pub(crate) struct Timings {
    last: Instant,
    stages: Vec<(&'static str, Duration)>,
}

impl Timings {
    /// Starts the first stage.
    pub(crate) fn start() -> Self {
        Self {
            last: Instant::now(),
            stages: Vec::new(),
        }
    }

    /// Ends a stage and starts the next.
    pub(crate) fn stage(&mut self, name: &'static str) {
        let now = Instant::now();
        self.stages.push((name, now - self.last));
        self.last = now;
    }

    fn json(&self) -> Value {
        let entries = self
            .stages
            .iter()
            .map(|(name, took)| ((*name).to_owned(), json!(took.as_secs_f64() * 1e3)));
        Value::Object(entries.collect())
    }
}

/// One launch, seen from outside.
pub(crate) struct Report<'v> {
    pub(crate) layout: &'v MemoryLayout,
    pub(crate) loaded: &'v Loaded<'v>,
    pub(crate) notes: &'v [String],
    pub(crate) host: &'v HostValues<'v>,
    pub(crate) bound: &'v BoundPlan<'v>,
}

impl Report<'_> {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut out = String::from("decisions\n");
        for note in self.notes.iter().chain(self.bound.notes()) {
            let _ = writeln!(out, "  {note}");
        }
        let layout = self.layout;
        let _ = writeln!(
            out,
            "machine {}, {} vps, ram {}",
            layout.machine.name(),
            layout.vp_count,
            list(&layout.ram)
        );
        let _ = write!(out, "plan\n{}bound\n", self.loaded.plan);
        for (kind, gpa, bytes) in self.parameters() {
            let _ = writeln!(out, "  {kind} at {gpa:#x}: {} bytes", bytes.len());
        }
        if let Some(hand_over) = &self.host.hand_over {
            let _ = writeln!(
                out,
                "  {} at {:#x}: {} bytes",
                hand_over.what,
                hand_over.gpa,
                hand_over.blob.len()
            );
        }
        for (vp, state) in self.states() {
            out += &registers::describe_registers(vp, &state);
        }
        out
    }

    /// For programs.
    pub(crate) fn json(&self, timings: &Timings) -> Value {
        let facts = &self.loaded.plan.facts;
        let ranges = |list: &[GpaRange]| {
            list.iter()
                .map(|r| json!({"gpa": r.gpa, "len": r.len}))
                .collect::<Vec<_>>()
        };
        json!({
            "platform": facts.isolation.name(),
            "machine": self.layout.machine.name(),
            "vp_count": self.layout.vp_count,
            "ram": ranges(&self.layout.ram),
            "ram_outside_layout": ranges(&self.loaded.extra_ram),
            "decisions": self.notes.iter().chain(self.bound.notes()).collect::<Vec<_>>(),
            "runs": self.loaded.plan.runs().filter_map(|run| run_json(&run)).collect::<Vec<_>>(),
            "parameters": self.parameters().map(|(kind, gpa, bytes)| json!({
                "kind": kind,
                "gpa": gpa,
                "bytes": registers::hex(bytes),
            })).collect::<Vec<_>>(),
            "hand_over": self.host.hand_over.as_ref().map(|h| json!({
                "what": h.what,
                "gpa": h.gpa,
                "bytes": registers::hex(&h.blob),
            })),
            "registers": self.states().map(|(vp, state)| state_json(vp, &state)).collect::<Vec<_>>(),
            "timings_ms": timings.json(),
        })
    }

    /// Deposited values: kind, gpa, bytes.
    fn parameters(&self) -> impl Iterator<Item = (&'static str, u64, &[u8])> {
        let areas = self
            .loaded
            .plan
            .steps()
            .iter()
            .filter_map(|step| match &step.kind {
                StepKind::Import(import) => match &import.contents {
                    Contents::Parameters(area) => Some((import.gpa, area)),
                    _ => None,
                },
                _ => None,
            });
        areas.flat_map(move |(gpa, area)| {
            area.slots.iter().filter_map(move |slot| {
                let bytes = self.host.get(slot.kind)?;
                Some((slot.kind.name(), gpa + u64::from(slot.byte_offset), bytes))
            })
        })
    }

    fn states(&self) -> impl Iterator<Item = (u32, X86State)> {
        let contexts = self.loaded.plan.vp_contexts();
        contexts.filter_map(|(context, _)| Some((context.vp, self.bound.initial_state(context.vp)?)))
    }
}

/// How a VM ended and how much its guest had done by then.
pub(crate) fn end_json(ended: &Ended, done: &Done) -> Value {
    json!({
        "reason": ended.reason.to_string(),
        "code": ended.code,
        "clock_ns": done.clock,
        "instructions": done.instructions,
    })
}

/// What an isolated launch gave.
pub(crate) fn launched_json(summary: &LaunchSummary) -> Value {
    // As other tools write digests: without spaces.
    let text = |digest: &[u8]| registers::hex(digest).replace(' ', "");
    json!({
        "by": summary.by,
        "digest": text(&summary.digest),
        "platform_digest": summary.platform_digest.as_deref().map(text),
        "policy": summary.policy,
        "notes": summary.notes,
        "memory": summary.memory.iter().map(|range| json!({
            "gpa": range.gpa,
            "len": range.len,
            "state": range.state,
        })).collect::<Vec<_>>(),
    })
}

fn list(ranges: &[GpaRange]) -> String {
    ranges
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

fn run_json(run: &PlanRun<'_, '_>) -> Option<Value> {
    let PlanRun::Import(import) = run else { return None };
    let (first, last) = run.origins();
    Some(json!({
        "gpa": import.gpa,
        "len": import.len,
        "kind": import.kind.name(),
        "large": import.large,
        "contents": import.contents,
        "first": first.to_string(),
        "last": last.to_string(),
    }))
}

fn state_json(vp: u32, s: &X86State) -> Value {
    let segment = |r: &x86defs::SegmentRegister| json!({"selector": r.selector, "base": r.base, "limit": r.limit, "attributes": r.attributes.0});
    let table = |r: &x86defs::TableRegister| json!({"base": r.base, "limit": r.limit});
    let gpr: serde_json::Map<_, _> = registers::GPR_NAMES
        .iter()
        .zip(s.gpr)
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect();
    json!({
        "vp": vp, "gpr": gpr, "rip": s.rip, "rflags": s.rflags,
        "cr0": s.cr0, "cr3": s.cr3, "cr4": s.cr4, "efer": s.efer, "pat": s.pat,
        "cs": segment(&s.cs), "ds": segment(&s.ds), "es": segment(&s.es), "fs": segment(&s.fs),
        "gs": segment(&s.gs), "ss": segment(&s.ss), "tr": segment(&s.tr),
        "gdtr": table(&s.gdtr), "idtr": table(&s.idtr),
        "mtrr": {"def_type": s.mtrr.def_type, "fixed": s.mtrr.fixed, "variable": s.mtrr.variable},
    })
}
