// SPDX-License-Identifier: MIT
//! A file at a glance, as data: what `inspect` prints, draws and gives out as JSON.
//!
//! Always true: everything about a platform comes from its launch plan, so it is what a launch would do;
//! this module gives no directive a meaning of its own. Not here: printing (`inspect`), pictures
//! (`picture`).

mod corim;
pub(crate) mod memory;
mod policy;
mod regions;
pub(crate) mod registers;
pub mod schema;

use launch_plan::{
    Contents, IdBlock, Import, Isolation, LaunchPlan, Origin, ParameterArea, PlanRun, RelocatableRegion,
    Step, StepKind, VbsMeasurement,
};
use memory::Memory;
use schema::*;
use std::collections::BTreeMap;
use vm_loaders::detect::{PayloadKind, detect};
use vm_loaders::igvm::{File, FormatVersion, Header, Platform, type_name};

/// VPs of a platform whose registers are kept; a context is 32 bytes of header, its registers some thousand.
const MAX_REGISTERED: usize = 1024;
/// Regions that are listed under runs, all together.
const MAX_REGIONS: usize = 4096;

impl Overview {
    /// The overview of a file; with `only`, of one platform.
    pub fn of(name: &str, file: &File<'_>, only: Option<Isolation>) -> Self {
        let platforms = file.platforms();
        let chosen = platforms
            .iter()
            .filter(|platform| only.is_none_or(|isolation| isolation == platform.isolation));
        Self {
            schema: SCHEMA,
            file: file_facts(name, file),
            platforms: chosen.map(|platform| platform_view(file, platform)).collect(),
        }
    }
}

/// `x64` or `aarch64`, as the fixed header says.
fn architecture(file: &File<'_>) -> &'static str {
    if file.fixed_header().architecture == 1 {
        "aarch64"
    } else {
        "x64"
    }
}

fn file_facts(name: &str, file: &File<'_>) -> FileFacts {
    let fixed = file.fixed_header();
    let mut types: BTreeMap<u32, u64> = BTreeMap::new();
    let mut version_string = None;
    for raw in file.headers() {
        *types.entry(raw.typ).or_default() += 1;
        if let Ok(Header::VersionString(text)) = file.decode(raw) {
            version_string = Some(String::from_utf8_lossy(text).into_owned());
        }
    }
    let header_types = types.into_iter().map(|(typ, count)| TypeCount {
        name: type_name(typ).map_or_else(|| format!("{typ:#x}"), str::to_owned),
        typ: Hex(typ.into()),
        count,
    });
    let unused = file
        .unused_data()
        .into_iter()
        .map(|(at, end)| UnusedData { at, bytes: end - at });
    FileFacts {
        name: name.to_owned(),
        bytes: file.bytes().len() as u64,
        format_version: if fixed.version == FormatVersion::V1 { 1 } else { 2 },
        architecture: architecture(file),
        headers_at: fixed.variable_header_offset.into(),
        data_at: file.data_start(),
        headers: file.headers().len(),
        header_types: header_types.collect(),
        unused: unused.collect(),
        version_string,
    }
}

fn platform_view(file: &File<'_>, platform: &Platform) -> PlatformView {
    let mut view = PlatformView {
        platform: platform.isolation.name(),
        architecture: architecture(file),
        mask: Hex(platform.mask.into()),
        highest_vtl: platform.highest_vtl,
        shared_gpa_boundary: Hex(platform.shared_gpa_boundary),
        header: platform.header,
        refused: None,
        payload: String::new(),
        policy: None,
        realm_policy: None,
        id_block: None,
        vbs_measurement: Vec::new(),
        corim: Vec::new(),
        vps: Vec::new(),
        relocatable: Vec::new(),
        page_tables: None,
        pages: Vec::new(),
        runs: Vec::new(),
        parameters: Vec::new(),
        required_memory: Vec::new(),
        holes: Vec::new(),
    };
    match file.plan(platform.isolation) {
        Ok(plan) => fill(&mut view, &plan),
        Err(refused) => view.refused = Some(refused.to_string()),
    }
    view
}

/// Everything that a plan says.
fn fill(view: &mut PlatformView, plan: &LaunchPlan<'_>) {
    let facts = &plan.facts;
    view.policy = facts.policy.map(|value| policy::guest(facts.isolation, value));
    view.realm_policy = facts.cca_policy.as_ref().map(policy::realm);
    view.id_block = plan.endorsements.id_block.as_deref().map(id_block);
    if let Some(measurement) = &plan.endorsements.vbs_measurement {
        view.vbs_measurement = vbs_measurement(measurement);
    }
    if let Some(document) = &plan.endorsements.corim {
        view.corim = corim::summary(document);
    }
    view.vps = plan
        .vp_contexts()
        .enumerate()
        .map(|(number, (context, origin))| {
            let mut vp = registers::vp(context, origin);
            if number >= MAX_REGISTERED {
                vp.registers = Vec::new();
            }
            vp
        })
        .collect();
    if view.vps.is_empty() && plan.facts.isolation == Isolation::Native {
        view.vps.push(registers::reset());
    }
    view.relocatable = plan.relocatable.iter().map(relocatable).collect();
    view.page_tables = plan.page_tables.map(|tables| PageTables {
        gpa: Hex(tables.gpa),
        bytes: tables.len,
        used: tables.used,
    });
    let memory = Memory::of(plan);
    let payload = match detect(plan) {
        Ok(detection) => {
            view.payload = detection.to_string();
            detection.payload
        }
        Err(ambiguous) => {
            view.payload = ambiguous.to_string();
            PayloadKind::Generic
        }
    };
    steps(view, plan);
    name_runs(&mut view.runs, regions::find(plan, &memory, payload));
    view.holes = holes(&memory);
}

fn relocatable(region: &RelocatableRegion) -> Relocatable {
    let mut moves = format!("vp {} of vtl {}", region.vp, region.vtl);
    for (flag, name) in [
        (region.apply_pc, ", its instruction pointer"),
        (region.apply_gdtr, ", its gdtr"),
        (region.is_vtl2, "; memory of vtl 2"),
    ] {
        if flag {
            moves.push_str(name);
        }
    }
    Relocatable {
        gpa: Hex(region.gpa),
        bytes: region.len,
        minimum: Hex(region.min_gpa),
        maximum: Hex(region.max_gpa),
        alignment: Hex(region.alignment),
        moves,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn id_block(block: &IdBlock) -> IdBlockView {
    let curve = |curve| match curve {
        0 => "none".to_owned(),
        2 => "p-384".to_owned(),
        other => format!("curve {other}"),
    };
    let signed = block.id_signature.r.iter().any(|&byte| byte != 0);
    IdBlockView {
        launch_digest: hex(&block.launch_digest),
        fields: vec![
            Field::new("family id", hex(&block.family_id)),
            Field::new("image id", hex(&block.image_id)),
            Field::new("version", block.version),
            Field::new("guest svn", block.guest_svn),
            Field::new("id key", curve(block.id_key.curve)),
            Field::new("signed", if signed { "yes" } else { "no" }),
            Field::new("author key", curve(block.author_key.curve)),
            Field::new("author key enabled", block.author_key_enabled),
        ],
    }
}

fn vbs_measurement(measurement: &VbsMeasurement) -> Vec<Field> {
    let signed = measurement.signature.iter().any(|&byte| byte != 0);
    let digest = match measurement.digest_algorithm {
        1 => hex(&measurement.digest[..32]),
        _ => hex(&measurement.digest),
    };
    vec![
        Field::new("digest", digest),
        Field::new("version", measurement.version),
        Field::new("product id", measurement.product_id),
        Field::new("module id", measurement.module_id),
        Field::new("security version", measurement.security_version),
        Field::new("policy flags", format!("{:#x}", measurement.policy_flags)),
        Field::new("signed", if signed { "yes" } else { "no" }),
    ]
}

/// Runs, parameters, page counts and required memory.
fn steps(view: &mut PlatformView, plan: &LaunchPlan<'_>) {
    let mut counts: BTreeMap<(&'static str, u64), u64> = BTreeMap::new();
    for run in plan.runs() {
        let (first, last) = run.origins();
        let mut line = Run {
            step: "import",
            gpa: Hex(0),
            bytes: 0,
            kind: None,
            contents: None,
            page_bytes: None,
            name: None,
            regions: Vec::new(),
            first_header: header_of(first),
            last_header: header_of(last),
        };
        match &run {
            PlanRun::Import(import) => {
                let page = if import.large { 2 << 20 } else { 4096 };
                *counts.entry((import.kind.name(), page)).or_default() += import.len / page;
                (line.gpa, line.bytes) = (Hex(import.gpa), import.len);
                line.kind = Some(import.kind.name());
                line.contents = Some(import.contents);
                line.page_bytes = Some(page);
                if let Some((import, area)) = import.steps.first().and_then(area_of) {
                    line.name = Some(area_name(area));
                    view.parameters.extend(parameters(import, area));
                }
            }
            PlanRun::Other(step) => other_step(view, step, &mut line),
        }
        view.runs.push(line);
    }
    view.pages = counts
        .into_iter()
        .map(|((kind, page), pages)| PageCount {
            kind: if page == 4096 {
                kind.to_owned()
            } else {
                format!("{kind}, 2 MiB")
            },
            pages,
            bytes: pages * page,
        })
        .collect();
}

fn header_of(origin: Origin) -> u32 {
    match origin {
        Origin::Header { index, .. } => index,
        Origin::Host(_) => 0,
    }
}

fn other_step(view: &mut PlatformView, step: &Step<'_>, line: &mut Run) {
    match &step.kind {
        StepKind::ErrorRange { gpa, len } => {
            line.step = "error range";
            (line.gpa, line.bytes) = (Hex(*gpa), *len);
        }
        StepKind::ExpectMemory(expect) => {
            line.step = "required memory";
            (line.gpa, line.bytes) = (Hex(expect.gpa), expect.len);
            view.required_memory.push(Range {
                gpa: Hex(expect.gpa),
                bytes: expect.len,
                note: expect.vtl2_protectable.then_some("protectable by vtl 2"),
            });
        }
        StepKind::VpContext(context) => {
            line.step = "vp context";
            line.gpa = Hex(context.gpa);
            line.bytes = if context.gpa == 0 { 0 } else { 4096 };
            line.name = Some(format!("vp {}", context.vp));
        }
        StepKind::Import(_) => {}
    }
}

fn area_of<'s, 'a>(step: &'s Step<'a>) -> Option<(&'s Import<'a>, &'s ParameterArea<'a>)> {
    match &step.kind {
        StepKind::Import(import) => match &import.contents {
            Contents::Parameters(area) => Some((import, area)),
            _ => None,
        },
        _ => None,
    }
}

fn area_name(area: &ParameterArea<'_>) -> String {
    let mut name = format!("parameter area {}", area.index);
    if area.initial.iter().any(|&byte| byte != 0) {
        name.push_str(" with initial data");
    }
    for (index, slot) in area.slots.iter().enumerate() {
        name.push_str(if index == 0 { ": " } else { ", " });
        name.push_str(slot.kind.name());
    }
    name
}

fn parameters(import: &Import<'_>, area: &ParameterArea<'_>) -> Vec<Parameter> {
    let slots = area.slots.iter().map(|slot| {
        let offset = u64::from(slot.byte_offset);
        let next = area
            .slots
            .iter()
            .map(|other| u64::from(other.byte_offset))
            .filter(|&other| other > offset);
        let end = next.min().unwrap_or(import.len);
        Parameter {
            name: slot.kind.name(),
            gpa: Hex(import.gpa.wrapping_add(offset)),
            area: area.index,
            byte_offset: slot.byte_offset,
            room: end.saturating_sub(offset),
            header: header_of(slot.origin),
        }
    });
    slots.collect()
}

/// Gives regions to the runs that hold them. Runs of imports are disjoint.
fn name_runs(runs: &mut [Run], regions: Vec<Region>) {
    let mut order: Vec<usize> = (0..runs.len())
        .filter(|&index| runs[index].step == "import")
        .collect();
    order.sort_unstable_by_key(|&index| runs[index].gpa);
    let mut budget = MAX_REGIONS;
    for region in regions {
        let (start, end) = (region.gpa.0, region.gpa.0.saturating_add(region.bytes));
        let first = order.partition_point(|&index| end_of(&runs[index]) <= start);
        for &index in &order[first..] {
            let run = &mut runs[index];
            if run.gpa.0 >= end {
                break;
            }
            let covers = start <= run.gpa.0 && end >= end_of(run);
            // An image that fills the run says more than the volume at its start.
            let weak = run
                .name
                .as_deref()
                .is_none_or(|name| name.starts_with("firmware volume"));
            if covers && weak {
                run.name = Some(region.name.clone());
            } else if run.name.as_deref() != Some(&region.name) && budget > 0 {
                budget -= 1;
                run.regions.push(region.clone());
            }
        }
    }
}

fn end_of(run: &Run) -> u64 {
    run.gpa.0.saturating_add(run.bytes)
}

/// Unused addresses between imported ranges.
fn holes(memory: &Memory<'_, '_>) -> Vec<Range> {
    let ranges = memory.ranges();
    ranges
        .windows(2)
        .map(|pair| {
            let end = pair[0].0.saturating_add(pair[0].1);
            Range {
                gpa: Hex(end),
                bytes: pair[1].0.saturating_sub(end),
                note: None,
            }
        })
        .filter(|hole| hole.bytes > 0)
        .collect()
}
