// SPDX-License-Identifier: MIT
//! A virtual processor.

use crate::error::KvmError;
use crate::exit::{Exit, decode, decode_fault};
use crate::handle::Handle;
use crate::kick::{EnteredThread, Kicker};
use crate::request as rq;
use crate::run_page::RunPage;
use crate::vm::Vm;
use kvm_bindings as kb;
use std::io;
use std::sync::Arc;

/// Words of the legacy (FXSAVE) part of an XSAVE image.
const LEGACY_WORDS: usize = 512 / 4;
/// Word of XSTATE_BV, the features whose state the image holds (Intel SDM volume 1, section 13.4.2).
const XSTATE_BV: usize = LEGACY_WORDS;
/// x87 and SSE in XSTATE_BV.
const X87_SSE: u32 = 3;

/// FPU, SSE and extended state as an XSAVE image of 4096 bytes: enough for everything but features that a
/// process has to ask its kernel for (AMX), which this program does not. `KVM_GET_FPU` is not used: on software-nested KVM it
/// loses MXCSR.
pub struct Fpu(Box<kb::kvm_xsave>);

impl Fpu {
    /// The state after FNINIT with all exceptions masked and every register zero: what reset means here.
    pub fn reset() -> Self {
        let mut fpu = Self(Box::default());
        let mut image = [0; 512];
        image[0..2].copy_from_slice(&0x37Fu16.to_le_bytes());
        image[24..28].copy_from_slice(&0x1F80u32.to_le_bytes());
        fpu.set_fxsave(&image);
        fpu
    }

    /// x87, MXCSR and XMM as a 64-bit FXSAVE image.
    pub fn fxsave(&self) -> [u8; 512] {
        let mut image = [0; 512];
        for (bytes, word) in image.chunks_exact_mut(4).zip(&self.0.region) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        image
    }

    /// Replaces x87, MXCSR and XMM.
    pub fn set_fxsave(&mut self, image: &[u8; 512]) {
        for (bytes, word) in image.chunks_exact(4).zip(&mut self.0.region) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        self.0.region[XSTATE_BV] |= X87_SSE;
    }
}

/// A virtual processor of a [`Vm`], which it keeps.
pub struct Vcpu {
    handle: Handle,
    run: Arc<RunPage>,
    kicker: Arc<Kicker>,
    _vm: Arc<Vm>,
}

impl Vcpu {
    /// Makes the virtual processor `index`, which is also its APIC id.
    pub fn new(vm: &Arc<Vm>, index: u32) -> Result<Self, KvmError> {
        let handle = vm
            .handle()
            .descriptor(rq::CREATE_VCPU, index.into())
            .map_err(|e| e.about(format_args!("vp {index}")))?;
        let run = Arc::new(RunPage::new(&handle, vm.run_bytes())?);
        let kicker = Arc::new(Kicker::new(Arc::downgrade(&run)));
        Ok(Self {
            handle,
            run,
            kicker,
            _vm: vm.clone(),
        })
    }

    /// The VP's descriptor.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Forces it out of the guest.
    pub fn kicker(&self) -> Arc<Kicker> {
        self.kicker.clone()
    }

    /// Says that the calling thread runs it until the guard is dropped.
    pub fn enter_thread(&self) -> Result<EnteredThread, KvmError> {
        self.kicker.enter()
    }

    /// Enters the guest until something happens.
    pub fn run(&mut self) -> Result<Exit<'_>, KvmError> {
        match self.handle.value(rq::RUN, 0) {
            // SAFETY: `&mut self` is the VP's only owner, and the borrow keeps it out of KVM_RUN while the
            // exit is alive.
            Ok(_) => Ok(unsafe { decode(&self.run) }),
            Err(e) => match e.errno() {
                Some(libc::EINTR | libc::EAGAIN) => Ok(Exit::Interrupted),
                // SAFETY: as above.
                Some(libc::EFAULT | libc::EHWPOISON) => unsafe { decode_fault(&self.run) }.ok_or(e),
                _ => Err(e),
            },
        }
    }

    /// Makes the next run return at once (after finishing a pending device access), or takes that back.
    pub fn set_immediate_exit(&self, on: bool) {
        self.run.set_immediate_exit(on);
    }

    /// Asks for [`Exit::IrqWindow`] as soon as the guest can take an interrupt.
    pub fn request_irq_window(&mut self, on: bool) {
        // SAFETY: `&mut self` is the VP's owner, outside KVM_RUN.
        unsafe { (*self.run.fields()).request_interrupt_window = on.into() }
    }

    /// Whether the guest could take an interrupt when it was left.
    pub fn ready_for_interrupt(&self) -> bool {
        // SAFETY: nobody writes the field while `&self` is held: KVM_RUN needs `&mut self`.
        unsafe { (*self.run.fields()).ready_for_interrupt_injection != 0 }
    }

    /// RFLAGS.IF when the guest was left.
    pub fn interrupts_enabled(&self) -> bool {
        // SAFETY: as `ready_for_interrupt`.
        unsafe { (*self.run.fields()).if_flag != 0 }
    }

    /// CR8 when the guest was left.
    pub fn cr8(&self) -> u64 {
        // SAFETY: as `ready_for_interrupt`.
        unsafe { (*self.run.fields()).cr8 }
    }

    /// CR8 for the next entry.
    pub fn set_cr8(&mut self, value: u64) {
        // SAFETY: as `request_irq_window`.
        unsafe { (*self.run.fields()).cr8 = value }
    }

    /// Delivers an external interrupt at the next entry; the guest must be ready for it.
    pub fn interrupt(&mut self, vector: u8) -> Result<(), KvmError> {
        self.handle
            .set(rq::INTERRUPT, &kb::kvm_interrupt { irq: vector.into() })
    }

    /// Makes a non-maskable interrupt pending.
    pub fn nmi(&mut self) -> Result<(), KvmError> {
        self.handle.value(rq::NMI, 0).map(drop)
    }

    /// General registers.
    pub fn regs(&self) -> Result<kb::kvm_regs, KvmError> {
        self.handle.get(rq::GET_REGS)
    }

    /// Replaces the general registers. Drops a pending exception.
    pub fn set_regs(&mut self, regs: &kb::kvm_regs) -> Result<(), KvmError> {
        self.handle.set(rq::SET_REGS, regs)
    }

    /// Segment and control registers.
    pub fn sregs(&self) -> Result<kb::kvm_sregs, KvmError> {
        self.handle.get(rq::GET_SREGS)
    }

    /// Replaces the segment and control registers.
    pub fn set_sregs(&mut self, sregs: &kb::kvm_sregs) -> Result<(), KvmError> {
        self.handle.set(rq::SET_SREGS, sregs)
    }

    /// Debug registers.
    pub fn debug_regs(&self) -> Result<kb::kvm_debugregs, KvmError> {
        self.handle.get(rq::GET_DEBUGREGS)
    }

    /// Replaces the debug registers.
    pub fn set_debug_regs(&mut self, regs: &kb::kvm_debugregs) -> Result<(), KvmError> {
        self.handle.set(rq::SET_DEBUGREGS, regs)
    }

    /// Pending and injected events, interrupt shadow, NMI mask.
    pub fn events(&self) -> Result<kb::kvm_vcpu_events, KvmError> {
        self.handle.get(rq::GET_VCPU_EVENTS)
    }

    /// Replaces the events.
    pub fn set_events(&mut self, events: &kb::kvm_vcpu_events) -> Result<(), KvmError> {
        self.handle.set(rq::SET_VCPU_EVENTS, events)
    }

    /// XCR0.
    pub fn xcr0(&self) -> Result<u64, KvmError> {
        let xcrs = self.handle.get(rq::GET_XCRS)?;
        Ok(xcrs
            .xcrs
            .iter()
            .take(xcrs.nr_xcrs as usize)
            .find(|x| x.xcr == 0)
            .map_or(1, |x| x.value))
    }

    /// Replaces XCR0.
    pub fn set_xcr0(&mut self, value: u64) -> Result<(), KvmError> {
        let mut xcrs = kb::kvm_xcrs {
            nr_xcrs: 1,
            ..Default::default()
        };
        xcrs.xcrs[0] = kb::kvm_xcr {
            xcr: 0,
            value,
            ..Default::default()
        };
        self.handle
            .set(rq::SET_XCRS, &xcrs)
            .map_err(|e| e.about(format_args!("xcr0 {value:#x}")))
    }

    /// FPU and vector registers.
    pub fn fpu(&self) -> Result<Fpu, KvmError> {
        let mut fpu = Fpu(Box::default());
        self.handle.exchange(rq::GET_XSAVE, &mut *fpu.0)?;
        Ok(fpu)
    }

    /// Replaces the FPU and vector registers.
    pub fn set_fpu(&mut self, fpu: &mut Fpu) -> Result<(), KvmError> {
        self.handle.exchange(rq::SET_XSAVE, &mut *fpu.0).map(drop)
    }

    /// Frequency of the time-stamp counter in kHz.
    pub fn tsc_khz(&self) -> Result<u64, KvmError> {
        self.handle.value(rq::GET_TSC_KHZ, 0).map(|khz| khz as u64)
    }

    /// What KVM adds to the host's time-stamp counter for the guest; `None` before Linux 5.16.
    pub fn tsc_offset(&self) -> Result<Option<i64>, KvmError> {
        if !self
            .handle
            .has_attribute(kb::KVM_VCPU_TSC_CTRL, kb::KVM_VCPU_TSC_OFFSET.into())
        {
            return Ok(None);
        }
        let offset = self
            .handle
            .get_attribute(kb::KVM_VCPU_TSC_CTRL, kb::KVM_VCPU_TSC_OFFSET.into())?;
        Ok(Some(offset as i64))
    }

    /// Replaces that offset. Software-nested KVM accepts it without effect.
    pub fn set_tsc_offset(&mut self, offset: i64) -> Result<(), KvmError> {
        self.handle.set_attribute(
            kb::KVM_VCPU_TSC_CTRL,
            kb::KVM_VCPU_TSC_OFFSET.into(),
            offset as u64,
        )
    }

    /// Asks for breakpoints, or with 0 for none (`KVM_GUESTDBG_*`).
    pub fn set_guest_debug(&mut self, debug: &kb::kvm_guest_debug) -> Result<(), KvmError> {
        self.handle.set(rq::SET_GUEST_DEBUG, debug)
    }

    /// The gpa of a linear address as KVM's supervisor walk finds it; `None` when it is not mapped.
    pub fn translate(&self, linear: u64) -> Result<Option<u64>, KvmError> {
        let mut t = kb::kvm_translation {
            linear_address: linear,
            ..Default::default()
        };
        self.handle.exchange(rq::TRANSLATE, &mut t)?;
        Ok((t.valid != 0).then_some(t.physical_address))
    }

    /// Replaces the CPUID leaves.
    pub fn set_cpuid(&mut self, leaves: &[kb::kvm_cpuid_entry2]) -> Result<(), KvmError> {
        let name = rq::SET_CPUID2.name;
        let mut cpuid = kb::CpuId::from_entries(leaves)
            .map_err(|e| KvmError::new(name, io::Error::other(format!("{} leaves: {e:?}", leaves.len()))))?;
        // SAFETY: the structure holds as many entries as its header says.
        unsafe { self.handle.pointer(rq::SET_CPUID2, cpuid.as_mut_fam_struct_ptr()) }.map(drop)
    }

    /// Reads the model-specific registers `numbers`, in order.
    pub fn msrs(&self, numbers: &[u32]) -> Result<Vec<u64>, KvmError> {
        let mut msrs = msr_list(rq::GET_MSRS, numbers.iter().map(|&n| (n, 0)))?;
        // SAFETY: the structure holds as many entries as its header says.
        let done = unsafe { self.handle.pointer(rq::GET_MSRS, msrs.as_mut_fam_struct_ptr())? };
        all_done(rq::GET_MSRS, done, &msrs)?;
        Ok(msrs.as_slice().iter().map(|m| m.data).collect())
    }

    /// Writes model-specific registers in order.
    pub fn set_msrs(&mut self, values: &[(u32, u64)]) -> Result<(), KvmError> {
        let mut msrs = msr_list(rq::SET_MSRS, values.iter().copied())?;
        // SAFETY: the structure holds as many entries as its header says.
        let done = unsafe { self.handle.pointer(rq::SET_MSRS, msrs.as_mut_fam_struct_ptr())? };
        all_done(rq::SET_MSRS, done, &msrs)
    }
}

fn msr_list(request: rq::Number, values: impl Iterator<Item = (u32, u64)>) -> Result<kb::Msrs, KvmError> {
    let entries: Vec<_> = values
        .map(|(index, data)| kb::kvm_msr_entry {
            index,
            data,
            ..Default::default()
        })
        .collect();
    kb::Msrs::from_entries(&entries).map_err(|e| {
        KvmError::new(
            request.name,
            io::Error::other(format!("{} registers: {e:?}", entries.len())),
        )
    })
}

/// KVM answers how many registers it took before the first that it refused.
fn all_done(request: rq::Number, done: i32, msrs: &kb::Msrs) -> Result<(), KvmError> {
    match msrs.as_slice().get(done as usize) {
        None => Ok(()),
        Some(refused) => {
            let text = format!(
                "msr {:#x} with value {:#x} was refused",
                refused.index, refused.data
            );
            Err(KvmError::new(request.name, io::Error::other(text)))
        }
    }
}

/// The host's time-stamp counter.
pub fn host_tsc() -> u64 {
    // SAFETY: RDTSC reads a counter; the host's kernel lets processes execute it (KVM's own users rely on
    // that), and x86-64 has it always.
    unsafe { std::arch::x86_64::_rdtsc() }
}
