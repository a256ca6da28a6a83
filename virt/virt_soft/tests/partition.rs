// SPDX-License-Identifier: MIT
//! The software backend through the `virt` contract, with a machine of one serial port, a doorbell and
//! a scripted interrupt controller.

use chipset_device::{Clock, TimerClient, TimerHandle, TimerQueue, VpBus, VpEvents, VpIndex};
use guest_memory::GuestMemory;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use virt::{Hypervisor, Partition, PartitionConfig, Runner, VpSignals, VpStop};
use virt_soft::Soft;
use x86defs::{SegmentAttributes, SegmentRegister, X86State, cr0};

const CODE: u64 = 0x1000;

/// Port 0x3F8 collects output; port 0x10 stops the partition; port 0x20 starts VP 1 (INIT, then SIPI 8);
/// port 0x30 arms a timer `value` microseconds ahead that raises vector 0x40.
struct Machine {
    output: Mutex<Vec<u8>>,
    signals: Arc<VpSignals>,
    sipi: Mutex<Vec<VpEvents>>,
    pending: AtomicBool,
    clock: Arc<Clock>,
    timer: TimerHandle,
    fired_at: AtomicU64,
}

impl VpBus for Machine {
    fn port_read(&self, vp: VpIndex, _port: u16, data: &mut [u8]) {
        data.fill(0);
        data[0] = vp as u8;
    }
    fn port_write(&self, _vp: VpIndex, port: u16, data: &[u8]) {
        match port {
            0x3F8 => self.output.lock().unwrap().push(data[0]),
            0x10 => self.signals.set_stop(true),
            0x20 => {
                let init = VpEvents {
                    init: true,
                    ..VpEvents::default()
                };
                let sipi = VpEvents {
                    sipi: Some(8),
                    ..VpEvents::default()
                };
                *self.sipi.lock().unwrap() = vec![sipi, init];
                self.signals.wake(1);
            }
            0x30 => self.timer.arm(self.clock.now() + 1000 * u64::from(data[0])),
            _ => {}
        }
    }
    fn mmio_read(&self, _vp: VpIndex, gpa: u64, data: &mut [u8]) {
        data.fill(gpa as u8);
    }
    fn mmio_write(&self, _vp: VpIndex, _gpa: u64, data: &[u8]) {
        self.output.lock().unwrap().extend_from_slice(data);
    }
    fn msr_read(&self, _vp: VpIndex, _msr: u32) -> Option<u64> {
        None
    }
    fn msr_write(&self, _vp: VpIndex, _msr: u32, _value: u64) -> bool {
        false
    }
    fn poll(&self, vp: VpIndex) -> VpEvents {
        let mut events = VpEvents {
            interrupt: vp == 0 && self.pending.load(Ordering::SeqCst),
            ..VpEvents::default()
        };
        if vp == 1 {
            let mut script = self.sipi.lock().unwrap();
            events = script.pop().unwrap_or_default();
            if !script.is_empty() {
                self.signals.wake(1);
            }
        }
        events
    }
    fn acknowledge(&self, _vp: VpIndex) -> Option<u8> {
        self.pending.swap(false, Ordering::SeqCst).then_some(0x40)
    }
    fn cr8(&self, _vp: VpIndex) -> u8 {
        0
    }
    fn set_cr8(&self, _vp: VpIndex, _value: u8) {}
}

impl TimerClient for Machine {
    fn timer_fired(&self, _id: u32, now: u64) {
        self.fired_at.store(now, Ordering::SeqCst);
        self.pending.store(true, Ordering::SeqCst);
        self.signals.wake(0);
    }
}

struct Vm {
    _partition: Box<dyn Partition>,
    runner: Box<dyn Runner>,
    machine: Arc<Machine>,
    clock: Arc<Clock>,
    memory: GuestMemory,
}

/// A flat 16-bit program at 0x1000 in real mode.
fn vm(code: &[u8], vp_count: u32, deterministic: bool) -> Vm {
    let memory = GuestMemory::allocate(&[(0, 0x10_0000)]).unwrap();
    let clock = Arc::new(if deterministic {
        Clock::deterministic()
    } else {
        Clock::host()
    });
    let timers = TimerQueue::new();
    let config = PartitionConfig {
        vp_count,
        memory: memory.clone(),
        cpuid: vec![],
        clock: clock.clone(),
        timers: timers.clone(),
    };
    let mut partition = Soft.new_partition(config).unwrap();
    let machine = Arc::new(Machine {
        output: Mutex::new(Vec::new()),
        signals: partition.signals(),
        sipi: Mutex::new(Vec::new()),
        pending: AtomicBool::new(false),
        clock: clock.clone(),
        timer: timers.timer(0),
        fired_at: AtomicU64::new(0),
    });
    let client: Arc<dyn TimerClient> = machine.clone();
    machine
        .timer
        .connect(Arc::downgrade(&client) as Weak<dyn TimerClient>);
    let mut state = X86State::reset();
    state.cs = SegmentRegister {
        selector: 0,
        base: 0,
        limit: 0xFFFF,
        attributes: SegmentAttributes(0x9B),
    };
    state.rip = CODE;
    state.cr0 = cr0::ET;
    state.gpr[x86defs::state::gpr::RSP] = 0x8000;
    let mut target = partition.launch_target();
    target.import(CODE, 0x1000, Some(code)).unwrap();
    target.vp_state(0, &state).unwrap();
    target.finish().unwrap();
    drop(target);
    let mut runner = partition.runners(machine.clone()).unwrap().remove(0);
    runner.reset().unwrap();
    clock.start();
    Vm {
        _partition: partition,
        runner,
        machine,
        clock,
        memory,
    }
}

impl Vm {
    fn output(&self) -> String {
        String::from_utf8_lossy(&self.machine.output.lock().unwrap()).into_owned()
    }
}

/// mov dx, 0x3f8; mov al, 'A'; out dx, al; out 0x10, al; jmp $
const HELLO: &[u8] = &[0xBA, 0xF8, 0x03, 0xB0, b'A', 0xEE, 0xE6, 0x10, 0xEB, 0xFE];

#[test]
fn a_guest_writes_to_a_port_and_stops_when_asked() {
    let mut vm = vm(HELLO, 1, false);
    assert_eq!(vm.runner.run().unwrap(), VpStop::Requested);
    assert_eq!(vm.output(), "A");
}

#[test]
fn amd_configuration_reads_zero_as_no_feature_is_on() {
    for low in [0x10, 0x55] {
        // mov eax, -1; mov ecx, 0xc0010000 + low; rdmsr; add al, '0'; mov dx, 0x3f8; out dx, al; out 0x10, al; jmp $
        let code = [
            0x66, 0xB8, 0xFF, 0xFF, 0xFF, 0xFF, 0x66, 0xB9, low, 0x00, 0x01, 0xC0, 0x0F, 0x32, 0x04, b'0',
            0xBA, 0xF8, 0x03, 0xEE, 0xE6, 0x10, 0xEB, 0xFE,
        ];
        let mut vm = vm(&code, 1, false);
        assert_eq!(vm.runner.run().unwrap(), VpStop::Requested);
        assert_eq!(vm.output(), "0");
    }
}

#[test]
fn a_reset_runs_the_launch_again() {
    let mut vm = vm(HELLO, 1, false);
    vm.runner.run().unwrap();
    vm.machine.signals.set_stop(false);
    vm.runner.reset().unwrap();
    assert_eq!(vm.runner.state(0).unwrap().rip, CODE);
    vm.runner.run().unwrap();
    assert_eq!(vm.output(), "AA");
}

#[test]
fn an_undefined_stack_and_idt_end_in_a_triple_fault() {
    // lidt [zero limit]; ud2
    let code = &[0x0F, 0x01, 0x1E, 0x80, 0x10, 0x0F, 0x0B];
    let mut vm = vm(code, 1, false);
    assert_eq!(vm.runner.run().unwrap(), VpStop::TripleFault { vp: 0 });
}

#[test]
fn an_ap_waits_for_init_and_sipi() {
    // out 0x20, al; hlt   |  at 0x8000 (SIPI vector 8): in al, 0; add al, '0'; mov dx, 0x3f8; out dx, al; out 0x10, al
    let mut vm = vm(&[0xE6, 0x20, 0xF4, 0xEB, 0xFD], 2, false);
    let ap = [
        0xE4, 0x00, 0x04, b'0', 0xBA, 0xF8, 0x03, 0xEE, 0xE6, 0x10, 0xEB, 0xFE,
    ];
    vm.memory.write(0x8000, &ap).unwrap();
    assert_eq!(vm.runner.run().unwrap(), VpStop::Requested);
    assert_eq!(vm.output(), "1");
    assert_eq!(vm.runner.state(1).unwrap().cs.base, 0x8000);
}

/// The IVT entry of vector 0x40 points at a handler that prints 'T' and stops.
fn with_timer_handler(vm: &Vm) {
    vm.memory.write(4 * 0x40, &[0x00, 0x20, 0x00, 0x00]).unwrap();
    vm.memory
        .write(0x2000, &[0xBA, 0xF8, 0x03, 0xB0, b'T', 0xEE, 0xE6, 0x10, 0xCF])
        .unwrap();
}

/// mov al, 200; out 0x30, al; sti; hlt; jmp back to hlt
const TIMER: &[u8] = &[0xB0, 200, 0xE6, 0x30, 0xFB, 0xF4, 0xEB, 0xFD];

#[test]
fn deterministic_hlt_skips_to_the_deadline_and_repeats_exactly() {
    let run = || {
        let mut vm = vm(TIMER, 1, true);
        with_timer_handler(&vm);
        assert_eq!(vm.runner.run().unwrap(), VpStop::Requested);
        assert_eq!(vm.output(), "T");
        (vm.clock.now(), vm.machine.fired_at.load(Ordering::SeqCst))
    };
    let first = run();
    assert!(first.1 >= 200_000 && first.1 < 201_000, "{first:?}");
    assert_eq!(first, run());
}

#[test]
fn deterministic_deadlines_interrupt_a_loop_too() {
    // The same timer, but spinning: jmp $
    let mut vm = vm(&[0xB0, 200, 0xE6, 0x30, 0xFB, 0xEB, 0xFE], 1, true);
    with_timer_handler(&vm);
    assert_eq!(vm.runner.run().unwrap(), VpStop::Requested);
    assert_eq!(vm.output(), "T");
    let late = vm.machine.fired_at.load(Ordering::SeqCst) - 200_000;
    assert!(late < 1000, "fired {late} ns after the deadline");
}

#[test]
fn an_interrupt_from_another_thread_ends_a_halt() {
    let mut vm = vm(&[0xFB, 0xF4, 0xEB, 0xFD], 1, false);
    with_timer_handler(&vm);
    let machine = vm.machine.clone();
    let waker = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        machine.timer_fired(0, 0);
    });
    assert_eq!(vm.runner.run().unwrap(), VpStop::Requested);
    waker.join().unwrap();
    assert_eq!(vm.output(), "T");
}

#[test]
fn mmio_reaches_the_bus_and_ram_does_not() {
    // mov ax, 0xffff; mov ds, ax; mov al, [0x7010] (gpa 0x107000: no RAM); mov [0x7011], al; out 0x10, al
    let code = &[
        0xB8, 0xFF, 0xFF, 0x8E, 0xD8, 0xA0, 0x34, 0x70, 0xA2, 0x35, 0x70, 0xE6, 0x10, 0xEB, 0xFE,
    ];
    let mut vm = vm(code, 1, false);
    vm.runner.run().unwrap();
    assert_eq!(vm.machine.output.lock().unwrap()[..], [0x24]);
}

#[test]
fn a_debugger_steps_and_breaks() {
    let mut vm = vm(HELLO, 1, false);
    let debug = vm.runner.debug().unwrap();
    assert_eq!(debug.translate(0, 0x1234).unwrap(), Some(0x1234));
    assert_eq!(debug.step(0).unwrap(), VpStop::Stepped { vp: 0 });
    debug.set_breakpoints(&[CODE + 6]).unwrap();
    assert_eq!(vm.runner.state(0).unwrap().rip, CODE + 3);
    assert_eq!(vm.runner.run().unwrap(), VpStop::Breakpoint { vp: 0 });
    assert_eq!(vm.runner.state(0).unwrap().rip, CODE + 6);
    assert_eq!(vm.output(), "A");
    assert_eq!(vm.runner.run().unwrap(), VpStop::Requested);
}
