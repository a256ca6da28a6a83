// SPDX-License-Identifier: MIT
//! The guest that is fuzzed with, the host around it, and what they do.
//!
//! Not here: what is said on a channel (`packets`), what must hold (`hyperv_fuzz`).

use crate::packets::{self, COMPLETION, INBAND, Packet, TRANSFER_PAGES, number};
use block::Disk;
use chipset_device::{
    Clock, Device, MsrHandler, PowerRequest, PowerSink, TimerQueue, VpIndex, VpInterrupts, VpPorts,
};
use guest_memory::{DmaMemory, GuestMemory};
use hyperv::{HyperV, HyperVConfig, HyperVWorld};
use soak_case::{Random, Reached};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use tap::Tap;
use vmbus::ic::{Component, IntegrationComponent};
use vmbus::keyboard::{Keyboard, Keys, layout};
use vmbus::video::{MEGABYTES, Screen, Video};
use vmbus::{BusPart, ChannelDevice, NetVsp, StorVsp, VmBus};

/// RAM, and what lies where in a guest that behaves.
const RAM: u64 = 0x20_0000;
const EVENTS: u64 = 0x2000;
const MESSAGES: u64 = 0x3000;
const PARAMETERS: u64 = 0x4000;
const RINGS: u64 = 0x1_0000;
/// Pages of a ring, one each way: one of control, the rest of data.
const RING_PAGES: u64 = 3;
const RING_SIZE: u64 = (RING_PAGES - 1) * 4096;
/// Pages of the network's buffers, which are lists of these numbers, and of its messages.
const BUFFERS: u64 = 0x60;
const BUFFER_PAGES: u64 = 4;
const LISTS: [u32; 2] = [200, 201];
const RUN: u64 = 0x70;
/// First page and number of pages that buffers are in, mostly.
const DATA: (u64, u64) = (0x80, 0x100);
/// Interrupt source of the bus.
const SLOT: u64 = 2 * 256;

/// Channels, in the order in which they are offered.
pub(crate) const CHANNELS: u64 = 8;
const STORAGE: u64 = 0;
const SHUTDOWN: u64 = 1;
const KVP: u64 = 4;
const KEYBOARD: u64 = 5;
const VIDEO: u64 = 6;
const NETWORK: u64 = 7;

/// Resets of a case and its beginning.
pub(crate) const RESETS: u64 = 7;

/// What many cases together must come to.
pub(crate) const PLACES: [&str; 12] = [
    "storage commands that moved data",
    "storage commands refused with a reason",
    "requests to power off",
    "heartbeats after an answer",
    "samples of the time",
    "key-value pairs taken",
    "keys pressed",
    "pictures looked at",
    "screens without a picture",
    "frames sent",
    "frames received",
    "messages of the bus",
];

struct Nobody;

impl VpInterrupts for Nobody {
    fn request(&self, _: VpIndex, _: u8) {}
    fn set_auto_eoi(&self, _: VpIndex, _: u8, _: bool) {}
    fn apic_read(&self, _: VpIndex, _: u16) -> Option<u32> {
        Some(0)
    }
    fn apic_write(&self, _: VpIndex, _: u16, _: u32) -> bool {
        true
    }
}

impl PowerSink for Nobody {
    fn request(&self, _: PowerRequest) {}
}

pub(crate) struct Guest<'r> {
    hv: Arc<HyperV>,
    bus: Arc<VmBus>,
    memory: DmaMemory,
    clock: Arc<Clock>,
    timers: Arc<TimerQueue>,
    random: Random,
    reached: &'r Reached<{ PLACES.len() }>,
    /// The channel that the case is about.
    channel: u64,
    keys: Keys,
    screen: Screen,
    wire: UnixDatagram,
    /// The host's last question on the channel, and its packets that want a completion.
    asked: Option<Packet>,
    owed: Vec<u64>,
}

fn page_list(channel: u64, first: u64, count: u64, gpadl: u32) -> Vec<u32> {
    let range = (8 + 8 * count) as u32;
    let mut words = vec![
        8,
        0,
        channel as u32 + 1,
        gpadl,
        range | 1 << 16,
        count as u32 * 4096,
        0,
    ];
    (first..first + count).for_each(|page| words.extend([page as u32, 0]));
    words
}

fn gpadl(channel: u64) -> u32 {
    100 + channel as u32
}

fn ring(channel: u64) -> u64 {
    RINGS + channel * 2 * RING_PAGES * 4096
}

impl<'r> Guest<'r> {
    pub(crate) fn new(
        case: u64,
        seed: u64,
        disk: &Arc<Disk>,
        reached: &'r Reached<{ PLACES.len() }>,
    ) -> Self {
        let memory = GuestMemory::allocate(&[(0, RAM)]).expect("guest memory").dma();
        let clock = Arc::new(Clock::deterministic());
        let timers = TimerQueue::new();
        let config = HyperVConfig {
            vp_count: 2,
            phys_bits: 39,
            tsc_hz: Some(1_000_000_000),
            tsc_is_clock: true,
            apic_hz: 1_000_000_000,
        };
        let world = HyperVWorld {
            clock: clock.clone(),
            timers: timers.clone(),
            interrupts: Arc::new(Nobody),
            memory: memory.clone(),
            power: Arc::new(Nobody),
        };
        let hv = HyperV::new(config, world);
        let (ours, theirs) = UnixDatagram::pair().expect("a wire");
        ours.set_nonblocking(true).expect("a wire that does not block");
        let tap = Tap::over_datagrams("fuzzed", theirs).expect("a tap");
        let (keys, screen) = (Keys::default(), Screen::default());
        let component = |component| Box::new(IntegrationComponent::new(component)) as Box<dyn ChannelDevice>;
        let network = NetVsp::new(uuid::Uuid::nil(), tap, [2, 0, 0, 0, 0, 1], Box::new(|| {}));
        let devices = vec![
            Box::new(StorVsp::new(uuid::Uuid::nil(), vec![disk.clone()])) as Box<dyn ChannelDevice>,
            component(Component::Shutdown),
            component(Component::Heartbeat),
            component(Component::TimeSync),
            component(Component::Kvp),
            Box::new(Keyboard::new(keys.clone())),
            Box::new(Video::new(screen.clone(), MEGABYTES)),
            Box::new(network.expect("a network adapter")),
        ];
        let bus = VmBus::new(hv.clone(), memory.clone(), (clock.clone(), &timers), devices);
        Self {
            hv,
            bus,
            memory,
            clock,
            timers,
            random: Random::of_case(seed, case),
            reached,
            channel: case % CHANNELS,
            keys,
            screen,
            wire: ours,
            asked: None,
            owed: Vec::new(),
        }
    }

    fn wrmsr(&self, number: u32, value: u64) {
        // A register that refuses would be a fault of the guest's.
        let _ = self.hv.msr_write(0, number, value);
    }

    fn hypercall(&self, registers: [u64; 3]) -> u32 {
        for (offset, value) in [0, 4, 8].into_iter().zip(registers) {
            self.hv.port_write(0, offset, &(value as u32).to_le_bytes());
            self.hv
                .port_write(0, offset, &((value >> 32) as u32).to_le_bytes());
        }
        let mut half = [0; 4];
        self.hv.port_read(0, 0, &mut half);
        self.hv.port_read(0, 4, &mut half);
        u32::from_le_bytes(half)
    }

    fn write(&self, gpa: u64, bytes: &[u8]) {
        // Outside RAM the guest cannot write either.
        let _ = self.memory.write(gpa, bytes);
    }

    fn word(&self, gpa: u64) -> u64 {
        self.memory.read_u32(gpa).map_or(0, u64::from)
    }

    fn post(&self, words: &[u32]) -> u32 {
        let head = [1, 0, 1, 4 * words.len() as u32];
        let bytes: Vec<u8> = head
            .iter()
            .chain(words)
            .flat_map(|word| word.to_le_bytes())
            .collect();
        self.write(PARAMETERS, &bytes);
        self.hypercall([0x5C, PARAMETERS, 0])
    }

    fn signal(&self, channel: u64) {
        self.hypercall([0x5D | 1 << 16, 0x1_0001 + channel, 0]);
    }

    /// Takes the messages that came.
    fn take_messages(&self) {
        while self.word(MESSAGES + SLOT) != 0 {
            self.reached.count(11);
            self.write(MESSAGES + SLOT, &[0; 4]);
            self.wrmsr(0x4000_0084, 0);
        }
    }

    /// What a driver does before it uses anything; after a reset, or not.
    pub(crate) fn begin(&mut self, reset: bool) {
        if reset {
            BusPart(self.bus.clone()).reset();
            MsrHandler::reset(&*self.hv);
            self.write(0, &vec![0; RAM as usize]);
        }
        for (number, value) in [
            (0x00, 1),
            (0x01, 0x1001),
            (0x80, 1),
            (0x83, MESSAGES | 1),
            (0x82, EVENTS | 1),
            (0x92, 0x41),
        ] {
            self.wrmsr(0x4000_0000 + number, value);
        }
        self.take_messages();
        self.post(&[14, 0, 0x0005_0003, 0, 2, 0, 0, 0, 0, 0]);
        let channel = self.channel;
        self.open(channel);
    }

    /// Opens a channel, again if it is open.
    fn open(&mut self, channel: u64) {
        (self.asked, self.owed) = (None, Vec::new());
        let relid = channel as u32 + 1;
        self.post(&[7, 0, relid]);
        for control in [ring(channel), ring(channel) + RING_PAGES * 4096] {
            self.write(control, &[0; 128]);
        }
        let pages = 2 * RING_PAGES;
        self.post(&page_list(channel, ring(channel) / 4096, pages, gpadl(channel)));
        self.post(&[5, 0, relid, 1, gpadl(channel), 0, RING_PAGES as u32]);
        if channel == NETWORK {
            for (first, list) in (BUFFERS..).step_by(BUFFER_PAGES as usize).zip(LISTS) {
                self.post(&page_list(channel, first, BUFFER_PAGES, list));
            }
        }
        self.take_messages();
    }

    /// Writes `bytes` at offset `at` of a ring's data.
    fn write_ring(&self, channel: u64, at: u64, bytes: &[u8]) {
        let until_end = bytes.len().min((RING_SIZE - at) as usize);
        let (first, second) = bytes.split_at(until_end);
        self.write(ring(channel) + 4096 + at, first);
        self.write(ring(channel) + 4096, second);
    }

    fn send(&mut self, channel: u64, packet: &Packet) {
        let at = (self.word(ring(channel)) % RING_SIZE) & !7;
        let offset = 16 + packet.head.len();
        let len = (offset + packet.data.len())
            .next_multiple_of(8)
            .min(RING_SIZE as usize - 16);
        let mut bytes = Vec::new();
        let asks = u16::from(!self.random.one_in(8));
        for half in [packet.kind, (offset / 8) as u16, (len / 8) as u16, asks] {
            bytes.extend(half.to_le_bytes());
        }
        bytes.extend(packet.transaction.to_le_bytes());
        bytes.extend(&packet.head);
        bytes.extend(&packet.data);
        bytes.resize(len + 8, 0);
        self.write_ring(channel, at, &bytes);
        let next = (at + bytes.len() as u64) % RING_SIZE;
        self.write(ring(channel), &(next as u32).to_le_bytes());
        self.signal(channel);
    }

    /// Takes a packet of the host's.
    fn take(&self, channel: u64) -> Option<Packet> {
        let control = ring(channel) + RING_PAGES * 4096;
        let (write, read) = (
            self.word(control) % RING_SIZE,
            (self.word(control + 4) % RING_SIZE) & !7,
        );
        if write == read {
            return None;
        }
        let copy = |at: u64, bytes: &mut [u8]| {
            let at = at % RING_SIZE;
            let until_end = bytes.len().min((RING_SIZE - at) as usize);
            let (first, second) = bytes.split_at_mut(until_end);
            // All of it is RAM.
            let _ = self.memory.read(control + 4096 + at, first);
            let _ = self.memory.read(control + 4096, second);
        };
        let mut descriptor = [0; 16];
        copy(read, &mut descriptor);
        let half = |at: usize| u64::from(u16::from_le_bytes([descriptor[at], descriptor[at + 1]]));
        let (offset, len) = (half(2) * 8, half(4) * 8);
        let mut data = vec![0; len.saturating_sub(offset).min(RING_SIZE) as usize];
        copy(read + offset, &mut data);
        let next = (read + len + 8) % RING_SIZE;
        self.write(control + 4, &(next as u32).to_le_bytes());
        Some(Packet {
            kind: half(0) as u16,
            transaction: half(8),
            head: Vec::new(),
            data,
        })
    }

    /// Takes everything that the host has sent on the channel.
    fn take_all(&mut self) {
        let channel = self.channel;
        // A ring that the guest has broken may have no end.
        for _ in 0..RING_SIZE / 24 {
            let Some(packet) = self.take(channel) else { break };
            self.note(&packet);
            if packet.kind == INBAND {
                self.asked = Some(packet);
            } else if packet.kind == TRANSFER_PAGES {
                self.owed.push(packet.transaction);
            }
        }
        // The host may have waited for room.
        self.signal(channel);
    }

    /// Counts what a packet of the host's shows.
    fn note(&self, packet: &Packet) {
        let byte = |at: usize| packet.data.get(at).copied().unwrap_or(0);
        let question = |kind| packet.kind == INBAND && byte(12) == kind;
        let place = match self.channel {
            STORAGE if packet.kind == COMPLETION && byte(14) == 1 && byte(25) != 0 => 0,
            STORAGE if packet.kind == COMPLETION && byte(14) == 0x84 => 1,
            SHUTDOWN if question(3) => 2,
            2 if question(1) && byte(28) > 1 => 3,
            3 if question(4) && (byte(44) == 2 || byte(52) == 2) => 4,
            KVP if question(2) && byte(28) == 3 && byte(32) > 0 => 5,
            KEYBOARD if packet.kind == INBAND && byte(0) == 3 => 6,
            NETWORK if packet.kind == TRANSFER_PAGES && byte(0) == 107 && byte(4) == 0 => 10,
            _ => return,
        };
        self.reached.count(place);
    }

    /// An operation on the channel.
    pub(crate) fn aimed(&mut self) {
        let channel = self.channel;
        match self.random.below(32) {
            0 => self.wait(),
            1 => self.take_all(),
            2 if self.random.one_in(4) => self.send_wild(channel),
            3 if self.random.one_in(4) => self.break_ring(channel),
            4 => self.open(channel),
            5..=8 => self.host(),
            _ => self.talk(),
        }
    }

    /// Says something that the channel's protocol has.
    fn talk(&mut self) {
        let channel = self.channel;
        let random = &mut self.random;
        let pages = DATA.0 + DATA.1;
        let packet = match channel {
            STORAGE => packets::storage(random, 128, DATA),
            KEYBOARD => packets::keyboard(random),
            VIDEO => packets::video(random, RAM),
            NETWORK => match self.owed.pop().filter(|_| !random.one_in(8)) {
                Some(transaction) => Packet {
                    kind: COMPLETION,
                    transaction,
                    ..Packet::default()
                },
                None => {
                    let memory = &self.memory;
                    packets::network(random, &LISTS, RUN, |random, bytes| {
                        let sections = BUFFERS + BUFFER_PAGES;
                        let page = random.pick(&[RUN, RUN, sections, pages]);
                        // All of them are RAM.
                        let _ = memory.write(page * 4096, bytes);
                    })
                }
            },
            _ => packets::integration(random, self.asked.take().as_ref()),
        };
        self.send(channel, &packet);
        let heard = self.word(ring(channel)) == self.word(ring(channel) + 4);
        if !self.random.one_in(4) {
            self.take_all();
        }
        // The host has closed it.
        if !heard && self.random.one_in(2) {
            self.open(channel);
        }
    }

    /// Any period that a device has.
    fn wait(&mut self) {
        let later = self.clock.now() + self.random.below(12_000_000_000);
        self.clock.advance_to(later);
        self.timers.fire_due(later);
    }

    /// What the host does meanwhile.
    fn host(&mut self) {
        match self.channel {
            SHUTDOWN => {
                self.bus.request_shutdown();
            }
            KEYBOARD => {
                if self.random.one_in(8) {
                    let text: String = (0..self.random.below(400))
                        .map(|_| self.random.below(0x100) as u8 as char)
                        .collect();
                    self.keys.push(layout::of_text(&text));
                } else {
                    let symbol = number(&mut self.random, &[0x20, 0x41, 0x7E, 0xFF0D, 0xFFBE, 0xFFE1]);
                    self.keys.push(layout::of_symbol(symbol, self.random.one_in(2)));
                }
            }
            VIDEO => match self.screen.picture() {
                Some(picture) => {
                    let size = picture.width as usize * picture.height as usize;
                    let pixels = picture.pixels(&self.memory).expect("a picture in ram");
                    assert_eq!(pixels.len(), size, "{picture:?}");
                    self.reached.count(7);
                }
                None => self.reached.count(8),
            },
            NETWORK => {
                let len = number(&mut self.random, &[60, 590, 1514, 1600, 4000]).min(70_000);
                // A full wire drops.
                let _ = self.wire.send(&vec![0xA5; len as usize]);
                let mut frame = [0; 2048];
                while self.wire.recv(&mut frame).is_ok() {
                    self.reached.count(9);
                }
            }
            STORAGE => drop(BusPart(self.bus.clone()).inspect()),
            _ => self.wait(),
        }
        self.bus.poll(self.channel as usize);
    }

    fn send_wild(&mut self, channel: u64) {
        let packet = Packet::wild(&mut self.random);
        self.send(channel, &packet);
    }

    /// Writes a word of a ring's control page.
    fn break_ring(&mut self, channel: u64) {
        let page = ring(channel) + self.random.pick(&[0, RING_PAGES]) * 4096;
        let at = page + self.random.pick(&[0, 4, 8, 12, 64]);
        let value = number(&mut self.random, &[0, 8, RING_SIZE as u32, 1]);
        self.write(at, &value.to_le_bytes());
        self.signal(channel);
    }

    /// An operation on something else: registers, hypercalls, messages, other channels.
    pub(crate) fn other(&mut self) {
        match self.random.below(8) {
            0 => {
                let number = 0x4000_0000 + self.random.below(0x200) as u32;
                let value = self.random.value();
                self.wrmsr(number, value);
                self.hv.msr_read(self.random.below(3) as u32, number);
            }
            1 => {
                let page = self.random.below(RAM / 4096 + 2) * 4096 + self.random.below(2);
                let number = self.random.pick(&[1, 0x21, 0x73, 0x82, 0x83]);
                self.wrmsr(0x4000_0000 + number, page);
            }
            2 => {
                let registers = [(); 3].map(|()| self.random.value());
                self.hypercall(registers);
            }
            3 => {
                let code = self.random.pick(&[0x08, 0x5C, 0x5D, 0x99, 0x9A]);
                let flags = (self.random.value() & 0xF_0001) << 16;
                let gpa = self.random.below(RAM + 64);
                self.hypercall([code | flags, gpa, gpa & !7]);
            }
            4 | 5 => self.message(),
            6 => {
                let channel = self.random.below(CHANNELS);
                self.open(channel);
                self.send_wild(channel);
            }
            _ => {
                let channel = self.random.below(CHANNELS);
                self.break_ring(channel);
            }
        }
        // Any of these may undo what the guest needs to be heard.
        if self.random.one_in(8) {
            self.begin(false);
        }
    }

    /// A message that is right but for a word, or not at all.
    fn message(&mut self) {
        let kind = self.random.below(26) as u32;
        let channel = self.random.below(CHANNELS + 2) as u32;
        let len = 1 + self.random.index(58);
        let mut words: Vec<u32> = (0..len).map(|_| self.random.value() as u32).collect();
        words[0] = kind;
        if len > 3 {
            words[2] = channel;
            words[3] = 99 + channel;
        }
        self.post(&words);
        // The guest takes what comes, most of the time.
        if !self.random.one_in(4) {
            self.take_messages();
        }
    }

    /// Reset, then a driver that behaves: a TEST UNIT READY is completed.
    pub(crate) fn works_after_reset(&mut self) -> bool {
        self.channel = STORAGE;
        self.begin(true);
        let mut data = vec![0; 64];
        data[0] = 3;
        let ready = Packet {
            kind: INBAND,
            transaction: 0x7788,
            head: Vec::new(),
            data,
        };
        // The completion is asked for by the packet's flags, which are random.
        (0..64).any(|_| {
            self.send(STORAGE, &ready);
            self.take(STORAGE).is_some_and(|answer| {
                (answer.kind, answer.transaction) == (COMPLETION, 0x7788)
                    && (answer.data[0], answer.data[14]) == (1, 1)
            })
        })
    }
}
