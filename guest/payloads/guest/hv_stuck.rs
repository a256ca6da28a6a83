// SPDX-License-Identifier: MIT
//! A firmware in the MSVM.fd shape that goes no further, in one of the ways of msvm-machine section 14.
//!
//! Always true: it says that it begins and then does nothing but the one thing that the image asks for. Not here:
//! noticing it.
#![no_std]
#![no_main]

use guest_rt::entry::Entry;
use guest_rt::hypercall::call;
use guest_rt::power::End;
use guest_rt::protocol::uefi_image::stuck;
use guest_rt::report::{info, start};
use guest_rt::{cpu, memory, port};

guest_rt::entry!(main);

const INDEX: u16 = 0x28;
const DATA: u16 = 0x2C;
const NVRAM: u32 = 0x24;
const LOOK: u32 = 0x2C;
const EVENT_LOG: u32 = 0x30;
const LINE_STATUS: u16 = 0x3FD;
const GUEST_OS_ID: u32 = 0x4000_0000;
const HYPERCALL: u32 = 0x4000_0001;
const REFERENCE_COUNTER: u32 = 0x4000_0020;
const MESSAGE_PAGE_REGISTER: u32 = 0x4000_0083;
/// Free RAM: a descriptor, and a name behind it.
const DESCRIPTOR: u64 = 0x88_0000;
const NAME: u64 = 0x88_1000;
const HYPERCALL_PAGE: u64 = 0x88_2000;
const MESSAGE_PAGE: u64 = 0x88_3000;

fn main(_entry: &Entry) -> End {
    start("hv_stuck");
    match memory::read_u32(stuck::GPA) {
        stuck::LINE_STATUS => loop {
            port::read_u8(LINE_STATUS);
        },
        stuck::COUNTER => loop {
            cpu::rdmsr(REFERENCE_COUNTER);
        },
        stuck::NAMES => loop {
            // The first name, again and again.
            memory::write_u16(NAME, 0);
            variable(2, 2048);
        },
        stuck::FAILURE => loop {
            // SecureBoot is not the guest's to write.
            for (at, unit) in (0..).zip("SecureBoot\0".encode_utf16()) {
                memory::write_u16(NAME + at * 2, unit);
            }
            variable(1, 22);
        },
        stuck::NO_BOOT => {
            nothing_to_boot();
            cpu::halt()
        }
        stuck::NO_BOOT_POWER_OFF => {
            nothing_to_boot();
            End::PowerOff
        }
        stuck::FAIL_FAST => cpu::fail_fast(stuck::STATUS, stuck::LINE),
        stuck::MESSAGES => ask_for_ever(),
        stuck::FAULT => cpu::triple_fault(),
        _ => loop {
            cpu::relax();
        },
    }
}

/// As the firmware does once every boot option has failed: the host shall look at the log, and gets the boot events,
/// here an empty channel.
fn nothing_to_boot() {
    write(LOOK, 1);
    for at in 0..4 {
        memory::write_u64(NAME + at * 8, 0);
    }
    write(EVENT_LOG, NAME as u32);
}

/// Connects to VMBus and asks for its offers until the host has had enough, and then again and again, as firmware does
/// whose message is refused for want of room.
fn ask_for_ever() -> ! {
    const INITIATE_CONTACT: u32 = 14;
    const REQUEST_OFFERS: u32 = 3;
    const VERSION: u32 = 0x0006_0000;
    cpu::wrmsr(GUEST_OS_ID, 1 << 40);
    cpu::wrmsr(HYPERCALL, HYPERCALL_PAGE | 1);
    cpu::wrmsr(MESSAGE_PAGE_REGISTER, MESSAGE_PAGE | 1);
    post(&[INITIATE_CONTACT, 0, VERSION, 0, 0, 0, 0, 0, 0, 0]);
    info(
        "connected",
        format_args!("{}", memory::read_u32(MESSAGE_PAGE + 2 * 256)),
    );
    while post(&[REQUEST_OFFERS, 0]) == 0 {}
    loop {
        let status = post(&[REQUEST_OFFERS, 0]);
        info("refused", format_args!("{status:#x}"));
        (0..1 << 20).for_each(|_| cpu::relax());
    }
}

/// Posts a message to VMBus' connection; the status of the call.
fn post(words: &[u32]) -> u64 {
    const POST_MESSAGE: u64 = 0x5C;
    let head = [1, 0, 1, words.len() as u32 * 4];
    for (at, word) in (0..).zip(head.iter().chain(words)) {
        memory::write_u32(DESCRIPTOR + at * 4, *word);
    }
    call(HYPERCALL_PAGE, POST_MESSAGE, DESCRIPTOR, 0).0 & 0xFFFF
}

fn write(index: u32, value: u32) {
    port::write_u32(INDEX, index);
    port::write_u32(DATA, value);
}

/// A variable command of EFI_GLOBAL_VARIABLE with the name that is in memory.
fn variable(command: u32, name_bytes: u32) {
    let global = [0x8BE4_DF61, 0x11D2_93CA, 0xE000_0DAA, 0x8C2B_0398];
    let words = [command, 7, 0, 7, NAME as u32, 0, name_bytes];
    let data = [NAME as u32, 0, 1];
    let all = words.into_iter().chain(global).chain(data);
    for (at, word) in (0..).zip(all) {
        memory::write_u32(DESCRIPTOR + at * 4, word);
    }
    write(NVRAM, DESCRIPTOR as u32);
}
