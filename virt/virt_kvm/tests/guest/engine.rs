// SPDX-License-Identifier: MIT
//! Instructions that software-nested KVM refuses: the engine steps them, and hardware runs them itself.
//! The results are the same.

use crate::rig::{STOP, code, long_mode, real_mode};
use virt::VpStop;
use x86defs::state::gpr;

#[test]
fn x87_and_sse_control_words_and_arithmetic_work() {
    // fninit; fldcw [0x3000]; fild dword [0x3004]; fild dword [0x3008]; fmulp; fistp dword [0x300c];
    // fnstcw [0x3010]; ldmxcsr [0x3014]; stmxcsr [0x3018]
    let guest = [
        0xDB, 0xE3, 0xD9, 0x2E, 0x00, 0x30, 0xDB, 0x06, 0x04, 0x30, 0xDB, 0x06, 0x08, 0x30, 0xDE, 0xC9, 0xDB,
        0x1E, 0x0C, 0x30, 0xD9, 0x3E, 0x10, 0x30, 0x0F, 0xAE, 0x16, 0x14, 0x30, 0x0F, 0xAE, 0x1E, 0x18, 0x30,
    ];
    let Some(mut rig) = real_mode(&code(&[&guest, STOP])) else {
        return;
    };
    let mut state = crate::rig::real_mode_state();
    state.cr4 = x86defs::cr4::OSFXSR;
    rig.runners[0].set_state(0, &state).unwrap();
    let mut data = [0u8; 0x1C];
    data[0..2].copy_from_slice(&0x27Fu16.to_le_bytes());
    data[4..8].copy_from_slice(&123i32.to_le_bytes());
    data[8..12].copy_from_slice(&(-7i32).to_le_bytes());
    data[0x14..0x18].copy_from_slice(&0x9F80u32.to_le_bytes());
    rig.memory.write(0x3000, &data).unwrap();
    assert_eq!(rig.run(), VpStop::Requested);
    rig.memory.read(0x3000, &mut data).unwrap();
    let word = |at: usize| u32::from_le_bytes(data[at..at + 4].try_into().unwrap());
    assert_eq!(word(0xC) as i32, -861);
    assert_eq!(word(0x10) & 0xFFFF, 0x27F);
    assert_eq!(word(0x18), 0x9F80);
}

#[test]
fn wide_compare_exchange_and_sse_moves_work() {
    // lock cmpxchg16b [0x3000]; sete bl; movq xmm3, rcx; pxor xmm4, xmm4; paddq xmm4, xmm3;
    // movq [0x3010], xmm4
    let guest = [
        0xF0, 0x48, 0x0F, 0xC7, 0x0C, 0x25, 0x00, 0x30, 0x00, 0x00, 0x0F, 0x94, 0xC3, 0x66, 0x48, 0x0F, 0x6E,
        0xD9, 0x66, 0x0F, 0xEF, 0xE4, 0x66, 0x0F, 0xD4, 0xE3, 0x66, 0x0F, 0xD6, 0x24, 0x25, 0x10, 0x30, 0x00,
        0x00,
    ];
    let Some(mut rig) = long_mode(&code(&[&guest, STOP])) else {
        return;
    };
    let mut state = crate::rig::long_mode_state();
    state.gpr[gpr::RAX] = 0x1111;
    state.gpr[gpr::RDX] = 0x2222;
    state.gpr[gpr::RBX] = 0x3333;
    state.gpr[gpr::RCX] = 0x4444;
    rig.runners[0].set_state(0, &state).unwrap();
    rig.memory.write(0x3000, &0x1111u64.to_le_bytes()).unwrap();
    rig.memory.write(0x3008, &0x2222u64.to_le_bytes()).unwrap();
    assert_eq!(rig.run(), VpStop::Requested);
    let read = |gpa: u64| {
        let mut b = [0; 8];
        rig.memory.read(gpa, &mut b).unwrap();
        u64::from_le_bytes(b)
    };
    assert_eq!(
        (read(0x3000), read(0x3008), read(0x3010)),
        (0x3333, 0x4444, 0x4444)
    );
    assert_eq!(
        rig.state().gpr[gpr::RBX] & 0xFF,
        1,
        "ZF said that the exchange was made"
    );
}

#[test]
fn a_stepped_instruction_that_faults_enters_the_guests_handler() {
    // fldcw [0x3000] with CR0.EM set: #NM
    let Some(mut rig) = real_mode(&[0xD9, 0x2E, 0x00, 0x30]) else {
        return;
    };
    let mut state = crate::rig::real_mode_state();
    state.cr0 |= x86defs::cr0::EM;
    rig.runners[0].set_state(0, &state).unwrap();
    rig.set_vector(7, 0x2000);
    rig.memory.write(0x2000, STOP).unwrap();
    assert_eq!(rig.run(), VpStop::Requested);
    assert_eq!(rig.written(0xF4).len(), 1);
}
