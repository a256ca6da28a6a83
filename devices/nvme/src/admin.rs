// SPDX-License-Identifier: MIT
//! Admin commands (section 5).

use crate::command::{Command, Outcome, Status};
use crate::controller::Controller;
use crate::identify::{self, MOST_EVENTS};
use crate::prp::{self, PAGE};
use crate::queues::{Completion, IO_QUEUES, MOST_ENTRIES, Submission};

const DELETE_SUBMISSION: u8 = 0x00;
const CREATE_SUBMISSION: u8 = 0x01;
const GET_LOG: u8 = 0x02;
const DELETE_COMPLETION: u8 = 0x04;
const CREATE_COMPLETION: u8 = 0x05;
const IDENTIFY: u8 = 0x06;
const ABORT: u8 = 0x08;
const SET_FEATURES: u8 = 0x09;
const GET_FEATURES: u8 = 0x0A;
const EVENT_REQUEST: u8 = 0x0C;

/// Feature: volatile write cache, which is always on; number of queues.
const WRITE_CACHE: u8 = 6;
const QUEUE_COUNT: u8 = 7;
/// Features whose value is kept and has no effect: arbitration, power, temperature, error recovery, interrupt
/// coalescing, vector configuration, write atomicity, events.
pub(crate) const KEPT_FEATURES: [u8; 8] = [1, 2, 4, 5, 8, 9, 0xA, 0xB];

/// How an admin command ends; `None` is not yet.
pub(crate) fn execute(controller: &mut Controller, command: &Command) -> Option<Outcome> {
    Some(match command.opcode() {
        DELETE_SUBMISSION => delete_submission(controller, command),
        CREATE_SUBMISSION => create_submission(controller, command),
        GET_LOG => get_log(controller, command),
        DELETE_COMPLETION => delete_completion(controller, command),
        CREATE_COMPLETION => create_completion(controller, command),
        IDENTIFY => identify::identify(&controller.ram, command, &controller.serial, &controller.disks),
        // Commands are carried out at once: there is none to abort.
        ABORT => Ok(1),
        SET_FEATURES => set_features(controller, command),
        GET_FEATURES => get_features(controller, command),
        EVENT_REQUEST if controller.events < MOST_EVENTS => {
            // There are no events, so it never ends.
            controller.events += 1;
            return None;
        }
        EVENT_REQUEST => Err(Status::TOO_MANY_EVENTS),
        _ => Err(Status::INVALID_OPCODE),
    })
}

/// Identifier and entries of a queue to be made, contiguous and in whole pages.
fn new_queue(command: &Command) -> Result<(u16, u32), Status> {
    const CONTIGUOUS: u32 = 1;
    let (id, size) = (command.dword(10) as u16, (command.dword(10) >> 16) + 1);
    if id == 0 || id > IO_QUEUES {
        return Err(Status::INVALID_QUEUE);
    }
    if !(2..=MOST_ENTRIES).contains(&size) {
        return Err(Status::INVALID_QUEUE_SIZE);
    }
    if command.dword(11) & CONTIGUOUS == 0 {
        return Err(Status::INVALID_FIELD);
    }
    if !command.prps().0.is_multiple_of(PAGE) {
        return Err(Status::INVALID_PRP_OFFSET);
    }
    Ok((id, size))
}

fn create_submission(controller: &mut Controller, command: &Command) -> Outcome {
    let (id, size) = new_queue(command)?;
    let completion = (command.dword(11) >> 16) as u16;
    if controller.submissions.contains_key(&id) {
        return Err(Status::INVALID_QUEUE);
    }
    if completion == 0 || !controller.completions.contains_key(&completion) {
        return Err(Status::INVALID_COMPLETION_QUEUE);
    }
    let queue = Submission {
        base: command.prps().0,
        size,
        head: 0,
        completion,
    };
    controller.doorbells.clear_tail(id);
    controller.submissions.insert(id, queue);
    Ok(0)
}

fn create_completion(controller: &mut Controller, command: &Command) -> Outcome {
    const INTERRUPTS: u32 = 2;
    let (id, size) = new_queue(command)?;
    if controller.completions.contains_key(&id) {
        return Err(Status::INVALID_QUEUE);
    }
    let vector = (command.dword(11) >> 16) as u16;
    if vector > IO_QUEUES {
        return Err(Status::INVALID_VECTOR);
    }
    let queue = Completion {
        base: command.prps().0,
        size,
        tail: 0,
        phase: true,
        vector: (command.dword(11) & INTERRUPTS != 0).then_some(vector),
        fresh: false,
    };
    controller.doorbells.clear_head(id);
    controller.completions.insert(id, queue);
    Ok(0)
}

fn delete_submission(controller: &mut Controller, command: &Command) -> Outcome {
    let id = command.dword(10) as u16;
    if id == 0 || controller.submissions.remove(&id).is_none() {
        return Err(Status::INVALID_QUEUE);
    }
    Ok(0)
}

fn delete_completion(controller: &mut Controller, command: &Command) -> Outcome {
    let id = command.dword(10) as u16;
    if id == 0 || !controller.completions.contains_key(&id) {
        return Err(Status::INVALID_QUEUE);
    }
    if controller
        .submissions
        .values()
        .any(|queue| queue.completion == id)
    {
        return Err(Status::INVALID_QUEUE_DELETION);
    }
    controller.completions.remove(&id);
    Ok(0)
}

fn get_log(controller: &Controller, command: &Command) -> Outcome {
    const ERRORS: u32 = 1;
    const HEALTH: u32 = 2;
    const FIRMWARE: u32 = 3;
    let dwords = u64::from(command.dword(11) & 0xFFFF) << 16 | u64::from(command.dword(10) >> 16);
    let offset = command.qword(12);
    let mut log = vec![0; 512];
    match command.dword(10) & 0xFF {
        ERRORS => log.truncate(64),
        HEALTH => {
            // 300 K; all of the spare there is, used up to a tenth of it.
            log[1..3].copy_from_slice(&300u16.to_le_bytes());
            (log[3], log[4]) = (100, 10);
        }
        FIRMWARE => {
            log[0] = 1;
            log[8..16].fill(b' ');
            let revision = env!("CARGO_PKG_VERSION").as_bytes();
            let len = revision.len().min(8);
            log[8..8 + len].copy_from_slice(&revision[..len]);
        }
        _ => return Err(Status::INVALID_LOG),
    }
    let first = usize::try_from(offset).ok().filter(|first| *first <= log.len());
    let rest = &log[first.ok_or(Status::INVALID_FIELD)?..];
    prp::give(&controller.ram, command, rest, (dwords + 1) * 4)?;
    Ok(0)
}

/// Queues that the guest may have, less one, in both halves.
const QUEUE_LIMITS: u32 = (IO_QUEUES as u32 - 1) << 16 | (IO_QUEUES as u32 - 1);

fn kept(feature: u8) -> Option<usize> {
    KEPT_FEATURES.iter().position(|&kept| kept == feature)
}

fn set_features(controller: &mut Controller, command: &Command) -> Outcome {
    let (feature, value) = (command.dword(10) as u8, command.dword(11));
    match feature {
        QUEUE_COUNT if value & 0xFFFF == 0xFFFF || value >> 16 == 0xFFFF => Err(Status::INVALID_FIELD),
        QUEUE_COUNT => Ok(QUEUE_LIMITS),
        WRITE_CACHE => Ok(0),
        _ => {
            let slot = kept(feature).ok_or(Status::INVALID_FIELD)?;
            controller.features[slot] = value;
            Ok(0)
        }
    }
}

fn get_features(controller: &Controller, command: &Command) -> Outcome {
    match command.dword(10) as u8 {
        QUEUE_COUNT => Ok(QUEUE_LIMITS),
        WRITE_CACHE => Ok(1),
        feature => {
            let slot = kept(feature).ok_or(Status::INVALID_FIELD)?;
            Ok(controller.features[slot])
        }
    }
}
