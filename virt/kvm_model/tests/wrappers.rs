// SPDX-License-Identifier: MIT
//! The wrappers of `kvm_sys` over the model: a launch, and a guest that runs, converts memory and gives up.

use guest_memory::GuestMemory;
use kvm_model::{FakeHost, Fault, GuestStep, ModelSys, PageState, Side, StepResult};
use kvm_sys::{
    Converted, Exit, FirmwareVersion, Handle, Node, SnpFinish, SnpPageType, Sys, System, Vcpu, Vm, VmType,
};
use std::sync::Arc;

const EXIT_HYPERCALL: u32 = 201;
const RAM: [(u64, u64); 2] = [(0, 0x4000), (0x4000, 0x10_0000)];

/// KVM takes pages from page boundaries only.
#[repr(align(4096))]
struct Page([u8; 4096]);

/// A launched SEV-SNP guest whose page 0x1000 holds sevens.
fn launched(model: &Arc<ModelSys>) -> (Arc<Vm>, Vcpu, Handle) {
    let sys: Arc<dyn Sys> = model.clone();
    let system = System::open(sys.clone()).unwrap();
    let sev = Handle::open(sys, Node::Sev).unwrap();
    let memory = GuestMemory::allocate(&RAM).unwrap();
    let vm = system.create_vm(VmType::Snp, &memory).unwrap();
    vm.enable_cap(EXIT_HYPERCALL, 1 << 12).unwrap();
    let commands = vm.sev(&sev);
    commands.init2(0).unwrap();
    vm.map_private_memory().unwrap();
    commands.snp_launch_start(0x3_0000).unwrap();
    let vcpu = Vcpu::new(&vm, 0).unwrap();
    vm.set_private(0x1000, 0x1000, true).unwrap();
    let mut page = Page([7; 4096]);
    assert_eq!(
        commands
            .snp_launch_update(0x1000, SnpPageType::Normal, &mut page.0)
            .unwrap(),
        4096
    );
    let finish = SnpFinish {
        id_block: None,
        author_key: false,
        host_data: [0; 32],
    };
    commands.snp_launch_finish(&finish).unwrap();
    (vm, vcpu, sev)
}

#[test]
fn a_guest_converts_memory_on_both_sides_of_a_region_end() {
    let model = ModelSys::new(FakeHost::snp());
    let (vm, mut vcpu, _sev) = launched(&model);
    let guest = model.guest(1).unwrap();
    vm.memory().write(0x3000, b"shared").unwrap();
    let convert = |private| GuestStep::Convert {
        gpa: 0x3000,
        pages: 2,
        private,
    };
    guest.script(
        0,
        [
            convert(true),
            GuestStep::Validate {
                gpa: 0x3000,
                pages: 2,
                valid: true,
            },
            GuestStep::Write {
                gpa: 0x3FFE,
                bytes: b"over".to_vec(),
                side: Side::Private,
            },
            convert(false),
            GuestStep::Read {
                gpa: 0x3000,
                len: 6,
                side: Side::Shared,
            },
        ],
    );
    for wanted in [true, false] {
        let Exit::Convert {
            gpa,
            pages,
            private,
            reply,
        } = vcpu.run().unwrap()
        else {
            panic!("no conversion was asked for");
        };
        assert_eq!((gpa, pages, private), (0x3000, 2, wanted));
        vm.convert(gpa, pages * 4096, private).unwrap();
        reply.answer(Converted::Done);
        let state = if wanted {
            PageState::PrivateUnassigned
        } else {
            PageState::Shared
        };
        assert_eq!([0x3000, 0x4000].map(|gpa| guest.page_state(gpa)), [state; 2]);
    }
    assert!(matches!(vcpu.run().unwrap(), Exit::Hlt));
    let done = |bytes: &[u8]| StepResult::Done(bytes.to_vec());
    let answered = StepResult::Answered(0);
    let expected = [answered.clone(), done(&[]), done(&[]), answered, done(&[0; 6])];
    assert_eq!(guest.results(0), expected, "what was shared before is gone");
    assert_eq!(model.findings(), [], "no side kept its memory");
}

#[test]
fn refused_and_postponed_conversions_reach_the_guest() {
    let model = ModelSys::new(FakeHost::snp());
    let (_vm, mut vcpu, _sev) = launched(&model);
    let guest = model.guest(1).unwrap();
    let convert = GuestStep::Convert {
        gpa: 0x8000,
        pages: 1,
        private: true,
    };
    guest.script(0, [convert.clone(), convert]);
    for converted in [Converted::Refused, Converted::Later] {
        let Exit::Convert { reply, .. } = vcpu.run().unwrap() else {
            panic!("no conversion was asked for");
        };
        reply.answer(converted);
    }
    assert!(matches!(vcpu.run().unwrap(), Exit::Hlt));
    let answers = [libc::EINVAL, libc::EAGAIN].map(|errno| StepResult::Answered(errno as u64));
    assert_eq!(guest.results(0), answers);
}

#[test]
fn memory_faults_and_terminations_are_decoded() {
    let model = ModelSys::new(FakeHost::snp());
    let (vm, mut vcpu, _sev) = launched(&model);
    let guest = model.guest(1).unwrap();
    guest.script(
        0,
        [
            GuestStep::Read {
                gpa: 0x1234,
                len: 2,
                side: Side::Shared,
            },
            GuestStep::Terminate {
                reason_set: 0,
                code: 2,
            },
        ],
    );
    let exit = vcpu.run().unwrap();
    assert!(
        matches!(
            exit,
            Exit::MemoryFault {
                gpa: 0x1000,
                len: 0x1000,
                private: false
            }
        ),
        "{exit:?}"
    );
    vm.convert(0x1000, 0x1000, false).unwrap();
    let exit = vcpu.run().unwrap();
    assert!(matches!(exit, Exit::SevTerminated { ghcb: 0x2_0100 }), "{exit:?}");
    assert_eq!(
        guest.results(0)[0],
        StepResult::Done(vec![0, 0]),
        "the launched page is gone"
    );
}

#[test]
fn nothing_is_left_when_everything_is_dropped() {
    let model = ModelSys::new(FakeHost::snp());
    let (vm, vcpu, sev) = launched(&model);
    assert!(vm.convert(0x10_4000, 0x1000, true).is_err(), "outside RAM");
    drop((vm, sev));
    assert_eq!(model.firmware_guests(), 1, "the VP keeps the VM");
    drop(vcpu);
    let left = (
        model.open_descriptors(),
        model.live_mappings(),
        model.firmware_guests(),
        model.assigned_pages(),
    );
    assert_eq!(left, (0, 0, 0, 0));
}

#[test]
fn the_firmware_tells_its_version_unless_it_is_dead() {
    for (host, major, minor, build) in [(FakeHost::snp(), 1, 55, 24), (FakeHost::sev_es(), 0, 24, 15)] {
        let model = ModelSys::new(host);
        let sev = Handle::open(model.clone(), Node::Sev).unwrap();
        assert_eq!(
            FirmwareVersion::read(&sev).unwrap(),
            FirmwareVersion { major, minor, build }
        );
        model.inject("SEV_ISSUE_CMD", 1, Fault::PspDead);
        assert_eq!(
            FirmwareVersion::read(&sev).unwrap_err().errno(),
            Some(libc::EBUSY)
        );
    }
}
