// SPDX-License-Identifier: MIT
//! The time from start to a guest's first port write, for `cargo xtask bench`.
//!
//! `floor` is bare KVM: one VM, one memory slot of 128 MiB, one VP, no CPUID. `floor backend` is the same
//! guest on the whole KVM backend (capability checks, CPUID, MSR filter, run loop). The guest's byte goes
//! to standard output the moment it is written, so that a parent can time the process; then one line on
//! standard error gives microseconds since `main`, CPU time and peak resident memory, as JSON.

use chipset_device::{VpBus, VpEvents};
use guest_memory::GuestMemory;
use kvm_sys::{Exit, RealSys, System, Vcpu, VmType};
use std::error::Error;
use std::io::Write;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use virt::{Clock, Hypervisor, PartitionConfig, TimerQueue, VpIndex, VpSignals, VpStop};
use virt_kvm::Kvm;
use x86defs::X86State;

type Outcome = Result<u8, Box<dyn Error>>;

/// 128 MiB, as in the table of `spec/performance.md`.
const RAM: u64 = 128 << 20;
const ENTRY: u64 = 0x1000;
/// mov al, 'A'; out 0xE9, al; hlt
const GUEST: [u8; 5] = [0xB0, b'A', 0xE6, 0xE9, 0xF4];

fn memory() -> Result<GuestMemory, Box<dyn Error>> {
    let memory = GuestMemory::allocate(&[(0, RAM)])?;
    memory.write(ENTRY, &GUEST)?;
    Ok(memory)
}

fn bare() -> Outcome {
    let system = System::open(Arc::new(RealSys))?;
    let vm = system.create_vm(VmType::Default, &memory()?)?;
    vm.map_memory()?;
    let mut vcpu = Vcpu::new(&vm, 0)?;
    let mut sregs = vcpu.sregs()?;
    (sregs.cs.selector, sregs.cs.base) = (0, 0);
    vcpu.set_sregs(&sregs)?;
    let mut regs = vcpu.regs()?;
    (regs.rip, regs.rflags) = (ENTRY, 2);
    vcpu.set_regs(&regs)?;
    match vcpu.run()? {
        Exit::PortOut { data, .. } => {
            say(data[0]);
            Ok(data[0])
        }
        other => Err(format!("unexpected exit: {other:?}").into()),
    }
}

struct OnePort {
    signals: OnceLock<Arc<VpSignals>>,
    written: OnceLock<u8>,
}

impl VpBus for OnePort {
    fn port_read(&self, _: VpIndex, _: u16, data: &mut [u8]) {
        chipset_device::unclaimed(data);
    }
    fn port_write(&self, _: VpIndex, _: u16, data: &[u8]) {
        say(self.written.get_or_init(|| data[0]).to_owned());
        if let Some(signals) = self.signals.get() {
            signals.set_stop(true);
        }
    }
    fn mmio_read(&self, _: VpIndex, _: u64, data: &mut [u8]) {
        chipset_device::unclaimed(data);
    }
    fn mmio_write(&self, _: VpIndex, _: u64, _: &[u8]) {}
    fn msr_read(&self, _: VpIndex, _: u32) -> Option<u64> {
        None
    }
    fn msr_write(&self, _: VpIndex, _: u32, _: u64) -> bool {
        false
    }
    fn poll(&self, _: VpIndex) -> VpEvents {
        VpEvents::default()
    }
    fn acknowledge(&self, _: VpIndex) -> Option<u8> {
        None
    }
    fn cr8(&self, _: VpIndex) -> u8 {
        0
    }
    fn set_cr8(&self, _: VpIndex, _: u8) {}
}

fn backend() -> Outcome {
    let kvm = Kvm::open()?;
    let clock = Arc::new(Clock::host());
    let config = PartitionConfig {
        vp_count: 1,
        memory: memory()?,
        cpuid: Vec::new(),
        clock: clock.clone(),
        timers: TimerQueue::new(),
    };
    let mut partition = kvm.new_partition(config)?;
    let mut state = X86State {
        rip: ENTRY,
        ..X86State::reset()
    };
    (state.cs.selector, state.cs.base) = (0, 0);
    let mut target = partition.launch_target();
    target.vp_state(0, &state)?;
    target.finish()?;
    drop(target);
    let bus = Arc::new(OnePort {
        signals: OnceLock::new(),
        written: OnceLock::new(),
    });
    bus.signals.get_or_init(|| partition.signals());
    let mut runners = partition.runners(bus.clone())?;
    runners[0].reset()?;
    clock.start();
    match (runners[0].run()?, bus.written.get()) {
        (VpStop::Requested, Some(&byte)) => Ok(byte),
        (stop, _) => Err(format!("unexpected stop: {stop:?}").into()),
    }
}

/// Gives the guest's byte to whoever times this process.
fn say(byte: u8) {
    let mut out = std::io::stdout();
    if let Err(e) = out.write_all(&[byte]).and_then(|()| out.flush()) {
        eprintln!("standard output: {e}");
    }
}

fn usage() -> libc::rusage {
    // SAFETY: an all-zero rusage is valid, and the call only writes it.
    unsafe {
        let mut usage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let byte = match std::env::args().nth(1).as_deref() {
        None => bare()?,
        Some("backend") => backend()?,
        Some(other) => return Err(format!("unknown argument {other}; known is backend").into()),
    };
    let (micros, usage) = (start.elapsed().as_micros(), usage());
    let micros_of = |t: libc::timeval| t.tv_sec * 1_000_000 + t.tv_usec;
    let cpu = micros_of(usage.ru_utime) + micros_of(usage.ru_stime);
    eprintln!(
        "{{\"byte\":{byte},\"since_main_us\":{micros},\"cpu_us\":{cpu},\"peak_rss_kib\":{}}}",
        usage.ru_maxrss
    );
    Ok(())
}
