// SPDX-License-Identifier: MIT
use super::*;
use crate::ovmf::{WrapOptions, plan};
use launch_plan::Isolation;

/// A 128 KiB image with the given entries (data, GUID), from the highest address down.
fn image(entries: &[(&[u8], [u8; 16])]) -> Vec<u8> {
    let mut image = vec![0; 0x2_0000];
    let mut put = |at: &mut usize, bytes: &[u8]| {
        *at -= bytes.len();
        image[*at..*at + bytes.len()].copy_from_slice(bytes);
    };
    let total = ENTRY_TAIL + entries.iter().map(|e| e.0.len() + ENTRY_TAIL).sum::<usize>();
    let mut at = 0x2_0000 - FOOTER_DISTANCE;
    put(&mut at, &GUID_FOOTER);
    put(&mut at, &(total as u16).to_le_bytes());
    for (data, guid) in entries {
        put(&mut at, guid);
        put(&mut at, &((data.len() + ENTRY_TAIL) as u16).to_le_bytes());
        put(&mut at, data);
    }
    image
}

/// SEV metadata at offset 0x1000 of the image.
fn with_sections(sections: &[(u32, u32, u32)], version: u32) -> Vec<u8> {
    let mut image = image(&[
        (&0x0080_B004u32.to_le_bytes(), GUID_SEV_ES_RESET),
        (&(0x2_0000u32 - 0x1000).to_le_bytes(), GUID_SEV_METADATA),
    ]);
    let mut bytes = b"ASEV".to_vec();
    for v in [16 + 12 * sections.len() as u32, version, sections.len() as u32] {
        bytes.extend(v.to_le_bytes());
    }
    for (base, size, kind) in sections {
        bytes.extend([*base, *size, *kind].iter().flat_map(|v| v.to_le_bytes()));
    }
    image[0x1000..0x1000 + bytes.len()].copy_from_slice(&bytes);
    image
}

#[test]
fn every_table_is_read() {
    let tables = Tables::read(&with_sections(
        &[(0x80_0000, 0x9000, 1), (0x80_D000, 0x1000, 2)],
        1,
    ))
    .unwrap();
    assert_eq!(tables.ap_reset, Some(0x80_B004));
    assert_eq!(
        tables.sections.unwrap(),
        [
            Section {
                gpa: 0x80_0000,
                len: 0x9000,
                kind: SectionKind::Memory
            },
            Section {
                gpa: 0x80_D000,
                len: 0x1000,
                kind: SectionKind::Secrets
            },
        ]
    );
}

#[test]
fn malformed_tables_are_refused_by_name() {
    assert_eq!(Tables::read(&[0; 100]), Err(OvmfError::Size { size: 100 }));
    assert_eq!(Tables::read(&[0; 0x2_0000]), Err(OvmfError::NoFooter));
    let refused = |image: Vec<u8>| Tables::read(&image).unwrap_err().to_string();
    let text = refused(with_sections(&[(0x80_0001, 0x1000, 1)], 1));
    assert!(
        text.contains("section 0x800001 with 0x1000 bytes is not page aligned"),
        "{text}"
    );
    assert!(refused(with_sections(&[(0x80_0000, 0x1000, 9)], 1)).contains("unknown section type 0x9"));
    assert!(refused(with_sections(&[], 2)).contains("version 2"));
    let mut far = image(&[(&0x3_0000u32.to_le_bytes(), GUID_SEV_METADATA)]);
    assert!(refused(far.clone()).contains("outside the image"));
    let length_at = 0x2_0000 - FOOTER_DISTANCE - ENTRY_TAIL;
    far[length_at] = 3;
    far[length_at + 1] = 0;
    assert!(refused(far).contains("its length is 0x3"));
}

#[test]
fn no_single_byte_of_the_tables_can_make_reading_panic() {
    let good = with_sections(&[(0x80_0000, 0x9000, 1), (0x80_D000, 0x1000, 2)], 1);
    for at in (0x1000..0x1040).chain(0x2_0000 - 0xA0..0x2_0000) {
        for value in [0, 1, 0x7F, 0x80, 0xFF] {
            let mut image = good.clone();
            image[at] = value;
            let _ = Tables::read(&image);
            let _ = plan(&image, &WrapOptions::new(Isolation::Snp, 2));
        }
    }
}

#[test]
fn a_missing_table_matters_only_where_it_is_needed() {
    let bare = image(&[]);
    assert!(plan(&bare, &WrapOptions::new(Isolation::Native, 1)).is_ok());
    assert!(plan(&bare, &WrapOptions::new(Isolation::SevEs, 1)).is_ok());
    let error = |isolation| plan(&bare, &WrapOptions::new(isolation, 2)).unwrap_err();
    assert_eq!(
        error(Isolation::SevEs),
        OvmfError::Missing {
            platform: "sev-es",
            table: "sev-es reset block"
        }
    );
    assert_eq!(
        error(Isolation::Snp),
        OvmfError::Missing {
            platform: "sev-snp",
            table: "sev metadata"
        }
    );
    assert_eq!(
        error(Isolation::Tdx),
        OvmfError::Missing {
            platform: "tdx",
            table: "tdx metadata"
        }
    );
    assert_eq!(error(Isolation::Cca), OvmfError::Platform("cca"));
}

#[test]
fn overlapping_sections_are_refused() {
    let image = with_sections(&[(0x80_0000, 0x2000, 1), (0x80_1000, 0x1000, 2)], 1);
    let text = plan(&image, &WrapOptions::new(Isolation::Snp, 1))
        .unwrap_err()
        .to_string();
    assert!(text.contains("0x801000"), "{text}");
}

#[test]
fn debians_tdx_sections_are_imported_in_table_order() {
    let Ok(image) = std::fs::read("/usr/share/ovmf/OVMF.fd") else {
        println!("skipped: debians_tdx_sections_are_imported_in_table_order: package ovmf is not installed");
        return;
    };
    let plan = plan(&image, &WrapOptions::new(Isolation::Tdx, 1)).unwrap();
    let imports: Vec<_> = plan
        .steps()
        .iter()
        .filter_map(|step| match &step.kind {
            launch_plan::StepKind::Import(import) => Some((import.gpa, import.kind)),
            _ => None,
        })
        .collect();
    assert_eq!(imports[0], (0xFFE2_0000, launch_plan::PageKind::Measured));
    assert_eq!(imports[1], (0xFFE0_0000, launch_plan::PageKind::Unmeasured));
    assert!(imports.len() > 3, "{imports:x?}");
    assert_eq!(plan.facts.shared_gpa_boundary, 1 << 47);
}

#[test]
fn damaged_tdx_metadata_is_refused() {
    let section = |offset: u32, bytes: u32, gpa: u64, len: u64, kind: u32| {
        let mut entry = Vec::new();
        entry.extend(offset.to_le_bytes());
        entry.extend(bytes.to_le_bytes());
        entry.extend(gpa.to_le_bytes());
        entry.extend(len.to_le_bytes());
        entry.extend(kind.to_le_bytes());
        entry.extend(1u32.to_le_bytes());
        entry
    };
    for (entry, reason) in [
        (
            section(0, 0x1000, 0x80_0000, 0x1000, 9),
            "unknown section type 0x9",
        ),
        (section(0, 0x2000, 0x80_0000, 0x1000, 0), "does not fit"),
        (section(0x1_F000, 0x2000, 0x80_0000, 0x2000, 0), "does not fit"),
        (section(0, 0, 0x80_0001, 0x1000, 3), "does not fit"),
        (section(0, 0, u64::MAX - 0xFFF, 0x1000, 3), "does not fit"),
    ] {
        let mut metadata = b"TDVF".to_vec();
        for word in [48u32, 1, 1] {
            metadata.extend(word.to_le_bytes());
        }
        metadata.extend(entry);
        let mut image = vec![0; 0x2_0000];
        image[0x1000..0x1000 + metadata.len()].copy_from_slice(&metadata);
        let error = tdx_sections(&image, 0x1000).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}
