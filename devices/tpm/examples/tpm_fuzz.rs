// SPDX-License-Identifier: MIT
//! Guests that do anything to a TPM's registers and ports, with something in swtpm's place that is late, wrong,
//! or gone. `--seed S --first N --count M`: cases N to N + M - 1, each of [`OPERATIONS`] operations.
//!
//! Always true: what guest and program do depends on the case's number and the seed only; how far the TPM's own
//! thread is at each operation does not.
//! What must hold: no panic, no hang, RAM that nothing names keeps its contents, an answer is the command's own,
//! a line of the log for each life at most, and after resets a guest that behaves gets an answer.

#[path = "tpm_fuzz/peer.rs"]
mod peer;

use chipset_device::{Device, MmioDevice, PortDevice};
use guest_memory::{DmaMemory, GuestMemory};
use peer::{FILL, HEADER, MOST, Peer};
use soak_case::{Cases, LogMeter, Random, Reached, at_most};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tpm::{Crb, LEN, Patience, Swtpm, TpmPorts, TpmRegisters};

/// Operations of a case.
const OPERATIONS: u32 = 1000;
const RAM: u64 = 0x10_0000;
/// Nothing is aimed here.
const KEPT: u64 = 0xC_0000;
const KEPT_LEN: usize = 0x1000;
/// How long the device waits; what is late comes after twice that.
const PATIENCE: Duration = Duration::from_millis(20);
/// Longest case: every command of it late.
const LIMIT: Duration = Duration::from_secs(120);
/// Offsets of registers.
const STATUS: u64 = 0x44;
const START: u64 = 0x4C;
const BUFFER: u64 = 0x80;

/// What many cases together must come to.
const PLACES: [&str; 6] = [
    "answers behind the registers",
    "answers in ram",
    "fatal errors",
    "pages refused",
    "resets while a command runs",
    "operations while a command runs",
];

struct Guest<'r> {
    registers: TpmRegisters,
    ports: TpmPorts,
    memory: DmaMemory,
    random: Random,
    reached: &'r Reached<{ PLACES.len() }>,
    /// Where firmware has put the pages.
    pages: Option<u32>,
    /// The number of the command that was started last, while nothing else was written to it.
    asked: Option<[u8; 4]>,
    lives: u64,
    _ram: GuestMemory,
}

impl<'r> Guest<'r> {
    fn word(&mut self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.registers.mmio_read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn port(&mut self, index: u32, value: u32) -> u32 {
        self.ports.port_write(0, &index.to_le_bytes());
        self.ports.port_write(4, &value.to_le_bytes());
        self.read_port(2)
    }

    fn read_port(&mut self, index: u32) -> u32 {
        self.ports.port_write(0, &index.to_le_bytes());
        let mut bytes = [0; 4];
        self.ports.port_read(4, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Names two pages, which may be no RAM.
    fn name_pages(&mut self) {
        let random = &mut self.random;
        let gpa = match random.below(8) {
            0 => RAM as u32 - random.pick(&[0, 1, 0x1000, 0x1FFF, 0x2000]),
            1 => random.pick(&[u32::MAX, 0xFFFF_F000, 0xFFFF_E000, 0xFED4_0000]),
            2 => 1 + random.below(RAM / 2) as u32,
            _ => (1 + random.below(RAM / 0x2000)) as u32 * 0x1000,
        };
        let running = self.word(START) != 0;
        let before = self.pages.unwrap_or(0);
        let now = self.port(1, gpa);
        if !running && now != gpa {
            self.reached.count(3);
            assert_eq!(now, before, "refused, but changed");
        }
        self.pages = Some(now).filter(|gpa| *gpa != 0);
    }

    /// Writes where commands are.
    fn put(&mut self, at: u64, bytes: &[u8]) {
        self.asked = None;
        match self.pages {
            // It was RAM when it was named.
            Some(gpa) => self.memory.write(u64::from(gpa) + at, bytes).expect("ram"),
            None => {
                for (at, pair) in (BUFFER + at..).step_by(2).zip(bytes.chunks(2)) {
                    self.registers.mmio_write(at, pair);
                }
            }
        }
    }

    fn start(&mut self) {
        if self.word(START) != 0 || self.word(STATUS) != 0 {
            return self.registers.mmio_write(START, &1_u32.to_le_bytes());
        }
        let random = &mut self.random;
        let size = match random.below(16) {
            0 => random.pick(&[0, 9, 3968, 3969, 4096, 4097, u32::MAX]),
            1 => random.value() as u32,
            _ => HEADER as u32 + random.below(100) as u32,
        };
        let number = (random.bits() as u32).to_be_bytes();
        let mut header = vec![0x80, 1];
        header.extend(size.to_be_bytes());
        header.extend(number);
        self.put(0, &header);
        self.asked = Some(number);
        self.registers.mmio_write(START, &1_u32.to_le_bytes());
        if !self.random.one_in(4) {
            self.wait();
        }
    }

    /// Waits for the command's end; whether it was answered.
    fn wait(&mut self) -> bool {
        while self.word(START) != 0 {
            std::thread::sleep(Duration::from_micros(20));
        }
        if self.word(STATUS) != 0 {
            self.reached.count(2);
            return false;
        }
        let Some(number) = self.asked.take() else {
            return false;
        };
        let mut response = [0; MOST];
        let room = match self.pages {
            Some(gpa) => {
                let there = self.memory.read(u64::from(gpa) + 0x1000, &mut response);
                there.expect("ram");
                self.reached.count(1);
                MOST
            }
            None => {
                let room = (LEN - BUFFER) as usize;
                self.registers.mmio_read(BUFFER, &mut response[..room]);
                self.reached.count(0);
                room
            }
        };
        let size = peer::size(&response);
        assert!((HEADER..=room).contains(&size), "an answer of {size} bytes");
        assert_eq!(response[6..HEADER], number, "the answer of another command");
        assert!(response[HEADER..size].iter().all(|byte| *byte == FILL));
        true
    }

    fn reset(&mut self) {
        if self.word(START) != 0 {
            self.reached.count(4);
        }
        self.registers.reset();
        self.ports.reset();
        (self.pages, self.asked) = (None, None);
        self.lives += 1;
        assert_eq!(
            (self.word(START), self.word(STATUS), self.read_port(2)),
            (0, 0, 0)
        );
    }

    fn operation(&mut self) {
        if self.word(START) != 0 {
            self.reached.count(5);
        }
        let fatal = self.word(STATUS) != 0;
        let random = &mut self.random;
        let len = 1 + random.index(8);
        let mut data = random.bits().to_le_bytes();
        match random.below(64) {
            0..=5 => self.start(),
            6 => self.name_pages(),
            7 if fatal || random.one_in(4) => self.reset(),
            8 => drop(self.registers.inspect()),
            9..=12 => {
                let at = self.random.below(MOST as u64 - 8);
                self.put(at.min(LEN - BUFFER - 8), &data[..len]);
            }
            13..=16 => {
                self.ports
                    .port_read(random.below(8) as u16, &mut data[..len.min(4)]);
            }
            17..=20 => {
                // An index, or any access that is none.
                let index = random.below(70) as u32;
                self.ports.port_write(0, &index.to_le_bytes());
                let offset = random.pick(&[1, 2, 5, 8, 0xFFFF]);
                self.ports.port_write(offset, &data[..len]);
                self.ports.port_write(4, &data[..len.min(3)]);
            }
            21..=36 => {
                let offset = random.below(LEN);
                self.registers.mmio_read(offset, &mut data[..len]);
            }
            _ => {
                // Of a driver's own, of a byte or two next to one, any.
                let offset = match random.below(4) {
                    0 => random.pick(&[0x00, 0x08, 0x40, 0x48, 0x58, 0x5C]),
                    1 => random.below(BUFFER),
                    _ => random.below(LEN),
                };
                if offset + len as u64 > BUFFER {
                    self.asked = None;
                }
                // Starting has an operation of its own.
                if offset != START {
                    self.registers.mmio_write(offset, &data[..len]);
                }
            }
        }
    }

    /// Resets until the program, which is wrong now and then, has answered a command.
    fn works_after_resets(&mut self) -> bool {
        (0..200).any(|_| {
            self.reset();
            let number = (self.random.bits() as u32).to_be_bytes();
            let mut command = vec![0x80, 1, 0, 0, 0, 12];
            command.extend(number);
            command.extend([0, 0]);
            self.put(0, &command);
            self.asked = Some(number);
            self.registers.mmio_write(START, &1_u32.to_le_bytes());
            self.wait()
        })
    }

    fn check(&self) -> Result<(), String> {
        let mut kept = [0; KEPT_LEN];
        self.memory
            .read(KEPT, &mut kept)
            .map_err(|error| error.to_string())?;
        if kept == [0xA5; KEPT_LEN] {
            Ok(())
        } else {
            Err("memory that nothing named has changed".into())
        }
    }
}

fn case(seed: u64, number: u64, reached: &Reached<{ PLACES.len() }>, meter: &LogMeter) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let lines = meter.lines();
    let ram = GuestMemory::allocate(&[(0, RAM)]).map_err(|error| error.to_string())?;
    let mut random = Random::of_case(seed, number);
    let rate = random.pick(&[16, 64, 1000]);
    let breaks = random.one_in(4);
    let peer = Peer::start(Random::of_case(!seed, number), rate, PATIENCE * 2, breaks).map_err(text)?;
    let [control, data] = [&peer.sockets[0], &peer.sockets[1]].map(|socket| socket.try_clone());
    let patience = Patience {
        command: PATIENCE,
        control: PATIENCE,
    };
    let swtpm = Swtpm::over(control.map_err(text)?, data.map_err(text)?, patience);
    let (registers, ports) = Crb::start(swtpm, ram.dma()).map_err(text)?;
    let mut guest = Guest {
        registers,
        ports,
        memory: ram.dma(),
        random,
        reached,
        pages: None,
        asked: None,
        lives: 1,
        _ram: ram,
    };
    guest
        .memory
        .write(KEPT, &[0xA5; KEPT_LEN])
        .map_err(|error| error.to_string())?;
    for _ in 0..OPERATIONS {
        guest.operation();
    }
    guest.check()?;
    let works = breaks || guest.works_after_resets();
    let begin = Instant::now();
    let lives = guest.lives;
    drop(guest);
    peer.join()?;
    if begin.elapsed() > LIMIT / 4 {
        return Err("the device does not end".into());
    }
    if !works {
        return Err("a guest that behaves gets no answer".into());
    }
    at_most("lines of the log", meter.lines() - lines, lives)
}

fn main() -> ExitCode {
    let cases = Cases::from_command_line(100).limited(LIMIT);
    let (meter, reached) = (LogMeter::install(), Reached::new(PLACES));
    let code = cases.run(|number| case(cases.seed, number, &reached, &meter));
    reached.finish(code, cases, 50)
}
