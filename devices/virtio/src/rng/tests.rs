// SPDX-License-Identifier: MIT
//! Buffers filled and not filled.

use super::*;
use crate::core::VERSION_1;
use crate::testing::Driver;

#[test]
fn buffers_are_filled_from_the_source_and_given_back_empty_when_it_fails() {
    let mut calls = 0;
    let source = move |bytes: &mut [u8]| {
        calls += 1;
        bytes.fill(calls);
        if calls == 2 { Err("dry".to_owned()) } else { Ok(()) }
    };
    let mut driver = Driver::new(false, |_| Box::new(Rng::new(Box::new(source))));
    driver.start(VERSION_1, 1);
    assert_eq!(driver.transact(0, &[(0x1000, 10, true), (0x2000, 6, true)]), 16);
    assert_eq!(
        (driver.ram(0x1000, 10), driver.ram(0x2000, 7)),
        (vec![1; 10], vec![1, 1, 1, 1, 1, 1, 0])
    );
    assert_eq!(driver.transact(0, &[(0x1000, 10, true)]), 0);
    assert_eq!(driver.ram(0x1000, 1), [1]);
    assert_eq!(driver.transact(0, &[(0x1000, 0x10_0000, true)]), MOST as u32);
    assert_eq!(driver.transact(0, &[(0x1000, 1, false)]), 0, "no room at all");
}
