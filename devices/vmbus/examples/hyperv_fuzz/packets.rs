// SPDX-License-Identifier: MIT
//! What a fuzzing guest says on each channel: mostly what the channel's protocol has, with fields that are
//! right, at a limit, or anything.
//!
//! Not here: rings and channels (`hyperv_fuzz`), what must hold.

use soak_case::Random;

/// Packet types.
pub(crate) const INBAND: u16 = 6;
pub(crate) const TRANSFER_PAGES: u16 = 7;
pub(crate) const GPA_DIRECT: u16 = 9;
pub(crate) const COMPLETION: u16 = 11;

/// One packet: type, transaction, words before the data, data.
#[derive(Debug, Clone, Default)]
pub(crate) struct Packet {
    pub(crate) kind: u16,
    pub(crate) transaction: u64,
    pub(crate) head: Vec<u8>,
    pub(crate) data: Vec<u8>,
}

impl Packet {
    fn inband(data: Vec<u8>) -> Self {
        Self {
            kind: INBAND,
            transaction: 1,
            head: Vec::new(),
            data,
        }
    }

    /// Anything.
    pub(crate) fn wild(random: &mut Random) -> Self {
        let bytes = |random: &mut Random, most: u64| -> Vec<u8> {
            let words = random.below(most);
            (0..words).flat_map(|_| random.value().to_le_bytes()).collect()
        };
        let common = random.pick(&[INBAND, TRANSFER_PAGES, GPA_DIRECT, COMPLETION]);
        Self {
            kind: if random.one_in(8) {
                random.bits() as u16
            } else {
                common
            },
            transaction: random.value(),
            head: bytes(random, 6),
            data: bytes(random, 40),
        }
    }
}

/// A number that code may stumble over: usual ones, their neighbours, limits, anything.
pub(crate) fn number(random: &mut Random, usual: &[u32]) -> u32 {
    match random.below(48) {
        0 => random.pick(&[0, 1, 0x7FFF_FFFF, 0x8000_0000, u32::MAX, u32::MAX - 1]),
        1 => random.value() as u32,
        2 => random
            .pick(usual)
            .wrapping_add(random.below(5) as u32)
            .wrapping_sub(2),
        _ => random.pick(usual),
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Words of a direct packet that names a buffer of `len` bytes in `pages` (first and count), or one that is wrong.
fn buffer(random: &mut Random, len: u32, pages: (u64, u64)) -> Vec<u8> {
    let offset = if random.one_in(4) {
        random.below(4096) as u32
    } else {
        0
    };
    let count = (u64::from(offset) + u64::from(len)).div_ceil(4096).min(40);
    let mut head = words(&[0, number(random, &[1]), len, offset]);
    for _ in 0..count {
        let page = if random.one_in(64) {
            random.value()
        } else {
            pages.0 + random.below(pages.1)
        };
        head.extend(page.to_le_bytes());
    }
    head
}

/// A SCSI request to a controller with one disk of `blocks` blocks, with buffers in `pages` (first and count).
pub(crate) fn storage(random: &mut Random, blocks: u32, pages: (u64, u64)) -> Packet {
    const OPERATIONS: [u32; 10] = [3, 3, 3, 3, 3, 4, 7, 8, 9, 10];
    const COMMANDS: [u8; 24] = [
        0x00, 0x03, 0x08, 0x0A, 0x12, 0x1A, 0x1B, 0x25, 0x28, 0x28, 0x2A, 0x2A, 0x35, 0x42, 0x5A, 0x88, 0x8A,
        0x91, 0x93, 0x9E, 0xA0, 0xA8, 0xAA, 0x2F,
    ];
    let mut data = vec![0; if random.one_in(16) { random.index(80) } else { 64 }];
    let len = random.pick(&[36, 64, 512, 512, 4096, 8192]);
    let len = number(random, &[len]).min(40 * 4096);
    let head = buffer(random, len, pages);
    if data.len() == 64 {
        data[..4].copy_from_slice(&number(random, &OPERATIONS).to_le_bytes());
        data[12 + 7] = number(random, &[0, 0, 0, 1]) as u8;
        data[12 + 12..12 + 16].copy_from_slice(&len.to_le_bytes());
        let cdb = &mut data[28..44];
        cdb[0] = random.pick(&COMMANDS);
        if random.one_in(4) {
            cdb[1..].fill_with(|| random.bits() as u8);
        } else {
            // Logical block and length where ten byte commands have them, or where sixteen byte ones do.
            let (block, count) = (
                number(random, &[0, 1, blocks - 1]),
                number(random, &[0, 1, 8, len]),
            );
            if cdb[0] < 0x80 {
                cdb[2..6].copy_from_slice(&block.to_be_bytes());
                cdb[7..9].copy_from_slice(&(count as u16).to_be_bytes());
                // Six byte commands have it here.
                cdb[4] |= if cdb[0] < 0x20 { count as u8 } else { 0 };
            } else {
                cdb[6..10].copy_from_slice(&block.to_be_bytes());
                cdb[10..14].copy_from_slice(&count.to_be_bytes());
            }
            cdb[1] = random.pick(&[0, 0, 0x10, 1, 8]);
        }
    }
    let direct = !random.one_in(4);
    Packet {
        kind: if direct { GPA_DIRECT } else { INBAND },
        transaction: random.value(),
        head: if direct { head } else { Vec::new() },
        data,
    }
}

/// Bytes of a pipe's header and of an integration component's.
const PIPE: usize = 8;
const HEADER: usize = 20;

/// An integration component's answer to `asked`, or something like one.
pub(crate) fn integration(random: &mut Random, asked: Option<&Packet>) -> Packet {
    let mut data = asked.map_or_else(Vec::new, |packet| packet.data.clone());
    if data.len() < PIPE + HEADER || random.one_in(32) {
        data.resize(PIPE + HEADER + random.index(64), 0);
        data[PIPE + 16] = random.below(4) as u8;
        data[PIPE + 4] = random.below(5) as u8;
    }
    data[PIPE + 17] = if random.one_in(32) { random.bits() as u8 } else { 7 };
    let body = &mut data[PIPE + HEADER..];
    match data_kind(body.len(), asked) {
        Some(0) if body.len() >= 16 => {
            let versions = body.len() / 4 - 2;
            let version = 8 + 4 * random.index(versions - 1);
            let chosen = [
                body[version],
                body[version + 1],
                body[version + 2],
                body[version + 3],
            ];
            let last = body.len() - 4;
            let newest = [body[last], body[last + 1], body[last + 2], body[last + 3]];
            body[..4].copy_from_slice(&[1, 0, 1, 0]);
            body[12..16].copy_from_slice(if random.one_in(4) { &chosen } else { &newest });
        }
        Some(2) if body.len() > 8 + 12 && body[0] == 3 => pair(random, &mut body[8..]),
        _ => {}
    }
    // Status: mostly fine; a guest without a further pair says so.
    if random.one_in(8) {
        data[PIPE + 12..PIPE + 16].copy_from_slice(&number(random, &[0x8007_0103]).to_le_bytes());
    }
    match random.below(24) {
        0 => {
            let at = random.index(data.len());
            data[at] = random.bits() as u8;
        }
        1 => data.truncate(random.index(data.len())),
        _ => {}
    }
    Packet::inband(data)
}

/// The type of the message that is answered.
fn data_kind(body: usize, asked: Option<&Packet>) -> Option<u8> {
    asked.filter(|_| body > 0)?.data.get(PIPE + 4).copied()
}

/// A key and a value with sizes that fit, or not.
fn pair(random: &mut Random, to: &mut [u8]) {
    let mut sizes = [1, 0, 0];
    sizes[1] = number(random, &[2, 8, 512]);
    sizes[2] = number(random, &[2, 20, 2048]);
    for (at, byte) in to.iter_mut().enumerate() {
        *byte = match sizes.get(at / 4) {
            Some(size) => size.to_le_bytes()[at % 4],
            None if random.one_in(64) => 0,
            None => random.bits() as u8,
        };
    }
}

/// What a keyboard's driver says.
pub(crate) fn keyboard(random: &mut Random) -> Packet {
    let mut data = words(&[
        number(random, &[1, 1, 1, 1, 2, 3, 4]),
        number(random, &[0x1_0000]),
        random.value() as u32,
    ]);
    if random.one_in(8) {
        data.truncate(random.index(data.len()));
    }
    Packet::inband(data)
}

/// What a video driver says; its memory ends at `ram`.
pub(crate) fn video(random: &mut Random, ram: u64) -> Packet {
    const KINDS: [u32; 12] = [1, 3, 3, 5, 5, 5, 10, 10, 11, 13, 15, 7];
    let kind = number(random, &KINDS);
    let mut body = Vec::new();
    match kind {
        1 => body.extend(number(random, &[3, 3 | 2 << 16, 3 | 5 << 16, 4]).to_le_bytes()),
        3 => {
            let gpa = match random.below(8) {
                0 => random.value(),
                1 => ram.wrapping_sub(random.below(8192)),
                _ => random.below(ram) & !0xFFF,
            };
            body.extend(random.value().to_le_bytes());
            body.push((!random.one_in(8)).into());
            body.extend(gpa.to_le_bytes());
        }
        5 => {
            let width = number(random, &[1, 8, 64, 64, 65_536]);
            let height = number(random, &[1, 8, 64, 64, 65_536]);
            let pitch = number(random, &[width.wrapping_mul(4), 4096]);
            body.extend(random.value().to_le_bytes());
            body.extend([1, (!random.one_in(8)).into()]);
            body.extend(number(random, &[0, 0, 64]).to_le_bytes());
            body.push(number(random, &[32, 32, 32, 16]) as u8);
            for value in [width, height, pitch] {
                body.extend(value.to_le_bytes());
            }
        }
        10 => {
            // Count of rectangles, then their edges.
            body.extend([0, number(random, &[1, 2, 255]) as u8, 0, 0]);
            (0..4).for_each(|_| body.extend(number(random, &[0, 64, 1024]).to_le_bytes()));
        }
        _ => {}
    }
    if random.one_in(16) {
        body.truncate(random.index(body.len()));
    }
    let len = body.len() as u32 + 8;
    let mut data = words(&[number(random, &[1]), len, kind, number(random, &[len])]);
    data.extend(body);
    if random.one_in(64) {
        data.truncate(random.index(data.len()));
    }
    Packet::inband(data)
}

/// What a network driver says: about its buffers, which are the lists `lists`, frames, and RNDIS messages.
/// `put` writes to memory that direct packets name, at page `page`.
pub(crate) fn network(
    random: &mut Random,
    lists: &[u32],
    page: u64,
    put: impl FnOnce(&mut Random, &[u8]),
) -> Packet {
    let step = random.below(16);
    let mut data = match step {
        0 => words(&[1, number(random, &[2]), number(random, &[0x5_0000]), 0]),
        1 => words(&[101, number(random, lists), 0xCAFE, 0]),
        2 => words(&[104, number(random, lists), 0, 0]),
        3 if random.one_in(8) => words(&[random.pick(&[103, 106]), 0, 0, 0]),
        4 => words(&[number(random, &[100, 125, 126]), random.value() as u32, 0, 0]),
        // A run of RNDIS messages: in a section of the send buffer, or in pages of the packet.
        _ => {
            let message = rndis(random);
            put(random, &message);
            let control = u32::from(message.first() != Some(&1));
            let section = number(random, &[u32::MAX, u32::MAX, 0]);
            let len = number(random, &[message.len() as u32]);
            let mut data = words(&[107, number(random, &[control]), section, len]);
            data.resize(40, 0);
            let (len, pages) = (message.len() as u32, message.len().div_ceil(4096) as u64);
            let mut head = words(&[0, number(random, &[1]), number(random, &[len]), 0]);
            (0..pages).for_each(|i| head.extend((page + i).to_le_bytes()));
            return Packet {
                kind: GPA_DIRECT,
                transaction: random.value(),
                head,
                data,
            };
        }
    };
    data.resize(if random.one_in(16) { random.index(40) } else { 40 }, 0);
    Packet::inband(data)
}

/// One to three RNDIS messages.
fn rndis(random: &mut Random) -> Vec<u8> {
    /// What can be asked and set.
    const OBJECTS: [u32; 9] = [
        0x0001_0106,
        0x0001_0107,
        0x0001_010E,
        0x0001_010E,
        0x0001_0114,
        0x0101_0101,
        0x0101_0103,
        0xFC01_020C,
        0xFC01_020D,
    ];
    let mut run = Vec::new();
    for _ in 0..1 + random.below(3) {
        let kind = number(random, &[1, 1, 1, 2, 4, 5, 5, 6, 8]);
        let mut body = Vec::new();
        match kind {
            1 => {
                let len = random.below(1600) as u32;
                body.extend(words(&[
                    number(random, &[36]),
                    number(random, &[len]),
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                ]));
                body.resize(36 + len as usize, 0xF5);
            }
            4 | 5 => body.extend(words(&[
                random.value() as u32,
                number(random, &OBJECTS),
                number(random, &[4, 64, 1024]),
                number(random, &[20]),
                0,
                number(random, &[0xB, 0xB, 0]),
            ])),
            _ => body.resize(random.index(64), 1),
        }
        let len = body.len() as u32 + 8;
        run.extend(words(&[kind, number(random, &[len])]));
        run.extend(body);
        if kind != 1 {
            break;
        }
    }
    run
}
