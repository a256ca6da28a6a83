// SPDX-License-Identifier: MIT
//! Rows 26 to 32: the launch of SEV and SEV-ES.

use crate::rig::*;
use kvm_model::{FakeHost, Side};
use launch_digest::{MeasureContext, launch_measure};
use libc::{EINVAL, EIO, ENOMEM, ENOTTY};

const START: u32 = 2;
const UPDATE: u32 = 3;
const VMSA: u32 = 4;
const SECRET: u32 = 5;
const MEASURE: u32 = 6;
const FINISH: u32 = 7;
const STATUS: u32 = 16;

fn start(rig: &Rig, policy: u32) -> (i32, u32) {
    rig.command(START, &mut structure::<40>(&[(4, &policy.to_le_bytes())]))
}

fn started(vm_type: u64) -> Rig {
    let rig = Rig::new(vm_type);
    assert_eq!(start(&rig, if vm_type == SEV { 1 } else { 5 }), (0, 0));
    rig
}

fn update(rig: &Rig, gpa: u64, len: u32) -> (i32, u32) {
    rig.command(
        UPDATE,
        &mut structure::<16>(&[(0, &rig.host(gpa).to_le_bytes()), (8, &len.to_le_bytes())]),
    )
}

/// LAUNCH_MEASURE with room for `room` bytes: what it answered, the length, the measurement.
fn measure(rig: &Rig, room: u32) -> ((i32, u32), u32, [u8; 48]) {
    let mut blob = vec![0u8; room.max(48) as usize];
    let at = (blob.as_mut_ptr() as u64).to_le_bytes();
    let mut argument = structure::<16>(&[(0, &at), (8, &room.to_le_bytes())]);
    let answer = rig.command(MEASURE, &mut argument);
    let len = u32::from_le_bytes(argument[8..12].try_into().unwrap());
    (answer, len, blob[..48].try_into().unwrap())
}

fn state(rig: &Rig) -> u32 {
    let mut status = [0; 12];
    assert_eq!(rig.command(STATUS, &mut status), (0, 0));
    u32::from_le_bytes(status[8..].try_into().unwrap())
}

fn digest(rig: &Rig) -> Vec<u8> {
    assert_eq!(rig.command(FINISH, &mut [0; 8]), (0, 0));
    rig.launched().digest
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).to_vec()
}

#[test]
fn policies_that_the_firmware_cannot_keep_are_refused() {
    let rig = Rig::new(SEV);
    for (policy, code) in [(1 | 2 << 16, 7), (1 | 1 << 16 | 56 << 24, 7), (5, 0x0D)] {
        assert_eq!(start(&rig, policy), (EIO, code), "{policy:#x}");
    }
    assert_eq!(
        start(&Rig::new(SEV_ES), 1),
        (EIO, 0x0D),
        "an ES guest needs the ES bit"
    );
    assert_eq!(start(&rig, 1), (0, 0));
    assert_eq!(start(&rig, 1), (EIO, 0x0C), "the ASID is owned");
    let mut shared = structure::<40>(&[(0, &[77]), (4, &[1])]);
    assert_eq!(Rig::new(SEV).command(START, &mut shared), (EIO, 0x10));
}

#[test]
fn row_26_data_after_the_measurement_is_refused() {
    let rig = started(SEV);
    assert_eq!((update(&rig, 0, 0x1000), state(&rig)), ((0, 0), 1));
    assert_eq!(measure(&rig, 48).0, (0, 0));
    assert_eq!(state(&rig), 2);
    let mut before = [0; 16];
    rig.memory.read(0x1000, &mut before).unwrap();
    assert_eq!(update(&rig, 0x1000, 0x1000), (EIO, 2));
    let mut after = [0; 16];
    rig.memory.read(0x1000, &mut after).unwrap();
    assert_eq!(before, after);
    assert_eq!(digest(&rig), sha256(&[0; 0x1000]));
    assert_eq!(state(&rig), 3);
    for id in [UPDATE, MEASURE, FINISH] {
        let mut data = structure::<16>(&[(0, &rig.host(0).to_le_bytes()), (8, &[48])]);
        assert_eq!(rig.command(id, &mut data), (EIO, 2), "{id}");
    }
}

#[test]
fn row_27_data_is_aligned_to_16_bytes() {
    let rig = started(SEV);
    assert_eq!(update(&rig, 8, 16), (EIO, 9));
    assert_eq!(update(&rig, 0, 8), (EIO, 4));
    assert_eq!(update(&rig, 0, 0).0, EINVAL);
    let mut unmapped = structure::<16>(&[(0, &4096u64.to_le_bytes()), (8, &[16])]);
    assert_eq!(rig.command(UPDATE, &mut unmapped).0, ENOMEM);
    assert_eq!(digest(&rig), sha256(&[]));
}

#[test]
fn row_27_the_part_before_a_failure_stays_encrypted_and_hashed() {
    let rig = started(SEV);
    assert_eq!(update(&rig, 0, 0x1008), (EIO, 4));
    assert_eq!(digest(&rig), sha256(&[0; 0x1000]));
}

#[test]
fn row_28_data_submitted_twice_is_noise_the_second_time() {
    let rig = started(SEV);
    rig.memory.write(0x2000, &[0x5A; 0x1000]).unwrap();
    assert_eq!(update(&rig, 0x2000, 0x1000), (0, 0));
    let mut noise = [0; 0x1000];
    rig.memory.read(0x2000, &mut noise).unwrap();
    assert_ne!(noise, [0x5A; 0x1000]);
    assert_ne!(noise[..16], noise[16..32], "equal blocks look different");
    assert_eq!(update(&rig, 0x2000, 0x1000), (0, 0));
    let digest = digest(&rig);
    assert_ne!(digest, sha256(&[0x5A; 0x2000]));
    assert_eq!(digest, sha256(&[vec![0x5A; 0x1000], noise.to_vec()].concat()));
    let mut seen = [0; 16];
    rig.guest().read(0x2000, &mut seen, Side::Private).unwrap();
    assert_eq!(seen, noise[..16], "the guest sees what was encrypted last");
}

#[test]
fn row_29_a_host_write_corrupts_what_the_guest_sees() {
    let rig = started(SEV);
    rig.memory.write(0x3000, &[7; 64]).unwrap();
    assert_eq!(update(&rig, 0x3000, 0x1000), (0, 0));
    let seen = |gpa| {
        let mut bytes = [0; 16];
        rig.guest().read(gpa, &mut bytes, Side::Private).unwrap();
        bytes
    };
    assert_eq!((seen(0x3000), seen(0x3010)), ([7; 16], [7; 16]));
    rig.memory.write(0x3001, &[8]).unwrap();
    assert_ne!(seen(0x3000), [7; 16]);
    assert_eq!(seen(0x3010), [7; 16], "other blocks are not touched");
}

#[test]
fn row_30_the_length_of_a_measurement_can_be_asked_for() {
    let rig = started(SEV);
    let (answer, len, _) = measure(&rig, 0);
    assert_eq!((answer, len), ((EIO, 4), 48));
    let (answer, len, _) = measure(&rig, 47);
    assert_eq!((answer, len), ((EIO, 4), 47), "no write-back for a short one");
    assert_eq!(measure(&rig, 0x4001).0.0, EINVAL);
    let (answer, len, blob) = measure(&rig, 256);
    assert_eq!((answer, len), ((0, 0), 48));
    assert_ne!(blob, [0; 48]);
    assert_eq!(measure(&rig, 48).0, (0, 0), "the model's choice");
    let mut host = FakeHost::snp();
    host.assumptions.measure_repeats = false;
    let once = Rig::on(host, SEV);
    assert_eq!(start(&once, 1), (0, 0));
    assert_eq!((measure(&once, 48).0, measure(&once, 48).0), ((0, 0), (EIO, 2)));
}

/// A guest with an owner: the measurement's HMAC holds, and the owner's secret arrives.
#[test]
fn row_31_a_secret_reaches_the_guest_that_was_measured() {
    for (host, vm_type, policy, api, build) in [
        (FakeHost::snp(), SEV, 1u32, (1, 55), 24),
        (FakeHost::sev_es(), SEV_ES, 5, (0, 24), 15),
    ] {
        let rig = Rig::on(host, vm_type);
        let session = rig.model.session(policy, b"owner");
        let [certificate, blob] =
            [&session.certificate, &session.session].map(|b| (b.as_ptr() as u64).to_le_bytes());
        let mut argument = structure::<40>(&[
            (4, &policy.to_le_bytes()),
            (8, &certificate),
            (16, &(session.certificate.len() as u32).to_le_bytes()),
            (24, &blob),
            (32, &(session.session.len() as u32).to_le_bytes()),
        ]);
        assert_eq!(rig.command(START, &mut argument), (0, 0));
        rig.memory.write(0, b"measured").unwrap();
        assert_eq!(update(&rig, 0, 16), (0, 0));
        let send = |packet: &kvm_model::SecretPacket, gpa: u64| {
            let [header, transport] =
                [packet.header.as_ptr(), packet.transport.as_ptr()].map(|p| (p as u64).to_le_bytes());
            let len = (packet.transport.len() as u32).to_le_bytes();
            let target = rig.host(gpa).to_le_bytes();
            let mut argument = structure::<48>(&[
                (0, &header),
                (8, &[52]),
                (16, &target),
                (24, &len),
                (32, &transport),
                (40, &len),
            ]);
            rig.command(SECRET, &mut argument)
        };
        let early = session.secret(&[1; 32], &[0; 32]);
        assert_eq!(send(&early, 0x8000), (EIO, 2), "before the measurement");
        let ((errno, error), _, measurement) = measure(&rig, 48);
        assert_eq!((errno, error), (0, 0));
        let mut plain = [0; 16];
        plain[..8].copy_from_slice(b"measured");
        let context = MeasureContext {
            api,
            build,
            policy,
            mnonce: measurement[32..].try_into().unwrap(),
        };
        assert_eq!(
            launch_measure(&session.tik, &context, &sha256(&plain).try_into().unwrap()),
            measurement
        );
        let packet = session.secret(
            b"swordfish swordfish swordfish 32",
            measurement[..32].try_into().unwrap(),
        );
        let mut wrong = packet.clone();
        wrong.transport[3] ^= 1;
        assert_eq!(send(&wrong, 0x8000), (EIO, 0x0B));
        assert_eq!(send(&early, 0x8000), (EIO, 0x0B), "for another measurement");
        assert_eq!(send(&packet, 0x8FF0).0, EINVAL, "across pages");
        assert_eq!(send(&packet, 0x8000), (0, 0));
        assert_eq!(rig.command(FINISH, &mut [0; 8]), (0, 0));
        let mut seen = [0; 32];
        rig.guest().read(0x8000, &mut seen, Side::Private).unwrap();
        assert_eq!(&seen, b"swordfish swordfish swordfish 32");
    }
}

#[test]
fn sessions_for_another_policy_or_with_bad_lengths_are_refused() {
    let rig = Rig::new(SEV);
    let session = rig.model.session(3, b"owner");
    let [certificate, blob] =
        [&session.certificate, &session.session].map(|b| (b.as_ptr() as u64).to_le_bytes());
    let with = |policy: u32, certificate_len: u32, session_len: u32| {
        let mut argument = structure::<40>(&[
            (4, &policy.to_le_bytes()),
            (8, &certificate),
            (16, &certificate_len.to_le_bytes()),
            (24, &blob),
            (32, &session_len.to_le_bytes()),
        ]);
        rig.command(START, &mut argument)
    };
    assert_eq!(
        (with(3, 0, 128).0, with(3, 0x4001, 128).0, with(3, 0x824, 0).0),
        (EINVAL, EINVAL, EINVAL)
    );
    assert_eq!(with(3, 0x824, 127), (EIO, 4));
    assert_eq!(with(1, 0x824, 128), (EIO, 7));
    assert_eq!(with(3, 0x824, 128), (0, 0));
}

#[test]
fn row_32_plain_sev_has_no_save_areas() {
    let rig = started(SEV);
    rig.vcpu(0);
    assert_eq!(rig.command(VMSA, &mut [0; 8]), (ENOTTY, UNTOUCHED));
    let es = started(SEV_ES);
    es.vcpu(0);
    assert_eq!(es.command(VMSA, &mut [0; 8]), (0, 0));
    assert_eq!(es.command(VMSA, &mut [0; 8]).0, EINVAL, "sealed already");
}

#[test]
fn debug_commands_obey_the_policy() {
    let [closed, open] = [1u32, 0].map(|policy| {
        let rig = Rig::new(SEV);
        assert_eq!(start(&rig, policy), (0, 0));
        rig.memory.write(0, &[3; 32]).unwrap();
        assert_eq!(update(&rig, 0, 32), (0, 0));
        let addresses = [0, 0x4000].map(|gpa| rig.host(gpa).to_le_bytes());
        let mut debug = structure::<24>(&[(0, &addresses[0]), (8, &addresses[1]), (16, &[32])]);
        let answer = rig.command(17, &mut debug);
        let mut copied = [0; 32];
        rig.memory.read(0x4000, &mut copied).unwrap();
        (answer, copied)
    });
    assert_eq!(closed, ((EIO, 7), [0; 32]));
    assert_eq!(open, ((0, 0), [3; 32]));
}
