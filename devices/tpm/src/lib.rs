// SPDX-License-Identifier: MIT
//! A TPM 2.0 with a command response buffer (TCG PC Client Platform TPM Profile 1.05, 6.5.3), which swtpm
//! works behind.
//!
//! Always true: a command runs on a thread of its own, so that no VP waits for it; a guest's addresses and
//! lengths are checked before anything is read or written; a TPM that cannot be reached is a fatal error in
//! the status register and one log line, and stays one until the machine is reset. A reset of the machine
//! resets the TPM. Not here: physical presence operations, which are all refused; cancelling a command that
//! runs.
#![forbid(unsafe_code)]

mod crb;
mod swtpm;

#[cfg(test)]
mod tests;

pub use crb::{Crb, LEN, MMIO, PORTS, TpmPorts, TpmRegisters};
pub use swtpm::{Patience, Swtpm, SwtpmError};
