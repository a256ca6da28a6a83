// SPDX-License-Identifier: MIT
//! The instruction engine: an x86-64 processor in software.
//!
//! Always true: a guest can make the engine raise exceptions, stop, or be slow, but not panic or touch
//! memory that [`Bus::ram`] did not hand out. `unsafe` is only in the memory fast path (`mem`) and the
//! native FPU/SSE thunk (`native`). There is one engine in the tree: the software CPU backend runs on
//! it, and KVM's emulation failures step through it.
//! Not here: scheduling of several processors, devices, local APIC, clocks.

mod bus;
mod cache;
mod code_map;
mod core;
mod cpu;
pub mod cpuid;
mod debug;
mod disassemble;
mod exception;
mod far;
mod flags;
mod fpu;
mod mem;
mod msr;
mod native;
mod ops;
mod segment;
mod translate;
mod uop;
mod walk;

pub use bus::{Attention, Bus, Exit, MsrFault, Traced, Tracer};
pub use code_map::CodeMap;
pub use cpu::{Config, Cpu};
pub use disassemble::disassemble;
pub use mem::RamPage;
