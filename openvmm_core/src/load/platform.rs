// SPDX-License-Identifier: MIT
//! Which platform of an IGVM file a launch takes: without isolation NATIVE, else VSM_ISOLATION at VTL 0; with
//! isolation that platform and nothing weaker.

use super::Notes;
use anyhow::bail;
use launch_plan::Isolation;
use openvmm_defs::IsolationRequest;
use vm_loaders::igvm::{File, Platform};

const VTL2: &str = "it needs vtl2 (OpenHCL), which is not available on this hypervisor";
const ISOLATED: &str = "it needs isolation, and the launch has none";

/// Chooses, and notes why each other platform was not taken.
pub(super) fn choose(
    file: &File<'_>,
    request: IsolationRequest,
    notes: &mut Notes,
) -> anyhow::Result<Isolation> {
    let platforms = file.platforms();
    if file.fixed_header().architecture != 0 || platforms.iter().any(|p| p.isolation == Isolation::Cca) {
        bail!("the file is for aarch64 guests, and this program runs x86-64 guests");
    }
    if let Some(isolation) = isolated(request)? {
        // A file without it is refused where the plan is made, with the list of what it has.
        notes.add(format!(
            "platform {isolation} of the file taken, as --isolation says"
        ));
        return Ok(isolation);
    }
    let find = |isolation| {
        platforms
            .iter()
            .find(|p| p.isolation == isolation && !needs_vtl2(p))
    };
    let Some(chosen) = find(Isolation::Native).or_else(|| find(Isolation::Vsm)) else {
        return Err(nothing_fits(file, &platforms));
    };
    for other in platforms.iter().filter(|p| p.header != chosen.header) {
        let why = match reason(other) {
            Some(why) => why.to_owned(),
            None => format!("{} comes first", chosen.isolation),
        };
        notes.add(format!(
            "platform {} of the file not taken: {why}",
            other.isolation
        ));
    }
    notes.add(format!("platform {} of the file taken", chosen.isolation));
    Ok(chosen.isolation)
}

/// The platform of a request for isolation; `None` without one.
fn isolated(request: IsolationRequest) -> anyhow::Result<Option<Isolation>> {
    let name = match request {
        IsolationRequest::None => return Ok(None),
        IsolationRequest::Sev => return Ok(Some(Isolation::Sev)),
        IsolationRequest::SevEs => return Ok(Some(Isolation::SevEs)),
        IsolationRequest::Snp => return Ok(Some(Isolation::Snp)),
        IsolationRequest::Tdx => "tdx",
        IsolationRequest::Vbs => "vbs",
        IsolationRequest::Cca => "cca",
    };
    bail!("{name} guests are measured and not launched by this program")
}

/// Why a platform can never be taken without isolation.
fn reason(platform: &Platform) -> Option<&'static str> {
    if platform.isolation.is_confidential() {
        return Some(ISOLATED);
    }
    needs_vtl2(platform).then_some(VTL2)
}

fn needs_vtl2(platform: &Platform) -> bool {
    platform.isolation.has_vtls() && platform.highest_vtl > 0
}

fn nothing_fits(file: &File<'_>, platforms: &[Platform]) -> anyhow::Error {
    if platforms.is_empty() {
        // A file without a usable platform header is broken; its own problems say how.
        return match file.plan(Isolation::Native) {
            Err(refused) => refused.into(),
            Ok(_) => anyhow::anyhow!("the file lists no platform"),
        };
    }
    let list: Vec<_> = platforms
        .iter()
        .map(|p| format!("{}: {}", p.isolation, reason(p).unwrap_or("unknown")))
        .collect();
    anyhow::anyhow!(
        "no platform of the file can be launched without isolation, which takes native, or vsm at vtl 0 ({})",
        list.join("; ")
    )
}
