// SPDX-License-Identifier: MIT
//! Files that change, shrink or vanish while mapped.

use super::*;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

fn file_of(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

#[test]
fn a_truncated_file_reads_as_zeros_and_is_named() {
    let file = file_of(&[7; 0x3000]);
    let mapped = MappedFile::open(file.path()).unwrap();
    assert_eq!(mapped.bytes()[0x2FFF], 7);
    mapped.verify_unchanged().unwrap();
    file.as_file().set_len(0x1000).unwrap();
    assert_eq!(mapped.bytes()[0x800], 7);
    assert_eq!(mapped.bytes()[0x2800], 0);
    let error = mapped.verify_unchanged().unwrap_err().to_string();
    assert!(error.contains(&file.path().display().to_string()), "{error}");
    assert!(
        error.contains("was truncated while in use: it had 0x3000 bytes and has 0x1000"),
        "{error}"
    );
}

#[test]
fn a_page_that_was_lost_and_came_back_is_still_reported() {
    let file = file_of(&[7; 0x3000]);
    let modified = file.as_file().metadata().unwrap().modified().unwrap();
    let mapped = MappedFile::open(file.path()).unwrap();
    file.as_file().set_len(0).unwrap();
    assert_eq!(mapped.bytes()[0x1000], 0);
    file.as_file().set_len(0x3000).unwrap();
    file.as_file().set_modified(modified).unwrap();
    assert!(matches!(mapped.verify_unchanged(), Err(MapError::Lost { .. })));
}

#[test]
fn a_changed_or_grown_file_is_named() {
    let file = file_of(&[7; 0x1000]);
    let mapped = MappedFile::open(file.path()).unwrap();
    file.as_file().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert!(matches!(mapped.verify_unchanged(), Err(MapError::Changed { .. })));
    let mapped = MappedFile::open(file.path()).unwrap();
    file.as_file().set_len(0x2000).unwrap();
    let error = mapped.verify_unchanged().unwrap_err().to_string();
    assert!(
        error.ends_with("was changed while in use; start again with a file that stays"),
        "{error}"
    );
}

#[test]
fn a_file_replaced_by_rename_stays_what_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.igvm");
    std::fs::write(&path, [7; 0x1000]).unwrap();
    let mapped = MappedFile::open(&path).unwrap();
    let other = dir.path().join("b.igvm");
    std::fs::write(&other, [9; 0x10]).unwrap();
    std::fs::rename(&other, &path).unwrap();
    assert_eq!(mapped.bytes()[0xFFF], 7);
    mapped.verify_unchanged().unwrap();
}

#[test]
fn what_cannot_be_mapped_is_named() {
    assert!(matches!(
        MappedFile::open("/nonexistent/x.igvm".as_ref()),
        Err(MapError::Open { .. })
    ));
    assert!(matches!(
        MappedFile::open("/".as_ref()),
        Err(MapError::NotAFile { .. })
    ));
    assert!(matches!(
        MappedFile::open("/dev/zero".as_ref()),
        Err(MapError::NotAFile { .. })
    ));
    assert_eq!(MappedFile::open(file_of(&[]).path()).unwrap().bytes(), []);
}

/// Runs only as the child of the next test: a SIGBUS that is not ours.
#[test]
fn foreign_sigbus_child() {
    if std::env::var_os("FOREIGN_SIGBUS").is_none() {
        return;
    }
    let ours = file_of(&[1; 0x1000]);
    let _watched = MappedFile::open(ours.path()).unwrap();
    let file = file_of(&[7; 0x1000]);
    // SAFETY: nothing else uses the file; the read below is meant to fault.
    let map = unsafe { Mmap::map(file.as_file()) }.unwrap();
    file.as_file().set_len(0).unwrap();
    std::process::exit(i32::from(map[0]));
}

#[test]
fn a_sigbus_of_someone_else_still_ends_the_process() {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "igvm::mapped::tests::foreign_sigbus_child"])
        .env("FOREIGN_SIGBUS", "1")
        .output()
        .unwrap()
        .status;
    assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
}
