// SPDX-License-Identifier: MIT
//! Small images that tests build in memory and on disk.

use launch_plan::{
    Arch, Contents, Import, Isolation, LaunchPlan, NativeContext, Origin, PageKind, PlanBuilder,
    PlatformFacts, VbsRegister, VbsRegisterName, VbsValue, VpContext, VpState,
};
use payloads::plan::{FlatPayload, IgvmProbeOptions, flat_plan, igvm_probe_plan};
use std::path::{Path, PathBuf};
use vm_loaders::igvm::{EncodeOptions, FormatVersion, encode};

/// A folder for one test's files, gone with it.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// The path of `name` in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes `bytes` to `name` and gives its path.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// `text` with the folder's path taken out, so that messages can be compared.
    pub(crate) fn strip(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.0.path().display()), "")
    }
}

/// `path` as an argument.
pub(crate) fn arg(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// An empty plan for a platform.
pub(crate) fn builder(isolation: Isolation) -> PlanBuilder<'static> {
    let arch = if isolation == Isolation::Cca {
        Arch::Aarch64
    } else {
        Arch::X64
    };
    PlanBuilder::new(PlatformFacts::new(isolation, arch))
}

/// Adds one measured page of `bytes`.
pub(crate) fn add_page(builder: &mut PlanBuilder<'static>, gpa: u64, bytes: Vec<u8>) {
    let import = Import {
        gpa,
        len: 4096,
        large: false,
        kind: PageKind::Measured,
        contents: Contents::Bytes(bytes.into()),
    };
    builder.import(import, Origin::Host("test page")).unwrap();
}

/// A boot processor that starts at `rip`, in the form of the platform.
pub(crate) fn add_processor(builder: &mut PlanBuilder<'static>, isolation: Isolation, rip: u64) {
    let state = match isolation {
        Isolation::Vsm => VpState::Vbs(vec![VbsRegister {
            vtl: 0,
            name: VbsRegisterName::Rip,
            value: VbsValue::U64(rip),
        }]),
        Isolation::Native | Isolation::Sev => VpState::Native(Box::new(NativeContext {
            rip,
            ..Default::default()
        })),
        Isolation::SevEs | Isolation::Snp => VpState::Vmsa(vec![0; 4096].into()),
        Isolation::Cca => VpState::Cca(vec![0; 80].into()),
        Isolation::Tdx => return,
    };
    builder
        .vp_context(VpContext { vp: 0, gpa: 0, state }, Origin::Host("test processor"))
        .unwrap();
}

/// The IGVM file of some plans, in the version that they need.
pub(crate) fn igvm(plans: &[LaunchPlan<'_>]) -> Vec<u8> {
    let x64 = plans.iter().all(|plan| plan.facts.arch == Arch::X64);
    let format = if x64 { FormatVersion::V1 } else { FormatVersion::V2 };
    encode(
        plans,
        &EncodeOptions {
            format,
            version_string: None,
        },
    )
    .unwrap()
    .to_vec()
}

/// A file of one page with HLT at 0x100000 for each platform.
pub(crate) fn halting(platforms: &[Isolation]) -> Vec<u8> {
    let plans: Vec<_> = platforms
        .iter()
        .map(|&isolation| {
            let mut builder = builder(isolation);
            add_page(&mut builder, 0x10_0000, vec![0xF4]);
            add_processor(&mut builder, isolation, 0x10_0000);
            builder.finish()
        })
        .collect();
    igvm(&plans)
}

/// A file of `igvm_probe`.
pub(crate) fn igvm_probe(options: IgvmProbeOptions) -> Vec<u8> {
    igvm(&[igvm_probe_plan(options).unwrap()])
}

/// A file of a flat payload.
pub(crate) fn flat(payload: FlatPayload, isolation: Isolation) -> Vec<u8> {
    igvm(&[flat_plan(payload, isolation).unwrap()])
}
