// SPDX-License-Identifier: MIT
//! A VNC client (RFC 6143), no better than it has to be.
//!
//! Always true: one request at a time, for the whole picture, without compression. Not here: what is on it.

use crate::Vm;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A client.
#[derive(Debug)]
pub struct Viewer {
    stream: TcpStream,
    size: (usize, usize),
}

impl Viewer {
    /// The address that the server's log line names.
    pub fn address(vm: &mut Vm) -> String {
        vm.wait_for_err("vnc: listening on 127.0.0.1:");
        let log = vm.transcript();
        let behind = log
            .rsplit_once("vnc: listening on ")
            .map_or("", |(_, behind)| behind);
        behind.split_whitespace().next().unwrap_or_default().to_owned()
    }

    /// Shakes hands with the server at `address`.
    ///
    /// # Panics
    /// If there is none, or it is none of this protocol.
    pub fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the server is there");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a timeout");
        let mut viewer = Self { stream, size: (0, 0) };
        assert_eq!(&viewer.read::<12>(), b"RFB 003.008\n");
        viewer.write(b"RFB 003.008\n");
        assert_eq!(viewer.read(), [1, 1]);
        viewer.write(&[1]);
        assert_eq!(viewer.read(), [0; 4]);
        viewer.write(&[1]);
        let init: [u8; 24] = viewer.read();
        let half = |at: usize| usize::from(u16::from_be_bytes([init[at], init[at + 1]]));
        viewer.size = (half(0), half(2));
        let mut name = vec![0; usize::from(init[23])];
        viewer.stream.read_exact(&mut name).expect("a name");
        viewer
    }

    fn read<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).expect("the server answers");
        bytes
    }

    fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server listens");
    }

    /// Columns and rows.
    pub fn size(&self) -> (usize, usize) {
        self.size
    }

    /// Presses and releases the key with this X11 symbol.
    pub fn press(&mut self, symbol: u32) {
        for down in [1, 0] {
            let [a, b, c, d] = symbol.to_be_bytes();
            self.write(&[4, down, 0, 0, a, b, c, d]);
        }
    }

    /// The whole picture: rows of pixels, 0x00RRGGBB.
    ///
    /// # Panics
    /// If the server sends none.
    pub fn picture(&mut self) -> Vec<u32> {
        let (width, height) = self.size;
        let [a, b] = (width as u16).to_be_bytes();
        let [c, d] = (height as u16).to_be_bytes();
        self.write(&[3, 0, 0, 0, 0, 0, a, b, c, d]);
        assert_eq!(self.read(), [0, 0, 0, 1], "one rectangle");
        self.read::<12>();
        let mut bytes = vec![0; width * height * 4];
        self.stream.read_exact(&mut bytes).expect("a picture");
        let pixels = bytes.chunks_exact(4);
        pixels
            .map(|p| u32::from_le_bytes([p[0], p[1], p[2], 0]))
            .collect()
    }
}
