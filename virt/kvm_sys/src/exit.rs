// SPDX-License-Identifier: MIT
//! Why `KVM_RUN` returned.

use crate::run_page::RunPage;
use kvm_bindings as kb;

/// `KVM_HC_MAP_GPA_RANGE`, and the flag of its third argument that says encrypted.
const MAP_GPA_RANGE: u64 = 12;
const MAP_GPA_ENCRYPTED: u64 = 1 << 4;

/// Where the answer to a model-specific register access goes.
#[derive(Debug)]
pub struct MsrReply<'a> {
    error: &'a mut u8,
    data: &'a mut u64,
}

impl MsrReply<'_> {
    /// The value (ignored for a write), or `None` for #GP.
    pub fn answer(self, value: Option<u64>) {
        match value {
            Some(v) => *self.data = v,
            None => *self.error = 1,
        }
    }
}

/// What became of a guest's request to convert memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Converted {
    /// All of it.
    Done,
    /// It cannot be.
    Refused,
    /// Not now; the guest asks again.
    Later,
}

/// Where the answer to a request to convert memory goes. KVM takes no other answers.
#[derive(Debug)]
pub struct ConvertReply<'a> {
    ret: &'a mut u64,
}

impl ConvertReply<'_> {
    /// The answer.
    pub fn answer(self, converted: Converted) {
        *self.ret = match converted {
            Converted::Done => 0,
            Converted::Refused => libc::EINVAL as u64,
            Converted::Later => libc::EAGAIN as u64,
        };
    }
}

/// Why the guest was left. Data of reads is to be filled in before the VP runs again.
#[derive(Debug)]
pub enum Exit<'a> {
    /// A kick, or another signal.
    Interrupted,
    /// IN, possibly REP INS: `data` holds one or more items of `size` bytes.
    PortIn {
        /// Port.
        port: u16,
        /// Bytes per item: 1, 2 or 4.
        size: usize,
        /// Items to fill, in order.
        data: &'a mut [u8],
    },
    /// OUT, possibly REP OUTS.
    PortOut {
        /// Port.
        port: u16,
        /// Bytes per item: 1, 2 or 4.
        size: usize,
        /// Items, in order.
        data: &'a [u8],
    },
    /// Load outside RAM of up to 8 bytes.
    MmioRead {
        /// Address.
        gpa: u64,
        /// Bytes to fill.
        data: &'a mut [u8],
    },
    /// Store outside RAM of up to 8 bytes.
    MmioWrite {
        /// Address.
        gpa: u64,
        /// Bytes stored.
        data: &'a [u8],
    },
    /// RDMSR that KVM passed on.
    MsrRead {
        /// Number.
        msr: u32,
        /// The answer.
        reply: MsrReply<'a>,
    },
    /// WRMSR that KVM passed on.
    MsrWrite {
        /// Number.
        msr: u32,
        /// Value written.
        value: u64,
        /// The answer.
        reply: MsrReply<'a>,
    },
    /// HLT.
    Hlt,
    /// The guest can take an interrupt now, as was asked for.
    IrqWindow,
    /// The task priority was lowered.
    SetTpr,
    /// Triple fault.
    Shutdown,
    /// A breakpoint or single step that the host asked for.
    Debug,
    /// The processor refused to enter the guest.
    FailEntry {
        /// The processor's reason.
        reason: u64,
        /// Host processor.
        cpu: u32,
    },
    /// An instruction that KVM had to emulate and could not.
    EmulationFailure {
        /// Its bytes as far as KVM had them.
        bytes: Vec<u8>,
    },
    /// KVM gave up.
    InternalError {
        /// KVM's sub-reason (`KVM_INTERNAL_ERROR_*`).
        suberror: u32,
        /// What KVM adds.
        data: Vec<u64>,
    },
    /// Memory that is mapped but cannot be reached (with errno EFAULT or EHWPOISON).
    MemoryFault {
        /// First byte.
        gpa: u64,
        /// Length in bytes.
        len: u64,
        /// The access was to private memory.
        private: bool,
    },
    /// An encrypted guest asks for memory to be made private or shared (`KVM_HC_MAP_GPA_RANGE`).
    Convert {
        /// First byte.
        gpa: u64,
        /// Pages of 4 KiB.
        pages: u64,
        /// To private.
        private: bool,
        /// The answer; without one KVM repeats the last.
        reply: ConvertReply<'a>,
    },
    /// An encrypted guest has given up; the raw GHCB MSR holds whose reason and which.
    SevTerminated {
        /// Bits 15:12 whose codes, bits 23:16 the code.
        ghcb: u64,
    },
    /// Any other reason (`KVM_EXIT_*`).
    Other(u32),
}

/// Decodes the run structure after a successful `KVM_RUN`.
///
/// # Safety
/// The caller owns the VP, is outside `KVM_RUN` and keeps it so for `'a`; `page` outlives `'a`.
pub(crate) unsafe fn decode<'a>(page: &'a RunPage) -> Exit<'a> {
    let run = page.fields();
    // SAFETY: the structure lies inside the mapping, nobody else uses it now (the contract above), and
    // every bit pattern is valid for the union's members.
    unsafe {
        let part = &raw mut (*run).__bindgen_anon_1;
        match (*run).exit_reason {
            kb::KVM_EXIT_IO => port(page, (*part).io),
            kb::KVM_EXIT_MMIO => {
                let mmio = &mut (*part).mmio;
                let len = (mmio.len as usize).min(mmio.data.len());
                let (gpa, data) = (mmio.phys_addr, &mut mmio.data[..len]);
                if mmio.is_write != 0 {
                    Exit::MmioWrite { gpa, data }
                } else {
                    Exit::MmioRead { gpa, data }
                }
            }
            reason @ (kb::KVM_EXIT_X86_RDMSR | kb::KVM_EXIT_X86_WRMSR) => {
                let m = &mut (*part).msr;
                let (msr, value) = (m.index, m.data);
                let reply = MsrReply {
                    error: &mut m.error,
                    data: &mut m.data,
                };
                match reason {
                    kb::KVM_EXIT_X86_RDMSR => Exit::MsrRead { msr, reply },
                    _ => Exit::MsrWrite { msr, value, reply },
                }
            }
            kb::KVM_EXIT_HLT => Exit::Hlt,
            kb::KVM_EXIT_IRQ_WINDOW_OPEN => Exit::IrqWindow,
            kb::KVM_EXIT_SET_TPR => Exit::SetTpr,
            kb::KVM_EXIT_INTR => Exit::Interrupted,
            kb::KVM_EXIT_SHUTDOWN => Exit::Shutdown,
            kb::KVM_EXIT_DEBUG => Exit::Debug,
            kb::KVM_EXIT_FAIL_ENTRY => {
                let f = (*part).fail_entry;
                Exit::FailEntry {
                    reason: f.hardware_entry_failure_reason,
                    cpu: f.cpu,
                }
            }
            kb::KVM_EXIT_INTERNAL_ERROR => internal_error((*part).internal, (*part).emulation_failure),
            kb::KVM_EXIT_HYPERCALL if (*part).hypercall.nr == MAP_GPA_RANGE => {
                let call = &mut (*part).hypercall;
                let [gpa, pages, flags, ..] = call.args;
                Exit::Convert {
                    gpa,
                    pages,
                    private: flags & MAP_GPA_ENCRYPTED != 0,
                    reply: ConvertReply { ret: &mut call.ret },
                }
            }
            kb::KVM_EXIT_SYSTEM_EVENT if (*part).system_event.type_ == kb::KVM_SYSTEM_EVENT_SEV_TERM => {
                let ghcb = (*part).system_event.__bindgen_anon_1.data[0];
                Exit::SevTerminated { ghcb }
            }
            reason => Exit::Other(reason),
        }
    }
}

/// # Safety
/// As [`decode`].
unsafe fn port(page: &RunPage, io: kb::kvm_run__bindgen_ty_1__bindgen_ty_4) -> Exit<'_> {
    let (port, size) = (io.port, usize::from(io.size).max(1));
    let len = size.saturating_mul(io.count as usize);
    let Some(at) = page.data(io.data_offset, len) else {
        return Exit::Other(kb::KVM_EXIT_IO);
    };
    // SAFETY: the bytes lie inside the mapping, behind the structure, and the caller owns them.
    let data = unsafe { std::slice::from_raw_parts_mut(at.as_ptr(), len) };
    match u32::from(io.direction) {
        kb::KVM_EXIT_IO_IN => Exit::PortIn { port, size, data },
        _ => Exit::PortOut { port, size, data },
    }
}

fn internal_error(
    internal: kb::kvm_run__bindgen_ty_1__bindgen_ty_13,
    failure: kb::kvm_run__bindgen_ty_1__bindgen_ty_14,
) -> Exit<'static> {
    if internal.suberror != kb::KVM_INTERNAL_ERROR_EMULATION {
        let count = (internal.ndata as usize).min(internal.data.len());
        return Exit::InternalError {
            suberror: internal.suberror,
            data: internal.data[..count].to_vec(),
        };
    }
    // Flags and bytes are there when KVM counts at least three words (kernel documentation 6.x).
    let told = failure.ndata >= 3
        && failure.flags & u64::from(kb::KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0;
    // SAFETY: the union has one member, plain bytes.
    let insn = unsafe { failure.__bindgen_anon_1.__bindgen_anon_1 };
    let len = if told {
        usize::from(insn.insn_size).min(insn.insn_bytes.len())
    } else {
        0
    };
    Exit::EmulationFailure {
        bytes: insn.insn_bytes[..len].to_vec(),
    }
}

/// Decodes a `KVM_RUN` that failed with EFAULT or EHWPOISON; `None` when KVM says no more than that.
///
/// # Safety
/// As [`decode`].
pub(crate) unsafe fn decode_fault(page: &RunPage) -> Option<Exit<'_>> {
    let run = page.fields();
    // SAFETY: as in `decode`.
    unsafe {
        if (*run).exit_reason != kb::KVM_EXIT_MEMORY_FAULT {
            return None;
        }
        let f = (*run).__bindgen_anon_1.memory_fault;
        let private = f.flags & u64::from(kb::KVM_MEMORY_EXIT_FLAG_PRIVATE) != 0;
        Some(Exit::MemoryFault {
            gpa: f.gpa,
            len: f.size,
            private,
        })
    }
}
