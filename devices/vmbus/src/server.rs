// SPDX-License-Identifier: MIT
//! The bus: connections, offers, and channels from open to close.
//!
//! Always true: nothing is answered before a version was agreed on, except the attempt to agree; every
//! request that has an answer gets one. The order of locks is bus, then `hyperv`.

use crate::channel::{ChannelDevice, OpenChannel};
use crate::gpadl::{Finished, Gpadls};
use crate::protocol::{self, MESSAGE_CONNECTIONS, MESSAGE_KIND, MESSAGE_SINT, Request, Version};
use crate::ring::{RingError, Rings};
use chipset_device::{Clock, Device, LogBudget, TimerClient, TimerHandle, TimerQueue, lock};
use guest_memory::DmaMemory;
use hyperv::{EventPort, HyperV, Message, MessagePort, tlfs::HvStatus};
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

/// Event connections begin here, so that they do not meet those of messages.
const FIRST_EVENT_CONNECTION: u32 = 0x1_0000;
/// Messages to a guest that does not take them, after which its own are refused until it does.
pub const MOST_MESSAGES: usize = 512;
/// Lines of the log that a guest can cause between two resets.
const MOST_LINES: u32 = 100;
/// Status of a request that failed (STATUS_UNSUCCESSFUL).
const FAILED: u32 = 0xC000_0001;

struct Channel {
    device: Box<dyn ChannelDevice>,
    open: Option<OpenChannel>,
    target_vp: u32,
    timer: TimerHandle,
}

#[derive(Debug, Clone, Copy)]
struct Connection {
    version: Version,
    target_vp: u32,
    sint: usize,
}

impl Connection {
    /// What an attempt to agree asks for; `None` for other requests.
    fn wanted(request: &Request) -> Option<Self> {
        let Request::InitiateContact {
            version,
            target_vp,
            sint,
            ..
        } = *request
        else {
            return None;
        };
        let named = version >= Version::V5_0 && sint != 0;
        Some(Self {
            version,
            target_vp,
            sint: usize::from(if named { sint } else { MESSAGE_SINT }),
        })
    }
}

struct State {
    channels: Vec<Channel>,
    connection: Option<Connection>,
    gpadls: Gpadls,
}

/// The bus of one partition.
pub struct VmBus {
    hv: Arc<HyperV>,
    memory: DmaMemory,
    clock: Arc<Clock>,
    log: Arc<LogBudget>,
    state: Mutex<State>,
}

struct Contact(Weak<VmBus>, u32);
struct Event(Weak<VmBus>, usize);

impl VmBus {
    /// A bus with `devices`, offered in this order.
    pub fn new(
        hv: Arc<HyperV>,
        memory: DmaMemory,
        (clock, timers): (Arc<Clock>, &Arc<TimerQueue>),
        devices: Vec<Box<dyn ChannelDevice>>,
    ) -> Arc<Self> {
        let channels: Vec<_> = (0..)
            .zip(devices)
            .map(|(index, device)| Channel {
                device,
                open: None,
                target_vp: 0,
                timer: timers.timer(index),
            })
            .collect();
        let handles: Vec<_> = channels.iter().map(|channel| channel.timer.clone()).collect();
        let bus = Arc::new(Self {
            hv,
            memory,
            clock,
            log: Arc::new(LogBudget::new(MOST_LINES)),
            state: Mutex::new(State {
                channels,
                connection: None,
                gpadls: Gpadls::default(),
            }),
        });
        let client: Weak<dyn TimerClient> = Arc::downgrade(&(bus.clone() as Arc<dyn TimerClient>));
        handles.iter().for_each(|handle| handle.connect(client.clone()));
        for connection in MESSAGE_CONNECTIONS {
            let port = Contact(Arc::downgrade(&bus), connection);
            bus.hv.connect_messages(connection, Some(Arc::new(port)));
        }
        for index in 0..bus.lock().channels.len() {
            let port = Event(Arc::downgrade(&bus), index);
            bus.hv
                .connect_events(event_connection(index), Some(Arc::new(port)));
        }
        bus
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn post(&self, connection: Connection, bytes: Vec<u8>) {
        if let Some(message) = Message::new(MESSAGE_KIND, bytes) {
            self.hv
                .post_message(connection.target_vp, connection.sint, message);
        }
    }

    fn handle(&self, port: u32, bytes: &[u8]) -> HvStatus {
        let mut state = self.lock();
        let request = match Request::parse(bytes) {
            Ok(request) => request,
            Err(error) => {
                self.warn(|| format!("vmbus: {error}"));
                return HvStatus::InvalidParameter;
            }
        };
        let answered = Connection::wanted(&request).or(state.connection);
        let Connection { target_vp, sint, .. } = answered.unwrap_or(UNCONNECTED);
        if self.hv.messages_waiting(target_vp, sint) > MOST_MESSAGES {
            return HvStatus::InsufficientBuffers;
        }
        self.answer(&mut state, port, request);
        HvStatus::Success
    }

    fn warn(&self, text: impl FnOnce() -> String) {
        if let Some(line) = self.log.line(text) {
            tracing::warn!("{line}");
        }
    }

    fn answer(&self, state: &mut State, port: u32, request: Request) {
        if let Some(connection) = Connection::wanted(&request) {
            return self.contact(state, port, connection, &request);
        }
        let Some(connection) = state.connection else {
            if request == Request::Unload {
                self.post(UNCONNECTED, protocol::unload_complete());
            }
            return;
        };
        match request {
            Request::InitiateContact { .. } => {}
            Request::RequestOffers => {
                for (index, channel) in state.channels.iter().enumerate() {
                    let offer = channel.device.offer();
                    let bytes = protocol::offer(&offer, relid(index), event_connection(index));
                    self.post(connection, bytes);
                }
                self.post(connection, protocol::all_offers_delivered());
            }
            Request::Open {
                channel,
                open_id,
                gpadl,
                target_vp,
                downstream_page,
            } => {
                let opened = self.open(state, (channel, target_vp), (gpadl, downstream_page));
                let status = if opened { 0 } else { FAILED };
                self.post(connection, protocol::open_result(channel, open_id, status));
                if opened {
                    self.with_open(state, index_of(channel), |device, open| {
                        device.opened(open)?;
                        open.work(device)
                    });
                    self.arm(state, index_of(channel));
                }
            }
            Request::Close { channel } => close(state.channels.get_mut(index_of(channel))),
            Request::GpadlHeader {
                channel,
                gpadl,
                ranges,
                words,
                first,
            } => {
                let ended = state
                    .gpadls
                    .begin((channel, gpadl), (ranges, words), first, &self.memory);
                self.gpadl_ended(state, connection, gpadl, ended);
            }
            Request::GpadlBody { gpadl, more } => {
                let ended = state.gpadls.go_on(gpadl, &more, &self.memory);
                self.gpadl_ended(state, connection, gpadl, ended);
            }
            Request::GpadlTeardown { channel, gpadl } => {
                state.gpadls.remove(channel, gpadl);
                if let Some(open) = state
                    .channels
                    .get_mut(index_of(channel))
                    .and_then(|c| c.open.as_mut())
                {
                    open.remove_list(gpadl);
                }
                self.post(connection, protocol::gpadl_torndown(gpadl));
            }
            Request::ModifyChannel { channel, target_vp } => {
                let found = state.channels.get_mut(index_of(channel));
                let status = if found.is_some() { 0 } else { FAILED };
                if let Some(found) = found {
                    found.target_vp = target_vp;
                }
                if connection.version >= Version::V5_3 {
                    self.post(connection, protocol::modify_channel_response(channel, status));
                }
            }
            Request::Unload => {
                disconnect(state);
                self.post(connection, protocol::unload_complete());
            }
            // Nothing is ever taken back, and there are no sockets.
            Request::RelidReleased { .. } | Request::TlConnect => {}
        }
    }

    fn contact(&self, state: &mut State, port: u32, connection: Connection, request: &Request) {
        disconnect(state);
        let version = connection.version;
        let elsewhere = matches!(request, Request::InitiateContact { vtl, .. } if *vtl != 0);
        let accepted = version.is_supported() && (version < Version::V5_0 || !elsewhere);
        tracing::debug!(%version, accepted, "vmbus: contact");
        if accepted {
            state.connection = Some(connection);
        }
        self.post(connection, protocol::version_response(version, accepted, port));
    }

    fn gpadl_ended(&self, state: &mut State, connection: Connection, gpadl: u32, ended: Option<Finished>) {
        let Some((channel, outcome)) = ended else { return };
        if let Err(error) = &outcome {
            self.warn(|| format!("vmbus: channel {channel}: {error}"));
        }
        let status = if outcome.is_ok() { 0 } else { FAILED };
        let pages = state.gpadls.get(channel, gpadl).cloned();
        if let (Some(pages), Some(open)) = (
            pages,
            state
                .channels
                .get_mut(index_of(channel))
                .and_then(|c| c.open.as_mut()),
        ) {
            open.add_list(gpadl, pages);
        }
        self.post(connection, protocol::gpadl_created(channel, gpadl, status));
    }

    fn open(
        &self,
        state: &mut State,
        (number, target_vp): (u32, u32),
        (gpadl, downstream): (u32, u32),
    ) -> bool {
        let Some(channel) = state
            .channels
            .get_mut(index_of(number))
            .filter(|c| c.open.is_none())
        else {
            return false;
        };
        let rings = state
            .gpadls
            .get(number, gpadl)
            .and_then(|pages| Rings::new(self.memory.clone(), pages, downstream));
        let Some(rings) = rings else { return false };
        channel.open = Some(OpenChannel::new(rings, self.log.clone()));
        channel.target_vp = target_vp;
        true
    }

    /// Lets a channel's device work; the timer goes on with what it has left.
    fn run(&self, state: &mut State, index: usize) {
        self.with_open(state, index, |device, open| open.work(device));
        if is_unfinished(state, index) {
            self.arm(state, index);
        }
    }

    /// Lets the device of channel `index`, counted from 0, look at what it waits for on the host.
    pub fn poll(&self, index: usize) {
        self.with_open(&mut self.lock(), index, |device, open| device.poll(open));
    }

    /// Asks the guest to power off through its shutdown component; `false` when it has none that is ready.
    pub fn request_shutdown(&self) -> bool {
        let mut state = self.lock();
        (0..state.channels.len()).any(|index| {
            self.with_open(&mut state, index, |device, open| device.request_shutdown(open))
                .unwrap_or(false)
        })
    }

    /// Runs `act` on an open channel, tells the guest what that sent, and closes a channel that it broke.
    fn with_open<R>(
        &self,
        state: &mut State,
        index: usize,
        act: impl FnOnce(&mut dyn ChannelDevice, &mut OpenChannel) -> Result<R, RingError>,
    ) -> Option<R> {
        let connection = state.connection?;
        let channel = state.channels.get_mut(index)?;
        let open = channel.open.as_mut()?;
        let outcome = act(&mut *channel.device, open);
        if open.take_signal() {
            self.hv
                .signal_event(channel.target_vp, connection.sint, relid(index) as u16);
        }
        if let Err(error) = &outcome {
            self.warn(|| format!("vmbus: channel {} is closed: {error}", relid(index)));
            close(Some(channel));
        }
        outcome.ok()
    }

    /// Sets the timer of a device that wants one, or that has something left to do.
    fn arm(&self, state: &State, index: usize) {
        let Some(channel) = state.channels.get(index) else {
            return;
        };
        let after = match &channel.open {
            Some(open) if open.unfinished() => Some(0),
            Some(_) => channel.device.period(),
            None => None,
        };
        if let Some(after) = after {
            channel.timer.arm(self.clock.now() + after);
        }
    }

    fn signalled(&self, index: usize) {
        self.run(&mut self.lock(), index);
    }
}

/// Where an Unload without a connection is answered.
const UNCONNECTED: Connection = Connection {
    version: Version::V3_0,
    target_vp: 0,
    sint: MESSAGE_SINT as usize,
};

/// The guest's number of a channel.
fn relid(index: usize) -> u32 {
    index as u32 + 1
}

fn index_of(relid: u32) -> usize {
    relid.wrapping_sub(1) as usize
}

fn event_connection(index: usize) -> u32 {
    FIRST_EVENT_CONNECTION + relid(index)
}

fn is_unfinished(state: &State, index: usize) -> bool {
    let channel = state.channels.get(index);
    channel.is_some_and(|channel| channel.open.as_ref().is_some_and(OpenChannel::unfinished))
}

fn close(channel: Option<&mut Channel>) {
    if let Some(channel) = channel
        && channel.open.take().is_some()
    {
        channel.timer.disarm();
        channel.device.closed();
    }
}

fn disconnect(state: &mut State) {
    state.channels.iter_mut().for_each(|channel| close(Some(channel)));
    state.gpadls.clear();
    state.connection = None;
}

impl TimerClient for VmBus {
    fn timer_fired(&self, id: u32, now: u64) {
        let (mut state, index) = (self.lock(), id as usize);
        let wall = self.clock.wall();
        self.with_open(&mut state, index, |device, open| {
            if open.unfinished() {
                open.work(device)
            } else {
                device.tick(open, now, wall)
            }
        });
        self.arm(&state, index);
    }
}

impl MessagePort for Contact {
    fn post(&self, kind: u32, payload: &[u8]) -> HvStatus {
        match self.0.upgrade() {
            Some(bus) if kind == MESSAGE_KIND => bus.handle(self.1, payload),
            Some(_) => HvStatus::InvalidParameter,
            None => HvStatus::InvalidConnectionId,
        }
    }
}

impl EventPort for Event {
    fn signal(&self, _flag: u16) -> HvStatus {
        match self.0.upgrade() {
            Some(bus) => {
                bus.signalled(self.1);
                HvStatus::Success
            }
            None => HvStatus::InvalidConnectionId,
        }
    }
}

/// The bus for reset and inspect.
pub struct BusPart(pub Arc<VmBus>);

impl Device for BusPart {
    fn reset(&mut self) {
        let mut state = self.0.lock();
        disconnect(&mut state);
        for channel in &mut state.channels {
            channel.device.reset();
        }
        self.0.log.refill();
    }

    fn inspect(&self) -> String {
        let state = self.0.lock();
        let mut out = match state.connection {
            Some(c) => format!("version {} vp {} sint {}\n", c.version, c.target_vp, c.sint),
            None => "not connected\n".to_owned(),
        };
        for (index, channel) in state.channels.iter().enumerate() {
            let open = if channel.open.is_some() { "open" } else { "closed" };
            let interface = channel.device.offer().interface;
            let _ = writeln!(
                out,
                "{} {interface} {open} {}",
                relid(index),
                channel.device.inspect()
            );
        }
        out
    }
}
