// SPDX-License-Identifier: MIT
//! Launches through the real calls on the model of KVM and the security processor.
#![forbid(unsafe_code)]

mod faults;
mod host_answers;
mod hosts;
mod order;
mod outcome;
mod real;
mod refusals;
mod rig;
