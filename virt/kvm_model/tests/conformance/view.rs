// SPDX-License-Identifier: MIT
//! Rows 34, 37 and 38, and what a running guest sees: the scripted guest of `spec/sev.md` 4.10.

use crate::rig::*;
use kvm_model::{Finding, GuestFault, GuestStep, PageState, Side, StepResult};
use kvm_sys::{Fd, Sys};
use libc::{EFAULT, EINVAL};
use std::ptr::NonNull;

/// A launched SEV-SNP guest with one page of data at 0x1000 and a VP.
fn launched() -> (Rig, Fd, *mut u8) {
    let rig = Rig::new(SNP);
    assert_eq!(rig.start(), (0, 0));
    rig.memory.write(0x1000, &[0xAB; 4096]).unwrap();
    rig.add(0x1000, 1);
    let (vcpu, run) = rig.running_vcpu(0);
    assert_eq!(rig.finish(), (0, 0));
    (rig, vcpu, run)
}

/// A number of the run structure.
fn field(run: *mut u8, at: usize) -> u64 {
    // SAFETY: the offset lies in the run structure's three pages, and the VP is not running.
    unsafe { run.add(at).cast::<u64>().read_unaligned() }
}

fn reason(run: *mut u8) -> u32 {
    field(run, 8) as u32
}

fn answer(run: *mut u8, value: u64) {
    // SAFETY: as `field`.
    unsafe { run.add(88).cast::<u64>().write_unaligned(value) }
}

#[test]
fn row_34_pages_that_are_not_pinned_are_found() {
    let rig = Rig::bare(kvm_model::FakeHost::snp(), SEV);
    assert_eq!(rig.command(INIT2, &mut [0; 48]).0, 0);
    let (host, len) = (rig.host(0).to_le_bytes(), RAM.to_le_bytes());
    rig.pointer(
        rig.vm,
        SET_REGION,
        &mut structure::<32>(&[(16, &len), (24, &host)]),
    )
    .unwrap();
    let half = (RAM / 2).to_le_bytes();
    rig.pointer(
        rig.vm,
        REG_REGION,
        &mut structure::<16>(&[(0, &host), (8, &half)]),
    )
    .unwrap();
    assert_eq!(rig.command(2, &mut structure::<40>(&[(4, &[1])])), (0, 0));
    let (vcpu, _) = rig.running_vcpu(0);
    assert_eq!(rig.command(7, &mut [0; 8]), (0, 0));
    let read = |gpa| GuestStep::Read {
        gpa,
        len: 8,
        side: Side::Private,
    };
    rig.guest().script(0, [read(0), read(RAM / 2 - 4)]);
    assert_eq!(rig.run(vcpu), 0);
    assert_eq!(rig.model.findings(), [Finding::Unpinned { gpa: RAM / 2 }]);
}

#[test]
fn row_37_a_conversion_is_answered_with_a_known_number() {
    let (rig, vcpu, run) = launched();
    let guest = rig.guest();
    let convert = GuestStep::Convert {
        gpa: 0x4000,
        pages: 2,
        private: true,
    };
    guest.script(0, [convert.clone(), convert]);
    assert_eq!((rig.run(vcpu), reason(run)), (0, 3));
    assert_eq!([32, 40, 48, 56].map(|at| field(run, at)), [12, 0x4000, 2, 1 << 4]);
    for bad in [1, u64::MAX, -22i64 as u64] {
        answer(run, bad);
        assert_eq!(rig.run(vcpu), EINVAL, "{bad}");
    }
    answer(run, 11);
    assert_eq!((rig.run(vcpu), reason(run)), (0, 3), "the second request");
    answer(run, 0);
    assert_eq!((rig.run(vcpu), reason(run)), (0, 5));
    assert_eq!(
        guest.results(0),
        [StepResult::Answered(11), StepResult::Answered(0)]
    );
}

#[test]
fn row_37_without_the_capability_the_guest_gets_an_error() {
    let rig = Rig::bare(kvm_model::FakeHost::snp(), SNP);
    assert_eq!(rig.command(INIT2, &mut [0; 48]).0, 0);
    assert_eq!(rig.start(), (0, 0));
    let (vcpu, run) = rig.running_vcpu(0);
    assert_eq!(rig.finish(), (0, 0));
    rig.guest().script(
        0,
        [GuestStep::Convert {
            gpa: 0,
            pages: 1,
            private: false,
        }],
    );
    assert_eq!((rig.run(vcpu), reason(run)), (0, 5));
    assert_eq!(rig.guest().results(0), [StepResult::Answered(u64::MAX)]);
}

#[test]
fn row_38_a_side_that_keeps_its_memory_is_found() {
    let (rig, vcpu, _) = launched();
    assert_eq!(rig.set_private(0x1000, 0x1000, false), 0);
    assert_eq!(rig.set_private(0x4000, 0x1000, true), 0);
    assert_eq!(rig.run(vcpu), 0);
    let forgotten =
        [(0x1000, false), (0x4000, true)].map(|(gpa, private)| Finding::NotDiscarded { gpa, private });
    assert_eq!(rig.model.findings(), forgotten);
    let (rig, vcpu, _) = launched();
    assert_eq!(rig.set_private(0x1000, 0x1000, false), 0);
    rig.model.punch(rig.memfd, 0x1000, 0x1000).unwrap();
    assert_eq!(rig.set_private(0x4000, 0x1000, true), 0);
    let shared = NonNull::new(rig.host(0x4000) as *mut u8).unwrap();
    rig.memory.write(0x4000, &[1; 8]).unwrap();
    // SAFETY: a page of the test's guest memory, which nobody refers to.
    unsafe { rig.model.discard(shared, 0x1000).unwrap() };
    assert_eq!(rig.run(vcpu), 0);
    assert_eq!(rig.model.findings(), []);
    let mut after = [9; 8];
    rig.memory.read(0x4000, &mut after).unwrap();
    assert_eq!(after, [0; 8], "the memory is really given up");
}

#[test]
fn guests_see_what_was_launched_and_must_validate_the_rest() {
    let (rig, vcpu, run) = launched();
    rig.set_private(0x6000, 0x1000, true);
    // The host changes its own side after the launch: nobody cares.
    rig.memory.write(0x1000, &[0; 16]).unwrap();
    let read = |gpa, side| GuestStep::Read { gpa, len: 4, side };
    let guest = rig.guest();
    guest.script(
        0,
        [
            read(0x1FFC, Side::Private),
            read(0x6000, Side::Private),
            GuestStep::Validate {
                gpa: 0x6000,
                pages: 1,
                valid: true,
            },
            GuestStep::Write {
                gpa: 0x6002,
                bytes: vec![1, 2],
                side: Side::Private,
            },
            read(0x6000, Side::Private),
            GuestStep::Write {
                gpa: 0x7000,
                bytes: vec![5; 4],
                side: Side::Shared,
            },
            GuestStep::Halt,
            read(0x2000, Side::Private),
        ],
    );
    assert_eq!((rig.run(vcpu), reason(run)), (0, 5));
    let done = |bytes: &[u8]| StepResult::Done(bytes.to_vec());
    let expected = [
        done(&[0xAB; 4]),
        StepResult::Fault(GuestFault::NotValidated { gpa: 0x6000 }),
        done(&[]),
        done(&[]),
        done(&[0, 0, 1, 2]),
        done(&[]),
        done(&[]),
    ];
    assert_eq!(guest.results(0), expected);
    let mut shared = [0; 4];
    rig.memory.read(0x7000, &mut shared).unwrap();
    assert_eq!(shared, [5; 4]);
    assert_eq!((rig.run(vcpu), reason(run)), (EFAULT, 39), "the page is shared");
    assert_eq!([32, 40, 48].map(|at| field(run, at)), [1 << 3, 0x2000, 0x1000]);
    rig.set_private(0x2000, 0x1000, true);
    assert_eq!(
        (rig.run(vcpu), reason(run)),
        (0, 5),
        "converted and entered again"
    );
    assert_eq!(guest.page_state(0x2000), PageState::GuestInvalid);
    assert_eq!(guest.page_state(0x6000), PageState::GuestValid);
}

#[test]
fn terminations_and_early_runs_have_their_exits() {
    let rig = Rig::new(SNP);
    let (vcpu, run) = rig.running_vcpu(0);
    assert_eq!((rig.run(vcpu), reason(run)), (0, 9), "before the launch ends");
    assert_eq!(rig.start(), (0, 0));
    assert_eq!(rig.finish(), (0, 0));
    rig.guest().script(
        0,
        [GuestStep::Terminate {
            reason_set: 1,
            code: 0x23,
        }],
    );
    assert_eq!((rig.run(vcpu), reason(run)), (0, 24));
    assert_eq!([32, 40].map(|at| field(run, at)), [1 << 32 | 6, 0x23_1100]);
    // SAFETY: `immediate_exit` is byte 1 of the run structure.
    unsafe { run.add(1).write(1) };
    assert_eq!(rig.run(vcpu), libc::EINTR);
}

#[test]
fn aps_start_from_save_areas_that_the_guest_made() {
    let rig = Rig::new(SNP);
    assert_eq!(rig.start(), (0, 0));
    rig.add(0x1000, 2);
    let (vcpu, _) = rig.running_vcpu(0);
    rig.vcpu(1);
    assert_eq!(rig.finish(), (0, 0));
    let guest = rig.guest();
    let create = |gpa, features| GuestStep::CreateAp { vp: 1, gpa, features };
    guest.script(
        0,
        [
            create(0x1000, 0),
            create(0x1001, 1),
            create(0, 1),
            create(0x1000, 1),
        ],
    );
    assert_eq!(rig.run(vcpu), 0);
    let refused = StepResult::Answered(EINVAL as u64);
    let denied = StepResult::Fault(GuestFault::Denied { gpa: 0x1000 });
    assert_eq!(
        guest.results(0),
        [refused.clone(), refused.clone(), refused, denied]
    );
    guest.write(0x1178, &[0x77], Side::Private).unwrap();
    guest.rmpadjust(0x1000, 1, 0, true).unwrap();
    assert!(guest.rmp(0x1000).unwrap().save_area);
    guest.script(0, [create(0x1000, 1)]);
    assert_eq!(rig.run(vcpu), 0);
    assert_eq!(guest.results(0).last(), Some(&StepResult::Answered(0)));
    assert_eq!(guest.save_area(1).unwrap()[0x178], 0x77);
    assert_eq!(guest.save_area(0).unwrap()[0x178..0x17A], [0xF0, 0xFF]);
}

#[test]
fn save_areas_of_es_guests_are_noise_to_the_host_and_whole_to_the_processor() {
    let rig = Rig::new(SEV_ES);
    assert_eq!(rig.command(2, &mut structure::<40>(&[(4, &[5])])), (0, 0));
    rig.vcpu(0);
    assert_eq!(rig.command(4, &mut [0; 8]), (0, 0));
    let area = rig.guest().save_area(0).unwrap();
    assert_eq!(
        (area[0xD1], area[0x12], area[0x310], area[0x311]),
        (0x10, 0x9A, 0, 6)
    );
    assert_eq!(rig.command(7, &mut [0; 8]), (0, 0));
    use sha2::Digest;
    assert_eq!(rig.launched().digest, sha2::Sha256::digest(&area[..]).to_vec());
}

#[test]
fn special_pages_hold_what_the_firmware_put_there() {
    let rig = Rig::new(SNP);
    assert_eq!(rig.start(), (0, 0));
    rig.set_private(0, RAM, true);
    rig.memory.write(0x1000, &[7; 4096]).unwrap();
    rig.memory.write(0x2000, &[7; 4096]).unwrap();
    for (gpa, kind) in [(0x1000, SECRETS), (0x2000, ZERO), (0x3000, UNMEASURED)] {
        assert_eq!(rig.update(gpa, 4096, kind), (0, 0, 0));
    }
    assert_eq!(rig.finish(), (0, 0));
    let guest = rig.guest();
    let read = |gpa| {
        let mut bytes = [0; 64];
        guest.read(gpa, &mut bytes, Side::Private).unwrap();
        bytes
    };
    let secrets = read(0x1000);
    assert_eq!(secrets[..4], [3, 0, 0, 0]);
    assert_ne!(secrets[0x20..0x40], [0; 32], "a key");
    assert_eq!(read(0x2000), [0; 64]);
    let runs: Vec<_> = guest
        .pages()
        .iter()
        .map(|run| (run.gpa, run.len, run.state))
        .collect();
    let expected = [
        (0, 0x1000, PageState::PrivateUnassigned),
        (0x1000, 0x3000, PageState::GuestValid),
        (0x4000, RAM - 0x4000, PageState::PrivateUnassigned),
    ];
    assert_eq!(runs, expected);
    assert_eq!(guest.rmp(0x3000).unwrap().permissions, [0xF, 0, 0, 0]);
}
