// SPDX-License-Identifier: MIT
//! Deterministic damage to IGVM files, and everything that a file goes through on its way to a guest.
//!
//! Always true: case `n` of a seed is the same file on every machine, whatever ran before it, so a run can
//! be resumed and a failure repeated. Not here: counting and reporting (`mutate`), memory limits.

use launch_plan::*;
use soak_case::Random;
use vm_loaders::igvm::{EncodeOptions, File, FormatVersion, encode};

/// Files to damage: the vectors, and one each of what they lack.
pub(crate) fn corpus() -> Vec<Vec<u8>> {
    let vectors: [&[u8]; 7] = [
        include_bytes!("../../tests/data/igvm/g1-snp-all-kinds.igvm"),
        include_bytes!("../../tests/data/igvm/g2-snp-area2p.igvm"),
        include_bytes!("../../tests/data/igvm/g4-snp-vmsa-first.igvm"),
        include_bytes!("../../tests/data/igvm/g6-tdx.igvm"),
        include_bytes!("../../tests/data/igvm/g7-vbs.igvm"),
        include_bytes!("../../tests/data/igvm/g9-seves.igvm"),
        include_bytes!("../../tests/data/igvm/g12-multi.igvm"),
    ];
    let mut corpus: Vec<Vec<u8>> = vectors.iter().map(|bytes| bytes.to_vec()).collect();
    for (plan, format) in [
        (relocatable(), FormatVersion::V1),
        (parameters(), FormatVersion::V1),
        (parameters(), FormatVersion::V2),
        (realm(), FormatVersion::V2),
    ] {
        let options = EncodeOptions {
            format,
            version_string: Some("mutate".to_owned()),
        };
        corpus.push(
            encode(&[plan], &options)
                .expect("the corpus can be encoded")
                .to_vec(),
        );
    }
    corpus
}

const HERE: Origin = Origin::Host("corpus");

fn page(gpa: u64, contents: Contents<'static>) -> Import<'static> {
    Import {
        gpa,
        len: 0x1000,
        large: false,
        kind: PageKind::Measured,
        contents,
    }
}

/// A movable image with page tables.
fn relocatable() -> LaunchPlan<'static> {
    const TABLES: u64 = 8 << 20;
    let mut plan = PlanBuilder::new(PlatformFacts::new(Isolation::Native, Arch::X64));
    let region = RelocatableRegion {
        vp: 0,
        vtl: 0,
        is_vtl2: false,
        apply_pc: true,
        apply_gdtr: true,
        alignment: 2 << 20,
        gpa: 2 << 20,
        len: 2 << 20,
        min_gpa: 0,
        max_gpa: 1 << 40,
    };
    let tables = PageTableRegion {
        vp: 0,
        vtl: 0,
        gpa: TABLES,
        len: 0x8000,
        used: 0x3000,
    };
    plan.plan_mut().relocatable = vec![region];
    plan.plan_mut().page_tables = Some(tables);
    for (number, entries) in [
        vec![TABLES + 0x1003],
        vec![TABLES + 0x2003],
        vec![0x83, (2 << 20) | 0x83],
    ]
    .into_iter()
    .enumerate()
    {
        let bytes: Vec<u8> = entries
            .iter()
            .flat_map(|entry: &u64| entry.to_le_bytes())
            .collect();
        let import = page(TABLES + number as u64 * 0x1000, Contents::Bytes(bytes.into()));
        plan.import(import, HERE).expect("tables do not overlap");
    }
    plan.import(page(2 << 20, Contents::borrowed(&[0xF4; 64])), HERE)
        .expect("code does not overlap");
    let flat = |selector, attributes| x86defs::SegmentRegister {
        selector,
        attributes: x86defs::SegmentAttributes(attributes),
        limit: u32::MAX,
        base: 0,
    };
    let context = NativeContext {
        cr0: 0x8000_0001,
        cr3: TABLES,
        cr4: 0x20,
        efer: 0x500,
        rip: 2 << 20,
        cs: flat(8, 0xA09B),
        data: flat(16, 0xC093),
        ..Default::default()
    };
    let state = VpState::Native(Box::new(context));
    plan.vp_context(VpContext { vp: 0, gpa: 0, state }, HERE)
        .expect("one context");
    plan.finish()
}

/// Every parameter, an error range, required memory, a large page.
fn parameters() -> LaunchPlan<'static> {
    let mut plan = PlanBuilder::new(PlatformFacts::new(Isolation::Vsm, Arch::X64));
    let slots = ParameterKind::ALL.iter().enumerate();
    let slots = slots.map(|(n, &kind)| ParameterSlot {
        kind,
        byte_offset: n as u32 * 0x180,
        origin: HERE,
    });
    let area = ParameterArea {
        index: 0,
        initial: vec![1; 64].into(),
        slots: slots.collect(),
    };
    let area = Contents::Parameters(Box::new(area));
    let area = Import {
        kind: PageKind::Unmeasured,
        len: 0x2000,
        ..page(0x10_0000, area)
    };
    plan.import(area, HERE).expect("area does not overlap");
    plan.error_range(0x20_0000, 0x2000, HERE)
        .expect("error range does not overlap");
    let expect = ExpectMemory {
        gpa: 0,
        len: 0x40_0000,
        vtl2_protectable: false,
    };
    plan.expect_memory(expect, HERE).expect("memory exists");
    let large = Import {
        len: 2 << 20,
        large: true,
        ..page(4 << 20, Contents::Zero)
    };
    plan.import(large, HERE).expect("large page does not overlap");
    let list = vec![VbsRegister {
        vtl: 0,
        name: VbsRegisterName::R12,
        value: VbsValue::U64(0),
    }];
    plan.vp_context(
        VpContext {
            vp: 0,
            gpa: 0,
            state: VpState::Vbs(list),
        },
        HERE,
    )
    .expect("one context");
    plan.finish()
}

fn realm() -> LaunchPlan<'static> {
    let mut facts = PlatformFacts::new(Isolation::Cca, Arch::Aarch64);
    facts.cca_policy = Some(CcaPolicy {
        required_zeroes: 1,
        required_ones: 2,
        hash_algorithm: 0,
        lfa_policy: 0,
    });
    let mut plan = PlanBuilder::new(facts);
    plan.plan_mut().endorsements.corim = Some(Corim {
        document: vec![1; 40].into(),
        signature: Some(vec![2; 20].into()),
    });
    plan.import(page(0, Contents::borrowed(&[1; 256])), HERE)
        .expect("one page");
    let state = VpState::Cca(vec![3; 80].into());
    plan.vp_context(VpContext { vp: 0, gpa: 0, state }, HERE)
        .expect("one context");
    plan.finish()
}

/// Values that sit on borders.
const INTERESTING: [u64; 18] = [
    0,
    1,
    2,
    3,
    8,
    0xFFF,
    0x1000,
    0x1001,
    0x20_0000,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_F000,
    0xFFFF_FFFF,
    0x1_0000_0000,
    1 << 52,
    1 << 63,
    u64::MAX - 0xFFF,
    u64::MAX,
];

/// Damages a file in one to six places; nine times of ten its sizes and checksum are made right again.
pub(crate) fn mutate(random: &mut Random, original: &[u8]) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for _ in 0..1 + random.index(6) {
        damage(random, &mut bytes);
    }
    if !random.one_in(10) {
        repair(&mut bytes);
    }
    bytes
}

/// Extents of the headers as (start, end), as far as they can be walked.
fn extents(bytes: &[u8]) -> Vec<(usize, usize)> {
    let Ok(file) = File::read(bytes) else {
        return Vec::new();
    };
    let end = file.data_start() as usize;
    let extent = |start: usize, len: u32| (start, (start + 8 + len as usize).next_multiple_of(8).min(end));
    file.headers()
        .iter()
        .map(|header| extent(header.offset as usize, header.len))
        .collect()
}

fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let headers = extents(bytes);
    match (random.index(10), &headers[..]) {
        (0, _) => {
            let at = random.index(bytes.len());
            bytes[at] ^= 1 << random.index(8);
        }
        (1, _) => {
            let keep = random.index(bytes.len());
            bytes.truncate(keep);
        }
        (2, []) | (3, []) => bytes.push(random.bits() as u8),
        (2, all) => duplicate(random, bytes, all),
        (3, all) => {
            let (start, end) = random.pick(all);
            resize_headers(bytes, start, end - start, &[]);
        }
        (4, all) if all.len() > 1 => {
            let (from, to) = (random.pick(all), random.pick(all));
            let moved = bytes[from.0..from.1].to_vec();
            resize_headers(bytes, from.0, moved.len(), &[]);
            let at = if to.0 > from.0 { to.0 - moved.len() } else { to.0 };
            resize_headers(bytes, at, 0, &moved);
        }
        (5, all) if !all.is_empty() => {
            let types = [
                0x1, 0x101, 0x102, 0x103, 0x104, 0x106, 0x301, 0x302, 0x303, 0x304, 0x305, 0x30B, 0x30D,
            ];
            let other = random.pick(&types) + random.index(4) as u32;
            let (start, _) = random.pick(all);
            bytes[start..start + 4].copy_from_slice(&other.to_le_bytes());
        }
        _ => set_field(random, bytes, &headers),
    }
}

fn duplicate(random: &mut Random, bytes: &mut Vec<u8>, all: &[(usize, usize)]) {
    let (start, end) = random.pick(all);
    let copy = bytes[start..end].to_vec();
    let (at, _) = random.pick(all);
    for _ in 0..1 + random.index(3) {
        resize_headers(bytes, at, 0, &copy);
    }
}

/// Sets a 2, 4 or 8 byte field in a header (or the fixed header) to a value on a border or near its own.
fn set_field(random: &mut Random, bytes: &mut [u8], headers: &[(usize, usize)]) {
    let (start, end) = if headers.is_empty() || random.one_in(12) {
        (0, bytes.len().min(32))
    } else {
        random.pick(headers)
    };
    let width = random.pick(&[2, 4, 8]);
    if end < start + width {
        return;
    }
    let at = start + random.index((end - start) / width) * width;
    let mut old = [0; 8];
    old[..width].copy_from_slice(&bytes[at..at + width]);
    let value = match random.index(4) {
        0 => random.bits(),
        1 => u64::from_le_bytes(old).wrapping_add(random.pick(&INTERESTING)),
        2 => u64::from_le_bytes(old).wrapping_sub(random.pick(&INTERESTING)),
        _ => random.pick(&INTERESTING),
    };
    bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
}

/// Replaces `old_len` bytes of the variable headers, and moves the file offsets of all data behind.
fn resize_headers(bytes: &mut Vec<u8>, at: usize, old_len: usize, new: &[u8]) {
    bytes.splice(at..at + old_len, new.iter().copied());
    let size = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
    let delta = (new.len() as u32).wrapping_sub(old_len as u32);
    bytes[12..16].copy_from_slice(&size.wrapping_add(delta).to_le_bytes());
    for (start, end) in extents(bytes) {
        let field =
            match u32::from_le_bytes([bytes[start], bytes[start + 1], bytes[start + 2], bytes[start + 3]]) {
                0x301 | 0x302 | 0x304 => start + 8 + 12,
                0x104 | 0x105 => start + 8 + 4,
                _ => continue,
            };
        if field + 4 > end {
            continue;
        }
        let offset = u32::from_le_bytes([bytes[field], bytes[field + 1], bytes[field + 2], bytes[field + 3]]);
        if offset != 0 {
            bytes[field..field + 4].copy_from_slice(&offset.wrapping_add(delta).to_le_bytes());
        }
    }
}

/// Makes total size and checksum right, so that the damage behind them is seen.
fn repair(bytes: &mut [u8]) {
    if bytes.len() < 24 {
        return;
    }
    let total = bytes.len() as u32;
    bytes[16..20].copy_from_slice(&total.to_le_bytes());
    let Ok(file) = File::read(bytes) else { return };
    let checksum = file.fixed_header().compute_checksum(file.variable_headers());
    bytes[20..24].copy_from_slice(&checksum.to_le_bytes());
}

/// How far a file came.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Depth {
    /// Structures that could be read.
    pub(crate) read: u64,
    /// Platforms that could be planned.
    pub(crate) planned: u64,
    /// Plans that could be moved.
    pub(crate) moved: u64,
    /// Plans that could be bound.
    pub(crate) bound: u64,
    /// Plans that were encoded and read back.
    pub(crate) encoded: u64,
}

/// Takes a file through reading, checking, planning and moving. Panics when a promise is broken.
pub(crate) fn read_and_plan<'a>(bytes: &'a [u8], depth: &mut Depth) -> Vec<LaunchPlan<'a>> {
    let Ok(file) = File::read(bytes) else {
        return Vec::new();
    };
    depth.read += 1;
    for problem in file.check() {
        assert!(!problem.to_string().is_empty());
    }
    let mut plans = Vec::new();
    for platform in file.platforms() {
        let Ok(plan) = file.plan(platform.isolation) else {
            continue;
        };
        depth.planned += 1;
        for region in &plan.relocatable {
            let base = region.gpa.wrapping_add(region.alignment.wrapping_mul(4));
            depth.moved += u64::from(file.plan_at(platform.isolation, base).is_ok());
        }
        plans.push(plan);
    }
    plans
}

/// Binds, prints and encodes plans, and writes the file back. Panics when a promise is broken.
pub(crate) fn use_plans(bytes: &[u8], plans: &[LaunchPlan<'_>], depth: &mut Depth) {
    /// Files that grow beyond this when encoded are not made.
    const LARGEST: u64 = 32 << 20;
    if let Ok(file) = File::read(bytes) {
        let mut written = Vec::new();
        file.write(&mut written).expect("writing to memory works");
        assert!(written == bytes, "the file changed when written back");
    }
    let mut host = HostValues::new(2);
    for kind in ParameterKind::ALL {
        host.set(kind, vec![0x5A; 64]);
    }
    host.hand_over = Some(HandOver {
        what: "blob",
        gpa: 0x70_9000,
        blob: vec![1; 5000].into(),
    });
    for plan in plans {
        assert!(!plan.to_string().is_empty());
        if let Ok(bound) = plan.bind(&host) {
            depth.bound += 1;
            assert!(
                bound
                    .imports()
                    .all(|import| import.data.is_none_or(|data| data.len() as u64 <= import.len))
            );
        }
        let options = EncodeOptions {
            format: FormatVersion::V2,
            version_string: None,
        };
        let Ok(encoded) = encode(std::slice::from_ref(plan), &options) else {
            continue;
        };
        if encoded.len() > LARGEST {
            continue;
        }
        let again = encoded.to_vec();
        let read = File::read(&again).expect("encoded files are read");
        let planned = read
            .plan(plan.facts.isolation)
            .expect("encoded files are planned");
        assert!(&planned == plan, "the plan changed when encoded");
        depth.encoded += 1;
    }
}
