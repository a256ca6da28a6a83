// SPDX-License-Identifier: MIT
//! Launch digests as folds over a launch plan: SEV, SEV-ES, SEV-SNP, TDX, VBS.
//!
//! The same file has several digests, because loaders disagree on order, zero pages, parameter areas and
//! VMSAs. A [`Profile`] names one reading; [`Profile::Kvm`] is what a launch through KVM really gives and
//! the default. [`events`] turns a plan into the sequence that a profile submits, and every platform's
//! digest is a fold over that sequence, so a disagreement can be traced to the first step that differs,
//! and [`explain()`] finds the reading that gives a foreign digest.
//!
//! ```
//! use launch_digest::{Options, Profile, explain, measure};
//! use launch_plan::Isolation;
//! use vm_loaders::igvm::{File, MappedFile};
//!
//! // Read a file: nothing is copied.
//! let mapped = MappedFile::open("tests/data/g4-snp-vmsa-first.igvm".as_ref())?;
//! let file = File::read(mapped.bytes())?;
//! let plan = file.plan(Isolation::Snp)?;
//!
//! // Print its runs of pages, its contexts and what else it starts.
//! println!("{plan}");
//! assert!(plan.pages().any(|(page, _)| page.gpa == 0x1000));
//!
//! // Compute its digest: what a launch through KVM gives, and what a tool that follows file order prints.
//! let ours = measure(&plan, &Options::default())?;
//! println!("{} for {} vps", ours.digest, ours.vp_count);
//! let options = Options { profile: Profile::FileOrder, ..Options::default() };
//! let theirs = measure(&plan, &options)?.digest;
//! assert_ne!(ours.digest, theirs);
//!
//! // Say why they differ.
//! let why = explain(&plan, &[], &theirs, None)?.expect("a profile's digest is explained");
//! assert_eq!(why.reasons, ["save areas are measured where they stand in the file"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Always true: pages are hashed from borrowed bytes in bounded batches, so memory stays flat whatever
//! the size of the file; filling parameter holes never changes a digest.
//! Unsafe code is in `lanes` only. Not here: reading IGVM (`vm_loaders`), launching (`virt_sev`).
#![deny(unsafe_code)]

mod difference;
pub mod events;
mod explain;
mod fold;
pub mod id_block;
pub mod kvm_vmsa;
#[allow(unsafe_code, reason = "SIMD functions behind a check of the processor")]
mod lanes;
mod launch_measure;
mod measure;
mod pages;
pub mod profile;
pub mod report;

pub use difference::{Difference, Reading, first_difference, first_difference_of};
pub use events::{Event, Measured, PageClass, Subject};
pub use explain::{Explanation, explain, profile_digests};
pub use launch_measure::{MeasureContext, launch_measure};
pub use measure::{
    Digest, MeasureError, Measurement, Options, TraceStep, measure, measure_among, measure_by_rules,
    vmsa_issues,
};
pub use profile::{Profile, Rules};
