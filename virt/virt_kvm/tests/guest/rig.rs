// SPDX-License-Identifier: MIT
//! A machine that is only a bus with a log, and guests that are a few bytes of machine code.

use guest_memory::GuestMemory;
use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;
use virt::{
    Clock, Hypervisor, Partition, PartitionConfig, Runner, TimerQueue, VpBus, VpIndex, VpSignals, VpStop,
};
use virt_kvm::Kvm;
use x86defs::cpuid::CpuidEntry;
use x86defs::{SegmentAttributes, SegmentRegister, X86State, cr0, cr4, efer};

/// A write here stops the partition.
pub(crate) const PORT_STOP: u16 = 0xF4;
/// A write here makes vector `value` pending for VP 0.
pub(crate) const PORT_RAISE: u16 = 0xE0;
/// A write here sends INIT and SIPI with vector `value` to VP 1.
pub(crate) const PORT_START: u16 = 0xE1;
/// A write here makes an NMI pending for VP 0.
pub(crate) const PORT_NMI: u16 = 0xE2;
/// Where guests are put and start.
pub(crate) const ENTRY: u64 = 0x1000;
/// No guest here needs this long.
const TOO_LONG: Duration = Duration::from_secs(20);
/// RAM of the small guests: up to the hole at 640 KiB, where MMIO is.
const RAM: u64 = 0xA0000;

#[derive(Default)]
pub(crate) struct Log {
    pub(crate) out: Vec<(u16, Vec<u8>)>,
    pub(crate) input: VecDeque<u8>,
    pub(crate) stores: Vec<(u64, Vec<u8>)>,
    pub(crate) msrs: HashMap<u32, u64>,
    pub(crate) events: HashMap<VpIndex, chipset_device::VpEvents>,
    pub(crate) vectors: VecDeque<u8>,
    pub(crate) cr8: HashMap<VpIndex, u8>,
}

/// The bus.
#[derive(Default)]
pub(crate) struct FakeBus {
    log: Mutex<Log>,
    signals: OnceLock<Arc<VpSignals>>,
}

impl FakeBus {
    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap()
    }

    /// Makes `vector` pending for VP 0.
    pub(crate) fn raise(&self, vector: u8) {
        self.log().vectors.push_back(vector);
        self.wake(0);
    }

    fn wake(&self, vp: VpIndex) {
        self.signals.get().unwrap().wake(vp);
    }

    fn event(&self, vp: VpIndex, change: impl FnOnce(&mut chipset_device::VpEvents)) {
        change(self.log().events.entry(vp).or_default());
        self.wake(vp);
    }
}

impl VpBus for FakeBus {
    fn port_read(&self, _vp: VpIndex, _port: u16, data: &mut [u8]) {
        let mut log = self.log();
        data.iter_mut()
            .for_each(|b| *b = log.input.pop_front().unwrap_or(0xFF));
    }
    fn port_write(&self, _vp: VpIndex, port: u16, data: &[u8]) {
        self.log().out.push((port, data.to_vec()));
        match port {
            PORT_STOP => self.signals.get().unwrap().set_stop(true),
            PORT_RAISE => self.raise(data[0]),
            PORT_NMI => self.event(0, |e| e.nmi = true),
            PORT_START => self.event(1, |e| {
                e.init = true;
                e.sipi = Some(data[0]);
            }),
            _ => {}
        }
    }
    fn mmio_read(&self, _vp: VpIndex, gpa: u64, data: &mut [u8]) {
        let value = gpa.wrapping_mul(0x0101_0101_0101_0101).to_le_bytes();
        data.copy_from_slice(&value[..data.len()]);
    }
    fn mmio_write(&self, _vp: VpIndex, gpa: u64, data: &[u8]) {
        self.log().stores.push((gpa, data.to_vec()));
    }
    fn msr_read(&self, _vp: VpIndex, msr: u32) -> Option<u64> {
        self.log().msrs.get(&msr).copied()
    }
    fn msr_write(&self, _vp: VpIndex, msr: u32, value: u64) -> bool {
        self.log().msrs.get_mut(&msr).map(|v| *v = value).is_some()
    }
    fn poll(&self, vp: VpIndex) -> chipset_device::VpEvents {
        let mut log = self.log();
        let taken = log.events.remove(&vp).unwrap_or_default();
        let interrupt = vp == 0 && !log.vectors.is_empty();
        chipset_device::VpEvents { interrupt, ..taken }
    }
    fn acknowledge(&self, _vp: VpIndex) -> Option<u8> {
        self.log().vectors.pop_front()
    }
    fn cr8(&self, vp: VpIndex) -> u8 {
        self.log().cr8.get(&vp).copied().unwrap_or(0)
    }
    fn set_cr8(&self, vp: VpIndex, value: u8) {
        self.log().cr8.insert(vp, value);
    }
}

/// A partition with its runners.
pub(crate) struct Rig {
    pub(crate) bus: Arc<FakeBus>,
    pub(crate) memory: GuestMemory,
    pub(crate) signals: Arc<VpSignals>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) runners: Vec<Box<dyn Runner>>,
    pub(crate) partition: Box<dyn Partition>,
}

/// KVM, or a printed reason why there is none and the test has nothing to say.
pub(crate) fn kvm() -> Option<Kvm> {
    match Kvm::open() {
        Ok(kvm) => Some(kvm),
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

/// A partition of `vp_count` VPs.
pub(crate) fn rig(vp_count: u32, cpuid: Vec<CpuidEntry>) -> Option<Rig> {
    let kvm = kvm()?;
    let memory = GuestMemory::allocate(&[(0, RAM)]).unwrap();
    let clock = Arc::new(Clock::host());
    let config = PartitionConfig {
        vp_count,
        memory: memory.clone(),
        cpuid,
        clock: clock.clone(),
        timers: TimerQueue::new(),
    };
    let mut partition = kvm.new_partition(config).unwrap();
    let bus = Arc::new(FakeBus::default());
    let signals = partition.signals();
    assert!(bus.signals.set(signals.clone()).is_ok());
    let runners = partition.runners(bus.clone()).unwrap();
    Some(Rig {
        bus,
        memory,
        signals,
        clock,
        runners,
        partition,
    })
}

/// One VP that is about to run `code` in real mode at [`ENTRY`], stack below it, interrupts off.
pub(crate) fn real_mode(code: &[u8]) -> Option<Rig> {
    let mut rig = rig(1, Vec::new())?;
    rig.load(code, &real_mode_state());
    Some(rig)
}

/// One VP that is about to run `code` in 64-bit mode at [`ENTRY`], RAM mapped one to one, no IDT.
pub(crate) fn long_mode(code: &[u8]) -> Option<Rig> {
    let mut rig = rig(1, Vec::new())?;
    rig.identity_map();
    rig.load(code, &long_mode_state());
    Some(rig)
}

pub(crate) fn real_mode_state() -> X86State {
    let mut s = X86State {
        rip: ENTRY,
        ..X86State::reset()
    };
    (s.cs.selector, s.cs.base) = (0, 0);
    s.gpr[x86defs::state::gpr::RSP] = ENTRY;
    s
}

pub(crate) fn long_mode_state() -> X86State {
    let mut s = X86State {
        rip: ENTRY,
        ..X86State::reset()
    };
    let segment = |selector: u16, kind: u32| SegmentRegister {
        selector,
        attributes: SegmentAttributes(
            kind | SegmentAttributes::P | SegmentAttributes::S | SegmentAttributes::G,
        ),
        limit: 0xFFFF_FFFF,
        base: 0,
    };
    s.cs = segment(8, 11 | SegmentAttributes::L);
    let data = segment(16, 3 | SegmentAttributes::DB);
    (s.ds, s.es, s.fs, s.gs, s.ss) = (data, data, data, data, data);
    s.cr0 |= cr0::PE | cr0::PG | cr0::NE;
    s.cr0 &= !(cr0::CD | cr0::NW);
    s.cr3 = 0x8000;
    s.cr4 = cr4::PAE | cr4::OSFXSR;
    s.efer = efer::LME | efer::LMA;
    s.gpr[x86defs::state::gpr::RSP] = ENTRY;
    s
}

impl Rig {
    pub(crate) fn load(&mut self, code: &[u8], state: &X86State) {
        let mut target = self.partition.launch_target();
        target.import(ENTRY, code.len() as u64, Some(code)).unwrap();
        target.vp_state(0, state).unwrap();
        target.finish().unwrap();
        drop(target);
        self.runners.iter_mut().for_each(|r| r.reset().unwrap());
    }

    /// 2 MiB pages one to one from 0, tables at 0x8000.
    fn identity_map(&self) {
        let entry = |at: u64, value: u64| self.memory.write(at, &value.to_le_bytes()).unwrap();
        entry(0x8000, 0x9003);
        entry(0x9000, 0xA003);
        entry(0xA000, 0x83);
    }

    /// Points real-mode vector `vector` at `offset` in segment 0.
    pub(crate) fn set_vector(&self, vector: u8, offset: u16) {
        self.memory
            .write(u64::from(vector) * 4, &u32::from(offset).to_le_bytes())
            .unwrap();
    }

    /// Runs VP 0 on this thread until it stops; a guest that hangs is stopped after a while.
    pub(crate) fn run(&mut self) -> VpStop {
        self.clock.start();
        let (done, ended) = std::sync::mpsc::channel::<()>();
        let signals = self.signals.clone();
        let watchdog = std::thread::spawn(move || {
            if ended.recv_timeout(TOO_LONG) == Err(RecvTimeoutError::Timeout) {
                eprintln!("the guest hangs; stopping it");
                signals.set_stop(true);
            }
        });
        let stop = self.runners[0].run().unwrap();
        drop(done);
        watchdog.join().unwrap();
        stop
    }

    /// Runs every VP on a thread of its own; the runners come back when they are joined.
    pub(crate) fn spawn(&mut self) -> Vec<JoinHandle<(Box<dyn Runner>, VpStop)>> {
        self.clock.start();
        let spawn = |mut r: Box<dyn Runner>| {
            std::thread::spawn(move || {
                let stop = r.run().unwrap();
                (r, stop)
            })
        };
        self.runners.drain(..).map(spawn).collect()
    }

    /// Everything written to `port`, as bytes in order.
    pub(crate) fn written(&self, port: u16) -> Vec<u8> {
        self.bus
            .log()
            .out
            .iter()
            .filter(|o| o.0 == port)
            .flat_map(|o| o.1.clone())
            .collect()
    }

    pub(crate) fn state(&mut self) -> X86State {
        self.runners[0].state(0).unwrap()
    }
}

/// Machine code in pieces.
pub(crate) fn code(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// `out 0xF4, al`: the end of most guests.
pub(crate) const STOP: &[u8] = &[0xE6, 0xF4];
/// `jmp $`.
pub(crate) const SPIN: &[u8] = &[0xEB, 0xFE];
