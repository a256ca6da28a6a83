// SPDX-License-Identifier: MIT
//! Conversions that need no KVM.

use super::*;

#[test]
fn segment_attributes_survive_the_way_to_kvm_and_back() {
    for attributes in [0x9B, 0x93, 0x8B, 0x82, 0xA09B, 0xC0F3, 0x1_0000, 0x1_F0FF, 0x1000] {
        let s = SegmentRegister {
            selector: 0x1234,
            attributes: SegmentAttributes(attributes),
            limit: 0xFFFF_F000,
            base: 0xFFFF_8000_0000_0000,
        };
        assert_eq!(segment_from_kvm(&segment_to_kvm(&s)), s, "{attributes:#x}");
    }
}

#[test]
fn general_registers_go_by_name_not_by_position() {
    let mut s = X86State::reset();
    s.gpr[x86defs::state::gpr::RSP] = 4;
    s.gpr[x86defs::state::gpr::RSI] = 6;
    let k = regs(&s);
    assert_eq!((k.rsp, k.rsi, k.rip), (4, 6, 0xFFF0));
    let mut back = X86State::reset();
    set_from_regs(&mut back, &k);
    assert_eq!(back, s);
}

#[test]
fn every_msr_of_the_state_has_its_number() {
    let mut s = X86State::reset();
    s.mtrr.fixed[10] = 5;
    s.mtrr.variable[7] = (6, 7);
    s.tsc_aux = 8;
    let (numbers, values) = (msr_numbers(), msr_values(&s));
    assert_eq!(numbers.len(), values.len());
    let value = |number: u32| values[numbers.iter().position(|&n| n == number).unwrap()];
    assert_eq!(
        (value(0x26F), value(0x20E), value(0x20F), value(msr::TSC_AUX)),
        (5, 6, 7, 8)
    );
    assert_eq!(value(msr::PAT), msr::PAT_RESET);
    let mut back = X86State::reset();
    set_from_msrs(&mut back, &values);
    assert_eq!(back, s);
}
