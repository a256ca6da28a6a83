// SPDX-License-Identifier: MIT
//! Guests that do anything to the hypervisor interface and VMBus: registers, hypercalls, channel messages, rings,
//! and what each channel's protocol has; hosts that type, look, send frames and ask for shutdown in between.
//! `--seed S --first N --count M`: cases N to N + M - 1, each with [`AIMED`] operations on one channel, the channels
//! in turn, and half as many on everything.
//!
//! Always true: a case depends on its number and the seed only, because time moves only between operations.
//! What must hold: no panic, bounded memory and log, the disk keeps its size, after a reset a guest that behaves
//! gets its answers; and many cases together come to everything of [`PLACES`].

#[path = "../../../vm_loaders/examples/mutate/counting.rs"]
mod counting;
#[path = "hyperv_fuzz/guest.rs"]
mod guest;
#[path = "hyperv_fuzz/packets.rs"]
mod packets;

use block::{Disk, DiskOptions};
use counting::measured;
use guest::{CHANNELS, Guest, PLACES, RESETS};
use soak_case::{Cases, LogMeter, Reached, at_most};
use std::process::ExitCode;

/// Operations of a case on its channel.
const AIMED: u32 = 1000;
/// Stretches of a case; in every second one the guest does other things besides.
const STRETCHES: u32 = 10;
const DISK_LEN: u64 = 64 << 10;
/// Bytes that a guest can make the host keep: messages for all interrupt sources, lists of pages, pictures.
const MOST_MEMORY: u64 = 32 << 20;
/// Lines of the log between two resets, and bytes of a line.
const MOST_LINES: u64 = 100;
const LONGEST_LINE: u64 = 8 << 10;

fn case(guest: &mut Guest<'_>) -> Result<(), String> {
    for stretch in 0..STRETCHES {
        let wild = stretch % 2 == 1;
        guest.begin(!wild);
        for _ in 0..AIMED / STRETCHES {
            guest.aimed();
            if wild {
                guest.other();
            }
        }
    }
    if !guest.works_after_reset() {
        return Err("a guest that behaves gets no answer".into());
    }
    Ok(())
}

fn main() -> ExitCode {
    let cases = Cases::from_command_line(100);
    let meter = LogMeter::install();
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.as_file().set_len(DISK_LEN).expect("room for a disk");
    let options = DiskOptions {
        path: file.path().to_owned(),
        read_only: false,
        format: None,
    };
    let disk = Disk::open(&options).expect("a disk");
    let reached = Reached::new(PLACES);
    let code = cases.run(|number| {
        let act = || case(&mut Guest::new(number, cases.seed, &disk, &reached));
        let (used, (said, outcome)) = measured(|| meter.measured(act));
        outcome?;
        at_most("bytes of memory", used, MOST_MEMORY)?;
        at_most("lines of the log", said, MOST_LINES * RESETS)?;
        at_most("bytes in a line of the log", meter.longest(), LONGEST_LINE)?;
        if disk.size() != DISK_LEN {
            return Err(String::from("the disk's size has changed"));
        }
        Ok(())
    });
    reached.finish(code, cases, 8 * CHANNELS)
}
