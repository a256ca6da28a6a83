// SPDX-License-Identifier: MIT
//! Streams between a guest, as a driver sends packets, and sockets of the host.

use super::*;
use crate::core::VERSION_1;
use crate::testing::Driver;
use soak_case::Random;
use std::io::Write;
use std::time::{Duration, Instant};

const GUEST: u64 = 7;
const OUT: u64 = 0x1000;
const IN: u64 = 0x10_0000;
const IN_LEN: u32 = 0x4000;
const BUFFERS: u64 = 16;

struct Bench {
    folder: tempfile::TempDir,
    driver: Driver,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let device = Vsock::listen(GUEST, &folder.path().join("v")).unwrap();
        let mut driver = Driver::new(true, |_| Box::new(device));
        driver.start(VERSION_1, 3);
        let mut bench = Self { folder, driver };
        (0..BUFFERS).for_each(|n| bench.give(n));
        bench
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.folder.path().join(format!("v{suffix}"))
    }

    /// Gives receive buffer `n`.
    fn give(&mut self, n: u64) {
        self.driver.submit(RECEIVE, &[(IN + n * 0x8000, IN_LEN, true)]);
        self.driver.notify(RECEIVE as u16);
    }

    fn send(&mut self, header: Header, data: &[u8]) {
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend(data);
        self.driver.memory.write(OUT, &bytes).unwrap();
        self.driver.transact(SEND, &[(OUT, bytes.len() as u32, false)]);
    }

    fn packet(&mut self, host: u32, guest: u32, op: Op, flags: u32, data: &[u8]) {
        let header = Header {
            src_cid: GUEST,
            dst_cid: HOST,
            src_port: guest,
            dst_port: host,
            op: op as u16,
            flags,
            len: data.len() as u32,
            buf_alloc: 1 << 20,
            ..Header::default()
        };
        self.send(header, data);
    }

    /// The next packet that is no credit update.
    #[track_caller]
    fn receive(&mut self) -> (Header, Vec<u8>) {
        loop {
            let (head, written) = self.driver.wait_used(RECEIVE);
            let gpa = self.buffer_of(head);
            let bytes = self.driver.ram(gpa, written as usize);
            self.give((gpa - IN) / 0x8000);
            let header = Header::from_bytes(bytes[..LEN].try_into().unwrap());
            if header.op != Op::CreditUpdate as u16 {
                return (header, bytes[LEN..].to_vec());
            }
        }
    }

    fn buffer_of(&self, head: u32) -> u64 {
        u64::from_le_bytes(
            self.driver
                .ram(0x30_0000 + u64::from(head) * 16, 8)
                .try_into()
                .unwrap(),
        )
    }

    #[track_caller]
    fn expect(&mut self, op: Op) -> (Header, Vec<u8>) {
        let (header, data) = self.receive();
        assert_eq!(header.op, op as u16, "{header:?}");
        assert_eq!((header.src_cid, header.dst_cid), (HOST, GUEST));
        (header, data)
    }
}

#[test]
fn a_guest_reaches_a_socket_of_the_host_and_both_ends_close_in_turn() {
    let mut bench = Bench::new();
    let listener = UnixListener::bind(bench.path("_80")).unwrap();
    bench.packet(80, 5000, Op::Request, 0, &[]);
    let (answer, _) = bench.expect(Op::Response);
    assert_eq!(
        (answer.src_port, answer.dst_port, answer.buf_alloc),
        (80, 5000, 256 << 10)
    );
    let (mut host, _) = listener.accept().unwrap();
    bench.packet(80, 5000, Op::Data, 0, b"to the host");
    let mut bytes = [0; 11];
    host.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"to the host");
    host.write_all(b"to the guest").unwrap();
    assert_eq!(bench.expect(Op::Data).1, b"to the guest");
    host.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(bench.expect(Op::Shutdown).0.flags, header::SHUT_SEND);
    bench.packet(80, 5000, Op::Data, 0, b"still");
    bench.packet(
        80,
        5000,
        Op::Shutdown,
        header::SHUT_SEND | header::SHUT_RECEIVE,
        &[],
    );
    bench.expect(Op::Rst);
    let mut rest = Vec::new();
    host.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"still");
}

#[test]
fn the_host_calls_a_port_of_the_guest() {
    let mut bench = Bench::new();
    let mut host = UnixStream::connect(bench.path("")).unwrap();
    host.write_all(b"CONNECT 1234\nfirst").unwrap();
    let (call, _) = bench.expect(Op::Request);
    assert_eq!((call.dst_port, call.src_port), (1234, FIRST_HOST_PORT));
    bench.packet(call.src_port, 1234, Op::Response, 0, &[]);
    let mut line = [0; 14];
    host.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"OK 1073741824\n");
    assert_eq!(bench.expect(Op::Data).1, b"first");
    let mut other = UnixStream::connect(bench.path("")).unwrap();
    other.write_all(b"CONNECT 99\n").unwrap();
    let (call, _) = bench.expect(Op::Request);
    bench.packet(call.src_port, 99, Op::Rst, 0, &[]);
    assert_eq!(other.read(&mut line).unwrap(), 0, "refused by the guest");
    for nonsense in [
        "GET /\n",
        "CONNECT x\n",
        "CONNECT 1 and more than a greeting may have\n",
    ] {
        let mut caller = UnixStream::connect(bench.path("")).unwrap();
        caller.write_all(nonsense.as_bytes()).unwrap();
        // The rest of an overlong greeting may be lost with a reset.
        assert!(matches!(caller.read(&mut line), Ok(0) | Err(_)), "{nonsense}");
    }
}

#[test]
fn much_data_goes_both_ways_at_once_within_the_credit() {
    let mut bench = Bench::new();
    let listener = UnixListener::bind(bench.path("_1")).unwrap();
    bench.packet(1, 2, Op::Request, 0, &[]);
    bench.expect(Op::Response);
    let (host, _) = listener.accept().unwrap();
    let bytes: Vec<u8> = (0..3u32 << 20).map(|n| (n ^ n >> 8) as u8).collect();
    let (mut reader, mut writer) = (host.try_clone().unwrap(), host);
    let expected = bytes.clone();
    let read = std::thread::spawn(move || {
        let mut got = vec![0; expected.len()];
        reader.read_exact(&mut got).unwrap();
        assert!(got == expected);
    });
    let sent = bytes.clone();
    let write = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    let (mut got, mut at, mut taken, mut room) = (Vec::<u8>::new(), 0, 0u32, 256u32 << 10);
    let end = Instant::now() + Duration::from_secs(60);
    while got.len() < bytes.len() || at < bytes.len() {
        assert!(Instant::now() < end, "{} {at}", got.len());
        let ahead = (at as u32).wrapping_sub(taken);
        let part = (bytes.len() - at).min(8192);
        if part > 0 && ahead + part as u32 <= room {
            let header = Header {
                src_cid: GUEST,
                dst_cid: HOST,
                src_port: 2,
                dst_port: 1,
                op: Op::Data as u16,
                len: part as u32,
                buf_alloc: 64 << 10,
                fwd_cnt: got.len() as u32,
                ..Header::default()
            };
            let data = bytes[at..at + part].to_vec();
            bench.send(header, &data);
            at += part;
        } else {
            let header = Header {
                src_cid: GUEST,
                dst_cid: HOST,
                src_port: 2,
                dst_port: 1,
                op: Op::CreditRequest as u16,
                buf_alloc: 64 << 10,
                fwd_cnt: got.len() as u32,
                ..Header::default()
            };
            bench.send(header, &[]);
        }
        while let Some((head, written)) = bench.driver.used(RECEIVE) {
            let gpa = bench.buffer_of(head);
            let packet = bench.driver.ram(gpa, written as usize);
            bench.give((gpa - IN) / 0x8000);
            let header = Header::from_bytes(packet[..LEN].try_into().unwrap());
            assert_ne!(header.op, Op::Rst as u16);
            (taken, room) = (header.fwd_cnt, header.buf_alloc);
            got.extend(&packet[LEN..]);
        }
    }
    assert!(got == bytes);
    read.join().unwrap();
    write.join().unwrap();
}

#[test]
fn what_belongs_to_nothing_or_breaks_the_rules_is_reset() {
    let mut bench = Bench::new();
    bench.packet(9, 9, Op::Request, 0, &[]);
    bench.expect(Op::Rst);
    bench.packet(9, 9, Op::Data, 0, b"x");
    bench.expect(Op::Rst);
    bench.packet(9, 9, Op::Rst, 0, &[]);
    let listener = UnixListener::bind(bench.path("_3")).unwrap();
    for bad in [Op::Response, Op::Request] {
        bench.packet(3, 4, Op::Request, 0, &[]);
        bench.expect(Op::Response);
        let _host = listener.accept().unwrap();
        bench.packet(3, 4, bad, 0, &[]);
        bench.expect(Op::Rst);
        bench.packet(3, 4, Op::Rst, 0, &[]);
    }
    // More data than is there, another kind of socket, somebody else's address.
    bench.packet(3, 4, Op::Request, 0, &[]);
    bench.expect(Op::Response);
    let header = Header {
        src_cid: GUEST,
        dst_cid: HOST,
        src_port: 4,
        dst_port: 3,
        op: Op::Data as u16,
        len: 100,
        ..Header::default()
    };
    bench.send(header, b"short");
    bench.expect(Op::Rst);
    bench.send(Header { kind: 2, ..header }, &[]);
    bench.expect(Op::Rst);
    bench.send(Header { src_cid: 3, ..header }, &[]);
    bench.send(Header { op: 77, ..header }, &[]);
    bench.expect(Op::Rst);
}

#[test]
fn a_guest_that_ignores_its_credit_is_reset_and_memory_stays_bounded() {
    let mut bench = Bench::new();
    let listener = UnixListener::bind(bench.path("_5")).unwrap();
    bench.packet(5, 5, Op::Request, 0, &[]);
    bench.expect(Op::Response);
    let _nobody_reads = listener.accept().unwrap();
    for _ in 0..64 {
        bench.packet(5, 5, Op::Data, 0, &[0; 32 << 10]);
    }
    bench.expect(Op::Rst);
}

#[test]
fn random_packets_never_stop_the_device() {
    let mut bench = Bench::new();
    let _listener = UnixListener::bind(bench.path("_1")).unwrap();
    let mut random = Random::of_case(5, 0);
    for _ in 0..3000 {
        let header = Header {
            src_cid: if random.one_in(8) { random.bits() } else { GUEST },
            dst_cid: if random.one_in(8) { random.bits() } else { HOST },
            src_port: random.below(3) as u32,
            dst_port: random.below(3) as u32,
            len: random.below(200) as u32,
            kind: if random.one_in(8) {
                random.bits() as u16
            } else {
                STREAM
            },
            op: random.below(9) as u16,
            flags: random.below(4) as u32,
            buf_alloc: random.value() as u32,
            fwd_cnt: random.value() as u32,
        };
        let data = vec![7; random.below(200) as usize];
        bench.send(header, &data);
        while let Some((head, _)) = bench.driver.used(RECEIVE) {
            let gpa = bench.buffer_of(head);
            bench.give((gpa - IN) / 0x8000);
        }
    }
    assert_eq!(bench.driver.status() & 0x40, 0);
}
