// SPDX-License-Identifier: MIT
//! Cases about the NVMe controller.

use crate::cases::Wrong;
use crate::nvme::Controller;
use crate::q35::ECAM;
use crate::virtio_pci::Function;
use crate::{Case, Outcome, expect};
use guest_rt::protocol::flat::FREE_GPA;
use guest_rt::time::Deadline;
use guest_rt::{cpu, lapic, memory, trap};

pub(crate) const CASES: &[Case] = &[
    ("nvme-identifies-itself", identify),
    ("nvme-writes-and-reads-back-by-interrupt", write_and_read),
    ("nvme-refuses-blocks-past-the-end", past_end),
    ("nvme-stops-and-starts-again", restart),
];

const ID: u32 = 0x0010_1B36;
const QUEUES: u64 = FREE_GPA + 0x30_0000;
const OUT: u64 = FREE_GPA + 0x38_0000;
const IN: u64 = OUT + LEN as u64;
const LEN: u32 = 0x1000;
const VECTOR: u8 = 0x55;
/// LBA out of range.
const OUT_OF_RANGE: u64 = 0x80;

fn start() -> Result<Controller, Wrong> {
    let missing = |what| Wrong { what, value: 0 };
    let function = Function::find(ECAM, ID).ok_or(missing("absent controller"))?;
    let (bar, _) = function.bar();
    lapic::enable();
    function
        .open_message(bar, 1, VECTOR)
        .ok_or(missing("controller without messages"))?;
    Controller::start(bar, QUEUES, true).ok_or(missing("controller that did not start"))
}

fn identify() -> Outcome {
    let blocks = start()?.blocks();
    expect(blocks >= 64, "blocks", blocks)
}

fn write_and_read() -> Outcome {
    let mut controller = start()?;
    for at in (0..u64::from(LEN)).step_by(8) {
        memory::write_u64(OUT + at, at.wrapping_mul(0xD1B5_4A32_D192_ED03));
        memory::write_u64(IN + at, 0);
    }
    let before = trap::count(VECTOR);
    let statuses = [
        controller.write(8, OUT, LEN),
        controller.flush(),
        controller.read(8, IN, LEN),
    ];
    for status in statuses {
        expect(status == 0, "status", status)?;
    }
    for at in (0..u64::from(LEN)).step_by(8) {
        let (wrote, read) = (memory::read_u64(OUT + at), memory::read_u64(IN + at));
        expect(wrote == read, "offset of the first difference", at)?;
    }
    cpu::enable_interrupts();
    let came = Deadline::in_ms(500).wait(|| trap::count(VECTOR) != before);
    cpu::disable_interrupts();
    expect(came, "interrupts", trap::count(VECTOR).wrapping_sub(before))
}

fn past_end() -> Outcome {
    let mut controller = start()?;
    let first = u32::try_from(controller.blocks()).unwrap_or(u32::MAX);
    let status = controller.read(first, IN, LEN);
    // Without the bits about retrying.
    expect(status & 0x7FF == OUT_OF_RANGE, "status", status)
}

fn restart() -> Outcome {
    let mut controller = start()?;
    expect(controller.stop(), "ready after it was stopped", 1u64)?;
    let mut again = start()?;
    let status = again.read(0, IN, LEN);
    expect(status == 0, "status", status)
}
