// SPDX-License-Identifier: MIT
//! Launching and launching again: what stays, what is fresh, what fails by name.

use super::*;
use crate::entropy::EntropyError;
use crate::testing;
use launch_plan::{
    Arch, Contents, HostValues, Import, Isolation, LaunchPlan, Origin, PageKind, PlanBuilder, PlatformFacts,
    VbsRegister, VbsRegisterName, VbsValue, VpContext, VpState,
};
use openvmm_defs::{LoadMode, Machine, UefiSettings};
use virt::{LaunchTarget, PlainLaunch, RunError, Runner, VpBus, VpSignals};
use vm_loaders::uefi::config::parse::parse;
use vm_loaders::uefi::x64::CONFIG_BLOB_GPA;

struct FakePartition(PlainLaunch);

impl Partition for FakePartition {
    fn signals(&self) -> Arc<VpSignals> {
        Arc::new(VpSignals::new(1))
    }
    fn launch_target(&mut self) -> Box<dyn LaunchTarget + '_> {
        self.0.restart();
        Box::new(self.0.clone())
    }
    fn runners(&mut self, _bus: Arc<dyn VpBus>) -> Result<Vec<Box<dyn Runner>>, RunError> {
        Ok(Vec::new())
    }
}

/// Everything around a launcher for a firmware-shaped plan.
struct Bench {
    _dir: tempfile::TempDir,
    path: PathBuf,
    config: Config,
    layout: MemoryLayout,
    payload: Payload,
    files: Files,
    loaded: Loaded<'static>,
    memory: GuestMemory,
    partition: FakePartition,
}

fn firmware_plan() -> LaunchPlan<'static> {
    let here = Origin::Host("test");
    let mut builder = PlanBuilder::new(PlatformFacts::new(Isolation::Vsm, Arch::X64));
    let import = Import {
        gpa: 0x10_0000,
        len: 0x1000,
        large: false,
        kind: PageKind::Measured,
        contents: Contents::Zero,
    };
    builder.import(import, here).unwrap();
    let rip = VbsRegister {
        vtl: 0,
        name: VbsRegisterName::Rip,
        value: VbsValue::U64(0x10_0000),
    };
    builder
        .vp_context(
            VpContext {
                vp: 0,
                gpa: 0,
                state: VpState::Vbs(vec![rip]),
            },
            here,
        )
        .unwrap();
    builder.error_range(0x20_0000, 0x1000, here).unwrap();
    builder.finish()
}

fn bench(memory: u64) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("MSVM.fd");
    std::fs::write(&path, b"firmware").unwrap();
    let load = LoadMode::Uefi {
        firmware: path.clone(),
        settings: UefiSettings::default(),
    };
    let config = Config {
        memory,
        load,
        machine: Machine::HyperV,
        ..testing::config()
    };
    let layout = layout::resolve(&config, Machine::HyperV, HostLimits::ASSUMED).unwrap();
    let error_ranges = vec![GpaRange::new(0x20_0000, 0x1000)];
    let loaded = Loaded {
        plan: firmware_plan(),
        extra_ram: Vec::new(),
        error_ranges,
        variables: None,
    };
    let memory = allocate(&layout, &[]).unwrap();
    Bench {
        _dir: dir,
        path,
        files: Files::open(&config.load).unwrap(),
        payload: Payload::Uefi(UefiSettings::default()),
        partition: FakePartition(PlainLaunch::new(memory.clone(), 1)),
        config,
        layout,
        loaded,
        memory,
    }
}

impl Bench {
    /// Launches once per element of `between`, which runs before each launch.
    fn launch(&mut self, entropy: EntropySource, times: usize) -> Result<Vec<Vec<u8>>, String> {
        let Self {
            config,
            layout,
            payload,
            files,
            loaded,
            memory,
            partition,
            ..
        } = self;
        let mut launcher = Launcher {
            config,
            files,
            layout: layout.clone(),
            payload: payload.clone(),
            loaded: loaded.clone(),
            entropy,
        };
        let mut blobs = Vec::new();
        for time in 0..times {
            memory.zero_except(&[(0x20_0000, 0x1000)]).unwrap();
            launcher
                .launch(partition, &[], |_| Ok(()))
                .map_err(|e| format!("launch {time}: {e:#}"))?;
            let mut blob = vec![0; 0x400];
            memory.read(CONFIG_BLOB_GPA, &mut blob).unwrap();
            blobs.push(blob);
        }
        Ok(blobs)
    }
}

/// A source that fails from draw `at` on.
fn failing(at: u32) -> EntropySource {
    let mut draw = 0;
    EntropySource::with(move |buffer| {
        draw += 1;
        buffer.fill(draw as u8);
        if draw > at {
            Err(EntropyError("scripted".into()))
        } else {
            Ok(())
        }
    })
}

#[test]
fn a_second_launch_has_fresh_entropy_and_nothing_else_new() {
    let blobs = bench(64 << 20).launch(EntropySource::new(None), 2).unwrap();
    let total = |blob: &[u8]| u32::from_le_bytes(blob[12..16].try_into().unwrap()) as usize;
    let [first, second] = [0, 1].map(|i| parse(&blobs[i][..total(&blobs[i])]).unwrap());
    assert_eq!(first.structures.len(), second.structures.len());
    let changed: Vec<_> = first
        .structures
        .iter()
        .zip(&second.structures)
        .filter(|(a, b)| a != b)
        .map(|(a, _)| a.structure_type)
        .collect();
    assert_eq!(changed, [4], "only the entropy structure differs");
}

#[test]
fn a_source_that_fails_is_an_error_at_start_and_at_reset() {
    let why = "uefi config blob: the host's random number source failed: scripted";
    assert_eq!(
        bench(64 << 20).launch(failing(0), 2).unwrap_err(),
        format!("launch 0: {why}")
    );
    assert_eq!(
        bench(64 << 20).launch(failing(1), 2).unwrap_err(),
        format!("launch 1: {why}")
    );
}

#[test]
fn a_blob_outside_ram_names_the_size_that_fits() {
    assert_eq!(
        bench(4 << 20).launch(failing(1), 1).unwrap_err(),
        "launch 0: uefi config blob: it needs memory at 0x709000..0x70a000, but there is none at 0x709000..0x70a000; -m \
         8M fits it"
    );
}

#[test]
fn error_ranges_survive_a_second_launch() {
    let mut b = bench(64 << 20);
    b.launch(failing(9), 1).unwrap();
    b.memory.write(0x20_0010, b"last words").unwrap();
    b.memory.write(0x10_0000, b"scribble").unwrap();
    b.launch(failing(9), 1).unwrap();
    let mut seen = [0; 10];
    b.memory.read(0x20_0010, &mut seen).unwrap();
    assert_eq!(&seen, b"last words");
    b.memory.read(0x10_0000, &mut seen).unwrap();
    assert_eq!(seen, [0; 10]);
}

#[test]
fn a_file_that_was_changed_or_cut_is_an_error_that_names_it() {
    for (change, message) in [
        (
            &b"firmware, and more"[..],
            "was changed while in use; start again with a file that stays",
        ),
        (
            b"firm",
            "was truncated while in use: it had 0x8 bytes and has 0x4; start again with a file that stays",
        ),
    ] {
        let mut b = bench(64 << 20);
        b.launch(failing(9), 1).unwrap();
        std::fs::write(&b.path, change).unwrap();
        let error = b.launch(failing(9), 1).unwrap_err();
        assert_eq!(error, format!("launch 0: {} {message}", b.path.display()));
    }
}

#[test]
fn the_report_shows_what_was_bound() {
    let b = bench(64 << 20);
    let mut host = HostValues::new(1);
    host.hand_over = Some(vm_loaders::uefi::hand_over(vec![1, 2, 3]));
    let bound = b.loaded.plan.bind(&host).unwrap();
    let notes = ["decided".to_owned()];
    let report = Report {
        layout: &b.layout,
        loaded: &b.loaded,
        notes: &notes,
        host: &host,
        bound: &bound,
    };
    let json = report.json(&Timings::start());
    assert_eq!(json["platform"], "vsm");
    assert_eq!(json["hand_over"]["bytes"], "01 02 03");
    assert_eq!(json["registers"][0]["gpr"]["r12"], CONFIG_BLOB_GPA);
    assert_eq!(json["decisions"][0], "decided");
    assert_eq!(json["runs"][0]["gpa"], 0x10_0000);
    let text = report.text();
    assert!(
        text.starts_with("decisions\n  decided\n  r12 0x709000 added: the config blob\nmachine hyper-v"),
        "{text}"
    );
    assert!(text.contains("config blob at 0x709000: 3 bytes"), "{text}");
}
