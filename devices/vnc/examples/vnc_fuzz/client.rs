// SPDX-License-Identifier: MIT
//! A client that says what it likes and takes what it likes, without ever waiting for the server.
//!
//! Not here: clients that behave (`vnc_fuzz`).

use soak_case::Random;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// One connection.
pub(crate) struct Hostile {
    stream: TcpStream,
    /// It reads nothing.
    deaf: bool,
}

/// What came of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Stays,
    /// The server has hung up.
    Left,
}

fn message(random: &mut Random) -> Vec<u8> {
    let mut bytes = match random.below(16) {
        0 => format(random),
        1 => encodings(random),
        2 => {
            let fine = random.pick(&[0_u32, 1, 100, 3000]);
            let bad = random.pick(&[1 << 20, (1 << 20) + 1, u32::MAX]);
            let len = if random.one_in(16) { bad } else { fine };
            let mut text = vec![6, 0, 0, 0];
            text.extend(len.to_be_bytes());
            text.resize(8 + len.min(3000) as usize, b'x');
            text
        }
        3..=5 => vec![5, random.bits() as u8, 0xFF, random.bits() as u8, 0, 1],
        6..=10 => {
            let symbol = random.pick(&[0x41, 0xFF0D, 0xFFE1, 0x1_0000, u32::MAX]);
            let mut key = vec![4, random.below(3) as u8, 0, 0];
            key.extend(symbol.to_be_bytes());
            key
        }
        11 if random.one_in(16) => vec![random.bits() as u8],
        _ => {
            let mut request = vec![3, random.below(2) as u8];
            request.extend(random.value().to_be_bytes());
            request
        }
    };
    match random.below(256) {
        0 => bytes.truncate(random.index(bytes.len())),
        1 => {
            let at = random.index(bytes.len());
            bytes[at] = random.bits() as u8;
        }
        _ => {}
    }
    bytes
}

/// SetPixelFormat.
fn format(random: &mut Random) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    let (fine, bad) = (random.pick(&[8, 16, 32]), random.pick(&[0, 24, 64, 255]));
    let bits = if random.one_in(16) { bad } else { fine };
    bytes.extend([bits, 24, random.below(2) as u8, u8::from(!random.one_in(16))]);
    for _ in 0..3 {
        bytes.extend(random.pick(&[0_u16, 1, 31, 255, u16::MAX]).to_be_bytes());
    }
    let shifts: &[u8] = if random.one_in(16) {
        &[7, 31, 32, 255]
    } else {
        &[0, 3, 5, 7]
    };
    (0..3).for_each(|_| bytes.push(random.pick(shifts)));
    bytes.extend([0; 3]);
    bytes
}

/// SetEncodings.
fn encodings(random: &mut Random) -> Vec<u8> {
    let count = random.pick(&[0_u16, 1, 2, 50, u16::MAX]);
    let mut bytes = vec![2, 0];
    bytes.extend(count.to_be_bytes());
    let sent = if random.one_in(8) { count } else { count.min(50) };
    for _ in 0..sent {
        bytes.extend(random.pick(&[0, 1, 16, -223, i32::MIN]).to_be_bytes());
    }
    if sent < count {
        // It would take the rest for encodings.
        bytes[2..4].copy_from_slice(&sent.to_be_bytes());
    }
    bytes
}

impl Hostile {
    /// Connects and greets, mostly in a way that is known.
    pub(crate) fn connect(address: SocketAddr, random: &mut Random) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nonblocking(true)?;
        let mut client = Self {
            stream,
            deaf: random.one_in(8),
        };
        let mut greeting = random
            .pick(&[
                &b"RFB 003.008\n\x01\x01"[..],
                b"RFB 003.008\n\x01\x01",
                b"RFB 003.008\n\x01\x01",
                b"RFB 003.007\n\x01\x00",
                b"RFB 003.003\n\x00",
                b"RFB 003.008\n\x02\x00",
                b"RFB 004.000\n",
                b"GET / HTTP/1.1\r\n\r\n",
            ])
            .to_vec();
        match random.below(16) {
            0 => greeting.truncate(random.index(greeting.len())),
            1 => {
                let at = random.index(greeting.len());
                greeting[at] = random.bits() as u8;
            }
            _ => {}
        }
        client.say(&greeting);
        Ok(client)
    }

    fn say(&mut self, bytes: &[u8]) -> Outcome {
        match self.stream.write(bytes) {
            // What finds no room is cut off: the next message begins in its middle.
            Ok(_) => Outcome::Stays,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Outcome::Stays,
            Err(_) => Outcome::Left,
        }
    }

    /// Says `count` things at once.
    pub(crate) fn talk(&mut self, random: &mut Random, count: u64) -> Outcome {
        let bytes: Vec<u8> = (0..count).flat_map(|_| message(random)).collect();
        self.say(&bytes)
    }

    /// Anything.
    pub(crate) fn babble(&mut self, random: &mut Random) -> Outcome {
        let bytes: Vec<u8> = (0..1 + random.below(200)).map(|_| random.bits() as u8).collect();
        self.say(&bytes)
    }

    /// Takes some of what came.
    pub(crate) fn listen(&mut self, random: &mut Random) -> Outcome {
        if self.deaf {
            return Outcome::Stays;
        }
        let mut bytes = vec![0; random.pick(&[1, 100, 1 << 16])];
        match self.stream.read(&mut bytes) {
            Ok(0) => Outcome::Left,
            Ok(_) => Outcome::Stays,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Outcome::Stays,
            Err(_) => Outcome::Left,
        }
    }
}
