// SPDX-License-Identifier: MIT
//! Whether KVM here runs guest kernel code on hardware.
//!
//! Two answers. The host's CPUID says what could be underneath, for free; [`Probe`] measures what is, in a
//! few milliseconds: software-nested KVM (guest user code native, guest kernel code emulated one
//! instruction at a time) reaches 1 to 4 million instructions per second, hardware thousands
//! (`spec/software-cpu.md` sections 2 and 4).

use guest_memory::GuestMemory;
use kvm_sys::{Exit, KvmError, System, Vcpu, VmType};
use std::arch::x86_64::__cpuid;
use std::io;
use std::time::{Duration, Instant};
use x86defs::{SegmentAttributes, X86State, cr0};

/// What the host's processor offers a hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Virtualisation {
    /// Intel VMX.
    Vmx,
    /// AMD SVM.
    Svm,
    /// Neither: KVM here is software.
    Software,
}

/// Reads it from CPUID (leaf 1 ECX bit 5, leaf 0x80000001 ECX bit 2).
pub(crate) fn host_virtualisation() -> Virtualisation {
    let vmx = __cpuid(1).ecx & 1 << 5 != 0;
    let svm = __cpuid(0x8000_0000).eax >= 0x8000_0001 && __cpuid(0x8000_0001).ecx & 1 << 2 != 0;
    match (vmx, svm) {
        (true, _) => Virtualisation::Vmx,
        (_, true) => Virtualisation::Svm,
        _ => Virtualisation::Software,
    }
}

/// Below this many million instructions per second it cannot be hardware.
const HARDWARE_MIPS: f64 = 50.0;
/// Instructions of one measurement.
const INSTRUCTIONS: u32 = 20_000;

/// What a measurement found.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// Guest kernel code runs on hardware.
    pub hardware: bool,
    /// Million instructions per second of a tight loop at CPL 0; `None` when KVM could not run it.
    pub mips: Option<f64>,
    /// The finding in one line.
    pub reason: String,
}

/// Runs the loop, a second time when the first is slow, and judges the better time.
pub(crate) fn probe(system: &System) -> Result<Probe, KvmError> {
    let best = match measure(system)? {
        Ok(time) => time,
        Err(stopped) => {
            let reason =
                format!("kvm could not run a loop of {INSTRUCTIONS} instructions at cpl 0: {stopped}");
            return Ok(Probe {
                hardware: false,
                mips: None,
                reason,
            });
        }
    };
    let mips = mips(best);
    let hardware = mips >= HARDWARE_MIPS;
    let below = match host_virtualisation() {
        Virtualisation::Vmx => "the processor shows vmx",
        Virtualisation::Svm => "the processor shows svm",
        Virtualisation::Software => "the processor shows neither vmx nor svm",
    };
    let verdict = if hardware {
        "on hardware"
    } else {
        "emulated in software"
    };
    let reason = format!("guest kernel code is {verdict} here: {mips:.1} mips at cpl 0, and {below}");
    Ok(Probe {
        hardware,
        mips: Some(mips),
        reason,
    })
}

fn mips(time: Duration) -> f64 {
    f64::from(INSTRUCTIONS) / time.as_secs_f64().max(1e-9) / 1e6
}

/// The better of two runs, or why one stopped. One run is enough when it is fast, and where nothing else
/// than software is possible.
fn measure(system: &System) -> Result<Result<Duration, String>, KvmError> {
    // mov ecx, INSTRUCTIONS / 2; a: dec ecx; jnz a; hlt
    let mut code = vec![0xB9];
    code.extend((INSTRUCTIONS / 2).to_le_bytes());
    code.extend([0x49, 0x75, 0xFD, 0xF4]);
    let memory = |e: guest_memory::MemoryError| KvmError::new("memory of the probe", io::Error::other(e));
    let ram = GuestMemory::allocate(&[(0, 0x1000)]).map_err(memory)?;
    ram.write(0, &code).map_err(memory)?;
    let vm = system.create_vm(VmType::Default, &ram)?;
    vm.map_memory()?;
    let mut vcpu = Vcpu::new(&vm, 0)?;
    let before = crate::registers::read(&vcpu)?;
    let mut best = Duration::MAX;
    for _ in 0..2 {
        crate::registers::write(&mut vcpu, &before, &flat_protected_mode(&before), 0)?;
        let start = Instant::now();
        loop {
            match vcpu.run()? {
                Exit::Hlt => break,
                Exit::Interrupted => {}
                other => return Ok(Err(format!("{other:?}"))),
            }
        }
        best = best.min(start.elapsed());
        if mips(best) >= HARDWARE_MIPS || host_virtualisation() == Virtualisation::Software {
            break;
        }
    }
    Ok(Ok(best))
}

/// 32-bit code at 0 without paging: what every processor runs natively under VMX and SVM.
fn flat_protected_mode(before: &X86State) -> X86State {
    let flat = |selector: u16, kind: u32| x86defs::SegmentRegister {
        selector,
        attributes: SegmentAttributes(
            kind | 0x80 | SegmentAttributes::S | SegmentAttributes::DB | SegmentAttributes::G,
        ),
        limit: 0xFFFF_FFFF,
        base: 0,
    };
    let data = flat(16, 3);
    X86State {
        rip: 0,
        rflags: 2,
        cs: flat(8, 11),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        cr0: before.cr0 | cr0::PE,
        ..*before
    }
}
