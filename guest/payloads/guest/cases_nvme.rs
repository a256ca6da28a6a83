// SPDX-License-Identifier: MIT
//! Cases about the NVMe controller.

use crate::nvme::{Controller, SILENT};
use crate::q35::ECAM;
use crate::virtio_pci::Function;
use crate::{Case, Outcome, expect};
use guest_rt::memory;
use guest_rt::protocol::flat::FREE_GPA;
use guest_rt::time::Deadline;

pub(crate) const CASES: &[Case] = &[
    ("nvme-identifies-itself", identify),
    ("nvme-writes-and-reads-back-by-interrupt", write_and_read),
    ("nvme-refuses-blocks-past-the-end", past_end),
];

const ID: u32 = 0x0010_1B36;
const OUT: u64 = FREE_GPA + 0x38_0000;
const IN: u64 = OUT + 0x1000;

const FLUSH: u8 = 0;
const WRITE: u8 = 1;
const READ: u8 = 2;
/// LBA out of range.
const OUT_OF_RANGE: u16 = 0x80;

fn start() -> Result<Controller, crate::cases::Wrong> {
    let missing = |what| crate::cases::Wrong { what, value: 0 };
    let function = Function::find(ECAM, ID).ok_or(missing("absent controller"))?;
    Controller::start(&function).ok_or(missing("controller that did not start"))
}

fn identify() -> Outcome {
    let mut controller = start()?;
    let status = controller.identify(1, 0, IN);
    expect(status == 0, "status", status)?;
    let namespaces = memory::read_u32(IN + 516);
    expect(namespaces >= 1, "namespaces", namespaces)?;
    let status = controller.identify(0, 1, IN);
    expect(status == 0, "status", status)?;
    let blocks = memory::read_u64(IN);
    expect(blocks >= 64, "blocks", blocks)
}

fn write_and_read() -> Outcome {
    let mut controller = start()?;
    for at in (0..0x1000).step_by(8) {
        memory::write_u64(OUT + at, at.wrapping_mul(0xD1B5_4A32_D192_ED03));
        memory::write_u64(IN + at, 0);
    }
    let before = Controller::interrupts();
    for (opcode, gpa) in [(WRITE, OUT), (FLUSH, 0), (READ, IN)] {
        let status = controller.io(opcode, 8, 8, gpa);
        expect(status == 0, "status", status)?;
    }
    for at in (0..0x1000).step_by(8) {
        let (wrote, read) = (memory::read_u64(OUT + at), memory::read_u64(IN + at));
        expect(wrote == read, "offset of the first difference", at)?;
    }
    guest_rt::cpu::enable_interrupts();
    let came = Deadline::in_ms(500).wait(|| Controller::interrupts() != before);
    guest_rt::cpu::disable_interrupts();
    expect(came, "interrupts", Controller::interrupts().wrapping_sub(before))
}

fn past_end() -> Outcome {
    let mut controller = start()?;
    let status = controller.io(READ, u32::MAX, 8, IN);
    expect(status != SILENT, "status", status)?;
    expect(status == OUT_OF_RANGE, "status", status)
}
