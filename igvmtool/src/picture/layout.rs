// SPDX-License-Identifier: MIT
//! Where everything goes: blocks of memory, folds between them, and a column of labels.
//!
//! Always true: blocks are in address order and to scale within themselves; labels of a block stay beside
//! it, in order, at least one row apart; at most [`MAX_LABELS`] labels and [`MAX_SEGMENTS`] segments are
//! laid out for a platform. Not here: drawing.

use crate::inspect::size;
use crate::overview::schema::{PlatformView, Run};

/// Height of a row of text, in pixels.
pub(super) const ROW: f64 = 18.0;
/// Height of a fold.
pub(super) const FOLD: f64 = 34.0;
/// Labels of one platform; what is beyond is counted.
pub(super) const MAX_LABELS: usize = 160;
/// Segments of one platform.
pub(super) const MAX_SEGMENTS: usize = 2000;
/// Empty ranges that are longer than this are folded.
const MAX_GAP: u64 = 64 << 10;
/// Tallest block, unless its labels need more.
const MAX_HEIGHT: f64 = 330.0;
/// Smallest height of a block: an address above and one below.
const MIN_HEIGHT: f64 = 2.0 * ROW;

/// What a segment is, which decides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Data,
    Zero,
    Unmeasured,
    Shared,
    Secrets,
    Cpuid,
    Parameters,
    ErrorRange,
    SaveArea,
}

impl Class {
    /// The class of a run; `None` for what is not memory.
    fn of(run: &Run) -> Option<Self> {
        Some(match (run.step, run.kind, run.contents) {
            ("error range", ..) => Self::ErrorRange,
            ("vp context", ..) if run.bytes > 0 => Self::SaveArea,
            ("import", _, Some("parameters")) => Self::Parameters,
            ("import", Some("secrets"), _) => Self::Secrets,
            ("import", Some("cpuid" | "cpuid-xf"), _) => Self::Cpuid,
            ("import", Some("shared"), _) => Self::Shared,
            ("import", Some("unmeasured"), _) => Self::Unmeasured,
            ("import", _, Some("zero")) => Self::Zero,
            ("import", ..) => Self::Data,
            _ => return None,
        })
    }

    /// Name in the legend.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Data => "measured data",
            Self::Zero => "measured zeros",
            Self::Unmeasured => "unmeasured",
            Self::Shared => "shared",
            Self::Secrets => "secrets",
            Self::Cpuid => "cpuid",
            Self::Parameters => "parameters",
            Self::ErrorRange => "error range",
            Self::SaveArea => "save area",
        }
    }

    /// Fill colour.
    pub(super) const fn colour(self) -> &'static str {
        match self {
            Self::Data => "#4e79a7",
            Self::Zero => "#b4cde4",
            Self::Unmeasured => "#f28e2b",
            Self::Shared => "#f6c78f",
            Self::Secrets => "#d64550",
            Self::Cpuid => "#b07aa1",
            Self::Parameters => "#59a14f",
            Self::ErrorRange => "#9d9390",
            Self::SaveArea => "#e0b93b",
        }
    }
}

/// A coloured piece of a block.
pub(super) struct Segment {
    pub(super) class: Class,
    pub(super) y: f64,
    pub(super) height: f64,
    /// Everything about it, for hovering.
    pub(super) details: String,
}

/// What a label is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mark {
    Run,
    Region,
    Parameter,
    Entry,
}

/// A line of text beside a block.
pub(super) struct Label {
    pub(super) mark: Mark,
    pub(super) text: String,
    /// Where it points to.
    pub(super) target: f64,
    /// Middle of its row.
    pub(super) y: f64,
}

/// A block of memory without large gaps.
pub(super) struct Block {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) y: f64,
    pub(super) height: f64,
    pub(super) segments: Vec<Segment>,
    /// Recognised parts of segments: top and height.
    pub(super) strips: Vec<(f64, f64)>,
    pub(super) labels: Vec<Label>,
    /// Bytes of the fold above it, if there is one.
    pub(super) fold: Option<u64>,
}

/// A platform's picture.
pub(super) struct Layout {
    pub(super) blocks: Vec<Block>,
    pub(super) height: f64,
    /// Labels and segments that were left out.
    pub(super) left_out: usize,
    pub(super) classes: Vec<Class>,
}

/// A run with a place.
struct Placed<'v> {
    start: u64,
    end: u64,
    class: Class,
    run: &'v Run,
    name: String,
}

/// Lays out a platform from the top.
pub(super) fn layout(view: &PlatformView) -> Layout {
    let (placed, mut left_out) = placed(view);
    let mut classes: Vec<Class> = placed.iter().map(|piece| piece.class).collect();
    classes.sort_unstable();
    classes.dedup();
    let mut budget = MAX_LABELS;
    let mut blocks: Vec<Block> = Vec::new();
    let mut y = 0.0;
    let mut rest = &placed[..];
    while !rest.is_empty() {
        let mut end = rest[0].end;
        let mut count = 1;
        while let Some(next) = rest.get(count)
            && next.start.saturating_sub(end) <= MAX_GAP
        {
            end = end.max(next.end);
            count += 1;
        }
        let (inside, after) = rest.split_at(count);
        rest = after;
        let fold = blocks.last().map(|last: &Block| inside[0].start - last.end);
        if fold.is_some() {
            y += FOLD;
        }
        let mut labels = labels(view, inside, end);
        left_out += labels.len().saturating_sub(budget);
        labels.truncate(budget);
        budget -= labels.len();
        let block = block(inside, end, y, labels, fold);
        y += block.height;
        blocks.push(block);
    }
    Layout {
        blocks,
        height: y,
        left_out,
        classes,
    }
}

/// Runs that are memory, in address order; save areas at one address together. And how many are left out.
fn placed(view: &PlatformView) -> (Vec<Placed<'_>>, usize) {
    let mut placed: Vec<Placed<'_>> = Vec::new();
    let mut left_out = 0;
    for run in &view.runs {
        let Some(class) = Class::of(run) else { continue };
        let name = run.name.clone().unwrap_or_default();
        let start = run.gpa.0;
        let same =
            |last: &&mut Placed<'_>| class == Class::SaveArea && (last.class, last.start) == (class, start);
        if let Some(last) = placed.last_mut().filter(same) {
            last.name = format!("{}, {name}", last.name);
            continue;
        }
        if placed.len() >= MAX_SEGMENTS {
            left_out += 1;
            continue;
        }
        placed.push(Placed {
            start,
            end: start.saturating_add(run.bytes),
            class,
            run,
            name,
        });
    }
    placed.sort_by_key(|piece| (piece.start, piece.end));
    (placed, left_out)
}

/// A label that has no place yet: address, mark, text.
type Loose = (u64, Mark, String);

/// Address and size as two columns.
fn address(gpa: u64, bytes: u64) -> String {
    format!("{:<18}{:<12}", format!("{gpa:#x}"), size(bytes))
}

fn labels(view: &PlatformView, inside: &[Placed<'_>], end: u64) -> Vec<Loose> {
    let start = inside.first().map_or(0, |piece| piece.start);
    let mut labels: Vec<Loose> = Vec::new();
    for piece in inside {
        let text = format!(
            "{}{:<16}{}",
            address(piece.start, piece.end - piece.start),
            piece.class.name(),
            piece.name
        );
        labels.push((piece.start, Mark::Run, text.trim_end().to_owned()));
        for region in &piece.run.regions {
            let text = format!("{}{}", address(region.gpa.0, region.bytes), region.name);
            labels.push((region.gpa.0.max(piece.start), Mark::Region, text));
        }
    }
    for parameter in &view.parameters {
        if (start..end).contains(&parameter.gpa.0) {
            let text = format!("{:<30}{}", parameter.gpa.to_string(), parameter.name);
            labels.push((parameter.gpa.0, Mark::Parameter, text));
        }
    }
    for vp in &view.vps {
        if let Some(entry) = vp.entry.filter(|entry| (start..end).contains(&entry.0)) {
            let text = format!("{:<30}vp {} starts here, {}", entry.to_string(), vp.vp, vp.mode);
            labels.push((entry.0, Mark::Entry, text));
        }
    }
    labels.sort();
    labels
}

fn block(inside: &[Placed<'_>], end: u64, y: f64, labels: Vec<Loose>, fold: Option<u64>) -> Block {
    let start = inside.first().map_or(0, |piece| piece.start);
    let len = (end - start).max(1) as f64;
    let by_size = 24.0 * (len / 4096.0).max(1.0).log2() + MIN_HEIGHT;
    let height = by_size
        .min(MAX_HEIGHT)
        .max(labels.len() as f64 * ROW)
        .max(MIN_HEIGHT);
    let place = |gpa: u64| y + height * ((gpa - start) as f64 / len);
    let segments = inside.iter().map(|piece| {
        let (top, bottom) = (place(piece.start), place(piece.end));
        Segment {
            class: piece.class,
            // A page of a large block still shows.
            y: top.min(y + height - 3.0),
            height: (bottom - top).max(3.0),
            details: details(piece),
        }
    });
    let segments = segments.collect();
    let regions = inside.iter().flat_map(|piece| {
        let inner = |gpa: u64| gpa.clamp(piece.start, piece.end);
        let regions = piece.run.regions.iter().take(MAX_LABELS);
        regions.map(move |region| {
            let end = region.gpa.0.saturating_add(region.bytes);
            (inner(region.gpa.0), inner(end))
        })
    });
    let strips = regions
        .map(|(from, to)| (place(from), place(to) - place(from)))
        .collect();
    let targets: Vec<f64> = labels
        .iter()
        .map(|(gpa, ..)| place(*gpa).min(y + height - 1.0))
        .collect();
    let rows = spread(&targets, y, y + height);
    let labels = labels
        .into_iter()
        .zip(targets.iter().zip(rows))
        .map(|((_, mark, text), (&target, y))| Label {
            mark,
            text,
            target,
            y,
        })
        .collect();
    Block {
        start,
        end,
        y,
        height,
        segments,
        strips,
        labels,
        fold,
    }
}

/// Middles of rows near their targets, in order, at least [`ROW`] apart, between `top` and `bottom`, which
/// have room for all.
fn spread(targets: &[f64], top: f64, bottom: f64) -> Vec<f64> {
    let mut rows: Vec<f64> = Vec::with_capacity(targets.len());
    let mut next = top + ROW / 2.0;
    for &target in targets {
        let row = (target + ROW / 2.0).max(next);
        rows.push(row);
        next = row + ROW;
    }
    let mut limit = bottom - ROW / 2.0;
    for row in rows.iter_mut().rev() {
        *row = row.min(limit);
        limit = *row - ROW;
    }
    rows
}

fn details(piece: &Placed<'_>) -> String {
    let run = piece.run;
    let mut text = format!(
        "{:#x}..{:#x}, {} ({:#x} bytes)",
        piece.start,
        piece.end,
        size(piece.end - piece.start),
        piece.end - piece.start
    );
    if let (Some(kind), Some(contents)) = (run.kind, run.contents) {
        text.push_str(&format!(", {kind} {contents}"));
    } else {
        text.push_str(&format!(", {}", run.step));
    }
    if run.page_bytes == Some(2 << 20) {
        text.push_str(", 2 MiB pages");
    }
    if !piece.name.is_empty() {
        text.push_str(&format!(", {}", piece.name));
    }
    for region in run.regions.iter().take(8) {
        text.push_str(&format!("; {} at {:#x}", region.name, region.gpa.0));
    }
    text.push_str(&format!("; headers {}-{}", run.first_header, run.last_header));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_order_their_distance_and_their_block() {
        for targets in [vec![0.0; 5], vec![0.0, 1.0, 89.0, 89.5, 90.0], vec![90.0; 5]] {
            let rows = spread(&targets, 0.0, 90.0);
            assert!(
                rows.windows(2).all(|pair| pair[1] - pair[0] >= ROW - 1e-9),
                "{rows:?}"
            );
            assert!(
                rows[0] >= ROW / 2.0 - 1e-9 && rows[4] <= 90.0 - ROW / 2.0 + 1e-9,
                "{rows:?}"
            );
        }
    }
}
