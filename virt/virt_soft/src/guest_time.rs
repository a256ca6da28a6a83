// SPDX-License-Identifier: MIT
//! What a VP knows about time without asking a device: its time-stamp counter, and the clock page of the
//! paravirtual interface that KVM defined (Linux Documentation, virt/kvm/x86/msr.rst and cpuid.rst).
//!
//! Always true: the counter runs at 1 GHz on the partition's clock, plus what the guest wrote; a guest that
//! asks for the clock page gets exactly that relation, so it never has to measure the counter against a
//! device, which fails on a host that is busy with other work. Intel's leaves 0x15 and 0x16 say the same.
//! Not here: the hypervisor leaves of machines that have their own.

use guest_memory::GuestMemory;
use x86defs::cpuid::CpuidEntry;
use x86defs::msr;

/// First hypervisor leaf.
const HYPERVISOR: u32 = 0x4000_0000;
/// The clock registers have their new numbers; the processors' counters agree.
const FEATURES: u32 = 1 << 3 | 1 << 24;
/// Takes the gpa of the time of day at clock 0.
const WALL_CLOCK: u32 = 0x4B56_4D00;
/// Takes the gpa of the clock page; bit 0 turns it on.
const SYSTEM_TIME: u32 = 0x4B56_4D01;
/// The processors' counters agree.
const STABLE: u8 = 1;
/// Maximum basic leaf with the frequencies.
const LAST_LEAF: u32 = 0x16;
const MHZ: u32 = 1000;
/// TSC_ADJUST in leaf 7 EBX.
const LEAF7_TSC_ADJUST: u32 = 1 << 1;

/// Adds frequencies, TSC_ADJUST and, unless `own` has hypervisor leaves, the clock interface.
pub(crate) fn describe(leaves: &mut Vec<CpuidEntry>, own: &[CpuidEntry]) {
    for leaf in leaves.iter_mut() {
        match (leaf.leaf, leaf.subleaf) {
            (0, _) => leaf.eax = leaf.eax.max(LAST_LEAF),
            (7, None | Some(0)) => leaf.ebx |= LEAF7_TSC_ADJUST,
            _ => {}
        }
    }
    let entry = |leaf, [eax, ebx, ecx, edx]: [u32; 4]| CpuidEntry {
        leaf,
        subleaf: None,
        eax,
        ebx,
        ecx,
        edx,
    };
    // The crystal is the clock itself, which also drives the local APIC's timer.
    leaves.push(entry(0x15, [1, 1, MHZ * 1_000_000, 0]));
    leaves.push(entry(0x16, [MHZ, MHZ, 100, 0]));
    if own.iter().all(|e| e.leaf >> 24 != HYPERVISOR >> 24) {
        let name = [*b"KVMK", *b"VMKV", *b"M\0\0\0"].map(u32::from_le_bytes);
        leaves.push(entry(HYPERVISOR, [HYPERVISOR + 1, name[0], name[1], name[2]]));
        leaves.push(entry(HYPERVISOR + 1, [FEATURES, 0, 0, 0]));
    }
}

/// One VP's time.
#[derive(Debug, Default)]
pub(crate) struct GuestTime {
    /// TSC_ADJUST: what the counter is ahead of the clock.
    adjust: u64,
    /// What the guest wrote to [`SYSTEM_TIME`].
    system_time: u64,
    wall_clock: u64,
}

impl GuestTime {
    /// The counter when the clock is at `now`.
    pub(crate) fn tsc(&self, now: u64) -> u64 {
        now.wrapping_add(self.adjust)
    }

    /// RDMSR; `None` when the register is not about time.
    pub(crate) fn read_msr(&self, number: u32) -> Option<u64> {
        match number {
            msr::TSC_ADJUST => Some(self.adjust),
            SYSTEM_TIME => Some(self.system_time),
            WALL_CLOCK => Some(self.wall_clock),
            _ => None,
        }
    }

    /// WRMSR at clock `now`, `wall` nanoseconds after the Unix epoch; false when the register is not about
    /// time.
    pub(crate) fn write_msr(
        &mut self,
        (number, value): (u32, u64),
        (now, wall): (u64, u64),
        memory: &GuestMemory,
    ) -> bool {
        match number {
            msr::TSC => self.adjust = value.wrapping_sub(now),
            msr::TSC_ADJUST => self.adjust = value,
            SYSTEM_TIME => self.system_time = value,
            WALL_CLOCK => {
                self.wall_clock = value;
                write(memory, value, &wall_clock(wall.saturating_sub(now)));
                return true;
            }
            _ => return false,
        }
        if self.system_time & 1 != 0 {
            write(memory, self.system_time & !1, &self.page());
        }
        true
    }

    /// struct pvclock_vcpu_time_info: nanoseconds = system_time + ((tsc - tsc_timestamp) << shift) * mul / 2^32.
    fn page(&self) -> [u8; 32] {
        const VERSION: u32 = 2;
        const SHIFT: i8 = 1;
        const MULTIPLIER: u32 = 1 << 31;
        let mut page = [0; 32];
        page[..4].copy_from_slice(&VERSION.to_le_bytes());
        page[8..16].copy_from_slice(&self.adjust.to_le_bytes());
        page[24..28].copy_from_slice(&MULTIPLIER.to_le_bytes());
        page[28] = SHIFT.to_le_bytes()[0];
        page[29] = STABLE;
        page
    }
}

/// struct pvclock_wall_clock: the time of day at clock 0.
fn wall_clock(epoch_ns: u64) -> [u8; 12] {
    const VERSION: u32 = 2;
    const SECOND: u64 = 1_000_000_000;
    let mut wall = [0; 12];
    wall[..4].copy_from_slice(&VERSION.to_le_bytes());
    wall[4..8].copy_from_slice(&((epoch_ns / SECOND) as u32).to_le_bytes());
    wall[8..].copy_from_slice(&((epoch_ns % SECOND) as u32).to_le_bytes());
    wall
}

/// The guest chose the place: what is not RAM takes nothing, as on KVM.
fn write(memory: &GuestMemory, gpa: u64, bytes: &[u8]) {
    if let Err(error) = memory.write(gpa, bytes) {
        tracing::warn!("the guest's clock page: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_page_gives_the_clock_whatever_the_counter_was_set_to() {
        let memory = GuestMemory::allocate(&[(0, 0x10_0000)]).unwrap();
        let mut time = GuestTime::default();
        assert!(time.write_msr((SYSTEM_TIME, 0x2001), (500, 0), &memory));
        assert!(time.write_msr((msr::TSC, 77), (1_000, 0), &memory));
        let mut page = [0; 32];
        memory.read(0x2000, &mut page).unwrap();
        let word = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().unwrap());
        let multiplier = u64::from(u32::from_le_bytes(page[24..28].try_into().unwrap()));
        let now = 123_456_789;
        let delta = time.tsc(now).wrapping_sub(word(8)) << page[28];
        assert_eq!(
            word(16) + ((u128::from(delta) * u128::from(multiplier)) >> 32) as u64,
            now
        );
        assert_eq!(time.tsc(1_000), 77);
        assert_eq!(time.read_msr(msr::TSC_ADJUST), Some(77_u64.wrapping_sub(1_000)));
    }

    #[test]
    fn the_wall_clock_is_the_time_at_clock_zero() {
        let memory = GuestMemory::allocate(&[(0, 0x10_0000)]).unwrap();
        let mut time = GuestTime::default();
        let now = 3_000_000_000;
        time.write_msr(
            (WALL_CLOCK, 0x3000),
            (now, 1_700_000_000_500_000_000 + now),
            &memory,
        );
        let mut wall = [0; 12];
        memory.read(0x3000, &mut wall).unwrap();
        assert_eq!(wall[4..8], 1_700_000_000_u32.to_le_bytes());
        assert_eq!(wall[8..], 500_000_000_u32.to_le_bytes());
    }

    #[test]
    fn a_clock_page_outside_ram_is_ignored() {
        let memory = GuestMemory::allocate(&[(0, 0x10_0000)]).unwrap();
        let mut time = GuestTime::default();
        assert!(time.write_msr((SYSTEM_TIME, u64::MAX), (0, 0), &memory));
        assert!(!time.write_msr((0x1234, 0), (0, 0), &memory));
    }

    #[test]
    fn a_machine_with_hypervisor_leaves_keeps_them() {
        let own = CpuidEntry {
            leaf: HYPERVISOR,
            subleaf: None,
            eax: 0,
            ebx: 0,
            ecx: 0,
            edx: 0,
        };
        let mut leaves = Vec::new();
        describe(&mut leaves, &[own]);
        assert!(leaves.iter().all(|l| l.leaf < HYPERVISOR));
        describe(&mut leaves, &[]);
        assert_eq!(leaves.iter().filter(|l| l.leaf >= HYPERVISOR).count(), 2);
    }
}
