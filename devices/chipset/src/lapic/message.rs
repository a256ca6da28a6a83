// SPDX-License-Identifier: MIT
//! Interrupt messages between IO-APIC, MSI sources and local APICs (Intel SDM volume 3, sections 11.6
//! and 11.11).

/// How the receiver treats a message (delivery mode, bits 10:8 of ICR, redirection entry and MSI data).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryMode {
    /// The vector, to every destination.
    Fixed,
    /// The vector, to the destination with the lowest processor priority.
    LowestPriority,
    /// System management interrupt; there is no SMM here.
    Smi,
    /// Non-maskable interrupt.
    Nmi,
    /// INIT.
    Init,
    /// Start-up with a page number as vector.
    Startup,
    /// A vector that the 8259 supplies.
    ExtInt,
}

impl DeliveryMode {
    /// Decodes the three-bit field; the reserved value 3 has no meaning.
    pub const fn from_bits(bits: u32) -> Option<Self> {
        Some(match bits & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::Startup,
            7 => Self::ExtInt,
            _ => return None,
        })
    }
}

/// Which local APICs a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// Every local APIC.
    All,
    /// Every local APIC but the sender.
    AllBut(u32),
    /// The local APIC of this virtual processor (shorthand self).
    Itself(u32),
    /// The local APIC with this id.
    Physical(u32),
    /// The local APICs whose logical id matches.
    Logical(u32),
}

impl Destination {
    /// An 8-bit destination of an IO-APIC, an MSI or an xAPIC ICR; 0xFF is everybody.
    pub const fn from_xapic(id: u8, logical: bool) -> Self {
        match (id, logical) {
            (0xFF, _) => Self::All,
            (_, true) => Self::Logical(id as u32),
            (_, false) => Self::Physical(id as u32),
        }
    }

    /// A 32-bit destination of an x2APIC ICR; all ones is everybody.
    pub const fn from_x2apic(id: u32, logical: bool) -> Self {
        match (id, logical) {
            (u32::MAX, _) => Self::All,
            (_, true) => Self::Logical(id),
            (_, false) => Self::Physical(id),
        }
    }
}

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApicMessage {
    /// Who gets it.
    pub destination: Destination,
    /// What it does.
    pub mode: DeliveryMode,
    /// Vector, or start-up page.
    pub vector: u8,
    /// Level triggered: the receiver's EOI is broadcast to the IO-APIC.
    pub level_triggered: bool,
}
