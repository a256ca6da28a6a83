// SPDX-License-Identifier: MIT
//! The hypervisors of this program: the only place that names them.

use crate::config::Isolated;
use anyhow::{Context, bail};
use clap::builder::PossibleValuesParser;
use openvmm_defs::IsolationRequest;
use std::sync::Arc;
use virt::{Hypervisor, IsolatingHypervisor, RunError};
use virt_kvm::Kvm;
use virt_sev::{Options, Platform, Sev};
use virt_soft::Soft;

/// A hypervisor that `auto` would take, and why; or why it would not.
type Verdict = Result<(Arc<dyn Hypervisor>, String), String>;

/// A way to run guests.
struct Backend {
    name: &'static str,
    open: fn() -> Result<Arc<dyn Hypervisor>, RunError>,
    /// Whether `auto` should take it here. May measure for a few milliseconds.
    judge: fn() -> Verdict,
}

/// In the order in which `auto` asks.
const BACKENDS: &[Backend] = &[
    Backend {
        name: "kvm",
        open: || Ok(Arc::new(Kvm::open()?)),
        judge: judge_kvm,
    },
    Backend {
        name: "soft",
        open: || Ok(Arc::new(Soft)),
        judge: || Ok((Arc::new(Soft), "it needs nothing".into())),
    },
];

/// What `--hypervisor` accepts.
pub(crate) fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(["auto"].into_iter().chain(BACKENDS.iter().map(|b| b.name)))
}

/// Opens the hypervisor that `--hypervisor` names, or with `auto` the first that suits, and says in one
/// line which and why.
pub(crate) fn choose(name: &str, deterministic: bool) -> anyhow::Result<Arc<dyn Hypervisor>> {
    if name == "auto" {
        return choose_best(deterministic);
    }
    let backend = BACKENDS
        .iter()
        .find(|b| b.name == name)
        .context("unknown hypervisor")?;
    let hypervisor = (backend.open)().with_context(|| format!("--hypervisor {name}"))?;
    if let Err(why) = check(&*hypervisor, deterministic) {
        bail!("--hypervisor {name}: {why}");
    }
    Ok(hypervisor)
}

/// What `--sev-model` accepts.
pub(crate) fn models() -> PossibleValuesParser {
    PossibleValuesParser::new(virt_sev::model::names())
}

/// What `--sev-model` without a value means.
pub(crate) fn usual_model() -> &'static str {
    virt_sev::model::USUAL
}

/// Opens the host, or its model, for an isolated launch.
pub(crate) fn isolating(request: &Isolated) -> anyhow::Result<Arc<dyn IsolatingHypervisor>> {
    let platform = match request.kind {
        IsolationRequest::Sev => Platform::Sev,
        IsolationRequest::SevEs => Platform::SevEs,
        IsolationRequest::Snp => Platform::Snp,
        other => bail!("{other:?} guests are not launched by this program"),
    };
    let options = Options {
        policy: request.sev.policy,
        host_data: request.sev.host_data,
        cbitpos: request.sev.cbitpos,
        reduced_phys_bits: request.sev.reduced_phys_bits,
    };
    let sev = match &request.model {
        None => Sev::here(platform, options),
        Some(name) => {
            let model = virt_sev::model::open(name).with_context(|| format!("no model of a host {name}"))?;
            Sev::on_model(&model, platform, options)
        }
    };
    let sev = sev.with_context(|| format!("--isolation {}", platform.isolation()))?;
    Ok(Arc::new(sev))
}

fn choose_best(deterministic: bool) -> anyhow::Result<Arc<dyn Hypervisor>> {
    let mut refusals = Vec::new();
    for backend in BACKENDS {
        let verdict = (backend.judge)().and_then(|(h, why)| check(&*h, deterministic).map(|()| (h, why)));
        match verdict {
            Ok((hypervisor, why)) => {
                refusals.insert(0, why);
                tracing::info!("hypervisor {}: {}", hypervisor.name(), refusals.join("; "));
                return Ok(hypervisor);
            }
            Err(why) => refusals.push(format!("not {}: {why}", backend.name)),
        }
    }
    bail!("no hypervisor can run this guest here: {}", refusals.join("; "))
}

/// KVM is worth taking where it runs guest kernels on hardware.
fn judge_kvm() -> Verdict {
    let kvm = Kvm::open().map_err(|e| e.to_string())?;
    let probe = kvm.probe().map_err(|e| e.to_string())?;
    if probe.hardware {
        Ok((Arc::new(kvm), probe.reason))
    } else {
        Err(probe.reason)
    }
}

fn check(hypervisor: &dyn Hypervisor, deterministic: bool) -> Result<(), String> {
    if deterministic && !hypervisor.capabilities().deterministic {
        return Err("it cannot run with --deterministic, because its time is the processor's".into());
    }
    Ok(())
}
