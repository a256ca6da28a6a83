// SPDX-License-Identifier: MIT
//! The two sides of an intercept: the device that answers and the VP that asks.

use crate::VpIndex;

/// Every device.
pub trait Device: Send {
    /// Returns all volatile state to what it is after power on. Interrupt lines go low.
    fn reset(&mut self);

    /// State for `inspect`, as lines of `name value`; empty when there is nothing to show.
    fn inspect(&self) -> String {
        String::new()
    }
}

/// A device on the port bus. `offset` counts from the device's first port; `data` is 1, 2 or 4 bytes.
pub trait PortDevice: Device {
    /// IN.
    fn port_read(&mut self, offset: u16, data: &mut [u8]);
    /// OUT.
    fn port_write(&mut self, offset: u16, data: &[u8]);
}

/// A device in guest physical address space. `offset` counts from the device's first byte; `data` is 1
/// to 8 bytes and never crosses the end of the device's window.
pub trait MmioDevice: Device {
    /// Load.
    fn mmio_read(&mut self, offset: u64, data: &mut [u8]);
    /// Store.
    fn mmio_write(&mut self, offset: u64, data: &[u8]);
}

/// What a VP has to deal with before it may run guest code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VpEvents {
    /// INIT arrived: the VP goes to wait-for-SIPI (the BSP to its reset vector). Cleared by the poll.
    pub init: bool,
    /// A SIPI with this vector arrived after INIT. Cleared by the poll.
    pub sipi: Option<u8>,
    /// An NMI is pending. Cleared by the poll.
    pub nmi: bool,
    /// A vector above the processor priority is waiting; take it with [`VpBus::acknowledge`].
    pub interrupt: bool,
}

/// Everything that a virtual processor asks of the machine around it. One object per partition, called
/// from every VP's thread; the chipset implements it.
pub trait VpBus: Send + Sync {
    /// IN of 1, 2 or 4 bytes.
    fn port_read(&self, vp: VpIndex, port: u16, data: &mut [u8]);
    /// OUT of 1, 2 or 4 bytes.
    fn port_write(&self, vp: VpIndex, port: u16, data: &[u8]);
    /// Load of 1 to 8 bytes outside RAM.
    fn mmio_read(&self, vp: VpIndex, gpa: u64, data: &mut [u8]);
    /// Store of 1 to 8 bytes outside RAM.
    fn mmio_write(&self, vp: VpIndex, gpa: u64, data: &[u8]);
    /// RDMSR of a register that the backend does not own; `None` raises #GP.
    fn msr_read(&self, vp: VpIndex, msr: u32) -> Option<u64>;
    /// WRMSR of a register that the backend does not own; `false` raises #GP.
    #[must_use]
    fn msr_write(&self, vp: VpIndex, msr: u32, value: u64) -> bool;
    /// Takes the VP's pending INIT, SIPI and NMI and says whether a vector waits. Cheap: a relaxed load
    /// when nothing is pending. `interrupt` does not consider RFLAGS.IF; the caller does.
    fn poll(&self, vp: VpIndex) -> VpEvents;
    /// Takes the highest pending vector (from the local APIC, else from the 8259 when LINT0 is ExtINT).
    fn acknowledge(&self, vp: VpIndex) -> Option<u8>;
    /// CR8 as the local APIC has it (task priority, bits 7:4).
    fn cr8(&self, vp: VpIndex) -> u8;
    /// MOV to CR8.
    fn set_cr8(&self, vp: VpIndex, value: u8);
}

/// Gets a virtual processor's attention; a backend's signal table is one. Called with device locks held,
/// so it must not call back into a device.
pub trait VpWake: Send + Sync {
    /// Makes `vp` poll its events soon. Unknown indexes are ignored.
    fn wake(&self, vp: VpIndex);
}

/// Owner of a range of MSR numbers. Called from every VP's thread.
pub trait MsrHandler: Send + Sync {
    /// RDMSR; `None` raises #GP.
    fn msr_read(&self, vp: VpIndex, msr: u32) -> Option<u64>;
    /// WRMSR; `false` raises #GP.
    fn msr_write(&self, vp: VpIndex, msr: u32, value: u64) -> bool;
    /// Returns all volatile state to what it is after power on.
    fn reset(&self);
    /// State for `inspect`, as lines of `name value`.
    fn inspect(&self) -> String {
        String::new()
    }
}

/// A range of ports whose owner has to know which virtual processor asks. `offset` counts from the range's
/// first port. Called from every VP's thread.
pub trait VpPorts: Send + Sync {
    /// IN.
    fn port_read(&self, vp: VpIndex, offset: u16, data: &mut [u8]);
    /// OUT.
    fn port_write(&self, vp: VpIndex, offset: u16, data: &[u8]);
}

/// The local APICs, for devices that name virtual processors and not APIC ids. Unknown VPs are ignored.
pub trait VpInterrupts: Send + Sync {
    /// Requests edge-triggered `vector` on `vp`.
    fn request(&self, vp: VpIndex, vector: u8);
    /// Makes `vp` end every interrupt of `vector` by itself when it takes it (Hyper-V's auto-EOI), or not.
    fn set_auto_eoi(&self, vp: VpIndex, vector: u8, on: bool);
    /// The register at byte `offset` of the local APIC's page; `None` when there is none.
    fn apic_read(&self, vp: VpIndex, offset: u16) -> Option<u32>;
    /// Writes the register at byte `offset` of the local APIC's page; `false` when there is none.
    fn apic_write(&self, vp: VpIndex, offset: u16, value: u32) -> bool;
}

/// A device's place on a bus, moved by whoever decodes for it (a BAR, PMBASE, PCIEXBAR).
pub trait Placement: Send + Sync {
    /// Moves to `at`, first address and length, or off the bus. On an error, which says who is in the
    /// way, nothing changes.
    fn place(&self, at: Option<(u64, u64)>) -> Result<(), String>;
}
