// SPDX-License-Identifier: MIT
//! One VM from its configuration to its end.
//!
//! Always true: [`run_vm`] is the outline of everything; it runs on a thread of its own, which owns the
//! mapped files, the partition and the devices. Not here: the process around it.

mod isolated;

pub use isolated::{IsolatedOptions, launch_isolated};

use crate::dispatch::{self, Relaunch, Vm};
use crate::ending::Ended;
use crate::entropy::EntropySource;
use crate::firmware_watch::{self, FirmwareWatch, WatchWorld};
use crate::host_values::{self, HostFacts};
use crate::hyperv_machine;
use crate::launch;
use crate::layout::{self, HostLimits};
use crate::load::{self, Files, Loaded, Notes, Payload};
use crate::machine::{self, Machine, MachineSource};
use crate::power::PowerPort;
use crate::report::{self, Report, Timings};
use crate::rpc::Requests;
use crate::serial::SerialEnds;
use crate::timer_thread::TimerThread;
use crate::trace::{Trace, TraceOptions};
use crate::vmbus_devices;
use crate::vp_thread::{Event, VpThread};
use anyhow::Context;
use chipset::machine::World;
use chipset_device::VpBus;
use guest_memory::GuestMemory;
use launch_plan::BoundPlan;
use openvmm_defs::{Config, GpaRange, MemoryLayout};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use virt::{Clock, Hypervisor, Partition, PartitionConfig, TimerQueue};

/// What a VM is made from.
pub struct VmOptions {
    /// The VM.
    pub config: Config,
    /// What runs it.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// The outer ends of its serial ports and consoles.
    pub serial: SerialEnds,
    /// Random bytes.
    pub entropy: EntropySource,
    /// Where to write what the loader did.
    pub report: Option<PathBuf>,
    /// What to trace.
    pub trace: Option<TraceOptions>,
}

/// A VM on its thread.
#[derive(Debug)]
pub struct Worker {
    thread: std::thread::JoinHandle<anyhow::Result<Ended>>,
}

impl Worker {
    /// Waits for the end.
    pub fn join(self) -> anyhow::Result<Ended> {
        match self.thread.join() {
            Ok(ended) => ended,
            Err(_) => anyhow::bail!("the worker died; this is a bug in openvmm, see the message above"),
        }
    }
}

/// Builds and launches a VM on a thread of its own. It runs when a client says so.
pub fn spawn(options: VmOptions, requests: Requests) -> std::io::Result<Worker> {
    let thread = std::thread::Builder::new()
        .name("vm".into())
        .spawn(move || run_vm(options, requests))?;
    Ok(Worker { thread })
}

/// What `--dry-run` prints: the decisions and the bound plan. Nothing is started.
pub fn dry_run(
    mut config: Config,
    limits: HostLimits,
    entropy: EntropySource,
    report: Option<&Path>,
) -> anyhow::Result<String> {
    let mut notes = Notes::quiet();
    let mut timings = Timings::start();
    let files = Files::open(&config.load)?;
    let mut launcher = Launcher::plan(&mut config, &files, limits, entropy, &mut notes)?;
    timings.stage("plan");
    let mut text = String::new();
    launcher.bind(notes.lines(), |_, seen| {
        timings.stage("bind");
        text = seen.text();
        write_report(report, &seen.json(&timings))
    })?;
    Ok(text)
}

fn run_vm(options: VmOptions, requests: Requests) -> anyhow::Result<Ended> {
    let VmOptions {
        mut config,
        hypervisor,
        serial,
        entropy,
        report,
        trace,
    } = options;
    let mut notes = Notes::logged();
    let mut timings = Timings::start();
    let files = Files::open(&config.load)?;
    let limits = hypervisor.capabilities().into();
    let mut launcher = Launcher::plan(&mut config, &files, limits, entropy, &mut notes)?;
    timings.stage("plan");
    let (config, layout, loaded) = (launcher.config, &launcher.layout, &launcher.loaded);
    let frame_buffer = vmbus_devices::frame_buffer(config, layout);
    let memory = allocate(layout, &[&loaded.extra_ram[..], frame_buffer.as_slice()].concat())?;
    let mut parts = Parts::build(
        MachineSource {
            config,
            layout,
            files: &files,
            uefi: match &launcher.payload {
                Payload::Uefi(settings) => Some(settings),
                Payload::Parameters => None,
            },
            variables: loaded.variables.as_ref(),
            memory: memory.clone(),
            serial,
        },
        &*hypervisor,
    )?;
    timings.stage("partition");
    let error_ranges = loaded.error_ranges.clone();
    let mut launched = serde_json::Value::Null;
    launcher.launch(&mut *parts.partition, notes.lines(), |seen| {
        seen.bound
            .notes()
            .iter()
            .for_each(|note| tracing::info!("{note}"));
        timings.stage("launch");
        launched = seen.json(&timings);
        write_report(report.as_deref(), &launched)
    })?;
    let kept: Vec<_> = error_ranges.iter().map(|r| (r.gpa, r.len)).collect();
    let relaunch = {
        let memory = memory.clone();
        Box::new(move |partition: &mut dyn Partition| {
            memory.zero_except(&kept)?;
            launcher.launch(partition, &[], |_| Ok(()))
        })
    };
    let trace = trace.map(Trace::create).transpose()?;
    let vm = parts.into_vm(config, memory, error_ranges, relaunch, trace.as_ref())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .context("cannot make the worker's runtime")?;
    runtime.block_on(dispatch::run(vm, requests, |ended, done| {
        launched["end"] = report::end_json(ended, &done);
        write_report(report.as_deref(), &launched)
    }))
}

/// RAM of the layout, and what pages and pictures outside it need.
fn allocate(layout: &MemoryLayout, extra: &[GpaRange]) -> anyhow::Result<GuestMemory> {
    let ranges: Vec<_> = layout.ram.iter().chain(extra).map(|r| (r.gpa, r.len)).collect();
    Ok(GuestMemory::allocate(&ranges)?)
}

/// Everything that a launch needs, the first time and at each reset.
struct Launcher<'v> {
    config: &'v Config,
    files: &'v Files,
    layout: MemoryLayout,
    payload: Payload,
    loaded: Loaded<'v>,
    entropy: EntropySource,
}

impl<'v> Launcher<'v> {
    /// Decides what the files are, lays out the machine for it, and plans the launch. The configuration
    /// becomes the one of that machine.
    fn plan(
        config: &'v mut Config,
        files: &'v Files,
        limits: HostLimits,
        entropy: EntropySource,
        notes: &mut Notes,
    ) -> anyhow::Result<Self> {
        let decision = load::decide(config, files, notes)?;
        config.decide(decision.machine);
        let layout = layout::resolve(config, decision.machine, limits)?;
        let payload = decision.payload.clone();
        let loaded = load::plan(config, files, decision, &layout, notes)?;
        Ok(Self {
            config,
            files,
            layout,
            payload,
            loaded,
            entropy,
        })
    }

    /// Collects the host's values, binds the plan and gives both to `then`.
    fn bind(
        &mut self,
        notes: &[String],
        then: impl FnOnce(&BoundPlan<'_>, &Report<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let facts = HostFacts {
            config: self.config,
            layout: &self.layout,
            payload: &self.payload,
            loaded: &self.loaded,
        };
        let host = host_values::collect(&facts, &mut self.entropy)?;
        let bound = self.loaded.plan.bind(&host)?;
        let report = Report {
            layout: &self.layout,
            loaded: &self.loaded,
            notes,
            host: &host,
            bound: &bound,
        };
        then(&bound, &report)
    }

    /// Launches into zeroed memory. The files are checked before and after, because a mapped file may
    /// change while it is read.
    fn launch(
        &mut self,
        partition: &mut dyn Partition,
        notes: &[String],
        then: impl FnOnce(&Report<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let files = self.files;
        files.verify_unchanged()?;
        self.bind(notes, |bound, report| {
            let applied = launch::apply(bound, partition.launch_target());
            files.verify_unchanged()?;
            applied?;
            then(report)
        })
    }
}

fn write_report(path: Option<&Path>, report: &serde_json::Value) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(report)?;
    std::fs::write(path, text + "\n").with_context(|| format!("--report {}", path.display()))
}

/// A partition and its devices, before the launch.
struct Parts {
    partition: Box<dyn Partition>,
    machine: Machine,
    /// Where there is firmware to watch.
    watch: Option<Arc<FirmwareWatch>>,
    clock: Arc<Clock>,
    timers: Arc<TimerQueue>,
    power: Arc<PowerPort>,
    events: UnboundedReceiver<Event>,
    events_in: UnboundedSender<Event>,
}

impl Parts {
    fn build(source: MachineSource<'_>, hypervisor: &dyn Hypervisor) -> anyhow::Result<Self> {
        let clock = Arc::new(if source.config.deterministic.is_some() {
            Clock::deterministic()
        } else {
            Clock::host()
        });
        let timers = TimerQueue::new();
        let capabilities = hypervisor.capabilities();
        let hyperv = hyperv_machine::config(source.layout, capabilities);
        let partition = hypervisor.new_partition(PartitionConfig {
            vp_count: source.layout.vp_count,
            memory: source.memory.clone(),
            cpuid: hyperv_machine::leaves(hyperv),
            clock: clock.clone(),
            timers: timers.clone(),
        })?;
        let (events_in, events) = tokio::sync::mpsc::unbounded_channel();
        let signals = partition.signals();
        let power = PowerPort::new(signals.clone(), events_in.clone());
        let world = World {
            clock: clock.clone(),
            timers: timers.clone(),
            wake: signals,
            power: power.clone(),
        };
        let firmware = source.uefi.is_some();
        let (memory, disks) = (source.memory.clone(), firmware_watch::disks(source.config));
        let ram = source.layout.ram_size();
        let machine = machine::build(source, capabilities, world)?;
        let watch = firmware.then(|| {
            firmware_watch::little_memory(ram).inspect(|text| tracing::warn!("{text}"));
            FirmwareWatch::new(WatchWorld {
                bus: machine.chipset.clone(),
                memory,
                clock: clock.clone(),
                timer: timers.timer(0),
                events: events_in.clone(),
                disks,
                untaken: Box::new(machine.untaken()),
            })
        });
        Ok(Self {
            partition,
            machine,
            watch,
            clock,
            timers,
            power,
            events,
            events_in,
        })
    }

    /// Gives each runner its thread and lets serial input flow.
    fn into_vm<'l>(
        mut self,
        config: &Config,
        memory: GuestMemory,
        error_ranges: Vec<GpaRange>,
        relaunch: Relaunch<'l>,
        trace: Option<&Trace>,
    ) -> anyhow::Result<Vm<'l>> {
        let bus: Arc<dyn VpBus> = match &self.watch {
            Some(watch) => watch.clone(),
            None => self.machine.chipset.clone(),
        };
        let mut runners = self.partition.runners(bus)?;
        if let Some(trace) = trace {
            runners
                .iter_mut()
                .try_for_each(|runner| trace.attach(&mut **runner))?;
        }
        let threads = runners
            .into_iter()
            .map(|runner| VpThread::spawn(runner, self.events_in.clone()))
            .collect::<Result<_, _>>()
            .context("cannot start a vp thread")?;
        let timers = if self.clock.is_deterministic() {
            None
        } else {
            Some(
                TimerThread::spawn(self.clock.clone(), self.timers)
                    .context("cannot start the timer thread")?,
            )
        };
        self.machine.connect_serial();
        Ok(Vm {
            partition: self.partition,
            threads,
            devices: self.machine.devices(self.watch),
            memory,
            clock: self.clock,
            timers,
            events: self.events,
            power: self.power,
            on: config.on,
            error_ranges,
            relaunch,
        })
    }
}

#[cfg(test)]
mod tests;
