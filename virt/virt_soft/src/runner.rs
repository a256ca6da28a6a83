// SPDX-License-Identifier: MIT
//! All VPs of a partition in turn on one thread.
//!
//! Always true: a VP runs only while it is active; when none is, a deterministic partition skips to the
//! next deadline and any other sleeps until somebody rings. A VP's attention flag is taken before its
//! events are polled, so no wake is lost.

use crate::Ram;
use crate::cpuid;
use crate::guest_time::GuestTime;
use crate::spin::{SpinWatch, thread_time};
use crate::trace::Adapter;
use crate::world::{Last, NS_PER_INSTRUCTION, Shared, World};
use chipset_device::{VpBus, VpIndex};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};
use virt::activity::{self, Activity, Step};
use virt::{ExecutionTrace, PartitionConfig, PlainLaunch, RunError, Runner, VpDebug, VpSignals, VpStop};
use x86defs::{X86State, rflags};
use x86emu::{CodeMap, Config, Cpu, Exit};

/// Instructions that one VP runs before the next has its turn.
const SLICE: u64 = 50_000;

/// Wakes the runner's thread, whichever VP is meant.
#[derive(Default)]
struct Doorbell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Doorbell {
    fn ring(&self) {
        *self.rung.lock().unwrap_or_else(|e| e.into_inner()) = true;
        self.changed.notify_all();
    }

    /// Sleeps until rung since the last wait.
    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap_or_else(|e| e.into_inner());
        while !*rung {
            rung = self.changed.wait(rung).unwrap_or_else(|e| e.into_inner());
        }
        *rung = false;
    }
}

struct Vp {
    cpu: Cpu,
    activity: Activity,
    spin: SpinWatch,
    last: Last,
    time: GuestTime,
}

impl Vp {
    /// Says so when the guest seems to spin.
    fn watch(&mut self, vp: VpIndex) {
        if let Some((low, high)) = self.spin.sample(self.cpu.rip(), thread_time()) {
            tracing::warn!(
                "vp {vp} has run nothing but the code at {low:#x}..={high:#x} for 10 s of cpu time; it seems to \
                 wait for something there{}",
                self.last
            );
        }
    }
}

/// What became of a VP's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ran {
    /// It waits for something.
    Not,
    /// Somebody wants attention; the turn is not over.
    Kicked,
    /// The turn is over.
    Over,
}

/// The runner of a software partition.
pub(crate) struct SoftRunner {
    vps: Vec<Vp>,
    shared: Shared,
    signals: Arc<VpSignals>,
    launch: PlainLaunch,
    doorbell: Arc<Doorbell>,
    breakpoints: Vec<u64>,
    /// Whose turn it is, and what is left of the slice: kicks do not end a turn, so a stop from outside (an
    /// inspection) does not change how the VPs take turns.
    turn: (VpIndex, u64),
}

impl SoftRunner {
    pub(crate) fn new(
        config: &PartitionConfig,
        signals: Arc<VpSignals>,
        launch: PlainLaunch,
        bus: Arc<dyn VpBus>,
        phys_bits: u8,
    ) -> Self {
        let gpa_end = config.memory.regions().last().map_or(0, |r| r.gpa + r.len);
        let code = CodeMap::new(gpa_end);
        let doorbell = Arc::new(Doorbell::default());
        let vps = (0..config.vp_count)
            .map(|vp| {
                let cpu = Cpu::new(Config {
                    cpuid: cpuid(config, vp),
                    phys_bits,
                    code: code.clone(),
                });
                let (attention, doorbell) = (cpu.attention(), doorbell.clone());
                signals.set_kick(vp, move || {
                    attention.kick();
                    doorbell.ring();
                });
                Vp {
                    cpu,
                    activity: Activity::WaitForSipi,
                    spin: SpinWatch::new(thread_time()),
                    last: Last::default(),
                    time: GuestTime::default(),
                }
            })
            .collect();
        let shared = Shared {
            ram: Ram::new(config.memory.clone()),
            bus,
            clock: config.clock.clone(),
            timers: config.timers.clone(),
        };
        Self {
            vps,
            shared,
            signals,
            launch,
            doorbell,
            breakpoints: Vec::new(),
            turn: (0, SLICE),
        }
    }

    /// Lets the VPs run in turn, from the one whose turn it is, until all have had one or a kick. Says
    /// whether any ran.
    fn round(&mut self) -> Result<bool, VpStop> {
        let mut any = false;
        for _ in 0..self.vps.len() {
            let (vp, left) = self.turn;
            let before = self.vps[vp as usize].cpu.retired();
            let ran = self.turn(vp, left);
            let left = left.saturating_sub(self.vps[vp as usize].cpu.retired() - before);
            if matches!(ran, Ok(Ran::Kicked)) && left > 0 {
                self.turn.1 = left;
                return Ok(true);
            }
            self.turn = ((vp + 1) % self.vps.len() as VpIndex, SLICE);
            any |= !matches!(ran?, Ran::Not);
        }
        Ok(any)
    }

    /// One VP's turn: its events, then a slice if it is active.
    fn turn(&mut self, vp: VpIndex, limit: u64) -> Result<Ran, VpStop> {
        let this = &mut self.vps[vp as usize];
        let attention = this.cpu.attention();
        let mut events = chipset_device::VpEvents::default();
        if self.signals.take_attention(vp) {
            events = self.shared.bus.poll(vp);
            if events.interrupt {
                attention.interrupt();
            }
        }
        loop {
            let halted = this.activity == Activity::Halted;
            let interruptible = halted && this.cpu.state().rflags & rflags::IF != 0;
            match activity::next(&mut this.activity, vp == 0, events, interruptible) {
                Step::Park => return Ok(Ran::Not),
                Step::Restart(restart) => {
                    let state = restart.state(&this.cpu.state());
                    this.cpu.set_state(&state);
                    events = chipset_device::VpEvents {
                        init: false,
                        ..events
                    };
                }
                Step::Run { nmi } => {
                    if nmi {
                        attention.nmi();
                    }
                    break;
                }
            }
        }
        let exit = self.slice(vp, limit);
        self.after(vp, exit)
    }

    fn slice(&mut self, vp: VpIndex, limit: u64) -> Exit {
        let deterministic = self.shared.clock.is_deterministic();
        let now = self.shared.clock.now();
        let deadline = if deterministic {
            self.shared.timers.next_deadline()
        } else {
            None
        };
        let until = deadline.map_or(limit, |d| {
            d.saturating_sub(now).div_ceil(NS_PER_INSTRUCTION).clamp(1, limit)
        });
        let this = &mut self.vps[vp as usize];
        let first = this.cpu.retired();
        let attention = this.cpu.attention();
        let mut world = World {
            shared: &self.shared,
            vp,
            attention: &attention,
            start: (now, first),
            deadline,
            last: &mut this.last,
            time: &mut this.time,
        };
        let exit = this.cpu.run(&mut world, until);
        let ran = this.cpu.retired() - first;
        self.shared
            .clock
            .advance_to(now.saturating_add(ran.saturating_mul(NS_PER_INSTRUCTION)));
        exit
    }

    fn after(&mut self, vp: VpIndex, exit: Exit) -> Result<Ran, VpStop> {
        match exit {
            Exit::Kicked => Ok(Ran::Kicked),
            Exit::Budget => {
                self.vps[vp as usize].watch(vp);
                Ok(Ran::Over)
            }
            Exit::Hlt => {
                let this = &mut self.vps[vp as usize];
                this.activity = Activity::Halted;
                this.spin.restart(this.cpu.rip(), thread_time());
                Ok(Ran::Over)
            }
            Exit::TripleFault => Err(VpStop::TripleFault { vp }),
            Exit::Breakpoint => Err(VpStop::Breakpoint { vp }),
        }
    }

    fn fire_due(&self) {
        if self.shared.clock.is_deterministic() {
            self.shared.timers.fire_due(self.shared.clock.now());
        }
    }

    /// Nothing can run: waits for something to change.
    fn idle(&self) {
        let wanted = (0..self.vps.len() as VpIndex).any(|vp| self.signals.has_attention(vp));
        if wanted || self.signals.stopping() {
            return;
        }
        if self.shared.clock.is_deterministic()
            && let Some(next) = self.shared.timers.next_deadline()
        {
            self.shared.clock.advance_to(next);
            return;
        }
        self.doorbell.wait();
    }

    fn vp(&mut self, vp: VpIndex) -> Result<&mut Vp, RunError> {
        self.vps.get_mut(vp as usize).ok_or(RunError::NoSuchVp(vp))
    }
}

impl Runner for SoftRunner {
    fn vps(&self) -> Range<VpIndex> {
        0..self.vps.len() as VpIndex
    }

    fn reset(&mut self) -> Result<(), RunError> {
        self.turn = (0, SLICE);
        for (vp, this) in self.vps.iter_mut().enumerate() {
            let (activity, state) = self.launch.start(vp as VpIndex);
            this.cpu.reset();
            this.time = GuestTime::default();
            this.activity = activity;
            this.cpu.set_state(&state);
            self.signals.take_attention(vp as VpIndex);
        }
        Ok(())
    }

    fn run(&mut self) -> Result<VpStop, RunError> {
        loop {
            if self.signals.stopping() {
                return Ok(VpStop::Requested);
            }
            self.fire_due();
            match self.round() {
                Err(stop) => return Ok(stop),
                Ok(true) => {}
                Ok(false) => self.idle(),
            }
        }
    }

    fn state(&mut self, vp: VpIndex) -> Result<X86State, RunError> {
        let cr8 = self.shared.bus.cr8(vp).into();
        let this = self.vp(vp)?;
        Ok(X86State {
            cr8,
            ..this.cpu.state()
        })
    }

    fn set_state(&mut self, vp: VpIndex, state: &X86State) -> Result<(), RunError> {
        let this = self.vp(vp)?;
        this.cpu.set_state(state);
        if this.activity == Activity::Halted {
            this.activity = Activity::Running;
        }
        self.shared.bus.set_cr8(vp, state.cr8 as u8);
        Ok(())
    }

    fn retired(&self, vp: VpIndex) -> Option<u64> {
        self.vps.get(vp as usize).map(|this| this.cpu.retired())
    }

    fn debug(&mut self) -> Option<&mut dyn VpDebug> {
        Some(self)
    }
}

impl VpDebug for SoftRunner {
    fn fxsave(&mut self, vp: VpIndex) -> Result<[u8; 512], RunError> {
        Ok(self.vp(vp)?.cpu.fxsave())
    }

    fn translate(&mut self, vp: VpIndex, address: u64) -> Result<Option<u64>, RunError> {
        self.vp(vp)?;
        let cpu = &mut self.vps[vp as usize].cpu;
        let attention = cpu.attention();
        let start = (self.shared.clock.now(), cpu.retired());
        let mut world = World {
            shared: &self.shared,
            vp,
            attention: &attention,
            start,
            deadline: None,
            last: &mut Last::default(),
            time: &mut GuestTime::default(),
        };
        Ok(cpu.translate(&mut world, address))
    }

    fn set_breakpoints(&mut self, addresses: &[u64]) -> Result<(), RunError> {
        for this in &mut self.vps {
            for old in self.breakpoints.iter().filter(|a| !addresses.contains(a)) {
                this.cpu.remove_breakpoint(*old);
            }
            for new in addresses.iter().filter(|a| !self.breakpoints.contains(a)) {
                this.cpu.add_breakpoint(*new);
            }
        }
        self.breakpoints = addresses.to_vec();
        Ok(())
    }

    fn set_trace(
        &mut self,
        make: &mut dyn FnMut(VpIndex) -> Box<dyn ExecutionTrace>,
    ) -> Result<(), RunError> {
        for (vp, this) in (0..).zip(&mut self.vps) {
            this.cpu.set_tracer(Some(Box::new(Adapter(make(vp)))));
        }
        Ok(())
    }

    /// The VP's events are taken first, so that a step can enter an interrupt handler; one in HLT or
    /// wait-for-SIPI stays there.
    fn step(&mut self, vp: VpIndex) -> Result<VpStop, RunError> {
        let before = self.vp(vp)?.cpu.retired();
        self.fire_due();
        // A kick that was pending (the stop before the step) ends the first turn before its instruction.
        for _ in 0..2 {
            match self.turn(vp, 1) {
                Err(stop) => return Ok(stop),
                Ok(ran) if ran == Ran::Not || self.vp(vp)?.cpu.retired() != before => break,
                Ok(_) => {}
            }
        }
        Ok(VpStop::Stepped { vp })
    }
}
