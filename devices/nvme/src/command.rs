// SPDX-License-Identifier: MIT
//! Submission queue entries and how they end (sections 4.2 and 4.6).

/// Bytes of a submission queue entry.
pub(crate) const ENTRY: usize = 64;

/// A command as the guest wrote it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Command([u8; ENTRY]);

impl Command {
    pub(crate) fn new(bytes: [u8; ENTRY]) -> Self {
        Self(bytes)
    }

    pub(crate) fn opcode(&self) -> u8 {
        self.0[0]
    }

    /// PRPs are the only kind of data pointer here.
    pub(crate) fn uses_prp(&self) -> bool {
        self.0[1] & 0xC0 == 0
    }

    pub(crate) fn id(&self) -> u16 {
        self.dword(0).wrapping_shr(16) as u16
    }

    pub(crate) fn namespace(&self) -> u32 {
        self.dword(1)
    }

    /// Command dword `n`.
    pub(crate) fn dword(&self, n: usize) -> u32 {
        let at = n * 4;
        u32::from_le_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    pub(crate) fn qword(&self, n: usize) -> u64 {
        u64::from(self.dword(n + 1)) << 32 | u64::from(self.dword(n))
    }

    /// Data pointer: PRP 1 and PRP 2.
    pub(crate) fn prps(&self) -> (u64, u64) {
        (self.qword(6), self.qword(8))
    }
}

/// How a command failed: status code type and code, as bits 11:1 of the status field. Do not retry is bit 15.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status(u16);

impl Status {
    pub(crate) const INVALID_OPCODE: Self = Self::generic(0x01);
    pub(crate) const INVALID_FIELD: Self = Self::generic(0x02);
    pub(crate) const TRANSFER: Self = Self::generic(0x04);
    pub(crate) const INVALID_NAMESPACE: Self = Self::generic(0x0B);
    pub(crate) const INVALID_PRP_OFFSET: Self = Self::generic(0x13);
    pub(crate) const OUT_OF_RANGE: Self = Self::generic(0x80);
    pub(crate) const INVALID_COMPLETION_QUEUE: Self = Self::specific(0x00);
    pub(crate) const INVALID_QUEUE: Self = Self::specific(0x01);
    pub(crate) const INVALID_QUEUE_SIZE: Self = Self::specific(0x02);
    pub(crate) const TOO_MANY_EVENTS: Self = Self::specific(0x05);
    pub(crate) const INVALID_VECTOR: Self = Self::specific(0x08);
    pub(crate) const INVALID_LOG: Self = Self::specific(0x09);
    pub(crate) const INVALID_QUEUE_DELETION: Self = Self::specific(0x0C);
    pub(crate) const READ_ONLY: Self = Self::specific(0x82);
    pub(crate) const WRITE_FAULT: Self = Self::media(0x80);
    pub(crate) const READ_ERROR: Self = Self::media(0x81);

    const fn generic(code: u16) -> Self {
        Self(code)
    }

    const fn specific(code: u16) -> Self {
        Self(1 << 8 | code)
    }

    const fn media(code: u16) -> Self {
        Self(2 << 8 | code)
    }

    /// The status field without the phase: retrying the same command would end the same.
    pub(crate) fn field(self) -> u16 {
        const DO_NOT_RETRY: u16 = 1 << 14;
        (self.0 | DO_NOT_RETRY) << 1
    }
}

/// What a command ends with: dword 0 of its completion, or a failure.
pub(crate) type Outcome = Result<u32, Status>;
