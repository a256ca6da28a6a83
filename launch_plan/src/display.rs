// SPDX-License-Identifier: MIT
//! A plan as text: the facts on one line, then one line per run in launch order.
//!
//! Always true: the text depends on the plan only (no time, no host), so it can be a golden file.
//! Not here: pictures, JSON and decoded policies (`igvmtool inspect`).

use crate::endorse::Endorsements;
use crate::pages::{ImportRun, PlanRun};
use crate::plan::{Contents, LaunchPlan, Origin, ParameterArea, StepKind};
use crate::vp::{VpContext, VpState};
use std::fmt::{Display, Formatter, Result};

/// A size in the largest unit that divides it: `4 KiB`, `6 MiB`, `17 bytes`.
pub fn size_text(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >> shift != 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    format!("{bytes} bytes")
}

impl Display for LaunchPlan<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(
            f,
            "platform {}, {}, highest vtl {}",
            self.facts.isolation, self.facts.arch, self.facts.highest_vtl
        )?;
        if self.facts.shared_gpa_boundary != 0 {
            write!(f, ", shared gpa boundary {:#x}", self.facts.shared_gpa_boundary)?;
        }
        if let Some(policy) = self.facts.policy {
            write!(f, ", policy {policy:#x}")?;
        }
        writeln!(f)?;
        if let Some(cca) = &self.facts.cca_policy {
            writeln!(
                f,
                "realm policy zeroes {:#x}, ones {:#x}, hash {}, lfa {}",
                cca.required_zeroes, cca.required_ones, cca.hash_algorithm, cca.lfa_policy
            )?;
        }
        for region in &self.relocatable {
            writeln!(
                f,
                "relocatable  {} within {:#x}..{:#x}, aligned to {:#x}",
                range(region.gpa, region.len),
                region.min_gpa,
                region.max_gpa,
                region.alignment
            )?;
        }
        if let Some(tables) = &self.page_tables {
            writeln!(
                f,
                "page tables  {} {} used",
                range(tables.gpa, tables.len),
                size_text(tables.used)
            )?;
        }
        write_endorsements(f, &self.endorsements)?;
        self.runs().try_for_each(|run| write_run(f, &run))
    }
}

fn write_endorsements(f: &mut Formatter<'_>, endorsements: &Endorsements<'_>) -> Result {
    if let Some(block) = &endorsements.id_block {
        writeln!(f, "endorsed by  snp id block, svn {}", block.guest_svn)?;
    }
    if let Some(measurement) = &endorsements.vbs_measurement {
        writeln!(
            f,
            "endorsed by  vbs measurement, security version {}",
            measurement.security_version
        )?;
    }
    if let Some(corim) = &endorsements.corim {
        let signed = if corim.signature.is_some() {
            "signed"
        } else {
            "unsigned"
        };
        writeln!(
            f,
            "endorsed by  corim of {}, {signed}",
            size_text(corim.document.len() as u64)
        )?;
    }
    Ok(())
}

/// `0x0000000000100000..0x0000000000700000 6 MiB`, the size padded to 9 columns.
fn range(gpa: u64, len: u64) -> String {
    format!(
        "{gpa:#018x}..{:#018x} {:<9}",
        gpa.wrapping_add(len),
        size_text(len)
    )
}

fn write_run(f: &mut Formatter<'_>, run: &PlanRun<'_, '_>) -> Result {
    let (first, last) = run.origins();
    match run {
        PlanRun::Import(import) => write_import(f, import)?,
        PlanRun::Other(step) => match &step.kind {
            StepKind::ErrorRange { gpa, len } => write!(f, "error range  {}", range(*gpa, *len))?,
            StepKind::ExpectMemory(expect) => {
                write!(f, "expect ram   {}", range(expect.gpa, expect.len))?;
                if expect.vtl2_protectable {
                    f.write_str(" vtl2 protectable")?;
                }
            }
            StepKind::VpContext(context) => write_context(f, context)?,
            StepKind::Import(_) => {}
        },
    }
    writeln!(f, "  [{}]", origins(first, last))
}

fn origins(first: Origin, last: Origin) -> String {
    match (first, last) {
        (Origin::Header { index: a, .. }, Origin::Header { index: b, .. }) if a != b => {
            format!("headers {a}-{b}")
        }
        (Origin::Header { index, .. }, _) => format!("header {index}"),
        (host, _) => host.to_string(),
    }
}

fn write_import(f: &mut Formatter<'_>, run: &ImportRun<'_, '_>) -> Result {
    write!(
        f,
        "import       {} {:<10} {}",
        range(run.gpa, run.len),
        run.kind,
        run.contents
    )?;
    if run.large {
        f.write_str(", 2 MiB pages")?;
    }
    if let Some(StepKind::Import(import)) = run.steps.first().map(|step| &step.kind)
        && let Contents::Parameters(area) = &import.contents
    {
        write_area(f, area)?;
    }
    Ok(())
}

fn write_area(f: &mut Formatter<'_>, area: &ParameterArea<'_>) -> Result {
    write!(f, " area {}", area.index)?;
    if !area.initial.is_empty() {
        write!(f, ", {} initial", size_text(area.initial.len() as u64))?;
    }
    for (n, slot) in area.slots.iter().enumerate() {
        let lead = if n == 0 { ":" } else { "," };
        write!(f, "{lead} {} at {:#x}", slot.kind, slot.byte_offset)?;
    }
    Ok(())
}

fn write_context(f: &mut Formatter<'_>, context: &VpContext<'_>) -> Result {
    write!(f, "vp context   vp {}", context.vp)?;
    match &context.state {
        VpState::Vmsa(bytes) => write!(
            f,
            ", vmsa of {} at gpa {:#x}",
            size_text(bytes.len() as u64),
            context.gpa
        )?,
        VpState::Cca(_) => f.write_str(", realm context")?,
        VpState::Aarch64Vbs(registers) => write!(f, ", {} registers", registers.len())?,
        VpState::Native(native) => write!(f, ", native, rip {:#x}", native.rip)?,
        VpState::Vbs(registers) => {
            write!(f, ", {} registers", registers.len())?;
            if let Some(state) = context.state.to_x86() {
                write!(f, ", rip {:#x}", state.rip)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
