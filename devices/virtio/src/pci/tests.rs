// SPDX-License-Identifier: MIT
//! The transport as a driver sees it.

use crate::core::{EVENT_INDEX, INDIRECT, VERSION_1};
use crate::testing::{ACKNOWLEDGED, DRIVER_OK, Driver, FEATURES_OK};
use crate::{Progress, QueueError, VirtQueue, VirtioDevice};
use chipset_device::Device;
use pci::PciFunction;

/// Returns every chain, reversed: what it can read into what it can write.
struct Echo;

impl VirtioDevice for Echo {
    fn kind(&self) -> u16 {
        9
    }
    fn class(&self) -> [u8; 3] {
        [0xFF, 0, 0]
    }
    fn features(&self) -> u64 {
        1 << 3
    }
    fn queue_sizes(&self) -> &[u16] {
        &[64, 8]
    }
    fn read_config(&self, offset: usize, data: &mut [u8]) {
        data.fill(offset as u8);
    }
    fn activate(&mut self, _features: u64) {}
    fn process(&mut self, queues: &mut [VirtQueue]) -> Result<Progress, QueueError> {
        for queue in queues {
            while let Some(chain) = queue.pop()? {
                let mut bytes = vec![0; chain.readable.total() as usize];
                chain.readable.read(queue.ram(), &mut bytes).unwrap_or(0);
                bytes.reverse();
                let written = chain.writable.write(queue.ram(), &bytes).unwrap_or(0);
                queue.push(chain, written as u32)?;
            }
        }
        Ok(Progress::Idle)
    }
    fn reset(&mut self) {}
}

fn driver(threads: bool) -> Driver {
    Driver::new(threads, |_| Box::new(Echo))
}

#[test]
fn the_function_has_the_identity_and_every_structure_of_the_specification() {
    let mut driver = driver(false);
    let mut id = [0; 4];
    driver.function.config_read(0, &mut id);
    assert_eq!(u32::from_le_bytes(id), 0x1049_1AF4);
    driver.function.config_read(0x2C, &mut id);
    assert_eq!(u32::from_le_bytes(id), 0x1049_1AF4);
    assert_eq!((driver.config_byte(8), driver.config_byte(0x0B)), (1, 0xFF));
    let mut found = Vec::new();
    let mut at = u16::from(driver.config_byte(0x34));
    while at != 0 {
        let kind = driver.config_byte(at);
        found.push((kind, if kind == 9 { driver.config_byte(at + 3) } else { 0 }));
        at = driver.config_byte(at + 1).into();
    }
    assert_eq!(found, [(0x11, 0), (9, 1), (9, 2), (9, 3), (9, 4), (9, 5)]);
}

#[test]
fn features_that_were_not_offered_or_lack_version_1_are_not_agreed() {
    let driver = driver(false);
    let offered = driver.negotiate(u64::MAX);
    assert_eq!(offered, 1 << 3 | INDIRECT | EVENT_INDEX | VERSION_1);
    assert_eq!(driver.status(), ACKNOWLEDGED | FEATURES_OK);
    driver.negotiate(1 << 3);
    assert_eq!(driver.status(), ACKNOWLEDGED, "without version 1");
    driver.write(0x14, &[ACKNOWLEDGED | FEATURES_OK | DRIVER_OK]);
    assert_eq!(driver.status(), ACKNOWLEDGED, "nor does it start");
    driver.negotiate(VERSION_1);
    driver.write(0x14, &[0]);
    driver.write(0xC, &(1u32 << 9).to_le_bytes());
    driver.write(8, &1u32.to_le_bytes());
    driver.write(0xC, &1u32.to_le_bytes());
    driver.write(0x14, &[ACKNOWLEDGED | FEATURES_OK]);
    assert_eq!(driver.status(), ACKNOWLEDGED, "a bit that was not offered");
}

#[test]
fn chains_come_back_with_interrupts_by_message_and_by_pin() {
    for threads in [false, true] {
        for event_index in [0, EVENT_INDEX] {
            let mut driver = driver(threads);
            driver.start(VERSION_1 | INDIRECT | event_index, 2);
            driver.memory.write(0x100, b"abcdef").unwrap();
            let pieces = [
                (0x100, 4, false),
                (0x104, 2, false),
                (0x200, 3, true),
                (0x300, 16, true),
            ];
            assert_eq!(driver.transact(0, &pieces), 6);
            assert_eq!(
                (driver.ram(0x200, 3), driver.ram(0x300, 3)),
                (b"fed".to_vec(), b"cba".to_vec())
            );
            wait(|| *crate::lock(&driver.record.line));
            assert_eq!(driver.config_byte(6) & 8, 8);
            assert_eq!(driver.read::<1>(0x1000), [1], "ISR");
            assert!(!*crate::lock(&driver.record.line), "reading ISR lowers the pin");
            driver.enable_msix();
            for n in 0..100 {
                assert_eq!(
                    driver.transact(1, &[(0x100, 6, false), (0x200, 64, true)]),
                    6,
                    "{n}"
                );
            }
            wait(|| !crate::lock(&driver.record.messages).is_empty());
            assert!(
                crate::lock(&driver.record.messages)
                    .iter()
                    .all(|m| *m == (0xFEE0_0000, 0x41))
            );
            assert!(!*crate::lock(&driver.record.line));
        }
    }
}

fn wait(condition: impl Fn() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !condition() {
        assert!(std::time::Instant::now() < end);
        std::thread::yield_now();
    }
}

#[test]
fn an_invalid_ring_stops_the_device_until_reset_and_tells_the_driver() {
    for threads in [false, true] {
        let mut driver = driver(threads);
        driver.start(VERSION_1, 2);
        driver.write(0x16, &0u16.to_le_bytes());
        // More chains than the ring has.
        driver.memory.write(0x30_4002, &100u16.to_le_bytes()).unwrap();
        driver.notify(0);
        wait(|| driver.status() & 0x40 != 0);
        wait(|| *crate::lock(&driver.record.line));
        assert_eq!(driver.read::<1>(0x1000), [2], "configuration changed");
        driver.notify(0);
        assert!(driver.used(0).is_none());
        driver.start(VERSION_1, 2);
        assert_eq!(driver.transact(0, &[(0x100, 4, false), (0x200, 4, true)]), 4);
    }
}

#[test]
fn a_readable_piece_behind_a_writable_one_is_refused() {
    let mut driver = driver(false);
    driver.start(VERSION_1, 1);
    driver.submit(0, &[(0x200, 4, true), (0x100, 4, false)]);
    driver.notify(0);
    assert_ne!(driver.status() & 0x40, 0);
    assert!(driver.used(0).is_none());
}

#[test]
fn rings_outside_ram_stop_the_device() {
    let mut driver = driver(false);
    driver.negotiate(VERSION_1);
    driver.add_queue(0);
    driver.write(0x14, &[0]);
    driver.negotiate(VERSION_1);
    driver.write(0x16, &[0, 0]);
    for at in [0x20, 0x28, 0x30] {
        driver.write(at, &0xFFFF_F000_FFFF_F000u64.to_le_bytes());
    }
    driver.write(0x1C, &[1, 0]);
    driver.write(0x14, &[ACKNOWLEDGED | FEATURES_OK | DRIVER_OK]);
    driver.notify(0);
    assert_ne!(driver.status() & 0x40, 0);
}

#[test]
fn enabled_queues_keep_their_rings_and_sizes_are_powers_of_two() {
    let mut driver = driver(false);
    driver.negotiate(VERSION_1);
    driver.write(0x16, &1u16.to_le_bytes());
    assert_eq!(driver.read::<2>(0x18), [8, 0]);
    for bad in [0u16, 3, 16] {
        driver.write(0x18, &bad.to_le_bytes());
        assert_eq!(driver.read::<2>(0x18), [8, 0]);
    }
    driver.write(0x18, &[4, 0]);
    driver.write(0x20, &0x1000u64.to_le_bytes());
    driver.write(0x1C, &[1, 0]);
    driver.write(0x18, &[2, 0]);
    driver.write(0x20, &0x2000u64.to_le_bytes());
    driver.write(0x1A, &[99, 0]);
    let now = driver.read::<32>(0x18);
    assert_eq!((now[0], now[4], &now[8..10]), (4, 1, &[0, 0x10][..]));
    assert_eq!(now[2..4], [0xFF, 0xFF], "a message that does not exist");
    driver.write(0x16, &7u16.to_le_bytes());
    assert_eq!(driver.read::<2>(0x18), [0, 0], "a queue that does not exist");
    driver.function.reset();
    assert_eq!((driver.status(), driver.read::<2>(0x16)), (0, [0, 0]));
}

#[test]
fn configuration_accesses_reach_the_bar_through_the_access_capability() {
    let mut driver = driver(false);
    let mut at = u16::from(driver.config_byte(0x34));
    while driver.config_byte(at) != 9 || driver.config_byte(at + 3) != 5 {
        at = driver.config_byte(at + 1).into();
    }
    let mut access = |offset: u32, len: u32, write: Option<&[u8]>| {
        driver.function.config_write(at + 8, &offset.to_le_bytes());
        driver.function.config_write(at + 12, &len.to_le_bytes());
        let mut data = vec![0; len.min(4) as usize];
        match write {
            Some(data) => driver.function.config_write(at + 16, data),
            None => driver.function.config_read(at + 16, &mut data),
        }
        data
    };
    access(0x14, 1, Some(&[3]));
    assert_eq!(access(0x14, 1, None), [3]);
    assert_eq!(access(0x12, 2, None), [2, 0]);
    assert_eq!(access(0x2000, 4, None), [0; 4]);
    assert_eq!(access(0x2010, 4, None), [0x10; 4]);
    access(0xFFFF_FFFC, 4, None);
    access(3, 4, None);
}
