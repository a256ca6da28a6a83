// SPDX-License-Identifier: MIT
//! Watches what a UEFI firmware does, so that the log says why when it goes no further (msvm-machine section 14).
//!
//! Always true: the guest sees no difference; each kind of trouble is told once for each start; once boot services
//! have ended nothing is watched. What the firmware touched last is kept for reports about crashes. Not here: the
//! devices' own complaints.

mod modules;
mod verdict;

#[cfg(test)]
mod tests;

pub(crate) use verdict::little_memory;

use crate::vp_thread::Event;
use chipset_device::{Clock, TimerClient, TimerHandle, VpBus, VpEvents, VpIndex, lock};
use guest_memory::GuestMemory;
use hyperv::Untaken;
use modules::Modules;
use openvmm_defs::{Config, DiskConfig, PciDeviceKind};
use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use tokio::sync::mpsc::UnboundedSender;
use verdict::Access;
use x86defs::X86State;

/// Accesses that reports show.
const KEPT: usize = 16;
const SECOND: u64 = 1_000_000_000;
/// How often is looked, how many times, and how long something must go on, in seconds of the partition's clock.
const EVERY: u64 = 2;
const MOST_LOOKS: u32 = 90;
const TOO_LONG: u64 = 10;
/// After the firmware has said that it could not boot.
const AFTER_FAILURE: u64 = 3;
/// Accesses of a spin, and variable commands of an endless loop.
const SPIN: u64 = 1000;
const ENDLESS_NAMES: u64 = 20_000;
const ENDLESS_FAILURES: u64 = 1000;

/// Microsoft's firmware image (msvm-machine section 1).
const IMAGE: (u64, usize) = (0x10_0000, 0x60_0000);

/// The UEFI device's ports and indexes that mean something here (msvm-machine section 4).
const INDEX: u16 = 0x28;
const DATA: u16 = 0x2C;
const NVRAM: u32 = 0x24;
/// What it tried to boot, handed over once there is nothing left to try, or once an operating system runs. (It asks for a
/// look at its log, index 0x2C, before each start of a loader too.)
const EVENT_LOG: u32 = 0x30;
/// Sleep control: type 0 with its enable bit powers off.
const PM1A_CONTROL: u16 = 0x404;
const SLEEP: u32 = 1 << 13;
/// Variable commands.
mod command {
    pub(super) const FIRST_NAME: u32 = 2;
    pub(super) const NEXT_NAME: u32 = 3;
    pub(super) const RUNTIME: u32 = 5;
    pub(super) const DEBUG: u32 = 6;
}
/// EFI_BUFFER_TOO_SMALL and EFI_NOT_FOUND are ordinary answers.
const ORDINARY: [u64; 3] = [0, 5, 14];

/// A run of accesses that differ in their values only.
struct Run {
    access: Access,
    value: u64,
    same: bool,
    count: u64,
    since: u64,
}

#[derive(Default)]
struct State {
    last: VecDeque<Run>,
    /// When a port or register, and when memory of a device, was touched last.
    active: Option<u64>,
    ticked: Option<u64>,
    started: u64,
    index: u32,
    names: u64,
    failure: (u32, u64, u64),
    /// When the firmware said that it could not go on.
    failed: Option<u64>,
    runtime: bool,
    looks: u32,
    told: Vec<Trouble>,
}

/// The disks that the guest has, for people.
pub(crate) fn disks(config: &Config) -> Vec<String> {
    let name = |bus: &str, disk: &DiskConfig| format!("{} ({bus})", disk.path.display());
    let scsi = config.vmbus.iter().flat_map(|vmbus| &vmbus.scsi);
    let mut names: Vec<String> = scsi.map(|disk| name("scsi", disk)).collect();
    for device in &config.pci.devices {
        match &device.kind {
            PciDeviceKind::VirtioBlk(disk) => names.push(name("virtio-blk", disk)),
            PciDeviceKind::Nvme(disks) => names.extend(disks.iter().map(|disk| name("nvme", disk))),
            _ => {}
        }
    }
    names
}

/// What is told once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Spin,
    Silent,
    Messages,
    Names,
    Failure,
    NoBoot,
}

/// What the watch needs.
pub(crate) struct WatchWorld {
    /// The machine.
    pub(crate) bus: Arc<dyn VpBus>,
    /// Guest memory.
    pub(crate) memory: GuestMemory,
    /// The partition's clock.
    pub(crate) clock: Arc<Clock>,
    /// Wakes the watch.
    pub(crate) timer: TimerHandle,
    /// Takes what is told.
    pub(crate) events: UnboundedSender<Event>,
    /// The disks that the guest can see, for people.
    pub(crate) disks: Vec<String>,
    /// The message of the host that the guest has not taken for longest.
    pub(crate) untaken: Box<dyn Fn() -> Option<Untaken> + Send + Sync>,
}

/// The machine, watched.
pub(crate) struct FirmwareWatch {
    world: WatchWorld,
    state: Mutex<State>,
}

impl FirmwareWatch {
    /// Watches `world.bus`.
    pub(crate) fn new(world: WatchWorld) -> Arc<Self> {
        let timer = world.timer.clone();
        let watch = Arc::new(Self {
            world,
            state: Mutex::default(),
        });
        timer.connect(Arc::downgrade(&watch) as Weak<dyn TimerClient>);
        watch.reset();
        watch
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The machine starts anew.
    pub(crate) fn reset(&self) {
        let now = self.world.clock.now();
        *self.lock() = State {
            started: now,
            ..State::default()
        };
        self.world.timer.arm(now + EVERY * SECOND);
    }

    /// Where VPs are, how the firmware stopped itself if it did, and what it touched last.
    pub(crate) fn describe(&self, vps: &[(VpIndex, X86State)]) -> String {
        let mut image = vec![0; IMAGE.1];
        let modules = match self.world.memory.read(IMAGE.0, &mut image) {
            Ok(()) => Modules::read(&image, IMAGE.0),
            Err(_) => Modules::default(),
        };
        let mut text = String::new();
        for (vp, state) in vps {
            if let Some(how) = verdict::fail_fast(state) {
                let _ = writeln!(text, "vp {vp}: {how}");
            }
            if let Some(place) = modules.locate(&self.world.memory, state.rip) {
                let _ = writeln!(text, "vp {vp} is at {place}");
            }
        }
        let state = self.lock();
        if !state.last.is_empty() {
            text += "last accesses:\n";
        }
        for run in &state.last {
            let times = if run.count == 1 {
                String::new()
            } else {
                format!(", {} times", run.count)
            };
            let _ = writeln!(text, "  {} {:#x}{times}", run.access, run.value);
        }
        text
    }

    fn note(&self, access: Access, value: u64) {
        let now = self.world.clock.now();
        let mut state = self.lock();
        state.active = Some(now);
        if let Some(run) = state.last.back_mut()
            && run.access == access
        {
            run.count += 1;
            run.same &= run.value == value;
            run.value = value;
            return;
        }
        if state.last.len() == KEPT {
            state.last.pop_front();
        }
        state.last.push_back(Run {
            access,
            value,
            same: true,
            count: 1,
            since: now,
        });
    }

    fn tell(&self, state: &mut State, trouble: Trouble, text: String) {
        if !state.told.contains(&trouble) {
            state.told.push(trouble);
            // A worker that is gone asks for nothing any more.
            let _ = self.world.events.send(Event::Look(text));
        }
    }

    /// A variable command has been carried out: `command` and `status` are its descriptor's.
    fn variable_command(&self, command: u32, status: u64) {
        let mut state = self.lock();
        match command {
            command::DEBUG => return,
            command::RUNTIME => state.runtime = true,
            command::FIRST_NAME | command::NEXT_NAME => state.names += 1,
            _ => state.names = 0,
        }
        if state.names == ENDLESS_NAMES {
            let text = verdict::names_without_end(state.names);
            self.tell(&mut state, Trouble::Names, text);
        }
        let (last, last_status, count) = state.failure;
        let again = (last, last_status) == (command, status) && !ORDINARY.contains(&status);
        state.failure = (command, status, if again { count + 1 } else { 1 });
        if state.failure.2 == ENDLESS_FAILURES {
            let text = verdict::same_failure(command, status, ENDLESS_FAILURES);
            self.tell(&mut state, Trouble::Failure, text);
        }
    }

    fn write_data(&self, vp: VpIndex, data: &[u8], value: u32) {
        let index = self.lock().index;
        let descriptor = u64::from(value);
        let mut head = [0; 12];
        let read = |head: &mut [u8; 12]| self.world.memory.read(descriptor, head).is_ok();
        let command = (index == NVRAM && read(&mut head)).then(|| [head[0], head[1], head[2], head[3]]);
        self.world.bus.port_write(vp, DATA, data);
        if let Some(command) = command
            && read(&mut head)
        {
            let status = [4, 5, 6, 7, 8, 9, 10, 11].map(|at| head[at]);
            self.variable_command(u32::from_le_bytes(command), u64::from_le_bytes(status));
        }
        if index == EVENT_LOG {
            let now = self.world.clock.now();
            let mut state = self.lock();
            if !state.runtime {
                state.failed.get_or_insert(now);
            }
        }
    }

    fn check(&self, now: u64) {
        let untaken = (self.world.untaken)();
        let mut state = self.lock();
        if let Some(held) = &untaken
            && now >= held.since + TOO_LONG * SECOND
        {
            let text = verdict::untaken(held, (now - held.since) / SECOND);
            self.tell(&mut state, Trouble::Messages, text);
        }
        if !state.runtime && state.failed.is_some_and(|at| now >= at + AFTER_FAILURE * SECOND) {
            let text = verdict::nothing_booted(&self.world.disks);
            self.tell(&mut state, Trouble::NoBoot, text);
        }
        let quiet = |at: Option<u64>| now - at.unwrap_or(state.started).min(now);
        let (silent, unticked) = (quiet(state.active), quiet(state.ticked));
        // With a message that waits, that is why.
        if silent >= TOO_LONG * SECOND && state.failed.is_none() && untaken.is_none() {
            let ticks = unticked < EVERY * SECOND;
            let text = verdict::silent(silent / SECOND, state.active.is_some(), ticks);
            self.tell(&mut state, Trouble::Silent, text);
        }
        if let Some(run) = state.last.back()
            && run.count >= SPIN
            && now >= run.since + TOO_LONG * SECOND
            && silent < EVERY * SECOND
        {
            let seconds = (now - run.since) / SECOND;
            let text = verdict::spin(run.access, run.value, run.same, seconds);
            self.tell(&mut state, Trouble::Spin, text);
        }
        state.looks += 1;
        if !state.runtime && state.looks < MOST_LOOKS {
            self.world.timer.arm(now + EVERY * SECOND);
        }
    }

    /// The firmware powers off instead of showing its front page.
    fn powers_off(&self) {
        let mut state = self.lock();
        if state.failed.is_some() && !state.runtime {
            let text = verdict::nothing_booted(&self.world.disks);
            self.tell(&mut state, Trouble::NoBoot, text);
        }
    }
}

impl TimerClient for FirmwareWatch {
    fn timer_fired(&self, _id: u32, now: u64) {
        self.check(now);
    }
}

fn number(data: &[u8]) -> u64 {
    data.iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

impl VpBus for FirmwareWatch {
    fn port_read(&self, vp: VpIndex, port: u16, data: &mut [u8]) {
        self.world.bus.port_read(vp, port, data);
        self.note(Access::In(port), number(data));
    }

    fn port_write(&self, vp: VpIndex, port: u16, data: &[u8]) {
        let value = number(data) as u32;
        self.note(Access::Out(port), value.into());
        match (port, data.len()) {
            (INDEX, 4) => self.lock().index = value,
            (DATA, 4) => return self.write_data(vp, data, value),
            (PM1A_CONTROL, _) if value & SLEEP != 0 => self.powers_off(),
            _ => {}
        }
        self.world.bus.port_write(vp, port, data);
    }

    fn mmio_read(&self, vp: VpIndex, gpa: u64, data: &mut [u8]) {
        self.world.bus.mmio_read(vp, gpa, data);
    }

    fn mmio_write(&self, vp: VpIndex, gpa: u64, data: &[u8]) {
        self.lock().ticked = Some(self.world.clock.now());
        self.world.bus.mmio_write(vp, gpa, data);
    }

    fn msr_read(&self, vp: VpIndex, msr: u32) -> Option<u64> {
        let value = self.world.bus.msr_read(vp, msr);
        self.note(Access::Read(msr), value.unwrap_or(0));
        value
    }

    fn msr_write(&self, vp: VpIndex, msr: u32, value: u64) -> bool {
        self.note(Access::Write(msr), value);
        self.world.bus.msr_write(vp, msr, value)
    }

    fn poll(&self, vp: VpIndex) -> VpEvents {
        self.world.bus.poll(vp)
    }

    fn acknowledge(&self, vp: VpIndex) -> Option<u8> {
        self.world.bus.acknowledge(vp)
    }

    fn cr8(&self, vp: VpIndex) -> u8 {
        self.world.bus.cr8(vp)
    }

    fn set_cr8(&self, vp: VpIndex, value: u8) {
        self.world.bus.set_cr8(vp, value);
    }
}
