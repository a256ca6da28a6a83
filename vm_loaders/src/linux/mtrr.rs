// SPDX-License-Identifier: MIT
//! Memory type registers as firmware would have left them: a kernel that finds them disabled gives up
//! its page attribute table as well.
//!
//! Always true: write-back is the default; the VGA window and everything from the end of low RAM to
//! 4 GiB is uncached. Not here: who applies them (`bind`).

use launch_plan::HostRegisters;
use openvmm_defs::MemoryLayout;
use x86defs::state::VARIABLE_MTRRS;

/// MTRRs and fixed ranges on, write-back by default.
const DEF_TYPE: u64 = 0xC06;
const WRITE_BACK: u64 = 0x0606_0606_0606_0606;
/// Index of the fixed register for 0xA0000-0xBFFFF, the VGA window.
const VGA_WINDOW: usize = 2;
/// Mask register: the pair is in use.
const ENABLED: u64 = 1 << 11;
const UNCACHED: u64 = 0;
const FOUR_GIB: u64 = 1 << 32;

/// Boot processor registers for a kernel without firmware.
pub fn host_registers(layout: &MemoryLayout) -> HostRegisters {
    let mut fixed_mtrrs = [Some(WRITE_BACK); 11];
    fixed_mtrrs[VGA_WINDOW] = Some(UNCACHED);
    let width = layout.phys_bits.clamp(36, 52);
    let hole = layout.machine.low_ram_limit();
    let mut variable = [(0, 0); VARIABLE_MTRRS];
    // The machines' limits leave a power of two below 4 GiB, so one pair covers the hole.
    let mask = ((1 << width) - 1) & !(FOUR_GIB - hole - 1);
    variable[0] = (hole | UNCACHED, mask | ENABLED);
    HostRegisters {
        pat: None,
        mtrr_def_type: Some(DEF_TYPE),
        fixed_mtrrs,
        variable_mtrrs: Some(variable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openvmm_defs::{GpaRange, Machine};

    #[test]
    fn the_hole_below_4_gib_is_uncached_on_every_machine() {
        for (machine, pair) in [
            (Machine::Linux, (0xC000_0000, 0xFF_C000_0800)),
            (Machine::Ovmf, (0x8000_0000, 0xFF_8000_0800)),
            (Machine::HyperV, (0xF800_0000, 0xFF_F800_0800)),
        ] {
            let layout = MemoryLayout {
                machine,
                ram: vec![GpaRange::new(0, 1 << 30)],
                low_mmio: GpaRange::default(),
                high_mmio: GpaRange::default(),
                tpm: None,
                root_complexes: Vec::new(),
                phys_bits: 40,
                vp_count: 1,
            };
            let registers = host_registers(&layout);
            assert_eq!(registers.variable_mtrrs.unwrap()[0], pair, "{machine:?}");
            assert_eq!(registers.mtrr_def_type, Some(0xC06));
            assert_eq!(registers.fixed_mtrrs[2], Some(0));
            assert_eq!(registers.fixed_mtrrs[10], Some(0x0606_0606_0606_0606));
        }
    }
}
