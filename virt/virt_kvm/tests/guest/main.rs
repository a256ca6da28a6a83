// SPDX-License-Identifier: MIT
//! Tiny guests on the real `/dev/kvm`, with a bus that only logs. Skipped, with a printed reason, where
//! there is none.

mod accesses;
mod engine;
mod interrupts;
mod processors;
mod registers;
mod rig;
mod stopping;
