// SPDX-License-Identifier: MIT
//! Plans of isolated guests.
//!
//! Always true: a combination of image and isolation that nobody defined is refused by both names. Not
//! here: guests with isolation none; digests and documents (`super::documents`).

use super::resources::Resources;
use crate::manifest::{
    Guest, Image, InjectionType, IsolationType, OvmfImage, SnpIsolation, SnpLinuxDirectImage, UefiConfigType,
};
use launch_plan::{Isolation, LaunchPlan};
use vm_loaders::linux::{self, LinuxInputs, SnpDirect};
use vm_loaders::ovmf::{self, Entry, WrapOptions};
use vm_loaders::uefi;

/// Debugging allowed, in policies of SEV-SNP and TDX.
const SNP_POLICY_DEBUG: u64 = 1 << 19;
const TDX_POLICY_DEBUG: u64 = 1 << 0;
const TDX_POLICY_SEPT_VE_DISABLE: u64 = 1 << 1;

/// The plan of a guest with an isolation of its own, which is not `none` and not `vbs`.
pub(super) fn plan<'r>(guest: &'r Guest, resources: &'r Resources) -> Result<LaunchPlan<'r>, String> {
    match (&guest.isolation, &guest.image) {
        (IsolationType::Snp(snp), Image::Uefi(image)) => {
            igvm_config(image.config_type)?;
            snp_uefi(snp, resources.get("uefi")?)
        }
        (IsolationType::Snp(snp), Image::SnpLinuxDirect(direct)) => snp_linux(snp, direct, resources),
        (IsolationType::Snp(snp), Image::Ovmf(image)) => {
            if snp.injection_type != InjectionType::Normal || snp.shared_gpa_boundary_bits.is_some() {
                return Err(
                    "image ovmf needs normal injection and shared_gpa_boundary_bits null: it uses the C-bit"
                        .to_owned(),
                );
            }
            ovmf(Isolation::Snp, image, Some(snp_policy(snp)), resources)
        }
        (IsolationType::Sev(sev), Image::Ovmf(image)) => {
            ovmf(Isolation::Sev, image, sev.policy.map(|p| p.0), resources)
        }
        (IsolationType::SevEs(sev), Image::Ovmf(image)) => {
            ovmf(Isolation::SevEs, image, sev.policy.map(|p| p.0), resources)
        }
        (
            IsolationType::Tdx {
                enable_debug,
                sept_ve_disable,
            },
            Image::Uefi(image),
        ) => {
            igvm_config(image.config_type)?;
            let policy =
                bit(*enable_debug, TDX_POLICY_DEBUG) | bit(*sept_ve_disable, TDX_POLICY_SEPT_VE_DISABLE);
            uefi::plan_tdx(resources.get("uefi")?, policy).map_err(|error| format!("resource uefi: {error}"))
        }
        (
            IsolationType::Tdx {
                enable_debug,
                sept_ve_disable,
            },
            Image::Ovmf(image),
        ) => {
            let policy =
                bit(*enable_debug, TDX_POLICY_DEBUG) | bit(*sept_ve_disable, TDX_POLICY_SEPT_VE_DISABLE);
            ovmf(Isolation::Tdx, image, (policy != 0).then_some(policy), resources)
        }
        (isolation, image) => Err(format!(
            "image {} cannot be built with isolation {}; see the table in manifests/README.md",
            image.name(),
            isolation.name()
        )),
    }
}

const fn bit(set: bool, value: u64) -> u64 {
    if set { value } else { 0 }
}

fn snp_policy(snp: &SnpIsolation) -> u64 {
    snp.policy | bit(snp.enable_debug, SNP_POLICY_DEBUG)
}

fn igvm_config(config: UefiConfigType) -> Result<(), String> {
    match config {
        UefiConfigType::Igvm => Ok(()),
        UefiConfigType::None => Err(
            "an isolated uefi needs config_type igvm: a host cannot write a configuration blob into it"
                .to_owned(),
        ),
    }
}

fn snp_uefi<'r>(snp: &SnpIsolation, image: &'r [u8]) -> Result<LaunchPlan<'r>, String> {
    if snp.injection_type != InjectionType::Restricted {
        return Err("an isolated uefi needs injection_type restricted".to_owned());
    }
    let Some(shared_gpa_boundary_bits) = snp.shared_gpa_boundary_bits else {
        return Err("an isolated uefi needs shared_gpa_boundary_bits".to_owned());
    };
    let options = uefi::SnpOptions {
        policy: snp_policy(snp),
        shared_gpa_boundary_bits,
    };
    uefi::plan_snp(image, &options).map_err(|error| format!("resource uefi: {error}"))
}

fn snp_linux<'r>(
    snp: &SnpIsolation,
    direct: &'r SnpLinuxDirectImage,
    resources: &'r Resources,
) -> Result<LaunchPlan<'r>, String> {
    let image = crate::manifest::LinuxImage {
        memory_page_count: direct.memory_page_count,
        processor_count: direct.processor_count,
        ..direct.linux.clone()
    };
    let initrd = match image.use_initrd {
        true => Some(resources.get("linux_initrd")?),
        false => None,
    };
    let inputs = LinuxInputs {
        kernel: resources.get("linux_kernel")?,
        initrd,
        cmdline: &direct.linux.command_line,
        layout: &super::linux::layout(&image),
        replaceable_cmdline: false,
    };
    let options = SnpDirect {
        c_bit: direct.c_bit_position,
        policy: snp_policy(snp),
    };
    linux::plan_snp(&inputs, &options).map_err(|error| format!("resource linux_kernel: {error}"))
}

/// The plan of an OVMF image; `policy` replaces the platform's usual one.
pub(super) fn ovmf<'r>(
    isolation: Isolation,
    image: &OvmfImage,
    policy: Option<u64>,
    resources: &'r Resources,
) -> Result<LaunchPlan<'r>, String> {
    let options = WrapOptions {
        entry: if image.flat32 {
            Entry::Flat32
        } else {
            Entry::Real16
        },
        mirror: image.mirror,
        signature: image.cpu_signature.0 as u32,
        policy,
        ..WrapOptions::new(isolation, image.processor_count)
    };
    ovmf::plan(resources.get("ovmf")?, &options).map_err(|error| format!("resource ovmf: {error}"))
}
