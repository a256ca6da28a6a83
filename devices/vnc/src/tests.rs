// SPDX-License-Identifier: MIT
//! A client of RFC 6143 against the server.

use super::*;
use soak_case::LogMeter;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Keys = Arc<Mutex<Vec<(u32, bool)>>>;

struct Client(TcpStream);

/// A server whose screen is `frame`, and the keys that were pressed.
fn server(frame: &Arc<Mutex<Frame>>) -> (Server, Keys) {
    let (keys, frame) = (Keys::default(), frame.clone());
    let pressed = keys.clone();
    let console = Console {
        frame: Box::new(move || frame.lock().unwrap().clone()),
        key: Box::new(move |symbol, down| pressed.lock().unwrap().push((symbol, down))),
    };
    (Server::start(0, console).unwrap(), keys)
}

fn screen(width: u16, height: u16) -> Arc<Mutex<Frame>> {
    let pixels = (0..u32::from(width) * u32::from(height)).map(|i| (i * 3) & 0xFF_FFFF);
    Arc::new(Mutex::new(Frame::new(width, height, pixels.collect()).unwrap()))
}

impl Client {
    fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(stream)
    }

    fn read<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// The handshake of 3.8; the size.
    fn greet(&mut self) -> (u16, u16) {
        assert_eq!(&self.read::<12>(), b"RFB 003.008\n");
        self.write(b"RFB 003.008\n");
        assert_eq!(self.read(), [1, 1]);
        self.write(&[1]);
        assert_eq!(self.read(), [0; 4]);
        self.write(&[1]);
        self.init()
    }

    fn init(&mut self) -> (u16, u16) {
        let [a, b, c, d] = self.read();
        assert_eq!(
            self.read(),
            [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0]
        );
        assert_eq!((self.read(), &self.read::<7>()), ([0, 0, 0, 7], b"openvmm"));
        (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
    }

    fn request(&mut self, incremental: bool) {
        self.write(&[3, incremental.into(), 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]);
    }

    /// An update's rectangles: place, size, encoding, and as many bytes as pixels of `bytes` take.
    fn update(&mut self, bytes: usize) -> Vec<([u16; 4], i32, Vec<u8>)> {
        let [kind, _, high, low] = self.read();
        assert_eq!(kind, 0);
        (0..u16::from_be_bytes([high, low]))
            .map(|_| {
                let place = [(); 4].map(|()| u16::from_be_bytes(self.read()));
                let encoding = i32::from_be_bytes(self.read());
                let pixels = if encoding == 0 {
                    usize::from(place[2]) * usize::from(place[3])
                } else {
                    0
                };
                let mut data = vec![0; pixels * bytes];
                self.0.read_exact(&mut data).unwrap();
                (place, encoding, data)
            })
            .collect()
    }

    fn has_been_left(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0) | Err(_))
    }
}

#[test]
fn a_client_sees_the_whole_picture_and_then_what_changes() {
    let screen = screen(100, 40);
    let (server, _) = server(&screen);
    let mut client = Client::connect(&server);
    assert_eq!(client.greet(), (100, 40));
    client.request(false);
    let all = client.update(4);
    assert_eq!((all.len(), all[0].0, all[0].1), (1, [0, 0, 100, 40], 0));
    assert_eq!(all[0].2[4..8], [3, 0, 0, 0]);
    assert_eq!(all[0].2[4 * 3999..], [0xDD, 0x2E, 0, 0]);
    client.request(true);
    let mut pixels = vec![0; 4000];
    pixels.clone_from_slice(&(0..4000).map(|i| i * 3).collect::<Vec<u32>>());
    pixels[39 * 100 + 99] = 0x12_3456;
    *screen.lock().unwrap() = Frame::new(100, 40, pixels).unwrap();
    let part = client.update(4);
    assert_eq!((part.len(), part[0].0), (1, [64, 32, 36, 8]));
    assert_eq!(part[0].2[4 * (36 * 8 - 1)..], [0x56, 0x34, 0x12, 0]);
}

#[test]
fn pixels_have_the_format_that_the_client_wants() {
    let screen = Arc::new(Mutex::new(Frame::new(2, 1, vec![0xFF_0000, 0x00_8000]).unwrap()));
    let (server, _) = server(&screen);
    let mut client = Client::connect(&server);
    client.greet();
    // 16 bits, big-endian, 5-6-5.
    client.write(&[0, 0, 0, 0, 16, 16, 1, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0, 0, 0, 0]);
    client.request(false);
    assert_eq!(client.update(2)[0].2, [0xF8, 0x00, 0x03, 0xE0]);
    // 8 bits, 3-3-2.
    client.write(&[0, 0, 0, 0, 8, 8, 0, 1, 0, 7, 0, 7, 0, 3, 5, 2, 0, 0, 0, 0]);
    client.request(false);
    assert_eq!(client.update(1)[0].2, [0xE0, 0x0C]);
    // A colour map.
    client.write(&[0, 0, 0, 0, 8, 8, 0, 0, 0, 7, 0, 7, 0, 3, 5, 2, 0, 0, 0, 0]);
    assert!(client.has_been_left());
}

#[test]
fn keys_arrive_and_the_rest_is_skipped() {
    let (server, keys) = server(&screen(8, 8));
    let mut client = Client::connect(&server);
    client.greet();
    client.write(&[5, 1, 0, 0, 0, 0]);
    client.write(&[6, 0, 0, 0, 0, 0, 0, 3, b'a', b'b', b'c']);
    client.write(&[4, 1, 0, 0, 0, 0, 0xFF, 0x0D]);
    client.write(&[4, 0, 0, 0, 0, 0, 0xFF, 0x0D]);
    client.request(false);
    client.update(4);
    assert_eq!(*keys.lock().unwrap(), [(0xFF0D, true), (0xFF0D, false)]);
}

#[test]
fn a_flood_of_keys_is_taken_in_pieces() {
    const FLOOD: usize = 2000;
    let (server, keys) = server(&screen(8, 8));
    let mut client = Client::connect(&server);
    client.greet();
    let begin = std::time::Instant::now();
    client.write(&[4, 1, 0, 0, 0, 0, 0, 0x41].repeat(FLOOD));
    client.request(false);
    client.update(4);
    assert_eq!(keys.lock().unwrap().len(), FLOOD);
    assert!(begin.elapsed() > Duration::from_millis(100));
}

#[test]
fn a_picture_of_another_size_is_announced_or_ends_the_connection() {
    let screen = screen(8, 8);
    let (server, _) = server(&screen);
    let (mut knows, mut does_not) = (Client::connect(&server), Client::connect(&server));
    knows.greet();
    does_not.greet();
    knows.write(&[2, 0, 0, 2, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0x21]);
    *screen.lock().unwrap() = Frame::black(16, 4);
    knows.request(true);
    assert_eq!(knows.update(4), [([0, 0, 16, 4], -223, Vec::new())]);
    knows.request(true);
    assert_eq!(knows.update(4)[0].0, [0, 0, 16, 4]);
    does_not.request(true);
    assert!(does_not.has_been_left());
}

#[test]
fn a_picture_of_many_pieces_arrives_whole() {
    let screen = screen(301, 299);
    let (server, _) = server(&screen);
    let mut client = Client::connect(&server);
    client.greet();
    client.request(false);
    let (place, _, pixels) = client.update(4).remove(0);
    assert_eq!(place, [0, 0, 301, 299]);
    let words = pixels.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word));
    assert!(words.eq((0..301 * 299).map(|i| i * 3)));
}

#[test]
fn a_client_that_takes_nothing_is_left_and_the_server_ends() {
    let screen = screen(1000, 1000);
    let console = Console {
        frame: Box::new(move || screen.lock().unwrap().clone()),
        key: Box::new(|_, _| {}),
    };
    let server = Server::with_patience(0, console, Duration::from_millis(300)).unwrap();
    let mut client = Client::connect(&server);
    client.greet();
    // More than the host's sockets hold; refused from some point on.
    client.0.set_nonblocking(true).unwrap();
    let request = [3, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF];
    let mut left = false;
    for _ in 0..400 {
        left |= client.0.write_all(&request).is_err();
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(left, "the server still listens to it");
    drop(server);
}

#[test]
fn clients_that_come_and_go_do_not_fill_the_log() {
    // Of all tests together.
    let meter = LogMeter::install();
    let (server, _) = server(&screen(8, 8));
    for _ in 0..600 {
        let mut client = Client::connect(&server);
        // One of too many gets nothing.
        let _ = client.0.write_all(b"GET / HTTP/1.1\r\n");
        let _ = client.0.read(&mut [0; 12]);
    }
    assert!((1..300).contains(&meter.lines()), "{} lines", meter.lines());
}

#[test]
fn older_clients_are_greeted_in_their_way() {
    let (server, _) = server(&screen(8, 8));
    let mut client = Client::connect(&server);
    client.read::<12>();
    client.write(b"RFB 003.003\n");
    assert_eq!(client.read(), [0, 0, 0, 1]);
    client.write(&[0]);
    assert_eq!(client.init(), (8, 8));
    let mut client = Client::connect(&server);
    client.read::<12>();
    client.write(b"RFB 003.007\n");
    assert_eq!(client.read(), [1, 1]);
    client.write(&[1, 0]);
    assert_eq!(client.init(), (8, 8));
}

#[test]
fn a_client_that_breaks_the_protocol_is_left_and_nobody_else_notices() {
    let (server, _) = server(&screen(8, 8));
    let mut good = Client::connect(&server);
    good.greet();
    for (greeted, bytes) in [
        (false, b"GET / HTTP/1.1\r\n".as_slice()),
        (false, b"RFB 003.008\n\x02"),
        (true, &[99]),
        (true, &[6, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]),
    ] {
        let mut bad = Client::connect(&server);
        if greeted {
            bad.greet();
        } else {
            bad.read::<12>();
        }
        bad.write(bytes);
        let _ = bad.0.set_read_timeout(Some(Duration::from_secs(20)));
        let mut rest = Vec::new();
        // Ends, one way or the other.
        let _ = bad.0.read_to_end(&mut rest);
        assert!(rest.len() < 3, "{rest:?}");
    }
    good.request(false);
    assert_eq!(good.update(4).len(), 1);
    drop(server);
    assert!(good.has_been_left());
}
