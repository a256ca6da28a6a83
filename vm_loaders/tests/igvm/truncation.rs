// SPDX-License-Identifier: MIT
//! Files cut off anywhere: always an error, never a panic, and the text says which.

use crate::vectors::VECTORS;
use vm_loaders::igvm::{Code, File, Severity};

fn refusal(bytes: &[u8]) -> (Code, String) {
    let file = match File::read(bytes) {
        Err(problem) => return (problem.code, problem.to_string()),
        Ok(file) => file,
    };
    for platform in file.platforms() {
        assert!(file.plan(platform.isolation).is_err());
    }
    let worst = file
        .check()
        .into_iter()
        .find(|problem| problem.severity() == Severity::Error)
        .unwrap();
    (worst.code, worst.to_string())
}

#[test]
fn a_file_cut_at_any_header_is_refused() {
    for (name, bytes, _) in VECTORS {
        let file = File::read(bytes).unwrap();
        for header in file.headers() {
            for cut in [
                header.offset,
                header.offset + 4,
                header.content_offset(),
                header.content_offset() + 3,
            ] {
                let (code, text) = refusal(&bytes[..cut as usize]);
                let expected = if cut < 24 {
                    Code::TooShort
                } else {
                    Code::HeaderRange
                };
                assert_eq!(code, expected, "{name} cut at {cut:#x}: {text}");
            }
        }
    }
}

#[test]
fn a_file_cut_at_any_byte_is_refused() {
    let (_, bytes, _) = VECTORS[4];
    for cut in 0..bytes.len() {
        let (code, text) = refusal(&bytes[..cut]);
        let headers_end = File::read(bytes).unwrap().data_start() as usize;
        let expected = match cut {
            0..24 => Code::TooShort,
            _ if cut < headers_end => Code::HeaderRange,
            _ => Code::TotalSize,
        };
        assert_eq!(code, expected, "cut at {cut:#x}: {text}");
    }
}

#[test]
fn a_header_region_cut_within_its_last_header_names_that_header() {
    let (_, bytes, _) = VECTORS[0];
    let file = File::read(bytes).unwrap();
    let (last, header) = file.headers().iter().enumerate().next_back().unwrap();
    for keep in [3, 8, 11] {
        let mut cut = bytes.to_vec();
        let size = header.offset + keep - file.fixed_header().variable_header_offset;
        cut[12..16].copy_from_slice(&size.to_le_bytes());
        let problem = File::read(&cut).unwrap_err();
        assert_eq!(
            (problem.code, problem.header),
            (Code::HeaderTruncated, Some(last as u32)),
            "{problem}"
        );
        assert_eq!(problem.file_offset, u64::from(header.offset));
    }
}
