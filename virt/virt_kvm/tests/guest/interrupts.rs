// SPDX-License-Identifier: MIT
//! External interrupts, NMIs, HLT, CR8.

use crate::rig::{PORT_NMI, PORT_RAISE, SPIN, STOP, code, long_mode, real_mode};
use std::time::Duration;
use virt::VpStop;
use x86defs::state::gpr;

/// `out imm8, al` with `al = value`.
fn out(port: u16, value: u8) -> Vec<u8> {
    vec![0xB0, value, 0xE6, port as u8]
}

#[test]
fn an_interrupt_from_another_thread_wakes_a_halted_vp() {
    // sti; hlt; mov al, 'b'; out 0x10, al
    let guest = code(&[&[0xFB, 0xF4], &out(0x10, b'b'), STOP]);
    let Some(mut rig) = real_mode(&guest) else { return };
    rig.set_vector(0x40, 0x2000);
    rig.memory
        .write(0x2000, &code(&[&out(0x10, b'a'), &[0xCF]]))
        .unwrap();
    let bus = rig.bus.clone();
    let waker = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        assert!(bus.log().out.is_empty(), "the guest waits in HLT");
        bus.raise(0x40);
    });
    assert_eq!(rig.run(), VpStop::Requested);
    waker.join().unwrap();
    assert_eq!(rig.written(0x10), b"ab");
}

/// `sti`, then a loop until the byte at 0x3000 is at least `count`. Software-nested KVM opens the interrupt
/// window late when it emulates, so nothing may depend on the exact instruction.
fn enable_and_wait_for(count: u8) -> Vec<u8> {
    vec![0xFB, 0x80, 0x3E, 0x00, 0x30, count, 0x72, 0xF9]
}

/// A handler: out 0x10, `mark`; inc byte [0x3000]; iret.
fn handler(mark: u8) -> Vec<u8> {
    code(&[&out(0x10, mark), &[0xFE, 0x06, 0x00, 0x30, 0xCF]])
}

#[test]
fn an_interrupt_waits_until_the_guest_enables_them() {
    let guest = code(&[
        &out(PORT_RAISE, 0x40),
        &out(0x10, b'a'),
        &enable_and_wait_for(1),
        &out(0x10, b'c'),
        STOP,
        SPIN,
    ]);
    let Some(mut rig) = real_mode(&guest) else { return };
    rig.set_vector(0x40, 0x2000);
    rig.memory.write(0x2000, &handler(b'b')).unwrap();
    assert_eq!(rig.run(), VpStop::Requested);
    assert_eq!(rig.written(0x10), b"abc");
}

#[test]
fn two_waiting_vectors_are_both_delivered() {
    let raise = code(&[&out(PORT_RAISE, 0x40), &out(PORT_RAISE, 0x41)]);
    let guest = code(&[&raise, &enable_and_wait_for(2), &out(0x10, b'.'), &[0xFA], STOP]);
    let Some(mut rig) = real_mode(&guest) else { return };
    rig.set_vector(0x40, 0x2000);
    rig.set_vector(0x41, 0x2100);
    rig.memory.write(0x2000, &handler(b'0')).unwrap();
    rig.memory.write(0x2100, &handler(b'1')).unwrap();
    assert_eq!(rig.run(), VpStop::Requested);
    assert_eq!(rig.written(0x10), b"01.");
}

#[test]
fn a_halted_vp_with_interrupts_off_wakes_for_an_nmi_only() {
    // cli; raise 0x40; hlt  (woken by the NMI from outside); out 'n' after its handler
    let guest = code(&[&[0xFA], &out(PORT_RAISE, 0x40), &[0xF4], &out(0x10, b'e'), STOP]);
    let Some(mut rig) = real_mode(&guest) else { return };
    rig.set_vector(2, 0x2000);
    rig.memory
        .write(0x2000, &code(&[&out(0x10, b'n'), &[0xCF]]))
        .unwrap();
    let (bus, signals) = (rig.bus.clone(), rig.signals.clone());
    let waker = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(
            bus.log().vectors.len(),
            1,
            "the vector was not taken with IF clear"
        );
        bus.log().events.entry(0).or_default().nmi = true;
        signals.wake(0);
    });
    assert_eq!(rig.run(), VpStop::Requested);
    waker.join().unwrap();
    assert_eq!(rig.written(0x10), b"ne");
}

#[test]
fn an_nmi_interrupts_running_code_with_interrupts_off() {
    let guest = code(&[&[0xFA], &out(PORT_NMI, 0), &out(0x10, b'e'), STOP]);
    let Some(mut rig) = real_mode(&guest) else { return };
    rig.set_vector(2, 0x2000);
    rig.memory
        .write(0x2000, &code(&[&out(0x10, b'n'), &[0xCF]]))
        .unwrap();
    assert_eq!(rig.run(), VpStop::Requested);
    assert_eq!(rig.written(0x10), b"ne");
}

#[test]
fn the_task_priority_is_shared_with_the_bus_both_ways() {
    // mov rbx, cr8; mov eax, 5; mov cr8, rax; out 0x10, al; mov eax, 2; mov cr8, rax
    let guest = [
        0x44, 0x0F, 0x20, 0xC3, 0xB8, 5, 0, 0, 0, 0x44, 0x0F, 0x22, 0xC0, 0xE6, 0x10, 0xB8, 2, 0, 0, 0, 0x44,
        0x0F, 0x22, 0xC0,
    ];
    let Some(mut rig) = long_mode(&code(&[&guest, STOP])) else {
        return;
    };
    rig.bus.log().cr8.insert(0, 9);
    assert_eq!(rig.run(), VpStop::Requested);
    assert_eq!(
        rig.state().gpr[gpr::RBX],
        9,
        "the guest reads what the local apic holds"
    );
    assert_eq!(
        rig.bus.log().cr8[&0],
        2,
        "the local apic sees what the guest wrote"
    );
    assert_eq!(rig.state().cr8, 2);
}

#[test]
fn no_wake_is_lost_between_halting_and_parking() {
    // again: sti; hlt; jmp again. The handler writes to 0x10; each write makes the next vector pending from
    // another thread, at a moment that varies.
    const ROUNDS: usize = 2000;
    let Some(mut rig) = real_mode(&[0xFB, 0xF4, 0xEB, 0xFC]) else {
        return;
    };
    rig.set_vector(0x40, 0x2000);
    rig.memory
        .write(0x2000, &code(&[&out(0x10, b'x'), &[0xCF]]))
        .unwrap();
    let (bus, signals) = (rig.bus.clone(), rig.signals.clone());
    let raiser = std::thread::spawn(move || {
        for round in 1..=ROUNDS {
            bus.raise(0x40);
            while bus.log().out.len() < round {
                if signals.stopping() {
                    return;
                }
                std::hint::spin_loop();
            }
            for _ in 0..round % 97 * 50 {
                std::hint::spin_loop();
            }
        }
        signals.set_stop(true);
    });
    assert_eq!(rig.run(), VpStop::Requested);
    raiser.join().unwrap();
    assert_eq!(rig.written(0x10).len(), ROUNDS);
}
