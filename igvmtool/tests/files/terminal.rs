// SPDX-License-Identifier: MIT
//! Standard streams: work of more than a second shows itself on a terminal and nowhere else; a reader of
//! the output may go away.

use crate::build::*;
use crate::largest::largest_file;
use crate::program::{Folder, text};
use launch_plan::Isolation;
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

#[test]
fn a_reader_that_goes_away_ends_no_command_with_a_panic() {
    let folder = Folder::new();
    let path = folder.write("guest.igvm", v1(builder(Shape::of(Isolation::Snp))));
    let commands = [
        "inspect --pages --registers",
        "inspect --json",
        "diff --json FILE",
        "check --json --for spec",
        "check --explain checksum",
        "measure --trace",
        "measure --json",
        "verify --against FILE",
        "extract -o parts",
        "update -o out --policy 0xb0000 --platform snp",
    ];
    for line in commands {
        let (mut command, (reader, writer)) = (
            Command::new(env!("CARGO_BIN_EXE_igvmtool")),
            std::io::pipe().unwrap(),
        );
        drop(reader);
        let words = line
            .split_whitespace()
            .map(|word| if word == "FILE" { path.as_str() } else { word });
        command.args(words).current_dir(folder.path("."));
        if !line.contains("--explain") {
            command.arg(&path);
        }
        let output = command.stdout(writer).output().unwrap();
        let shown = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && shown.is_empty(), "{line}: {shown}");
    }
}
