// SPDX-License-Identifier: MIT
//! Local APICs at register level, with a clock that the test moves.

use super::*;
use crate::lock;
use crate::testing::Bench;

const SVR: u64 = 0xF0;
const ICR: u64 = 0x300;
const ICR_HIGH: u64 = 0x310;
const LVT_TIMER_AT: u64 = 0x320;

fn read(set: &LapicSet, vp: VpIndex, offset: u64) -> u32 {
    let mut data = [0; 4];
    set.mmio_read(vp, offset, &mut data);
    u32::from_le_bytes(data)
}

fn write(set: &LapicSet, vp: VpIndex, offset: u64, value: u32) {
    set.mmio_write(vp, offset, &value.to_le_bytes());
}

/// Local APICs that are software-enabled.
fn enabled(bench: &Bench, count: u32) -> Arc<LapicSet> {
    enabled_with(bench, count, LapicConfig::default())
}

fn enabled_with(bench: &Bench, count: u32, config: LapicConfig) -> Arc<LapicSet> {
    let set = bench.lapics(count, config);
    (0..count).for_each(|vp| write(&set, vp, SVR, 0x1FF));
    set
}

fn ipi(set: &LapicSet, from: VpIndex, to: u8, low: u32) {
    write(set, from, ICR_HIGH, u32::from(to) << 24);
    write(set, from, ICR, low);
}

const INTERRUPT: VpEvents = VpEvents {
    init: false,
    sipi: None,
    nmi: false,
    interrupt: true,
};
const INIT: VpEvents = VpEvents {
    init: true,
    sipi: None,
    nmi: false,
    interrupt: false,
};

fn sipi(vector: u8) -> VpEvents {
    VpEvents {
        sipi: Some(vector),
        ..Default::default()
    }
}

#[test]
fn reset_values_are_those_of_the_manual() {
    let set = Bench::new().lapics(2, LapicConfig::default());
    let values = [
        (0x20, 0x0100_0000),
        (0x30, 0x0005_0014),
        (0xD0, 0),
        (0xE0, u32::MAX),
        (SVR, 0xFF),
    ];
    for (offset, value) in values {
        assert_eq!(read(&set, 1, offset), value, "offset {offset:#x}");
    }
    for lvt in (0x320..=0x370).step_by(0x10) {
        assert_eq!(read(&set, 1, lvt), 0x1_0000);
    }
    assert_eq!(set.msr_read(0, msr::APIC_BASE), Some(0xFEE0_0900));
    assert_eq!(set.msr_read(1, msr::APIC_BASE), Some(0xFEE0_0800));
}

#[test]
fn a_software_disabled_lapic_drops_vectors_and_masks_its_table() {
    let bench = Bench::new();
    let set = bench.lapics(1, LapicConfig::default());
    set.request(0, 0x40);
    assert_eq!(set.poll(0), VpEvents::default());
    write(&set, 0, LVT_TIMER_AT, 0x40);
    assert_eq!(read(&set, 0, LVT_TIMER_AT), 0x1_0040);
    write(&set, 0, SVR, 0x1FF);
    write(&set, 0, LVT_TIMER_AT, 0x40);
    assert_eq!(read(&set, 0, LVT_TIMER_AT), 0x40);
    write(&set, 0, SVR, 0xFF);
    assert_eq!(read(&set, 0, LVT_TIMER_AT), 0x1_0040);
}

#[test]
fn the_highest_vector_comes_first_and_priority_holds_back_the_rest() {
    let bench = Bench::new();
    let set = enabled(&bench, 1);
    set.request(0, 0x41);
    set.request(0, 0x62);
    set.request(0, 0x45);
    assert_eq!(set.acknowledge(0), Some(0x62));
    assert_eq!(read(&set, 0, 0xA0), 0x60);
    assert_eq!(set.poll(0), VpEvents::default());
    assert_eq!(set.acknowledge(0), None);
    write(&set, 0, 0xB0, 0);
    assert_eq!(set.acknowledge(0), Some(0x45));
    write(&set, 0, 0xB0, 0);
    write(&set, 0, 0x80, 0x40);
    assert_eq!(set.poll(0), VpEvents::default());
    set.set_cr8(0, 3);
    assert_eq!((set.cr8(0), read(&set, 0, 0x80)), (3, 0x30));
    assert_eq!(set.poll(0), INTERRUPT);
    assert_eq!(set.acknowledge(0), Some(0x41));
}

#[test]
fn every_new_event_wakes_the_vp_once() {
    let bench = Bench::new();
    let set = enabled(&bench, 2);
    set.request(1, 0x50);
    set.request(1, 0x51);
    assert_eq!(*lock(&bench.record.wakes), [1]);
    set.acknowledge(1);
    // 0x50 is deliverable again after the EOI.
    write(&set, 1, 0xB0, 0);
    assert_eq!(*lock(&bench.record.wakes), [1, 1]);
}

#[test]
fn init_and_sipi_reach_everybody_but_the_sender() {
    let bench = Bench::new();
    let set = enabled(&bench, 3);
    // As OVMF sends them (ovmf-machine section 1.4).
    write(&set, 0, ICR, 0xC4500);
    write(&set, 0, ICR, 0xC469F);
    write(&set, 0, ICR, 0xC469F);
    assert_eq!(set.poll(0), VpEvents::default());
    for vp in [1, 2] {
        assert_eq!(
            set.poll(vp),
            VpEvents {
                sipi: Some(0x9F),
                ..INIT
            }
        );
        assert_eq!(set.poll(vp), VpEvents::default());
        assert_eq!(read(&set, vp, SVR), 0xFF, "INIT resets the registers");
        assert_eq!(read(&set, vp, 0x20) >> 24, vp);
    }
}

#[test]
fn a_sipi_after_the_init_was_taken_wakes_again_and_one_before_it_is_gone() {
    let bench = Bench::new();
    let set = enabled(&bench, 2);
    ipi(&set, 0, 1, 0x4605);
    ipi(&set, 0, 1, 0x4400);
    ipi(&set, 0, 1, 0x4500);
    assert_eq!(set.poll(1), INIT);
    let before = lock(&bench.record.wakes).len();
    ipi(&set, 0, 1, 0x4606);
    assert_eq!(lock(&bench.record.wakes).len(), before + 1);
    assert_eq!(set.poll(1), sipi(6));
}

#[test]
fn init_level_deassert_does_nothing() {
    let set = enabled(&Bench::new(), 2);
    ipi(&set, 0, 1, 0x8500);
    assert_eq!(set.poll(1), VpEvents::default());
    ipi(&set, 0, 1, 0xC500);
    assert_eq!(set.poll(1), INIT);
}

#[test]
fn shorthands_name_self_all_and_others() {
    let set = enabled(&Bench::new(), 3);
    let waiting = |vector: u8| {
        let got: Vec<_> = (0..3).filter(|&vp| set.acknowledge(vp) == Some(vector)).collect();
        (0..3).for_each(|vp| write(&set, vp, 0xB0, 0));
        got
    };
    write(&set, 1, ICR, 0x4_0041);
    assert_eq!(waiting(0x41), [1]);
    write(&set, 1, ICR, 0x8_0042);
    assert_eq!(waiting(0x42), [0, 1, 2]);
    write(&set, 1, ICR, 0xC_0043);
    assert_eq!(waiting(0x43), [0, 2]);
    ipi(&set, 1, 0xFF, 0x44);
    assert_eq!(waiting(0x44), [0, 1, 2]);
    ipi(&set, 1, 2, 0x45);
    assert_eq!(waiting(0x45), [2]);
    ipi(&set, 1, 9, 0x46);
    assert!(waiting(0x46).is_empty());
}

#[test]
fn logical_destinations_match_flat_and_cluster() {
    let set = enabled(&Bench::new(), 3);
    (0..3).for_each(|vp| write(&set, vp, 0xD0, 1 << (24 + vp)));
    ipi(&set, 0, 0b101, 0x0841);
    assert_eq!(
        [0, 1, 2].map(|vp| set.acknowledge(vp)),
        [Some(0x41), None, Some(0x41)]
    );
    for vp in 0..3 {
        write(&set, vp, 0xE0, 0x0FFF_FFFF);
        write(
            &set,
            vp,
            0xD0,
            (0x1000_0000 * (1 + vp / 2)) | (1 << (24 + vp % 2)),
        );
        write(&set, vp, 0xB0, 0);
    }
    ipi(&set, 0, 0x13, 0x0842);
    assert_eq!(
        [0, 1, 2].map(|vp| set.acknowledge(vp)),
        [Some(0x42), Some(0x42), None]
    );
    ipi(&set, 0, 0x21, 0x0843);
    assert_eq!(set.acknowledge(2), Some(0x43));
}

#[test]
fn lowest_priority_picks_the_least_busy() {
    let set = enabled(&Bench::new(), 3);
    (0..3).for_each(|vp| write(&set, vp, 0xD0, 1 << (24 + vp)));
    write(&set, 0, 0x80, 0x50);
    write(&set, 1, 0x80, 0x20);
    write(&set, 2, 0x80, 0x30);
    ipi(&set, 0, 7, 0x0961);
    assert_eq!([0, 1, 2].map(|vp| set.acknowledge(vp)), [None, Some(0x61), None]);
}

#[test]
fn nmi_is_pending_whatever_the_priority_and_only_once() {
    let set = enabled(&Bench::new(), 2);
    write(&set, 1, 0x80, 0xFF);
    ipi(&set, 0, 1, 0x4400);
    assert_eq!(
        set.poll(1),
        VpEvents {
            nmi: true,
            ..Default::default()
        }
    );
    assert_eq!(set.poll(1), VpEvents::default());
}

#[test]
fn illegal_vectors_show_in_the_error_register_and_interrupt() {
    let set = enabled(&Bench::new(), 1);
    write(&set, 0, 0x370, 0xFE);
    write(&set, 0, ICR, 0x4_0005);
    assert_eq!(set.acknowledge(0), Some(0xFE));
    assert_eq!(read(&set, 0, 0x280), 0, "latched by a write only");
    write(&set, 0, 0x280, 0);
    assert_eq!(read(&set, 0, 0x280), 0x20);
    write(&set, 0, 0x280, 0);
    assert_eq!(read(&set, 0, 0x280), 0);
}

#[test]
fn the_timer_counts_down_at_one_gigahertz_over_the_divider() {
    let bench = Bench::new();
    let set = enabled(&bench, 1);
    for (divide, by) in [
        (0xB, 1),
        (0, 2),
        (1, 4),
        (2, 8),
        (3, 16),
        (8, 32),
        (9, 64),
        (0xA, 128),
    ] {
        write(&set, 0, 0x3E0, divide);
        write(&set, 0, 0x380, 1_000_000);
        bench.advance(1000 * by);
        assert_eq!(read(&set, 0, 0x390), 999_000, "divide by {by}");
    }
}

#[test]
fn a_one_shot_fires_once_at_its_time() {
    let bench = Bench::new();
    let set = enabled(&bench, 1);
    write(&set, 0, 0x3E0, 0xB);
    write(&set, 0, LVT_TIMER_AT, 0x40);
    write(&set, 0, 0x380, 5000);
    bench.advance(4999);
    assert_eq!(set.poll(0), VpEvents::default());
    bench.advance(1);
    assert_eq!(set.acknowledge(0), Some(0x40));
    assert_eq!(read(&set, 0, 0x390), 0);
    write(&set, 0, 0xB0, 0);
    bench.advance(1_000_000);
    assert_eq!(set.poll(0), VpEvents::default());
}

#[test]
fn a_periodic_timer_neither_drifts_nor_storms() {
    let bench = Bench::new();
    let set = enabled(&bench, 1);
    write(&set, 0, 0x3E0, 0xB);
    write(&set, 0, LVT_TIMER_AT, 0x2_0020);
    write(&set, 0, 0x380, 10_000_000);
    let mut ticks = 0;
    for _ in 0..100 {
        bench.advance(10_000_000);
        ticks += usize::from(set.acknowledge(0) == Some(0x20));
        write(&set, 0, 0xB0, 0);
    }
    assert_eq!(ticks, 100);
    // A host that was away for 25.5 periods: one tick, and the phase is kept.
    bench.skip(255_000_000);
    assert_eq!(set.acknowledge(0), Some(0x20));
    write(&set, 0, 0xB0, 0);
    assert_eq!(bench.timers.next_deadline(), Some(1_000_000_000 + 260_000_000));
}

#[test]
fn a_period_of_one_nanosecond_does_not_spin_the_host() {
    let bench = Bench::new();
    let set = enabled(&bench, 1);
    write(&set, 0, 0x3E0, 0xB);
    write(&set, 0, LVT_TIMER_AT, 0x2_0020);
    write(&set, 0, 0x380, 1);
    bench.skip(1);
    assert!(bench.timers.next_deadline().unwrap() >= bench.clock.now() + 10_000);
}

#[test]
fn a_masked_timer_counts_silently_and_stopping_it_disarms() {
    let bench = Bench::new();
    let set = enabled(&bench, 1);
    write(&set, 0, 0x3E0, 0xB);
    write(&set, 0, 0x380, 1000);
    bench.advance(400);
    assert_eq!(read(&set, 0, 0x390), 600);
    assert_eq!(bench.timers.next_deadline(), None);
    write(&set, 0, LVT_TIMER_AT, 0x40);
    assert_eq!(bench.timers.next_deadline(), Some(1000));
    write(&set, 0, 0x380, 0);
    assert_eq!(bench.timers.next_deadline(), None);
}

#[test]
fn changing_the_divider_keeps_the_count() {
    let bench = Bench::new();
    let set = enabled(&bench, 1);
    write(&set, 0, 0x3E0, 0xB);
    write(&set, 0, LVT_TIMER_AT, 0x40);
    write(&set, 0, 0x380, 1000);
    bench.advance(500);
    write(&set, 0, 0x3E0, 0);
    assert_eq!(read(&set, 0, 0x390), 500);
    assert_eq!(bench.timers.next_deadline(), Some(1500));
}

#[test]
fn tsc_deadline_exists_only_when_advertised() {
    let bench = Bench::new();
    let set = enabled(&bench, 1);
    assert_eq!(set.msr_read(0, msr::TSC_DEADLINE), None);
    assert!(!set.msr_write(0, msr::TSC_DEADLINE, 1));
    write(&set, 0, LVT_TIMER_AT, 0x4_0040);
    assert_eq!(read(&set, 0, LVT_TIMER_AT), 0x40);

    let set = enabled_with(
        &bench,
        1,
        LapicConfig {
            tsc_hz: Some(2_000_000_000),
            ..Default::default()
        },
    );
    write(&set, 0, LVT_TIMER_AT, 0x4_0040);
    assert!(set.msr_write(0, msr::TSC_DEADLINE, 6001));
    assert_eq!(set.msr_read(0, msr::TSC_DEADLINE), Some(6001));
    bench.advance(3000);
    assert_eq!(set.poll(0), VpEvents::default());
    bench.advance(1);
    assert_eq!(set.acknowledge(0), Some(0x40));
    assert_eq!(set.msr_read(0, msr::TSC_DEADLINE), Some(0));
}

#[test]
fn x2apic_mode_is_refused_when_hidden_and_follows_the_state_diagram() {
    let bench = Bench::new();
    let set = enabled(&bench, 1);
    assert!(!set.msr_write(0, msr::APIC_BASE, 0xFEE0_0D00));
    assert_eq!(set.msr_read(0, 0x802), None);

    let set = enabled_with(
        &bench,
        1,
        LapicConfig {
            x2apic: true,
            ..Default::default()
        },
    );
    assert!(
        !set.msr_write(0, msr::APIC_BASE, 0xFEE0_0500),
        "x2APIC without enable"
    );
    assert!(set.msr_write(0, msr::APIC_BASE, 0xFEE0_0D00));
    assert!(!set.claims(0, 0xFEE0_0000));
    assert!(
        !set.msr_write(0, msr::APIC_BASE, 0xFEE0_0900),
        "no way straight back"
    );
    assert!(set.msr_write(0, msr::APIC_BASE, 0xFEE0_0100));
    assert!(
        !set.msr_write(0, msr::APIC_BASE, 0xFEE0_0D00),
        "disabled to x2APIC"
    );
    assert!(set.msr_write(0, msr::APIC_BASE, 0xFEE0_0900));
    assert!(set.claims(0, 0xFEE0_0000));
    assert!(
        !set.msr_write(0, msr::APIC_BASE, 1 << 45),
        "above the physical width"
    );
}

#[test]
fn x2apic_registers_are_msrs_with_their_own_rules() {
    let bench = Bench::new();
    let set = enabled_with(
        &bench,
        18,
        LapicConfig {
            x2apic: true,
            ..Default::default()
        },
    );
    (0..18).for_each(|vp| assert!(set.msr_write(vp, msr::APIC_BASE, 0xFEE0_0C00)));
    assert_eq!(set.msr_read(17, 0x802), Some(17));
    assert_eq!(set.msr_read(17, 0x80D), Some(0x1_0002));
    assert_eq!((set.msr_read(0, 0x80E), set.msr_read(0, 0x831)), (None, None));
    assert!(!set.msr_write(0, 0x80B, 1) && set.msr_write(0, 0x80B, 0));
    assert!(!set.msr_write(0, 0x808, 1 << 32));
    // Physical, logical cluster 1, self.
    assert!(set.msr_write(0, 0x830, 17 << 32 | 0x51));
    assert_eq!(set.acknowledge(17), Some(0x51));
    assert!(set.msr_write(17, 0x80B, 0));
    assert!(set.msr_write(0, 0x830, 0x1_0003 << 32 | 0x852));
    assert_eq!(
        (set.acknowledge(16), set.acknowledge(17)),
        (Some(0x52), Some(0x52))
    );
    assert!(set.msr_write(3, 0x83F, 0x53));
    assert_eq!(set.acknowledge(3), Some(0x53));
    assert_eq!(set.msr_read(3, 0x830), Some(0), "SELF IPI leaves ICR alone");
}

#[test]
fn the_page_moves_with_its_base() {
    let set = enabled(&Bench::new(), 2);
    assert!(set.msr_write(1, msr::APIC_BASE, 0x1_2345_6800));
    assert!(set.claims(1, 0x1_2345_6FFF) && !set.claims(1, 0xFEE0_0000) && set.claims(0, 0xFEE0_0000));
}

#[test]
fn msis_are_decoded_from_address_and_data() {
    let set = enabled(&Bench::new(), 2);
    set.signal_msi(0xFEE0_1000, 0x4031);
    assert_eq!(set.acknowledge(1), Some(0x31));
    set.signal_msi(0xFED0_1000, 0x4032);
    set.signal_msi(0xFEE0_1000, 0x4332);
    assert_eq!(set.acknowledge(1), None);
}

#[test]
fn virtual_wire_machines_start_with_lint0_open() {
    let set = Bench::new().lapics(
        2,
        LapicConfig {
            virtual_wire: true,
            ..Default::default()
        },
    );
    set.set_extint(true);
    assert_eq!((set.poll(0), set.poll(1)), (INTERRUPT, VpEvents::default()));
    set.pulse_lint1();
    assert!(set.poll(0).nmi && !set.poll(1).nmi);
}

#[test]
fn reset_forgets_everything() {
    let bench = Bench::new();
    let set = enabled(&bench, 2);
    write(&set, 0, LVT_TIMER_AT, 0x2_0020);
    write(&set, 0, 0x380, 1000);
    set.inject_nmi(1);
    assert!(set.msr_write(1, msr::APIC_BASE, 0x1_2345_6800));
    set.reset();
    assert_eq!(set.poll(1), VpEvents::default());
    assert_eq!(bench.timers.next_deadline(), None);
    assert!(set.claims(1, 0xFEE0_0000));
    assert_eq!(read(&set, 0, SVR), 0xFF);
}

#[test]
fn count_down_that_ends_before_it_is_armed_still_fires() {
    let clock = Arc::new(Clock::host());
    clock.start();
    let timers = TimerQueue::new();
    let world = LapicWorld {
        clock: clock.clone(),
        timers: timers.clone(),
        wake: Arc::new(crate::testing::Record::default()),
        phys_bits: 39,
    };
    let set = LapicSet::new(1, LapicConfig::default(), world);
    write(&set, 0, SVR, 0x1FF);
    write(&set, 0, LVT_TIMER_AT, 0x40);
    write(&set, 0, 0x3E0, 0xB);
    for _ in 0..1000 {
        // One nanosecond: over before the store has returned.
        write(&set, 0, 0x380, 1);
        let deadline = timers.next_deadline();
        assert!(deadline.is_some_and(|d| d <= clock.now()), "{deadline:?}");
        timers.fire_due(clock.now());
        assert_eq!(set.acknowledge(0), Some(0x40));
        write(&set, 0, 0xB0, 0);
    }
}
