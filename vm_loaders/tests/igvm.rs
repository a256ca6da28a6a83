// SPDX-License-Identifier: MIT
//! Tests of `vm_loaders::igvm` through its public interface.

#[path = "igvm/codes.rs"]
mod codes;
#[path = "igvm/golden.rs"]
mod golden;
#[path = "igvm/interop.rs"]
mod interop;
#[path = "igvm/mutation.rs"]
mod mutation;
#[path = "igvm/raw.rs"]
mod raw;
#[path = "igvm/relocation.rs"]
mod relocation;
#[path = "igvm/round_trip.rs"]
mod round_trip;
#[path = "igvm/truncation.rs"]
mod truncation;
#[path = "igvm/vectors.rs"]
mod vectors;
