// SPDX-License-Identifier: MIT
//! IGVM files that cannot be launched, each with its whole message.
//!
//! Files are put together from raw bytes here, so that the encoder under test has no say in them.

use crate::images::{self, Folder, arg};
use launch_plan::{Isolation, Origin, VpContext, VpState};
use std::path::Path;
use vmm_tests::{Vm, files};

const PLATFORM: u32 = 0x001;
const POLICY: u32 = 0x101;
const AREA: u32 = 0x301;
const PAGE: u32 = 0x302;
const INSERT: u32 = 0x303;
const CONTEXT: u32 = 0x304;
const REQUIRED: u32 = 0x305;
const VP_COUNT: u32 = 0x307;
const MEMORY_MAP: u32 = 0x30C;
const ERROR_RANGE: u32 = 0x30D;
/// Bytes of the version 1 fixed header.
const FIXED: usize = 24;

type Header = (u32, Vec<u8>);

/// Little-endian fields.
fn fields(values: &[(u64, usize)]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|&(value, width)| value.to_le_bytes()[..width].to_vec())
        .collect()
}

fn platform(mask: u32, vtl: u8, kind: u8) -> Header {
    let values = [
        (mask.into(), 4),
        (vtl.into(), 1),
        (kind.into(), 1),
        (1, 2),
        (0, 8),
    ];
    (PLATFORM, fields(&values))
}

fn page(gpa: u64, mask: u32, offset: u32) -> Header {
    (
        PAGE,
        fields(&[(gpa, 8), (mask.into(), 4), (offset.into(), 4), (0, 8)]),
    )
}

fn area(index: u32, bytes: u64) -> Header {
    (AREA, fields(&[(bytes, 8), (index.into(), 4), (0, 4)]))
}

fn insert(gpa: u64, index: u32) -> Header {
    (INSERT, fields(&[(gpa, 8), (1, 4), (index.into(), 4)]))
}

fn parameter(kind: u32, index: u32, offset: u32) -> Header {
    (kind, fields(&[(index.into(), 4), (offset.into(), 4)]))
}

fn range(kind: u32, gpa: u64, bytes: u32) -> Header {
    let rest = if kind == REQUIRED { 8 } else { 0 };
    (kind, fields(&[(gpa, 8), (1, 4), (bytes.into(), 4), (0, rest)]))
}

/// A version 1 file with one page of data, which starts at the offset that [`data_at`] gives.
fn file(headers: &[Header]) -> Vec<u8> {
    let mut tlv = Vec::new();
    for (kind, content) in headers {
        tlv.extend(kind.to_le_bytes());
        tlv.extend((content.len() as u32).to_le_bytes());
        tlv.extend(content);
        tlv.resize(tlv.len().next_multiple_of(8), 0);
    }
    let total = FIXED + tlv.len() + 4096;
    let start = [0x4D56_4749, 1, FIXED as u64, tlv.len() as u64, total as u64, 0];
    let mut bytes = fields(&start.map(|value| (value, 4)));
    bytes.extend(&tlv);
    bytes.resize(total, 0xF4);
    with_checksum(bytes)
}

/// Replaces bytes and makes the checksum right again.
fn patched(mut bytes: Vec<u8>, at: usize, with: &[u8]) -> Vec<u8> {
    bytes[at..at + with.len()].copy_from_slice(with);
    with_checksum(bytes)
}

fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let size = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    bytes[20..24].fill(0);
    let end = FIXED.saturating_add(size).min(bytes.len());
    let sum = crc32fast::hash(&bytes[..end]);
    bytes[20..24].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Where the data of a file with these header sizes begins.
fn data_at(contents: &[usize]) -> u32 {
    (FIXED
        + contents
            .iter()
            .map(|len| 8 + len.next_multiple_of(8))
            .sum::<usize>()) as u32
}

/// Platform NATIVE and one page at 0x100000.
fn good() -> Vec<Header> {
    vec![platform(1, 0, 0), page(0x10_0000, 1, data_at(&[16, 24]))]
}

fn with(more: Header) -> Vec<u8> {
    let mut headers = good();
    headers.push(more);
    // Where the page's bytes are does not matter: offset 0 is a zero page.
    headers[1] = page(0x10_0000, 1, 0);
    file(&headers)
}

/// The whole message of `openvmm --igvm ... --dry-run`, and its exit code.
fn refusal(folder: &Folder, builder: vmm_tests::VmBuilder) -> (i32, String) {
    let ended = builder.args(["--dry-run"]).run();
    (ended.code, folder.strip(ended.stderr.trim_end()))
}

#[track_caller]
fn assert_all_refused(table: Vec<(Vec<u8>, &str)>) {
    let folder = Folder::new();
    let mut wrong = Vec::new();
    for (n, (bytes, message)) in table.iter().enumerate() {
        let path = folder.write("bad", bytes);
        let got = refusal(&folder, Vm::without_backend().igvm(&path).args(["-m", "64MB"]));
        if got != (1, format!("openvmm: {message}")) {
            wrong.push(format!("row {n}: {got:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        table.len(),
        wrong.join("\n")
    );
}

#[test]
fn good_base_file_is_accepted() {
    let folder = Folder::new();
    let path = folder.write("good", file(&good()));
    let got = refusal(&folder, Vm::without_backend().igvm(&path));
    assert_eq!(got.0, 0, "{}", got.1);
}

#[test]
fn broken_structure_is_refused() {
    let base = file(&good());
    let mut trailing = base.clone();
    trailing.push(0);
    let mut wrong_sum = base.clone();
    wrong_sum[20] ^= 1;
    assert_all_refused(vec![
        (
            Vec::new(),
            "bad: file offset 0x0: the file has 0 bytes; its fixed header needs 24 [too-short]",
        ),
        (
            base[..23].to_vec(),
            "bad: file offset 0x0: the file has 23 bytes; its fixed header needs 24 [too-short]",
        ),
        (
            patched(base.clone(), 0, b"MVGI"),
            "bad: file offset 0x0: the file starts with 0x4947564d, not IGVM (0x4d564749) [magic]",
        ),
        (
            patched(base.clone(), 4, &[3]),
            "bad: file offset 0x4: format version 3 is not known; it must be 1 or 2 [format-version]",
        ),
        (
            wrong_sum,
            "bad: file offset 0x14: checksum 0x4f16f5ad should be 0x4f16f5ac [checksum]",
        ),
        (
            trailing,
            "bad: file offset 0x10: total file size 0x1050 is not the file's length 0x1051 [total-size]",
        ),
        (
            base[..base.len() - 1].to_vec(),
            "bad: file offset 0x10: total file size 0x1050 is not the file's length 0x104f [total-size]; 1 more errors, which the check command lists",
        ),
        (
            patched(base.clone(), 8, &0x7FFF_FFF8_u32.to_le_bytes()),
            "bad: file offset 0x8: variable headers 0x7ffffff8..0x80000030 must lie behind the fixed header of 24 bytes and inside the file of 0x1050 bytes [header-range]",
        ),
        (
            patched(base.clone(), 8, &[25]),
            "bad: header 0 (file offset 0x19): type 0x10000000 says 0x1000000 bytes of content; 0x30 are left of the variable headers [header-truncated]",
        ),
        (
            patched(base.clone(), 12, &0xFFFF_FFF8_u32.to_le_bytes()),
            "bad: file offset 0x8: variable headers 0x18..0x100000010 must lie behind the fixed header of 24 bytes and inside the file of 0x1050 bytes [header-range]",
        ),
        (
            patched(base.clone(), 12, &[50]),
            "bad: header 1 (file offset 0x30): type 0x302 says 0x18 bytes of content; 0x12 are left of the variable headers [header-truncated]",
        ),
        (
            patched(base.clone(), FIXED, &0x150_u32.to_le_bytes()),
            "bad: header 0 (file offset 0x18): header type 0x150 is not known [header-type]; 1 more errors, which the check command lists",
        ),
        (
            patched(base.clone(), FIXED + 4, &[8]),
            "bad: header 0 (file offset 0x18): SUPPORTED_PLATFORM has 8 bytes, not 16 [header-length]; 2 more errors, which the check command lists",
        ),
        (
            file(&[]),
            "bad: file offset 0x18: no usable supported platform header [platform-none]",
        ),
        (
            file(&[good()[1].clone()]),
            "bad: header 0 (gpa 0x100000, file offset 0x18): data at file offset 0x50 of 0x1000 bytes is outside the file data 0x38..0x1038 [data-range]; 1 more errors, which the check command lists",
        ),
        (
            file(&[good()[1].clone(), good()[0].clone()]),
            "bad: header 1 (file offset 0x38): a platform header stands behind the first directive header [section-order]; 1 more errors, which the check command lists",
        ),
    ]);
}

#[test]
fn broken_platforms_and_masks_are_refused() {
    let two = |first: Header, second: Header| file(&[first, second, page(0x10_0000, 1, 0)]);
    assert_all_refused(vec![
        (
            two(platform(1, 0, 0), platform(2, 0, 0)),
            "bad: header 1 (file offset 0x30): platform native is listed twice [platform-duplicate]",
        ),
        (
            two(platform(1, 0, 0), platform(1, 0, 1)),
            "bad: header 1 (file offset 0x30): platform mask 0x1 is taken by another platform [platform-mask-shared]",
        ),
        (
            file(&[platform(3, 0, 0), page(0x10_0000, 1, 0)]),
            "bad: header 0 (file offset 0x18): platform mask 0x3 must have exactly one bit [platform-mask]; 1 more errors, which the check command lists",
        ),
        (
            file(&[platform(0, 0, 0), page(0x10_0000, 1, 0)]),
            "bad: header 0 (file offset 0x18): platform mask 0x0 must have exactly one bit [platform-mask]; 1 more errors, which the check command lists",
        ),
        (
            file(&[platform(1, 1, 1), page(0x10_0000, 1, 0)]),
            "bad: header 0 (file offset 0x18): highest vtl 1 must be 0 or 2 [platform-vtl]; 1 more errors, which the check command lists",
        ),
        (
            file(&[platform(1, 0, 9), page(0x10_0000, 1, 0)]),
            "bad: header 0 (file offset 0x18): platform type 9 is not known [platform-type]; 1 more errors, which the check command lists",
        ),
        (
            file(&[platform(1, 0, 6), page(0x10_0000, 1, 0)]),
            "bad: header 0 (file offset 0x18): platform cca does not exist on x64 [platform-architecture]; 1 more errors, which the check command lists",
        ),
    ]);
}

#[test]
fn broken_directives_are_refused() {
    let outside = [
        platform(1, 0, 0),
        area(0, 4096),
        parameter(VP_COUNT, 0, 4096),
        insert(0x20_0000, 0),
    ];
    let without_area = [platform(1, 0, 0), parameter(VP_COUNT, 7, 0)];
    let twice = [
        platform(1, 0, 0),
        area(0, 4096),
        insert(0x20_0000, 0),
        insert(0x30_0000, 0),
    ];
    let duplicate = [
        platform(1, 0, 0),
        area(0, 4096),
        area(0, 4096),
        insert(0x20_0000, 0),
    ];
    let over = [
        platform(1, 0, 0),
        page(0x20_0000, 1, 0),
        area(0, 4096),
        insert(0x20_0000, 0),
    ];
    let huge = [platform(1, 0, 0), area(0, 1 << 40), insert(0x20_0000, 0)];
    let odd = [platform(1, 0, 0), area(0, 100), insert(0x20_0000, 0)];
    let two_policies = [
        platform(1, 0, 2),
        (POLICY, fields(&[(0x30000, 8), (1, 4), (0, 4)])),
        (POLICY, fields(&[(0x30000, 8), (1, 4), (0, 4)])),
    ];
    assert_all_refused(vec![
        (
            with(page(0x10_0000, 1, 0)),
            "bad: header 2 (gpa 0x100000, file offset 0x50): 0x1000 bytes overlap gpa 0x100000 of 0x1000 bytes from header 1 at file offset 0x30 on platform native [gpa-overlap]",
        ),
        (
            with(page(0x10_0800, 1, 0)),
            "bad: header 2 (gpa 0x100800, file offset 0x50): page of 0x1000 bytes must start and end at multiples of 0x1000 [page-alignment]",
        ),
        (
            with(page(u64::MAX - 4095, 1, 0)),
            "bad: header 2 at file offset 0x50: pages are imported at 0xfffffffffffff000..0xffffffffffffffff, beyond the 46 physical address bits of this guest",
        ),
        (
            with(page(0x20_0000, 1, 8)),
            "bad: header 2 (gpa 0x200000, file offset 0x50): data at file offset 0x8 of 0x1000 bytes is outside the file data 0x70..0x1070 [data-range]",
        ),
        (
            with(page(0x20_0000, 1, 0x7FFF_F000)),
            "bad: header 2 (gpa 0x200000, file offset 0x50): data at file offset 0x7ffff000 of 0x1000 bytes is outside the file data 0x70..0x1070 [data-range]",
        ),
        (
            with((PAGE, fields(&[(0x20_0000, 8), (1, 4), (0, 4), (0x80, 4), (0, 4)]))),
            "bad: header 2 (gpa 0x200000, file offset 0x50): undefined flags is 0x10 and must be zero [reserved-field]",
        ),
        (
            with((PAGE, fields(&[(0x20_0000, 8), (1, 4), (0, 4), (0, 4), (9, 4)]))),
            "bad: header 2 (gpa 0x200000, file offset 0x50): page data type 9 is not known [page-type]",
        ),
        (
            with((PAGE, fields(&[(0x21_0000, 8), (1, 4), (0, 4), (1, 4), (0, 4)]))),
            "bad: header 2 (gpa 0x210000, file offset 0x50): page of 0x200000 bytes must start and end at multiples of 0x200000 [page-alignment]",
        ),
        (
            with((CONTEXT, fields(&[(0, 8), (1, 4), (0x7FFF_F000, 4), (0, 4)]))),
            "bad: header 2 (file offset 0x50): context at file offset 0x7ffff000 of 0xe8 bytes is outside the file data [data-range]",
        ),
        (
            with(range(REQUIRED, 0x800, 0x1000)),
            "bad: header 2 (gpa 0x800, file offset 0x50): required memory of 0x1000 bytes must start and end at multiples of 0x1000 [page-alignment]",
        ),
        (
            with(range(ERROR_RANGE, 0x20_0000, 0)),
            "bad: header 2 (gpa 0x200000, file offset 0x50): error range of 0x0 bytes is empty or passes the end of the address space [gpa-range]",
        ),
        (
            file(&outside),
            "bad: header 2 (file offset 0x48): VP count at byte offset 0x1000 passes the end of parameter area 0 of 0x1000 bytes [parameter-range]",
        ),
        (
            file(&without_area),
            "bad: header 1 (file offset 0x30): VP count refers to undeclared parameter area 7 [area-unknown]",
        ),
        (
            file(&twice),
            "bad: header 3 (gpa 0x300000, file offset 0x60): parameter area 0 is inserted already [area-inserted]",
        ),
        (
            file(&duplicate),
            "bad: header 2 (file offset 0x48): parameter area 0 is declared twice [area-duplicate]",
        ),
        (
            file(&over),
            "bad: header 3 (gpa 0x200000, file offset 0x68): 0x1000 bytes overlap gpa 0x200000 of 0x1000 bytes from header 1 at file offset 0x30 on platform native [gpa-overlap]",
        ),
        (
            file(&huge),
            "bad: header 1 (file offset 0x30): parameter area 0 of 0x10000000000 bytes must be 0x1000 to 0x40000000 in pages [area-size]",
        ),
        (
            file(&odd),
            "bad: header 1 (file offset 0x30): parameter area 0 of 0x64 bytes must be 0x1000 to 0x40000000 in pages [area-size]; 1 more errors, which the check command lists",
        ),
        (
            file(&two_policies),
            "bad: no platform of the file can be launched without isolation, which takes native, or vsm at vtl 0 (snp: it needs isolation, and the launch has none)",
        ),
    ]);
}

#[test]
fn good_files_for_others_are_refused() {
    assert_all_refused(vec![
        (
            images::halting(&[Isolation::Snp]),
            "bad: no platform of the file can be launched without isolation, which takes native, or vsm at vtl 0 (snp: it needs isolation, and the launch has none)",
        ),
        (
            images::halting(&[Isolation::SevEs]),
            "bad: no platform of the file can be launched without isolation, which takes native, or vsm at vtl 0 (sev-es: it needs isolation, and the launch has none)",
        ),
        (
            images::halting(&[Isolation::Sev]),
            "bad: no platform of the file can be launched without isolation, which takes native, or vsm at vtl 0 (sev: it needs isolation, and the launch has none)",
        ),
        (
            images::halting(&[Isolation::Tdx]),
            "bad: no platform of the file can be launched without isolation, which takes native, or vsm at vtl 0 (tdx: it needs isolation, and the launch has none)",
        ),
        (
            images::halting(&[Isolation::Snp, Isolation::Tdx]),
            "bad: no platform of the file can be launched without isolation, which takes native, or vsm at vtl 0 (snp: it needs isolation, and the launch has none; tdx: it needs isolation, and the launch has none)",
        ),
        (
            images::halting(&[Isolation::Cca]),
            "bad: the file is for aarch64 guests, and this program runs x86-64 guests",
        ),
        (
            file(&[platform(1, 2, 1), page(0x10_0000, 1, 0)]),
            "bad: no platform of the file can be launched without isolation, which takes native, or vsm at vtl 0 (vsm: it needs vtl2 (OpenHCL), which is not available on this hypervisor)",
        ),
        (
            with(range(REQUIRED, 0, 0x800_0000)),
            "bad: header 2 at file offset 0x50: the image requires memory at 0x0..0x8000000, but there is none at 0x4000000..0x8000000; -m 128M fits it",
        ),
    ]);
}

#[test]
fn host_values_that_do_not_fit_are_refused() {
    let small_map = [
        platform(1, 0, 0),
        area(0, 4096),
        parameter(MEMORY_MAP, 0, 4090),
        insert(0x20_0000, 0),
    ];
    let overlapping = [
        platform(1, 0, 0),
        area(0, 4096),
        parameter(MEMORY_MAP, 0, 0),
        parameter(VP_COUNT, 0, 4),
        insert(0x20_0000, 0),
    ];
    assert_all_refused(vec![
        (
            file(&small_map),
            "bad: header 2 (file offset 0x48): memory map at byte offset 0xffa passes the end of parameter area 0 of 0x1000 bytes [parameter-range]",
        ),
        (
            file(&overlapping),
            "bad: header 3 (file offset 0x58): VP count at byte offset 0x4 overlaps another parameter of area 0 [parameter-overlap]",
        ),
    ]);
}

#[test]
fn uefi_payloads_that_cannot_start_are_refused() {
    let folder = Folder::new();
    let file = |name: &str, build: &dyn Fn(&mut launch_plan::PlanBuilder<'static>)| {
        let mut builder = images::builder(Isolation::Vsm);
        build(&mut builder);
        folder.write(name, images::igvm(&[builder.finish()]))
    };
    let over_blob = file("over-blob", &|builder| {
        images::add_page(builder, 0x70_9000, vec![1]);
        images::add_processor(builder, Isolation::Vsm, 0x10_0000);
    });
    let no_processor = file("no-processor", &|builder| {
        images::add_page(builder, 0x10_0000, vec![1]);
    });
    let outside_ram = file("outside-ram", &|builder| {
        images::add_page(builder, 0x4000_0000, vec![1]);
        images::add_processor(builder, Isolation::Vsm, 0x10_0000);
    });
    let impossible = file("impossible", &|builder| {
        let mut native = launch_plan::NativeContext {
            cr0: 1 << 31,
            ..Default::default()
        };
        native.rip = 0x10_0000;
        let list = launch_plan::VbsRegister {
            vtl: 0,
            name: launch_plan::VbsRegisterName::Cr0,
            value: launch_plan::VbsValue::U64(native.cr0),
        };
        let context = VpContext {
            vp: 0,
            gpa: 0,
            state: VpState::Vbs(vec![list]),
        };
        builder
            .vp_context(context, Origin::Host("test processor"))
            .unwrap();
    });
    let table: [(&Path, &str, &str); 5] = [
        (
            &over_blob,
            "64MB",
            "config blob: gpa 0x709000 of 0x1000 bytes would overwrite imported code or data at gpa 0x709000 of 0x1000 bytes from header 1 at file offset 0x30; rebuild the image with that range free",
        ),
        (
            &no_processor,
            "64MB",
            "no-processor: the file has no context for the boot processor, so nothing would start the firmware",
        ),
        (
            &outside_ram,
            "64MB",
            "outside-ram: header 1 at file offset 0x30: pages are imported at 0x40000000..0x40001000, but there is no memory at 0x40000000..0x40001000; -m 1025M fits it",
        ),
        (
            &impossible,
            "64MB",
            "header 1 at file offset 0x30: vp 0 cannot start: cr0 0x80000000 has paging without protected mode (PG needs PE)",
        ),
        (
            &over_blob,
            "4MB",
            "over-blob: header 1 at file offset 0x30: pages are imported at 0x709000..0x70a000, but there is no memory at 0x709000..0x70a000; -m 8M fits it",
        ),
    ];
    let mut wrong = Vec::new();
    for (path, memory, message) in table {
        let got = refusal(
            &folder,
            Vm::without_backend().uefi_igvm(path).args(["-m", memory]),
        );
        if got != (1, format!("openvmm: {message}")) {
            wrong.push(format!("{}: {got:?}", arg(path)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn file_cut_at_every_header_is_refused() {
    let folder = Folder::new();
    let whole = files::uefi_probe();
    let whole = std::fs::read(whole.path()).unwrap();
    let headers = u32::from_le_bytes(whole[12..16].try_into().unwrap()) as usize;
    let mut ends = vec![0, 8, FIXED];
    let mut at = FIXED;
    while at < FIXED + headers {
        let len = u32::from_le_bytes(whole[at + 4..at + 8].try_into().unwrap()) as usize;
        at += 8 + len.next_multiple_of(8);
        ends.push(at);
    }
    assert!(ends.len() > 1500);
    // One process per cut takes a while; all cuts are checked in process, some through the program.
    for (n, &end) in ends.iter().enumerate() {
        let cut = &whole[..end];
        let problem = match vm_loaders::igvm::File::read(cut) {
            Err(problem) => problem.to_string(),
            Ok(file) => match file.plan(Isolation::Vsm) {
                Err(refused) => refused.to_string(),
                Ok(_) => panic!("a file cut at {end:#x} was planned"),
            },
        };
        if n % 250 == 0 {
            let path = folder.write("cut", cut);
            let got = refusal(&folder, Vm::without_backend().uefi_igvm(&path));
            assert_eq!(got, (1, format!("openvmm: cut: {problem}")));
        }
    }
}
