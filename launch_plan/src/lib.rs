// SPDX-License-Identifier: MIT
//! The launch plan: what a guest starts as, as a value.
//!
//! A [`LaunchPlan`] is one platform of one guest image, interpreted: platform facts that are needed
//! before anything exists, and an ordered list of steps. Loaders make plans; everything else (launch,
//! measure, print, compare, encode) consumes them.
//!
//! Always true of a built plan: steps keep the order in which the image lists them; every import is
//! page aligned and page exact; no two imports overlap; contents never exceed their range; payload
//! bytes are borrowed, never copied per page. Only printing coalesces steps.
//!
//! Not here: reading or writing IGVM (`vm_loaders::igvm`), hypervisors, guest memory, hashing.
#![forbid(unsafe_code)]

mod bind;
mod builder;
mod carve;
mod display;
mod endorse;
mod pages;
mod plan;
mod ranges;
mod state_check;
mod vp;

pub use bind::{BindError, BoundImport, BoundPlan, HandOver, HostRegisters, HostValues, MAX_PARAMETER_BYTES};
pub use builder::{PlanBuilder, PlanError};
pub use display::size_text;
pub use endorse::{Corim, Endorsements, IdBlock, IdKey, IdSignature, VbsMeasurement};
pub use pages::{ImportRun, PageContents, PlanPage, PlanRun};
pub use plan::*;
pub use ranges::RangeSet;
pub use state_check::{StateError, check_state};
pub use vp::*;
