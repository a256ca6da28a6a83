// SPDX-License-Identifier: MIT
//! The registers with a program behind them that answers as it is told.

use super::*;
use chipset_device::{Device, MmioDevice, PortDevice};
use guest_memory::{DmaMemory, GuestMemory};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const COMMAND: [u8; 12] = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7B, 0, 8];
const RESPONSE: [u8; 12] = [0x80, 1, 0, 0, 0, 12, 0, 0, 0, 0, 0xAA, 0xBB];
const PAGES: u64 = 0x4000;

struct Rig {
    registers: TpmRegisters,
    ports: TpmPorts,
    memory: DmaMemory,
    // Kept: the device sees it through `memory`.
    _ram: GuestMemory,
}

/// A program that accepts every control command and gives `answers` to TPM commands, then hangs up.
fn rig(answers: Vec<Vec<u8>>) -> Rig {
    let (data, mut their_data) = UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        for answer in answers {
            let mut command = [0; COMMAND.len()];
            their_data.read_exact(&mut command).unwrap();
            assert_eq!(command, COMMAND);
            their_data.write_all(&answer).unwrap();
        }
    });
    rig_over(data, Patience::default())
}

/// A program with one end of `data` that accepts every control command.
fn rig_over(data: UnixStream, patience: Patience) -> Rig {
    let (control, mut their_control) = UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        let mut command = [0; 8];
        // Stop, then start with flags; once for each life of the machine.
        while their_control.read_exact(&mut command[..4]).is_ok() {
            if command[..4] == [0, 0, 0, 2] {
                their_control.read_exact(&mut command[4..]).unwrap();
            }
            their_control.write_all(&[0; 4]).unwrap();
        }
    });
    let ram = GuestMemory::allocate(&[(0, 0x10_000)]).unwrap();
    let (registers, ports) = Crb::start(Swtpm::over(control, data, patience), ram.dma()).unwrap();
    Rig {
        registers,
        ports,
        memory: ram.dma(),
        _ram: ram,
    }
}

impl Rig {
    fn word(&mut self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.registers.mmio_read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn set(&mut self, offset: u64, value: u32) {
        self.registers.mmio_write(offset, &value.to_le_bytes());
    }

    fn port(&mut self, index: u32, value: Option<u32>) -> u32 {
        self.ports.port_write(0, &index.to_le_bytes());
        if let Some(value) = value {
            self.ports.port_write(4, &value.to_le_bytes());
        }
        let mut bytes = [0; 4];
        self.ports.port_read(4, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Puts the command into the buffer behind the registers.
    fn put_command(&mut self) {
        for (at, pair) in (0x80..).step_by(2).zip(COMMAND.chunks(2)) {
            self.registers.mmio_write(at, pair);
        }
    }

    fn response(&mut self) -> [u8; RESPONSE.len()] {
        let mut response = [0; RESPONSE.len()];
        self.registers.mmio_read(0x80, &mut response);
        response
    }

    /// Starts the command and waits for its end; the status.
    fn run(&mut self) -> u32 {
        self.set(0x4C, 1);
        self.finish()
    }

    /// Waits for the end of the command that runs; the status.
    fn finish(&mut self) -> u32 {
        let end = Instant::now() + Duration::from_secs(20);
        while self.word(0x4C) != 0 {
            assert!(Instant::now() < end, "the command does not end");
            std::thread::yield_now();
        }
        self.word(0x44)
    }
}

#[test]
fn a_command_in_the_buffer_behind_the_registers_is_answered_there() {
    let mut rig = rig(vec![RESPONSE.to_vec()]);
    assert_eq!(rig.word(0x58), 0xF80);
    assert_eq!((rig.word(0x5C), rig.word(0x60)), (0xFED4_0080, 0));
    rig.put_command();
    assert_eq!(rig.run(), 0);
    assert_eq!(rig.response(), RESPONSE);
}

#[test]
fn pages_of_ram_are_used_once_firmware_has_named_them() {
    let mut rig = rig(vec![RESPONSE.to_vec()]);
    assert_eq!(rig.port(2, None), 0);
    assert_eq!(rig.port(1, Some(0x8000_0000)), u32::MAX);
    assert_eq!(rig.port(2, None), 0);
    rig.port(1, Some(PAGES as u32));
    assert_eq!(rig.port(2, None), PAGES as u32);
    assert_eq!(
        (rig.word(0x58), rig.word(0x5C), rig.word(0x68)),
        (0x1000, 0x4000, 0x5000)
    );
    rig.memory.write(PAGES, &COMMAND).unwrap();
    assert_eq!(rig.run(), 0);
    let mut response = [0; RESPONSE.len()];
    rig.memory.read(PAGES + 0x1000, &mut response).unwrap();
    assert_eq!(response, RESPONSE);
    rig.registers.reset();
    assert_eq!(rig.port(2, None), 0);
}

#[test]
fn wrong_lengths_and_a_program_that_hangs_up_are_fatal_until_the_machine_is_reset() {
    let too_long = [0x80, 1, 0, 0, 0x10, 1, 0, 0, 0, 0];
    let mut rig = rig(vec![too_long.to_vec()]);
    rig.port(1, Some(PAGES as u32));
    for size in [0_u32, 9, 0x1001, u32::MAX] {
        let mut command = COMMAND;
        command[2..6].copy_from_slice(&size.to_be_bytes());
        rig.memory.write(PAGES, &command).unwrap();
        assert_eq!(rig.run(), 1, "{size:#x}");
        // Fatal: nothing is started any more.
        rig.set(0x4C, 1);
        assert_eq!(rig.word(0x4C), 0);
        rig.registers.reset();
        rig.port(1, Some(PAGES as u32));
        assert_eq!(rig.word(0x44), 0);
    }
    rig.memory.write(PAGES, &COMMAND).unwrap();
    assert_eq!(rig.run(), 1, "a response of 0x1001 bytes");
    rig.registers.reset();
    rig.port(1, Some(PAGES as u32));
    assert_eq!(rig.run(), 1, "nobody answers");
}

#[test]
fn an_answer_that_was_given_up_is_waited_for_before_the_next_command() {
    let (data, mut theirs) = UnixStream::pair().unwrap();
    let patience = Patience {
        command: Duration::from_millis(1000),
        ..Patience::default()
    };
    let mut rig = rig_over(data, patience);
    rig.put_command();
    assert_eq!(rig.run(), 1);
    rig.registers.reset();
    rig.put_command();
    assert_eq!(rig.run(), 1, "still not there");
    let mut late = RESPONSE;
    late[11] = 0x11;
    theirs.write_all(&late).unwrap();
    rig.registers.reset();
    rig.put_command();
    rig.set(0x4C, 1);
    // Two commands came; one was never sent.
    theirs.read_exact(&mut [0; 2 * COMMAND.len()]).unwrap();
    theirs.write_all(&RESPONSE).unwrap();
    assert_eq!((rig.finish(), rig.response()), (0, RESPONSE));
}

#[test]
fn what_is_behind_an_answer_is_not_the_next() {
    let behind = |answer: &[u8]| [answer, &[0xEE; 40]].concat();
    let (mut bad, good) = (RESPONSE, behind(&RESPONSE));
    bad[2] = 0xFF;
    let mut rig = rig(vec![behind(&bad), good, RESPONSE.to_vec()]);
    rig.put_command();
    assert_eq!(rig.run(), 1, "it has no sound size, and more behind it");
    rig.registers.reset();
    for _ in 0..2 {
        rig.put_command();
        assert_eq!((rig.run(), rig.response()), (0, RESPONSE));
    }
}

#[test]
fn a_program_that_sends_little_at_a_time_is_not_waited_for_longer() {
    let (data, mut theirs) = UnixStream::pair().unwrap();
    let patience = Patience {
        command: Duration::from_millis(300),
        ..Patience::default()
    };
    std::thread::spawn(move || {
        let long = [0x80, 1, 0, 0, 0x10, 0]
            .iter()
            .copied()
            .chain(std::iter::repeat(0));
        for byte in long {
            if theirs.write_all(&[byte]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let mut rig = rig_over(data, patience);
    rig.put_command();
    // As it would stay, if each byte were waited for anew, for over a minute.
    assert_eq!(rig.run(), 1);
}

#[test]
fn a_late_result_of_the_control_socket_is_not_taken_for_the_next() {
    let (control, mut theirs) = UnixStream::pair().unwrap();
    let (data, _theirs) = UnixStream::pair().unwrap();
    let patience = Patience {
        control: Duration::from_millis(200),
        ..Patience::default()
    };
    let mut tpm = Swtpm::over(control, data, patience);
    assert!(
        matches!(tpm.power_cycle(), Err(SwtpmError::Io(_))),
        "no result yet"
    );
    // Of the first stop; of the second; of the start.
    for result in [0_u32, 0, 7] {
        theirs.write_all(&result.to_be_bytes()).unwrap();
    }
    let error = tpm.power_cycle().unwrap_err();
    assert!(
        matches!(
            error,
            SwtpmError::Refused {
                command: 2,
                result: 7
            }
        ),
        "{error}"
    );
}

#[test]
fn a_machine_ends_while_a_command_runs() {
    let (data, _theirs) = UnixStream::pair().unwrap();
    let mut rig = rig_over(data, Patience::default());
    rig.put_command();
    rig.set(0x4C, 1);
    std::thread::sleep(Duration::from_millis(50));
    let begin = Instant::now();
    // No VP waits for it either.
    assert_eq!((rig.word(0x4C), rig.word(0x44)), (1, 0));
    rig.registers.reset();
    assert_eq!(rig.word(0x4C), 0);
    drop(rig.registers);
    assert!(begin.elapsed() < Duration::from_secs(20));
}

#[test]
fn locality_zero_is_given_and_taken_back() {
    let mut rig = rig(Vec::new());
    assert_eq!((rig.word(0), rig.word(0xC)), (0x80, 0));
    rig.set(8, 1);
    assert_eq!((rig.word(0), rig.word(0xC)), (0x82, 1));
    rig.set(8, 2);
    assert_eq!(rig.word(0), 0x80);
    assert_eq!(rig.word(0x30), 0x4011);
    rig.set(0x40, 1);
    assert_eq!(rig.word(0x40), 0);
}

#[test]
fn a_socket_that_is_not_there_says_what_to_start() {
    let error = Swtpm::connect(std::path::Path::new("/nonexistent/tpm")).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("/nonexistent/tpm: ") && text.contains("swtpm socket --tpm2"),
        "{text}"
    );
}
