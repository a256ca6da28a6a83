// SPDX-License-Identifier: MIT
//! Something in swtpm's place that answers rightly most of the time: else late, too little, too much, nonsense,
//! in pieces, never again.
//!
//! Always true: like swtpm it does one thing after another, so that the result of a control command comes after
//! the answer to the command before. Not here: what is expected of the device.

use soak_case::Random;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes of a response's and a command's header; the longest of both.
pub(crate) const HEADER: usize = 10;
pub(crate) const MOST: usize = 4096;
/// What a response holds behind its header.
pub(crate) const FILL: u8 = 0xC3;

/// The threads, which end when the device hangs up.
pub(crate) struct Peer {
    threads: [JoinHandle<()>; 2],
    /// Ends of the sockets for the device: control and data.
    pub(crate) sockets: [UnixStream; 2],
}

/// The program's state, so that it does one thing after another.
struct Program {
    random: Random,
    /// One in so many answers is none, or wrong.
    rate: u64,
    late: Duration,
    /// It does things after which nothing can be expected of it.
    breaks: bool,
}

impl Peer {
    /// A program of which one in `rate` answers is wrong; one that is late comes after `late`. Unless it
    /// `breaks`, it can be used again afterwards.
    pub(crate) fn start(random: Random, rate: u64, late: Duration, breaks: bool) -> io::Result<Self> {
        let (control, their_control) = UnixStream::pair()?;
        let (data, their_data) = UnixStream::pair()?;
        let program = Arc::new(Mutex::new(Program {
            random,
            rate,
            late,
            breaks,
        }));
        let same = program.clone();
        let threads = [
            // They end with an error, that the device is gone.
            std::thread::spawn(move || drop(serve_control(their_control, &program))),
            std::thread::spawn(move || drop(serve_data(their_data, &same))),
        ];
        Ok(Self {
            threads,
            sockets: [control, data],
        })
    }

    /// Waits for the threads, after the device has hung up.
    pub(crate) fn join(self) -> Result<(), String> {
        drop(self.sockets);
        for thread in self.threads {
            thread.join().map_err(|_| "the peer has panicked")?;
        }
        Ok(())
    }
}

fn serve_control(mut socket: UnixStream, program: &Mutex<Program>) -> io::Result<()> {
    let mut command = [0; 4];
    loop {
        socket.read_exact(&mut command)?;
        if u32::from_be_bytes(command) == 2 {
            // Flags.
            socket.read_exact(&mut [0; 4])?;
        }
        let mut program = program.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = program.rate;
        if !program.random.one_in(rate) {
            socket.write_all(&[0; 4])?;
            continue;
        }
        let kinds = if program.breaks { 4 } else { 2 };
        match program.random.below(kinds) {
            0 => socket.write_all(&[0, 0, 0, 9])?,
            1 => {
                std::thread::sleep(program.late);
                socket.write_all(&[0; 4])?;
            }
            2 => socket.write_all(&[0; 3])?,
            _ => {}
        }
    }
}

fn serve_data(mut socket: UnixStream, program: &Mutex<Program>) -> io::Result<()> {
    let mut command = [0; MOST];
    loop {
        socket.read_exact(&mut command[..HEADER])?;
        let size = size(&command);
        assert!((HEADER..=MOST).contains(&size), "a command of {size} bytes");
        socket.read_exact(&mut command[HEADER..size])?;
        let mut program = program.lock().unwrap_or_else(PoisonError::into_inner);
        let (rate, late, breaks) = (program.rate, program.late, program.breaks);
        let random = &mut program.random;
        let longest = if random.one_in(8) { MOST } else { 200 };
        let mut response = vec![FILL; HEADER + random.index(longest)];
        response.truncate(MOST);
        let said = response.len() as u32;
        response[2..6].copy_from_slice(&said.to_be_bytes());
        // The guest's own number, which tells it whose answer this is.
        response[6..HEADER].copy_from_slice(&command[6..HEADER]);
        if !random.one_in(rate) {
            socket.write_all(&response)?;
            continue;
        }
        match random.below(6) {
            0 => std::thread::sleep(late),
            1 => response.truncate(1 + random.index(response.len() - 1)),
            2 => response.resize(response.len() + random.index(9000), 0xEE),
            3 => {
                let wrong = random.pick(&[0, 9, 4097, 0x8000_0000, u32::MAX, said + 1, said - 1]);
                response[2..6].copy_from_slice(&wrong.to_be_bytes());
            }
            4 => {
                let (slowly, rest) = response.split_at(response.len().min(80));
                for byte in slowly {
                    socket.write_all(&[*byte])?;
                    std::thread::sleep(late / 40);
                }
                socket.write_all(rest)?;
                continue;
            }
            _ if breaks && random.one_in(8) => return socket.shutdown(std::net::Shutdown::Both),
            _ if breaks => response.clear(),
            _ => {}
        }
        socket.write_all(&response)?;
    }
}

/// The size in a header.
pub(crate) fn size(header: &[u8]) -> usize {
    u32::from_be_bytes([header[2], header[3], header[4], header[5]]) as usize
}
