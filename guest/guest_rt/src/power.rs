// SPDX-License-Identifier: MIT
//! How a payload ends.
//!
//! Always true: every way ends, on a machine without the device asked for with a triple fault at last, so
//! that no test hangs.

use crate::{cpu, port, report, time::Deadline};
use guest_protocol::ports;
use guest_protocol::report::EXIT_FAILED;

/// What happens when a payload's main function returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Power off through PM1a; when a check failed, try the test-exit port first.
    PowerOff,
    /// Reset through the reset register.
    Reset,
    /// Write to the test-exit port: 0, or [`EXIT_FAILED`] when a check failed.
    TestExit,
    /// Triple fault.
    Crash,
}

/// SLP_TYP in a PM1 control register.
const SLEEP_TYPE: u16 = 7 << SLEEP_TYPE_SHIFT;
const SLEEP_TYPE_SHIFT: u32 = 10;
/// How long a device has to act, in milliseconds, before the next way is tried.
const PATIENCE_MS: u64 = 200;

/// Ends the VM.
pub fn end(end: End) -> ! {
    let failed = report::failed() != 0;
    let code = if failed { EXIT_FAILED } else { 0 };
    match end {
        End::PowerOff if failed => {
            port::write_u32(ports::TEST_EXIT, code);
            power_off()
        }
        End::PowerOff => power_off(),
        End::Reset => reset(),
        End::TestExit => test_exit(code),
        End::Crash => cpu::triple_fault(),
    }
}

/// Writes to the test-exit port; powers off on a machine without it.
pub fn test_exit(code: u32) -> ! {
    port::write_u32(ports::TEST_EXIT, code);
    wait();
    power_off()
}

/// PM1a control with SLP_EN; as firmware does, the other bits are kept (msvm-machine 11).
pub fn power_off() -> ! {
    let control = port::read_u16(ports::PM1A_CONTROL);
    port::write_u16(ports::PM1A_CONTROL, (control & !SLEEP_TYPE) | ports::PM1A_SLP_EN);
    wait();
    cpu::triple_fault()
}

/// A sleep state as an OS enters it: SLP_TYP and SLP_EN in one write (ACPI 6.5, 4.8.4.2.1).
pub fn sleep(pm1a_control: u16, sleep_type: u8) -> ! {
    let control = port::read_u16(pm1a_control) & !SLEEP_TYPE;
    let wanted = u16::from(sleep_type) << SLEEP_TYPE_SHIFT & SLEEP_TYPE;
    port::write_u16(pm1a_control, control | wanted | ports::PM1A_SLP_EN);
    wait();
    report::line(format_args!("panic: sleep type {sleep_type} did nothing"));
    test_exit(EXIT_FAILED)
}

/// The reset register.
pub fn reset() -> ! {
    port::write_u8(ports::RESET, ports::RESET_VALUE);
    wait();
    report::line(format_args!("panic: the reset register did nothing"));
    cpu::triple_fault()
}

fn wait() {
    Deadline::in_ms(PATIENCE_MS).wait(|| false);
}
