// SPDX-License-Identifier: MIT
//! Numbers of the TLFS, under its names without prefixes.
//!
//! Not here: what the numbers do.

/// Synthetic model-specific registers (TLFS appendix "Synthetic MSRs").
pub mod msr {
    /// Identity of the guest's system; hypercalls need one that is not zero.
    pub const GUEST_OS_ID: u32 = 0x4000_0000;
    /// Where the hypercall page is.
    pub const HYPERCALL: u32 = 0x4000_0001;
    /// Index of the virtual processor that asks.
    pub const VP_INDEX: u32 = 0x4000_0002;
    /// Bit 0 resets the machine.
    pub const RESET: u32 = 0x4000_0003;
    /// 100 ns since the partition was made.
    pub const TIME_REF_COUNT: u32 = 0x4000_0020;
    /// Where the reference TSC page is.
    pub const REFERENCE_TSC: u32 = 0x4000_0021;
    /// Frequency of the TSC in Hz.
    pub const TSC_FREQUENCY: u32 = 0x4000_0022;
    /// Frequency of the local APIC's timer in Hz.
    pub const APIC_FREQUENCY: u32 = 0x4000_0023;
    /// End of interrupt.
    pub const EOI: u32 = 0x4000_0070;
    /// Interrupt command register, both halves.
    pub const ICR: u32 = 0x4000_0071;
    /// Task priority.
    pub const TPR: u32 = 0x4000_0072;
    /// Where the VP assist page is.
    pub const VP_ASSIST_PAGE: u32 = 0x4000_0073;
    /// Bit 0 switches the synthetic interrupt controller on.
    pub const SCONTROL: u32 = 0x4000_0080;
    /// Version of the synthetic interrupt controller.
    pub const SVERSION: u32 = 0x4000_0081;
    /// Where the event flags page is.
    pub const SIEFP: u32 = 0x4000_0082;
    /// Where the message page is.
    pub const SIMP: u32 = 0x4000_0083;
    /// End of message.
    pub const EOM: u32 = 0x4000_0084;
    /// First of sixteen interrupt sources.
    pub const SINT0: u32 = 0x4000_0090;
    /// Last interrupt source.
    pub const SINT15: u32 = 0x4000_009F;
    /// Configuration of the first timer; its count follows, then the next timer.
    pub const STIMER0_CONFIG: u32 = 0x4000_00B0;
    /// Count of the last timer.
    pub const STIMER3_COUNT: u32 = 0x4000_00B7;
    /// First of five crash parameters.
    pub const CRASH_P0: u32 = 0x4000_0100;
    /// Last crash parameter.
    pub const CRASH_P4: u32 = 0x4000_0104;
    /// Reports the crash.
    pub const CRASH_CTL: u32 = 0x4000_0105;
    /// The guest relies on a TSC that never changes its rate.
    pub const TSC_INVARIANT_CONTROL: u32 = 0x4000_0118;
    /// First number of the range.
    pub const FIRST: u32 = 0x4000_0000;
    /// Last number of the range.
    pub const LAST: u32 = 0x4000_01FF;
}

/// Hypercall codes.
pub mod call {
    /// A guest has spun for long.
    pub const NOTIFY_LONG_SPIN_WAIT: u16 = 0x0008;
    /// Sends a message to a connection.
    pub const POST_MESSAGE: u16 = 0x005C;
    /// Sets a flag of a connection.
    pub const SIGNAL_EVENT: u16 = 0x005D;
    /// Starts a virtual processor.
    pub const START_VIRTUAL_PROCESSOR: u16 = 0x0099;
    /// Virtual processor indexes of local APIC ids.
    pub const GET_VP_INDEX_FROM_APIC_ID: u16 = 0x009A;
}

/// Result of a hypercall (TLFS "Hypercall status codes").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum HvStatus {
    /// Done.
    Success = 0,
    /// There is no such hypercall.
    InvalidHypercallCode = 2,
    /// The control word is malformed for this hypercall.
    InvalidHypercallInput = 3,
    /// The parameters are not aligned to 8 bytes, or cross a page.
    InvalidAlignment = 4,
    /// A parameter is wrong.
    InvalidParameter = 5,
    /// The partition lacks the privilege.
    AccessDenied = 6,
    /// There is no such virtual processor.
    InvalidVpIndex = 14,
    /// There is no such port.
    InvalidPortId = 17,
    /// There is no such connection.
    InvalidConnectionId = 18,
    /// The receiver has no room.
    InsufficientBuffers = 19,
}

/// Bit 0 of registers that name a page: the page is enabled.
pub const PAGE_ENABLED: u64 = 1;
/// Bits of registers that name a page: its address.
pub const PAGE_ADDRESS: u64 = !0xFFF;
/// Bytes of a message slot, and of the event flags of one interrupt source.
pub const SLOT_LEN: u64 = 256;
/// Bytes of a message's payload at most.
pub const PAYLOAD_LEN: usize = 240;
/// Event flags of one interrupt source.
pub const EVENT_FLAGS: u16 = 2048;
/// Interrupt sources of a virtual processor.
pub const SINTS: usize = 16;
/// Timers of a virtual processor.
pub const TIMERS: usize = 4;
/// Type of a message that a timer sends.
pub const MESSAGE_TIMER_EXPIRED: u32 = 0x8000_0010;
