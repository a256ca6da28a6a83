// SPDX-License-Identifier: MIT
//! One client, from the handshake to its end (RFC 6143, section 7).

use crate::format::{self, PixelFormat};
use crate::frame::{Frame, Rectangle};
use crate::server::Console;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const VERSION: &[u8; 12] = b"RFB 003.008\n";
/// The only security type.
const NO_SECURITY: u8 = 1;
const NAME: &[u8] = b"openvmm";
/// Shortest time between two pictures, and how long a client's next message is waited for in between.
const PERIOD: Duration = Duration::from_millis(40);
/// Messages in a row before a pause, so that clients that send without end leave the guest's keyboard and the
/// host's processors to others; far more than anybody types.
const BURST: u32 = 16;
const PAUSE: Duration = Duration::from_millis(1);
/// Bytes of an update that are put together before they are sent, and a little more.
const CHUNK: usize = 64 << 10;
/// Longest cut text that is skipped; more is no text.
const MOST_TEXT: u32 = 1 << 20;
/// Encodings.
const RAW: i32 = 0;
const DESKTOP_SIZE: i32 = -223;

/// Messages of clients.
mod message {
    pub(super) const SET_FORMAT: u8 = 0;
    pub(super) const SET_ENCODINGS: u8 = 2;
    pub(super) const REQUEST: u8 = 3;
    pub(super) const KEY: u8 = 4;
    pub(super) const POINTER: u8 = 5;
    pub(super) const CUT_TEXT: u8 = 6;
}

struct Client<'c> {
    stream: &'c TcpStream,
    input: BufReader<&'c TcpStream>,
    patience: Duration,
    console: &'c Console,
    format: PixelFormat,
    resizes: bool,
    /// What the client has; its size is the one that it knows.
    shown: Frame,
    /// An update was asked for, perhaps of everything.
    wants: Option<Wants>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wants {
    Changes,
    Everything,
}

/// Serves a client until it leaves.
pub(crate) fn serve(stream: &TcpStream, console: &Console, patience: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let shown = (console.frame)();
    let mut client = Client {
        stream,
        input: BufReader::new(stream),
        patience,
        console,
        format: PixelFormat::NATIVE,
        resizes: false,
        shown,
        wants: None,
    };
    client.greet()?;
    let (mut next, mut burst) = (Instant::now(), 0);
    loop {
        if let Some(kind) = client.next_message()? {
            client.handle(kind)?;
            burst += 1;
        } else {
            burst = 0;
        }
        if burst == BURST {
            std::thread::sleep(PAUSE);
            burst = 0;
        }
        if client.wants.is_some() && Instant::now() >= next {
            client.update()?;
            next = Instant::now() + PERIOD;
        }
    }
}

fn broken(what: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.into())
}

impl Client<'_> {
    fn read<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Version, security, sizes.
    fn greet(&mut self) -> io::Result<()> {
        self.write(VERSION)?;
        match &self.read::<12>()? {
            b"RFB 003.003\n" => self.write(&u32::from(NO_SECURITY).to_be_bytes())?,
            version @ (b"RFB 003.007\n" | b"RFB 003.008\n") => {
                self.write(&[1, NO_SECURITY])?;
                let [chosen] = self.read()?;
                if chosen != NO_SECURITY {
                    return Err(broken(format!("security type {chosen} was not offered")));
                }
                if version == VERSION {
                    self.write(&0_u32.to_be_bytes())?;
                }
            }
            other => return Err(broken(format!("version {:?}", other.escape_ascii().to_string()))),
        }
        // Everybody shares, whether asked to or not.
        let [_shared] = self.read()?;
        let (width, height) = self.shown.size();
        let mut init = [width.to_be_bytes(), height.to_be_bytes()].concat();
        init.extend(PixelFormat::NATIVE.write());
        init.extend((NAME.len() as u32).to_be_bytes());
        init.extend(NAME);
        self.write(&init)
    }

    /// The type of the next message, if one comes soon.
    fn next_message(&mut self) -> io::Result<Option<u8>> {
        if self.input.buffer().is_empty() {
            self.stream.set_read_timeout(Some(PERIOD))?;
            let filled = self.input.fill_buf().map(<[u8]>::len);
            self.stream.set_read_timeout(Some(self.patience))?;
            match filled {
                Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "it has left")),
                Ok(_) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        let [kind] = self.read()?;
        Ok(Some(kind))
    }

    fn handle(&mut self, kind: u8) -> io::Result<()> {
        match kind {
            message::SET_FORMAT => {
                let bytes: [u8; 3 + format::BYTES] = self.read()?;
                let mut wanted = [0; format::BYTES];
                wanted.copy_from_slice(&bytes[3..]);
                self.format = PixelFormat::read(&wanted)
                    .ok_or_else(|| broken(format!("pixel format {wanted:x?} is not true colour")))?;
            }
            message::SET_ENCODINGS => {
                let [_, high, low] = self.read()?;
                self.resizes = false;
                for _ in 0..u16::from_be_bytes([high, low]) {
                    self.resizes |= i32::from_be_bytes(self.read()?) == DESKTOP_SIZE;
                }
            }
            message::REQUEST => {
                let [incremental, ..] = self.read::<9>()?;
                if incremental == 0 {
                    self.wants = Some(Wants::Everything);
                } else {
                    self.wants.get_or_insert(Wants::Changes);
                }
            }
            message::KEY => {
                let [down, _, _, a, b, c, d] = self.read()?;
                (self.console.key)(u32::from_be_bytes([a, b, c, d]), down != 0);
            }
            message::POINTER => {
                self.read::<5>()?;
            }
            message::CUT_TEXT => {
                let [_, _, _, a, b, c, d] = self.read()?;
                let len = u32::from_be_bytes([a, b, c, d]);
                if len > MOST_TEXT {
                    return Err(broken(format!("cut text of {len} bytes")));
                }
                let skipped = io::copy(&mut self.input.by_ref().take(len.into()), &mut io::sink())?;
                if skipped != u64::from(len) {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
            }
            other => return Err(broken(format!("message type {other}"))),
        }
        Ok(())
    }

    /// Sends what was asked for, if there is any of it.
    fn update(&mut self) -> io::Result<()> {
        let frame = (self.console.frame)();
        if frame.size() != self.shown.size() {
            if !self.resizes {
                return Err(broken(
                    "the screen has another size now, and the client cannot follow",
                ));
            }
            let (width, height) = frame.size();
            self.send(&[(frame.whole(), DESKTOP_SIZE)], &frame)?;
            // What the client shows at the new size is not known.
            self.shown = Frame::black(width, height);
            self.wants = Some(Wants::Everything);
            return Ok(());
        }
        let parts = match self.wants {
            Some(Wants::Everything) => vec![frame.whole()],
            _ => self.shown.changes(&frame),
        };
        if parts.is_empty() {
            return Ok(());
        }
        let parts: Vec<_> = parts.into_iter().map(|part| (part, RAW)).collect();
        self.send(&parts, &frame)?;
        self.shown = frame;
        self.wants = None;
        Ok(())
    }

    fn send(&mut self, parts: &[(Rectangle, i32)], frame: &Frame) -> io::Result<()> {
        let mut bytes = vec![0, 0];
        // Tiles of the largest picture are far below 65536.
        bytes.extend((parts.len() as u16).to_be_bytes());
        for (part, encoding) in parts {
            for half in [part.x, part.y, part.width, part.height] {
                bytes.extend(half.to_be_bytes());
            }
            bytes.extend(encoding.to_be_bytes());
            for row in frame.rows(*part).filter(|_| *encoding == RAW) {
                self.format.encode(row, &mut bytes);
                if bytes.len() >= CHUNK {
                    self.write(&bytes)?;
                    bytes.clear();
                }
            }
        }
        self.write(&bytes)
    }
}
