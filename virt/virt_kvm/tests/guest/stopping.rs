// SPDX-License-Identifier: MIT
//! Ends and interruptions: stop requests, crashes, debugging, time.

use crate::rig::{SPIN, STOP, code, long_mode, real_mode};
use std::time::{Duration, Instant};
use virt::VpStop;
use x86defs::state::gpr;

#[test]
fn a_stop_request_ends_a_spinning_guest_soon() {
    let Some(mut rig) = real_mode(SPIN) else { return };
    let mut worst = Duration::ZERO;
    for _ in 0..10 {
        rig.signals.set_stop(false);
        let threads = rig.spawn();
        std::thread::sleep(Duration::from_millis(5));
        let asked = Instant::now();
        rig.signals.set_stop(true);
        for thread in threads {
            let (runner, stop) = thread.join().unwrap();
            assert_eq!(stop, VpStop::Requested);
            rig.runners.push(runner);
        }
        worst = worst.max(asked.elapsed());
    }
    eprintln!("worst time from stop request to stopped: {worst:?}");
    assert!(worst < Duration::from_millis(500), "{worst:?}");
}

#[test]
fn a_stop_request_before_the_run_is_not_lost() {
    let Some(mut rig) = real_mode(SPIN) else { return };
    rig.signals.set_stop(true);
    assert_eq!(rig.run(), VpStop::Requested);
    assert_eq!(rig.state().rip, 0x1000);
}

#[test]
fn a_triple_fault_is_reported_and_not_a_reset() {
    // lidt [0x3000] (limit 0); int3
    let Some(mut rig) = real_mode(&[0x0F, 0x01, 0x1E, 0x00, 0x30, 0xCC]) else {
        return;
    };
    assert_eq!(rig.run(), VpStop::TripleFault { vp: 0 });
}

#[test]
fn the_time_stamp_counter_stands_still_while_the_clock_does() {
    // rdtsc; out 0xf4, al
    let Some(mut rig) = real_mode(&code(&[&[0x0F, 0x31], STOP, &[0x0F, 0x31], STOP])) else {
        return;
    };
    let tsc = |s: x86defs::X86State| s.gpr[gpr::RDX] << 32 | s.gpr[gpr::RAX];
    assert_eq!(rig.run(), VpStop::Requested);
    let first = tsc(rig.state());
    rig.clock.stop();
    let before = rig.clock.now();
    std::thread::sleep(Duration::from_millis(300));
    rig.signals.set_stop(false);
    assert_eq!(rig.run(), VpStop::Requested);
    let passed = rig.clock.now() - before;
    let second = tsc(rig.state());
    assert!(second > first);
    if !crate::rig::kvm().unwrap().probe().unwrap().hardware {
        eprintln!("not checked: software-nested kvm cannot shift the time-stamp counter");
        return;
    }
    // At most 6 GHz over the time that really passed for the guest.
    assert!(
        second - first < 6 * (passed + 20_000_000),
        "{} cycles in {passed} ns",
        second - first
    );
}

#[test]
fn a_debugger_steps_and_stops_at_breakpoints() {
    // mov ebx, 1; inc ebx; inc ebx; inc ebx; out 0xf4, al
    let Some(mut rig) = long_mode(&code(&[
        &[0xBB, 1, 0, 0, 0, 0xFF, 0xC3, 0xFF, 0xC3, 0xFF, 0xC3],
        STOP,
    ])) else {
        return;
    };
    let debug = rig.runners[0].debug().unwrap();
    assert_eq!(debug.translate(0, 0x1005).unwrap(), Some(0x1005));
    assert_eq!(debug.translate(0, 0xFFFF_8000_0000_0000).unwrap(), None);
    assert_eq!(
        u16::from_le_bytes(debug.fxsave(0).unwrap()[..2].try_into().unwrap()),
        0x37F
    );
    assert_eq!(debug.step(0).unwrap(), VpStop::Stepped { vp: 0 });
    debug.set_breakpoints(&[0x1007]).unwrap();
    assert!(debug.set_breakpoints(&[1, 2, 3, 4, 5]).is_err());
    assert_eq!(rig.state().rip, 0x1005);
    assert_eq!(rig.run(), VpStop::Breakpoint { vp: 0 });
    let s = rig.state();
    assert_eq!((s.rip, s.gpr[gpr::RBX]), (0x1007, 2));
    assert_eq!(rig.run(), VpStop::Requested);
    assert_eq!(rig.state().gpr[gpr::RBX], 4);
}
