// SPDX-License-Identifier: MIT
//! The watch over a machine of nothing, with a clock that only counts.

use super::*;
use chipset_device::TimerQueue;
use hyperv::Hold;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use vmbus::MOST_MESSAGES;

/// Answers every read with what it is told to.
#[derive(Default)]
struct Nothing(Mutex<(u64, u64)>);

impl Nothing {
    fn value(&self) -> u64 {
        let mut state = self.0.lock().unwrap();
        state.0 += state.1;
        state.0
    }
}

impl VpBus for Nothing {
    fn port_read(&self, _: VpIndex, _: u16, data: &mut [u8]) {
        let bytes = self.value().to_le_bytes();
        data.copy_from_slice(&bytes[..data.len()]);
    }
    fn port_write(&self, _: VpIndex, _: u16, _: &[u8]) {}
    fn mmio_read(&self, _: VpIndex, _: u64, _: &mut [u8]) {}
    fn mmio_write(&self, _: VpIndex, _: u64, _: &[u8]) {}
    fn msr_read(&self, _: VpIndex, _: u32) -> Option<u64> {
        Some(self.value())
    }
    fn msr_write(&self, _: VpIndex, _: u32, _: u64) -> bool {
        true
    }
    fn poll(&self, _: VpIndex) -> VpEvents {
        VpEvents::default()
    }
    fn acknowledge(&self, _: VpIndex) -> Option<u8> {
        None
    }
    fn cr8(&self, _: VpIndex) -> u8 {
        0
    }
    fn set_cr8(&self, _: VpIndex, _: u8) {}
}

struct Rig {
    watch: Arc<FirmwareWatch>,
    bus: Arc<Nothing>,
    clock: Arc<Clock>,
    timers: Arc<TimerQueue>,
    memory: GuestMemory,
    events: UnboundedReceiver<Event>,
    untaken: Arc<Mutex<Option<Untaken>>>,
}

fn rig(disks: &[&str]) -> Rig {
    let (clock, timers) = (Arc::new(Clock::deterministic()), TimerQueue::new());
    let (sender, events) = unbounded_channel();
    let memory = GuestMemory::allocate(&[(0, 16 << 20)]).unwrap();
    let bus = Arc::new(Nothing::default());
    let untaken = Arc::new(Mutex::new(None));
    let held = untaken.clone();
    let watch = FirmwareWatch::new(WatchWorld {
        bus: bus.clone(),
        memory: memory.clone(),
        clock: clock.clone(),
        timer: timers.timer(0),
        events: sender,
        disks: disks.iter().map(|&disk| disk.to_owned()).collect(),
        untaken: Box::new(move || *held.lock().unwrap()),
    });
    Rig {
        watch,
        bus,
        clock,
        timers,
        memory,
        events,
        untaken,
    }
}

impl Rig {
    /// Goes on in steps of half a second, doing `act` in each.
    fn go_on(&mut self, seconds: u64, act: impl Fn(&FirmwareWatch)) {
        for _ in 0..seconds * 2 {
            self.clock.advance_to(self.clock.now() + SECOND / 2);
            self.timers.fire_due(self.clock.now());
            act(&self.watch);
        }
    }

    fn told(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            let Event::Look(text) = event else {
                panic!("{event:?}")
            };
            told.push(text);
        }
        told
    }

    /// A variable command whose descriptor has `status` already.
    fn variable(&self, command: u32, status: u64) {
        let mut head = command.to_le_bytes().to_vec();
        head.extend(status.to_le_bytes());
        self.memory.write(0x1000, &head).unwrap();
        self.watch.port_write(0, INDEX, &NVRAM.to_le_bytes());
        self.watch.port_write(0, DATA, &0x1000_u32.to_le_bytes());
    }

    fn bios(&self, index: u32) {
        self.watch.port_write(0, INDEX, &index.to_le_bytes());
        self.watch.port_write(0, DATA, &[0; 4]);
    }

    fn fails_to_boot(&self) {
        self.bios(EVENT_LOG);
    }
}

fn read_port(port: u16) -> impl Fn(&FirmwareWatch) {
    move |watch| (0..100).for_each(|_| watch.port_read(0, port, &mut [0]))
}

fn read_counter(watch: &FirmwareWatch) {
    for _ in 0..100 {
        watch.msr_read(0, 0x4000_0020);
    }
}

#[test]
fn spins_are_told_once_in_the_words_of_their_address() {
    for (port, words) in [
        (
            0x3FD,
            "the firmware spins on COM1's line status, which reads 0x0; ",
        ),
        (0x2FD, "the firmware spins on COM2's line status"),
        (0x71, "the firmware spins on the clock chip"),
        (0x404, "the firmware waits to be powered off"),
        (0x1040, "the firmware spins on port 0x1040"),
    ] {
        let mut rig = rig(&[]);
        rig.go_on(30, read_port(port));
        let told = rig.told();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with(words), "{told:?}");
        assert!(told[0].ends_with(" s"), "{told:?}");
    }
}

#[test]
fn counter_that_stands_is_told_from_one_that_moves() {
    let mut stuck = rig(&[]);
    stuck.go_on(15, read_counter);
    assert!(stuck.told()[0].contains("reference counter, which stands at 0x0"));
    let mut moving = rig(&[]);
    moving.bus.0.lock().unwrap().1 = 7;
    moving.go_on(15, read_counter);
    assert!(moving.told()[0].starts_with("the firmware waits by the reference counter:"));
}

#[test]
fn firmware_that_works_is_left_alone() {
    let mut rig = rig(&[]);
    rig.go_on(60, |watch| {
        read_port(0x3FD)(watch);
        assert!(watch.msr_write(0, 0x4000_00B1, 5));
    });
    for _ in 0..ENDLESS_NAMES / 2 {
        rig.variable(command::NEXT_NAME, 0);
    }
    rig.variable(0, 14);
    for _ in 0..2 * ENDLESS_FAILURES {
        rig.variable(0, 14);
        rig.variable(command::DEBUG, 0);
        rig.variable(1, 0);
    }
    rig.fails_to_boot();
    // A reset, after which it boots.
    rig.watch.reset();
    rig.variable(command::RUNTIME, 0);
    rig.go_on(60, |_| ());
    assert_eq!(rig.told(), Vec::<String>::new());
}

#[test]
fn silence_is_told_by_what_still_happens() {
    let mut rig0 = rig(&[]);
    rig0.go_on(20, |_| ());
    assert!(rig0.told()[0].contains("it has not begun"));
    let mut rig1 = rig(&[]);
    rig1.go_on(1, read_port(0x3FD));
    rig1.go_on(20, |_| ());
    assert!(rig1.told()[0].contains("it spins in memory, or it halted"));
    let mut rig2 = rig(&[]);
    rig2.go_on(1, read_port(0x3FD));
    rig2.go_on(20, |watch| watch.mmio_write(0, 0xFEE0_00B0, &[0; 4]));
    assert!(rig2.told()[0].contains("it takes timer interrupts and waits"));
}

/// In the guest's slot since the first second, with `waiting` behind.
fn held(hold: Hold, waiting: usize) -> Untaken {
    Untaken {
        vp: 0,
        sint: 2,
        hold,
        since: SECOND,
        kind: 1,
        head: 15,
        waiting,
    }
}

#[test]
fn messages_that_nobody_takes_are_told_in_place_of_the_silence_that_follows() {
    for (hold, waiting, words) in [
        (
            Hold::Slot,
            0,
            "vmbus' VersionResponse lies in slot 2 of vp 0 for 11 s, and 0 more wait behind it; the guest has to empty \
             the slot, and to write EOM (register 0x40000084) when more wait; --no-vmbus starts",
        ),
        (
            Hold::Slot,
            MOST_MESSAGES + 1,
            "and 513 more wait behind it; the guest has to empty the slot, and to write EOM (register 0x40000084) when \
             more wait; until then its own messages are refused with status 0x33, however often it sends them; --no-vmbus",
        ),
        (
            Hold::EndOfMessage,
            3,
            "slot 2 of vp 0 is empty, but vmbus' VersionResponse and what is behind it, 3 in all, wait for 11 s; the \
             guest has to write EOM (register 0x40000084)",
        ),
        (
            Hold::NoPage,
            2,
            "2 in all, wait for 11 s for slot 2 of vp 0; the guest has to turn its message page on (register 0x40000083)",
        ),
    ] {
        let mut rig = rig(&[]);
        *rig.untaken.lock().unwrap() = Some(held(hold, waiting));
        rig.go_on(60, |_| ());
        let told = rig.told();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("the guest takes no messages: "), "{told:?}");
        assert!(told[0].contains(words), "{told:?}");
    }
}

#[test]
fn messages_that_move_are_not_told() {
    let mut rig = rig(&[]);
    for second in 1..60 {
        let since = second * SECOND;
        *rig.untaken.lock().unwrap() = Some(Untaken {
            since,
            ..held(Hold::Slot, 7)
        });
        rig.go_on(1, read_port(0x28));
    }
    assert!(rig.told().iter().all(|told| !told.contains("messages")));
    let timer = Untaken {
        kind: 0x8000_0010,
        ..held(Hold::Slot, 0)
    };
    let text = verdict::untaken(&timer, 12);
    assert!(text.contains("a timer's expiration lies in slot 2"), "{text}");
    assert!(!text.contains("vmbus"), "{text}");
}

#[test]
fn endless_variable_commands_are_told() {
    let mut rig = rig(&[]);
    for _ in 0..=ENDLESS_NAMES {
        rig.variable(command::NEXT_NAME, 0);
    }
    for _ in 0..=ENDLESS_FAILURES {
        rig.variable(1, 9);
    }
    let told = rig.told();
    assert!(told[0].starts_with("the enumeration of variable names does not end: 20000 names"));
    assert!(told[1].starts_with("SetVariable has failed with EFI_OUT_OF_RESOURCES 1000 times"));
    assert_eq!(told.len(), 2);
}

#[test]
fn a_failed_boot_is_told_with_what_there_was() {
    let mut none = rig(&[]);
    none.fails_to_boot();
    none.go_on(6, |_| ());
    assert!(none.told()[0].contains("this vm has no disk; add --disk FILE"));
    let mut some = rig(&["a.img (scsi)", "b.img (nvme)"]);
    some.fails_to_boot();
    // With the front page disabled it powers off at once.
    some.watch.port_write(0, PM1A_CONTROL, &0x2000_u16.to_le_bytes());
    assert!(
        some.told()[0].starts_with("the firmware has found nothing to boot on a.img (scsi), b.img (nvme): ")
    );
}

#[test]
fn a_loader_that_was_started_is_no_failure() {
    const LOOK: u32 = 0x2C;
    // A boot manager's menu waits, then somebody powers off.
    let mut menu = rig(&["a.img (scsi)"]);
    menu.bios(LOOK);
    menu.go_on(6, read_counter);
    menu.bios(LOOK);
    menu.watch.port_write(0, PM1A_CONTROL, &0x2000_u16.to_le_bytes());
    assert_eq!(menu.told(), [""; 0]);
    // Boot services end: the firmware hands its events over and signals runtime.
    let mut system = rig(&["a.img (scsi)"]);
    system.bios(LOOK);
    system.bios(EVENT_LOG);
    system.variable(command::RUNTIME, 0);
    system.go_on(6, |_| ());
    assert_eq!(system.told(), [""; 0]);
}

#[test]
fn fail_fast_and_little_memory_have_their_words() {
    let mut state = X86State::reset();
    assert_eq!(verdict::fail_fast(&state), None);
    state.gpr[x86defs::state::gpr::RAX] = 1 << 63 | 26;
    state.gpr[x86defs::state::gpr::RCX] = 777;
    assert!(
        verdict::fail_fast(&state)
            .unwrap()
            .contains("EFI_SECURITY_VIOLATION at line 777")
    );
    assert!(little_memory(48 << 20).unwrap().starts_with("-m 48 MB is little"));
    assert_eq!(little_memory(64 << 20), None);
}

/// A PE32+ program of one page with an identity.
fn program(time: u32, size: u32) -> Vec<u8> {
    let mut pe = vec![0; 0x400];
    pe[..2].copy_from_slice(b"MZ");
    pe[0x3C] = 0x80;
    pe[0x80..0x84].copy_from_slice(b"PE\0\0");
    pe[0x88..0x8C].copy_from_slice(&time.to_le_bytes());
    pe[0x98 + 56..0x98 + 60].copy_from_slice(&size.to_le_bytes());
    pe
}

fn section(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = (4 + body.len()) as u32;
    let mut section = len.to_le_bytes().to_vec();
    section[3] = kind;
    section.extend(body);
    section.resize(section.len().next_multiple_of(4), 0);
    section
}

fn volume(files: &[Vec<u8>]) -> Vec<u8> {
    let mut volume = vec![0; 0x48];
    volume[40..44].copy_from_slice(b"_FVH");
    volume[48] = 0x48;
    for sections in files {
        let mut file = vec![0xAB; 24];
        file[18] = 7;
        file[20..23].copy_from_slice(&((24 + sections.len()) as u32).to_le_bytes()[..3]);
        file.extend(sections);
        file.resize(file.len().next_multiple_of(8), 0xFF);
        volume.extend(file);
    }
    volume.resize(volume.len().next_multiple_of(0x1000), 0xFF);
    let len = volume.len() as u64;
    volume[32..40].copy_from_slice(&len.to_le_bytes());
    volume
}

#[test]
fn addresses_become_modules_and_offsets_in_place_and_after_loading() {
    let name = |text: &str| -> Vec<u8> {
        text.encode_utf16()
            .chain([0])
            .flat_map(u16::to_le_bytes)
            .collect()
    };
    let named = [section(0x10, &program(1, 0x3000)), section(0x15, &name("BdsDxe"))].concat();
    let mut te = vec![0; 0x100];
    te[..2].copy_from_slice(b"VZ");
    te[6..8].copy_from_slice(&0x208_u16.to_le_bytes());
    let image = [vec![0; 0x1000], volume(&[named, section(0x12, &te)])].concat();
    let modules = Modules::read(&image, 0x10_0000);
    let memory = GuestMemory::allocate(&[(0, 16 << 20)]).unwrap();
    let at = |address| modules.locate(&memory, address);
    let first = 0x10_1000 + 0x48 + 24 + 4;
    assert_eq!(at(first + 0x123).unwrap(), "BdsDxe+0x123");
    // A file without a name goes by its GUID; TE offsets count what was stripped.
    let second = 0x10_1000 + ((0x48 + 24 + 0x404 + 20 + 7) & !7) + 24 + 4;
    assert_eq!(
        at(second + 0x10).unwrap(),
        "abababab-abab-abab-abab-abababababab+0x1f0"
    );
    assert_eq!(at(0x80_0000), None);
    // Loaded: found by its headers.
    memory.write(0x90_0000, &program(1, 0x3000)).unwrap();
    assert_eq!(at(0x90_2345).unwrap(), "BdsDxe+0x2345, loaded at 0x900000");
    assert_eq!(at(0x90_3000), None);
    memory.write(0xA0_0000, &program(5, 0x2000)).unwrap();
    assert!(
        at(0xA0_1001)
            .unwrap()
            .contains("+0x1001, that is not in the firmware image")
    );
    // Nonsense names nothing and ends.
    for cut in (0..image.len()).step_by(37) {
        Modules::read(&image[..cut], 0);
    }
    assert_eq!(at(u64::MAX), None);
}
