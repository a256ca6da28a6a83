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
}

impl KvmError {
    /// `call` was answered with `source`.
    pub fn new(call: impl Into<String>, source: io::Error) -> Self {
        Self {
            call: call.into(),
            source,
        }
    }

    /// Adds what the call was about.
    #[must_use]
    pub fn about(mut self, subject: impl std::fmt::Display) -> Self {
        self.call = format!("{} ({subject})", self.call);
        self
    }

    /// The error number, if the host gave one.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}
