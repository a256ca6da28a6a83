// SPDX-License-Identifier: MIT
//! The monitor: single-byte commands from COM1 (`guest_protocol::control`).
//!
//! Always true: it waits for as long as it takes, and asks the port without interrupts. Not here: when a
//! payload enters it.

use crate::power::{self, End};
use crate::{cpu, report, serial};
use guest_protocol::control::{MONITOR_PROMPT, command};

/// Takes commands until one of them ends the VM.
pub fn run() -> End {
    loop {
        report::text(MONITOR_PROMPT);
        match wait_for_byte() {
            command::POWER_OFF => return ended(End::PowerOff),
            command::RESET => return ended(End::Reset),
            command::CRASH => return ended(End::Crash),
            command::TEST_EXIT => {
                let code = wait_for_byte().wrapping_sub(b'0');
                report::line(format_args!("exit {code}"));
                power::test_exit(u32::from(code));
            }
            command::SPIN => {
                report::line(format_args!("spinning"));
                loop {
                    cpu::relax();
                }
            }
            command::HALT => {
                report::line(format_args!("halted"));
                cpu::halt();
            }
            byte => report::line(format_args!("input: {byte:#04x}")),
        }
    }
}

fn ended(end: End) -> End {
    report::line(format_args!("{end:?}"));
    end
}

fn wait_for_byte() -> u8 {
    loop {
        if let Some(byte) = serial::read() {
            return byte;
        }
        cpu::relax();
    }
}
