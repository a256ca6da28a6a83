// SPDX-License-Identifier: MIT
//! Stores as EDK2 writes them, Debian's among them where it is installed.

use super::*;
use crate::Nvram;

/// A list of one SHA-256 hash.
fn hashes(first: u8) -> Vec<u8> {
    let mut list = uuid!("c1c41626-504c-4092-aca9-41f936934328")
        .to_bytes_le()
        .to_vec();
    for number in [28 + 48_u32, 0, 48] {
        list.extend(number.to_le_bytes());
    }
    list.resize(list.len() + 16, 7);
    list.resize(list.len() + 32, first);
    list
}

fn entry(state: u8, vendor: Uuid, text: &str, data: &[u8]) -> Vec<u8> {
    let name: Vec<u8> = text
        .encode_utf16()
        .chain([0])
        .flat_map(u16::to_le_bytes)
        .collect();
    let mut entry = vec![0xAA, 0x55, state, 0];
    entry.extend(0x27_u32.to_le_bytes());
    entry.extend([0; 8]);
    let mut time = [0; 16];
    time[0] = 0xEA;
    entry.extend(time);
    entry.extend([0; 4]);
    entry.extend((name.len() as u32).to_le_bytes());
    entry.extend((data.len() as u32).to_le_bytes());
    entry.extend(vendor.to_bytes_le());
    entry.extend(name);
    entry.extend(data);
    entry.resize(entry.len().next_multiple_of(4), 0xFF);
    entry
}

fn file(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut file = vec![0; 0x48];
    file[40..44].copy_from_slice(b"_FVH");
    file[48] = 0x48;
    let mut store = STORE.to_bytes_le().to_vec();
    store.extend(0x1000_u32.to_le_bytes());
    store.extend([0x5A, 0xFE, 0, 0, 0, 0, 0, 0]);
    store.extend(entries.concat());
    store.resize(0x1000, 0xFF);
    file.extend(store);
    file
}

fn pk() -> Vec<u8> {
    entry(ADDED, vendor::GLOBAL, "PK", &hashes(1))
}

#[test]
fn keys_are_taken_and_nothing_else() {
    let file = file(&[
        pk(),
        entry(ADDED, vendor::GLOBAL, "Boot0000", b"no list"),
        entry(BEING_REPLACED, vendor::IMAGE_SECURITY, "db", &hashes(2)),
        entry(ADDED, vendor::IMAGE_SECURITY, "db", &hashes(3)),
        entry(BEING_REPLACED, vendor::IMAGE_SECURITY, "dbx", &hashes(4)),
        entry(0x3C, vendor::GLOBAL, "KEK", &hashes(5)),
        entry(ADDED, vendor::GLOBAL, "db", &hashes(6)),
    ]);
    let found = read(&file).unwrap();
    let names: Vec<_> = found
        .iter()
        .map(|(key, v)| (String::from_utf16_lossy(key.name()), v.data.clone()))
        .collect();
    let expected = [("PK", 1), ("db", 3), ("dbx", 4)].map(|(text, first)| (text.to_owned(), hashes(first)));
    assert_eq!(names, expected);
    assert!(
        found
            .iter()
            .all(|(_, v)| v.attributes == 0x27 && v.time[0] == 0xEA)
    );
}

#[test]
fn enrolled_keys_end_setup_mode_and_do_not_replace_others() {
    let keys = read(&file(&[pk()])).unwrap();
    let mut nvram = Nvram::new();
    nvram.want_secure_boot(true);
    assert!(!nvram.secure_boot());
    assert_eq!(nvram.enroll(keys), Ok(true));
    assert!(nvram.secure_boot());
    let mode = |text| nvram.get(&name(vendor::GLOBAL, text)).unwrap().data[0];
    assert_eq!((mode("SecureBoot"), mode("SetupMode")), (1, 0));
    let others = read(&file(&[entry(ADDED, vendor::GLOBAL, "PK", &hashes(9))])).unwrap();
    assert_eq!(nvram.enroll(others), Ok(false));
    assert_eq!(nvram.get(&name(vendor::GLOBAL, "PK")).unwrap().data, hashes(1));
}

#[test]
fn every_flaw_has_its_message() {
    let error = |file: &[u8]| read(file).unwrap_err().to_string();
    for no_store in [&[][..], b"hello", &vec![0; 0x2000]] {
        assert!(
            error(no_store).starts_with("this is no store"),
            "{}",
            error(no_store)
        );
    }
    assert!(error(&file(&[])).starts_with("the file has no platform key (PK)"));
    let bad = file(&[pk(), entry(ADDED, vendor::IMAGE_SECURITY, "db", b"x")]);
    assert!(
        error(&bad).starts_with("the variable db at offset 0xf4 is no list"),
        "{}",
        error(&bad)
    );
    let mut long = file(&[pk()]);
    long[0x48 + STORE_HEADER + 42] = 1;
    assert_eq!(
        error(&long),
        "the variable at offset 0x64 goes past the end of its store"
    );
    long[0x48 + STORE_HEADER + 36..0x48 + STORE_HEADER + 44].fill(0xFF);
    assert_eq!(
        error(&long),
        "the variable at offset 0x64 goes past the end of its store"
    );
    // Cut anywhere: an error, or fewer keys, never a panic.
    let whole = file(&[pk(), entry(ADDED, vendor::IMAGE_SECURITY, "db", &hashes(2))]);
    for len in 0..whole.len() {
        assert!(read(&whole[..len]).is_err(), "{len}");
    }
}

#[test]
fn debians_templates_have_microsofts_keys() {
    const FILE: &str = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd";
    let Ok(bytes) = std::fs::read(FILE) else {
        eprintln!("skipped: debians_templates_have_microsofts_keys: {FILE} is not there; install ovmf");
        return;
    };
    let keys = read(&bytes).unwrap();
    let names: Vec<_> = keys
        .iter()
        .map(|(key, _)| String::from_utf16_lossy(key.name()))
        .collect();
    for wanted in ["PK", "KEK", "db", "dbx"] {
        assert!(names.iter().any(|name| name == wanted), "{names:?}");
    }
    let mut nvram = Nvram::new();
    nvram.want_secure_boot(true);
    assert_eq!(nvram.enroll(keys), Ok(true));
    assert!(nvram.secure_boot());
    let empty = std::fs::read("/usr/share/OVMF/OVMF_VARS_4M.fd").unwrap();
    assert_eq!(read(&empty), Err(TemplateError::NoPlatformKey));
}
