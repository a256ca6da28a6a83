// SPDX-License-Identifier: MIT
//! Work of more than a second shows itself on a terminal, and nowhere else.

use crate::largest::largest_file;
use crate::program::{Folder, text};
use std::path::Path;
use std::process::Command;

#[test]
fn long_work_shows_itself_on_a_terminal_alone() {
    let test = "long_work_shows_itself_on_a_terminal_alone";
    let script = Path::new("/usr/bin/script");
    if !script.exists() {
        println!("skipped: {test}: util-linux's script, which makes a terminal, is not installed");
        return;
    }
    let folder = Folder::new();
    let path = folder.path("large.igvm");
    largest_file(&path).unwrap();
    // Hashing 3.9 GiB takes longer than this on any machine; what is shown is what is done then.
    let command = format!(
        "timeout 3 {} measure {}",
        env!("CARGO_BIN_EXE_igvmtool"),
        text(&path)
    );
    let on_terminal = Command::new(script)
        .args(["-qec", &command, "/dev/null"])
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&on_terminal.stdout);
    assert!(shown.contains("ing (1s)"), "{shown}");
    let piped = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert!(piped.stdout.is_empty() && piped.stderr.is_empty(), "{piped:?}");
}
