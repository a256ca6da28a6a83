// SPDX-License-Identifier: MIT
//! The picture as SVG 1.1.
//!
//! Always true: text is escaped and cut to the width that it has; every segment carries its details as a
//! title, which browsers show on hover.

use super::layout::{Block, Class, FOLD, Layout, Mark, ROW, layout};
use super::{escape, shorten};
use crate::inspect::size;
use crate::overview::schema::{Overview, PlatformView};
use std::fmt::Write;

/// Width of the picture, in pixels.
const WIDTH: f64 = 1020.0;
/// Left edge of everything.
const LEFT: f64 = 24.0;
/// Right edge of the addresses.
const ADDRESSES: f64 = 176.0;
/// Left edge and width of the memory column.
const BAR: f64 = 200.0;
const BAR_WIDTH: f64 = 130.0;
/// Left edge of the labels.
const LABELS: f64 = 392.0;
/// Width of a character of the 12 pixel monospace font, a little more than DejaVu Sans Mono's.
const CHARACTER: f64 = 7.3;
/// Characters that fit a label and a line of the heading.
const LABEL_LIMIT: usize = ((WIDTH - LABELS - 16.0) / CHARACTER) as usize;
const LINE_LIMIT: usize = ((WIDTH - 2.0 * LEFT) / CHARACTER) as usize;

/// The style of the picture, also inside of HTML.
pub(super) const STYLE: &str = "\
.igvm text{font:12px 'DejaVu Sans Mono','Liberation Mono',ui-monospace,monospace;fill:#1f2933}\
.igvm .title{font-weight:bold;font-size:15px}\
.igvm .platform{font-weight:bold;font-size:14px}\
.igvm .quiet{fill:#5b6672}\
.igvm .region{fill:#5b6672}\
.igvm .parameter{fill:#2f7a26}\
.igvm .entry{fill:#b3261e;font-weight:bold}\
.igvm .lead{stroke:#a9b2bb;fill:none;stroke-width:1}\
.igvm .lead.entry{stroke:#b3261e;fill:none}\
.igvm .lead.parameter{stroke:#59a14f;fill:none}\
.igvm .frame{fill:#eef1f4;stroke:#c3cad1}\
.igvm .fold{stroke:#a9b2bb;fill:none;stroke-width:1.5}\
.igvm .strip{fill:#fff;fill-opacity:.28;stroke:#fff;stroke-width:.8;pointer-events:none}\
.igvm .segment{stroke:#fff;stroke-width:.6}\
.igvm .segment:hover{stroke:#000;stroke-width:1.5}";

/// A whole file.
pub(super) fn document(overview: &Overview) -> String {
    let (body, height) = body(overview);
    let mut out = String::with_capacity(body.len() + 2048);
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"igvm\" width=\"{WIDTH}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {WIDTH} {height:.0}\"><style>{STYLE}</style>\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>{body}</svg>"
    );
    out
}

/// The picture without style, for a page that has it: an `svg` element.
pub(super) fn element(overview: &Overview) -> String {
    let (body, height) = body(overview);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"igvm\" width=\"{WIDTH}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"guest memory\">{body}</svg>"
    )
}

struct Canvas {
    out: String,
    y: f64,
}

impl Canvas {
    /// A line of text at the left edge.
    fn line(&mut self, class: &str, text: &str) {
        self.y += ROW;
        self.text(LEFT, self.y - 5.0, class, "start", &shorten(text, LINE_LIMIT));
    }

    fn text(&mut self, x: f64, y: f64, class: &str, anchor: &str, text: &str) {
        let _ = write!(
            self.out,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\" text-anchor=\"{anchor}\" xml:space=\"preserve\">{}</text>",
            escape(text)
        );
    }
}

fn body(overview: &Overview) -> (String, f64) {
    let mut canvas = Canvas {
        out: String::new(),
        y: 14.0,
    };
    let file = &overview.file;
    canvas.y += 4.0;
    let name = std::path::Path::new(&file.name)
        .file_name()
        .map_or_else(|| file.name.clone(), |name| name.to_string_lossy().into_owned());
    // The title's font is larger than the lines'.
    canvas.line("title", &shorten(&name, LINE_LIMIT * 3 / 4));
    canvas.line(
        "quiet",
        &format!(
            "IGVM format {}, {}, {}, {} headers; each block to scale within itself",
            file.format_version,
            file.architecture,
            size(file.bytes),
            file.headers
        ),
    );
    for view in &overview.platforms {
        platform(&mut canvas, view);
    }
    canvas.y += 14.0;
    (canvas.out, canvas.y)
}

fn platform(canvas: &mut Canvas, view: &PlatformView) {
    canvas.y += 12.0;
    let mut heading = format!("platform {}", view.platform);
    if view.highest_vtl > 0 {
        heading.push_str(&format!(", highest vtl {}", view.highest_vtl));
    }
    if let Some(policy) = &view.policy {
        heading.push_str(&format!(", policy {}", policy.value));
    }
    canvas.line("platform", &shorten(&heading, LINE_LIMIT * 3 / 4));
    if let Some(refused) = &view.refused {
        return canvas.line("entry", &format!("no plan: {refused}"));
    }
    let pages: Vec<String> = view
        .pages
        .iter()
        .map(|row| format!("{} {}", row.pages, row.kind))
        .collect();
    canvas.line("quiet", &view.payload);
    canvas.line("quiet", &format!("pages: {}", pages.join(", ")));
    for memory in view.required_memory.iter().take(3) {
        let end = memory.gpa.0.saturating_add(memory.bytes);
        canvas.line(
            "quiet",
            &format!("expects ram {}..{end:#x}, {}", memory.gpa, size(memory.bytes)),
        );
    }
    let layout = layout(view);
    legend(canvas, &layout.classes);
    canvas.y += 10.0;
    let top = canvas.y;
    for block in &layout.blocks {
        draw(canvas, block, top);
    }
    canvas.y = top + layout.height + 6.0;
    left_out(canvas, &layout);
    let drawn = |gpa: u64| {
        layout
            .blocks
            .iter()
            .any(|block| (block.start..block.end).contains(&gpa))
    };
    for vp in view.vps.iter().take(8) {
        if let Some(entry) = vp.entry.filter(|entry| !drawn(entry.0)) {
            canvas.line(
                "entry",
                &format!(
                    "vp {} starts at {entry}, outside of the imported memory: {}",
                    vp.vp, vp.mode
                ),
            );
        }
    }
}

fn left_out(canvas: &mut Canvas, layout: &Layout) {
    if layout.left_out > 0 {
        canvas.line(
            "quiet",
            &format!("and {} more, which inspect lists", layout.left_out),
        );
    }
}

fn legend(canvas: &mut Canvas, classes: &[Class]) {
    canvas.y += ROW + 4.0;
    let mut x = LEFT;
    for class in classes {
        let y = canvas.y - 15.0;
        let _ = write!(
            canvas.out,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"12\" height=\"12\" rx=\"2\" fill=\"{}\"/>",
            class.colour()
        );
        canvas.text(x + 17.0, canvas.y - 5.0, "", "start", class.name());
        x += 17.0 + CHARACTER * class.name().len() as f64 + 18.0;
    }
}

fn draw(canvas: &mut Canvas, block: &Block, top: f64) {
    let (y, height) = (top + block.y, block.height);
    if let Some(bytes) = block.fold {
        fold(canvas, y - FOLD, bytes);
    }
    let _ = write!(
        canvas.out,
        "<rect class=\"frame\" x=\"{BAR}\" y=\"{y:.1}\" width=\"{BAR_WIDTH}\" height=\"{height:.1}\"/>"
    );
    canvas.text(
        ADDRESSES,
        y + 10.0,
        "quiet",
        "end",
        &format!("{:#x}", block.start),
    );
    canvas.text(
        ADDRESSES,
        y + height,
        "quiet",
        "end",
        &format!("{:#x}", block.end),
    );
    for segment in &block.segments {
        let _ = write!(
            canvas.out,
            "<rect class=\"segment\" x=\"{BAR}\" y=\"{:.2}\" width=\"{BAR_WIDTH}\" height=\"{:.2}\" fill=\"{}\" \
             data-details=\"{details}\"><title>{details}</title></rect>",
            top + segment.y,
            segment.height,
            segment.class.colour(),
            details = escape(&segment.details)
        );
    }
    for strip in &block.strips {
        let _ = write!(
            canvas.out,
            "<rect class=\"strip\" x=\"{}\" y=\"{:.2}\" width=\"22\" height=\"{:.2}\"/>",
            BAR + BAR_WIDTH - 22.0,
            top + strip.0,
            strip.1
        );
    }
    for label in &block.labels {
        let (from, to) = (top + label.target, top + label.y);
        let class = match label.mark {
            Mark::Run => "",
            Mark::Region => "region",
            Mark::Parameter => "parameter",
            Mark::Entry => "entry",
        };
        let edge = BAR + BAR_WIDTH;
        let _ = write!(
            canvas.out,
            "<path class=\"lead {class}\" d=\"M{edge} {from:.1}h10L{:.1} {to:.1}h8\"/>",
            LABELS - 14.0
        );
        marker(canvas, label.mark, from);
        canvas.text(
            LABELS,
            to + 4.0,
            class,
            "start",
            &shorten(&label.text, LABEL_LIMIT),
        );
    }
}

/// A sign on the memory column itself: where a processor starts, where a host value goes.
fn marker(canvas: &mut Canvas, mark: Mark, y: f64) {
    let x = BAR;
    let _ = match mark {
        Mark::Entry => write!(
            canvas.out,
            "<path d=\"M{:.1} {:.1}l10 5l-10 5z\" fill=\"#b3261e\"/>",
            x - 12.0,
            y - 5.0
        ),
        Mark::Parameter => write!(
            canvas.out,
            "<path d=\"M{:.1} {y:.1}l5 -5l5 5l-5 5z\" fill=\"#2f7a26\" stroke=\"#fff\"/>",
            x + BAR_WIDTH - 5.0
        ),
        Mark::Run | Mark::Region => Ok(()),
    };
}

/// Two zigzags over the column and the length of what is not drawn.
fn fold(canvas: &mut Canvas, y: f64, bytes: u64) {
    for line in [y + FOLD / 2.0 - 4.0, y + FOLD / 2.0 + 2.0] {
        let _ = write!(canvas.out, "<path class=\"fold\" d=\"M{BAR} {line:.1}");
        for step in 0..13 {
            let up = if step % 2 == 0 { -4 } else { 4 };
            let _ = write!(canvas.out, "l10 {up}");
        }
        canvas.out.push_str("\"/>");
    }
    let text = format!("{} empty", size(bytes));
    canvas.text(LABELS, y + FOLD / 2.0 + 4.0, "quiet", "start", &text);
}
