// SPDX-License-Identifier: MIT
//! The hypervisors of this program: the only place that names them.

use anyhow::{Context, bail};
use std::sync::Arc;
use virt::{Hypervisor, RunError};

/// A way to run guests, tried in the order of [`BACKENDS`].
struct Backend {
    name: &'static str,
    open: fn() -> Result<Arc<dyn Hypervisor>, RunError>,
}

const BACKENDS: &[Backend] = &[Backend { name: "soft", open: || Ok(Arc::new(virt_soft::Soft)) }];

/// Opens the hypervisor that `--hypervisor` names, or with `auto` the first that can do what is needed,
/// and says in one line which and why.
pub(crate) fn choose(name: &str, deterministic: bool) -> anyhow::Result<Arc<dyn Hypervisor>> {
    if name != "auto" {
        let Some(backend) = BACKENDS.iter().find(|b| b.name == name) else {
            bail!("--hypervisor {name}: {}", unknown(name));
        };
        let hypervisor = (backend.open)().with_context(|| format!("--hypervisor {name}"))?;
        check(&*hypervisor, deterministic).map_err(|why| anyhow::anyhow!("--hypervisor {name}: {why}"))?;
        return Ok(hypervisor);
    }
    let mut reasons = Vec::new();
    for backend in BACKENDS {
        let opened = (backend.open)().map_err(|e| e.to_string());
        match opened.and_then(|h| check(&*h, deterministic).map(|()| h)) {
            Ok(hypervisor) => {
                let why = if reasons.is_empty() { "it is the first that works here".into() } else { reasons.join("; ") };
                tracing::info!("hypervisor {}: {why}", hypervisor.name());
                return Ok(hypervisor);
            }
            Err(why) => reasons.push(format!("{}: {why}", backend.name)),
        }
    }
    bail!("no hypervisor can run this guest here: {}", reasons.join("; "))
}

fn check(hypervisor: &dyn Hypervisor, deterministic: bool) -> Result<(), String> {
    if deterministic && !hypervisor.capabilities().deterministic {
        return Err("it cannot run with --deterministic, because its time is the processor's".into());
    }
    Ok(())
}

fn unknown(name: &str) -> String {
    let known: Vec<_> = BACKENDS.iter().map(|b| b.name).collect();
    let known = known.join(", ");
    match name {
        "soft" => format!("the software cpu is not available yet; known are auto, {known}"),
        _ => format!("unknown hypervisor; known are auto, {known}"),
    }
}
