// SPDX-License-Identifier: MIT
//! Answering an exit through the bus, and saying what is left to do.

use kvm_sys::Exit;
use kvm_sys::bindings as kb;
use virt::{VpBus, VpIndex};
use x86defs::msr;

/// What an exit leaves to the run loop.
#[derive(Debug)]
pub(super) enum After {
    /// Nothing.
    Nothing,
    /// The next entry finishes the instruction.
    Unfinished,
    /// As [`After::Unfinished`], and the APIC base may have changed.
    ApicBase,
    /// HLT.
    Halted,
    /// Triple fault.
    TripleFault,
    /// A breakpoint or single step of the host's.
    Debug,
    /// These bytes (maybe none) begin an instruction that KVM could not emulate.
    NotEmulated(Vec<u8>),
    /// The guest cannot go on.
    Unrunnable(String),
}

/// Largest access that a port device takes.
const WIDEST_PORT_ACCESS: usize = 4;

pub(super) fn answer(bus: &dyn VpBus, vp: VpIndex, exit: Exit<'_>) -> After {
    match exit {
        Exit::Interrupted | Exit::IrqWindow | Exit::SetTpr => After::Nothing,
        Exit::PortIn { port, size, data } => {
            data.chunks_mut(size.min(WIDEST_PORT_ACCESS))
                .for_each(|item| bus.port_read(vp, port, item));
            After::Unfinished
        }
        Exit::PortOut { port, size, data } => {
            data.chunks(size.min(WIDEST_PORT_ACCESS))
                .for_each(|item| bus.port_write(vp, port, item));
            After::Unfinished
        }
        Exit::MmioRead { gpa, data } => {
            bus.mmio_read(vp, gpa, data);
            After::Unfinished
        }
        Exit::MmioWrite { gpa, data } => {
            bus.mmio_write(vp, gpa, data);
            After::Unfinished
        }
        Exit::MsrRead { msr, reply } => {
            reply.answer(bus.msr_read(vp, msr));
            After::Unfinished
        }
        Exit::MsrWrite { msr, value, reply } => {
            reply.answer(bus.msr_write(vp, msr, value).then_some(value));
            if msr == msr::APIC_BASE {
                After::ApicBase
            } else {
                After::Unfinished
            }
        }
        Exit::Hlt => After::Halted,
        Exit::Shutdown => After::TripleFault,
        Exit::Debug => After::Debug,
        Exit::EmulationFailure { bytes } => After::NotEmulated(bytes),
        failed => After::Unrunnable(describe(&failed)),
    }
}

fn describe(exit: &Exit<'_>) -> String {
    match exit {
        Exit::FailEntry { reason, cpu } => format!(
            "host processor {cpu} refused to enter the guest (hardware reason {reason:#x}); the register state is \
             one that it does not accept"
        ),
        Exit::InternalError { suberror, data } => {
            let what = match *suberror {
                kb::KVM_INTERNAL_ERROR_SIMUL_EX => "two exceptions met in a way that it cannot deliver",
                kb::KVM_INTERNAL_ERROR_DELIVERY_EV => "an exit interrupted the delivery of an event",
                kb::KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON => {
                    "the processor left the guest for an unknown reason"
                }
                _ => "it does not say why",
            };
            format!("kvm gave up with internal error {suberror} ({what}; data {data:#x?})")
        }
        Exit::MemoryFault { gpa, len, private } => {
            let kind = if *private { "private" } else { "shared" };
            format!("{kind} memory at gpa {gpa:#x} ({len:#x} bytes) cannot be reached")
        }
        other => format!("kvm left the guest with a reason that this backend does not know: {other:?}"),
    }
}

#[cfg(test)]
mod tests;
