// SPDX-License-Identifier: MIT

use super::*;
use std::io::{Read, Seek};

/// Two blocks that hold `fill`, and another handle on their file.
fn flash(fill: u8) -> (Flash, File) {
    let file = tempfile::tempfile().unwrap();
    let contents = vec![fill; 2 * BLOCK];
    file.write_all_at(&contents, 0).unwrap();
    (Flash::new(contents, file.try_clone().unwrap()), file)
}

fn read(flash: &mut Flash, at: u64) -> u8 {
    let mut byte = [0];
    flash.mmio_read(at, &mut byte);
    byte[0]
}

fn write(flash: &mut Flash, at: u64, values: &[u8]) {
    for value in values {
        flash.mmio_write(at, &[*value]);
    }
}

fn file_bytes(mut file: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn firmware_tells_it_from_ram_and_rom() {
    let (mut flash, _) = flash(0xA5);
    write(&mut flash, 7, &[CLEAR_STATUS]);
    assert_eq!(read(&mut flash, 7), 0xA5, "not ram");
    write(&mut flash, 7, &[READ_STATUS]);
    assert_eq!(read(&mut flash, 7), 0, "cleared status, not rom");
    write(&mut flash, 7, &[READ_ARRAY]);
    assert_eq!(read(&mut flash, 7), 0xA5);
}

#[test]
fn programming_clears_bits_and_is_in_the_file_at_once() {
    let (mut flash, file) = flash(0xFF);
    write(&mut flash, 0x123, &[PROGRAM, 0x3C]);
    assert_eq!(read(&mut flash, 0x123), READY);
    assert_eq!(file_bytes(&file)[0x123], 0x3C);
    write(&mut flash, 0x123, &[PROGRAM, 0xF0, READ_ARRAY]);
    assert_eq!(read(&mut flash, 0x123), 0x30);
    assert_eq!(file_bytes(&file)[0x123], 0x30);
}

#[test]
fn erase_sets_the_whole_block_and_no_other() {
    let (mut flash, file) = flash(0);
    write(&mut flash, 0x1010, &[ERASE, ERASE_CONFIRM, READ_ARRAY]);
    let bytes = file_bytes(&file);
    assert!(bytes[..BLOCK].iter().all(|b| *b == 0));
    assert!(bytes[BLOCK..].iter().all(|b| *b == 0xFF));
    assert_eq!(read(&mut flash, 0x1FFF), 0xFF);
}

#[test]
fn unconfirmed_erase_and_unknown_commands_are_sequence_errors() {
    let (mut flash, file) = flash(0);
    write(&mut flash, 0, &[ERASE, 0x11]);
    assert_eq!(read(&mut flash, 0), READY | ERASE_ERROR | PROGRAM_ERROR);
    write(&mut flash, 0, &[CLEAR_STATUS, 0x33]);
    assert_eq!(read(&mut flash, 0), READY | ERASE_ERROR | PROGRAM_ERROR);
    assert!(file_bytes(&file).iter().all(|b| *b == 0));
}

#[test]
fn file_that_cannot_be_written_is_a_program_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![0xFF; BLOCK]).unwrap();
    let readable = File::open(file.path()).unwrap();
    let mut flash = Flash::new(vec![0xFF; BLOCK], readable);
    write(&mut flash, 0, &[PROGRAM, 1]);
    assert_eq!(read(&mut flash, 0), READY | PROGRAM_ERROR);
    write(&mut flash, 0, &[CLEAR_STATUS, ERASE, ERASE_CONFIRM]);
    assert_eq!(read(&mut flash, 0), READY | ERASE_ERROR);
}

#[test]
fn reads_past_the_end_are_all_ones_and_writes_there_are_dropped() {
    let (mut flash, _) = flash(0);
    let mut data = [0; 8];
    flash.mmio_read(2 * BLOCK as u64 - 4, &mut data);
    assert_eq!(data, [0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]);
    write(&mut flash, 2 * BLOCK as u64, &[PROGRAM, 0]);
    write(&mut flash, 3 * BLOCK as u64, &[ERASE, ERASE_CONFIRM]);
}

#[test]
fn reset_keeps_the_contents_and_forgets_the_mode() {
    let (mut flash, _) = flash(0xFF);
    write(&mut flash, 5, &[PROGRAM, 0x42, ERASE]);
    flash.reset();
    assert_eq!(read(&mut flash, 5), 0x42);
}
