// SPDX-License-Identifier: MIT
//! What it means that a firmware has stopped, spins or crashed: the table of msvm-machine section 14 in words.
//!
//! Always true: functions of values, no effects. Not here: noticing (`super`).

use hyperv::tlfs::MESSAGE_TIMER_EXPIRED;
use hyperv::{Hold, Untaken};
use vmbus::MOST_MESSAGES;
use vmbus::protocol::{self, MESSAGE_KIND};
use x86defs::X86State;
use x86defs::state::gpr;

/// Ports and registers that the firmware is known to wait at.
const LINE_STATUS: [(u16, &str); 2] = [(0x3FD, "COM1"), (0x2FD, "COM2")];
const RTC: std::ops::RangeInclusive<u16> = 0x70..=0x71;
const PM1A_CONTROL: u16 = 0x404;
const RESET: u16 = 0x433;
const REFERENCE_COUNTER: u32 = 0x4000_0020;
/// The bit of an EFI status that makes it an error.
const ERROR: u64 = 1 << 63;

/// One kind of access to one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// IN.
    In(u16),
    /// OUT.
    Out(u16),
    /// RDMSR.
    Read(u32),
    /// WRMSR.
    Write(u32),
}

impl std::fmt::Display for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::In(port) => write!(f, "in {port:#x}"),
            Self::Out(port) => write!(f, "out {port:#x}"),
            Self::Read(msr) => write!(f, "rdmsr {msr:#x}"),
            Self::Write(msr) => write!(f, "wrmsr {msr:#x}"),
        }
    }
}

/// What a guest does that does one thing only, for `seconds` now; `same` is whether it got the same answer all along.
pub(crate) fn spin(access: Access, value: u64, same: bool, seconds: u64) -> String {
    let what = match access {
        Access::In(port) => match LINE_STATUS.iter().find(|(status, _)| *status == port) {
            Some((_, name)) => format!("the firmware spins on {name}'s line status, which reads {value:#x}"),
            None if RTC.contains(&port) => format!("the firmware spins on the clock chip, which reads {value:#x}"),
            None if port == PM1A_CONTROL => "the firmware waits to be powered off".to_owned(),
            None => format!("the firmware spins on port {port:#x}, which reads {value:#x}"),
        },
        Access::Out(RESET) => "the firmware waits to be reset".to_owned(),
        Access::Out(port) => format!("the firmware writes {value:#x} to port {port:#x} over and over"),
        Access::Read(REFERENCE_COUNTER) if same => {
            format!("the firmware waits for the reference counter, which stands at {value:#x}")
        }
        Access::Read(REFERENCE_COUNTER) => {
            "the firmware waits by the reference counter: for something that does not happen, or in one long delay"
                .to_owned()
        }
        Access::Read(msr) => format!("the firmware spins on register {msr:#x}, which reads {value:#x}"),
        Access::Write(msr) => format!("the firmware writes {value:#x} to register {msr:#x} over and over"),
    };
    format!("{what}; it has done nothing else for {seconds} s")
}

/// A guest that has touched no device for `seconds`; `ever` before, and `ticks` still.
pub(crate) fn silent(seconds: u64, ever: bool, ticks: bool) -> String {
    let stage = match (ever, ticks) {
        (_, true) => "it takes timer interrupts and waits for an event that does not come",
        (true, false) => "it spins in memory, or it halted without interrupts",
        (false, false) => "it has not begun: its first stage finds no volume with the next one, or spins",
    };
    format!("the firmware has touched no port and no register for {seconds} s; {stage}")
}

/// A message of the host that the guest has left for `seconds`. None comes before it is taken, and VMBus answers
/// nobody who takes no answers.
pub(crate) fn untaken(held: &Untaken, seconds: u64) -> String {
    let Untaken {
        vp, sint, waiting, ..
    } = *held;
    let what = message(held);
    let mut text = match held.hold {
        Hold::Slot => format!(
            "the guest takes no messages: {what} lies in slot {sint} of vp {vp} for {seconds} s, and {waiting} more wait \
             behind it; the guest has to empty the slot, and to write EOM (register 0x40000084) when more wait"
        ),
        Hold::EndOfMessage => format!(
            "the guest takes no messages: slot {sint} of vp {vp} is empty, but {what} and what is behind it, {waiting} in \
             all, wait for {seconds} s; the guest has to write EOM (register 0x40000084), as the slot's flag said"
        ),
        Hold::NoPage => format!(
            "the guest takes no messages: {what} and what is behind it, {waiting} in all, wait for {seconds} s for slot \
             {sint} of vp {vp}; the guest has to turn its message page on (register 0x40000083)"
        ),
    };
    if waiting > MOST_MESSAGES {
        text += "; until then its own messages are refused with status 0x33, however often it sends them";
    }
    if held.kind == MESSAGE_KIND {
        text += "; --no-vmbus starts the vm without vmbus, and its disks are virtio-blk then";
    }
    text
}

fn message(held: &Untaken) -> String {
    match (held.kind, protocol::name(held.head)) {
        (MESSAGE_KIND, Some(name)) => format!("vmbus' {name}"),
        (MESSAGE_KIND, None) => format!("vmbus' message {}", held.head),
        (MESSAGE_TIMER_EXPIRED, _) => "a timer's expiration".to_owned(),
        (other, _) => format!("a message of type {other:#x}"),
    }
}

/// Variable commands that come without end.
pub(crate) fn names_without_end(count: u64) -> String {
    format!(
        "the enumeration of variable names does not end: {count} names in a row; something other than NOT_FOUND ends \
         it, or a name comes twice"
    )
}

/// The same variable command, which fails the same way each time.
pub(crate) fn same_failure(command: u32, status: u64, count: u64) -> String {
    let name = match command {
        0 => "GetVariable",
        1 => "SetVariable",
        2 | 3 => "GetNextVariableName",
        4 => "QueryVariableInfo",
        _ => "a variable command",
    };
    let status = status_name(status);
    format!("{name} has failed with {status} {count} times in a row, and the firmware goes on asking")
}

/// Nothing was booted.
pub(crate) fn nothing_booted(disks: &[String]) -> String {
    let mut text = "the firmware has found nothing to boot".to_owned();
    if disks.is_empty() {
        text += ": this vm has no disk; add --disk FILE, a disk with an EFI system partition and \
                 \\EFI\\BOOT\\BOOTX64.EFI in it (cargo xtask guest-disk makes one)";
    } else {
        text += " on ";
        text += &disks.join(", ");
        text += ": a boot option has to name a loader there, or \\EFI\\BOOT\\BOOTX64.EFI has to be in an EFI system \
                 partition, and secure boot has to let it pass; --default-boot-always-attempt looks there even when \
                 there are boot options";
    }
    text
}

/// RAM that is too little for Microsoft's firmware.
pub(crate) fn little_memory(bytes: u64) -> Option<String> {
    const ENOUGH: u64 = 64 << 20;
    (bytes < ENOUGH).then(|| {
        format!(
            "-m {} MB is little for this firmware, which runs out of memory below 48 MB; give 64 MB or more",
            bytes >> 20
        )
    })
}

/// How a firmware that stopped itself left its registers (msvm-machine section 3); `None` when it did not.
pub(crate) fn fail_fast(state: &X86State) -> Option<String> {
    let (status, line) = (state.gpr[gpr::RAX], state.gpr[gpr::RCX]);
    let plausible = status & ERROR != 0 && status & !ERROR < 0x100 && (1..100_000).contains(&line);
    plausible.then(|| {
        format!(
            "the firmware has stopped itself: {} at line {line} of its source; a configuration blob that it refuses is \
             the usual reason",
            status_name(status & !ERROR)
        )
    })
}

/// UEFI appendix D, without the error bit.
fn status_name(status: u64) -> String {
    const NAMES: [&str; 29] = [
        "SUCCESS",
        "LOAD_ERROR",
        "INVALID_PARAMETER",
        "UNSUPPORTED",
        "BAD_BUFFER_SIZE",
        "BUFFER_TOO_SMALL",
        "NOT_READY",
        "DEVICE_ERROR",
        "WRITE_PROTECTED",
        "OUT_OF_RESOURCES",
        "VOLUME_CORRUPTED",
        "VOLUME_FULL",
        "NO_MEDIA",
        "MEDIA_CHANGED",
        "NOT_FOUND",
        "ACCESS_DENIED",
        "NO_RESPONSE",
        "NO_MAPPING",
        "TIMEOUT",
        "NOT_STARTED",
        "ALREADY_STARTED",
        "ABORTED",
        "ICMP_ERROR",
        "TFTP_ERROR",
        "PROTOCOL_ERROR",
        "INCOMPATIBLE_VERSION",
        "SECURITY_VIOLATION",
        "CRC_ERROR",
        "END_OF_MEDIA",
    ];
    let name = usize::try_from(status).ok().and_then(|at| NAMES.get(at));
    name.map_or_else(|| format!("status {status:#x}"), |name| format!("EFI_{name}"))
}
