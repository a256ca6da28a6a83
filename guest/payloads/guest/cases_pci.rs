// SPDX-License-Identifier: MIT
//! Cases about PCI on the OVMF machine: both ways to configuration space, what is not there, the windows
//! that the bridges place.

use crate::q35::{self, ECAM};
use crate::{Case, Outcome, expect};
use guest_rt::protocol::ports::{PM_TIMER, PM1A_EVENT};
use guest_rt::{memory, port};

pub(crate) const CASES: &[Case] = &[
    ("pci-host-bridge", host_bridge),
    ("pci-lpc-bridge", lpc_bridge),
    ("pci-absent-functions", absent),
    ("pci-ecam-moves", ecam_moves),
    ("pci-pm-block-moves", pm_moves),
    ("memory-unclaimed-reads-ones", unclaimed),
];

const HOST_BRIDGE: u32 = 0x29C0_8086;
/// Device 31 in ECAM.
const LPC: u64 = ECAM + (31 << 15);
/// Device 30, which nobody puts anything at.
const NOBODY: u16 = 30;

fn host_bridge() -> Outcome {
    let id = q35::read(0, 0);
    expect(id == HOST_BRIDGE, "id through mechanism 1", id)?;
    let id = memory::read_u32(ECAM);
    expect(id == HOST_BRIDGE, "id through ecam", id)?;
    let half = memory::read_u16(ECAM + 2);
    expect(half == 0x29C0, "device id through ecam", half)
}

fn lpc_bridge() -> Outcome {
    let class = memory::read_u32(LPC + 8) >> 8;
    expect(class == 0x06_0100, "class", class)?;
    let id = memory::read_u8(LPC);
    expect(id == 0x86, "low byte of the vendor id", id)
}

fn absent() -> Outcome {
    let id = q35::read(NOBODY, 0);
    expect(id == u32::MAX, "id through mechanism 1", id)?;
    let id = memory::read_u32(ECAM + (u64::from(NOBODY) << 15));
    expect(id == u32::MAX, "id through ecam", id)?;
    // Another bus.
    let id = memory::read_u32(ECAM + (1 << 20));
    expect(id == u32::MAX, "id on bus 1", id)
}

fn ecam_moves() -> Outcome {
    /// Where newer firmware puts it.
    const ELSEWHERE: u64 = 0xE000_0000;
    q35::place_ecam(ELSEWHERE);
    let (there, here) = (memory::read_u32(ELSEWHERE), memory::read_u32(ECAM));
    q35::place_ecam(ECAM);
    expect(there == HOST_BRIDGE, "id at the new place", there)?;
    expect(here == u32::MAX, "id at the old place", here)?;
    let back = memory::read_u32(ECAM);
    expect(back == HOST_BRIDGE, "id after moving back", back)
}

fn pm_moves() -> Outcome {
    /// Where OVMF puts it.
    const ELSEWHERE: u16 = 0x600;
    const TIMER: u16 = PM_TIMER - PM1A_EVENT;
    q35::place_pm(ELSEWHERE);
    let (there, here) = (port::read_u32(ELSEWHERE + TIMER), port::read_u32(PM_TIMER));
    q35::place_pm(PM1A_EVENT);
    expect(there < 1 << 24, "24-bit timer at the new place", there)?;
    expect(here == u32::MAX, "timer at the old place", here)?;
    let back = port::read_u32(PM_TIMER);
    expect(back < 1 << 24, "timer after moving back", back)
}

/// Above all where a TPM would be: firmware takes a zero there for one.
fn unclaimed() -> Outcome {
    const TPM: u64 = 0xFED4_0000;
    memory::write_u32(TPM, 0);
    expect(memory::read_u8(TPM) == 0xFF, "byte", memory::read_u8(TPM))?;
    expect(
        memory::read_u32(TPM) == u32::MAX,
        "double word",
        memory::read_u32(TPM),
    )?;
    expect(
        memory::read_u64(TPM) == u64::MAX,
        "quad word",
        memory::read_u64(TPM),
    )
}
