// SPDX-License-Identifier: MIT
//! What an image is, for `--igvm type=auto`: decided from its plan alone, with the reasons.
//!
//! Always true: the same plan always gives the same answer; two answers that exclude each other are an
//! error that lists both with their reasons. Not here: choosing a machine, refusing OpenHCL.

use crate::linux::START_INFO_MAGIC;
use crate::ovmf::FOOTER as OVMF_FOOTER;
use crate::uefi::x64;
use launch_plan::{Arch, Contents, LaunchPlan, StepKind, VpState};
use x86defs::state::gpr;

/// What an image needs around itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadKind {
    /// VTL2 firmware.
    OpenHcl,
    /// Microsoft's UEFI.
    Uefi,
    /// OVMF.
    Ovmf,
    /// A Linux kernel.
    Linux,
    /// None of these.
    Generic,
}

impl PayloadKind {
    /// The name that `type=` takes; the legacy form has none of its own.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenHcl => "openhcl",
            Self::Uefi => "uefi",
            Self::Ovmf => "ovmf",
            Self::Linux => "linux",
            Self::Generic => "generic",
        }
    }
}

/// A decision and why it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detection {
    /// What the image is.
    pub payload: PayloadKind,
    /// What was found, or that nothing was.
    pub reason: String,
}

impl std::fmt::Display for Detection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "type={} ({})", self.payload.name(), self.reason)
    }
}

/// An image that looks like more than one kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the image could be {first} or {second}; name its type with type=")]
pub struct AmbiguousPayload {
    /// One match.
    pub first: Detection,
    /// Another.
    pub second: Detection,
}

/// Where the footer of OVMF's GUIDed table is.
const OVMF_FOOTER_GPA: u64 = (1 << 32) - 0x30;
/// Offset of `_FVH` in a firmware volume header.
const VOLUME_SIGNATURE: u64 = 40;
/// Offset of `HdrS` in a zero page, and in the jump over it.
const SETUP_MAGIC: u64 = 0x202;

/// Decides what a plan is.
pub fn detect(plan: &LaunchPlan<'_>) -> Result<Detection, AmbiguousPayload> {
    if plan.facts.isolation.has_vtls() && plan.facts.highest_vtl > 0 {
        let reason = format!("it needs vtl {}", plan.facts.highest_vtl);
        return Ok(Detection {
            payload: PayloadKind::OpenHcl,
            reason,
        });
    }
    let matches = [
        (PayloadKind::Uefi, uefi(plan)),
        (PayloadKind::Ovmf, ovmf(plan)),
        (PayloadKind::Linux, linux(plan)),
    ];
    let mut matches = matches
        .into_iter()
        .filter_map(|(payload, reason)| reason.map(|reason| Detection { payload, reason }));
    match (matches.next(), matches.next()) {
        (Some(first), Some(second)) => Err(AmbiguousPayload { first, second }),
        (Some(only), None) => Ok(only),
        (None, _) => Ok(Detection {
            payload: PayloadKind::Generic,
            reason: "it has neither an MSVM.fd firmware volume, nor OVMF's footer, nor a Linux boot header"
                .to_owned(),
        }),
    }
}

fn uefi(plan: &LaunchPlan<'_>) -> Option<String> {
    let volume = x64::IMAGE_GPA + x64::SEC_VOLUME_OFFSET;
    let found = plan.facts.arch == Arch::X64
        && read::<4>(plan, volume + VOLUME_SIGNATURE)? == *b"_FVH"
        && imported_bytes(plan, x64::IMAGE_GPA, x64::IMAGE_SIZE) == x64::IMAGE_SIZE;
    found.then(|| {
        format!(
            "a firmware volume at gpa {volume:#x} in 6 MiB of pages at gpa {:#x}",
            x64::IMAGE_GPA
        )
    })
}

fn ovmf(plan: &LaunchPlan<'_>) -> Option<String> {
    let found = read::<16>(plan, OVMF_FOOTER_GPA)? == OVMF_FOOTER.to_bytes_le();
    found.then(|| format!("OVMF's footer guid at gpa {OVMF_FOOTER_GPA:#x}"))
}

/// A zero page that RSI points to, start info that RBX points to, or a boot header at the entry.
fn linux(plan: &LaunchPlan<'_>) -> Option<String> {
    let (context, _) = plan.vp_contexts().find(|(context, _)| context.vp == 0)?;
    if !matches!(context.state, VpState::Native(_) | VpState::Vbs(_)) {
        return None;
    }
    let state = context.state.to_x86()?;
    let magic = |gpa: u64| read::<4>(plan, gpa.checked_add(SETUP_MAGIC)?);
    let zero_page = state.gpr[gpr::RSI];
    if magic(zero_page) == Some(*b"HdrS") {
        return Some(format!("a Linux zero page at gpa {zero_page:#x}, in rsi"));
    }
    let start_info = state.gpr[gpr::RBX];
    if read::<4>(plan, start_info) == Some(START_INFO_MAGIC.to_le_bytes()) {
        return Some(format!("pvh start info at gpa {start_info:#x}, in rbx"));
    }
    let entry = state.cs.base.wrapping_add(state.rip);
    let header = entry.checked_add(2).and_then(|gpa| read::<4>(plan, gpa));
    (header == Some(*b"HdrS")).then(|| format!("a Linux boot header at the entry point {entry:#x}"))
}

/// Bytes of `[gpa, gpa + len)` that imports cover; imports do not overlap.
fn imported_bytes(plan: &LaunchPlan<'_>, gpa: u64, len: u64) -> u64 {
    plan.steps()
        .iter()
        .filter_map(|step| match &step.kind {
            StepKind::Import(import) => {
                let start = import.gpa.max(gpa);
                let end = import.gpa.saturating_add(import.len).min(gpa + len);
                Some(end.saturating_sub(start))
            }
            _ => None,
        })
        .sum()
}

/// Bytes at `gpa` as the plan imports them; `None` when not all of them are imported. Parameter areas
/// count with their initial data.
fn read<const LEN: usize>(plan: &LaunchPlan<'_>, gpa: u64) -> Option<[u8; LEN]> {
    let end = gpa.checked_add(LEN as u64)?;
    let mut found = [0; LEN];
    let mut covered = 0;
    // A read may cross from one import to the next: files import page by page.
    for step in plan.steps() {
        let StepKind::Import(import) = &step.kind else {
            continue;
        };
        let import_end = import.gpa.saturating_add(import.len);
        let (from, to) = (import.gpa.max(gpa), import_end.min(end));
        if from >= to {
            continue;
        }
        covered += to - from;
        let data: &[u8] = match &import.contents {
            Contents::Zero => &[],
            Contents::Bytes(bytes) => bytes,
            Contents::Parameters(area) => &area.initial,
        };
        for at in from..to {
            let byte = usize::try_from(at - import.gpa)
                .ok()
                .and_then(|offset| data.get(offset));
            found[(at - gpa) as usize] = byte.copied().unwrap_or(0);
        }
    }
    (covered == LEN as u64).then_some(found)
}

#[cfg(test)]
mod tests;
