// SPDX-License-Identifier: MIT
//! Launch plans around flat payloads.
//!
//! Always true: the plan holds everything that a VMM needs to start the payload in 64-bit mode, and only
//! what the contract in `guest_protocol` names. Not here: encoding plans as IGVM files (`vm_loaders`).

mod flat;
mod igvm_probe;
mod state;

pub use flat::{FlatPayload, flat_plan};
pub use igvm_probe::{IgvmProbeOptions, igvm_probe_plan};

use launch_plan::{Contents, Import, Origin, PageKind, PlanBuilder, PlanError};
use std::borrow::Cow;
use x86defs::paging::PAGE_SIZE;

/// Adds pages of one kind that begin with `bytes`.
fn add_pages(
    builder: &mut PlanBuilder<'static>,
    what: &'static str,
    gpa: u64,
    kind: PageKind,
    bytes: Cow<'static, [u8]>,
) -> Result<(), PlanError> {
    let len = (bytes.len() as u64).next_multiple_of(PAGE_SIZE);
    let contents = Contents::Bytes(bytes);
    let import = Import {
        gpa,
        len,
        large: false,
        kind,
        contents,
    };
    builder.import(import, Origin::Host(what))
}

#[cfg(test)]
mod tests;
