// SPDX-License-Identifier: MIT
//! A call that KVM refused.

use std::io;

/// A failed call: which, about what, and the host's answer.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {source}")]
pub struct KvmError {
    /// Name of the request, with its subject where one call site makes several.
    pub call: String,
    /// The host's answer.
    pub source: io::Error,
    firmware: u32,
}

impl KvmError {
    /// `call` was answered with `source`.
    pub fn new(call: impl Into<String>, source: io::Error) -> Self {
        Self {
            call: call.into(),
            source,
            firmware: 0,
        }
    }

    /// Adds what the call was about.
    #[must_use]
    pub fn about(mut self, subject: impl std::fmt::Display) -> Self {
        self.call = format!("{} ({subject})", self.call);
        self
    }

    /// Adds the status of the security processor's firmware.
    #[must_use]
    pub(crate) fn with_firmware(mut self, status: u32) -> Self {
        self.firmware = status;
        self
    }

    /// The status of the security processor's firmware; 0 when it was not asked, or KVM does not say.
    pub fn firmware(&self) -> u32 {
        self.firmware
    }

    /// The error number, if the host gave one.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}
