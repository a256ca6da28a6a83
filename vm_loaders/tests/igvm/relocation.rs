// SPDX-License-Identifier: MIT
//! Moved images: equal to what the `igvm` crate's page-table builder gives, and what is refused.

use igvm::page_table::CpuPagingState;
use igvm::{IgvmDirectiveHeader, IgvmFile};
use launch_plan::*;
use range_map_vec::RangeMap;
use std::collections::BTreeMap;
use vm_loaders::igvm::{EncodeOptions, File, PageTableError, RelocateError, encode, relocate};
use x86defs::{SegmentAttributes, SegmentRegister, TableRegister};

const HERE: Origin = Origin::Host("test");
const PAGE: u64 = 0x1000;
const MEBI: u64 = 1 << 20;
/// The image: 4 MiB at 2 MiB.
const REGION: u64 = 2 * MEBI;
const REGION_LEN: u64 = 4 * MEBI;
/// Its page tables: 12 pages at 8 MiB, 4 of them in use.
const TABLES: u64 = 8 * MEBI;
const TABLES_LEN: u64 = 12 * PAGE;

type Table = [u64; 512];

/// A leaf, a large leaf and a pointer as firmware sets them.
const LEAF: u64 = 0x63;
const LARGE_LEAF: u64 = 0xE3;
const POINTER: u64 = 0x23;

/// What a test changes before the image is built.
struct Image {
    isolation: Isolation,
    vtl: u8,
    region: RelocatableRegion,
    tables: PageTableRegion,
    /// PML4, PDPT, PD, PT.
    pages: [Table; 4],
}

impl Image {
    fn new(isolation: Isolation, vtl: u8) -> Self {
        let mut pages = [[0; 512]; 4];
        let pointer = |page: u64| (TABLES + page * PAGE) | POINTER;
        pages[0][0] = pointer(1);
        pages[1][0] = pointer(2);
        pages[1][3] = (3 << 30) | LARGE_LEAF | 0x18;
        pages[2][0] = LARGE_LEAF;
        pages[2][1] = REGION | LARGE_LEAF;
        pages[2][2] = (REGION + 2 * MEBI) | LARGE_LEAF;
        pages[2][4] = pointer(3);
        for page in 0..TABLES_LEN / PAGE {
            pages[3][page as usize] = (TABLES + page * PAGE) | LEAF | 1 << 63;
        }
        let region = RelocatableRegion {
            vp: 0,
            vtl,
            is_vtl2: vtl == 2,
            apply_pc: true,
            apply_gdtr: true,
            alignment: 2 * MEBI,
            gpa: REGION,
            len: REGION_LEN,
            min_gpa: 0,
            max_gpa: 1 << 46,
        };
        let tables = PageTableRegion {
            vp: 0,
            vtl,
            gpa: TABLES,
            len: TABLES_LEN,
            used: 4 * PAGE,
        };
        Self {
            isolation,
            vtl,
            region,
            tables,
            pages,
        }
    }

    fn context(&self) -> VpState<'static> {
        let segment = |selector, attributes| SegmentRegister {
            selector,
            attributes: SegmentAttributes(attributes),
            limit: 0xFFFF_FFFF,
            base: 0,
        };
        let gdtr = TableRegister {
            base: REGION + 0x1000,
            limit: 31,
        };
        let (cs, data) = (segment(8, 0xA09B), segment(16, 0xC093));
        let (cr0, cr3, cr4, efer, rip) = (0x8000_0023, TABLES | 0x18, 0x660, 0xD00, REGION + 0x10);
        if self.isolation == Isolation::Native {
            let context = NativeContext {
                gdtr,
                cs,
                data,
                cr0,
                cr3,
                cr4,
                efer,
                rip,
                ..Default::default()
            };
            return VpState::Native(Box::new(context));
        }
        use VbsRegisterName as Name;
        let vtl = self.vtl;
        let number = |name, value| VbsRegister {
            vtl,
            name,
            value: VbsValue::U64(value),
        };
        VpState::Vbs(vec![
            VbsRegister {
                vtl,
                name: Name::Gdtr,
                value: VbsValue::Table(gdtr),
            },
            VbsRegister {
                vtl,
                name: Name::Cs,
                value: VbsValue::Segment(cs),
            },
            number(Name::Cr0, cr0),
            number(Name::Cr3, cr3),
            number(Name::Cr4, cr4),
            number(Name::Efer, efer),
            number(Name::Rip, rip),
        ])
    }

    fn plan(&self) -> LaunchPlan<'static> {
        let mut facts = PlatformFacts::new(self.isolation, Arch::X64);
        facts.highest_vtl = self.vtl;
        let mut plan = PlanBuilder::new(facts);
        plan.plan_mut().relocatable = vec![self.region];
        plan.plan_mut().page_tables = Some(self.tables);
        let page = |gpa, contents| Import {
            gpa,
            len: PAGE,
            large: false,
            kind: PageKind::Measured,
            contents,
        };
        let expect = |gpa, len| ExpectMemory {
            gpa,
            len,
            vtl2_protectable: false,
        };
        plan.expect_memory(expect(0, MEBI), HERE).unwrap();
        plan.expect_memory(expect(REGION, REGION_LEN), HERE).unwrap();
        for (number, gpa) in [0x1000, REGION, REGION + PAGE, REGION + REGION_LEN - PAGE]
            .into_iter()
            .enumerate()
        {
            plan.import(
                page(gpa, Contents::Bytes(vec![number as u8 + 1; 4096].into())),
                HERE,
            )
            .unwrap();
        }
        for (number, table) in self.pages.iter().enumerate() {
            let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
            plan.import(
                page(TABLES + number as u64 * PAGE, Contents::Bytes(bytes.into())),
                HERE,
            )
            .unwrap();
        }
        let area = ParameterArea {
            index: 0,
            initial: vec![9; 8].into(),
            slots: vec![],
        };
        let area = Contents::Parameters(Box::new(area));
        plan.import(
            Import {
                kind: PageKind::Unmeasured,
                ..page(REGION + 0x8000, area)
            },
            HERE,
        )
        .unwrap();
        plan.error_range(REGION + 0x9000, PAGE, HERE).unwrap();
        plan.vp_context(
            VpContext {
                vp: 0,
                gpa: 0,
                state: self.context(),
            },
            HERE,
        )
        .unwrap();
        plan.finish()
    }

    fn file(&self) -> Vec<u8> {
        encode(&[self.plan()], &EncodeOptions::default())
            .unwrap()
            .to_vec()
    }
}

/// Memory after a launch, page by page.
type Memory = BTreeMap<u64, Vec<u8>>;

fn memory_of(plan: &LaunchPlan<'_>) -> Memory {
    let host = HostValues::new(1);
    let bound = plan.bind(&host).unwrap();
    let mut memory = Memory::new();
    for import in bound.imports() {
        assert_eq!(import.len, PAGE);
        let mut page = import.data.unwrap_or(&[]).to_vec();
        page.resize(4096, 0);
        memory.insert(import.gpa, page);
    }
    memory
}

/// What a loader on the `igvm` crate puts in memory for a base above the file's.
fn judge(bytes: &[u8], base: u64) -> Memory {
    let file = IgvmFile::new_from_binary(bytes, None).unwrap();
    let (regions, tables) = file.relocations(1);
    let (region, mut tables) = (regions.unwrap().remove(0), tables.unwrap());
    assert!(region.relocation_base_valid(base));
    let delta = base - region.base_gpa;
    let place = |gpa| if region.contains(gpa) { gpa + delta } else { gpa };
    let mut memory = Memory::new();
    let mut area = Vec::new();
    for directive in file.directives() {
        match directive {
            IgvmDirectiveHeader::PageData { gpa, data, .. } if tables.contains(*gpa) => {
                tables.set_page_data(*gpa, data).unwrap();
            }
            IgvmDirectiveHeader::PageData { gpa, data, .. } => drop(memory.insert(place(*gpa), data.clone())),
            IgvmDirectiveHeader::ParameterArea { initial_data, .. } => area = initial_data.clone(),
            IgvmDirectiveHeader::ParameterInsert(insert) => {
                drop(memory.insert(place(insert.gpa), std::mem::take(&mut area)));
            }
            _ => {}
        }
    }
    let mut offsets = RangeMap::new();
    offsets.insert(region.base_gpa..=region.base_gpa + region.size - 1, delta as i64);
    let gpa = tables.gpa + delta;
    let built = tables
        .build(
            delta as i64,
            offsets,
            CpuPagingState {
                cr3: TABLES,
                cr4: 0x660,
            },
        )
        .unwrap();
    for (number, page) in built.chunks(4096).enumerate() {
        memory.insert(gpa + number as u64 * PAGE, page.to_vec());
    }
    memory
}

#[test]
fn moved_images_equal_those_of_the_igvm_crate() {
    // Next to the old place; into another page directory; beyond 4 GiB; into another 512 GiB.
    let bases = [10 * MEBI, 1 << 30, (4 << 30) + 6 * MEBI, 1 << 39];
    for (isolation, vtl) in [(Isolation::Vsm, 0), (Isolation::Vsm, 2)] {
        let bytes = Image::new(isolation, vtl).file();
        let file = File::read(&bytes).unwrap();
        for base in bases {
            let plan = file.plan_at(isolation, base).unwrap();
            assert!(
                memory_of(&plan) == judge(&bytes, base),
                "vtl {vtl} base {base:#x}"
            );
        }
    }
}

#[test]
fn registers_memory_and_ranges_move_with_the_region() {
    for isolation in [Isolation::Vsm, Isolation::Native] {
        let bytes = Image::new(isolation, 0).file();
        let base = 1 << 30;
        let delta = base - REGION;
        let plan = File::read(&bytes).unwrap().plan_at(isolation, base).unwrap();
        let state = plan.vp_contexts().next().unwrap().0.state.to_x86().unwrap();
        assert_eq!(
            (state.rip, state.gdtr.base),
            (REGION + 0x10 + delta, REGION + 0x1000 + delta)
        );
        assert_eq!(state.cr3, (TABLES + delta) | 0x18);
        let host = HostValues::new(1);
        let bound = plan.bind(&host).unwrap();
        let expected: Vec<_> = bound
            .expected_memory()
            .map(|(expect, _)| (expect.gpa, expect.len))
            .collect();
        let moved = (REGION + delta, REGION_LEN);
        assert_eq!(expected, [(0, MEBI), moved, moved, (TABLES + delta, TABLES_LEN)]);
        assert_eq!(bound.error_ranges().next().unwrap().0, REGION + 0x9000 + delta);
        assert!(plan.relocatable.is_empty() && plan.page_tables.is_none());
    }
}

#[test]
fn registers_stay_when_the_region_does_not_ask_for_them() {
    let mut image = Image::new(Isolation::Vsm, 0);
    (image.region.apply_pc, image.region.apply_gdtr) = (false, false);
    let plan = relocate(&image.plan(), 1 << 30).unwrap();
    let state = plan.vp_contexts().next().unwrap().0.state.to_x86().unwrap();
    assert_eq!((state.rip, state.gdtr.base), (REGION + 0x10, REGION + 0x1000));
    assert_ne!(state.cr3, TABLES | 0x18);
}

/// Bit 12 of a 2 MiB or 1 GiB leaf is its PAT bit, not address (APM2 section 5.4.1). The crate drops it.
#[test]
fn the_pat_bit_of_a_large_leaf_moves_with_it() {
    let mut image = Image::new(Isolation::Vsm, 0);
    image.pages[2][1] |= 1 << 12;
    let plan = relocate(&image.plan(), 10 * MEBI).unwrap();
    let directory = &memory_of(&plan)[&(TABLES + 8 * MEBI + 2 * PAGE)];
    let entry = u64::from_le_bytes(directory[5 * 8..6 * 8].try_into().unwrap());
    assert_eq!(entry, (10 * MEBI) | LARGE_LEAF | (1 << 12));
}

#[test]
fn moving_there_and_back_gives_the_image_again() {
    let image = Image::new(Isolation::Vsm, 0);
    let there = relocate(&image.plan(), 10 * MEBI).unwrap();
    let delta = 8 * MEBI;
    let mut movable = there.clone();
    movable.relocatable = vec![RelocatableRegion {
        gpa: REGION + delta,
        ..image.region
    }];
    movable.page_tables = Some(PageTableRegion {
        gpa: TABLES + delta,
        used: 5 * PAGE,
        ..image.tables
    });
    let back = relocate(&movable, REGION).unwrap();
    let (mut memory, original) = (memory_of(&back), memory_of(&image.plan()));
    // The table that was added for the new place is empty again, and the way back may link another.
    memory.retain(|gpa, _| original.contains_key(gpa));
    for (gpa, page) in &original {
        if !(TABLES..TABLES + TABLES_LEN).contains(gpa) {
            assert!(&memory[gpa] == page, "{gpa:#x}");
        }
    }
    let state = back.vp_contexts().next().unwrap().0.state.to_x86().unwrap();
    assert_eq!((state.rip, state.cr3), (REGION + 0x10, TABLES | 0x18));
}

#[test]
fn the_same_base_changes_nothing() {
    let image = Image::new(Isolation::Vsm, 0);
    assert!(memory_of(&relocate(&image.plan(), REGION).unwrap()) == memory_of(&image.plan()));
}

#[test]
fn impossible_bases_are_refused_with_the_bounds() {
    let mut image = Image::new(Isolation::Vsm, 0);
    (image.region.min_gpa, image.region.max_gpa) = (2 * MEBI, 64 * MEBI);
    let plan = image.plan();
    for base in [0, 2 * MEBI + PAGE, 62 * MEBI, !(2 * MEBI - 1)] {
        assert!(
            matches!(relocate(&plan, base), Err(RelocateError::Base { .. })),
            "{base:#x}"
        );
    }
    assert_eq!(
        relocate(&plan, MEBI).unwrap_err().to_string(),
        "base 0x100000 is not possible: the region of 0x400000 bytes needs a multiple of 0x200000 from 0x200000 and an end up to 0x4000000"
    );
}

#[test]
fn images_that_cannot_move_say_why() {
    let image = Image::new(Isolation::Vsm, 0);
    let base = 1 << 30;
    let mut plan = image.plan();
    plan.relocatable.push(RelocatableRegion {
        gpa: 32 * MEBI,
        ..image.region
    });
    assert_eq!(relocate(&plan, base), Err(RelocateError::SeveralRegions(2)));
    plan.relocatable.clear();
    assert_eq!(relocate(&plan, base), Err(RelocateError::NotRelocatable));
    let mut plan = image.plan();
    plan.page_tables = None;
    assert_eq!(relocate(&plan, base), Err(RelocateError::NoPageTables));
    let mut image = Image::new(Isolation::Vsm, 0);
    image.region.len = REGION_LEN - PAGE - 0x800;
    assert!(matches!(
        relocate(&image.plan(), base),
        Err(RelocateError::Crossing { .. })
    ));
    let bytes = Image::new(Isolation::Vsm, 0).file();
    let refused = File::read(&bytes)
        .unwrap()
        .plan_at(Isolation::Snp, base)
        .unwrap_err();
    assert!(matches!(refused, RelocateError::Refused(_)), "{refused}");
}

#[test]
fn page_tables_that_cannot_be_fixed_say_why() {
    type Change = fn(&mut Image);
    let pointer = (TABLES + PAGE) | POINTER;
    assert_eq!(Image::new(Isolation::Vsm, 0).pages[0][0], pointer);
    let rows: [(Change, u64, PageTableError); 6] = [
        // The 1 GiB leaf that would have to move by 1.5 GiB.
        (
            |image| {
                image.pages[1] = [0; 512];
                image.pages[1][0] = LARGE_LEAF;
            },
            (3 << 29) + REGION,
            PageTableError::Unaligned {
                va: 0,
                size: 1 << 30,
                delta: 3 << 29,
            },
        ),
        (
            |image| image.pages[2][1] = (2 * REGION) | LARGE_LEAF,
            1 << 30,
            PageTableError::NotIdentity {
                va: REGION,
                pa: 2 * REGION,
            },
        ),
        (
            |image| image.pages[0][7] = (TABLES + PAGE) | POINTER,
            1 << 30,
            PageTableError::Shared { gpa: TABLES + PAGE },
        ),
        (
            |image| image.pages[0][7] = (TABLES + 5 * PAGE) | POINTER,
            1 << 30,
            PageTableError::NotInUse {
                gpa: TABLES + 5 * PAGE,
            },
        ),
        (
            |image| image.pages[2][3] = (6 * MEBI) | LARGE_LEAF | 4,
            6 * MEBI,
            PageTableError::Conflict { va: 6 * MEBI },
        ),
        (
            |image| image.tables.len = 4 * PAGE,
            1 << 30,
            PageTableError::NoRoom { len: 4 * PAGE },
        ),
    ];
    for (change, base, error) in rows {
        let mut image = Image::new(Isolation::Vsm, 0);
        change(&mut image);
        assert_eq!(
            relocate(&image.plan(), base),
            Err(RelocateError::PageTables(error))
        );
    }
}
