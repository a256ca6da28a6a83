// SPDX-License-Identifier: MIT
//! Memory type registers that the firmware finds set (uefi-launch 5.2, 5.4): blob flag 28 promises them.
//!
//! Always true: masks follow Hyper-V's convention, a power of two above the last address, not a minimal
//! cover. Not here: who applies them (`bind`), what a backend does with them.

use launch_plan::HostRegisters;
use openvmm_defs::MemoryLayout;
use x86defs::state::VARIABLE_MTRRS;

/// Write-back.
const WRITE_BACK: u64 = 6;
/// Mask register: the pair is in use.
const ENABLED: u64 = 1 << 11;
/// PAT at reset, which the firmware expects.
pub(super) const PAT: u64 = 0x0007_0406_0007_0406;
/// MTRRs on, fixed ranges on, uncached elsewhere.
pub(super) const DEF_TYPE: u64 = 0xC00;
/// Write-back in all eight ranges of a fixed register.
pub(super) const FIXED_WRITE_BACK: u64 = 0x0606_0606_0606_0606;

const MIB_128: u64 = 128 << 20;
const TIB_8: u64 = 8 << 40;

/// Mask for a pair whose last byte is `last`.
fn mask(width: u8, last: u64) -> u64 {
    let span = u64::MAX >> last.leading_zeros().min(63);
    let width_mask = u64::MAX >> (64 - u32::from(width));
    (width_mask & !span & !0xFFF) | ENABLED
}

/// The variable pairs (base, mask) for a layout; unused pairs are zero.
pub fn variable_mtrrs(layout: &MemoryLayout) -> [(u64, u64); VARIABLE_MTRRS] {
    let width = layout.phys_bits.clamp(36, 52);
    let end = layout.ram.iter().map(|range| range.end()).max().unwrap_or(0);
    let (low, high) = (layout.low_mmio, layout.high_mmio);
    let pair = |base: u64, last: u64| (base | WRITE_BACK, mask(width, last));
    let mut pairs = [(0, 0); VARIABLE_MTRRS];
    pairs[0] = pair(0, MIB_128 - 1);
    if end > MIB_128 {
        pairs[1] = pair(MIB_128, low.gpa.saturating_sub(1).max(MIB_128));
    }
    if end > low.end() {
        let last = if high.is_empty() {
            end.min(TIB_8) - 1
        } else {
            high.gpa.saturating_sub(1)
        };
        pairs[2] = pair(low.end(), last);
    }
    if !high.is_empty() && end > high.end() {
        pairs[3] = pair(high.end(), TIB_8 - 1);
        if width > 43 {
            pairs[4] = pair(TIB_8, (1 << width) - 1);
        }
    }
    pairs
}

/// Boot processor registers for a UEFI payload: variable MTRRs always, the rest where the image has
/// none of its own.
pub fn host_registers(layout: &MemoryLayout) -> HostRegisters {
    let mut fixed_mtrrs = [None; 11];
    // 0-512 KiB and 512-640 KiB.
    fixed_mtrrs[0] = Some(FIXED_WRITE_BACK);
    fixed_mtrrs[1] = Some(FIXED_WRITE_BACK);
    HostRegisters {
        pat: Some(PAT),
        mtrr_def_type: Some(DEF_TYPE),
        fixed_mtrrs,
        variable_mtrrs: Some(variable_mtrrs(layout)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openvmm_defs::{GpaRange, Machine};

    fn layout(ram: &[(u64, u64)], high: GpaRange, phys_bits: u8) -> MemoryLayout {
        MemoryLayout {
            machine: Machine::HyperV,
            ram: ram.iter().map(|&(gpa, len)| GpaRange::new(gpa, len)).collect(),
            low_mmio: GpaRange::new(0xF800_0000, 0x800_0000),
            high_mmio: high,
            tpm: None,
            root_complexes: Vec::new(),
            phys_bits,
            vp_count: 1,
        }
    }

    #[test]
    fn small_guest_needs_the_first_pair_only() {
        let pairs = variable_mtrrs(&layout(&[(0, 64 << 20)], GpaRange::default(), 39));
        assert_eq!(pairs[0], (6, 0x7F_F800_0800));
        assert_eq!(pairs[1..], [(0, 0); 7]);
    }

    #[test]
    fn ram_below_the_gap_needs_two_pairs() {
        let pairs = variable_mtrrs(&layout(&[(0, 2 << 30)], GpaRange::default(), 40));
        assert_eq!(pairs[1], (0x800_0006, 0xFF_0000_0800));
        assert_eq!(pairs[2], (0, 0));
    }

    #[test]
    fn ram_above_the_gap_reaches_to_its_end_without_high_mmio() {
        let ram = [(0, 0xF800_0000), (1 << 32, 4 << 30)];
        let pairs = variable_mtrrs(&layout(&ram, GpaRange::default(), 40));
        assert_eq!(pairs[2], (0x1_0000_0006, 0xFE_0000_0800));
        assert_eq!(pairs[3], (0, 0));
    }

    #[test]
    fn ram_around_high_mmio_needs_five_pairs_on_a_wide_bus() {
        let high = GpaRange::new(0x2_0000_0000, 0x2000_0000);
        let ram = [(0, 0xF800_0000), (1 << 32, 4 << 30), (0x2_2000_0000, 1 << 30)];
        let pairs = variable_mtrrs(&layout(&ram, high, 46));
        assert_eq!(pairs[2], (0x1_0000_0006, 0x3FFE_0000_0800));
        assert_eq!(pairs[3], (0x2_2000_0006, 0x3800_0000_0800));
        assert_eq!(pairs[4], (0x800_0000_0006, 0x800));
        assert_eq!(variable_mtrrs(&layout(&ram, high, 40))[4], (0, 0));
    }

    #[test]
    fn width_is_clamped() {
        let narrow = variable_mtrrs(&layout(&[(0, 64 << 20)], GpaRange::default(), 32));
        assert_eq!(narrow[0].1, 0xF_F800_0800);
        let wide = variable_mtrrs(&layout(&[(0, 64 << 20)], GpaRange::default(), 57));
        assert_eq!(wide[0].1, 0xF_FFFF_F800_0800);
    }

    #[test]
    fn host_registers_keep_the_low_640_kib_write_back() {
        let registers = host_registers(&layout(&[(0, 64 << 20)], GpaRange::default(), 39));
        assert_eq!(registers.fixed_mtrrs[..2], [Some(FIXED_WRITE_BACK); 2]);
        assert_eq!(registers.fixed_mtrrs[2..], [None; 9]);
        assert_eq!(registers.mtrr_def_type, Some(0xC00));
    }
}
