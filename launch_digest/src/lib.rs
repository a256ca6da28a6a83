// SPDX-License-Identifier: MIT
//! Launch digests as folds over a launch plan: SEV, SEV-ES, SEV-SNP, TDX, VBS.
//!
//! The same file has several digests, because loaders disagree on order, zero pages, parameter areas and
//! VMSAs. A [`Profile`] names one reading; [`Profile::Kvm`] is what a launch through KVM really gives and
//! the default. [`events`] turns a plan into the sequence that a profile submits, and every platform's
//! digest is a fold over that sequence, so a disagreement can be traced to the first step that differs,
//! and [`explain`] finds the reading that gives a foreign digest.
//!
//! Always true: pages are hashed from borrowed bytes in bounded batches, so memory stays flat whatever
//! the size of the file; filling parameter holes never changes a digest.
//! Not here: reading IGVM (`vm_loaders`), launching (`virt_sev`).
#![forbid(unsafe_code)]

mod difference;
pub mod events;
mod explain;
mod fold;
pub mod id_block;
pub mod kvm_vmsa;
mod launch_measure;
mod measure;
mod pages;
pub mod profile;
pub mod report;

pub use difference::{Difference, Reading, first_difference, first_difference_of};
pub use events::{Event, Measured, PageClass, Subject};
pub use explain::{Explanation, explain};
pub use launch_measure::{MeasureContext, launch_measure};
pub use measure::{
    Digest, MeasureError, Measurement, Options, TraceStep, measure, measure_among, vmsa_issues,
};
pub use profile::{Profile, Rules};
