// SPDX-License-Identifier: MIT
//! The page around the picture: what the pointer is on, and tables with everything else.
//!
//! Always true: one file without scripts from elsewhere; without scripts at all it still shows
//! everything. Lists are bounded.

use super::{escape, shorten, svg};
use crate::inspect::size;
use crate::overview::schema::{Field, Overview, PlatformView};
use std::fmt::Write;

/// Rows of a table.
const MAX_ROWS: usize = 400;

const STYLE: &str = "\
body{font:14px/1.45 system-ui,'DejaVu Sans',sans-serif;color:#1f2933;background:#fff;margin:0 auto;max-width:1120px;padding:0 16px 48px}\
#details{position:sticky;top:0;background:#fffbe6;border:1px solid #e5d9a5;border-radius:4px;padding:6px 10px;min-height:1.5em;margin:10px 0;font:12px/1.5 'DejaVu Sans Mono',ui-monospace,monospace;z-index:1}\
details{margin:10px 0}summary{cursor:pointer;font-weight:600}\
table{border-collapse:collapse;font:12px/1.5 'DejaVu Sans Mono',ui-monospace,monospace;margin:6px 0}\
td,th{padding:1px 14px 1px 0;text-align:left;vertical-align:top;border-bottom:1px solid #eef1f4}\
th{color:#5b6672;font-weight:600}\
svg{max-width:100%;height:auto}";

const SCRIPT: &str = "\
const box=document.getElementById('details');const rest=box.textContent;\
for(const s of document.querySelectorAll('.segment')){\
s.addEventListener('pointerenter',()=>{box.textContent=s.dataset.details});\
s.addEventListener('pointerleave',()=>{box.textContent=rest})}";

/// A whole page.
pub(super) fn page(overview: &Overview) -> String {
    let title = escape(&overview.file.name);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <style>{STYLE}{}</style></head><body>\
         <p id=\"details\">point at a block of memory for details</p>",
        svg::STYLE
    );
    out.push_str(&svg::element(overview));
    for view in &overview.platforms {
        tables(&mut out, view);
    }
    // Writing to a string cannot fail.
    let _ = writeln!(out, "<script>{SCRIPT}</script></body></html>");
    out
}

/// A foldable table; nothing when it has no rows.
fn table(out: &mut String, caption: &str, open: bool, head: &[&str], rows: &[Vec<String>]) {
    if rows.is_empty() {
        return;
    }
    let open = if open { " open" } else { "" };
    let _ = write!(
        out,
        "<details{open}><summary>{}</summary><table><tr>",
        escape(caption)
    );
    for cell in head {
        let _ = write!(out, "<th>{}</th>", escape(cell));
    }
    out.push_str("</tr>");
    for row in rows.iter().take(MAX_ROWS) {
        out.push_str("<tr>");
        for cell in row {
            let _ = write!(out, "<td>{}</td>", escape(&shorten(cell, 200)));
        }
        out.push_str("</tr>");
    }
    if rows.len() > MAX_ROWS {
        let _ = write!(out, "<tr><td>and {} more</td></tr>", rows.len() - MAX_ROWS);
    }
    out.push_str("</table></details>");
}

fn pairs(fields: &[Field]) -> Vec<Vec<String>> {
    fields
        .iter()
        .map(|field| vec![field.name.clone(), field.value.clone()])
        .collect()
}

fn tables(out: &mut String, view: &PlatformView) {
    let _ = write!(out, "<h2>platform {}</h2>", escape(view.platform));
    for policy in [&view.policy, &view.realm_policy].into_iter().flatten() {
        table(
            out,
            &format!("policy {}", policy.value),
            false,
            &["field", "value"],
            &pairs(&policy.fields),
        );
    }
    if let Some(block) = &view.id_block {
        let mut rows = vec![vec!["launch digest".to_owned(), block.launch_digest.clone()]];
        rows.extend(pairs(&block.fields));
        table(out, "id block", false, &["field", "value"], &rows);
    }
    table(
        out,
        "vbs measurement",
        false,
        &["field", "value"],
        &pairs(&view.vbs_measurement),
    );
    table(out, "corim", false, &["field", "value"], &pairs(&view.corim));
    let runs: Vec<Vec<String>> = view
        .runs
        .iter()
        .take(MAX_ROWS + 1)
        .map(|run| {
            vec![
                run.gpa.to_string(),
                size(run.bytes),
                run.kind.unwrap_or(run.step).to_owned(),
                run.contents.unwrap_or("").to_owned(),
                run.name.clone().unwrap_or_default(),
                format!("{}-{}", run.first_header, run.last_header),
            ]
        })
        .collect();
    table(
        out,
        "launch order",
        true,
        &["gpa", "size", "kind", "contents", "name", "headers"],
        &runs,
    );
    let parameters: Vec<Vec<String>> = view
        .parameters
        .iter()
        .map(|p| {
            vec![
                p.name.to_owned(),
                p.gpa.to_string(),
                format!("{} + {:#x}", p.area, p.byte_offset),
                size(p.room),
            ]
        })
        .collect();
    table(
        out,
        "parameters",
        true,
        &["value", "gpa", "area", "room"],
        &parameters,
    );
    for vp in view.vps.iter().take(64) {
        let caption = format!("vp {}: {}", vp.vp, vp.mode);
        table(
            out,
            &caption,
            false,
            &["register", "value"],
            &pairs(&vp.registers),
        );
    }
}
