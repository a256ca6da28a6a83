// SPDX-License-Identifier: MIT
//! The controller as a driver sees it.

use crate::lock;
use crate::testing::{Driver, ENTRIES, Entry, RAM, io};
use chipset_device::Device;
use pci::PciFunction;
use std::time::{Duration, Instant};

const FLUSH: u8 = 0;
const WRITE: u8 = 1;
const READ: u8 = 2;
const ZEROES: u8 = 8;
const DATASET: u8 = 9;

fn identify(what: u32, namespace: u32, gpa: u64) -> Entry {
    Entry {
        opcode: 6,
        namespace,
        prp: (gpa, 0),
        dwords: [what, 0, 0, 0, 0, 0],
    }
}

fn ready(threads: bool) -> Driver {
    let mut driver = Driver::new(threads);
    driver.enable();
    driver.make_pair(1);
    driver
}

#[test]
fn the_controller_and_its_namespaces_identify_themselves() {
    let mut driver = Driver::new(false);
    driver.enable();
    driver.send(0, identify(1, 0, 0x1000)).unwrap();
    let bytes = driver.ram(0x1000, 4096);
    assert_eq!(&bytes[4..9], b"nvme0");
    assert_eq!((bytes[512], bytes[513], bytes[516]), (0x66, 0x44, 2));
    driver.send(0, identify(2, 0, 0x1000)).unwrap();
    assert_eq!(driver.ram(0x1000, 12), [1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    driver.send(0, identify(2, 1, 0x1000)).unwrap();
    assert_eq!(driver.ram(0x1000, 8), [2, 0, 0, 0, 0, 0, 0, 0]);
    driver.send(0, identify(0, 1, 0x1000)).unwrap();
    let bytes = driver.ram(0x1000, 4096);
    assert_eq!((&bytes[..8], bytes[130]), (&8192u64.to_le_bytes()[..], 9));
    driver.send(0, identify(3, 2, 0x1000)).unwrap();
    assert_eq!(driver.ram(0x1000, 2), [3, 16]);
    assert_eq!(driver.send(0, identify(0, 3, 0x1000)), Err(0x0B));
    assert_eq!(driver.send(0, identify(99, 1, 0x1000)), Err(0x02));
    assert_eq!(driver.send(0, identify(1, 0, 0x1002)), Err(0x13));
    assert_eq!(driver.send(0, identify(1, 0, RAM)), Err(0x04));
}

#[test]
fn blocks_are_written_read_zeroed_and_deallocated() {
    for threads in [false, true] {
        let mut driver = ready(threads);
        driver.send(1, io(READ, 3, 2, (0x1000, 0))).unwrap();
        let bytes = driver.ram(0x1000, 1024);
        assert_eq!((bytes[0], bytes[512]), (3, 4));
        driver.memory.write(0x1000, &[0xA7; 1024]).unwrap();
        driver.send(1, io(WRITE, 100, 2, (0x1000, 0))).unwrap();
        driver.send(1, io(ZEROES, 200, 8, (0, 0))).unwrap();
        let mut range = [0; 16];
        range[4..8].copy_from_slice(&64u32.to_le_bytes());
        range[8..16].copy_from_slice(&1024u64.to_le_bytes());
        driver.memory.write(0x5000, &range).unwrap();
        let dataset = Entry {
            dwords: [0, 4, 0, 0, 0, 0],
            ..io(DATASET, 0, 1, (0x5000, 0))
        };
        driver.send(1, dataset).unwrap();
        driver.send(1, io(FLUSH, 0, 1, (0, 0))).unwrap();
        let every = Entry {
            namespace: u32::MAX,
            ..io(FLUSH, 0, 1, (0, 0))
        };
        driver.send(1, every).unwrap();
        let image = std::fs::read(driver.folder.path().join("first")).unwrap();
        assert_eq!(image[100 * 512..102 * 512], [0xA7; 1024]);
        assert_eq!(
            (
                image[199 * 512],
                image[200 * 512],
                image[207 * 512],
                image[208 * 512]
            ),
            (199, 0, 0, 208)
        );
    }
}

#[test]
fn data_may_begin_anywhere_and_go_over_lists_of_pages() {
    let mut driver = ready(false);
    // One page and a half, from the middle of a page.
    driver.send(1, io(READ, 0, 8, (0x1800, 0x4000))).unwrap();
    assert_eq!((driver.ram(0x1800, 1), driver.ram(0x1FFF, 1)), (vec![0], vec![3]));
    assert_eq!((driver.ram(0x4000, 1), driver.ram(0x47FF, 1)), (vec![4], vec![7]));
    // 300 KiB over a list that begins near the end of a page and goes on in another.
    let (list, more, pages) = (0x1_0FF0u64, 0x2_0000u64, 74u64);
    let page = |n: u64| 0x10_0000 + n * 0x2000;
    driver.memory.write(list, &page(1).to_le_bytes()).unwrap();
    driver.memory.write(list + 8, &more.to_le_bytes()).unwrap();
    for n in 2..=pages {
        driver
            .memory
            .write(more + (n - 2) * 8, &page(n).to_le_bytes())
            .unwrap();
    }
    driver.send(1, io(READ, 16, 600, (page(0), list))).unwrap();
    for n in 0..pages {
        assert_eq!(driver.ram(page(n), 1), [(16 + n * 8) as u8], "page {n}");
    }
}

#[test]
fn commands_that_cannot_be_carried_out_say_why() {
    let mut driver = ready(false);
    assert_eq!(driver.send(1, io(READ, 8191, 2, (0x1000, 0))), Err(0x80));
    assert_eq!(driver.send(1, io(READ, u64::MAX, 1, (0x1000, 0))), Err(0x80));
    assert_eq!(
        driver.send(1, io(READ, 0, 0x1000, (0x1000, 0x2000))),
        Err(0x02),
        "too large"
    );
    assert_eq!(driver.send(1, io(READ, 0, 16, (0x1000, 0x2001))), Err(0x13));
    assert_eq!(driver.send(1, io(READ, 0, 32, (0x1000, 0x2004))), Err(0x13));
    assert_eq!(
        driver.send(1, io(READ, 0, 32, (0x1000, RAM))),
        Err(0x04),
        "a list outside RAM"
    );
    assert_eq!(driver.send(1, io(READ, 0, 1, (RAM, 0))), Err(0x04));
    assert_eq!(driver.send(1, io(WRITE, 0, 1, (!0xFFF, 0))), Err(0x04));
    assert_eq!(driver.send(1, io(0x55, 0, 1, (0, 0))), Err(0x01));
    let second = |entry| Entry {
        namespace: 2,
        ..entry
    };
    assert_eq!(driver.send(1, second(io(WRITE, 0, 1, (0x1000, 0)))), Err(0x182));
    assert_eq!(driver.send(1, second(io(ZEROES, 0, 1, (0, 0)))), Err(0x182));
    driver.send(1, second(io(READ, 7, 1, (0x1000, 0)))).unwrap();
    for namespace in [0, 3, u32::MAX] {
        let entry = Entry {
            namespace,
            ..io(READ, 0, 1, (0x1000, 0))
        };
        assert_eq!(driver.send(1, entry), Err(0x0B));
    }
    let admin = |opcode, dwords| Entry {
        opcode,
        dwords,
        ..Entry::default()
    };
    let mut refused = |opcode, d10, d11, status| {
        let entry = admin(opcode, [d10, d11, 0, 0, 0, 0]);
        assert_eq!(
            driver.send(0, entry),
            Err(status),
            "{opcode:#x} {d10:#x} {d11:#x}"
        );
    };
    refused(0x7F, 0, 0, 0x01);
    refused(5, 0xF_0000, 1, 0x101);
    refused(5, 0xF_0011, 1, 0x101);
    refused(5, 0xF_0001, 1, 0x101);
    refused(5, 2, 1, 0x102);
    refused(5, 0xFFFF_0002, 1, 0x102);
    refused(5, 0xF_0002, 0, 0x02);
    refused(5, 0xF_0002, 17 << 16 | 3, 0x108);
    refused(1, 0xF_0002, 1, 0x100);
    refused(1, 0xF_0002, 5 << 16 | 1, 0x100);
    refused(4, 1, 0, 0x10C);
    refused(4, 0, 0, 0x101);
    refused(0, 0, 0, 0x101);
    refused(0, 9, 0, 0x101);
    refused(2, 77, 0, 0x109);
    refused(9, 0x55, 0, 0x02);
    refused(9, 7, 0xFFFF, 0x02);
    assert_eq!(driver.send(0, admin(9, [7, 0, 0, 0, 0, 0])), Ok(0xF_000F));
    assert_eq!(driver.send(0, admin(9, [0xB, 5, 0, 0, 0, 0])), Ok(0));
    assert_eq!(driver.send(0, admin(0xA, [0xB, 0, 0, 0, 0, 0])), Ok(5));
    assert_eq!(driver.send(0, admin(8, [0; 6])), Ok(1));
    for _ in 0..4 {
        driver.submit(0, &admin(0xC, [0; 6]));
    }
    assert_eq!(driver.send(0, admin(0xC, [0; 6])), Err(0x105));
    assert_eq!(driver.send(0, admin(0, [1, 0, 0, 0, 0, 0])), Ok(0));
    assert_eq!(driver.send(0, admin(4, [1, 0, 0, 0, 0, 0])), Ok(0));
}

#[test]
fn interrupts_come_by_pin_until_the_completions_are_taken_and_then_by_message() {
    for threads in [false, true] {
        let mut driver = ready(threads);
        // The admin queue's completions were taken.
        wait(|| !*lock(&driver.record.line));
        driver.submit(1, &io(READ, 0, 1, (0x1000, 0)));
        driver.ring(1);
        wait(|| *lock(&driver.record.line));
        driver.write(0x0C, 1 << 1);
        assert!(!*lock(&driver.record.line), "masked");
        driver.write(0x10, 1 << 1);
        assert!(*lock(&driver.record.line));
        driver.wait(1);
        wait(|| !*lock(&driver.record.line));
        driver.enable_msix();
        lock(&driver.record.messages).clear();
        driver.send(1, io(READ, 0, 1, (0x1000, 0))).unwrap();
        wait(|| *lock(&driver.record.messages) == [0x41]);
        assert!(!*lock(&driver.record.line));
    }
}

fn wait(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end);
        std::thread::yield_now();
    }
}

#[test]
fn a_full_completion_queue_holds_commands_back_and_loses_none() {
    for threads in [false, true] {
        let mut driver = ready(threads);
        driver.enable_msix();
        let mut expected = std::collections::VecDeque::new();
        for round in 0..200 {
            // As many as the submission queue holds; completions are taken one by one meanwhile.
            while expected.len() < ENTRIES as usize - 1 {
                let entry = io(READ, u64::from(round % 8u32), 1, (0x1000, 0));
                expected.push_back(driver.submit(1, &entry));
                driver.ring(1);
            }
            let (_, status, id) = driver.wait(1);
            assert_eq!((status, Some(id)), (0, expected.pop_front()));
        }
        while let Some(id) = expected.pop_front() {
            assert_eq!(driver.wait(1).2, id);
        }
    }
}

#[test]
fn queues_outside_ram_and_bad_configurations_are_fatal_until_reset() {
    let mut driver = Driver::new(false);
    driver.write(0x24, 0x000F_000F);
    driver.write(0x2C, 0x7FFF_0000);
    driver.write(0x14, 0x0046_0001);
    assert_eq!(driver.read(0x1C), 1);
    driver.write(0x1000, 1);
    assert_eq!(driver.read(0x1C), 3, "fatal");
    for (sizes, low, configuration) in [
        (0x000F_0000, 0x1000, 1),
        (0x000F_000F, 0x1800, 1),
        (0x000F_000F, 0x1000, 0x81),
        (0x000F_000F, 0x1000, 0x11),
    ] {
        driver.write(0x14, 0);
        assert_eq!(driver.read(0x1C), 0);
        driver.write(0x24, sizes);
        driver.write(0x28, low);
        driver.write(0x2C, 0);
        driver.write(0x14, configuration);
        assert_eq!(driver.read(0x1C), 2, "{sizes:#x} {low:#x} {configuration:#x}");
    }
    driver.enable();
    driver.send(0, identify(1, 0, 0x1000)).unwrap();
    driver.write(0x14, 0x0046_4001);
    assert_eq!(driver.read(0x1C), 9, "shut down");
    driver.function.reset();
    assert_eq!(
        (driver.read(0x14), driver.read(0x1C), driver.read(0x24)),
        (0, 0, 0)
    );
}

#[test]
fn log_pages_are_given_as_far_as_they_go() {
    let mut driver = Driver::new(false);
    driver.enable();
    let log = |page: u32, dwords: u32, offset: u32| Entry {
        opcode: 2,
        prp: (0x1000, 0x2000),
        dwords: [page | (dwords - 1) << 16, 0, offset, 0, 0, 0],
        ..Entry::default()
    };
    driver.send(0, log(2, 128, 0)).unwrap();
    assert_eq!(driver.ram(0x1001, 2), 300u16.to_le_bytes());
    driver.send(0, log(3, 2000, 0)).unwrap();
    assert_eq!(driver.ram(0x1000, 1), [1]);
    driver.send(0, log(1, 16, 64)).unwrap();
    assert_eq!(driver.send(0, log(1, 16, 65)), Err(0x02));
}

/// Registers, doorbells, queue contents and configuration space, all of them random.
#[test]
fn a_guest_that_does_anything_never_stops_the_host() {
    let mut driver = Driver::new(false);
    let mut state = 0x1234_5678_9ABC_DEF1u64;
    let mut next = move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    };
    for round in 0..60_000u32 {
        let value = next() >> (next() % 64);
        match next() % 12 {
            0 => driver.write((next() % 0x40) & !3, value as u32),
            1 => {
                let _ = driver.read(next() % 0x4000);
            }
            2 => driver.write((0x2000 + next() % 0x2000) & !3, value as u32),
            3 => driver
                .function
                .config_write((next() % 0x100) as u16 & !3, &(value as u32).to_le_bytes()),
            4 | 5 => driver.write((0x1000 + next() % 0x88) & !3, (next() % 20) as u32),
            6 if round % 64 == 0 => driver.enable(),
            _ => {
                let queue = (next() % 3) as u16;
                let at = Driver::submission(queue) + next() % 16 * 64;
                let mut entry = [0u8; 64];
                entry.iter_mut().for_each(|byte| *byte = next() as u8);
                entry[0] = (next() % 13) as u8;
                if next() % 4 != 0 {
                    entry[1] = 0;
                    entry[4..8].copy_from_slice(&((next() % 3) as u32).to_le_bytes());
                    entry[24..40].fill(0);
                    entry[25..27].copy_from_slice(&((next() % 0x7FF0) as u16 & 0xFFF0).to_le_bytes());
                    entry[40..64].fill(0);
                    entry[40] = (next() % 4) as u8;
                    entry[42] = (next() % 32) as u8;
                    entry[44] = (next() % 4) as u8;
                    entry[46] = (next() % 3) as u8;
                    entry[48] = (next() % 64) as u8;
                }
                driver.memory.write(at, &entry).unwrap();
            }
        }
    }
    driver.enable();
    driver.send(0, identify(1, 0, 0x1000)).unwrap();
}
