// SPDX-License-Identifier: MIT
//! Cases about clocks.

use crate::{Case, Outcome, expect};
use guest_rt::protocol::ports::PM_TIMER;
use guest_rt::time::Deadline;
use guest_rt::{cmos, cpu, port};

pub(crate) const CASES: &[Case] = &[
    ("time-tsc-advances", tsc),
    ("time-pm-timer-advances", pm_timer),
    ("time-clocks-agree", agree),
    ("time-rtc-is-valid", rtc),
];

/// Ticks of the PM timer in 2 ms.
const TWO_MS: u32 = 2 * guest_rt::protocol::ports::PM_TIMER_TICKS_PER_MS;

fn tsc() -> Outcome {
    let mut last = cpu::tsc();
    for _ in 0..100 {
        let now = cpu::tsc();
        expect(now > last, "time stamp counter", now)?;
        last = now;
    }
    Ok(())
}

fn pm_timer() -> Outcome {
    let first = port::read_u32(PM_TIMER);
    let mut last = first;
    let moved = Deadline::in_ms(200).wait(|| {
        let now = port::read_u32(PM_TIMER);
        let is_later = now.wrapping_sub(last) < 1 << 31;
        if is_later {
            last = now;
        }
        is_later && now.wrapping_sub(first) >= TWO_MS
    });
    expect(moved, "pm timer", last)
}

/// The TSC moves while the PM timer does, and not a hundred times slower than any CPU.
fn agree() -> Outcome {
    let (tsc, pm) = (cpu::tsc(), port::read_u32(PM_TIMER));
    Deadline::in_ms(200).wait(|| port::read_u32(PM_TIMER).wrapping_sub(pm) >= TWO_MS);
    let ticks = cpu::tsc() - tsc;
    expect(ticks >= 20_000, "time stamp counter ticks in 2 ms", ticks)
}

/// Month and day in range, in BCD or binary as register B says.
fn rtc() -> Outcome {
    let binary = cmos::read(0x0B) & 4 != 0;
    let number = |index| {
        let value = cmos::read(index);
        if binary {
            value
        } else {
            (value >> 4) * 10 + (value & 15)
        }
    };
    let valid = Deadline::in_ms(100).wait(|| cmos::read(0x0A) & 0x80 == 0);
    expect(valid, "update in progress", cmos::read(0x0A))?;
    expect((1..=31).contains(&number(7)), "day", number(7))?;
    expect((1..=12).contains(&number(8)), "month", number(8))?;
    expect(cmos::read(0x0D) & 0x80 != 0, "register D", cmos::read(0x0D))
}
