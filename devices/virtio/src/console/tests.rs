// SPDX-License-Identifier: MIT
//! Bytes in both directions.

use super::*;
use crate::core::VERSION_1;
use crate::lock;
use crate::testing::Driver;
use std::collections::VecDeque;
use std::sync::Mutex;

#[derive(Default)]
struct Terminal {
    shown: Mutex<Vec<u8>>,
    typed: Mutex<VecDeque<u8>>,
}

impl ConsoleIo for Terminal {
    fn output(&self, bytes: &[u8]) {
        lock(&self.shown).extend(bytes);
    }

    fn input(&self, buffer: &mut [u8]) -> usize {
        let mut typed = lock(&self.typed);
        let count = buffer.len().min(typed.len());
        for (to, from) in buffer.iter_mut().zip(typed.drain(..count)) {
            *to = from;
        }
        count
    }
}

#[test]
fn what_the_guest_writes_is_shown_and_what_is_typed_arrives_when_there_is_room() {
    for threads in [false, true] {
        let terminal = Arc::new(Terminal::default());
        let mut driver = Driver::new(threads, |_| Box::new(Console::new(terminal.clone())));
        driver.start(VERSION_1, 2);
        driver.memory.write(0x100, &[b'a'; 9000]).unwrap();
        assert_eq!(
            driver.transact(OUTPUT, &[(0x100, 9000, false), (0x100, 1, false)]),
            0
        );
        assert_eq!(*lock(&terminal.shown), [b'a'; 9001]);
        // A buffer outside RAM shows nothing.
        driver.transact(OUTPUT, &[(u64::MAX - 5, 9, false)]);
        assert_eq!(lock(&terminal.shown).len(), 9001);

        driver.submit(INPUT, &[(0x2000, 4, true)]);
        driver.notify(INPUT as u16);
        assert!(driver.used(INPUT).is_none(), "nothing was typed");
        lock(&terminal.typed).extend(b"hello");
        driver.function.waker().wake();
        assert_eq!(driver.wait_used(INPUT).1, 4);
        assert_eq!(driver.ram(0x2000, 4), b"hell");
        assert_eq!(driver.transact(INPUT, &[(0x2000, 4, true)]), 1);
        assert_eq!(driver.ram(0x2000, 1), b"o");
    }
}

#[test]
fn a_chain_shows_no_more_than_its_limit() {
    let terminal = Arc::new(Terminal::default());
    let mut driver = Driver::new(false, |_| Box::new(Console::new(terminal.clone())));
    driver.start(VERSION_1, 2);
    driver.transact(OUTPUT, &[(0, 0x20_0000, false), (0, 0x20_0000, false)]);
    assert_eq!(lock(&terminal.shown).len(), MOST_OUTPUT);
}
