// SPDX-License-Identifier: MIT
//! Cases about what firmware gets its data from: fw_cfg through its port and by DMA, and the flash.

use crate::{Case, Outcome, expect};
use guest_rt::protocol::flat::{FREE_GPA, MACHINE_FLASH_GPA};
use guest_rt::{cmos, memory, port};

pub(crate) const FW_CFG: &[Case] = &[
    ("fw-cfg-signature-and-features", signature),
    ("fw-cfg-directory-lists-files", directory),
    ("fw-cfg-dma-reads-what-the-port-reads", dma_agrees),
    ("fw-cfg-dma-past-the-end-gives-zeros", dma_past_end),
    ("fw-cfg-dma-to-nowhere-fails", dma_nowhere),
    ("fw-cfg-and-cmos-tell-the-same-memory", memory_sizes),
    ("fw-cfg-table-loader-begins-with-allocate", table_loader),
];
pub(crate) const FLASH: &[Case] = &[
    ("flash-says-what-it-is", flash_identity),
    ("flash-erases-and-programs", flash_program),
    ("flash-refuses-a-wrong-confirmation", flash_refuses),
];

/// A byte of the flash that is [`KEPT`] after the cases.
pub(crate) const FLASH_KEPT: u64 = MACHINE_FLASH_GPA + BLOCK + 0x123;
/// Its value.
pub(crate) const KEPT: u8 = 0x0A;
const BLOCK: u64 = 0x1000;

const SELECT: u16 = 0x510;
const DATA: u16 = 0x511;
const DMA_HIGH: u16 = 0x514;
const DMA_LOW: u16 = 0x518;
const DESCRIPTOR: u64 = FREE_GPA;
const TARGET: u64 = FREE_GPA + 0x1000;

const SIGNATURE: u16 = 0;
const FEATURES: u16 = 1;
const RAM_SIZE: u16 = 3;
const CPU_COUNT: u16 = 5;
const DIRECTORY: u16 = 0x19;

const DMA_ERROR: u32 = 1;
const DMA_READ: u32 = 2;
const DMA_SELECT: u32 = 8;

fn bytes<const N: usize>(key: u16) -> [u8; N] {
    port::write_u16(SELECT, key);
    core::array::from_fn(|_| port::read_u8(DATA))
}

/// Size and key of a file.
fn file(name: &str) -> Option<(u32, u16)> {
    port::write_u16(SELECT, DIRECTORY);
    let next = || port::read_u8(DATA);
    let count = u32::from_be_bytes(core::array::from_fn(|_| next()));
    for _ in 0..count.min(64) {
        let entry: [u8; 64] = core::array::from_fn(|_| next());
        let size = u32::from_be_bytes([entry[0], entry[1], entry[2], entry[3]]);
        let key = u16::from_be_bytes([entry[4], entry[5]]);
        let len = entry[8..].iter().position(|byte| *byte == 0).unwrap_or(56);
        if &entry[8..8 + len] == name.as_bytes() {
            return Some((size, key));
        }
    }
    None
}

/// A transfer of `len` bytes of an item to `gpa`; gives the control word afterwards.
fn dma(key: u16, gpa: u64, len: u32) -> u32 {
    let control = u32::from(key) << 16 | DMA_SELECT | DMA_READ;
    memory::write_u32(DESCRIPTOR, control.to_be());
    memory::write_u32(DESCRIPTOR + 4, len.to_be());
    memory::write_u64(DESCRIPTOR + 8, gpa.to_be());
    port::write_u32(DMA_HIGH, 0);
    port::write_u32(DMA_LOW, (DESCRIPTOR as u32).to_be());
    u32::from_be(memory::read_u32(DESCRIPTOR))
}

fn signature() -> Outcome {
    let signature = u32::from_le_bytes(bytes(SIGNATURE));
    expect(&signature.to_le_bytes() == b"QEMU", "signature", signature)?;
    let features = u32::from_le_bytes(bytes(FEATURES));
    expect(features == 3, "features", features)?;
    let high = port::read_u32(DMA_HIGH);
    expect(&high.to_le_bytes() == b"QEMU", "dma port", high)
}

fn directory() -> Outcome {
    for name in ["etc/e820", "etc/table-loader", "etc/smbios/smbios-tables"] {
        expect(file(name).is_some_and(|(size, _)| size > 0), name, 0u64)?;
    }
    expect(file("etc/nothing").is_none(), "a file that is not there", 1u64)?;
    let count = u16::from_le_bytes(bytes(CPU_COUNT));
    expect(count >= 1, "processors", count)
}

fn dma_agrees() -> Outcome {
    let Some((size, key)) = file("etc/e820") else {
        return expect(false, "etc/e820", 0u64);
    };
    let size = size.min(200);
    (0..64).for_each(|n| memory::write_u64(TARGET + n * 8, u64::MAX));
    let control = dma(key, TARGET, size);
    expect(control == 0, "control", control)?;
    port::write_u16(SELECT, key);
    for at in 0..u64::from(size) {
        let (by_port, by_dma) = (port::read_u8(DATA), memory::read_u8(TARGET + at));
        expect(by_port == by_dma, "offset of the first difference", at)?;
    }
    let beyond = memory::read_u8(TARGET + u64::from(size));
    expect(beyond == 0xFF, "byte behind the transfer", beyond)
}

fn dma_past_end() -> Outcome {
    memory::write_u64(TARGET, u64::MAX);
    let control = dma(SIGNATURE, TARGET, 8);
    expect(control == 0, "control", control)?;
    let got = memory::read_u64(TARGET);
    expect(got == u64::from(u32::from_le_bytes(*b"QEMU")), "bytes", got)
}

fn dma_nowhere() -> Outcome {
    let control = dma(SIGNATURE, 0xFED4_0000, 4);
    expect(control & DMA_ERROR != 0, "control", control)
}

/// RAM as a number, as a memory map and in CMOS.
fn memory_sizes() -> Outcome {
    let told = u64::from_le_bytes(bytes(RAM_SIZE));
    let Some((size, key)) = file("etc/e820") else {
        return expect(false, "etc/e820", 0u64);
    };
    port::write_u16(SELECT, key);
    let quad = || u64::from_le_bytes(core::array::from_fn(|_| port::read_u8(DATA)));
    let (mut below, mut above) = (0, 0);
    for _ in 0..size / 20 {
        let (base, len) = (quad(), quad());
        for _ in 0..4 {
            let _signature = port::read_u8(DATA);
        }
        *if base < 1 << 32 { &mut below } else { &mut above } += len;
    }
    expect(below + above == told, "sum of the memory map", below + above)?;
    let word = |low| u64::from(cmos::read(low)) | u64::from(cmos::read(low + 1)) << 8;
    let low = (word(0x34) << 16) + (16 << 20);
    expect(low == below, "cmos: ram below 4 GiB", low)?;
    let high = (word(0x5B) | u64::from(cmos::read(0x5D)) << 16) << 16;
    expect(high == above, "cmos: ram above 4 GiB", high)
}

fn table_loader() -> Outcome {
    let Some((size, key)) = file("etc/table-loader") else {
        return expect(false, "etc/table-loader", 0u64);
    };
    expect(size % 128 == 0 && size > 0, "size", size)?;
    let command = u32::from_le_bytes(bytes(key));
    expect(command == 1, "first command", command)
}

const PROGRAM: u8 = 0x10;
const ERASE: u8 = 0x20;
const CONFIRM: u8 = 0xD0;
const CLEAR_STATUS: u8 = 0x50;
const READ_STATUS: u8 = 0x70;
const READ_ARRAY: u8 = 0xFF;
const READY: u8 = 0x80;

/// The status after a command, and the array readable again.
fn status(gpa: u64) -> u8 {
    memory::write_u8(gpa, READ_STATUS);
    let status = memory::read_u8(gpa);
    memory::write_u8(gpa, CLEAR_STATUS);
    memory::write_u8(gpa, READ_ARRAY);
    status
}

/// As OVMF looks for a flash: after a cleared status, neither RAM nor ROM.
fn flash_identity() -> Outcome {
    let array = memory::read_u8(MACHINE_FLASH_GPA + 0x28);
    expect(array == b'_', "first byte of the volume's signature", array)?;
    memory::write_u8(MACHINE_FLASH_GPA + BLOCK, CLEAR_STATUS);
    let status = status(MACHINE_FLASH_GPA + BLOCK);
    expect(status == 0, "status", status)
}

fn flash_program() -> Outcome {
    let at = FLASH_KEPT;
    memory::write_u8(at, ERASE);
    memory::write_u8(at, CONFIRM);
    let erased = status(at);
    expect(erased == READY, "status of the erasure", erased)?;
    let block = at & !(BLOCK - 1);
    for gpa in [block, at, block + BLOCK - 1] {
        let byte = memory::read_u8(gpa);
        expect(byte == 0xFF, "erased byte", byte)?;
    }
    // Programming clears bits and sets none.
    for value in [0x0F, 0xFA] {
        memory::write_u8(at, PROGRAM);
        memory::write_u8(at, value);
        let programmed = status(at);
        expect(programmed == READY, "status of the programming", programmed)?;
    }
    let byte = memory::read_u8(at);
    expect(byte == KEPT, "programmed byte", byte)?;
    let neighbour = memory::read_u8(at + 1);
    expect(neighbour == 0xFF, "its neighbour", neighbour)
}

fn flash_refuses() -> Outcome {
    memory::write_u8(FLASH_KEPT, ERASE);
    memory::write_u8(FLASH_KEPT, READ_ARRAY);
    let refused = status(FLASH_KEPT);
    expect(refused & 0x30 == 0x30, "status", refused)?;
    let byte = memory::read_u8(FLASH_KEPT);
    expect(byte == KEPT, "byte", byte)
}
