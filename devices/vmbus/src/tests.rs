// SPDX-License-Identifier: MIT
//! The bus driven as a guest drives it: hypercalls, messages, rings in RAM, a disk, integration components.

mod console;
mod hostile;

use super::*;
use crate::ic::{Component, IntegrationComponent};
use crate::protocol::Version;
use crate::ring::packet;
use block::{Disk, DiskOptions};
use chipset_device::{
    Clock, Device, MsrHandler, PowerRequest, PowerSink, TimerQueue, VpIndex, VpInterrupts, VpPorts,
};
use guest_memory::{DmaMemory, GuestMemory};
use hyperv::{HyperV, HyperVConfig, HyperVWorld};
use std::sync::{Arc, Mutex};
use uuid::Uuid;

#[derive(Default)]
struct Host(Mutex<u32>);

impl VpInterrupts for Host {
    fn request(&self, _: VpIndex, vector: u8) {
        assert_eq!(vector, 0x41);
        *self.0.lock().unwrap() += 1;
    }
    fn set_auto_eoi(&self, _: VpIndex, _: u8, _: bool) {}
    fn apic_read(&self, _: VpIndex, _: u16) -> Option<u32> {
        None
    }
    fn apic_write(&self, _: VpIndex, _: u16, _: u32) -> bool {
        false
    }
}

impl PowerSink for Host {
    fn request(&self, request: PowerRequest) {
        panic!("{request:?}");
    }
}

const MESSAGES: u64 = 0x2000;
const EVENTS: u64 = 0x3000;
const PARAMETERS: u64 = 0x4000;
/// Ring memory: four pages each way, then buffers.
const RINGS: u64 = 0x10_0000;
const RING_PAGES: u64 = 4;
const DATA: u64 = 0x20_0000;
const GPADL: u32 = 0xE1E10;

struct Guest {
    bus: Arc<VmBus>,
    hv: Arc<HyperV>,
    memory: DmaMemory,
    clock: Arc<Clock>,
    timers: Arc<TimerQueue>,
    interrupts: Arc<Host>,
    /// Own indexes of the rings: written to the host, read from the host.
    written: u32,
    read: u32,
}

fn disk(size: u64) -> (tempfile::NamedTempFile, Arc<Disk>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(size).unwrap();
    let disk = Disk::open(&DiskOptions {
        path: file.path().to_owned(),
        read_only: false,
        format: None,
    });
    (file, disk.unwrap())
}

impl Guest {
    fn new(devices: Vec<Box<dyn ChannelDevice>>) -> Self {
        let interrupts = Arc::new(Host::default());
        let memory = GuestMemory::allocate(&[(0, 8 << 20)]).unwrap().dma();
        let clock = Arc::new(Clock::deterministic());
        let timers = TimerQueue::new();
        let config = HyperVConfig {
            vp_count: 1,
            phys_bits: 39,
            tsc_hz: None,
            tsc_is_clock: false,
            apic_hz: 1,
        };
        let world = HyperVWorld {
            clock: clock.clone(),
            timers: timers.clone(),
            interrupts: interrupts.clone(),
            memory: memory.clone(),
            power: interrupts.clone(),
        };
        let hv = HyperV::new(config, world);
        let bus = VmBus::new(hv.clone(), memory.clone(), (clock.clone(), &timers), devices);
        let guest = Self {
            bus,
            hv,
            memory,
            clock,
            timers,
            interrupts,
            written: 0,
            read: 0,
        };
        let wrmsr = |number, value| assert!(guest.hv.msr_write(0, number, value));
        wrmsr(0x4000_0000, 1);
        wrmsr(0x4000_0001, 0x1001);
        wrmsr(0x4000_0083, MESSAGES | 1);
        wrmsr(0x4000_0082, EVENTS | 1);
        wrmsr(0x4000_0092, 0x41);
        guest
    }

    fn hypercall(&self, control: u64, input: u64) -> u32 {
        for (offset, value) in [(0, control), (4, input), (8, 0)] {
            self.hv.port_write(0, offset, &(value as u32).to_le_bytes());
            self.hv
                .port_write(0, offset, &((value >> 32) as u32).to_le_bytes());
        }
        let mut half = [0; 4];
        self.hv.port_read(0, 0, &mut half);
        self.hv.port_read(0, 4, &mut half);
        u32::from_le_bytes(half)
    }

    fn post(&self, words: &[u32]) -> u32 {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let head = [1, 0, 1, bytes.len() as u32];
        let head: Vec<u8> = head.iter().flat_map(|w| w.to_le_bytes()).collect();
        self.memory.write(PARAMETERS, &head).unwrap();
        self.memory.write(PARAMETERS + 16, &bytes).unwrap();
        self.hypercall(0x5C, PARAMETERS)
    }

    /// The next message, or nothing.
    fn take(&self) -> Option<Vec<u8>> {
        let slot = MESSAGES + 2 * 256;
        let mut message = [0; 256];
        self.memory.read(slot, &mut message).unwrap();
        if message[0] == 0 {
            return None;
        }
        let len = usize::from(message[4]);
        self.memory.write(slot, &[0; 4]).unwrap();
        assert!(self.hv.msr_write(0, 0x4000_0084, 0));
        Some(message[16..16 + len].to_vec())
    }

    fn words(&self) -> Vec<u32> {
        let message = self.take().expect("a message");
        message
            .as_chunks::<4>()
            .0
            .iter()
            .map(|w| u32::from_le_bytes(*w))
            .collect()
    }

    fn connect(&self) {
        assert_eq!(self.post(&[14, 0, 0x0006_0000, 0, 2, 0, 0, 0, 0, 0]), 0);
        assert_eq!(self.words(), [15, 0, 1, 1, 0]);
    }

    /// Makes a list of the ring pages and opens channel 1.
    fn open(&mut self) {
        let pages = (0..2 * RING_PAGES).map(|i| RINGS / 4096 + i);
        let words: Vec<u32> = pages.flat_map(|page| [page as u32, 0]).collect();
        // Length and offset, then pages, of which the last two come in a second message.
        let head = [8, 0, 1, GPADL, 72 | 1 << 16, (2 * RING_PAGES * 4096) as u32, 0];
        let (first, rest) = words.split_at(words.len() - 4);
        assert_eq!(self.post(&[&head, first].concat()), 0);
        assert_eq!(self.take(), None, "the list is not complete");
        assert_eq!(self.post(&[&[9, 0, 0, GPADL], rest].concat()), 0);
        assert_eq!(self.words(), [10, 0, 1, GPADL, 0]);
        assert_eq!(self.post(&[5, 0, 1, 77, GPADL, 0, RING_PAGES as u32]), 0);
        assert_eq!(self.words(), [6, 0, 1, 77, 0]);
        (self.written, self.read) = (0, 0);
    }

    fn ring(&self, page: u64, at: u64) -> u64 {
        RINGS + page * 4096 + at
    }

    /// Writes a packet and signals.
    fn send(&mut self, kind: u16, transaction: u64, head: &[u8], data: &[u8]) {
        let size = (RING_PAGES as u32 - 1) * 4096;
        let offset = 16 + head.len();
        let len = (offset + data.len()).next_multiple_of(8);
        let mut bytes = Vec::new();
        for half in [kind, (offset / 8) as u16, (len / 8) as u16, 1] {
            bytes.extend(half.to_le_bytes());
        }
        bytes.extend(transaction.to_le_bytes());
        bytes.extend(head);
        bytes.extend(data);
        bytes.resize(len + 8, 0);
        for (i, byte) in bytes.iter().enumerate() {
            let at = (self.written + i as u32) % size;
            self.memory.write(self.ring(1, at.into()), &[*byte]).unwrap();
        }
        self.written = (self.written + len as u32 + 8) % size;
        self.memory
            .write(self.ring(0, 0), &self.written.to_le_bytes())
            .unwrap();
        self.signal();
    }

    fn signal(&self) {
        assert_eq!(self.hypercall(0x5D | 1 << 16, 0x1_0001), 0);
    }

    /// Takes a packet of the host: type, transaction, data.
    fn receive(&mut self) -> Option<(u16, u64, Vec<u8>)> {
        let size = (RING_PAGES as u32 - 1) * 4096;
        let control = self.ring(RING_PAGES, 0);
        if self.memory.read_u32(control).unwrap() == self.read {
            return None;
        }
        let byte = |at: u32| {
            let mut byte = [0];
            let at = self.ring(RING_PAGES + 1, u64::from(at % size));
            self.memory.read(at, &mut byte).unwrap();
            byte[0]
        };
        let half = |at: u32| u16::from_le_bytes([byte(self.read + at), byte(self.read + at + 1)]);
        let (kind, offset, len) = (half(0), u32::from(half(2)) * 8, u32::from(half(4)) * 8);
        let transaction = u64::from(half(8)) | u64::from(half(10)) << 16;
        let data = (offset..len).map(|at| byte(self.read + at)).collect();
        self.read = (self.read + len + 8) % size;
        self.memory.write(control + 4, &self.read.to_le_bytes()).unwrap();
        Some((kind, transaction, data))
    }

    /// One SCSI command with a buffer of `len` bytes at [`DATA`].
    fn scsi(&mut self, transaction: u64, lun: u8, cdb: &[u8], len: u32) -> Vec<u8> {
        let mut request = vec![0; 64];
        request[0] = 3;
        request[12 + 7] = lun;
        request[28..28 + cdb.len()].copy_from_slice(cdb);
        if len == 0 {
            self.send(packet::INBAND, transaction, &[], &request);
        } else {
            let pages = len.div_ceil(4096);
            let mut head = vec![0, 0, 0, 0, 1, 0, 0, 0];
            head.extend(len.to_le_bytes());
            head.extend([0; 4]);
            (0..u64::from(pages)).for_each(|i| head.extend((DATA / 4096 + i).to_le_bytes()));
            self.send(packet::GPA_DIRECT, transaction, &head, &request);
        }
        let (kind, answered, data) = self.receive().expect("a completion");
        assert_eq!((kind, answered, data[0]), (packet::COMPLETION, transaction, 1));
        data
    }

    fn data(&self, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.memory.read(DATA, &mut data).unwrap();
        data
    }
}

fn with_disk(size: u64) -> (tempfile::NamedTempFile, Guest) {
    let (file, disk) = disk(size);
    let mut guest = Guest::new(vec![Box::new(StorVsp::new(Uuid::from_u128(5), vec![disk]))]);
    guest.connect();
    guest.open();
    (file, guest)
}

#[test]
fn versions_are_agreed_on_or_refused() {
    let guest = Guest::new(vec![]);
    for (version, accepted) in [
        (0x0006_0000, 1),
        (0x0003_0000, 1),
        (0x0007_0000, 0),
        (0x0001_0001, 0),
    ] {
        assert_eq!(guest.post(&[14, 0, version, 0, 0, 0]), 0);
        let answer = guest.words();
        assert_eq!((answer[0], answer[2]), (15, accepted), "{}", Version(version));
        assert_eq!(answer.len(), if version >= 0x0006_0000 { 5 } else { 4 });
    }
}

#[test]
fn requests_before_a_version_have_no_answer() {
    let guest = Guest::new(vec![]);
    guest.post(&[3, 0]);
    guest.post(&[5, 0, 1, 0, 0, 0, 0]);
    assert_eq!(guest.take(), None);
    guest.post(&[16, 0]);
    assert_eq!(guest.words(), [17, 0], "but an unload would wait for ever");
}

#[test]
fn offers_name_interface_instance_and_connection() {
    let (_file, disk) = disk(1 << 20);
    let instance = Uuid::from_u128(0x1122_3344_5566_7788_99AA_BBCC_DDEE_FF00);
    let guest = Guest::new(vec![
        Box::new(StorVsp::new(instance, vec![disk])),
        Box::new(IntegrationComponent::new(Component::Heartbeat)),
    ]);
    guest.connect();
    guest.post(&[3, 0]);
    let first = guest.take().unwrap();
    assert_eq!(first.len(), 196);
    assert_eq!(first[8..12], [0xD9, 0x63, 0x61, 0xBA]);
    assert_eq!(first[24..40], instance.to_bytes_le());
    assert_eq!(first[184..188], 1u32.to_le_bytes());
    assert_eq!(first[192..], 0x1_0001u32.to_le_bytes());
    let second = guest.take().unwrap();
    assert_eq!(second[184], 2);
    assert_eq!(second[56], 0x10, "a pipe");
    assert_eq!(guest.words(), [4, 0]);
    assert_eq!(guest.take(), None);
}

#[test]
fn short_and_unknown_messages_are_refused() {
    let guest = Guest::new(vec![]);
    guest.connect();
    assert_eq!(guest.post(&[8, 0, 1]), 5);
    assert_eq!(guest.post(&[99, 0]), 5);
    assert_eq!(guest.post(&[5]), 5);
    assert_eq!(guest.take(), None);
}

#[test]
fn bad_lists_and_opens_fail_with_a_status() {
    let (_file, disk) = disk(1 << 20);
    let guest = Guest::new(vec![Box::new(StorVsp::new(Uuid::nil(), vec![disk]))]);
    guest.connect();
    let failed = |words: &[u32]| *words.last().unwrap() == 0xC000_0001;
    // One page outside RAM; then two ranges; then a length that the pages do not have.
    for head in [
        [16 | 1 << 16, 4096, 0, 0xFFFF_FFFF, 0],
        [16 | 2 << 16, 4096, 0, 1, 0],
        [16 | 1 << 16, 8192, 0, 1, 0],
    ] {
        guest.post(&[&[8, 0, 1, 9], &head[..]].concat());
        assert!(failed(&guest.words()), "{head:x?}");
    }
    guest.post(&[5, 0, 1, 1, 9, 0, 1]);
    assert!(failed(&guest.words()), "no such list");
    guest.post(&[5, 0, 7, 1, 9, 0, 1]);
    assert!(failed(&guest.words()), "no such channel");
}

#[test]
fn disk_is_initialised_written_and_read_back() {
    let (file, mut guest) = with_disk(1 << 20);
    for (operation, status) in [(7, 0), (8, 0), (55, 0xC000_0010u32)] {
        let mut request = vec![0; 64];
        request[0] = operation;
        guest.send(packet::INBAND, 1, &[], &request);
        let (_, _, data) = guest.receive().unwrap();
        assert_eq!((data[0], &data[8..12]), (1, &status.to_le_bytes()[..]));
    }
    let pattern: Vec<u8> = (0..8192u32).map(|i| (i * 7) as u8).collect();
    guest.memory.write(DATA, &pattern).unwrap();
    // WRITE(10) of 16 blocks at block 3, then READ(16) of them.
    let written = guest.scsi(2, 0, &[0x2A, 0, 0, 0, 0, 3, 0, 0, 16, 0], 8192);
    assert_eq!((written[14], written[15]), (1, 0));
    assert_eq!(written[24..28], 8192u32.to_le_bytes());
    assert_eq!(std::fs::read(file.path()).unwrap()[3 * 512..][..8192], pattern);
    guest.memory.write(DATA, &[0; 8192]).unwrap();
    guest.scsi(3, 0, &[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 16], 8192);
    assert_eq!(guest.data(8192), pattern);
    assert!(*guest.interrupts.0.lock().unwrap() > 0);
}

#[test]
fn completion_is_as_long_as_its_request() {
    let (_file, mut guest) = with_disk(1 << 20);
    for len in [48, 56, 64] {
        let mut request = vec![0; len];
        request[0] = 7;
        guest.send(packet::INBAND, 1, &[], &request);
        assert_eq!(guest.receive().unwrap().2.len(), len);
    }
}

#[test]
fn commands_that_fail_have_sense_data() {
    let (_file, mut guest) = with_disk(1 << 20);
    let past_end = guest.scsi(1, 0, &[0x28, 0, 0, 0, 8, 0, 0, 0, 1, 0], 512);
    assert_eq!((past_end[14], past_end[15], past_end[21]), (0x84, 2, 18));
    assert_eq!((past_end[30], past_end[40]), (5, 0x21));
    let unknown = guest.scsi(2, 0, &[0xE7], 0);
    assert_eq!((unknown[30], unknown[40]), (5, 0x20));
    let short = guest.scsi(3, 0, &[0x28, 0, 0, 0, 0, 0, 0, 0, 4, 0], 512);
    assert_eq!((short[30], short[40]), (5, 0x24), "the buffer is too small");
    let missing = guest.scsi(4, 9, &[0], 0);
    assert_eq!(missing[14], 0x20, "no such logical unit");
    let inquiry = guest.scsi(5, 9, &[0x12, 0, 0, 0, 36], 36);
    assert_eq!((inquiry[14], guest.data(1)[0]), (1, 0x7F));
}

#[test]
fn disk_says_what_it_is() {
    let (_file, mut guest) = with_disk(1 << 20);
    guest.scsi(1, 0, &[0x12, 0, 0, 0, 96, 0], 96);
    assert_eq!(guest.data(16)[8..], *b"OpenVMM ");
    guest.scsi(2, 0, &[0x25], 8);
    assert_eq!(guest.data(8), [0, 0, 7, 0xFF, 0, 0, 2, 0]);
    guest.scsi(3, 0, &[0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 16], 16);
    assert_eq!(guest.data(8), [0, 0, 0, 8, 0, 0, 0, 0]);
    // As Microsoft's firmware asks, of a target that is there and of one that is not.
    let whole_buffer = guest.scsi(5, 0, &[0xA0], 2056);
    assert_eq!(
        (guest.data(8), whole_buffer[24]),
        (vec![0, 0, 0, 8, 0, 0, 0, 0], 16)
    );
    guest.scsi(4, 0, &[0x12, 1, 0xB2, 0, 64, 0], 64);
    assert_eq!(guest.data(4), [0, 0xB2, 0, 4]);
}

#[test]
fn rings_wrap_around() {
    let (_file, mut guest) = with_disk(1 << 20);
    // Each way takes about 100 bytes of a ring of 12 KiB.
    for i in 0..500 {
        let answer = guest.scsi(i, 0, &[0], 0);
        assert_eq!(answer[14], 1);
    }
}

#[test]
fn full_ring_to_the_guest_holds_completions_back_in_order() {
    let (_file, mut guest) = with_disk(1 << 20);
    let mut request = vec![0; 64];
    request[0] = 8;
    // The guest takes nothing: 12 KiB hold about 139 completions of 88 bytes.
    for i in 0..200 {
        guest.send(packet::INBAND, i, &[], &request);
    }
    for i in 0..200 {
        if let Some((_, transaction, _)) = guest.receive() {
            assert_eq!(transaction, i);
        } else {
            guest.signal();
            assert_eq!(guest.receive().expect("more after a signal").1, i);
        }
    }
    assert_eq!(guest.receive(), None);
}

#[test]
fn broken_ring_closes_its_channel_only() {
    let (_file, mut guest) = with_disk(1 << 20);
    guest
        .memory
        .write(guest.ring(0, 0), &0xFFFF_FFF0u32.to_le_bytes())
        .unwrap();
    guest.signal();
    let part = BusPart(guest.bus.clone());
    assert!(part.inspect().contains("closed"), "{}", part.inspect());
    guest.post(&[11, 0, 1, GPADL]);
    assert_eq!(guest.words()[0], 12);
    guest.memory.write(RINGS, &vec![0; 8 * 4096]).unwrap();
    guest.open();
    assert_eq!(guest.scsi(1, 0, &[0], 0)[14], 1);
}

#[test]
fn packet_longer_than_what_was_written_breaks_the_ring() {
    let (_file, guest) = with_disk(1 << 20);
    let descriptor = [6, 0, 2, 0, 0xFF, 0xFF, 0, 0];
    guest.memory.write(guest.ring(1, 0), &descriptor).unwrap();
    guest
        .memory
        .write(guest.ring(0, 0), &64u32.to_le_bytes())
        .unwrap();
    guest.signal();
    assert!(BusPart(guest.bus.clone()).inspect().contains("closed"));
}

#[test]
fn unload_closes_everything_and_is_answered() {
    let (_file, mut guest) = with_disk(1 << 20);
    guest.post(&[16, 0]);
    assert_eq!(guest.words(), [17, 0]);
    assert!(BusPart(guest.bus.clone()).inspect().starts_with("not connected"));
    guest.memory.write(RINGS, &vec![0; 8 * 4096]).unwrap();
    guest.connect();
    guest.open();
}

/// A guest that agrees to the last version offered, and its answers.
fn component(component: Component) -> Guest {
    let mut guest = Guest::new(vec![Box::new(IntegrationComponent::new(component))]);
    guest.connect();
    guest.open();
    let (kind, _, mut data) = guest.receive().expect("a negotiation");
    assert_eq!((kind, data[12], data[25]), (packet::INBAND, 0, 3));
    let versions = usize::from(data[30]);
    let last = 36 + 4 * (2 + versions - 1);
    let version = data[last..last + 4].to_vec();
    data[25] = 7;
    data[28..36].copy_from_slice(&[1, 0, 1, 0, 0, 0, 0, 0]);
    data[36..40].copy_from_slice(&[3, 0, 0, 0]);
    data[40..44].copy_from_slice(&version);
    guest.send(packet::INBAND, 1, &[], &data);
    guest
}

#[test]
fn shutdown_is_asked_for_when_the_guest_is_ready() {
    let guest = Guest::new(vec![Box::new(IntegrationComponent::new(Component::Shutdown))]);
    assert!(!guest.bus.request_shutdown(), "nobody listens");
    let mut guest = component(Component::Shutdown);
    assert!(guest.bus.request_shutdown());
    let (_, _, data) = guest.receive().expect("a request");
    assert_eq!((data[12], data[25]), (3, 3));
    assert_eq!(data[28..32], 0x8000_0000u32.to_le_bytes());
}

#[test]
fn heartbeats_come_while_they_are_answered() {
    let mut guest = component(Component::Heartbeat);
    let beat = |guest: &mut Guest, seconds: u64| {
        guest.clock.advance_to(seconds * 1_000_000_000);
        guest.timers.fire_due(guest.clock.now());
        guest.receive()
    };
    let (_, _, mut data) = beat(&mut guest, 2).expect("a heartbeat");
    assert_eq!((data[12], data[28]), (1, 1));
    assert_eq!(beat(&mut guest, 4), None, "the first is not answered");
    data[25] = 7;
    guest.send(packet::INBAND, 2, &[], &data);
    assert_eq!(beat(&mut guest, 6).unwrap().2[28], 2);
    assert!(BusPart(guest.bus.clone()).inspect().contains("answered 1"));
}

#[test]
fn time_is_told_in_100_ns_since_1601() {
    let mut guest = component(Component::TimeSync);
    guest.clock.advance_to(5_000_000_000);
    guest.timers.fire_due(guest.clock.now());
    let (_, _, data) = guest.receive().expect("the time");
    let parent = u64::from_le_bytes(data[28..36].try_into().unwrap());
    assert_eq!(parent - 116_444_736_000_000_000, guest.clock.wall() / 100);
    let reference = u64::from_le_bytes(data[36..44].try_into().unwrap());
    assert_eq!(reference, 50_000_000);
    assert_eq!(data[44], 1, "set the clock");
}

#[test]
fn reset_disconnects() {
    let (_file, guest) = with_disk(1 << 20);
    let mut part = BusPart(guest.bus.clone());
    part.reset();
    assert!(part.inspect().starts_with("not connected"));
    guest.signal();
}
