// SPDX-License-Identifier: MIT
//! The SCSI controller on VMBus, as the firmware's driver starts it, and a disk on it.
//!
//! Always true: a block of the disk is written, read back, and left so. Not here: rings.

use crate::hv_disks::{BLOCK, LEN, check_back, fill};
use crate::hv_ring::Rings;
use guest_rt::memory;
use guest_rt::report::{check, equal, info};

const COMPLETE: u32 = 1;
const EXECUTE: u32 = 3;
const BEGIN: u32 = 7;
const END: u32 = 8;
const VERSION: u32 = 9;
const PROPERTIES: u32 = 10;
/// Windows 8.1, the only one that the firmware speaks.
const V6_0: u32 = 0x0600;
const PACKET: usize = 64;
/// Bytes of a request, and of its completion at most, while no version is agreed on.
const EARLY: usize = 48;
const READS: u8 = 1;
const WRITES: u8 = 0;
const SRB_SUCCESS: u8 = 1;

const DATA: u64 = 0xA0_0000;
const BACK: u64 = 0xA1_0000;

/// What came back of a request.
struct Done {
    packet: [u8; PACKET],
}

impl Done {
    fn word(&self, at: usize) -> u32 {
        let bytes = [0, 1, 2, 3].map(|i| self.packet[at + i]);
        u32::from_le_bytes(bytes)
    }
}

struct Controller {
    rings: Rings,
}

impl Controller {
    /// What the firmware demands of every completion.
    fn ask(&mut self, packet: &[u8], buffer: Option<(u64, u32)>) -> Option<Done> {
        let (data, len) = self.rings.ask(packet, buffer)?;
        let mut done = Done { packet: [0; PACKET] };
        done.packet.copy_from_slice(&data[..PACKET]);
        let asked = u32::from_le_bytes([packet[24], packet[25], packet[26], packet[27]]);
        let sound = done.word(0) == COMPLETE
            && (EARLY..=packet.len()).contains(&len)
            && done.packet[21] <= 20
            && (packet[0] != EXECUTE as u8 || done.word(24) <= asked);
        check("scsi-completion", sound, format_args!("{len} bytes"));
        sound.then_some(done)
    }

    fn control(&mut self, name: &str, (operation, argument): (u32, u32), len: usize) -> Option<Done> {
        let mut packet = [0; PACKET];
        packet[..4].copy_from_slice(&operation.to_le_bytes());
        packet[12..16].copy_from_slice(&argument.to_le_bytes());
        let done = self.ask(&packet[..len], None)?;
        equal(name, done.word(8).into(), 0);
        Some(done)
    }

    /// A command to logical unit `lun` of target 0: SRB status and bytes moved.
    fn execute(&mut self, lun: u8, command: &[u8], way: u8, buffer: (u64, u32)) -> Option<(u8, u32)> {
        let mut packet = [0; PACKET];
        packet[0] = EXECUTE as u8;
        // Length of the request, as of Windows 8.
        packet[12] = 52;
        packet[19] = lun;
        packet[20] = command.len() as u8;
        packet[21] = 20;
        packet[22] = way;
        packet[24..28].copy_from_slice(&buffer.1.to_le_bytes());
        packet[28..28 + command.len()].copy_from_slice(command);
        // Without data it is a plain packet.
        let done = self.ask(&packet, (buffer.1 != 0).then_some(buffer))?;
        Some((done.packet[14] & 0x3F, done.word(24)))
    }
}

/// Starts the controller and uses its first disk.
pub(crate) fn check_disk(rings: Rings) {
    let mut controller = Controller { rings };
    if start(&mut controller).is_none() {
        return;
    }
    for at in 0..64 {
        memory::write_u64(BACK + at * 8, 0);
    }
    // The firmware names no allocation length.
    let luns = [0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let got = controller.execute(0, &luns, READS, (BACK, 4096));
    check(
        "scsi-report-luns",
        got.is_some_and(|(status, len)| status == SRB_SUCCESS && len >= 16),
        format_args!("{got:?}"),
    );
    info(
        "scsi-luns",
        format_args!("{}", u32::from_be(memory::read_u32(BACK)) / 8),
    );
    let inquiry = [0x12, 0, 0, 0, 36, 0];
    let got = controller.execute(0, &inquiry, READS, (BACK, 36));
    equal("scsi-inquiry", status(got), SRB_SUCCESS.into());
    equal("scsi-is-disk", memory::read_u8(BACK).into(), 0);
    memory::write_u8(BACK, 0);
    let absent = controller.execute(200, &inquiry, READS, (BACK, 36));
    // Either is how a unit that is not there is told: the request fails, or the device type is none.
    let none = status(absent) != SRB_SUCCESS.into() || memory::read_u8(BACK) == 0x7F;
    check("scsi-absent-unit", none, format_args!("{absent:?}"));
    let got = controller.execute(0, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], READS, (BACK, 8));
    equal("scsi-capacity", status(got), SRB_SUCCESS.into());
    equal(
        "scsi-block-size",
        u32::from_be(memory::read_u32(BACK + 4)).into(),
        512,
    );
    write_and_read(&mut controller);
}

fn start(controller: &mut Controller) -> Option<()> {
    controller.control("scsi-begin", (BEGIN, 0), EARLY)?;
    controller.control("scsi-version", (VERSION, V6_0), EARLY)?;
    let properties = controller.control("scsi-properties", (PROPERTIES, 0), PACKET)?;
    let most = properties.word(24);
    check(
        "scsi-most-transfer",
        most as u64 >= u64::from(LEN),
        format_args!("{most:#x}"),
    );
    controller.control("scsi-end", (END, 0), PACKET)?;
    Some(())
}

fn status(got: Option<(u8, u32)>) -> u64 {
    got.map_or(u64::MAX, |(status, _)| status.into())
}

fn write_and_read(controller: &mut Controller) {
    let command = |operation: u8| [operation, 0, 0, 0, 0, BLOCK as u8, 0, 0, (LEN / 512) as u8, 0];
    fill(DATA, BACK);
    let got = controller.execute(0, &command(0x2A), WRITES, (DATA, LEN));
    check(
        "scsi-write",
        got == Some((SRB_SUCCESS, LEN)),
        format_args!("{got:?}"),
    );
    // Across pages.
    let got = controller.execute(0, &command(0x28), READS, (BACK + 0x200, LEN));
    check(
        "scsi-read",
        got == Some((SRB_SUCCESS, LEN)),
        format_args!("{got:?}"),
    );
    check_back("scsi-compare", BACK + 0x200);
    let flush = [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let got = controller.execute(0, &flush, WRITES, (DATA, 0));
    equal("scsi-flush", status(got), SRB_SUCCESS.into());
    let past = [0x28, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 1, 0];
    let got = controller.execute(0, &past, READS, (BACK, 512));
    check(
        "scsi-past-end",
        got.is_some_and(|(status, _)| status != SRB_SUCCESS),
        format_args!("{got:?}"),
    );
}
