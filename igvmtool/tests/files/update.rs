// SPDX-License-Identifier: MIT
//! `update`: one thing changes, the rest stays, and the ID block is answered for.

use crate::build::*;
use crate::corpus::{msvm_image, ovmf_image, samples};
use crate::program::{Folder, igvmtool, ok, run, text};
use launch_plan::*;
use openvmm_defs::{GpaRange, Machine, MemoryLayout};
use vm_loaders::igvm::{File, FormatVersion, Severity};
use vm_loaders::{linux, ovmf, uefi};

const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/id-key.pem");

struct Work {
    folder: Folder,
    before: String,
}

impl Work {
    fn on(bytes: &[u8]) -> Self {
        let folder = Folder::new();
        let before = folder.write("before.igvm", bytes);
        Self { folder, before }
    }

    /// Updates; the new file.
    fn update(&self, args: &[&str]) -> Vec<u8> {
        let after = self.folder.path("after.igvm");
        ok(&[&["update", &self.before, "-o", text(&after)], args].concat());
        let bytes = std::fs::read(&after).unwrap();
        let errors: Vec<_> = File::read(&bytes)
            .unwrap()
            .check()
            .into_iter()
            .filter(|problem| problem.severity() == Severity::Error)
            .collect();
        assert!(errors.is_empty(), "{errors:?}");
        bytes
    }

    /// Differences between the file and its update.
    fn diff(&self) -> Vec<String> {
        let (_, shown) = run(&["diff", &self.before, text(&self.folder.path("after.igvm"))]);
        let lines = shown
            .lines()
            .filter(|line| !line.contains("the launch digest the launch"));
        lines.map(str::to_owned).collect()
    }

    /// An update that is refused with a message.
    fn refused(&self, args: &[&str], message: &str) {
        let after = self.folder.path("refused.igvm");
        let output = igvmtool(&[&["update", &self.before, "-o", text(&after)], args].concat());
        let shown = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{shown}");
        assert!(shown.contains(message), "{message}: {shown}");
        assert!(!after.exists() && !self.folder.path("refused.igvm.draft").exists());
    }
}

#[test]
fn policy_changes_alone() {
    let work = Work::on(&v1(builder(Shape::of(Isolation::Snp))));
    work.update(&["--policy", "0xb0000", "--platform", "snp"]);
    let diff = work.diff();
    assert!(
        diff[0].starts_with("snp: policy bit 19 debug: not allowed becomes allowed"),
        "{diff:?}"
    );
    assert!(
        diff[1].starts_with("snp: the launch digest is the same"),
        "{diff:?}"
    );
    assert_eq!(diff.len(), 2);
    work.refused(
        &["--policy", "0x40000", "--platform", "snp"],
        "[policy-must-be-one]",
    );
    work.refused(
        &["--policy", "0x30000", "--platform", "tdx"],
        "the file has no such platform",
    );
}

#[test]
fn parameter_data_and_command_line_parameter_change() {
    let shape = Shape {
        parameters: &[],
        ..Shape::of(Isolation::Native)
    };
    let mut plan = builder(shape);
    plan.import(
        area(0x20_0000, &[ParameterKind::CommandLine], b"old line".to_vec()),
        HERE,
    )
    .unwrap();
    let work = Work::on(&v1(plan));
    let initial = |bytes: &[u8]| {
        let file = File::read(bytes).unwrap();
        let plan = file.plan(Isolation::Native).unwrap();
        let areas = plan.steps().iter().filter_map(|step| match &step.kind {
            StepKind::Import(Import {
                contents: Contents::Parameters(area),
                ..
            }) => Some(area.initial.to_vec()),
            _ => None,
        });
        let all: Vec<_> = areas.collect();
        all[0][..12].to_vec()
    };
    assert_eq!(
        initial(&work.update(&["--cmdline", "new"])),
        b"new\0\0\0\0\0\0\0\0\0"
    );
    let data = work.folder.write("area", b"another line");
    assert_eq!(
        initial(&work.update(&["--parameter-data", &format!("0={data}")])),
        b"another line"
    );
    work.refused(&["--parameter-data", &format!("7={data}")], "no parameter area 7");
}

#[test]
fn platforms_are_stripped_and_merged() {
    let plan = |isolation| builder(Shape::of(isolation)).finish();
    let both = file(&[plan(Isolation::Snp), plan(Isolation::Tdx)], FormatVersion::V2);
    let work = Work::on(&both);
    let snp = work.update(&["--strip", "tdx"]);
    let names = |bytes: &[u8]| -> Vec<_> {
        let file = File::read(bytes).unwrap();
        file.platforms()
            .iter()
            .map(|platform| platform.isolation)
            .collect()
    };
    assert_eq!(names(&snp), [Isolation::Snp]);
    assert!(File::read(&snp).unwrap().plan(Isolation::Snp).unwrap() == plan(Isolation::Snp));
    assert_eq!(
        File::read(&snp).unwrap().fixed_header().version,
        FormatVersion::V2
    );
    let other = work.folder.write(
        "vsm.igvm",
        file(&[plan(Isolation::Vsm), plan(Isolation::Snp)], FormatVersion::V1),
    );
    let merged = work.update(&["--merge", &other]);
    assert_eq!(names(&merged), [Isolation::Snp, Isolation::Tdx, Isolation::Vsm]);
    for isolation in names(&merged) {
        assert!(
            File::read(&merged).unwrap().plan(isolation).unwrap() == plan(isolation),
            "{isolation}"
        );
    }
    work.refused(&["--strip", "native"], "the file has no platform native");
    work.refused(&["--strip", "snp", "--strip", "tdx"], "[platform-none]");
    // Stripping comes first, so a platform can make room for that of another file.
    let mut changed = builder(Shape::of(Isolation::Snp));
    changed.plan_mut().facts.policy = Some(0xB_0000);
    let newer = work.folder.write("newer.igvm", v1(changed));
    let exchanged = work.update(&["--strip", "snp", "--merge", &newer]);
    assert_eq!(names(&exchanged), [Isolation::Tdx, Isolation::Snp]);
    let snp = File::read(&exchanged).unwrap().plan(Isolation::Snp).unwrap();
    assert_eq!(snp.facts.policy, Some(0xB_0000));
    assert!(!work.folder.path("after.igvm.stripped").exists());
}

#[test]
fn stripping_and_new_contents_at_once_equal_one_after_the_other() {
    let image = ovmf_image();
    let wrap = |image: &[u8], platforms: &[Isolation]| {
        let plans = platforms.iter().map(|&isolation| {
            let mut options = ovmf::WrapOptions::new(isolation, 2);
            options.mirror = isolation == Isolation::Native;
            ovmf::plan(image, &options).unwrap()
        });
        file(&plans.collect::<Vec<_>>(), FormatVersion::V1)
    };
    let mut other = image.clone();
    other[0x5000] ^= 0xFF;
    let work = Work::on(&wrap(&image, &[Isolation::Native, Isolation::Snp]));
    let firmware = work.folder.write("new.fd", &other);
    for left in [Isolation::Native, Isolation::Snp] {
        let gone = if left == Isolation::Snp { "native" } else { "snp" };
        let at_once = work.update(&["--strip", gone, "--firmware", &firmware]);
        let anew = wrap(&other, &[left]);
        let (ours, anew) = (File::read(&at_once).unwrap(), File::read(&anew).unwrap());
        let comparison = igvmtool::compare::compare(&ours, &anew);
        // The mask of a platform stays when others go.
        let same = comparison.differences.iter().all(|row| row.place == "mask");
        assert!(same && ours.platforms().len() == 1, "{comparison:#?}");
        let stripped = Work::on(&work.update(&["--strip", gone]));
        assert_eq!(stripped.update(&["--firmware", &firmware]), at_once, "{left}");
    }
    work.refused(
        &["--strip", "snp", "--policy", "0xb0000", "--platform", "snp"],
        "--policy: the file has no such platform",
    );
    let linux = linux_file(&bzimage(0x90, 0x5000), &[1; 5000], "console=ttyS0");
    let work = Work::on(&linux);
    let vsm = v1(builder(Shape::of(Isolation::Vsm)));
    let vsm = work.folder.write("vsm.igvm", vsm);
    let both = Work::on(&work.update(&["--merge", &vsm]));
    let kernel = both.folder.write("kernel", bzimage(0xCC, 0x7400));
    let change = ["--kernel", &kernel, "--cmdline", "quiet"];
    let bytes = both.update(&[&["--strip", "vsm"], &change[..]].concat());
    assert_eq!(bytes, work.update(&change));
}

#[test]
fn ovmf_images_change_places_and_other_tables_are_refused() {
    let image = ovmf_image();
    let plan = |image: &[u8], isolation| {
        let mut options = ovmf::WrapOptions::new(isolation, 1);
        options.mirror = isolation == Isolation::Native;
        file(&[ovmf::plan(image, &options).unwrap()], FormatVersion::V1)
    };
    let mut other = image.clone();
    other[0x5000] ^= 0xFF;
    other[0x1_8000] ^= 0xFF;
    for isolation in [Isolation::Native, Isolation::Snp] {
        let work = Work::on(&plan(&image, isolation));
        let path = work.folder.write("new.fd", &other);
        let bytes = work.update(&["--firmware", &path]);
        let wanted = plan(&other, isolation);
        let plan = |bytes| File::read(bytes).unwrap().plan(isolation).unwrap();
        assert!(plan(&bytes) == plan(&wanted));
    }
    let work = Work::on(&plan(&image, Isolation::Snp));
    let mut tables = image.clone();
    tables[0x1000 + 16 + 4] = 0;
    tables[0x1000 + 16 + 5] = 0x30;
    let path = work.folder.write("tables.fd", &tables);
    work.refused(&["--firmware", &path], "tables are not those of the old one");
}

#[test]
fn uefi_image_moves_its_entry_with_it() {
    let image = msvm_image();
    let mut other = image.clone();
    let pe = uefi::x64::SEC_VOLUME_OFFSET as usize + 72 + 28;
    other[pe + 0x80 + 40..pe + 0x80 + 44].copy_from_slice(&0x480u32.to_le_bytes());
    let make = |image: &[u8]| {
        file(
            &[uefi::plan(image, uefi::ConfigType::None).unwrap()],
            FormatVersion::V1,
        )
    };
    let work = Work::on(&make(&image));
    let path = work.folder.write("new.fd", &other);
    let bytes = work.update(&["--firmware", &path]);
    let plan = |bytes| File::read(bytes).unwrap().plan(Isolation::Vsm).unwrap();
    let wanted = make(&other);
    assert!(plan(&bytes) == plan(&wanted));
}

/// A bzImage of `sectors` sectors of code, filled with `byte`, for 1 MiB.
pub(crate) fn bzimage(byte: u8, len: usize) -> Vec<u8> {
    let mut image = vec![0; 1024];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1F1, &[1]);
    put(0x1F4, &((len as u32).div_ceil(16)).to_le_bytes());
    put(0x1FE, &[0x55, 0xAA, 0xEB, 0x66]);
    put(0x202, b"HdrS");
    put(0x206, &0x20Fu16.to_le_bytes());
    put(0x211, &[1]);
    put(0x22C, &0x7FFF_FFFFu32.to_le_bytes());
    put(0x230, &0x20_0000u32.to_le_bytes());
    put(0x234, &[1]);
    put(0x236, &3u16.to_le_bytes());
    put(0x238, &2047u32.to_le_bytes());
    put(0x258, &0x100_0000u64.to_le_bytes());
    put(0x260, &0x10_0000u32.to_le_bytes());
    image.extend(vec![byte; len]);
    image
}

pub(crate) fn linux_file(kernel: &[u8], initrd: &[u8], cmdline: &str) -> Vec<u8> {
    let layout = MemoryLayout {
        machine: Machine::Linux,
        ram: vec![GpaRange::new(0, 256 << 20)],
        low_mmio: GpaRange::new(0xF800_0000, 0x800_0000),
        high_mmio: GpaRange::default(),
        tpm: None,
        root_complexes: Vec::new(),
        phys_bits: 40,
        vp_count: 2,
    };
    let inputs = linux::LinuxInputs {
        kernel,
        initrd: Some(initrd),
        cmdline,
        layout: &layout,
        replaceable_cmdline: false,
    };
    file(&[linux::plan(&inputs).unwrap()], FormatVersion::V1)
}

#[test]
fn id_block_must_be_signed_anew_or_dropped() {
    let sample = samples()
        .into_iter()
        .find(|sample| sample.name == "snp-v1")
        .unwrap();
    let folder = Folder::new();
    let (plain, signed) = (
        folder.write("plain.igvm", &sample.bytes),
        folder.path("signed.igvm"),
    );
    ok(&["sign", &plain, "-o", text(&signed), "--id-key", KEY, "--svn", "7"]);
    let work = Work::on(&std::fs::read(&signed).unwrap());
    let policy = ["--policy", "0xb0000", "--platform", "snp"];
    work.refused(
        &policy,
        "sign it anew with --id-key or take it out with --drop id-block",
    );
    let bytes = work.update(&[&policy[..], &["--id-key", KEY]].concat());
    let file = File::read(&bytes).unwrap();
    let plan = file.plan(Isolation::Snp).unwrap();
    let block = plan.endorsements.id_block.as_ref().unwrap();
    assert_eq!(block.guest_svn, 7);
    assert!(launch_digest::id_block::verify(block, 0xB_0000, &block.launch_digest).is_ok());
    let bytes = work.update(&[&policy[..], &["--drop", "id-block"]].concat());
    assert!(
        File::read(&bytes)
            .unwrap()
            .plan(Isolation::Snp)
            .unwrap()
            .endorsements
            .id_block
            .is_none()
    );
    Work::on(&sample.bytes).refused(&["--drop", "corim"], "the file has no such header");
}

#[test]
fn kernel_initrd_and_command_line_of_a_linux_image_change() {
    let (old, new) = (bzimage(0x90, 0x5000), bzimage(0xCC, 0x7400));
    let work = Work::on(&linux_file(&old, &[1; 5000], "console=ttyS0"));
    let kernel = work.folder.write("kernel", &new);
    let initrd = work.folder.write("initrd", vec![2; 3000]);
    let bytes = work.update(&["--kernel", &kernel, "--initrd", &initrd, "--cmdline", "quiet"]);
    let file = File::read(&bytes).unwrap();
    let plan = file.plan(Isolation::Native).unwrap();
    let overview = igvmtool::overview::schema::Overview::of("", &file, None);
    let names: Vec<_> = overview.platforms[0]
        .runs
        .iter()
        .flat_map(|run| {
            run.name
                .iter()
                .chain(run.regions.iter().map(|region| &region.name))
        })
        .collect();
    assert!(names.iter().any(|name| *name == "initrd"), "{names:?}");
    // The new kernel's pages are there, and nothing of the old one is.
    let data = |byte: u8| {
        plan.pages()
            .filter(|(page, _)| matches!(page.contents, PageContents::Bytes(bytes) if bytes[100] == byte))
            .count()
    };
    assert_eq!((data(0x90), data(0xCC), data(1), data(2)), (0, 8, 0, 1));
    let mut huge = new.clone();
    huge[0x260..0x264].copy_from_slice(&0xF00_0000u32.to_le_bytes());
    let huge = work.folder.write("huge", huge);
    work.refused(&["--kernel", &huge], "build the file anew");
    Work::on(&v1(builder(Shape::of(Isolation::Native)))).refused(&["--initrd", &initrd], "no Linux image");
}
