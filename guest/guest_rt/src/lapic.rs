// SPDX-License-Identifier: MIT
//! The local APIC through its page (Intel SDM volume 3, chapter 12).
//!
//! Always true: xAPIC mode; the base is what the APIC base MSR says. Not here: x2APIC, which our KVM
//! machine hides.

use crate::cpu::{self, msr};
use crate::memory;
use crate::time::Deadline;

/// Register offsets.
mod register {
    pub(super) const ID: u64 = 0x20;
    pub(super) const VERSION: u64 = 0x30;
    pub(super) const EOI: u64 = 0xB0;
    pub(super) const SPURIOUS: u64 = 0xF0;
    pub(super) const REQUESTS: u64 = 0x200;
    pub(super) const ICR_LOW: u64 = 0x300;
    pub(super) const ICR_HIGH: u64 = 0x310;
    pub(super) const LVT_TIMER: u64 = 0x320;
    pub(super) const TIMER_INITIAL: u64 = 0x380;
    pub(super) const TIMER_CURRENT: u64 = 0x390;
    pub(super) const TIMER_DIVIDE: u64 = 0x3E0;
}

const DELIVERY_PENDING: u32 = 1 << 12;
const ICR_INIT: u32 = 0x4500;
const ICR_STARTUP: u32 = 0x4600;
const ICR_FIXED: u32 = 0x4000;
const ICR_NMI: u32 = 0x4400;
const LVT_MASKED: u32 = 1 << 16;
const DIVIDE_BY_1: u32 = 0xB;

fn page() -> u64 {
    cpu::rdmsr(msr::APIC_BASE) & 0x000F_FFFF_FFFF_F000
}

fn read(register: u64) -> u32 {
    memory::read_u32(page() + register)
}

fn write(register: u64, value: u32) {
    memory::write_u32(page() + register, value);
}

/// This processor's APIC id.
pub fn id() -> u8 {
    (read(register::ID) >> 24) as u8
}

/// Version register.
pub fn version() -> u32 {
    read(register::VERSION)
}

/// Software-enables the APIC.
pub fn enable() {
    write(register::SPURIOUS, 0x100 | u32::from(crate::trap::SPURIOUS));
}

/// EOI.
pub fn end_of_interrupt() {
    write(register::EOI, 0);
}

/// INIT to one processor.
pub fn send_init(to: u8) {
    send(to, ICR_INIT);
}

/// Start-up IPI to one processor: real mode at `page << 12`.
pub fn send_startup(to: u8, page: u8) {
    send(to, ICR_STARTUP | u32::from(page));
}

/// A fixed interrupt to one processor.
pub fn send_fixed(to: u8, vector: u8) {
    send(to, ICR_FIXED | u32::from(vector));
}

/// An NMI to one processor.
pub fn send_nmi(to: u8) {
    send(to, ICR_NMI);
}

/// Address of the low half of the interrupt command register.
pub fn command_register() -> u64 {
    page() + register::ICR_LOW
}

/// Whether a vector waits for the processor.
pub fn is_requested(vector: u8) -> bool {
    let word = read(register::REQUESTS + u64::from(vector / 32) * 0x10);
    word & 1 << (vector % 32) != 0
}

fn send(to: u8, command: u32) {
    write(register::ICR_HIGH, u32::from(to) << 24);
    write(register::ICR_LOW, command);
    Deadline::in_ms(10).wait(|| read(register::ICR_LOW) & DELIVERY_PENDING == 0);
}

/// Starts the timer, one shot, divide by 1.
pub fn start_timer(vector: u8, count: u32) {
    write(register::TIMER_DIVIDE, DIVIDE_BY_1);
    write(register::LVT_TIMER, u32::from(vector));
    write(register::TIMER_INITIAL, count);
}

/// Starts the timer, periodic, divide by 1.
pub fn start_periodic_timer(vector: u8, count: u32) {
    write(register::TIMER_DIVIDE, DIVIDE_BY_1);
    write(register::LVT_TIMER, 1 << 17 | u32::from(vector));
    write(register::TIMER_INITIAL, count);
}

/// Makes the timer fire when the TSC reaches what TSC_DEADLINE says.
pub fn select_tsc_deadline(vector: u8) {
    write(register::LVT_TIMER, 2 << 17 | u32::from(vector));
}

/// Starts the timer masked, one shot, divide by 1: it counts and requests nothing.
pub fn start_masked_timer(vector: u8, count: u32) {
    write(register::TIMER_DIVIDE, DIVIDE_BY_1);
    write(register::LVT_TIMER, LVT_MASKED | u32::from(vector));
    write(register::TIMER_INITIAL, count);
}

/// Stops and masks the timer.
pub fn stop_timer() {
    write(register::LVT_TIMER, LVT_MASKED);
    write(register::TIMER_INITIAL, 0);
}

/// What is left of the timer's count.
pub fn timer_count() -> u32 {
    read(register::TIMER_CURRENT)
}
