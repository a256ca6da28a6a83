// SPDX-License-Identifier: MIT
//! Event channels that the firmware hands over (index 0x30): what it tried to boot, and how that went.
//!
//! Always true: a channel is read as far as [`LONGEST`]; an event that is cut or of a kind that is not known
//! is counted, never guessed. Not here: events of other sources than the firmware.
//!
//! Channel, packed: vendor of the channel, u32 events written, u32 lost, u32 bytes of data; then events, each
//! producer and correlation GUID, u64 created, u64 committed, u32 id at 48, u32 flags, u32 bytes of this
//! header at 56, u32 bytes of data at 60. A boot event's data: u32 device status, u64 status at 8, u16 number
//! of the boot variable at 16, u32 bytes of the device path at 20, path.

use crate::host_log::{HostLog, Weight};
use guest_memory::{DmaMemory, MemoryError};
use uuid::{Uuid, uuid};

const CHANNEL: usize = 28;
const EVENT: usize = 64;
/// Bytes of data that are looked at.
const LONGEST: u32 = 1 << 20;
const BOOT_CHANNEL: Uuid = uuid!("8cc6713b-360d-4406-9268-f6b0cfdfca91");
const BOOT_DEVICE: u32 = 1;

/// What became of boot devices, by the firmware's numbers: group in the high half, reason in the low one.
const BOOT: [&str; 8] = [
    "no file system",
    "no boot loader",
    "the boot loader is for another processor",
    "the boot loader returned with a failure",
    "the operating system was not loaded",
    "the operating system was loaded",
    "there is no device",
    "the boot loader could not be read",
];
const SECURE_BOOT: [&str; 8] = [
    "secure boot refused it",
    "secure boot: refused by policy",
    "secure boot: its hash is forbidden",
    "secure boot: its certificate is forbidden",
    "secure boot: not a valid image",
    "secure boot: not signed, and its hash is not allowed",
    "secure boot: signed, and neither its certificate nor its hash is allowed",
    "secure boot: neither its certificate nor its hash is allowed",
];
const NETWORK: [&str; 12] = [
    "network: not connected",
    "network: no address by DHCP",
    "network: no answer",
    "network: a buffer is too small",
    "network: device error",
    "network: no resources",
    "network: the server does not answer",
    "network: cancelled",
    "network: ICMP error",
    "network: TFTP error",
    "network: no boot file",
    "network: unexpected failure",
];

fn outcome(status: u32) -> String {
    let reasons: &[&str] = match status >> 16 {
        0 if status == 0 => &["not tried yet"],
        1 => &BOOT,
        2 => &SECURE_BOOT,
        3 => &NETWORK,
        _ => &[],
    };
    let known = reasons.get((status & 0xFFFF) as usize);
    known.map_or_else(|| format!("status {status:#x}"), |text| (*text).to_owned())
}

fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u64::from(byte)),
    )
}

fn guid(bytes: &[u8]) -> Option<Uuid> {
    let bytes = bytes.get(..16)?.try_into().ok()?;
    Some(Uuid::from_bytes_le(bytes))
}

/// Tells the events of the channel at `gpa`.
pub(crate) fn tell(memory: &DmaMemory, gpa: u32, log: &mut HostLog) -> Result<(), MemoryError> {
    let mut header = [0; CHANNEL];
    memory.read(gpa.into(), &mut header)?;
    let field = |at| number(&header, at, 4).unwrap_or_default();
    let (lost, len) = (field(20), field(24).min(LONGEST.into()));
    let mut data = vec![0; len as usize];
    memory.read(u64::from(gpa) + CHANNEL as u64, &mut data)?;
    let channel = guid(&header).unwrap_or_default();
    if lost > 0 {
        log.line(
            Weight::Problem,
            &format!("events: {lost} of channel {channel} are lost"),
        );
    }
    let (mut rest, mut others) = (&data[..], 0);
    while let Some((event, behind)) = split(rest) {
        match boot_device(channel, event) {
            Some(line) => log.line(Weight::Notice, &line),
            None => others += 1,
        }
        rest = behind;
    }
    if others > 0 || !rest.is_empty() {
        let line = format!(
            "events: {others} others of channel {channel}, {:#x} bytes unread",
            rest.len()
        );
        log.line(Weight::Detail, &line);
    }
    Ok(())
}

/// An event, its header included, and what is behind it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, data) = (number(bytes, 56, 4)?, number(bytes, 60, 4)?);
    if header < EVENT as u64 {
        return None;
    }
    let len = usize::try_from(header.checked_add(data)?).ok()?;
    bytes.split_at_checked(len)
}

/// The line for an attempt to boot.
fn boot_device(channel: Uuid, event: &[u8]) -> Option<String> {
    if channel != BOOT_CHANNEL || number(event, 48, 4)? != u64::from(BOOT_DEVICE) {
        return None;
    }
    let data = event.get(number(event, 56, 4)? as usize..)?;
    let (status, extended) = (number(data, 0, 4)? as u32, number(data, 8, 8)?);
    let option = number(data, 16, 2)?;
    let mut line = format!("Boot{option:04X}: {}", outcome(status));
    if extended != 0 {
        line += &format!(" (EFI status {extended:#x})");
    }
    Some(line)
}

#[cfg(test)]
pub(crate) mod testing {
    use super::{BOOT_CHANNEL, EVENT};

    /// A channel with one boot event.
    pub(crate) fn channel(status: u32, option: u16) -> Vec<u8> {
        let mut event = vec![0; EVENT];
        event[48] = 1;
        event[56] = EVENT as u8;
        event[60] = 24;
        let mut data = vec![0; 24];
        data[..4].copy_from_slice(&status.to_le_bytes());
        data[16..18].copy_from_slice(&option.to_le_bytes());
        let len = (event.len() + data.len()) as u32;
        let mut channel = BOOT_CHANNEL.to_bytes_le().to_vec();
        channel.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
        channel.extend_from_slice(&len.to_le_bytes());
        [channel, event, data].concat()
    }
}
