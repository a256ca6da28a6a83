// SPDX-License-Identifier: MIT
//! Launch digests of an OVMF image as the `sev` crate computes them: what `tests/ovmf.rs` compares with.
//!
//! `sev-judge sev|seves|snp OVMF.fd VPS EPYC-v4|EPYC-Milan` prints the digest in hex.
#![forbid(unsafe_code)]

use sev::measurement::sev::{
    SevEsMeasurementArgs, SevMeasurementArgs, sev_calc_launch_digest, seves_calc_launch_digest,
};
use sev::measurement::snp::{SnpMeasurementArgs, snp_calc_launch_digest};
use sev::measurement::vcpu_types::CpuType;
use sev::measurement::vmsa::{GuestFeatures, VMMType};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [mode, image, vps, cpu] = &args[..] else {
        return Err("usage: sev-judge sev|seves|snp OVMF.fd VPS EPYC-v4|EPYC-Milan".into());
    };
    let vcpus: u32 = vps.parse()?;
    let vcpu_type = match &cpu[..] {
        "EPYC-v4" => CpuType::EpycV4,
        "EPYC-Milan" => CpuType::EpycMilan,
        other => return Err(format!("no such processor: {other}").into()),
    };
    let digest = match &mode[..] {
        "sev" => sev_calc_launch_digest(SevMeasurementArgs {
            ovmf_file: image.into(),
            kernel_file: None,
            initrd_file: None,
            append: None,
        })?
        .to_vec(),
        "seves" => seves_calc_launch_digest(SevEsMeasurementArgs {
            vcpus,
            vcpu_type,
            ovmf_file: image.into(),
            kernel_file: None,
            initrd_file: None,
            append: None,
            vmm_type: Some(VMMType::QEMU),
        })?
        .to_vec(),
        "snp" => {
            let digest = snp_calc_launch_digest(SnpMeasurementArgs {
                vcpus,
                vcpu_type,
                ovmf_file: image.into(),
                guest_features: GuestFeatures(1),
                kernel_file: None,
                initrd_file: None,
                append: None,
                ovmf_hash_str: None,
                vmm_type: Some(VMMType::QEMU),
            })?;
            println!("{}", digest.get_hex_ld());
            return Ok(());
        }
        other => return Err(format!("no such mode: {other}").into()),
    };
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("{hex}");
    Ok(())
}
