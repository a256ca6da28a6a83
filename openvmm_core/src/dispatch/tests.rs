// SPDX-License-Identifier: MIT
//! The verbs and the ends, over a partition whose guest is a script.

use super::*;
use crate::rpc::{self, VmClient};
use chipset_device::{PowerRequest, PowerSink, TimerQueue, VpBus};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use virt::{LaunchTarget, PlainLaunch, RunError, Runner, VpIndex, VpStop};
use x86defs::X86State;

/// What the guest of vp 0 does in each of its runs; an empty script runs until stopped.
#[derive(Debug)]
enum Act {
    Power(PowerRequest),
    TripleFault,
    HostFails,
    Panic,
}

type Script = Arc<Mutex<VecDeque<Act>>>;

struct FakePartition {
    signals: Arc<VpSignals>,
    launch: PlainLaunch,
}

impl Partition for FakePartition {
    fn signals(&self) -> Arc<VpSignals> {
        self.signals.clone()
    }
    fn launch_target(&mut self) -> Box<dyn LaunchTarget + '_> {
        Box::new(self.launch.clone())
    }
    fn runners(&mut self, _bus: Arc<dyn VpBus>) -> Result<Vec<Box<dyn Runner>>, RunError> {
        Ok(Vec::new())
    }
}

struct FakeRunner {
    vp: VpIndex,
    signals: Arc<VpSignals>,
    power: Arc<PowerPort>,
    script: Script,
    resets: Arc<AtomicU32>,
}

impl Runner for FakeRunner {
    fn vps(&self) -> std::ops::Range<VpIndex> {
        self.vp..self.vp + 1
    }
    fn reset(&mut self) -> Result<(), RunError> {
        self.resets.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn run(&mut self) -> Result<VpStop, RunError> {
        let act = if self.vp == 0 {
            self.script.lock().unwrap().pop_front()
        } else {
            None
        };
        match act {
            None => {}
            Some(Act::Power(request)) => self.power.request(request),
            Some(Act::TripleFault) => return Ok(VpStop::TripleFault { vp: self.vp }),
            Some(Act::HostFails) => {
                return Err(RunError::Host {
                    what: "KVM_RUN of vp 0".into(),
                    reason: "EFAULT".into(),
                });
            }
            Some(Act::Panic) => std::panic::resume_unwind(Box::new("scripted")),
        }
        while self.signals.park(self.vp, None) != virt::WakeReason::Stop {
            self.signals.take_attention(self.vp);
        }
        Ok(VpStop::Requested)
    }
    fn state(&mut self, _vp: VpIndex) -> Result<X86State, RunError> {
        Ok(X86State {
            rip: 0x1234,
            ..X86State::reset()
        })
    }
    fn set_state(&mut self, _vp: VpIndex, _state: &X86State) -> Result<(), RunError> {
        Ok(())
    }
    fn retired(&self, vp: VpIndex) -> Option<u64> {
        (vp == 0).then_some(42)
    }
}

struct Rig {
    client: VmClient,
    thread: std::thread::JoinHandle<anyhow::Result<Ended>>,
    runner_resets: Arc<AtomicU32>,
    relaunches: Arc<AtomicU32>,
    nmis: Arc<AtomicU32>,
}

/// A two-processor VM whose guest follows `script`; a relaunch fails once `fail_at` have succeeded.
fn rig(script: Vec<Act>, on: EndActions, fail_at: Option<u32>) -> Rig {
    let (client, requests) = rpc::channel();
    let counter = || Arc::new(AtomicU32::new(0));
    let (runner_resets, relaunches, nmis) = (counter(), counter(), counter());
    let thread = std::thread::spawn({
        let (resets, relaunches, nmis) = (runner_resets.clone(), relaunches.clone(), nmis.clone());
        move || {
            let relaunch: Relaunch<'_> = Box::new(move |_| {
                let done = relaunches.fetch_add(1, Ordering::SeqCst);
                anyhow::ensure!(Some(done) != fail_at, "scripted launch failure");
                Ok(())
            });
            let vm = fake_vm(script, on, resets, nmis, relaunch);
            tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap()
                .block_on(run(vm, requests, |_, _| Ok(())))
        }
    });
    Rig {
        client,
        thread,
        runner_resets,
        relaunches,
        nmis,
    }
}

fn fake_vm(
    script: Vec<Act>,
    on: EndActions,
    resets: Arc<AtomicU32>,
    nmis: Arc<AtomicU32>,
    relaunch: Relaunch<'_>,
) -> Vm<'_> {
    let memory = GuestMemory::allocate(&[(0, 0x10_0000)]).unwrap();
    memory.write(0x5000, b"oops").unwrap();
    let signals = Arc::new(VpSignals::new(2));
    let (events_tx, events) = tokio::sync::mpsc::unbounded_channel();
    let power = PowerPort::new(signals.clone(), events_tx.clone());
    let script: Script = Arc::new(Mutex::new(script.into()));
    let threads = (0..2)
        .map(|vp| {
            let (signals, power, script) = (signals.clone(), power.clone(), script.clone());
            let runner = FakeRunner {
                vp,
                signals,
                power,
                script,
                resets: resets.clone(),
            };
            VpThread::spawn(Box::new(runner), events_tx.clone()).unwrap()
        })
        .collect();
    let clock = Arc::new(Clock::host());
    Vm {
        partition: Box::new(FakePartition {
            signals,
            launch: PlainLaunch::new(memory.clone(), 2),
        }),
        threads,
        devices: Devices {
            reset: Box::new(|| {}),
            inspect: Box::new(|| "uart idle\n".into()),
            watch: None,
            nmi: Box::new(move || {
                nmis.fetch_add(1, Ordering::SeqCst);
            }),
            shutdown: Box::new(|| "asked"),
            battery: Box::new(|_| false),
            type_line: Box::new(|_| false),
            firmware_log: Box::new(String::new),
        },
        memory,
        timers: Some(TimerThread::spawn(clock.clone(), TimerQueue::new()).unwrap()),
        clock,
        events,
        power,
        on,
        error_ranges: vec![GpaRange::new(0x5000, 0x1000)],
        relaunch,
    }
}

impl Rig {
    fn join(self) -> anyhow::Result<Ended> {
        self.thread.join().unwrap()
    }
    fn count(counter: &AtomicU32) -> u32 {
        counter.load(Ordering::SeqCst)
    }
    /// Waits until the guest has ended and stayed.
    fn wait_for(&self, text: &str) -> String {
        for _ in 0..1000 {
            let seen = self.client.inspect().unwrap();
            if seen.starts_with(text) {
                return seen;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("never {text}: {}", self.client.inspect().unwrap());
    }
}

#[test]
fn every_verb_does_its_part_on_an_idle_guest() {
    let r = rig(vec![], EndActions::default(), None);
    assert!(
        r.client
            .inspect()
            .unwrap()
            .starts_with("created, not started\nclock 0.000000 s\n")
    );
    assert_eq!(
        r.client.pause().unwrap_err().to_string(),
        "the guest is paused already"
    );
    r.client.start().unwrap();
    assert_eq!(
        r.client.resume().unwrap_err().to_string(),
        "the guest is running already"
    );
    assert_eq!(r.client.shutdown().unwrap(), "asked");
    r.client.nmi().unwrap();
    assert_eq!(Rig::count(&r.nmis), 1);
    assert_eq!(r.client.read_memory(0x5000, 4).unwrap(), b"oops");
    assert_eq!(
        r.client.read_memory(0xF_FFFF, 2).unwrap_err().to_string(),
        "access of 0x2 bytes at gpa 0xfffff is not wholly inside ram"
    );
    assert_eq!(
        r.client.read_memory(0, 1 << 30).unwrap_err().to_string(),
        "a read of 0x40000000 bytes is more than 0x100000"
    );
    let text = r.client.inspect().unwrap();
    assert!(
        text.starts_with("running\n")
            && text.ends_with("vp 0 rip 0x1234 instructions 42\nvp 1 rip 0x1234\nuart idle\n"),
        "{text}"
    );
    assert!(r.client.dump().unwrap().contains("vp 1: rip 0x1234 in real mode"));
    r.client.pause().unwrap();
    assert!(r.client.inspect().unwrap().starts_with("paused\n"));
    r.client.reset().unwrap();
    assert_eq!((Rig::count(&r.relaunches), Rig::count(&r.runner_resets)), (1, 4));
    assert!(r.client.inspect().unwrap().starts_with("paused\n"));
    r.client.resume().unwrap();
    let client = r.client.clone();
    client.stop(9).unwrap();
    assert_eq!(
        r.join().unwrap(),
        Ended {
            code: 9,
            reason: HaltReason::Stopped
        }
    );
    assert_eq!(client.pause().unwrap_err().to_string(), "the vm is gone");
}

#[test]
fn the_clock_stands_still_while_paused() {
    let r = rig(vec![], EndActions::default(), None);
    r.client.start().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(2));
    r.client.pause().unwrap();
    let before = r.client.inspect().unwrap();
    assert!(!before.contains("clock 0.000000"), "{before}");
    std::thread::sleep(std::time::Duration::from_millis(2));
    assert_eq!(r.client.inspect().unwrap(), before);
}

#[test]
fn each_end_has_its_action() {
    let on = EndActions {
        shutdown: EndAction::Exit(4),
        reset: EndAction::Exit(5),
        crash: EndAction::Exit(6),
    };
    for (act, code, reason) in [
        (Act::Power(PowerRequest::Shutdown), 4, HaltReason::Shutdown),
        (Act::Power(PowerRequest::Reset), 5, HaltReason::Reset),
        (
            Act::Power(PowerRequest::TestExit(42)),
            42,
            HaltReason::TestExit(42),
        ),
        (
            Act::Power(PowerRequest::Crash("bug check".into())),
            6,
            HaltReason::Crash("bug check".into()),
        ),
        (
            Act::TripleFault,
            6,
            HaltReason::Crash("vp 0 triple faulted".into()),
        ),
    ] {
        let r = rig(vec![act], on, None);
        r.client.start().unwrap();
        assert_eq!(r.join().unwrap(), Ended { code, reason });
    }
}

#[test]
fn a_guest_reset_launches_again_and_runs_on() {
    let script = vec![
        Act::Power(PowerRequest::Reset),
        Act::Power(PowerRequest::Reset),
        Act::Power(PowerRequest::Shutdown),
    ];
    let r = rig(script, EndActions::default(), None);
    r.client.start().unwrap();
    let (relaunches, resets) = (r.relaunches.clone(), r.runner_resets.clone());
    assert_eq!(r.join().unwrap().reason, HaltReason::Shutdown);
    assert_eq!((Rig::count(&relaunches), Rig::count(&resets)), (2, 6));
}

#[test]
fn a_launch_that_fails_at_reset_ends_the_vm_with_its_error() {
    let r = rig(
        vec![Act::Power(PowerRequest::Reset)],
        EndActions::default(),
        Some(0),
    );
    r.client.start().unwrap();
    assert_eq!(r.join().unwrap_err().to_string(), "scripted launch failure");
}

#[test]
fn a_halted_guest_can_be_looked_at_and_reset_but_not_resumed() {
    let on = EndActions {
        crash: EndAction::Halt,
        ..EndActions::default()
    };
    let r = rig(vec![Act::TripleFault], on, None);
    r.client.start().unwrap();
    r.wait_for("halted: the guest has crashed: vp 0 triple faulted\n");
    let refused = "the guest has ended (the guest has crashed: vp 0 triple faulted); reset starts it again";
    assert_eq!(r.client.resume().unwrap_err().to_string(), refused);
    assert_eq!(r.client.pause().unwrap_err().to_string(), refused);
    r.client.reset().unwrap();
    r.wait_for("running\n");
    r.client.stop(0).unwrap();
    assert_eq!(r.join().unwrap().reason, HaltReason::Stopped);
}

#[test]
fn host_failures_and_dead_threads_are_errors_not_guest_crashes() {
    let r = rig(vec![Act::HostFails], EndActions::default(), None);
    r.client.start().unwrap();
    assert_eq!(r.join().unwrap_err().to_string(), "KVM_RUN of vp 0: EFAULT");
    let r = rig(vec![Act::Panic], EndActions::default(), None);
    r.client.start().unwrap();
    assert_eq!(
        r.join().unwrap_err().to_string(),
        "the thread of vps 0..1 died; this is a bug in openvmm, see the message above"
    );
}

#[test]
fn a_vm_without_clients_stops() {
    let r = rig(vec![], EndActions::default(), None);
    r.client.start().unwrap();
    let Rig { client, thread, .. } = r;
    drop(client);
    assert_eq!(
        thread.join().unwrap().unwrap(),
        Ended {
            code: 0,
            reason: HaltReason::Stopped
        }
    );
}

#[test]
fn error_ranges_are_shown_up_to_their_last_byte() {
    let memory = GuestMemory::allocate(&[(0, 0x10_0000)]).unwrap();
    let range = GpaRange::new(0x5000, 0x1000);
    assert_eq!(
        error_range(&range, &memory),
        "error range 0x5000..0x6000 is empty\n"
    );
    memory.write(0x5010, b"\x01\x02").unwrap();
    assert_eq!(
        error_range(&range, &memory),
        "error range 0x5000..0x6000:\n  0x5000: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00\n  0x5010: 01 02\n"
    );
}
