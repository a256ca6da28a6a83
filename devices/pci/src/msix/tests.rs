// SPDX-License-Identifier: MIT
//! Messages, masks and pending bits.

use super::*;
use crate::testing::Record;

fn setup(vectors: u16) -> (Arc<Record>, Arc<Msix>, MsixRegion) {
    let record = Arc::new(Record::default());
    let msix = Msix::new(vectors, record.clone());
    let region = MsixRegion::new(msix.clone());
    (record, msix, region)
}

fn program(region: &mut MsixRegion, vector: u64, data: u32, control: u32) {
    region.mmio_write(vector * 16, &0xFEE0_1000u64.to_le_bytes());
    region.mmio_write(vector * 16 + 8, &data.to_le_bytes());
    region.mmio_write(vector * 16 + 12, &control.to_le_bytes());
}

fn pending(region: &mut MsixRegion) -> u64 {
    let mut data = [0; 8];
    region.mmio_read(region.pending_offset(), &mut data);
    u64::from_le_bytes(data)
}

#[test]
fn an_open_vector_sends_its_message() {
    let (record, msix, mut region) = setup(4);
    program(&mut region, 2, 0x41, 0);
    msix.trigger(2);
    assert!(lock(&record.messages).is_empty(), "not enabled");
    msix.set_control(true, false, true);
    msix.trigger(2);
    msix.trigger(99);
    assert_eq!(*lock(&record.messages), [(0xFEE0_1000, 0x41)]);
}

#[test]
fn masked_messages_wait_and_are_sent_once() {
    let (record, msix, mut region) = setup(70);
    program(&mut region, 66, 0x42, 1);
    msix.set_control(true, false, true);
    msix.trigger(66);
    msix.trigger(66);
    assert!(lock(&record.messages).is_empty());
    let mut high = [0; 8];
    region.mmio_read(region.pending_offset() + 8, &mut high);
    assert_eq!((pending(&mut region), high), (0, [4, 0, 0, 0, 0, 0, 0, 0]));
    program(&mut region, 66, 0x42, 0);
    assert_eq!(lock(&record.messages).len(), 1);
    msix.set_control(true, true, true);
    msix.trigger(66);
    assert_eq!(lock(&record.messages).len(), 1);
    msix.set_control(true, false, true);
    assert_eq!(lock(&record.messages).len(), 2);
    msix.set_control(true, false, false);
    msix.trigger(66);
    assert_eq!(lock(&record.messages).len(), 2, "no bus master, no message");
}

#[test]
fn the_table_reads_back_and_odd_accesses_do_nothing() {
    let (_, _, mut region) = setup(2);
    program(&mut region, 1, 0x1234_5678, 0xFFFF_FFFE);
    let mut entry = [0; 8];
    region.mmio_read(16 + 8, &mut entry);
    assert_eq!(entry, [0x78, 0x56, 0x34, 0x12, 0, 0, 0, 0]);
    region.mmio_write(17, &[0; 4]);
    region.mmio_write(16, &[0; 2]);
    region.mmio_write(region.pending_offset(), &[0xFF; 8]);
    region.mmio_read(16, &mut entry);
    assert_eq!(u64::from_le_bytes(entry), 0xFEE0_1000);
    assert_eq!(
        (region.pending_offset(), region.region_len(), pending(&mut region)),
        (0x1000, 0x1008, 0)
    );
    region.reset();
    region.mmio_read(16 + 12, &mut entry[..4]);
    assert_eq!(entry[..4], [1, 0, 0, 0]);
}
