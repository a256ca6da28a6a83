// SPDX-License-Identifier: MIT
//! Small files in the shape of kernels.

pub(super) fn set_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

pub(super) fn set_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub(super) fn set_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Protocol 2.15, four setup sectors, 4 KiB of protected-mode code that needs 2 MiB at 16 MiB.
pub(super) fn bzimage() -> Vec<u8> {
    let mut image = vec![0; 5 * 512 + 0x1000];
    image[5 * 512..].fill(0xCC);
    image[0x1F1] = 4;
    set_u32(&mut image, 0x1F4, 0x100);
    set_u16(&mut image, 0x1FE, 0xAA55);
    image[0x200..0x202].copy_from_slice(&[0xEB, 0x6A]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    set_u16(&mut image, 0x206, 0x20F);
    image[0x211] = 1;
    set_u32(&mut image, 0x22C, 0x7FFF_FFFF);
    set_u32(&mut image, 0x230, 0x20_0000);
    image[0x234] = 1;
    set_u16(&mut image, 0x236, 3);
    set_u32(&mut image, 0x238, 2047);
    set_u64(&mut image, 0x258, super::LOAD);
    set_u32(&mut image, 0x260, 0x20_0000);
    image
}

/// Which note an ELF kernel carries.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Note {
    None,
    Align4,
    Align8,
}

/// Virtual address of the first segment.
pub(super) const VIRTUAL_BASE: u64 = 0xFFFF_FFFF_8100_0000;
/// File offset of the PVH note's entry point with [`Note::Align4`].
pub(super) const NOTE_ENTRY: usize = 0x200 + 12 + 4;

/// Two segments that share a page, and a Xen note behind a note of another owner when `note` says so.
/// The PVH entry point is 0x80 bytes into the first segment.
pub(super) fn elf(note: Note, entry: u64) -> Vec<u8> {
    const DATA: usize = 0x400;
    let mut file = vec![0; DATA];
    file[..4].copy_from_slice(b"\x7FELF");
    file[4..7].copy_from_slice(&[2, 1, 1]);
    set_u16(&mut file, 16, 2);
    set_u16(&mut file, 18, 62);
    set_u64(&mut file, 24, entry);
    set_u64(&mut file, 32, 64);
    set_u16(&mut file, 54, 56);
    set_u16(&mut file, 56, if note == Note::None { 2 } else { 3 });
    let first = Program {
        kind: 1,
        file: DATA,
        vaddr: VIRTUAL_BASE,
        gpa: super::LOAD,
        len: 0x1800,
        memory: 0x1800,
    };
    let second = Program {
        kind: 1,
        file: DATA + 0x1800,
        vaddr: VIRTUAL_BASE + 0x1900,
        gpa: super::LOAD + 0x1900,
        len: 0x100,
        memory: 0x4000,
    };
    first.put(&mut file, 0, 0x1000);
    second.put(&mut file, 1, 0x1000);
    if note != Note::None {
        let align = if note == Note::Align4 { 4 } else { 8 };
        let notes = notes(note);
        file[0x200..0x200 + notes.len()].copy_from_slice(&notes);
        let program = Program {
            kind: 4,
            file: 0x200,
            vaddr: 0,
            gpa: 0,
            len: notes.len(),
            memory: 0,
        };
        program.put(&mut file, 2, align);
    }
    file.extend([1; 0x1800]);
    file.extend([2; 0x100]);
    file
}

/// With 4-byte alignment the Xen note is first; with 8 a longer one precedes it and the entry has 8 bytes.
fn notes(note: Note) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut push = |name: &[u8], kind: u32, contents: &[u8], align: usize| {
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend((contents.len() as u32).to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(name);
        bytes.resize(bytes.len().next_multiple_of(align), 0);
        bytes.extend(contents);
        bytes.resize(bytes.len().next_multiple_of(align), 0);
    };
    let entry = super::LOAD + 0x80;
    if note == Note::Align8 {
        push(b"GNU\0", 18, &[1, 2, 3, 4, 5], 8);
        push(b"Xen\0", 18, &entry.to_le_bytes(), 8);
    } else {
        push(b"Xen\0", 18, &(entry as u32).to_le_bytes(), 4);
    }
    bytes
}

struct Program {
    kind: u32,
    file: usize,
    vaddr: u64,
    gpa: u64,
    len: usize,
    memory: u64,
}

impl Program {
    fn put(&self, file: &mut [u8], index: usize, align: u64) {
        let at = 64 + index * 56;
        set_u32(file, at, self.kind);
        set_u64(file, at + 8, self.file as u64);
        set_u64(file, at + 16, self.vaddr);
        set_u64(file, at + 24, self.gpa);
        set_u64(file, at + 32, self.len as u64);
        set_u64(file, at + 40, self.memory);
        set_u64(file, at + 48, align);
    }
}
