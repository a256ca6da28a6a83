// SPDX-License-Identifier: MIT
//! Tests of editing: what is not named stays, byte for byte.

use super::*;
use crate::igvm::{Code, EncodeOptions, encode};
use igvm_defs::{IGVM_VHS_GUEST_POLICY, IGVM_VHS_PAGE_DATA};
use launch_plan::{
    Arch, Contents, Import, Isolation, LaunchPlan, Origin, PageKind, PlanBuilder, PlatformFacts,
};

const ORIGIN: Origin = Origin::Host("test");

/// Pages of one byte value each, from 0x1000 on.
fn plan(isolation: Isolation, fills: &[u8]) -> LaunchPlan<'static> {
    let mut builder = PlanBuilder::new(PlatformFacts {
        policy: Some(0x3_0000),
        ..PlatformFacts::new(isolation, Arch::X64)
    });
    for (page, fill) in fills.iter().enumerate() {
        let import = Import {
            gpa: 0x1000 * (page as u64 + 1),
            len: 0x1000,
            large: false,
            kind: PageKind::Measured,
            contents: Contents::Bytes(vec![*fill; 0x1000].into()),
        };
        builder.import(import, ORIGIN).unwrap();
    }
    builder.finish()
}

/// A file with an unknown optional header and unused data at its end.
fn foreign() -> Vec<u8> {
    let plans = [plan(Isolation::Snp, &[1, 2, 3])];
    let bytes = encode(&plans, &EncodeOptions::default()).unwrap().to_vec();
    let file = File::read(&bytes).unwrap();
    let mut edit = Edit::new(&file);
    edit.insert(2, NewHeader::raw(0x8000_0777, b"not ours")).unwrap();
    let mut with = edit.finish().unwrap().to_vec();
    with.extend_from_slice(b"unused tail");
    let len = with.len() as u32;
    with[16..20].copy_from_slice(&len.to_le_bytes());
    let checksum = {
        let file = File::read(&with).unwrap();
        file.fixed_header().compute_checksum(file.variable_headers())
    };
    with[20..24].copy_from_slice(&checksum.to_le_bytes());
    with
}

/// The index of the page header at `gpa`.
fn page_at(file: &File<'_>, gpa: u64) -> u32 {
    let found = file
        .headers()
        .iter()
        .position(|raw| matches!(file.decode(raw), Ok(Header::PageData(page)) if page.gpa == gpa));
    found.unwrap() as u32
}

fn page_header(file: &File<'_>, index: u32) -> IGVM_VHS_PAGE_DATA {
    match file.decode(&file.headers()[index as usize]).unwrap() {
        Header::PageData(page) => page,
        other => panic!("{other:?}"),
    }
}

/// The page's bytes in the plan of SNP.
fn contents(bytes: &[u8], gpa: u64) -> Vec<u8> {
    let file = File::read(bytes).unwrap();
    let index = page_at(&file, gpa);
    let page = page_header(&file, index);
    file.data(page.file_offset, 0x1000).unwrap().to_vec()
}

fn problems(bytes: &[u8]) -> Vec<Code> {
    let file = File::read(bytes).unwrap();
    file.check().iter().map(|problem| problem.code).collect()
}

#[test]
fn without_changes_the_bytes_are_the_same() {
    let bytes = foreign();
    let file = File::read(&bytes).unwrap();
    assert_eq!(Edit::new(&file).finish().unwrap().to_vec(), bytes);
    assert_eq!(Edit::new(&file).unknown_headers().collect::<Vec<_>>(), [2]);
}

#[test]
fn an_inserted_header_moves_data_and_keeps_unknown_headers_and_unused_bytes() {
    let bytes = foreign();
    let file = File::read(&bytes).unwrap();
    let before = problems(&bytes);
    let mut edit = Edit::new(&file);
    let end = edit.end_of(Section::Directive);
    assert_eq!(end as usize, file.headers().len());
    let id_block = Header::SnpIdBlock(Box::new(zerocopy::FromZeros::new_zeroed()));
    edit.insert(end, NewHeader::new(&id_block)).unwrap();
    let changed = edit.finish().unwrap().to_vec();
    assert_eq!(changed.len(), bytes.len() + 8 + 696);
    assert!(changed.windows(8).any(|window| window == b"not ours"));
    assert!(changed.ends_with(b"unused tail"));
    for (gpa, fill) in [(0x1000, 1), (0x2000, 2), (0x3000, 3)] {
        assert_eq!(contents(&changed, gpa), [fill; 0x1000]);
    }
    let file = File::read(&changed).unwrap();
    let mut back = Edit::new(&file);
    back.remove(end).unwrap();
    let back = back.finish().unwrap().to_vec();
    assert_eq!(back, bytes, "taking it out again gives the first file");
    assert_eq!(problems(&back), before);
}

#[test]
fn replaced_data_is_dropped_and_other_data_follows_its_headers() {
    let bytes = foreign();
    let file = File::read(&bytes).unwrap();
    let index = page_at(&file, 0x1000);
    let mut edit = Edit::new(&file);
    let header = Header::PageData(page_header(&file, index));
    edit.replace(index, NewHeader::with_data(&header, &b"new"[..], 0x1000).unwrap())
        .unwrap();
    let changed = edit.finish().unwrap().to_vec();
    assert_eq!(changed.len(), bytes.len());
    assert_eq!(contents(&changed, 0x1000)[..5], *b"new\0\0");
    assert_eq!(contents(&changed, 0x2000), [2; 0x1000]);
    assert_eq!(contents(&changed, 0x3000), [3; 0x1000]);
    assert!(!changed.windows(0x1000).any(|window| window == [1; 0x1000]));
    assert_eq!(problems(&changed), problems(&bytes));
}

#[test]
fn data_that_another_platform_uses_stays() {
    // Encoding stores the data of equal pages once.
    let plans = [plan(Isolation::Snp, &[1, 2]), plan(Isolation::Sev, &[1, 2])];
    let bytes = encode(&plans, &EncodeOptions::default()).unwrap().to_vec();
    let file = File::read(&bytes).unwrap();
    let index = page_at(&file, 0x1000);
    let mut edit = Edit::new(&file);
    edit.remove(index).unwrap();
    let changed = edit.finish().unwrap().to_vec();
    assert_eq!(changed.len(), bytes.len() - 32, "only the header went");
    let file = File::read(&changed).unwrap();
    let other = file.plan(Isolation::Sev).unwrap();
    assert_eq!(other, plans[1]);
    assert_eq!(file.plan(Isolation::Snp).unwrap().steps().len(), 1);
}

#[test]
fn patched_headers_keep_their_data() {
    let bytes = foreign();
    let file = File::read(&bytes).unwrap();
    let index = page_at(&file, 0x2000);
    let mut edit = Edit::new(&file);
    edit.patch(index, 0, &0x9000u64.to_le_bytes()).unwrap();
    // Twice: the second goes on top of the first.
    edit.patch(index, 1, &[0x80]).unwrap();
    let changed = edit.finish().unwrap().to_vec();
    assert_eq!(changed.len(), bytes.len());
    assert_eq!(contents(&changed, 0x8000), [2; 0x1000]);
    let mut edit = Edit::new(&file);
    let error = edit.patch(index, 20, &[0; 8]).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("bytes 0x14..0x1c are outside header {index}, whose content has 0x18 bytes")
    );
}

#[test]
fn a_policy_is_replaced_in_place_and_everything_else_is_equal() {
    let bytes = foreign();
    let file = File::read(&bytes).unwrap();
    let mut edit = Edit::new(&file);
    let policy = IGVM_VHS_GUEST_POLICY {
        policy: 0xB_0000,
        compatibility_mask: 1,
        reserved: 0,
    };
    edit.replace(1, NewHeader::new(&Header::GuestPolicy(policy)))
        .unwrap();
    let changed = edit.finish().unwrap().to_vec();
    let differing: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != changed[*at]).collect();
    let policy_byte = file.headers()[1].content_offset() as usize + 2;
    assert!(
        differing
            .iter()
            .all(|at| (20..24).contains(at) || *at == policy_byte),
        "{differing:?}"
    );
}

#[test]
fn wrong_places_are_named() {
    let bytes = foreign();
    let file = File::read(&bytes).unwrap();
    let mut edit = Edit::new(&file);
    let error = edit.remove(99).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "header 99 does not exist; the file has {} headers",
            file.headers().len()
        )
    );
    let policy = file.decode(&file.headers()[1]).unwrap();
    let error = NewHeader::with_data(&policy, &b"x"[..], 1)
        .unwrap_err()
        .to_string();
    assert_eq!(error, "header type 0x101 has no field for the place of data");
}
