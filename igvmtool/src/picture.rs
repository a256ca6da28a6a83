// SPDX-License-Identifier: MIT
//! Guest memory as a picture: SVG, and HTML around it.
//!
//! Always true: a picture shows an [`Overview`] and nothing else, needs no network, and its size is
//! bounded whatever the file; each block of memory is to scale within itself, empty ranges are folded, and
//! texts never overlap (a test measures them in a browser). Not here: what runs are called (`overview`).

mod html;
mod layout;
mod svg;

use crate::overview::schema::Overview;

/// The overview as a self-contained SVG file.
pub fn svg(overview: &Overview) -> String {
    svg::document(overview)
}

/// The overview as a self-contained HTML page: the picture, details on hover, and tables.
pub fn html(overview: &Overview) -> String {
    html::page(overview)
}

/// Text that is safe in XML and HTML, in content and in quoted attributes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // XML 1.0 has no control characters but these.
            '\t' | '\n' => out.push(' '),
            control if control.is_control() => out.push('\u{FFFD}'),
            '\u{FFFE}' | '\u{FFFF}' => out.push('\u{FFFD}'),
            other => out.push(other),
        }
    }
    out
}

/// At most `limit` characters, the last one an ellipsis when something was cut.
fn shorten(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(limit.saturating_sub(1)).collect();
    short.push('\u{2026}');
    short
}
