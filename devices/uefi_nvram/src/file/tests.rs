// SPDX-License-Identifier: MIT
//! The file: what is written is read, and nothing else is.

use super::*;
use crate::key::name;
use crate::{attribute, vendor};

fn some() -> Variables {
    let mut variables = Variables::new();
    for (text, data) in [
        ("Boot0000", vec![1, 2, 3]),
        ("Timeout", vec![0, 0]),
        ("Empty", vec![]),
    ] {
        let mut variable = Variable::plain(attribute::USUAL, data);
        variable.time[0] = 7;
        variable.signer[31] = 9;
        variables.insert(name(vendor::GLOBAL, text), variable);
    }
    // Half of a surrogate pair is a name too.
    let odd = Key::new(vendor::IMAGE_SECURITY, &[0xD800, 0x41]).unwrap();
    variables.insert(odd, Variable::plain(attribute::USUAL, vec![0xFF; 100]));
    variables
}

#[test]
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nvram");
    let (mut file, none) = VariableFile::open(&path).unwrap();
    assert!(none.is_empty());
    file.write(&some()).unwrap();
    drop(file);
    assert_eq!(VariableFile::open(&path).unwrap().1, some());
    assert!(!path.with_extension("new").exists());
}

#[test]
fn a_file_in_use_is_refused_also_after_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nvram");
    let (mut file, _) = VariableFile::open(&path).unwrap();
    assert!(matches!(VariableFile::open(&path), Err(FileError::InUse)));
    file.write(&some()).unwrap();
    assert!(matches!(VariableFile::open(&path), Err(FileError::InUse)));
}

#[test]
fn a_link_stays_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("nvram"), folder.path().join("link"));
    fs::write(&path, []).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let (mut file, _) = VariableFile::open(&link).unwrap();
    file.write(&some()).unwrap();
    drop(file);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(VariableFile::open(&path).unwrap().1, some());
}

#[test]
fn every_cut_and_every_changed_byte_is_noticed() {
    let bytes = encode(&some());
    assert_eq!(parse(&bytes).unwrap(), some());
    for len in 0..bytes.len() {
        assert!(parse(&bytes[..len]).is_err(), "cut at {len}");
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        assert!(parse(&changed).is_err(), "changed at {at}");
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let mut bytes = encode(&some());
    bytes[14] = 2;
    assert_eq!(
        parse(&bytes).unwrap_err().to_string(),
        "the file has version 2, and this program knows 1; use a newer openvmm"
    );
    bytes[14] = 1;
    bytes[40] ^= 1;
    let text = parse(&bytes).unwrap_err().to_string();
    assert!(text.starts_with("the file is damaged at offset 0x"), "{text}");
    assert!(matches!(parse(b"something else"), Err(FileError::NotOurs)));
}

#[test]
fn lengths_that_lie_are_refused_under_a_right_checksum() {
    let good = encode(&some());
    // Count, units of the first name, bytes of the first data.
    for at in [16, HEADER + 20, HEADER + 22] {
        for value in [0xFF, 0x7F, 1] {
            let mut bytes = good.clone();
            bytes[at] = value;
            bytes.truncate(bytes.len() - 4);
            bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
            if bytes != good {
                assert!(parse(&bytes).is_err(), "{value:#x} at {at}");
            }
        }
    }
}

#[test]
fn a_failed_write_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nvram");
    let (mut file, _) = VariableFile::open(&path).unwrap();
    file.write(&some()).unwrap();
    // The new file cannot be made where a folder is.
    fs::create_dir(folder.path().join("nvram.new")).unwrap();
    file.write(&Variables::new()).unwrap_err();
    drop(file);
    assert_eq!(VariableFile::open(&path).unwrap().1, some());
}
