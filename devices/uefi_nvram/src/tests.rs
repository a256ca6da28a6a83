// SPDX-License-Identifier: MIT
//! The services of UEFI 8.2, rule by rule.

mod signed;

use crate::attribute::{
    APPEND, AUTHENTICATED, BOOT_SERVICE, ENHANCED, HARDWARE_ERROR, NON_VOLATILE, RUNTIME, USUAL,
};
use crate::{Key, MAX_DATA, MAX_NAME, MAX_STORAGE, Nvram, Status, Variable, name, vendor};

fn key(text: &str) -> Key {
    name(vendor::GLOBAL, text)
}

fn names(nvram: &Nvram) -> Vec<String> {
    let mut all = Vec::new();
    let mut last = None;
    while let Ok(next) = nvram.next(last) {
        all.push(String::from_utf16_lossy(next.name()));
        last = Some(next);
    }
    all
}

#[test]
fn a_variable_is_written_read_changed_and_deleted() {
    let mut nvram = Nvram::new();
    assert_eq!(nvram.get(&key("Timeout")), Err(Status::NotFound));
    nvram.set(&key("Timeout"), USUAL, &[1, 0]).unwrap();
    assert_eq!(nvram.get(&key("Timeout")), Ok(&Variable::plain(USUAL, [1, 0])));
    nvram.set(&key("Timeout"), USUAL, &[5]).unwrap();
    assert_eq!(nvram.get(&key("Timeout")).unwrap().data, [5]);
    assert_eq!(
        nvram.get(&name(vendor::IMAGE_SECURITY, "Timeout")),
        Err(Status::NotFound)
    );
    nvram.set(&key("Timeout"), USUAL, &[]).unwrap();
    assert_eq!(nvram.get(&key("Timeout")), Err(Status::NotFound));
    assert_eq!(nvram.set(&key("Timeout"), USUAL, &[]), Err(Status::NotFound));
    nvram.set(&key("Timeout"), USUAL, &[1]).unwrap();
    // No access attribute deletes too, whatever the data is.
    nvram.set(&key("Timeout"), NON_VOLATILE, &[7]).unwrap();
    assert_eq!(nvram.get(&key("Timeout")), Err(Status::NotFound));
}

#[test]
fn data_is_appended() {
    let mut nvram = Nvram::new();
    nvram.set(&key("A"), USUAL | APPEND, &[]).unwrap();
    assert_eq!(nvram.get(&key("A")), Err(Status::NotFound));
    nvram.set(&key("A"), USUAL | APPEND, &[1]).unwrap();
    nvram.set(&key("A"), USUAL | APPEND, &[2, 3]).unwrap();
    nvram.set(&key("A"), USUAL | APPEND, &[]).unwrap();
    assert_eq!(nvram.get(&key("A")), Ok(&Variable::plain(USUAL, [1, 2, 3])));
}

#[test]
fn attributes_that_make_no_variable_are_refused() {
    let mut nvram = Nvram::new();
    let refused = [
        (RUNTIME | NON_VOLATILE, Status::InvalidParameter),
        (USUAL | 0x100, Status::InvalidParameter),
        (USUAL | 0x8000_0000, Status::InvalidParameter),
        (USUAL | AUTHENTICATED, Status::Unsupported),
        (USUAL | ENHANCED, Status::Unsupported),
        (USUAL | HARDWARE_ERROR, Status::InvalidParameter),
        // The firmware keeps these.
        (BOOT_SERVICE, Status::InvalidParameter),
        (BOOT_SERVICE | RUNTIME, Status::InvalidParameter),
    ];
    for (attributes, status) in refused {
        assert_eq!(
            nvram.set(&key("A"), attributes, &[1]),
            Err(status),
            "{attributes:#x}"
        );
        assert_eq!(nvram.get(&key("A")), Err(Status::NotFound));
    }
    assert_eq!(nvram.set(&key(""), USUAL, &[1]), Err(Status::InvalidParameter));
}

#[test]
fn other_attributes_do_not_rewrite_a_variable() {
    let mut nvram = Nvram::new();
    nvram.set(&key("A"), USUAL, &[1]).unwrap();
    let other = NON_VOLATILE | BOOT_SERVICE;
    assert_eq!(nvram.set(&key("A"), other, &[2]), Err(Status::InvalidParameter));
    assert_eq!(
        nvram.set(&key("A"), other | APPEND, &[2]),
        Err(Status::InvalidParameter)
    );
    assert_eq!(nvram.get(&key("A")), Ok(&Variable::plain(USUAL, [1])));
}

#[test]
fn error_records_have_their_own_names() {
    let mut nvram = Nvram::new();
    let attributes = USUAL | HARDWARE_ERROR;
    nvram
        .set(&name(vendor::HARDWARE_ERROR, "HwErrRec00AF"), attributes, &[1])
        .unwrap();
    for bad in [
        name(vendor::HARDWARE_ERROR, "HwErrRec00A"),
        name(vendor::HARDWARE_ERROR, "HwErrRec00AX"),
        name(vendor::HARDWARE_ERROR, "hwerrrec0000"),
        key("HwErrRec0000"),
    ] {
        assert_eq!(
            nvram.set(&bad, attributes, &[1]),
            Err(Status::InvalidParameter),
            "{bad}"
        );
    }
}

#[test]
fn enumeration_ends_whatever_is_deleted_meanwhile() {
    let mut nvram = Nvram::new();
    for text in ["C", "A", "B"] {
        nvram.set(&key(text), USUAL, &[1]).unwrap();
    }
    assert_eq!(names(&nvram), ["A", "B", "C", "SecureBoot", "SetupMode"]);
    // The name that the guest holds goes away: enumeration goes on behind it.
    nvram.set(&key("B"), USUAL, &[]).unwrap();
    assert_eq!(nvram.next(Some(&key("B"))), Ok(&key("C")));
    // Any name has a next one or none.
    assert_eq!(nvram.next(Some(&key("Bogus"))), Ok(&key("C")));
    assert_eq!(nvram.next(Some(&key("zzz"))), Err(Status::NotFound));
}

#[test]
fn run_time_hides_and_protects_what_is_not_its_own() {
    let mut nvram = Nvram::new();
    let boot = NON_VOLATILE | BOOT_SERVICE;
    nvram.set(&key("Boot"), boot, &[1]).unwrap();
    nvram.set(&key("Always"), USUAL, &[2]).unwrap();
    nvram.enter_runtime();
    assert_eq!(nvram.get(&key("Boot")), Err(Status::NotFound));
    assert_eq!(names(&nvram), ["Always", "SecureBoot", "SetupMode"]);
    for data in [&[3][..], &[]] {
        assert_eq!(nvram.set(&key("Boot"), boot, data), Err(Status::InvalidParameter));
    }
    assert_eq!(nvram.set(&key("New"), boot, &[1]), Err(Status::InvalidParameter));
    nvram.set(&key("New"), USUAL, &[1]).unwrap();
    nvram.set(&key("Always"), USUAL, &[4]).unwrap();
    assert_eq!(nvram.query(boot), Err(Status::InvalidParameter));
    nvram.reset();
    assert_eq!(nvram.get(&key("Boot")).unwrap().data, [1]);
}

#[test]
fn what_the_platform_says_of_itself_is_read_only() {
    let mut nvram = Nvram::new();
    assert_eq!(nvram.get(&key("SecureBoot")).unwrap().data, [0]);
    assert_eq!(nvram.get(&key("SetupMode")).unwrap().data, [1]);
    for text in ["SecureBoot", "SetupMode", "SignatureSupport", "dbDefault"] {
        assert_eq!(
            nvram.set(&key(text), BOOT_SERVICE | RUNTIME, &[1]),
            Err(Status::WriteProtected)
        );
        assert_eq!(nvram.set(&key(text), 0, &[]), Err(Status::WriteProtected));
    }
}

#[test]
fn sizes_are_limited() {
    let mut nvram = Nvram::new();
    let most = vec![0; MAX_DATA];
    assert_eq!(
        nvram.set(&key("A"), USUAL, &vec![0; MAX_DATA + 1]),
        Err(Status::InvalidParameter)
    );
    nvram.set(&key("A"), USUAL, &most).unwrap();
    assert_eq!(
        nvram.set(&key("A"), USUAL | APPEND, &[1]),
        Err(Status::OutOfResources)
    );
    let long = vec![0x41; MAX_NAME / 2];
    assert!(Key::new(vendor::GLOBAL, &long).is_err());
    assert!(Key::new(vendor::GLOBAL, &long[1..]).is_ok());
    assert!(Key::new(vendor::GLOBAL, &[0x41, 0]).is_err());
}

#[test]
fn the_quota_holds_and_query_tells_it() {
    let mut nvram = Nvram::new();
    let empty = nvram.query(USUAL).unwrap();
    assert_eq!(
        (empty.maximum, empty.remaining),
        (MAX_STORAGE as u64, MAX_STORAGE as u64)
    );
    assert_eq!(empty.maximum_variable, (MAX_NAME + MAX_DATA) as u64);
    let mut count = 0;
    while nvram
        .set(&key(&format!("V{count}")), USUAL, &vec![0; MAX_DATA])
        .is_ok()
    {
        count += 1;
    }
    assert_eq!(count, 7);
    let full = nvram.query(USUAL).unwrap();
    assert!(full.remaining < MAX_DATA as u64);
    // What is told to fit, fits: name of one unit with its NUL, and data.
    let fits = full.maximum_variable as usize - 4;
    nvram.set(&key("W"), USUAL, &vec![0; fits]).unwrap();
    assert_eq!(nvram.set(&key("X"), USUAL, &[1]), Err(Status::OutOfResources));
    // Shorter is always possible.
    nvram.set(&key("W"), USUAL, &[1]).unwrap();
    nvram.set(&key("X"), USUAL, &[1]).unwrap();
    assert_eq!(nvram.query(BOOT_SERVICE), Err(Status::Unsupported));
    assert_eq!(nvram.query(NON_VOLATILE), Err(Status::InvalidParameter));
}

#[test]
fn the_file_has_what_was_reported_written_and_nothing_computed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nvram");
    let mut nvram = Nvram::open(&path).unwrap();
    nvram.set(&key("A"), USUAL, &[1, 2]).unwrap();
    nvram.set(&key("B"), USUAL, &[3]).unwrap();
    nvram.set(&key("B"), USUAL, &[]).unwrap();
    drop(nvram);
    let mut nvram = Nvram::open(&path).unwrap();
    assert_eq!(names(&nvram), ["A", "SecureBoot", "SetupMode"]);
    assert_eq!(nvram.get(&key("A")).unwrap().data, [1, 2]);
    // A write that fails is an error, and changes nothing.
    std::fs::create_dir(folder.path().join("nvram.new")).unwrap();
    let before = nvram.query(USUAL);
    assert_eq!(nvram.set(&key("A"), USUAL, &[9]), Err(Status::DeviceError));
    assert_eq!(nvram.set(&key("C"), USUAL, &[9]), Err(Status::DeviceError));
    assert_eq!(nvram.set(&key("A"), USUAL, &[]), Err(Status::DeviceError));
    assert_eq!(names(&nvram), ["A", "SecureBoot", "SetupMode"]);
    assert_eq!(nvram.get(&key("A")).unwrap().data, [1, 2]);
    assert_eq!(nvram.query(USUAL), before);
}

#[test]
fn presets_do_not_overwrite() {
    let mut nvram = Nvram::new();
    nvram.set(&key("ConOut"), USUAL, &[1]).unwrap();
    nvram.preset(&key("ConOut"), Variable::plain(USUAL, [2])).unwrap();
    nvram.preset(&key("ConIn"), Variable::plain(USUAL, [3])).unwrap();
    assert_eq!(nvram.get(&key("ConOut")).unwrap().data, [1]);
    assert_eq!(nvram.get(&key("ConIn")).unwrap().data, [3]);
}
