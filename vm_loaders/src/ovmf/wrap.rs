// SPDX-License-Identifier: MIT
//! Plans that start an OVMF image: what `igvmtool wrap` encodes and `--ovmf` boots.
//!
//! Order, which is part of the launch digest: firmware pages from the lowest address up, metadata
//! sections in table order, parameters, then one context for each VP - the order of QEMU's own launch.

use crate::ovmf::save_area::{ResetVp, reset_save_area};
use crate::ovmf::tables::{IgvmArea, OvmfError, SectionKind, Tables, TdxKind};
use launch_plan::{
    Arch, Contents, Import, Isolation, LaunchPlan, NativeContext, Origin, PageKind, ParameterArea,
    ParameterKind, ParameterSlot, PlanBuilder, PlanError, PlatformFacts, VpContext, VpIndex, VpState,
};
use std::borrow::Cow;
use x86defs::vmsa::KVM_VMSA_GPA;
use x86defs::{SegmentAttributes, SegmentRegister, TableRegister, cr0};

const FOUR_GIB: u64 = 1 << 32;
/// The shared bit of a TDX guest with 48 address bits.
const TDX_BOUNDARY: u64 = 1 << 47;
/// What real-mode firmware finds below 1 MiB: the last 128 KiB of the image again.
const MIRROR: u64 = 0x2_0000;
/// Linear address of the first instruction of the BSP.
const RESET_VECTOR: u32 = 0xFFFF_FFF0;

/// How a native image is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Entry {
    /// No context: the architectural reset state (16 bit).
    #[default]
    Real16,
    /// Flat 32-bit protected mode at the reset vector.
    Flat32,
}

/// What to make of an image.
#[derive(Debug, Clone, Copy)]
pub struct WrapOptions {
    /// The platform.
    pub isolation: Isolation,
    /// VPs that get a context (SEV-ES and SEV-SNP), at least 1.
    pub vp_count: u32,
    /// How a native image is entered.
    pub entry: Entry,
    /// Repeat the last 128 KiB below 1 MiB (native only).
    pub mirror: bool,
    /// CPUID signature that VPs have in RDX (SEV-ES and SEV-SNP); KVM's own is 0x600.
    pub signature: u32,
    /// Guest policy; `None` for the platform's usual one (sev.md 1.3).
    pub policy: Option<u64>,
}

impl WrapOptions {
    /// The usual options for a platform with `vp_count` VPs.
    pub const fn new(isolation: Isolation, vp_count: u32) -> Self {
        Self {
            isolation,
            vp_count,
            entry: Entry::Real16,
            mirror: false,
            signature: 0x600,
            policy: None,
        }
    }

    fn policy(&self) -> Option<u64> {
        self.policy.or(match self.isolation {
            Isolation::Sev => Some(1),
            Isolation::SevEs => Some(5),
            Isolation::Snp => Some(0x3_0000),
            _ => None,
        })
    }
}

/// A plan that starts `image`.
pub fn plan<'a>(image: &'a [u8], options: &WrapOptions) -> Result<LaunchPlan<'a>, OvmfError> {
    let isolation = options.isolation;
    if !matches!(
        isolation,
        Isolation::Native | Isolation::Sev | Isolation::SevEs | Isolation::Snp | Isolation::Tdx
    ) {
        return Err(OvmfError::Platform(isolation.name()));
    }
    let tables = Tables::read(image)?;
    let is_tdx = isolation == Isolation::Tdx;
    let facts = PlatformFacts {
        policy: options.policy(),
        shared_gpa_boundary: if is_tdx { TDX_BOUNDARY } else { 0 },
        ..PlatformFacts::new(isolation, Arch::X64)
    };
    let mut builder = PlanBuilder::new(facts);
    if is_tdx {
        tdx_sections(&mut builder, image, &tables)?;
    } else {
        firmware(&mut builder, image, options)?;
    }
    if isolation == Isolation::Snp {
        metadata(&mut builder, &tables)?;
    }
    if let Some(area) = &tables.igvm {
        parameters(&mut builder, area)?;
    }
    contexts(&mut builder, &tables, options)?;
    Ok(builder.finish())
}

fn firmware<'a>(
    builder: &mut PlanBuilder<'a>,
    image: &'a [u8],
    options: &WrapOptions,
) -> Result<(), OvmfError> {
    pages(builder, FOUR_GIB - image.len() as u64, image, "ovmf image")?;
    if options.mirror && options.isolation == Isolation::Native {
        let tail = &image[image.len() - MIRROR as usize..];
        pages(builder, 0x10_0000 - MIRROR, tail, "ovmf image below 1 MiB")?;
    }
    Ok(())
}

/// What the metadata lists, in table order, as QEMU submits it. Hand-off blocks are the host's to write:
/// their pages are zero here and no part of the digest.
fn tdx_sections<'a>(
    builder: &mut PlanBuilder<'a>,
    image: &'a [u8],
    tables: &Tables,
) -> Result<(), OvmfError> {
    let missing = OvmfError::Missing {
        platform: "tdx",
        table: "tdx metadata",
    };
    for section in tables.tdx.as_ref().ok_or(missing)? {
        let (offset, len) = section.image;
        let bytes = image.get(offset..offset + len).unwrap_or(&[]);
        let what = match section.kind {
            TdxKind::Firmware => "ovmf image",
            TdxKind::Variables => "ovmf variables",
            TdxKind::HandOff => "ovmf hand-off blocks",
            TdxKind::Temporary => "ovmf temporary memory",
        };
        let import = Import {
            gpa: section.gpa,
            len: section.len,
            large: false,
            kind: if section.measured {
                PageKind::Measured
            } else {
                PageKind::Unmeasured
            },
            contents: if bytes.is_empty() {
                Contents::Zero
            } else {
                Contents::borrowed(bytes)
            },
        };
        builder.import(import, Origin::Host(what))?;
    }
    Ok(())
}

/// The image as one import: the plan's pages borrow it.
fn pages<'a>(
    builder: &mut PlanBuilder<'a>,
    gpa: u64,
    bytes: &'a [u8],
    what: &'static str,
) -> Result<(), OvmfError> {
    let import = Import {
        gpa,
        len: bytes.len() as u64,
        large: false,
        kind: PageKind::Measured,
        contents: Contents::borrowed(bytes),
    };
    Ok(builder.import(import, Origin::Host(what))?)
}

/// Imports zero pages.
pub(crate) fn zeros(
    builder: &mut PlanBuilder<'_>,
    gpa: u64,
    len: u64,
    kind: PageKind,
    what: &'static str,
) -> Result<(), PlanError> {
    let import = Import {
        gpa,
        len,
        large: false,
        kind,
        contents: Contents::Zero,
    };
    builder.import(import, Origin::Host(what))
}

fn metadata(builder: &mut PlanBuilder<'_>, tables: &Tables) -> Result<(), OvmfError> {
    let missing = OvmfError::Missing {
        platform: "sev-snp",
        table: "sev metadata",
    };
    for section in tables.sections.as_ref().ok_or(missing)? {
        let (kind, what) = match section.kind {
            SectionKind::Memory => (PageKind::Measured, "ovmf sec memory"),
            SectionKind::Secrets => (PageKind::Secrets, "ovmf secrets page"),
            SectionKind::Cpuid => (PageKind::Cpuid, "ovmf cpuid page"),
            SectionKind::SvsmCaa => (PageKind::Measured, "ovmf svsm calling area"),
            SectionKind::KernelHashes => (PageKind::Measured, "ovmf kernel hashes page"),
        };
        zeros(builder, section.gpa, section.len, kind, what)?;
    }
    Ok(())
}

/// The parameter area that newer images ask for, and their empty hand-off block page.
fn parameters(builder: &mut PlanBuilder<'_>, area: &IgvmArea) -> Result<(), OvmfError> {
    let origin = Origin::Host("ovmf parameter area");
    let (gpa, len) = area.parameters;
    if len > 0 {
        let slot = |kind, offset: Option<u32>| {
            offset.map(|byte_offset| ParameterSlot {
                kind,
                byte_offset,
                origin,
            })
        };
        let slots = [
            slot(ParameterKind::MemoryMap, area.memory_map),
            slot(ParameterKind::VpCount, area.vp_count),
        ];
        let slots = slots.into_iter().flatten().collect();
        let holes = ParameterArea {
            index: 0,
            initial: Cow::Borrowed(&[]),
            slots,
        };
        let contents = Contents::Parameters(Box::new(holes));
        builder.import(
            Import {
                gpa,
                len,
                large: false,
                kind: PageKind::Unmeasured,
                contents,
            },
            origin,
        )?;
    }
    if let Some((gpa, len)) = area.hob {
        zeros(builder, gpa, len, PageKind::Measured, "ovmf hand-off block area")?;
    }
    Ok(())
}

fn contexts(builder: &mut PlanBuilder<'_>, tables: &Tables, options: &WrapOptions) -> Result<(), OvmfError> {
    match options.isolation {
        Isolation::Native if options.entry == Entry::Flat32 => {
            let context = VpContext {
                vp: 0,
                gpa: 0,
                state: VpState::Native(Box::new(flat32())),
            };
            builder.vp_context(context, Origin::Host("flat 32-bit entry"))?;
        }
        Isolation::SevEs | Isolation::Snp => {
            for vp in 0..options.vp_count {
                save_area(builder, tables, options, vp)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn save_area(
    builder: &mut PlanBuilder<'_>,
    tables: &Tables,
    options: &WrapOptions,
    vp: VpIndex,
) -> Result<(), OvmfError> {
    let platform = options.isolation.name();
    let ap = tables.ap_reset.ok_or(OvmfError::Missing {
        platform,
        table: "sev-es reset block",
    });
    let entry = if vp == 0 { RESET_VECTOR } else { ap? };
    let page = reset_save_area(
        options.isolation,
        ResetVp {
            entry,
            signature: options.signature,
        },
    );
    let context = VpContext {
        vp,
        gpa: KVM_VMSA_GPA,
        state: VpState::Vmsa(page.into()),
    };
    Ok(builder.vp_context(context, Origin::Host("ovmf save area"))?)
}

/// Flat 32-bit protected mode at the reset vector, with descriptors that need no table (igvm-wrap's
/// `--flat32`).
fn flat32() -> NativeContext {
    let segment = |selector, attributes| SegmentRegister {
        selector,
        attributes: SegmentAttributes(attributes),
        limit: 0xFFFF_FFFF,
        base: 0,
    };
    NativeContext {
        rip: RESET_VECTOR.into(),
        rflags: x86defs::rflags::RESERVED_ONE,
        cs: segment(0x08, 0xC09B),
        data: segment(0x10, 0xC093),
        gdtr: TableRegister {
            base: 0,
            limit: 0xFFFF,
        },
        idtr: TableRegister {
            base: 0,
            limit: 0xFFFF,
        },
        cr0: cr0::PE | cr0::ET | cr0::NE,
        ..NativeContext::default()
    }
}
