// SPDX-License-Identifier: MIT
//! How a test tells a payload what to do.
//!
//! `uefi_probe` takes its behaviour from what every way of booting it can pass, in this order: the SMBIOS
//! chassis asset tag of the configuration blob when it begins with `probe:` ([`Behaviour::from_tag`]),
//! else the blob's flags ([`Behaviour::from_uefi_flags`]). The other payloads take `key=value` words of
//! their command line ([`argument`]).
//!
//! In the monitor a payload reads single-byte commands from COM1 ([`command`]), prints
//! [`MONITOR_PROMPT`] before each, and waits for as long as it takes.

/// What a payload does after its report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Power off through PM1a.
    PowerOff,
    /// Ask for one reset through port 0x433; after the reset, power off.
    ResetOnce,
    /// Take commands from COM1.
    Monitor,
    /// Triple fault.
    Crash,
}

/// Blob flag `--uefi-debug`: the monitor on COM1.
pub const UEFI_FLAG_MONITOR: u64 = 1 << 3;
/// Blob flag `--default-boot-always-attempt`: one reset.
pub const UEFI_FLAG_RESET_ONCE: u64 = 1 << 15;
/// What the monitor prints when it is ready for a command.
pub const MONITOR_PROMPT: &str = "monitor> ";

impl Behaviour {
    /// The behaviour that an asset tag asks for; `None` for a tag that is not addressed to the payload
    /// or not known.
    pub fn from_tag(tag: &str) -> Option<Self> {
        Some(match tag.strip_prefix("probe:")? {
            "power-off" => Self::PowerOff,
            "reset-once" => Self::ResetOnce,
            "monitor" => Self::Monitor,
            "crash" => Self::Crash,
            _ => return None,
        })
    }

    /// The behaviour that the blob's flags ask for.
    pub const fn from_uefi_flags(flags: u64) -> Self {
        if flags & UEFI_FLAG_MONITOR != 0 {
            Self::Monitor
        } else if flags & UEFI_FLAG_RESET_ONCE != 0 {
            Self::ResetOnce
        } else {
            Self::PowerOff
        }
    }
}

/// Commands of the monitor, one byte each. Every other byte is echoed as `input: 0xNN`.
pub mod command {
    /// Power off through PM1a.
    pub const POWER_OFF: u8 = b's';
    /// Reset through port 0x433.
    pub const RESET: u8 = b'r';
    /// Triple fault.
    pub const CRASH: u8 = b'c';
    /// Write the next byte, less `b'0'`, to the test-exit port.
    pub const TEST_EXIT: u8 = b'x';
    /// Spin until the end of time, to be paused or stopped from outside.
    pub const SPIN: u8 = b'p';
    /// HLT with interrupts off.
    pub const HALT: u8 = b'h';
}

/// The value of the first `key=value` word of a command line.
pub fn argument<'a>(command_line: &'a str, key: &str) -> Option<&'a str> {
    arguments(command_line, key).next()
}

/// The values of all `key=value` words of a command line.
pub fn arguments<'a>(command_line: &'a str, key: &str) -> impl Iterator<Item = &'a str> {
    command_line
        .split_ascii_whitespace()
        .filter_map(move |word| word.strip_prefix(key)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_obeyed_only_when_addressed_to_the_probe() {
        assert_eq!(
            Behaviour::from_tag("probe:reset-once"),
            Some(Behaviour::ResetOnce)
        );
        assert_eq!(Behaviour::from_tag("reset-once"), None);
        assert_eq!(Behaviour::from_tag("probe:dance"), None);
    }

    #[test]
    fn the_monitor_wins_over_the_reset() {
        assert_eq!(Behaviour::from_uefi_flags(0), Behaviour::PowerOff);
        assert_eq!(
            Behaviour::from_uefi_flags(UEFI_FLAG_RESET_ONCE),
            Behaviour::ResetOnce
        );
        let both = UEFI_FLAG_RESET_ONCE | UEFI_FLAG_MONITOR;
        assert_eq!(Behaviour::from_uefi_flags(both), Behaviour::Monitor);
    }

    #[test]
    fn an_argument_is_the_value_of_its_own_key() {
        assert_eq!(argument("a=1  fail=timer b", "fail"), Some("timer"));
        assert_eq!(argument("failure=timer", "fail"), None);
        assert_eq!(argument("fail", "fail"), None);
        assert_eq!(argument("fail=", "fail"), Some(""));
    }
}
