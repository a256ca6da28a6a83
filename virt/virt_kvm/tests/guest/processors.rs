// SPDX-License-Identifier: MIT
//! Application processors: wait-for-SIPI, start, INIT again.

use crate::rig::{PORT_START, SPIN, STOP, code, real_mode_state, rig};
use std::time::Duration;
use virt::VpStop;
use x86defs::state::gpr;

#[test]
fn an_application_processor_starts_at_its_sipi_vector() {
    let Some(mut rig) = rig(2, Vec::new()) else { return };
    // VP 0: mov al, 5; out 0xe1, al; jmp $.  VP 1 at 0x5000: CPUID leaf 1, then stop with its APIC id.
    let bsp = code(&[&[0xB0, 5, 0xE6, PORT_START as u8], SPIN]);
    // mov eax, 1; cpuid; shr ebx, 24; mov al, bl; out 0x10, al; mov ax, cs; out 0x11, ax
    let ap = [
        0x66, 0xB8, 1, 0, 0, 0, 0x0F, 0xA2, 0x66, 0xC1, 0xEB, 0x18, 0x88, 0xD8, 0xE6, 0x10, 0x8C, 0xC8, 0xE7,
        0x11,
    ];
    rig.memory.write(0x5000, &code(&[&ap, STOP])).unwrap();
    rig.load(&bsp, &real_mode_state());
    let threads = rig.spawn();
    for (vp, thread) in (0..).zip(threads) {
        let (mut runner, stop) = thread.join().unwrap();
        assert_eq!(stop, VpStop::Requested);
        assert_eq!(runner.vps(), vp..vp + 1);
        assert!(runner.state(1 - vp).is_err(), "a runner has only its own vp");
        rig.runners.push(runner);
    }
    assert_eq!(rig.written(0x10), [1], "apic id of vp 1");
    assert_eq!(rig.written(0x11), [0x00, 0x05], "its code segment");
}

#[test]
fn an_application_processor_waits_without_a_sipi_and_stops_when_asked() {
    let Some(mut rig) = rig(2, Vec::new()) else { return };
    rig.load(SPIN, &real_mode_state());
    let threads = rig.spawn();
    std::thread::sleep(Duration::from_millis(30));
    rig.signals.set_stop(true);
    let mut rips = Vec::new();
    for (vp, thread) in (0..).zip(threads) {
        let (mut runner, stop) = thread.join().unwrap();
        assert_eq!(stop, VpStop::Requested);
        rips.push(runner.state(vp).unwrap().rip);
    }
    assert_eq!(rips, [0x1000, 0xFFF0], "the second one is still in reset state");
}

#[test]
fn init_sends_the_boot_processor_to_its_reset_vector_and_keeps_its_mtrrs() {
    let Some(mut rig) = rig(1, Vec::new()) else { return };
    let mut state = real_mode_state();
    state.gpr[gpr::RBX] = 77;
    state.mtrr.def_type = 0xC06;
    rig.load(SPIN, &state);
    rig.bus.log().events.entry(0).or_default().init = true;
    // The reset vector has no memory behind it: all ones, which is #UD.
    rig.set_vector(6, 0x2000);
    rig.memory.write(0x2000, STOP).unwrap();
    assert_eq!(rig.run(), VpStop::Requested);
    let s = rig.state();
    assert_eq!(
        (s.rip, s.gpr[gpr::RSP]),
        (0x2002, 0xFFFA),
        "it took #UD on the stack of reset state"
    );
    assert_eq!((s.gpr[gpr::RBX], s.mtrr.def_type), (0, 0xC06));
}
