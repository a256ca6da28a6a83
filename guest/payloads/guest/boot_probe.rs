// SPDX-License-Identifier: MIT
//! A kernel that checks what a direct boot hands over: Linux's 64-bit and 32-bit protocol, and PVH.
//!
//! Always true: linked at 1 MiB; 32-bit Linux entry at +0, 64-bit entry at +0x200, PVH entry where the
//! ELF note says; which one was taken is known from RAX, which the 32-bit entries mark. It ends the way an
//! OS does: `\_S5` of the DSDT through the FADT's PM1a control register. `probe=` on the command line asks
//! for something else: `monitor`, `reset`, `crash`, `test-exit`. Not here: IGVM parameters (`igvm_probe`).
#![no_std]
#![no_main]

mod boot_acpi;
mod boot_mark;
mod boot_pvh;
mod boot_zero_page;
mod processors;

use core::sync::atomic::AtomicU64;
use guest_rt::entry::{self, Entry};
use guest_rt::power::{self, End};
use guest_rt::protocol::Fnv1a;
use guest_rt::protocol::control::argument;
use guest_rt::report::{check, info, start};
use guest_rt::text::Ascii;
use guest_rt::{ap, memory, monitor, report};

guest_rt::entry!(main);
guest_rt::entry32!(".entry32", "guest_entry32", "0x32333233");
guest_rt::entry32!(".text.pvh", "guest_entry_pvh", "0x48565048");

// {name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY, "Xen", 32-bit entry}.
core::arch::global_asm!(
    ".section .note.pvh, \"a\", @note",
    ".balign 4",
    ".long 4, 4, 18",
    ".asciz \"Xen\"",
    ".long guest_entry_pvh",
    ".text",
);

/// Where the image is; it cannot be moved.
pub(crate) const IMAGE: u64 = 0x10_0000;
const MARK_32: u64 = 0x3233_3233;
const MARK_PVH: u64 = 0x4856_5048;
const TRAMPOLINE_PAGE: u8 = 0x08;
const STACK_WORDS: usize = ap::STACKS_BYTES as usize / 8 + 1;
/// Stacks of the application processors, part of the zeroed data so that the loader keeps them free.
static STACKS: [AtomicU64; STACK_WORDS] = [const { AtomicU64::new(0) }; STACK_WORDS];

/// What both protocols hand over.
pub(crate) struct HandOver {
    /// Command line without its NUL.
    pub(crate) command_line: &'static [u8],
    /// gpa and length of the initrd, or of the first module.
    pub(crate) initrd: Option<(u64, u64)>,
    /// gpa of the RSDP, 0 when not handed over.
    pub(crate) rsdp: u64,
}

/// A range of the memory map.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) gpa: u64,
    pub(crate) len: u64,
    /// E820 type; 1 is RAM.
    pub(crate) kind: u32,
}

fn main(entry: &Entry) -> End {
    start("boot_probe");
    let second_boot = boot_mark::take();
    let (way, hand_over) = match entry.saved.gpr[0] {
        MARK_PVH => ("pvh", boot_pvh::read(entry.saved.gpr[3])),
        MARK_32 => ("linux-32", boot_zero_page::read(entry.saved.gpr[6])),
        _ => ("linux-64", boot_zero_page::read_with_state(entry)),
    };
    info("entry", format_args!("{way} image {:#x}", entry.image));
    let Some(hand_over) = hand_over else {
        return End::TestExit;
    };
    info("command-line", format_args!("{}", Ascii(hand_over.command_line)));
    show_initrd(hand_over.initrd);
    let command_line = core::str::from_utf8(hand_over.command_line).unwrap_or("");
    let ending = argument(command_line, "probe");
    let found = boot_acpi::check_tables(hand_over.rsdp);
    let stacks = ((&raw const STACKS) as u64).next_multiple_of(16);
    processors::start_all(found.madt.as_ref(), TRAMPOLINE_PAGE, stacks);
    match (ending, found.s5) {
        (Some("monitor"), _) => monitor::run(),
        (Some("reset"), _) if !second_boot => boot_mark::reset_once(),
        (Some("crash"), _) => End::Crash,
        (Some("test-exit"), _) | (_, None) => End::TestExit,
        (_, Some(s5)) => {
            report::done();
            power::sleep(s5.port, s5.sleep_type)
        }
    }
}

/// Checks a memory map: sorted, apart, the image in RAM.
pub(crate) fn check_memory_map(ranges: impl Iterator<Item = Range> + Clone, image: u64) {
    let mut end = 0;
    let mut sorted = true;
    let mut ram = 0;
    for range in ranges.clone() {
        info(
            "memory",
            format_args!("{:#x}+{:#x} type {}", range.gpa, range.len, range.kind),
        );
        sorted &= range.gpa >= end && range.len != 0;
        end = range.gpa.saturating_add(range.len);
        if range.kind == 1 {
            ram += range.len;
        }
    }
    check("memory-map-sorted", sorted, format_args!("{ram:#x} bytes"));
    let holds = |from: u64, to: u64| {
        let mut all = ranges.clone();
        all.any(|r| r.kind == 1 && r.gpa <= from && to <= r.gpa.saturating_add(r.len))
    };
    check(
        "image-is-ram",
        holds(image, entry::image_end()),
        format_args!("{image:#x}"),
    );
    let page = u64::from(TRAMPOLINE_PAGE) << 12;
    check(
        "low-memory-is-ram",
        holds(page, page + 0x1000),
        format_args!("{page:#x}"),
    );
}

fn show_initrd(initrd: Option<(u64, u64)>) {
    match initrd {
        None => info("initrd", format_args!("none")),
        Some((gpa, len)) if gpa.saturating_add(len) <= 1 << 32 => {
            let hash = Fnv1a::of(memory::bytes(gpa, len as usize));
            info("initrd", format_args!("{len} bytes hash {hash:016x} at {gpa:#x}"));
            let clear = gpa >= entry::image_end();
            check("initrd-apart-from-image", clear, format_args!("{gpa:#x}"));
        }
        Some((gpa, len)) => check(
            "initrd",
            false,
            format_args!("{len} bytes at {gpa:#x}, above 4 GiB"),
        ),
    }
}
