// SPDX-License-Identifier: MIT
//! Which directive a launch takes on which platform, as a table.
//!
//! The columns of SEV, SEV-ES, SEV-SNP and native follow QEMU's documentation of its IGVM support; what
//! goes beyond it is marked as an extension, with its reason. QEMU has no VSM_ISOLATION platform, so
//! everything there is OpenVMM's rule.
//!
//! Always true: a refusal names the directive, the platform and the place in the file. Not here: what a
//! file may hold ([`super::check`]): a directive that no launch takes may still be read, printed,
//! measured and copied.

use launch_plan::{Contents, Import, Isolation, LaunchPlan, Origin, PageKind, ParameterKind, StepKind};

/// A kind of directive as far as platforms tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directive {
    /// PAGE_DATA of type NORMAL, measured or not, with data or zero.
    NormalPage,
    /// PAGE_DATA of type NORMAL with the 2 MiB flag.
    LargePage,
    /// PAGE_DATA of type NORMAL with the shared flag.
    SharedPage,
    /// PAGE_DATA of type SECRETS.
    SecretsPage,
    /// PAGE_DATA of type CPUID_DATA.
    CpuidPage,
    /// PAGE_DATA of type CPUID_XF.
    CpuidXfPage,
    /// PARAMETER_AREA with its PARAMETER_INSERT.
    ParameterArea,
    /// A value of a parameter area.
    Parameter(ParameterKind),
    /// VP_CONTEXT.
    VpContext,
    /// REQUIRED_MEMORY.
    RequiredMemory,
    /// ERROR_RANGE.
    ErrorRange,
    /// SNP_ID_BLOCK.
    SnpIdBlock,
    /// VBS_MEASUREMENT.
    VbsMeasurement,
}

/// What a launch does with a directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Taken, as QEMU documents.
    Allowed,
    /// Taken although QEMU does not document it; the text says why.
    Extension(&'static str),
    /// The launch is refused; the text says why and what to do.
    Refused(&'static str),
}

/// A row: the directive's name and its verdicts in the order of [`COLUMNS`].
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The directive.
    pub directive: Directive,
    /// As messages name it.
    pub name: &'static str,
    /// A verdict for each platform.
    pub verdicts: [Verdict; 5],
}

/// The platforms of the table, in order.
pub const COLUMNS: [Isolation; 5] = [
    Isolation::Native,
    Isolation::Vsm,
    Isolation::Sev,
    Isolation::SevEs,
    Isolation::Snp,
];

use Verdict::{Allowed, Extension, Refused};

const OPENVMM: Verdict = Extension("openvmm's platform, which qemu does not have");
const HOST_VALUE: Verdict = Extension("a value of the host that qemu does not document");
const SNP_PAGE: Verdict =
    Refused("only sev-snp firmware fills such a page; give it a mask without this platform");
const SNP_NEEDS: Verdict = Extension("every sev-snp guest needs it; qemu takes it without documenting it");
const ID_BLOCK: Verdict = Refused("an id block is for sev-snp");
const VBS: Verdict = Refused("a vbs measurement is for vsm isolation");

const fn row(directive: Directive, name: &'static str, verdicts: [Verdict; 5]) -> Row {
    Row {
        directive,
        name,
        verdicts,
    }
}

/// A directive that QEMU documents for all of its platforms.
const fn documented(directive: Directive, name: &'static str) -> Row {
    row(directive, name, [Allowed, OPENVMM, Allowed, Allowed, Allowed])
}

/// A page that SEV-SNP firmware fills.
const fn special_page(directive: Directive, name: &'static str) -> Row {
    row(
        directive,
        name,
        [SNP_PAGE, SNP_PAGE, SNP_PAGE, SNP_PAGE, SNP_NEEDS],
    )
}

/// A value of the host that QEMU does not document.
const fn value(kind: ParameterKind, name: &'static str) -> Row {
    row(
        Directive::Parameter(kind),
        name,
        [HOST_VALUE, OPENVMM, HOST_VALUE, HOST_VALUE, HOST_VALUE],
    )
}

/// The table.
pub const TABLE: &[Row] = &[
    documented(Directive::NormalPage, "PAGE_DATA"),
    documented(Directive::LargePage, "PAGE_DATA of 2 MiB"),
    row(Directive::SharedPage, "PAGE_DATA with the shared flag", {
        const SHARED: Verdict = Extension("pages that stay visible to the host, as openvmm has them");
        [SHARED, OPENVMM, SHARED, SHARED, SHARED]
    }),
    special_page(Directive::SecretsPage, "PAGE_DATA of type SECRETS"),
    special_page(Directive::CpuidPage, "PAGE_DATA of type CPUID_DATA"),
    special_page(Directive::CpuidXfPage, "PAGE_DATA of type CPUID_XF"),
    documented(Directive::ParameterArea, "PARAMETER_INSERT"),
    documented(Directive::Parameter(ParameterKind::VpCount), "VP_COUNT_PARAMETER"),
    documented(
        Directive::Parameter(ParameterKind::EnvironmentInfo),
        "ENVIRONMENT_INFO_PARAMETER",
    ),
    row(
        Directive::Parameter(ParameterKind::MemoryMap),
        "MEMORY_MAP",
        [HOST_VALUE, OPENVMM, Allowed, Allowed, Allowed],
    ),
    value(ParameterKind::Srat, "SRAT"),
    value(ParameterKind::Madt, "MADT"),
    value(ParameterKind::Slit, "SLIT"),
    value(ParameterKind::Pptt, "PPTT"),
    value(ParameterKind::MmioRanges, "MMIO_RANGES"),
    value(ParameterKind::CommandLine, "COMMAND_LINE"),
    value(ParameterKind::DeviceTree, "DEVICE_TREE"),
    row(Directive::VpContext, "VP_CONTEXT", {
        const REGISTERS: Verdict = Extension("without encryption registers can be set like any other state");
        const PLAIN_SEV: Verdict = Refused(
            "plain sev has no encrypted save area, so nobody could vouch for the registers; give the context a mask \
             without sev, or launch the file as sev-es or sev-snp",
        );
        [REGISTERS, OPENVMM, PLAIN_SEV, Allowed, Allowed]
    }),
    row(Directive::RequiredMemory, "REQUIRED_MEMORY", {
        const VERIFIED: Verdict = Extension("verified and never created, on every platform");
        [VERIFIED, OPENVMM, Allowed, Allowed, Allowed]
    }),
    row(Directive::ErrorRange, "ERROR_RANGE", {
        const RANGE: Verdict = Extension("shared zero pages that survive a reset, as openvmm has them");
        [RANGE, OPENVMM, RANGE, RANGE, RANGE]
    }),
    row(
        Directive::SnpIdBlock,
        "SNP_ID_BLOCK",
        [ID_BLOCK, ID_BLOCK, ID_BLOCK, ID_BLOCK, SNP_NEEDS],
    ),
    row(
        Directive::VbsMeasurement,
        "VBS_MEASUREMENT",
        [VBS, OPENVMM, VBS, VBS, VBS],
    ),
];

/// A directive that the platform's launch does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {directive} cannot be launched on {platform}: {why}")]
pub struct Unsupported {
    /// Name of the directive.
    pub directive: &'static str,
    /// The platform.
    pub platform: Isolation,
    /// Where it stands.
    pub origin: Origin,
    /// Why not, and what to do.
    pub why: &'static str,
}

/// The table's cell; `None` for a platform that is not launched at all.
pub fn verdict(directive: Directive, platform: Isolation) -> Option<(&'static Row, Verdict)> {
    let column = COLUMNS.iter().position(|&column| column == platform)?;
    let row = TABLE.iter().find(|row| row.directive == directive)?;
    Some((row, row.verdicts[column]))
}

/// Refuses the first step of `plan` that its platform's launch does not take. Endorsements of another
/// platform do not get into a plan: reading refuses them.
pub fn check_support(plan: &LaunchPlan<'_>) -> Result<(), Unsupported> {
    let platform = plan.facts.isolation;
    let refuse = |directive, origin| match verdict(directive, platform) {
        Some((row, Refused(why))) => Err(Unsupported {
            directive: row.name,
            platform,
            origin,
            why,
        }),
        _ => Ok(()),
    };
    for step in plan.steps() {
        match &step.kind {
            StepKind::Import(import) => {
                refuse(page_directive(import), step.origin)?;
                if let Contents::Parameters(area) = &import.contents {
                    area.slots
                        .iter()
                        .try_for_each(|slot| refuse(Directive::Parameter(slot.kind), slot.origin))?;
                }
            }
            StepKind::VpContext(_) => refuse(Directive::VpContext, step.origin)?,
            StepKind::ExpectMemory(_) => refuse(Directive::RequiredMemory, step.origin)?,
            StepKind::ErrorRange { .. } => refuse(Directive::ErrorRange, step.origin)?,
        }
    }
    Ok(())
}

fn page_directive(import: &Import<'_>) -> Directive {
    if matches!(import.contents, Contents::Parameters(_)) {
        return Directive::ParameterArea;
    }
    match import.kind {
        PageKind::Secrets => Directive::SecretsPage,
        PageKind::Cpuid => Directive::CpuidPage,
        PageKind::CpuidXf => Directive::CpuidXfPage,
        PageKind::Shared => Directive::SharedPage,
        _ if import.large => Directive::LargePage,
        PageKind::Measured | PageKind::Unmeasured => Directive::NormalPage,
    }
}

#[cfg(test)]
mod tests;
