// SPDX-License-Identifier: MIT
//! Exits that no guest on this machine can cause.

use super::*;
use chipset_device::VpEvents;
use std::sync::Mutex;

#[derive(Default)]
struct Ports(Mutex<Vec<Vec<u8>>>);

impl VpBus for Ports {
    fn port_read(&self, _: VpIndex, port: u16, data: &mut [u8]) {
        let mut log = self.0.lock().unwrap();
        log.push(port.to_le_bytes().to_vec());
        data.fill(log.len() as u8);
    }
    fn port_write(&self, _: VpIndex, _: u16, data: &[u8]) {
        self.0.lock().unwrap().push(data.to_vec());
    }
    fn mmio_read(&self, _: VpIndex, _: u64, data: &mut [u8]) {
        chipset_device::unclaimed(data);
    }
    fn mmio_write(&self, _: VpIndex, _: u64, _: &[u8]) {}
    fn msr_read(&self, _: VpIndex, _: u32) -> Option<u64> {
        None
    }
    fn msr_write(&self, _: VpIndex, _: u32, _: u64) -> bool {
        false
    }
    fn poll(&self, _: VpIndex) -> VpEvents {
        VpEvents::default()
    }
    fn acknowledge(&self, _: VpIndex) -> Option<u8> {
        None
    }
    fn cr8(&self, _: VpIndex) -> u8 {
        0
    }
    fn set_cr8(&self, _: VpIndex, _: u8) {}
}

fn reason(exit: Exit<'_>) -> String {
    match answer(&Ports::default(), 0, exit) {
        After::Unrunnable(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn repeated_port_accesses_are_single_accesses_to_the_device() {
    let bus = Ports::default();
    let exit = Exit::PortOut {
        port: 1,
        size: 2,
        data: &[1, 2, 3, 4],
    };
    assert!(matches!(answer(&bus, 0, exit), After::Unfinished));
    assert_eq!(
        bus.0.lock().unwrap().drain(..).collect::<Vec<_>>(),
        [[1, 2], [3, 4]]
    );
    let mut data = [0; 3];
    answer(
        &bus,
        0,
        Exit::PortIn {
            port: 1,
            size: 1,
            data: &mut data,
        },
    );
    assert_eq!(data, [1, 2, 3]);
}

#[test]
fn a_refused_entry_names_the_hardware_reason() {
    let text = reason(Exit::FailEntry {
        reason: 0x8000_0021,
        cpu: 3,
    });
    assert!(
        text.starts_with("host processor 3 refused to enter the guest (hardware reason 0x80000021)"),
        "{text}"
    );
}

#[test]
fn internal_errors_are_explained() {
    let text = reason(Exit::InternalError {
        suberror: 3,
        data: vec![0x80000B0E],
    });
    assert!(
        text.contains("internal error 3 (an exit interrupted the delivery of an event"),
        "{text}"
    );
    assert!(text.contains("0x80000b0e"), "{text}");
}

#[test]
fn memory_faults_and_unknown_exits_say_where_or_what() {
    let text = reason(Exit::MemoryFault {
        gpa: 0x5000,
        len: 0x1000,
        private: false,
    });
    assert_eq!(
        text,
        "shared memory at gpa 0x5000 (0x1000 bytes) cannot be reached"
    );
    assert!(reason(Exit::Other(27)).ends_with("Other(27)"));
}
