// SPDX-License-Identifier: MIT
//! Hypercalls: the page that makes them, and what they do (TLFS "Hypercall interface").
//!
//! The page is 64-bit code that hands over RCX, RDX and R8 in halves through ports, with interrupts off
//! between the first and the last, and keeps every register but RAX. Always true: parameters are in RAM,
//! aligned and in one page, before a hypercall looks at them. Not here: XMM parameters, which are not
//! advertised; 32-bit callers.

use crate::tlfs::{HvStatus, PAYLOAD_LEN, call};
use guest_memory::DmaMemory;

/// First of the ports that the hypercall page uses.
pub const HYPERCALL_PORT: u16 = 0xE0;
/// How many: control, input and output, four each.
pub const HYPERCALL_PORTS: u16 = 12;

const CONTROL: u8 = HYPERCALL_PORT as u8;
const INPUT: u8 = CONTROL + 4;
const OUTPUT: u8 = CONTROL + 8;

/// The code of the hypercall page.
#[rustfmt::skip]
pub(crate) const CODE: &[u8] = &[
    0x9C,                               // pushfq
    0xFA,                               // cli
    0x89, 0xC8, 0xE7, CONTROL,          // mov eax, ecx; out CONTROL, eax
    0x48, 0xC1, 0xC1, 0x20,             // rol rcx, 32
    0x89, 0xC8, 0xE7, CONTROL,
    0x48, 0xC1, 0xC1, 0x20,
    0x89, 0xD0, 0xE7, INPUT,            // mov eax, edx; out INPUT, eax
    0x48, 0xC1, 0xC2, 0x20,             // rol rdx, 32
    0x89, 0xD0, 0xE7, INPUT,
    0x48, 0xC1, 0xC2, 0x20,
    0x44, 0x89, 0xC0, 0xE7, OUTPUT,     // mov eax, r8d; out OUTPUT, eax
    0x49, 0xC1, 0xC0, 0x20,             // rol r8, 32
    0x44, 0x89, 0xC0, 0xE7, OUTPUT,
    0x49, 0xC1, 0xC0, 0x20,
    0xE5, CONTROL,                      // in eax, CONTROL: makes the call, high half of the result
    0x48, 0xC1, 0xE0, 0x20,             // shl rax, 32
    0x50,                               // push rax
    0xE5, INPUT,                        // in eax, INPUT: low half of the result
    0x48, 0x0B, 0x04, 0x24,             // or rax, [rsp]
    0x48, 0x8D, 0x64, 0x24, 0x08,       // lea rsp, [rsp + 8]
    0x9D,                               // popfq
    0xC3,                               // ret
];

/// Takes what a guest posts to a connection.
pub trait MessagePort: Send + Sync {
    /// A message of at most 240 bytes. Called on the VP's thread, without a lock of this crate held.
    fn post(&self, kind: u32, payload: &[u8]) -> HvStatus;
}

/// Takes what a guest signals on a connection.
pub trait EventPort: Send + Sync {
    /// Flag number `flag`, counted from the connection's first. Called like [`MessagePort::post`].
    fn signal(&self, flag: u16) -> HvStatus;
}

/// What a VP has handed over, and the result of its last call.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Latch {
    control: u64,
    input: u64,
    output: u64,
    result: u64,
}

impl Latch {
    /// One half of a register, low half first.
    pub(crate) fn write(&mut self, offset: u16, half: u32) {
        let register = match offset {
            0 => &mut self.control,
            4 => &mut self.input,
            8 => &mut self.output,
            _ => return,
        };
        *register = *register >> 32 | u64::from(half) << 32;
    }

    /// The finished call.
    pub(crate) fn call(&self) -> Call {
        Call {
            control: self.control,
            input: self.input,
            output: self.output,
        }
    }

    pub(crate) fn finish(&mut self, result: u64) {
        self.result = result;
    }

    pub(crate) fn result(&self) -> u64 {
        self.result
    }
}

/// One hypercall as its registers say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    control: u64,
    input: u64,
    output: u64,
}

/// What it asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Nothing has to happen.
    Nothing,
    /// HvPostMessage.
    Post {
        connection: u32,
        kind: u32,
        payload: Vec<u8>,
    },
    /// HvSignalEvent.
    Signal { connection: u32, flag: u16 },
    /// HvGetVpIndexFromApicId: ids to look up, and where the answers go.
    VpIndexes { apic_ids: Vec<u32>, output: u64 },
}

/// Bits 27-30, 44-47 and 60-63 of the control word.
const RESERVED: u64 = 0xF << 27 | 0xF << 44 | 0xF << 60;
const FAST: u64 = 1 << 16;
const PAGE: u64 = 4096;

impl Call {
    pub(crate) fn code(self) -> u16 {
        self.control as u16
    }

    fn reps(self) -> (u64, u64) {
        (self.control >> 32 & 0xFFF, self.control >> 48 & 0xFFF)
    }

    /// Repetitions that the call asks for from its start on, for the result of one that did them all.
    pub(crate) fn all_reps(self) -> u64 {
        self.reps().0
    }

    /// Reads and checks what is asked.
    pub(crate) fn decode(self, memory: &DmaMemory) -> Result<Request, HvStatus> {
        let (reps, first) = self.reps();
        let repeats = self.code() == call::GET_VP_INDEX_FROM_APIC_ID;
        if self.control & RESERVED != 0 || repeats != (reps != 0) || (reps != 0 && first >= reps) {
            return Err(HvStatus::InvalidHypercallInput);
        }
        match self.code() {
            call::NOTIFY_LONG_SPIN_WAIT => Ok(Request::Nothing),
            call::POST_MESSAGE => self.post(memory),
            call::SIGNAL_EVENT => self.signal(memory),
            call::GET_VP_INDEX_FROM_APIC_ID => self.vp_indexes(memory),
            call::START_VIRTUAL_PROCESSOR => Err(HvStatus::AccessDenied),
            _ => Err(HvStatus::InvalidHypercallCode),
        }
    }

    fn read(self, memory: &DmaMemory, data: &mut [u8]) -> Result<(), HvStatus> {
        in_one_page(self.input, data.len() as u64)?;
        memory
            .read(self.input, data)
            .map_err(|_| HvStatus::InvalidParameter)
    }

    fn post(self, memory: &DmaMemory) -> Result<Request, HvStatus> {
        if self.control & FAST != 0 {
            return Err(HvStatus::InvalidHypercallInput);
        }
        let mut header = [0; 16];
        self.read(memory, &mut header)?;
        let word = |i: usize| u32::from_le_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
        let (connection, kind, len) = (word(0), word(8), word(12) as usize);
        // Types with the top bit are the hypervisor's own.
        if len > PAYLOAD_LEN || kind == 0 || kind >> 31 != 0 {
            return Err(HvStatus::InvalidParameter);
        }
        let mut all = vec![0; 16 + len];
        self.read(memory, &mut all)?;
        Ok(Request::Post {
            connection,
            kind,
            payload: all.split_off(16),
        })
    }

    fn signal(self, memory: &DmaMemory) -> Result<Request, HvStatus> {
        let parameters = if self.control & FAST != 0 {
            self.input
        } else {
            let mut bytes = [0; 8];
            self.read(memory, &mut bytes)?;
            u64::from_le_bytes(bytes)
        };
        if parameters >> 48 != 0 {
            return Err(HvStatus::InvalidParameter);
        }
        Ok(Request::Signal {
            connection: parameters as u32,
            flag: (parameters >> 32) as u16,
        })
    }

    /// Header: partition id (all ones is the caller), target VTL, padding; then one 32-bit APIC id for each
    /// repetition.
    fn vp_indexes(self, memory: &DmaMemory) -> Result<Request, HvStatus> {
        if self.control & FAST != 0 {
            return Err(HvStatus::InvalidHypercallInput);
        }
        let (reps, first) = self.reps();
        let mut all = vec![0; 16 + 4 * reps as usize];
        self.read(memory, &mut all)?;
        in_one_page(self.output, 4 * reps)?;
        let (partition, rest) = all.split_at(8);
        if partition != [0xFF; 8] || rest[0] != 0 {
            return Err(HvStatus::InvalidParameter);
        }
        let ids = rest[8..].chunks_exact(4).skip(first as usize);
        Ok(Request::VpIndexes {
            apic_ids: ids
                .map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]]))
                .collect(),
            output: self.output + 4 * first,
        })
    }
}

fn in_one_page(gpa: u64, len: u64) -> Result<(), HvStatus> {
    if !gpa.is_multiple_of(8) || gpa % PAGE + len > PAGE {
        return Err(HvStatus::InvalidAlignment);
    }
    Ok(())
}
