// SPDX-License-Identifier: MIT
//! The run loop of one VP.
//!
//! Always true: the kick flag is cleared before the VP's attention is taken, and that before its events
//! are polled, so no wake is lost; a pending device access is finished before registers are read or
//! replaced and before the loop is left; the time-stamp counter follows the partition's clock from the
//! moment the VP is run.

mod access;

use crate::cpuid;
use crate::fallback::{Fallback, Stepped};
use crate::host::host;
use crate::registers;
use crate::tsc::{Tsc, TscBase};
use access::After;
use chipset_device::VpEvents;
use guest_memory::GuestMemory;
use kvm_sys::bindings as kb;
use kvm_sys::{Fpu, KvmError, Vcpu};
use std::ops::Range;
use std::sync::Arc;
use virt::activity::{self, Activity, Step};
use virt::{Clock, PlainLaunch, RunError, Runner, VpBus, VpDebug, VpIndex, VpSignals, VpStop};
use x86defs::{X86State, msr};

/// What a VP needs besides KVM.
pub(crate) struct World {
    pub bus: Arc<dyn VpBus>,
    pub signals: Arc<VpSignals>,
    pub clock: Arc<Clock>,
    pub tsc: Arc<TscBase>,
    pub memory: GuestMemory,
    pub launch: PlainLaunch,
    pub leaves: Vec<kb::kvm_cpuid_entry2>,
    pub phys_bits: u8,
}

/// Runs one VP.
pub(crate) struct KvmRunner {
    pub(crate) vp: VpIndex,
    pub(crate) vcpu: Vcpu,
    pub(crate) world: World,
    activity: Activity,
    /// Events that were taken and not dealt with yet.
    held: VpEvents,
    /// The last exit waits for the next entry to finish its instruction.
    unfinished: bool,
    /// What the run structure says about interrupts is about the guest as it is now.
    window_known: bool,
    /// RFLAGS.IF as far as it is known outside the guest.
    interrupts_enabled: bool,
    tsc: Tsc,
    fallback: Option<Box<Fallback>>,
    /// The breakpoint that the VP stopped at; it is stepped over when the VP is run again.
    pub(crate) stopped_at: Option<u64>,
}

/// What the loop does next.
enum Next {
    Enter,
    Park,
}

fn merge(a: VpEvents, b: VpEvents) -> VpEvents {
    VpEvents {
        init: a.init | b.init,
        sipi: b.sipi.or(a.sipi),
        nmi: a.nmi | b.nmi,
        interrupt: a.interrupt | b.interrupt,
    }
}

impl KvmRunner {
    pub(crate) fn new(vp: VpIndex, vcpu: Vcpu, world: World) -> Result<Self, KvmError> {
        let tsc = Tsc::new(&vcpu)?;
        Ok(Self {
            vp,
            vcpu,
            world,
            activity: Activity::WaitForSipi,
            held: VpEvents::default(),
            unfinished: false,
            window_known: false,
            interrupts_enabled: false,
            tsc,
            fallback: None,
            stopped_at: None,
        })
    }

    /// Finishes the instruction of the last exit without running another one.
    pub(crate) fn settle(&mut self) -> Result<Option<VpStop>, RunError> {
        while self.unfinished {
            self.vcpu.set_immediate_exit(true);
            let stop = self.enter();
            self.vcpu.set_immediate_exit(false);
            if let Some(stop) = stop? {
                return Ok(Some(stop));
            }
        }
        Ok(None)
    }

    /// Looks at the VP's events and brings it to where it can be entered or parked.
    fn prepare(&mut self) -> Result<Next, RunError> {
        let mut events = merge(std::mem::take(&mut self.held), self.world.bus.poll(self.vp));
        loop {
            match activity::next(&mut self.activity, self.vp == 0, events, self.interrupts_enabled) {
                Step::Park => return Ok(Next::Park),
                Step::Restart(restart) => {
                    self.settle()?;
                    let before = self.read()?;
                    self.clear_events()?;
                    self.replace(&before, &restart.state(&before))?;
                    events = VpEvents {
                        init: false,
                        ..events
                    };
                }
                Step::Run { nmi } => {
                    if nmi {
                        self.vcpu.nmi().map_err(host)?;
                    }
                    self.offer_interrupt(events.interrupt)?;
                    return Ok(Next::Enter);
                }
            }
        }
    }

    /// Injects a waiting vector if the guest can take one, else asks to hear when it can.
    fn offer_interrupt(&mut self, mut waiting: bool) -> Result<(), RunError> {
        if waiting && self.window_known && self.vcpu.ready_for_interrupt() {
            if let Some(vector) = self.world.bus.acknowledge(self.vp) {
                self.vcpu.interrupt(vector).map_err(host)?;
                self.window_known = false;
            }
            // Another one may be deliverable after this one (an 8259 vector leaves the local APIC's).
            self.held = merge(self.held, self.world.bus.poll(self.vp));
            waiting = std::mem::take(&mut self.held.interrupt);
        }
        self.vcpu.request_irq_window(waiting);
        Ok(())
    }

    /// Enters the guest once and deals with the exit.
    fn enter(&mut self) -> Result<Option<VpStop>, RunError> {
        let cr8 = u64::from(self.world.bus.cr8(self.vp));
        self.vcpu.set_cr8(cr8);
        self.unfinished = false;
        let exit = self
            .vcpu
            .run()
            .map_err(|e| host(e.about(format_args!("vp {}", self.vp))))?;
        let after = access::answer(&*self.world.bus, self.vp, exit);
        self.window_known = true;
        self.interrupts_enabled = self.vcpu.interrupts_enabled();
        let now = self.vcpu.cr8();
        if now != cr8 {
            self.world.bus.set_cr8(self.vp, now as u8);
        }
        self.follow_up(after)
    }

    fn follow_up(&mut self, after: After) -> Result<Option<VpStop>, RunError> {
        match after {
            After::Nothing => {}
            After::Unfinished => self.unfinished = true,
            After::ApicBase => {
                self.unfinished = true;
                if let Some(stop) = self.settle()? {
                    return Ok(Some(stop));
                }
                let base = self.apic_base();
                registers::write_apic_base(&mut self.vcpu, base).map_err(host)?;
            }
            After::Halted => self.activity = Activity::Halted,
            After::TripleFault => return Ok(Some(VpStop::TripleFault { vp: self.vp })),
            After::Debug => return self.debug_stop(),
            After::NotEmulated(bytes) => return self.step_with_engine(&bytes),
            After::Unrunnable(reason) => return self.unrunnable(&reason).map(Some),
        }
        Ok(None)
    }

    /// Says where the guest was when it could not go on.
    fn unrunnable(&self, reason: &str) -> Result<VpStop, RunError> {
        let s = self.read()?;
        let (selector, rip) = (s.cs.selector, s.rip);
        let reason = format!("at {selector:#x}:{rip:#x}: {reason}; try --hypervisor soft");
        Ok(VpStop::Unrunnable { vp: self.vp, reason })
    }

    fn step_with_engine(&mut self, bytes: &[u8]) -> Result<Option<VpStop>, RunError> {
        let rip = self.read()?.rip;
        let stop = self.engine_step()?;
        let steps = self.fallback.as_ref().map_or(0, |f| f.steps);
        tracing::trace!(
            vp = self.vp,
            rip = format_args!("{rip:#x}"),
            ?bytes,
            steps,
            "kvm cannot emulate this; stepped"
        );
        Ok(stop)
    }

    /// Steps one instruction with the engine of the software CPU.
    pub(crate) fn engine_step(&mut self) -> Result<Option<VpStop>, RunError> {
        let before = self.read()?;
        let mut fpu = self.vcpu.fpu().map_err(host)?;
        let tsc = self.vcpu.msrs(&[msr::TSC]).map_err(host)?[0];
        let world = &self.world;
        let fallback = self.fallback.get_or_insert_with(|| {
            let leaves = cpuid::to_entries(&world.leaves);
            Box::new(Fallback::new(
                self.vp,
                world.bus.clone(),
                world.memory.clone(),
                leaves,
                world.phys_bits,
            ))
        });
        let mut after = before;
        let stepped = fallback.step(&mut after, &mut fpu, tsc);
        self.end_interrupt_shadow()?;
        self.replace(&before, &after)?;
        self.vcpu.set_fpu(&mut fpu).map_err(host)?;
        match stepped {
            Stepped::Done => {}
            Stepped::Halted => self.activity = Activity::Halted,
            Stepped::TripleFault => return Ok(Some(VpStop::TripleFault { vp: self.vp })),
        }
        Ok(None)
    }

    /// An instruction has retired outside KVM, so a shadow of STI or MOV SS before it is over.
    fn end_interrupt_shadow(&mut self) -> Result<(), RunError> {
        let mut events = self.vcpu.events().map_err(host)?;
        if events.interrupt.shadow == 0 {
            return Ok(());
        }
        events.interrupt.shadow = 0;
        events.flags = kb::KVM_VCPUEVENT_VALID_SHADOW;
        self.vcpu.set_events(&events).map_err(host)
    }

    /// Forgets pending exceptions, injections, NMIs and shadows.
    fn clear_events(&mut self) -> Result<(), RunError> {
        let flags = kb::KVM_VCPUEVENT_VALID_NMI_PENDING | kb::KVM_VCPUEVENT_VALID_SHADOW;
        self.vcpu
            .set_events(&kb::kvm_vcpu_events {
                flags,
                ..Default::default()
            })
            .map_err(host)
    }

    fn apic_base(&self) -> u64 {
        const RESET: u64 = 0xFEE0_0000 | msr::APIC_BASE_ENABLE;
        let bsp = if self.vp == 0 { msr::APIC_BASE_BSP } else { 0 };
        self.world
            .bus
            .msr_read(self.vp, msr::APIC_BASE)
            .unwrap_or(RESET | bsp)
    }

    fn read(&self) -> Result<X86State, RunError> {
        let mut state = registers::read(&self.vcpu).map_err(host)?;
        state.cr8 = self.world.bus.cr8(self.vp).into();
        Ok(state)
    }

    fn replace(&mut self, before: &X86State, after: &X86State) -> Result<(), RunError> {
        self.world.bus.set_cr8(self.vp, after.cr8 as u8);
        let apic_base = self.apic_base();
        registers::write(&mut self.vcpu, before, after, apic_base)
            .map_err(|e| host(e.about(format_args!("vp {}", self.vp))))?;
        self.window_known = false;
        self.interrupts_enabled = after.rflags & x86defs::rflags::IF != 0;
        Ok(())
    }

    fn check(&self, vp: VpIndex) -> Result<(), RunError> {
        if vp == self.vp {
            Ok(())
        } else {
            Err(RunError::NoSuchVp(vp))
        }
    }

    /// For a debugger: the state after any pending access, and the stop that finishing it caused.
    pub(crate) fn settled(&mut self, vp: VpIndex) -> Result<(), RunError> {
        self.check(vp)?;
        // A stop that comes out of finishing an access comes again when the VP is run.
        self.settle().map(drop)
    }
}

impl Runner for KvmRunner {
    fn vps(&self) -> Range<VpIndex> {
        self.vp..self.vp + 1
    }

    fn reset(&mut self) -> Result<(), RunError> {
        self.settle()?;
        let (activity, state) = self.world.launch.start(self.vp);
        self.activity = activity;
        self.held = VpEvents::default();
        self.stopped_at = None;
        self.tsc.reset();
        self.world.signals.take_attention(self.vp);
        self.clear_events()?;
        let before = self.read()?;
        self.replace(&before, &state)?;
        self.vcpu.set_fpu(&mut Fpu::reset()).map_err(host)
    }

    fn run(&mut self) -> Result<VpStop, RunError> {
        let _entered = self.vcpu.enter_thread().map_err(host)?;
        self.tsc
            .follow(&mut self.vcpu, &self.world.tsc, &self.world.clock)
            .map_err(host)?;
        if let Some(stop) = self.leave_breakpoint()? {
            return Ok(stop);
        }
        loop {
            self.vcpu.set_immediate_exit(false);
            self.world.signals.take_attention(self.vp);
            if self.world.signals.stopping() {
                return Ok(self.settle()?.unwrap_or(VpStop::Requested));
            }
            match self.prepare()? {
                Next::Park => drop(self.world.signals.park(self.vp, None)),
                Next::Enter => {
                    if let Some(stop) = self.enter()? {
                        return Ok(stop);
                    }
                }
            }
        }
    }

    fn state(&mut self, vp: VpIndex) -> Result<X86State, RunError> {
        self.settled(vp)?;
        self.read()
    }

    fn set_state(&mut self, vp: VpIndex, state: &X86State) -> Result<(), RunError> {
        self.settled(vp)?;
        let before = self.read()?;
        // A VP that waits for its SIPI keeps waiting: a debugger writes registers of every VP.
        if self.activity == Activity::Halted {
            self.activity = Activity::Running;
        }
        self.replace(&before, state)
    }

    fn debug(&mut self) -> Option<&mut dyn VpDebug> {
        Some(self)
    }
}
