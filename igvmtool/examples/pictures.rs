// SPDX-License-Identifier: MIT
//! Soak: damaged files through inspect's overview, JSON, SVG and HTML.
//!
//! `cargo run --release -p igvmtool --example pictures -- --count N [--seed S] [--first N]`

#[path = "shared/soak.rs"]
mod soak;

use igvmtool::overview::schema::Overview;
use igvmtool::picture;
use std::process::ExitCode;
use vm_loaders::igvm::File;

fn case(bytes: &[u8], _original: &[u8]) {
    let Ok(file) = File::read(bytes) else { return };
    let overview = Overview::of("damaged", &file, None);
    let (svg, html) = (picture::svg(&overview), picture::html(&overview));
    assert!(svg.ends_with("</svg>\n") && html.ends_with("</html>\n"));
    assert!(serde_json::to_vec(&overview).is_ok_and(|json| !json.is_empty()));
}

fn main() -> ExitCode {
    soak::run(case)
}
