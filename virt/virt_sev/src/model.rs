// SPDX-License-Identifier: MIT
//! Launches on a model of KVM and the security processor: the same calls as on a host, whose facts are the
//! model's.
//!
//! Always true: the digest that is reported is the one that the model's firmware computed, from the bytes
//! that it was handed. Not here: the model (`kvm_model`).

use crate::facts::HostFacts;
use kvm_model::{FakeHost, LaunchRecord, ModelSys};
use std::sync::Arc;
use virt::{LaunchSummary, LaunchedRange};

/// The host that everything can be launched on.
pub const USUAL: &str = "snp";

/// Names of the hosts that there is a model of.
pub fn names() -> Vec<&'static str> {
    FakeHost::all().into_iter().map(|host| host.name).collect()
}

/// A fresh model of the host of that name.
pub fn open(name: &str) -> Option<Arc<ModelSys>> {
    FakeHost::by_name(name).map(ModelSys::new)
}

/// What a modelled host says of itself.
pub fn facts(host: &FakeHost) -> HostFacts {
    HostFacts {
        vendor: host.vendor.to_owned(),
        max_extended_leaf: host.max_extended_leaf,
        leaf: host.encryption_leaf,
        flags: Some(host.cpu_flags.iter().map(|&flag| flag.to_owned()).collect()),
        parameters: host
            .parameters
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        kernel: host.kernel.to_owned(),
    }
}

/// Adds what the model knows of the launch that has just ended.
pub(crate) fn add_to(summary: &mut LaunchSummary, model: &Arc<ModelSys>) {
    summary.by = format!("a model of the host {}, {}", model.host().name, summary.by);
    summary.stopped = "the guest is launched and does not run: a model has no processor".into();
    if let Some(record) = model.launches().last() {
        summary.memory = ranges(record);
        summary.platform_digest = Some(record.digest.clone());
    }
}

fn ranges(record: &LaunchRecord) -> Vec<LaunchedRange> {
    let range = |run: &kvm_model::PageRun| LaunchedRange {
        gpa: run.gpa,
        len: run.len,
        state: run.state.to_string(),
    };
    record.pages.iter().map(range).collect()
}
