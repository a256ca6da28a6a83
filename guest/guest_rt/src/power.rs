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
    let sleep_type = 7 << 10;
    port::write_u16(ports::PM1A_CONTROL, (control & !sleep_type) | ports::PM1A_SLP_EN);
    wait();
    cpu::triple_fault()
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
