// SPDX-License-Identifier: MIT
//! A reset that happens once: the mark of it lies in CMOS memory, which a reset keeps.
//!
//! Always true: without a mark that was kept there is no reset, or it would repeat for ever.

use guest_rt::cmos;
use guest_rt::power::End;
use guest_rt::protocol::ports::{BOOT_MARK, CMOS_BOOT_MARK};
use guest_rt::report::{check, info};

/// Whether the boot before this one asked for the reset that led here; says which boot this is, and
/// clears the mark.
pub(crate) fn take() -> bool {
    let marked = cmos::read(CMOS_BOOT_MARK) == BOOT_MARK;
    if marked {
        cmos::write(CMOS_BOOT_MARK, 0);
    }
    info("boot", format_args!("{}", if marked { 2 } else { 1 }));
    marked
}

/// Sets the mark and asks for a reset.
pub(crate) fn reset_once() -> End {
    cmos::write(CMOS_BOOT_MARK, BOOT_MARK);
    let kept = cmos::read(CMOS_BOOT_MARK) == BOOT_MARK;
    check("cmos-byte-kept", kept, format_args!("index {CMOS_BOOT_MARK:#x}"));
    if kept { End::Reset } else { End::PowerOff }
}
