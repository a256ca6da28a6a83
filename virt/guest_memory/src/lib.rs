// SPDX-License-Identifier: MIT
//! Guest RAM: the only place that holds host pointers to it.
//!
//! Always true: every access is bounds checked against RAM regions; contents are zero at allocation and
//! after [`GuestMemory::zero`]; a write through [`DmaMemory`] (devices, loaders) bumps the generation of
//! each page it touches, so that translated code over it is seen to be stale.
//! Not here: MMIO, private/shared page state (a layer over this, later), who may write what.

mod dma;
mod file_io;
mod generations;
mod memory;

pub use dma::DmaMemory;
pub use generations::{GenerationSlice, PageGenerations};
pub use memory::{GuestMemory, GuestRam, MemoryError, RamPage, RamRegion};
