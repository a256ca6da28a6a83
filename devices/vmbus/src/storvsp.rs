// SPDX-License-Identifier: MIT
//! The synthetic SCSI controller (Linux drivers/scsi/storvsc_drv.c; msvm-machine section 7).
//!
//! Always true: every request is completed, once, with an SRB status, in as many bytes as it had. One
//! controller, path and target 0, a disk per logical unit. Not here: SCSI commands (`scsi`).

use crate::channel::{ChannelDevice, OpenChannel};
use crate::protocol::Offer;
use crate::ring::{Packet, RingError};
use crate::scsi::{self, Command};
use block::Disk;
use std::sync::Arc;
use uuid::{Uuid, uuid};

const INTERFACE: Uuid = uuid!("ba6163d9-04a1-4d29-b605-72e2ffb1dc7f");
/// Bytes of a request and of its completion.
const PACKET: usize = 64;
/// Where the SCSI request begins in them.
const SRB: usize = 12;
const MOST_TRANSFER: u32 = 1 << 20;

/// Operations.
mod operation {
    pub(super) const COMPLETE_IO: u32 = 1;
    pub(super) const EXECUTE_SRB: u32 = 3;
    pub(super) const RESET_LUN: u32 = 4;
    pub(super) const RESET_BUS: u32 = 6;
    pub(super) const BEGIN_INITIALIZATION: u32 = 7;
    pub(super) const END_INITIALIZATION: u32 = 8;
    pub(super) const QUERY_PROTOCOL_VERSION: u32 = 9;
    pub(super) const QUERY_PROPERTIES: u32 = 10;
}

/// Windows 8.1 and Windows 10.
const VERSIONS: [u16; 2] = [0x0600, 0x0602];
/// STATUS_REVISION_MISMATCH and STATUS_INVALID_DEVICE_REQUEST.
const REVISION_MISMATCH: u32 = 0xC000_0059;
const INVALID_REQUEST: u32 = 0xC000_0010;

/// SRB statuses.
const SRB_SUCCESS: u8 = 0x01;
const SRB_ERROR: u8 = 0x04;
const SRB_INVALID_LUN: u8 = 0x20;
const SRB_AUTOSENSE_VALID: u8 = 0x80;

/// Offsets in the SCSI request.
const SRB_STATUS: usize = SRB + 2;
const SCSI_STATUS: usize = SRB + 3;
const PATH: usize = SRB + 5;
const TARGET: usize = SRB + 6;
const LUN: usize = SRB + 7;
const SENSE_LEN: usize = SRB + 9;
const TRANSFER_LEN: usize = SRB + 12;
const CDB: usize = SRB + 16;
const SENSE: usize = SRB + 16;
const SENSE_ROOM: usize = 20;

/// The controller.
pub struct StorVsp {
    instance: Uuid,
    disks: Vec<Arc<Disk>>,
    requests: u64,
}

impl StorVsp {
    /// A controller with a disk on each logical unit from 0 on, 255 at most.
    pub fn new(instance: Uuid, disks: Vec<Arc<Disk>>) -> Self {
        Self {
            instance,
            disks,
            requests: 0,
        }
    }

    fn execute(&self, channel: &OpenChannel, request: &Packet, reply: &mut [u8; PACKET]) {
        let place = (reply[PATH], reply[TARGET], usize::from(reply[LUN]));
        let disk = match place {
            (0, 0, lun) => self.disks.get(lun),
            _ => None,
        };
        let set_len = |reply: &mut [u8; PACKET], len: u32| {
            reply[TRANSFER_LEN..TRANSFER_LEN + 4].copy_from_slice(&len.to_le_bytes());
        };
        let mut cdb = [0; 16];
        cdb.copy_from_slice(&reply[CDB..CDB + 16]);
        let command = Command {
            cdb,
            buffer: request.buffers.first(),
            memory: channel.memory(),
            log: channel.log(),
        };
        let luns: Vec<u8> = (0..self.disks.len() as u8).collect();
        let outcome = match disk {
            Some(disk) => Some(scsi::execute(disk, &luns, &command)),
            None => scsi::execute_absent(if place.0 == 0 && place.1 == 0 { &luns } else { &[] }, &command),
        };
        let Some(outcome) = outcome else {
            reply[SRB_STATUS] = SRB_INVALID_LUN;
            reply[SENSE_LEN] = 0;
            return set_len(reply, 0);
        };
        reply[SCSI_STATUS] = outcome.status;
        reply[SENSE..SENSE + SENSE_ROOM].fill(0);
        match outcome.sense {
            None => {
                reply[SRB_STATUS] = SRB_SUCCESS;
                reply[SENSE_LEN] = 0;
            }
            Some(sense) => {
                reply[SRB_STATUS] = SRB_ERROR | SRB_AUTOSENSE_VALID;
                reply[SENSE_LEN] = sense.len() as u8;
                reply[SENSE..SENSE + sense.len()].copy_from_slice(&sense);
            }
        }
        set_len(reply, outcome.transferred);
    }
}

fn word(bytes: &[u8; PACKET], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn put(bytes: &mut [u8; PACKET], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

impl ChannelDevice for StorVsp {
    fn offer(&self) -> Offer {
        Offer {
            interface: INTERFACE,
            instance: self.instance,
            mmio_megabytes: 0,
            pipe: false,
        }
    }

    fn received(&mut self, channel: &mut OpenChannel, packet: Packet) -> Result<(), RingError> {
        if packet.data.len() < PACKET - 16 {
            let len = packet.data.len();
            return Err(RingError::Contents(format!("a storage request of {len} bytes")));
        }
        // Older drivers send less than the whole packet.
        let mut reply = [0; PACKET];
        for (to, from) in reply.iter_mut().zip(&packet.data) {
            *to = *from;
        }
        self.requests += 1;
        let asked = word(&reply, 0);
        put(&mut reply, 0, operation::COMPLETE_IO);
        put(&mut reply, 8, 0);
        match asked {
            operation::EXECUTE_SRB => self.execute(channel, &packet, &mut reply),
            operation::QUERY_PROTOCOL_VERSION => {
                let version = word(&reply, SRB) as u16;
                if !VERSIONS.contains(&version) {
                    put(&mut reply, 8, REVISION_MISMATCH);
                }
            }
            operation::QUERY_PROPERTIES => {
                reply[SRB..].fill(0);
                put(&mut reply, SRB + 12, MOST_TRANSFER);
            }
            operation::BEGIN_INITIALIZATION
            | operation::END_INITIALIZATION
            | operation::RESET_LUN..=operation::RESET_BUS => {}
            _ => put(&mut reply, 8, INVALID_REQUEST),
        }
        if packet.completion_requested {
            // Microsoft's firmware asks in 48 bytes until a version is agreed on, and refuses a longer answer.
            let len = packet.data.len().min(PACKET);
            channel.complete(packet.transaction, &reply[..len])?;
        }
        Ok(())
    }

    fn closed(&mut self) {}

    fn inspect(&self) -> String {
        format!("{} disks, {} requests", self.disks.len(), self.requests)
    }
}
