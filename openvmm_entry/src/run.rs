// SPDX-License-Identifier: MIT
//! From a checked command line to an exit code, as an outline.

use crate::backends;
use crate::config::Launch;
use crate::gdb;
use crate::serial::Ports;
use crate::signals;
use crate::terminal::RawTerminal;
use anyhow::Context;
use openvmm_core::layout::HostLimits;
use openvmm_core::rpc::{self, VerbError};
use openvmm_core::{IsolatedOptions, VmOptions, dry_run, launch_isolated, spawn};
use openvmm_defs::SerialBackend;
use std::io::Write;

/// Prints what a launch is or would be, which is all that there is to do. A reader that goes away (`| head`)
/// is no error.
fn print(text: &str) -> anyhow::Result<u8> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(0),
    }
}

/// Carries out `launch`; the result is the exit code.
pub(crate) fn run(launch: Launch) -> anyhow::Result<u8> {
    let Launch {
        config,
        entropy,
        hypervisor,
        isolated,
        dry_run: dry,
        report,
        gdb: gdb_port,
        trace,
    } = launch;
    if dry {
        let plan = dry_run(config, HostLimits::ASSUMED, entropy, report.as_deref())?;
        return print(&plan);
    }
    if let Some(isolated) = isolated {
        let hypervisor = backends::isolating(&isolated)?;
        let launched = launch_isolated(IsolatedOptions {
            config,
            hypervisor,
            entropy,
            report,
        })?;
        return print(&launched);
    }
    let hypervisor = backends::choose(&hypervisor, config.deterministic.is_some())?;
    let (client, requests) = rpc::channel();
    signals::watch(client.clone()).context("cannot watch for signals")?;
    let (ports, serial) = Ports::open(&config.com, config.pci.console(), &client)?;
    let backends = || config.com.iter().chain(config.pci.console());
    let terminal = backends()
        .any(|backend| *backend == SerialBackend::Console)
        .then(RawTerminal::enter);
    let (paused, vp_count) = (config.paused, config.processors);
    let worker = spawn(
        VmOptions {
            config,
            hypervisor,
            serial,
            entropy,
            report,
            trace,
        },
        requests,
    )?;
    if let Some(port) = gdb_port {
        gdb::listen(port, vp_count, client.clone())?;
    } else if paused {
        tracing::info!("the guest is paused; Ctrl-Q opens the prompt, resume starts it");
    } else if let Err(error) = client.start()
        // A launch that failed has its own error.
        && !matches!(error, VerbError::Gone)
    {
        tracing::warn!("start: {error}");
    }
    let ended = worker.join();
    ports.finish();
    drop(terminal);
    Ok(ended?.code)
}
