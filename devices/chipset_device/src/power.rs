// SPDX-License-Identifier: MIT
//! Guest-initiated ends.

/// What a device asks of the VM as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PowerRequest {
    /// Soft off.
    Shutdown,
    /// Platform reset.
    Reset,
    /// The test-exit device was written; the code is 7 bits.
    TestExit(u8),
    /// Firmware or guest reported a crash; the text is what is known.
    Crash(String),
}

/// Where devices send power requests. The first request of a run wins; VPs stop before their next
/// instruction.
pub trait PowerSink: Send + Sync {
    /// Asks for `request`.
    fn request(&self, request: PowerRequest);
}
