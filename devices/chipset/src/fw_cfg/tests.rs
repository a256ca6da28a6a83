// SPDX-License-Identifier: MIT

use super::*;
use guest_memory::GuestMemory;

const RAM: u64 = 0x20_0000;

fn device() -> (FwCfg, GuestMemory) {
    let memory = GuestMemory::allocate(&[(0, RAM)]).unwrap();
    (FwCfg::new(memory.dma()), memory)
}

fn by_port(device: &mut FwCfg, key: u16, len: usize) -> Vec<u8> {
    device.port_write(SELECTOR, &key.to_le_bytes());
    let mut bytes = vec![0xEE; len];
    for byte in bytes.chunks_mut(1) {
        device.port_read(DATA, byte);
    }
    bytes
}

/// Runs one descriptor at 0x1000 and gives its control word back.
fn by_dma(device: &mut FwCfg, memory: &GuestMemory, control: u32, len: u32, to: u64) -> u32 {
    let mut descriptor = control.to_be_bytes().to_vec();
    descriptor.extend_from_slice(&len.to_be_bytes());
    descriptor.extend_from_slice(&to.to_be_bytes());
    memory.write(0x1000, &descriptor).unwrap();
    device.port_write(DMA_HIGH, &0u32.to_be_bytes());
    device.port_write(DMA_LOW, &0x1000u32.to_be_bytes());
    let mut result = [0; 4];
    memory.read(0x1000, &mut result).unwrap();
    u32::from_be_bytes(result)
}

fn select(key: u16) -> u32 {
    u32::from(key) << 16 | DMA_SELECT
}

#[test]
fn signature_and_features_are_read_by_port_and_end_in_zeros() {
    let (mut device, _) = device();
    assert_eq!(by_port(&mut device, key::SIGNATURE, 6), b"QEMU\0\0");
    assert_eq!(by_port(&mut device, key::ID, 4), [3, 0, 0, 0]);
    assert_eq!(by_port(&mut device, 0x3333, 2), [0, 0]);
    let mut dma = [0; 4];
    device.port_read(DMA_LOW, &mut dma);
    assert_eq!(&dma, b" CFG");
}

#[test]
fn directory_lists_files_with_big_endian_sizes_and_keys() {
    let (mut device, _) = device();
    device.add_file("etc/one", vec![1, 2, 3]).unwrap();
    device.add_file("bootorder", vec![9; 300]).unwrap();
    let bytes = by_port(&mut device, key::DIRECTORY, 4 + 2 * 64);
    assert_eq!(bytes[..4], [0, 0, 0, 2]);
    assert_eq!(bytes[4..12], [0, 0, 0, 3, 0, 0x20, 0, 0]);
    assert_eq!(bytes[12..20], *b"etc/one\0");
    assert_eq!(bytes[68..76], [0, 0, 1, 44, 0, 0x21, 0, 0]);
    assert_eq!(by_port(&mut device, 0x20, 4), [1, 2, 3, 0]);
}

#[test]
fn dma_selects_skips_and_reads_with_zeros_behind_the_end() {
    let (mut device, memory) = device();
    device.add_file("data", (0..10).collect()).unwrap();
    assert_eq!(by_dma(&mut device, &memory, select(0x20) | DMA_SKIP, 7, 0), 0);
    memory.write(0x5000, &[0xEE; 8]).unwrap();
    assert_eq!(by_dma(&mut device, &memory, DMA_READ, 6, 0x5000), 0);
    let mut got = [0; 8];
    memory.read(0x5000, &mut got).unwrap();
    assert_eq!(got, [7, 8, 9, 0, 0, 0, 0xEE, 0xEE]);
}

#[test]
fn large_items_arrive_whole_in_one_transfer() {
    let (mut device, memory) = device();
    let item: Vec<u8> = (0..3 * CHUNK + 5).map(|i| (i % 251) as u8).collect();
    device.set(key::KERNEL_DATA, item.clone()).unwrap();
    let len = item.len() as u32;
    assert_eq!(
        by_dma(
            &mut device,
            &memory,
            select(key::KERNEL_DATA) | DMA_READ,
            len,
            0x8000
        ),
        0
    );
    let mut got = vec![0; item.len()];
    memory.read(0x8000, &mut got).unwrap();
    assert!(got == item);
}

#[test]
fn transfers_outside_ram_and_writes_report_an_error_and_move_nothing() {
    let (mut device, memory) = device();
    device.add_file("data", vec![7; 64]).unwrap();
    memory.write(RAM - 8, &[0xEE; 8]).unwrap();
    for (control, to) in [
        (DMA_READ, RAM - 8),
        (DMA_READ, u64::MAX - 3),
        (DMA_READ, 1 << 40),
        (DMA_WRITE, 0x5000),
    ] {
        assert_eq!(
            by_dma(&mut device, &memory, select(0x20) | control, 64, to),
            DMA_ERROR
        );
    }
    let mut got = [0; 8];
    memory.read(RAM - 8, &mut got).unwrap();
    assert_eq!(got, [0xEE; 8]);
}

#[test]
fn generated_files_are_renewed_together_when_selected_and_keep_their_size() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU8, Ordering};
    let (mut device, _) = device();
    let state = Arc::new(AtomicU8::new(1));
    let now = state.clone();
    let make = Box::new(move || {
        let value = now.load(Ordering::Relaxed);
        vec![vec![value; 2], vec![value; usize::from(value)]]
    });
    device
        .add_generated(&["a", "b"], vec![vec![0; 2], vec![0; 4]], make)
        .unwrap();
    assert_eq!(by_port(&mut device, 0x21, 4), [1, 0, 0, 0]);
    state.store(3, Ordering::Relaxed);
    assert_eq!(by_port(&mut device, 0x20, 2), [3, 3]);
    assert_eq!(by_port(&mut device, 0x21, 5), [3, 3, 3, 0, 0]);
}

#[test]
fn names_that_do_not_fit_or_repeat_are_refused() {
    let (mut device, _) = device();
    device.add_file("x", vec![]).unwrap();
    assert_eq!(device.add_file("x", vec![]), Err(FwCfgError::Twice("x".into())));
    let long = "n".repeat(56);
    assert_eq!(device.add_file(&long, vec![]), Err(FwCfgError::Name(long)));
}

#[test]
fn reset_forgets_the_selection() {
    let (mut device, _) = device();
    device.add_file("data", vec![5; 8]).unwrap();
    by_port(&mut device, 0x20, 3);
    device.reset();
    let mut byte = [0];
    device.port_read(DATA, &mut byte);
    assert_eq!(byte, *b"Q");
}
