// SPDX-License-Identifier: MIT
//! An overview as text.
//!
//! Always true: the text depends on the overview only, so it can be a golden file; lists that could be
//! long say how much they leave out. Not here: what is said.

use crate::overview::schema::*;
use launch_plan::{PageContents, size_text};
use std::io::{Result, Write};
use vm_loaders::igvm::File;

/// Lines of a list before the rest is only counted.
const MAX_LINES: usize = 24;

/// Writes everything.
pub(super) fn write(out: &mut impl Write, overview: &Overview, registers: bool) -> Result<()> {
    let file = &overview.file;
    writeln!(
        out,
        "{}: IGVM format {}, {}, {} headers",
        file.name,
        file.format_version,
        size(file.bytes),
        file.headers
    )?;
    if let Some(text) = &file.version_string {
        writeln!(out, "version string  {text:?}")?;
    }
    let counts: Vec<_> = file
        .header_types
        .iter()
        .map(|row| format!("{} {}", row.count, row.name))
        .collect();
    writeln!(out, "headers         {}", counts.join(", "))?;
    writeln!(
        out,
        "layout          headers at {:#x}, data at {:#x}",
        file.headers_at, file.data_at
    )?;
    list(out, "unused data    ", &file.unused, |piece| {
        format!("{} at file offset {:#x}", size(piece.bytes), piece.at)
    })?;
    overview
        .platforms
        .iter()
        .try_for_each(|view| platform(out, view, registers))
}

/// A size for people: exact as long as that is short, else in the largest unit with one digit.
pub(crate) fn size(bytes: u64) -> String {
    let text = size_text(bytes);
    let number: u64 = text
        .split(' ')
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0);
    if number < 10_000 {
        return text;
    }
    let (shift, unit) = match bytes {
        0..=0xF_FFFF => (10, "KiB"),
        0x10_0000..=0x3FFF_FFFF => (20, "MiB"),
        0x4000_0000..=0xFF_FFFF_FFFF => (30, "GiB"),
        _ => (40, "TiB"),
    };
    // Shown with one digit, so what a float loses does not show.
    format!("{:.1} {unit}", bytes as f64 / (1_u64 << shift) as f64)
}

/// Writes a list, one item per line behind the label; nothing for an empty one.
fn list<T>(out: &mut impl Write, label: &str, items: &[T], text: impl Fn(&T) -> String) -> Result<()> {
    for (index, item) in items.iter().take(MAX_LINES).enumerate() {
        let lead = if index == 0 { label } else { "" };
        writeln!(out, "{lead:<width$} {}", text(item), width = label.len())?;
    }
    if items.len() > MAX_LINES {
        let more = items.len() - MAX_LINES;
        writeln!(out, "{:width$} and {more} more", "", width = label.len())?;
    }
    Ok(())
}

fn platform(out: &mut impl Write, view: &PlatformView, registers: bool) -> Result<()> {
    write!(
        out,
        "\nplatform {}, {}, highest vtl {}, mask {}",
        view.platform, view.architecture, view.highest_vtl, view.mask
    )?;
    if view.shared_gpa_boundary.0 != 0 {
        write!(out, ", shared gpa boundary {}", view.shared_gpa_boundary)?;
    }
    writeln!(out, "  [header {}]", view.header)?;
    if let Some(refused) = &view.refused {
        return writeln!(out, "  no plan: {refused}");
    }
    writeln!(out, "  payload       {}", view.payload)?;
    endorsements(out, view)?;
    for vp in &view.vps {
        vp_line(out, vp, registers)?;
    }
    movable(out, view)?;
    list(out, "  pages        ", &view.pages, |row| {
        format!("{} {} ({})", row.pages, row.kind, size(row.bytes))
    })?;
    writeln!(out, "  launch order")?;
    view.runs.iter().try_for_each(|line| run(out, line))?;
    list(out, "  parameters   ", &view.parameters, |row| {
        format!(
            "{:<16} gpa {}, area {} + {:#x}, room for {}  [header {}]",
            row.name,
            row.gpa,
            row.area,
            row.byte_offset,
            size(row.room),
            row.header
        )
    })?;
    list(out, "  required ram ", &view.required_memory, range)?;
    list(out, "  holes        ", &view.holes, range)
}

fn endorsements(out: &mut impl Write, view: &PlatformView) -> Result<()> {
    for (label, policy) in [
        ("  policy       ", &view.policy),
        ("  realm policy ", &view.realm_policy),
    ] {
        if let Some(policy) = policy {
            writeln!(out, "{label} {}", policy.value)?;
            fields(out, &policy.fields)?;
        }
    }
    if let Some(block) = &view.id_block {
        writeln!(out, "  id block      expects {}", block.launch_digest)?;
        fields(out, &block.fields)?;
    }
    for (label, rows) in [("vbs measurement", &view.vbs_measurement), ("corim", &view.corim)] {
        if !rows.is_empty() {
            writeln!(out, "  {label}")?;
            fields(out, rows)?;
        }
    }
    Ok(())
}

fn fields(out: &mut impl Write, fields: &[Field]) -> Result<()> {
    fields
        .iter()
        .try_for_each(|field| writeln!(out, "    {:<36} {}", field.name, field.value))
}

fn vp_line(out: &mut impl Write, vp: &VpView, registers: bool) -> Result<()> {
    write!(out, "  vp {:<10} {}", vp.vp, vp.mode)?;
    if let Some(entry) = vp.entry {
        write!(out, ", first instruction at {entry}")?;
    }
    match vp.header {
        Some(header) if vp.gpa.0 != 0 => {
            writeln!(out, ", {} at gpa {}  [header {header}]", vp.form, vp.gpa)?;
        }
        Some(header) => writeln!(out, ", {} context  [header {header}]", vp.form)?,
        None => writeln!(out, ", reset state (the file has no context)")?,
    }
    if registers {
        fields(out, &vp.registers)?;
    }
    Ok(())
}

fn movable(out: &mut impl Write, view: &PlatformView) -> Result<()> {
    for region in &view.relocatable {
        writeln!(
            out,
            "  relocatable   {} of {}, to {}..{} at multiples of {}; moves {}",
            region.gpa,
            size(region.bytes),
            region.minimum,
            region.maximum,
            region.alignment,
            region.moves
        )?;
    }
    if let Some(tables) = &view.page_tables {
        writeln!(
            out,
            "  page tables   {} of {}, {} used",
            tables.gpa,
            size(tables.bytes),
            size(tables.used)
        )?;
    }
    Ok(())
}

fn span(gpa: Hex, bytes: u64) -> String {
    format!(
        "{:#018x}..{:#018x} {:<9}",
        gpa.0,
        gpa.0.wrapping_add(bytes),
        size(bytes)
    )
}

fn range(range: &Range) -> String {
    let note = range.note.map_or_else(String::new, |note| format!(" {note}"));
    format!("{}{note}", span(range.gpa, range.bytes))
        .trim_end()
        .to_owned()
}

fn run(out: &mut impl Write, run: &Run) -> Result<()> {
    let what = match (run.kind, run.contents) {
        (Some(kind), Some(contents)) => format!("{kind:<10} {contents}"),
        _ => run.step.to_owned(),
    };
    let large = if run.page_bytes == Some(2 << 20) {
        ", 2 MiB pages"
    } else {
        ""
    };
    let place = if run.bytes == 0 {
        format!("{:49}", "")
    } else {
        span(run.gpa, run.bytes)
    };
    let name = run
        .name
        .as_ref()
        .map_or_else(String::new, |name| format!("  {name}"));
    let headers = if run.first_header == run.last_header {
        format!("[header {}]", run.first_header)
    } else {
        format!("[headers {}-{}]", run.first_header, run.last_header)
    };
    writeln!(out, "    {place} {what}{large}{name}  {headers}")?;
    list(out, "     ", &run.regions, |region| {
        format!("{} {}", span(region.gpa, region.bytes), region.name)
    })
}

/// Every page of a platform on a line of its own.
pub(super) fn pages(out: &mut impl Write, file: &File<'_>, view: &PlatformView) -> Result<()> {
    let platform = file.platforms().into_iter().find(|p| p.header == view.header);
    let Some(Ok(plan)) = platform.map(|platform| file.plan(platform.isolation)) else {
        return Ok(());
    };
    for (page, origin) in plan.pages() {
        let contents = match page.contents {
            PageContents::Zero => "zero".to_owned(),
            PageContents::Bytes(bytes) => format!("{} of data", size(bytes.len() as u64)),
            PageContents::Parameters(area, index) => format!("page {index} of parameter area {}", area.index),
        };
        let large = if page.size == 4096 { "" } else { " 2 MiB" };
        writeln!(
            out,
            "  {:#018x} {:<10}{large} {contents}  [{origin}]",
            page.gpa, page.kind
        )?;
    }
    Ok(())
}
