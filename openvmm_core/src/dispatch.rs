// SPDX-License-Identifier: MIT
//! The worker: a tokio task that owns a launched VM and carries out verbs and guest-initiated ends.
//!
//! Always true: registers are read and devices are reset only while every VP has left its run call; the
//! clock runs exactly while VPs may; the first power request of a run wins; a reset launches the same
//! plan again with fresh host values. Not here: how to launch ([`crate::launch`]), what a verb is called
//! on a terminal.

use crate::ending::{Cause, Done, Ended, HaltReason};
use crate::firmware_watch::FirmwareWatch;
use crate::power::PowerPort;
use crate::registers;
use crate::rpc::{DebugRequest, DebugStop, MAX_MEMORY_READ, MemoryRange, OnVp, Request, Requests, VerbError};
use crate::timer_thread::TimerThread;
use crate::vp_thread::{Event, VpThread};
use chipset::battery::Charge;
use guest_memory::GuestMemory;
use openvmm_defs::{EndAction, EndActions, GpaRange};
use std::fmt::Write;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;
use virt::{Clock, Partition, VpSignals, VpStop};

/// Most bytes of an error range that a crash report shows.
const ERROR_RANGE_SHOWN: u64 = 512;

/// The machine around the VPs, as far as the worker is concerned.
pub(crate) struct Devices {
    /// Returns all devices to their state after power on.
    pub(crate) reset: Box<dyn FnMut() + Send>,
    /// State of all devices, as text.
    pub(crate) inspect: Box<dyn Fn() -> String + Send>,
    /// Watches the firmware, where there is one.
    pub(crate) watch: Option<Arc<FirmwareWatch>>,
    /// Raises an NMI on the boot processor.
    pub(crate) nmi: Box<dyn Fn() + Send>,
    /// Asks the guest to power off; says how.
    pub(crate) shutdown: Box<dyn Fn() -> &'static str + Send>,
    /// Says that the host's battery has changed; `false` when the guest has none.
    pub(crate) battery: Box<dyn Fn(Charge) -> bool + Send>,
    /// Types a line of text on the guest's keyboard; `false` when it has none.
    pub(crate) type_line: Box<dyn Fn(&str) -> bool + Send>,
    /// The last lines of the firmware's log; empty when there is none.
    pub(crate) firmware_log: Box<dyn Fn() -> String + Send>,
}

/// Launches the guest again over zeroed memory and reset devices.
pub(crate) type Relaunch<'l> = Box<dyn FnMut(&mut dyn Partition) -> anyhow::Result<()> + 'l>;

/// A launched VM, stopped.
pub(crate) struct Vm<'l> {
    pub(crate) partition: Box<dyn Partition>,
    pub(crate) threads: Vec<VpThread>,
    pub(crate) devices: Devices,
    pub(crate) memory: GuestMemory,
    pub(crate) clock: Arc<Clock>,
    /// `None` when the backend fires deadlines itself.
    pub(crate) timers: Option<TimerThread>,
    pub(crate) events: UnboundedReceiver<Event>,
    pub(crate) power: Arc<PowerPort>,
    pub(crate) on: EndActions,
    /// Ranges whose contents survive resets and are shown in crash reports.
    pub(crate) error_ranges: Vec<GpaRange>,
    pub(crate) relaunch: Relaunch<'l>,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    /// Launched, never run.
    Created,
    Running,
    Paused,
    /// Ended, inspectable.
    Halted(HaltReason),
}

/// Runs the VM until it ends; `done` is told what the guest has done then.
pub(crate) async fn run(
    vm: Vm<'_>,
    mut requests: Requests,
    done: impl FnOnce(&Ended, Done) -> anyhow::Result<()>,
) -> anyhow::Result<Ended> {
    let signals = vm.partition.signals();
    for thread in &vm.threads {
        thread.reset().await?;
    }
    let mut worker = Worker {
        vm,
        signals,
        state: State::Created,
        in_guest: 0,
        cause: None,
        debugged: false,
        debug_stop: None,
        look: None,
    };
    let ended = worker.serve(&mut requests).await;
    // Whatever happened, no VP may run on while the process winds down.
    let stopped = worker.quiesce().await;
    let did = worker.done().await;
    worker.vm.threads.drain(..).for_each(VpThread::join);
    let ended = ended?;
    stopped?;
    done(&ended, did?)?;
    Ok(ended)
}

struct Worker<'l> {
    vm: Vm<'l>,
    signals: Arc<VpSignals>,
    state: State,
    /// Threads inside their run call.
    in_guest: usize,
    /// Why the guest stopped by itself; the first cause of a run.
    cause: Option<Cause>,
    /// A debugger is attached.
    debugged: bool,
    /// What the debugger has to be told.
    debug_stop: Option<DebugStop>,
    /// How the firmware goes no further; to be told with where it is.
    look: Option<String>,
}

impl Worker<'_> {
    async fn serve(&mut self, requests: &mut Requests) -> anyhow::Result<Ended> {
        loop {
            let ended = tokio::select! {
                biased;
                Some(event) = self.vm.events.recv() => {
                    self.note(event)?;
                    let was_running = self.quiesce().await?;
                    self.go_on(was_running).await?
                }
                request = requests.0.recv() => match request {
                    // Nobody is left who could ask for anything.
                    None => Some(Ended::stopped(0)),
                    Some(request) => self.carry_out(request).await?,
                },
            };
            if let Some(ended) = ended {
                return Ok(ended);
            }
        }
    }

    /// Takes in what a thread or device said.
    fn note(&mut self, event: Event) -> anyhow::Result<()> {
        let cause = match event {
            Event::Died(vps) => {
                // Its run call will never return.
                self.in_guest = self.in_guest.saturating_sub(1);
                let (first, end) = (vps.start, vps.end);
                anyhow::bail!(
                    "the thread of vps {first}..{end} died; this is a bug in openvmm, see the message above"
                );
            }
            Event::Power(request) => Some(Cause::from(request)),
            Event::Look(text) => {
                self.look = Some(text);
                None
            }
            Event::Stopped(result) => {
                self.in_guest = self.in_guest.saturating_sub(1);
                if let Ok(VpStop::Breakpoint { vp }) = result {
                    self.debug_stop = Some(DebugStop::Breakpoint(vp));
                }
                Cause::of_stop(result)
            }
        };
        if self.cause.is_none() {
            self.cause = cause;
        }
        Ok(())
    }

    /// Waits until no VP is in the guest and stops the clock. Says whether the guest was running.
    async fn quiesce(&mut self) -> anyhow::Result<bool> {
        self.signals.set_stop(true);
        while self.in_guest > 0 {
            match self.vm.events.recv().await {
                Some(event) => self.note(event)?,
                None => anyhow::bail!("the vp threads are gone"),
            }
        }
        if let Some(timers) = &self.vm.timers {
            timers.set_running(false);
        }
        self.vm.clock.stop();
        let was_running = self.state == State::Running;
        if was_running {
            self.state = State::Paused;
        }
        Ok(was_running)
    }

    fn enter_guest(&mut self) {
        self.vm.power.rearm();
        self.signals.set_stop(false);
        self.vm.clock.start();
        if let Some(timers) = &self.vm.timers {
            timers.set_running(true);
        }
        self.in_guest = self.vm.threads.len();
        self.vm.threads.iter().for_each(VpThread::run);
        self.state = State::Running;
    }

    /// Follows up on why the guest stopped by itself, or lets it run on if it ran. `Some` ends the VM.
    async fn go_on(&mut self, was_running: bool) -> anyhow::Result<Option<Ended>> {
        if let Some(text) = self.look.take() {
            tracing::warn!("{text}\n{}", self.firmware().await?.trim_end());
        }
        let reason = match self.cause.take() {
            Some(Cause::Host(error)) => return Err(error.into()),
            Some(Cause::Guest(reason)) => reason,
            None => {
                if was_running && self.debug_stop.is_none() {
                    self.enter_guest();
                }
                return Ok(None);
            }
        };
        match &reason {
            HaltReason::Crash(how) => {
                tracing::error!("{}", self.crash_report(how).await?);
                if self.debugged {
                    // The debugger looks at it first; going on crashes again.
                    self.debug_stop = Some(DebugStop::Crashed);
                    return Ok(None);
                }
            }
            _ => tracing::info!("{reason}"),
        }
        match action(&reason, &self.vm.on) {
            EndAction::Exit(code) => return Ok(Some(Ended { code, reason })),
            EndAction::Halt => {
                tracing::warn!("{reason}; the vm is halted and stays open to inspection");
                self.state = State::Halted(reason);
            }
            EndAction::Reset => {
                self.reset().await?;
                if was_running {
                    self.enter_guest();
                }
            }
        }
        Ok(None)
    }

    async fn carry_out(&mut self, request: Request) -> anyhow::Result<Option<Ended>> {
        match request {
            Request::Start(call) | Request::Resume(call) => call.answer(self.resume()),
            Request::Pause(call) => {
                let answer = self.may_pause();
                self.quiesce().await?;
                call.answer(answer);
                return self.go_on(false).await;
            }
            Request::Reset(call) => {
                let runs_after = matches!(self.state, State::Running | State::Halted(_));
                self.quiesce().await?;
                self.cause = None;
                self.reset().await?;
                if runs_after {
                    self.enter_guest();
                }
                call.answer(Ok(()));
            }
            Request::Nmi(call) => {
                (self.vm.devices.nmi)();
                call.answer(Ok(()));
            }
            Request::Shutdown(call) => {
                let how = (self.vm.devices.shutdown)();
                call.answer(Ok(how));
            }
            Request::Battery(call) => {
                let told = (self.vm.devices.battery)(call.input);
                call.answer(told.then_some(()).ok_or(VerbError::NoBattery));
            }
            Request::Type(call) => {
                let typed = (self.vm.devices.type_line)(&call.input);
                call.answer(typed.then_some(()).ok_or(VerbError::NoKeyboard));
            }
            Request::Inspect(call) => {
                let state = self.state.clone();
                let was_running = self.quiesce().await?;
                let text = self.inspect(&state).await?;
                call.answer(Ok(text));
                return self.go_on(was_running).await;
            }
            Request::Dump(call) => {
                let was_running = self.quiesce().await?;
                let text = self.dump().await?;
                call.answer(Ok(text));
                return self.go_on(was_running).await;
            }
            Request::ReadMemory(call) => {
                let answer = self.read_memory(call.input);
                call.answer(answer);
            }
            Request::Debugger(request) => self.debugger(request),
            Request::Stop(call) => {
                let code = call.input;
                call.answer(Ok(()));
                return Ok(Some(Ended::stopped(code)));
            }
        }
        Ok(None)
    }

    fn debugger(&mut self, request: DebugRequest) {
        match request {
            DebugRequest::WriteMemory(call) => {
                let (gpa, bytes) = &call.input;
                let answer = self.vm.memory.write(*gpa, bytes).map_err(VerbError::from);
                call.answer(answer);
            }
            DebugRequest::OnVp(call) => {
                let (job, call) = call.take();
                call.answer(self.on_vp(job));
            }
            DebugRequest::Attach(call) => {
                self.debugged = call.input;
                self.debug_stop = None;
                call.answer(Ok(()));
            }
            DebugRequest::TakeStop(call) => {
                let stop = self.debug_stop.take();
                call.answer(Ok(stop));
            }
        }
    }

    /// Hands a job to the thread of its VP; the job answers for itself.
    fn on_vp(&mut self, work: OnVp) -> Result<(), VerbError> {
        if self.state == State::Running {
            return Err(VerbError::Running);
        }
        let thread = self.vm.threads.iter().find(|t| t.vps().contains(&work.vp));
        thread.ok_or(VerbError::NoSuchVp(work.vp))?.with(work.job);
        Ok(())
    }

    fn resume(&mut self) -> Result<(), VerbError> {
        self.debug_stop = None;
        match &self.state {
            State::Running => Err(VerbError::Running),
            State::Halted(reason) => Err(VerbError::Halted(reason.to_string())),
            State::Created | State::Paused => {
                self.enter_guest();
                Ok(())
            }
        }
    }

    fn may_pause(&self) -> Result<(), VerbError> {
        match &self.state {
            State::Running => Ok(()),
            State::Halted(reason) => Err(VerbError::Halted(reason.to_string())),
            State::Created | State::Paused => Err(VerbError::Paused),
        }
    }

    /// Devices, memory and VPs as after a launch. The guest is stopped before and after.
    async fn reset(&mut self) -> anyhow::Result<()> {
        (self.vm.devices.reset)();
        if let Some(watch) = &self.vm.devices.watch {
            watch.reset();
        }
        (self.vm.relaunch)(&mut *self.vm.partition)?;
        for thread in &self.vm.threads {
            thread.reset().await?;
        }
        if self.state != State::Created {
            self.state = State::Paused;
        }
        Ok(())
    }

    fn read_memory(&self, range: MemoryRange) -> Result<Vec<u8>, VerbError> {
        if range.len > MAX_MEMORY_READ {
            return Err(VerbError::TooLong(range.len));
        }
        let mut bytes = vec![0; range.len as usize];
        self.vm.memory.read(range.gpa, &mut bytes)?;
        Ok(bytes)
    }

    async fn inspect(&self, state: &State) -> anyhow::Result<String> {
        let mut text = match state {
            State::Created => "created, not started".to_owned(),
            State::Running => "running".to_owned(),
            State::Paused => "paused".to_owned(),
            State::Halted(reason) => format!("halted: {reason}"),
        };
        let _ = write!(text, "\nclock {:.6} s\n", self.vm.clock.now() as f64 / 1e9);
        for region in self.vm.memory.regions() {
            let _ = writeln!(text, "ram {}", GpaRange::new(region.gpa, region.len));
        }
        for thread in &self.vm.threads {
            for vp in thread.vps() {
                let _ = write!(text, "vp {vp} rip {:#x}", thread.state(vp).await?.rip);
                let retired = thread.retired(vp).await?;
                text += &retired.map_or_else(|| "\n".to_owned(), |count| format!(" instructions {count}\n"));
            }
        }
        text += &(self.vm.devices.inspect)();
        Ok(text)
    }

    async fn done(&self) -> anyhow::Result<Done> {
        let mut done = Done {
            clock: self.vm.clock.now(),
            instructions: Vec::new(),
        };
        for thread in &self.vm.threads {
            for vp in thread.vps() {
                done.instructions.push(thread.retired(vp).await?);
            }
        }
        Ok(done)
    }

    async fn dump(&self) -> anyhow::Result<String> {
        let mut text = String::new();
        for thread in &self.vm.threads {
            for vp in thread.vps() {
                text += &registers::describe(vp, &thread.state(vp).await?, &self.vm.memory);
            }
        }
        Ok(text)
    }

    /// What the firmware is at; empty where there is none.
    async fn firmware(&self) -> anyhow::Result<String> {
        let Some(watch) = &self.vm.devices.watch else {
            return Ok(String::new());
        };
        let mut states = Vec::new();
        for thread in &self.vm.threads {
            for vp in thread.vps() {
                states.push((vp, thread.state(vp).await?));
            }
        }
        Ok(watch.describe(&states))
    }

    async fn crash_report(&self, how: &str) -> anyhow::Result<String> {
        let mut text = format!("the guest has crashed: {how}\n{}", self.dump().await?);
        text += &self.firmware().await?;
        for range in &self.vm.error_ranges {
            text += &error_range(range, &self.vm.memory);
        }
        let log = (self.vm.devices.firmware_log)();
        if !log.is_empty() {
            let _ = write!(text, "the end of the firmware's log:\n{log}");
        }
        Ok(text.trim_end().to_owned())
    }
}

/// What to do about an end. A test exit always ends the process: its code is what the test waits for.
fn action(reason: &HaltReason, on: &EndActions) -> EndAction {
    match reason {
        HaltReason::TestExit(code) => EndAction::Exit(*code),
        HaltReason::Shutdown => on.shutdown,
        HaltReason::Reset => on.reset,
        HaltReason::Crash(_) => on.crash,
        HaltReason::Stopped => EndAction::Exit(0),
    }
}

/// What the guest left in an error range, without the zeros at its end.
fn error_range(range: &GpaRange, memory: &GuestMemory) -> String {
    let mut bytes = vec![0; range.len.min(ERROR_RANGE_SHOWN) as usize];
    if let Err(error) = memory.read(range.gpa, &mut bytes) {
        return format!("error range {range}: {error}\n");
    }
    let used = bytes.iter().rposition(|&b| b != 0).map_or(0, |at| at + 1);
    if used == 0 {
        return format!("error range {range} is empty\n");
    }
    let mut text = format!("error range {range}:\n");
    for (row, chunk) in (0u64..).zip(bytes[..used].chunks(16)) {
        let _ = writeln!(text, "  {:#x}: {}", range.gpa + row * 16, registers::hex(chunk));
    }
    text
}

#[cfg(test)]
mod tests;
