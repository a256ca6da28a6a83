// SPDX-License-Identifier: MIT
//! Random requests: whatever the structures say, the model answers, and is whole afterwards.
//!
//! Addresses are null, one that is not mapped, or the guest's own RAM, so that nothing else is written.

use crate::rig::*;
use kvm_model::FakeHost;
use kvm_sys::{Fd, Sys};

/// Requests with a structure, and its length.
const REQUESTS: [(u32, usize); 20] = [
    (SET_REGION, 32),
    (SET_REGION2, 160),
    (SET_REGS, 144),
    (SET_SREGS, 312),
    (SET_GUEST_DEBUG, 72),
    (SET_DEBUGREGS, 128),
    (ENABLE_CAP, 104),
    (SET_XSAVE, 4096),
    (REG_REGION, 16),
    (UNREG_REGION, 16),
    (SET_ATTRIBUTES, 32),
    (CREATE_MEMFD, 64),
    (GET_REGS, 144),
    (GET_SREGS, 312),
    (0x4018_AEE2, 24),
    (0xC010_5300, 16),
    (0x4188_AEA7, 392),
    (0x4008_AE89, 4096 + 8),
    (0xC008_AE88, 4096 + 8),
    (0x4008_AE90, 8 + 40 * 256),
];

struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % below
    }

    /// A structure of words that mean something to one request or another.
    fn structure(&mut self, len: usize, rig: &Rig) -> Vec<u8> {
        let words = [
            0,
            1,
            2,
            4,
            8,
            1 << 12,
            1 << 20,
            RAM - 0x1000,
            RAM,
            1 << 63,
            u64::MAX,
            !0xFFF,
            POLICY,
            rig.host(0),
            1 << 32 | 7,
            u64::from(rig.memfd.0 as u32),
        ];
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let word = words[self.next(words.len())];
            let mut take = [1, 2, 4, 8][self.next(4)];
            if word == rig.host(0) {
                // Whole and where addresses stand, so that no other address comes of it.
                bytes.resize(bytes.len().next_multiple_of(8), 0);
                take = 8;
            }
            bytes.extend_from_slice(&word.to_le_bytes()[..take]);
            if self.next(3) > 0 {
                bytes.resize(bytes.len().next_multiple_of(8), 0);
            }
        }
        bytes.truncate(len);
        bytes
    }
}

#[test]
fn random_requests_are_all_answered() {
    let mut numbers = Numbers(7);
    for round in 0..60u64 {
        let vm_type = [0, SEV, SEV_ES, SNP][numbers.next(4)];
        let rig = Rig::on(FakeHost::snp(), vm_type);
        let mut descriptors = vec![rig.kvm, rig.sev, rig.vm, rig.memfd, Fd(-1)];
        for _ in 0..200 {
            let fd = descriptors[numbers.next(descriptors.len())];
            match numbers.next(8) {
                0 => {
                    let value = numbers.next(5) as u64;
                    let request = [CREATE_VM, CREATE_VCPU, RUN, 0xAE03][numbers.next(4)];
                    let answer = rig.model.ioctl_value(fd, number(request), value);
                    if let (Ok(new), CREATE_VM | CREATE_VCPU) = (answer, request) {
                        descriptors.push(Fd(new));
                    }
                }
                1..=3 => {
                    let (request, len) = REQUESTS[numbers.next(REQUESTS.len())];
                    let mut argument = numbers.structure(len, &rig);
                    if request == 0xC010_5300 || request == 0x4018_AEE2 {
                        let addresses = if request == 0xC010_5300 { 4..12 } else { 16..24 };
                        argument[addresses].copy_from_slice(&rig.host(0).to_le_bytes());
                    }
                    let _answer = rig.pointer(fd, request, &mut argument);
                }
                _ => {
                    let id = [0, 1, 2, 3, 4, 5, 6, 7, 16, 20, 22, 100, 101, 102, 103][numbers.next(15)];
                    let mut data = numbers.structure(96, &rig);
                    let _answer = rig.command(id, &mut data);
                }
            }
        }
        descriptors.into_iter().for_each(|fd| rig.model.close(fd));
        assert_eq!(rig.model.firmware_guests(), 0, "round {round}");
        let memory_is_there = rig.memory.write(RAM - 8, &[1; 8]);
        assert!(memory_is_there.is_ok());
    }
}
