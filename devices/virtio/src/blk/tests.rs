// SPDX-License-Identifier: MIT
//! Requests of every kind, good and bad.

use super::*;
use crate::core::VERSION_1;
use crate::testing::Driver;
use block::DiskOptions;

const STATUS: u64 = 0x8000;
const DATA: u64 = 0x1_0000;

struct Bench {
    folder: tempfile::TempDir,
    driver: Driver,
}

impl Bench {
    fn new(read_only: bool, threads: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let bytes: Vec<u8> = (0..1u32 << 16).map(|n| (n / 512) as u8).collect();
        std::fs::write(&path, bytes).unwrap();
        let disk = Disk::open(&DiskOptions {
            path,
            read_only,
            format: None,
        })
        .unwrap();
        let mut driver = Driver::new(threads, |_| Box::new(Blk::new(disk)));
        driver.start(VERSION_1 | FLUSH | DISCARD | WRITE_ZEROES | READ_ONLY, 1);
        Self { folder, driver }
    }

    fn image(&self) -> Vec<u8> {
        std::fs::read(self.folder.path().join("disk")).unwrap()
    }

    /// Sends a request; gives status and bytes written.
    fn request(&mut self, kind: u32, sector: u64, data: &[(u64, u32, bool)]) -> (u8, u32) {
        let mut header = kind.to_le_bytes().to_vec();
        header.extend([0; 4]);
        header.extend(sector.to_le_bytes());
        self.driver.memory.write(0x100, &header).unwrap();
        self.driver.memory.write(STATUS, &[0xEE]).unwrap();
        let mut pieces = vec![(0x100, 16, false)];
        pieces.extend(data);
        pieces.push((STATUS, 1, true));
        let written = self.driver.transact(0, &pieces);
        (self.driver.ram(STATUS, 1)[0], written)
    }
}

#[test]
fn data_goes_both_ways_in_any_pieces() {
    for threads in [false, true] {
        let mut bench = Bench::new(false, threads);
        let read = [(DATA, 100, true), (DATA + 100, 924, true)];
        assert_eq!(bench.request(request::IN, 3, &read), (OK, 1025));
        let bytes = bench.driver.ram(DATA, 1024);
        assert_eq!((bytes[0], bytes[511], bytes[512]), (3, 3, 4));
        bench.driver.memory.write(DATA, &[0xC3; 1024]).unwrap();
        let write = [(DATA, 1, false), (DATA + 1, 1023, false)];
        assert_eq!(bench.request(request::OUT, 126, &write), (OK, 1));
        assert_eq!(bench.image()[126 * 512..], [0xC3; 1024]);
        assert_eq!(bench.request(request::FLUSH, 0, &[]), (OK, 1));
        assert_eq!(bench.request(request::GET_ID, 0, &[(DATA, 20, true)]), (OK, 21));
        assert_eq!(bench.driver.ram(DATA, 6), b"disk\0\0");
    }
}

#[test]
fn header_and_data_may_share_a_piece_and_the_status_too() {
    let mut bench = Bench::new(false, false);
    let mut request = request::OUT.to_le_bytes().to_vec();
    request.extend([0; 12]);
    request.extend([0x77; 512]);
    bench.driver.memory.write(0x2000, &request).unwrap();
    assert_eq!(
        bench
            .driver
            .transact(0, &[(0x2000, 528, false), (STATUS, 1, true)]),
        1
    );
    assert_eq!(bench.image()[..512], [0x77; 512]);
    bench.driver.memory.write(0x2000, &[0; 16]).unwrap();
    assert_eq!(
        bench
            .driver
            .transact(0, &[(0x2000, 16, false), (DATA, 513, true)]),
        513
    );
    assert_eq!(bench.driver.ram(DATA, 513)[510..], [0x77, 0x77, OK]);
}

#[test]
fn ranges_are_discarded_and_zeroed() {
    let mut bench = Bench::new(false, false);
    let range = |sector: u64, count: u32, flags: u32| {
        let mut bytes = sector.to_le_bytes().to_vec();
        bytes.extend(count.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes
    };
    let mut send = |kind, bytes: Vec<u8>| {
        bench.driver.memory.write(DATA, &bytes).unwrap();
        bench.request(kind, 0, &[(DATA, bytes.len() as u32, false)])
    };
    assert_eq!(
        send(request::WRITE_ZEROES, [range(1, 1, 0), range(3, 2, 1)].concat()),
        (OK, 1)
    );
    assert_eq!(send(request::DISCARD, range(64, 64, 0)), (OK, 1));
    assert_eq!(
        send(request::DISCARD, range(0, 1, 1)).0,
        UNSUPP,
        "unmap is of write zeroes"
    );
    assert_eq!(send(request::WRITE_ZEROES, range(0, 1, 2)).0, UNSUPP);
    assert_eq!(send(request::DISCARD, range(127, 2, 0)).0, IOERR, "past the end");
    assert_eq!(send(request::DISCARD, range(u64::MAX, 1, 0)).0, IOERR);
    assert_eq!(send(request::WRITE_ZEROES, range(0, u32::MAX, 0)).0, IOERR);
    assert_eq!(send(request::WRITE_ZEROES, vec![0; 15]).0, IOERR);
    assert_eq!(send(request::WRITE_ZEROES, vec![0; 17 * 16]).0, IOERR);
    let image = bench.image();
    let of = |sector: usize| image[sector * 512];
    assert_eq!([0, 1, 2, 3, 4, 5].map(of), [0, 0, 2, 0, 0, 5]);
}

#[test]
fn requests_that_cannot_be_carried_out_get_their_status() {
    let mut bench = Bench::new(false, false);
    assert_eq!(bench.request(request::IN, 128, &[(DATA, 512, true)]), (IOERR, 1));
    assert_eq!(
        bench.request(request::IN, u64::MAX / 256, &[(DATA, 512, true)]).0,
        IOERR
    );
    assert_eq!(bench.request(request::IN, 0, &[(DATA, 511, true)]).0, IOERR);
    assert_eq!(bench.request(request::OUT, 127, &[(DATA, 1024, false)]).0, IOERR);
    assert_eq!(
        bench
            .request(request::IN, 0, &[(crate::testing::RAM, 512, true)])
            .0,
        IOERR,
        "not RAM"
    );
    assert_eq!(bench.request(99, 0, &[]).0, UNSUPP);
    // Too short a header, no room for a status, a status outside RAM.
    bench.driver.transact(0, &[(0x100, 15, false), (STATUS, 1, true)]);
    assert_eq!(bench.driver.ram(STATUS, 1), [IOERR]);
    assert_eq!(bench.driver.transact(0, &[(0x100, 16, false)]), 0);
    assert_eq!(
        bench
            .driver
            .transact(0, &[(0x100, 16, false), (u64::MAX - 1, 1, true)]),
        0
    );
    assert_eq!(bench.driver.status() & 0x40, 0, "the device goes on");
    assert_eq!(bench.request(request::IN, 0, &[(DATA, 512, true)]), (OK, 513));
}

#[test]
fn read_only_disks_say_so_and_refuse_writes() {
    let mut bench = Bench::new(true, false);
    assert_ne!(bench.driver.negotiate(0) & READ_ONLY, 0);
    bench.driver.start(VERSION_1, 1);
    let before = bench.image();
    assert_eq!(bench.request(request::OUT, 0, &[(DATA, 512, false)]).0, IOERR);
    assert_eq!(bench.request(request::FLUSH, 0, &[]).0, OK);
    assert_eq!(bench.image(), before);
}

#[test]
fn the_configuration_describes_the_disk() {
    let bench = Bench::new(false, false);
    assert_eq!(u64::from_le_bytes(bench.driver.read(0x2000)), 128);
    assert_eq!(u32::from_le_bytes(bench.driver.read(0x2014)), 512);
    assert_eq!(bench.driver.read::<8>(0x2FFC), [0; 8]);
}
