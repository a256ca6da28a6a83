// SPDX-License-Identifier: MIT
//! The worker.
#![forbid(unsafe_code)]

mod dispatch;
mod ending;
pub mod entropy;
pub mod fit;
pub mod layout;
mod power;
mod registers;
pub mod rpc;
#[cfg(test)]
mod testing;
mod timer_thread;
mod vp_thread;

pub use ending::{Ended, HaltReason};
