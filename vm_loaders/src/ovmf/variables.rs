// SPDX-License-Identifier: MIT
//! Where the variable store of an OVMF image is: the firmware volume at the start of the image, or right
//! below an image that is code only (ovmf-machine sections 1.1 and 1.9).
//!
//! Always true: the plan is untrusted input; a store is whole flash blocks and lies inside the image or
//! directly below it. Not here: what variables say, the flash itself.

use launch_plan::{LaunchPlan, PageContents};
use std::collections::BTreeMap;
use x86defs::paging::{PAGE_BYTES, PAGE_SIZE};

const FOUR_GIB: u64 = 1 << 32;
/// Firmware and its variables lie in the last 16 MiB below 4 GiB.
const LOWEST: u64 = FOUR_GIB - (16 << 20);
/// GUID of a firmware volume with variables, fff12b8d-7696-4c8b-a985-2747075b4f50, as stored.
const VARIABLE_VOLUME: [u8; 16] = [
    0x8D, 0x2B, 0xF1, 0xFF, 0x96, 0x76, 0x8B, 0x4C, 0xA9, 0x85, 0x27, 0x47, 0x07, 0x5B, 0x4F, 0x50,
];
/// Offsets of a firmware volume's header (UEFI PI 1.7 volume 3 section 3.2.1).
const GUID_AT: usize = 16;
const LENGTH_AT: usize = 32;
const SIGNATURE_AT: usize = 40;
const SIGNATURE: &[u8; 4] = b"_FVH";

/// A variable store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariableStore {
    /// First byte address.
    pub gpa: u64,
    /// Contents as built, from which a new file is made; `None` when the image is code only.
    pub template: Option<Vec<u8>>,
}

/// Why there is no place for variables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum VariablesError {
    #[error("no firmware ends at 4 GiB, so there is no variable store")]
    NoFirmware,
    #[error(
        "the variable volume at gpa {gpa:#x} says that it is {len:#x} bytes long; it must be whole 4 KiB blocks inside the image"
    )]
    BadVolume { gpa: u64, len: u64 },
    #[error("a variable store of {len:#x} bytes does not fit below the firmware at gpa {gpa:#x}")]
    NoRoom { gpa: u64, len: u64 },
}

/// The length that the header at the start of `bytes` tells, if it is one of a variable volume.
pub fn variable_volume_len(bytes: &[u8]) -> Option<u64> {
    let header = bytes.get(..SIGNATURE_AT + 4)?;
    let ours = header[GUID_AT..LENGTH_AT] == VARIABLE_VOLUME && &header[SIGNATURE_AT..] == SIGNATURE;
    let length = header[LENGTH_AT..SIGNATURE_AT].try_into().ok()?;
    ours.then(|| u64::from_le_bytes(length))
}

/// Finds the store of the firmware in `plan`. `file_len` is the length of the file that will keep it, if
/// there is one already; it says where the store of a code-only image begins.
pub fn variable_store(plan: &LaunchPlan<'_>, file_len: Option<u64>) -> Result<VariableStore, VariablesError> {
    let pages = firmware_pages(plan);
    let (&base, first) = pages.first_key_value().ok_or(VariablesError::NoFirmware)?;
    let header = match first {
        PageContents::Bytes(bytes) => bytes,
        _ => &[][..],
    };
    let Some(len) = variable_volume_len(header) else {
        return below(base, file_len.unwrap_or(0));
    };
    let inside = len > 0 && len.is_multiple_of(PAGE_SIZE) && len <= FOUR_GIB - base;
    if !inside {
        return Err(VariablesError::BadVolume { gpa: base, len });
    }
    let mut template = Vec::with_capacity(len as usize);
    for contents in pages.range(base..base + len).map(|(_, contents)| contents) {
        let start = template.len();
        if let PageContents::Bytes(bytes) = contents {
            template.extend_from_slice(bytes);
        }
        template.resize(start + PAGE_BYTES, 0);
    }
    Ok(VariableStore {
        gpa: base,
        template: Some(template),
    })
}

fn below(base: u64, len: u64) -> Result<VariableStore, VariablesError> {
    let gpa = base
        .checked_sub(len)
        .filter(|gpa| *gpa >= LOWEST && len.is_multiple_of(PAGE_SIZE))
        .ok_or(VariablesError::NoRoom { gpa: base, len })?;
    Ok(VariableStore { gpa, template: None })
}

/// The unbroken run of 4 KiB pages that ends at 4 GiB.
fn firmware_pages<'p>(plan: &'p LaunchPlan<'_>) -> BTreeMap<u64, PageContents<'p, 'p>> {
    let mut pages = BTreeMap::new();
    for (page, _) in plan.pages() {
        if page.size == PAGE_SIZE && (LOWEST..FOUR_GIB).contains(&page.gpa) {
            pages.insert(page.gpa, page.contents);
        }
    }
    let mut start = FOUR_GIB;
    while let Some(below) = start.checked_sub(PAGE_SIZE).filter(|gpa| pages.contains_key(gpa)) {
        start = below;
    }
    pages.split_off(&start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use launch_plan::{Arch, Contents, Import, Isolation, Origin, PageKind, PlanBuilder, PlatformFacts};

    fn plan(gpa: u64, image: Vec<u8>) -> LaunchPlan<'static> {
        let mut builder = PlanBuilder::new(PlatformFacts::new(Isolation::Native, Arch::X64));
        let import = Import {
            gpa,
            len: image.len() as u64,
            large: false,
            kind: PageKind::Measured,
            contents: Contents::Bytes(image.into()),
        };
        builder.import(import, Origin::Host("image")).unwrap();
        builder.finish()
    }

    fn image(volume_len: u64) -> Vec<u8> {
        let mut image = vec![0x11; 0x8000];
        image[GUID_AT..LENGTH_AT].copy_from_slice(&VARIABLE_VOLUME);
        image[LENGTH_AT..SIGNATURE_AT].copy_from_slice(&volume_len.to_le_bytes());
        image[SIGNATURE_AT..SIGNATURE_AT + 4].copy_from_slice(SIGNATURE);
        image
    }

    #[test]
    fn store_at_the_start_of_the_image_is_its_own_template() {
        let image = image(0x3000);
        let store = variable_store(&plan(FOUR_GIB - 0x8000, image.clone()), None).unwrap();
        assert_eq!(store.gpa, FOUR_GIB - 0x8000);
        assert_eq!(store.template.unwrap(), image[..0x3000]);
    }

    #[test]
    fn store_of_a_code_only_image_lies_below_it() {
        let plan = plan(FOUR_GIB - 0x8000, vec![0x22; 0x8000]);
        let store = variable_store(&plan, Some(0x4000)).unwrap();
        assert_eq!((store.gpa, store.template), (FOUR_GIB - 0xC000, None));
        for len in [0x4001, 32 << 20] {
            let refused = VariablesError::NoRoom {
                gpa: FOUR_GIB - 0x8000,
                len,
            };
            assert_eq!(variable_store(&plan, Some(len)), Err(refused));
        }
    }

    #[test]
    fn volumes_that_leave_the_image_or_are_no_blocks_are_refused() {
        for len in [0, 0x1001, 0x9000, u64::MAX] {
            let plan = plan(FOUR_GIB - 0x8000, image(len));
            let gpa = FOUR_GIB - 0x8000;
            assert_eq!(
                variable_store(&plan, None),
                Err(VariablesError::BadVolume { gpa, len })
            );
        }
    }

    #[test]
    fn plan_without_firmware_below_4_gib_has_no_store() {
        let plan = plan(0x10_0000, vec![0; 0x1000]);
        assert_eq!(variable_store(&plan, None), Err(VariablesError::NoFirmware));
    }
}
