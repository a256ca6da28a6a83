// SPDX-License-Identifier: MIT
//! The commands over a corpus of files: written by our encoder, by the `igvm` crate and by igvm-wrap.

#[path = "files/build.rs"]
mod build;
#[path = "files/check.rs"]
mod check;
#[path = "files/corpus.rs"]
mod corpus;
#[path = "files/diff.rs"]
mod diff;
#[path = "files/edit.rs"]
mod edit;
#[path = "files/everything.rs"]
mod everything;
#[path = "files/exit_codes.rs"]
mod exit_codes;
#[path = "files/foreign.rs"]
mod foreign;
#[path = "files/guide.rs"]
mod guide;
#[path = "files/json.rs"]
mod json;
#[path = "files/largest.rs"]
mod largest;
#[path = "files/picture.rs"]
mod picture;
#[path = "files/program.rs"]
mod program;
#[path = "files/terminal.rs"]
mod terminal;
#[path = "files/update.rs"]
mod update;
