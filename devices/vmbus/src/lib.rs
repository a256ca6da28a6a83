// SPDX-License-Identifier: MIT
//! VMBus: the bus of Hyper-V's paravirtual devices, from the host's side.
//!
//! Always true: the guest's messages and rings are hostile input: what is malformed is refused with the
//! status that the protocol has for it, or closes that one channel with a log line; memory that a guest can
//! make the host keep is bounded. Devices run on the thread of the VP that signalled.
//! Not here: messages and events themselves (`hyperv`), disks (`block`), interfaces (`tap`), threads.
#![forbid(unsafe_code)]

pub mod channel;
pub mod gpadl;
pub mod ic;
pub mod keyboard;
mod netvsp;
pub mod protocol;
pub mod ring;
mod rndis;
pub mod scsi;
mod server;
mod storvsp;
pub mod video;

#[cfg(test)]
mod tests;

pub use channel::{ChannelDevice, OpenChannel};
pub use netvsp::{Appetite, NetVsp};
pub use server::{BusPart, MOST_MESSAGES, VmBus};
pub use storvsp::StorVsp;
