// SPDX-License-Identifier: MIT
//! Raw requests on a fresh model, without any wrapper of `kvm_sys`: numbers and offsets are literal here.

use guest_memory::GuestMemory;
use kvm_model::{FakeHost, Guest, LaunchRecord, ModelSys};
use kvm_sys::{Fd, Node, Number, Sys};
use std::sync::Arc;

pub(crate) const SEV: u64 = 2;
pub(crate) const SEV_ES: u64 = 3;
pub(crate) const SNP: u64 = 4;

pub(crate) const CREATE_VM: u32 = 0xAE01;
pub(crate) const CREATE_VCPU: u32 = 0xAE41;
pub(crate) const RUN: u32 = 0xAE80;
pub(crate) const SET_REGION: u32 = 0x4020_AE46;
pub(crate) const SET_REGION2: u32 = 0x40A0_AE49;
pub(crate) const GET_REGS: u32 = 0x8090_AE81;
pub(crate) const SET_REGS: u32 = 0x4090_AE82;
pub(crate) const GET_SREGS: u32 = 0x8138_AE83;
pub(crate) const SET_SREGS: u32 = 0x4138_AE84;
pub(crate) const SET_GUEST_DEBUG: u32 = 0x4048_AE9B;
pub(crate) const SET_DEBUGREGS: u32 = 0x4080_AEA2;
pub(crate) const ENABLE_CAP: u32 = 0x4068_AEA3;
pub(crate) const SET_XSAVE: u32 = 0x5000_AEA5;
pub(crate) const ENCRYPT_OP: u32 = 0xC008_AEBA;
pub(crate) const REG_REGION: u32 = 0x8010_AEBB;
pub(crate) const UNREG_REGION: u32 = 0x8010_AEBC;
pub(crate) const SET_ATTRIBUTES: u32 = 0x4020_AED2;
pub(crate) const CREATE_MEMFD: u32 = 0xC040_AED4;

pub(crate) const INIT2: u32 = 22;
pub(crate) const SNP_START: u32 = 100;
pub(crate) const SNP_UPDATE: u32 = 101;
pub(crate) const SNP_FINISH: u32 = 102;

pub(crate) const NORMAL: u8 = 1;
pub(crate) const ZERO: u8 = 3;
pub(crate) const UNMEASURED: u8 = 4;
pub(crate) const SECRETS: u8 = 5;
pub(crate) const CPUID: u8 = 6;

/// What a command's error field holds before a call.
pub(crate) const UNTOUCHED: u32 = 0xDEAD_BEEF;
/// The usual policy of SEV-SNP.
pub(crate) const POLICY: u64 = 0x3_0000;
/// RAM of the guest.
pub(crate) const RAM: u64 = 8 << 20;

/// A model with a VM.
pub(crate) struct Rig {
    pub(crate) model: Arc<ModelSys>,
    pub(crate) kvm: Fd,
    pub(crate) sev: Fd,
    pub(crate) vm: Fd,
    /// The shared side, also a source of aligned pages.
    pub(crate) memory: GuestMemory,
    pub(crate) memfd: Fd,
}

pub(crate) fn number(number: u32) -> Number {
    Number { number, name: "raw" }
}

/// The error number of a refusal, 0 for success.
pub(crate) fn errno<T>(result: &std::io::Result<T>) -> i32 {
    result
        .as_ref()
        .err()
        .and_then(std::io::Error::raw_os_error)
        .unwrap_or(0)
}

/// Little-endian fields at offsets in a structure of `N` bytes.
pub(crate) fn structure<const N: usize>(fields: &[(usize, &[u8])]) -> [u8; N] {
    let mut bytes = [0; N];
    for (at, field) in fields {
        bytes[*at..at + field.len()].copy_from_slice(field);
    }
    bytes
}

pub(crate) fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

impl Rig {
    /// A host with a VM of a type, not initialised.
    pub(crate) fn bare(host: FakeHost, vm_type: u64) -> Self {
        Self::over(host, vm_type, &[(0, RAM)])
    }

    /// The same with other RAM, which is not mapped.
    pub(crate) fn over(host: FakeHost, vm_type: u64, ram: &[(u64, u64)]) -> Self {
        let model = ModelSys::new(host);
        let kvm = model.open(Node::Kvm).unwrap();
        let sev = model.open(Node::Sev).unwrap();
        let vm = Fd(model.ioctl_value(kvm, number(CREATE_VM), vm_type).unwrap());
        let memory = GuestMemory::allocate(ram).unwrap();
        Self {
            model,
            kvm,
            sev,
            vm,
            memory,
            memfd: Fd(-1),
        }
    }

    /// An initialised VM with memory; SEV-SNP's has a private side.
    pub(crate) fn new(vm_type: u64) -> Self {
        Self::on(FakeHost::snp(), vm_type)
    }

    pub(crate) fn on(host: FakeHost, vm_type: u64) -> Self {
        let mut rig = Self::bare(host, vm_type);
        if vm_type == 0 {
            return rig;
        }
        if vm_type == SNP {
            rig.pointer(
                rig.vm,
                ENABLE_CAP,
                &mut structure::<104>(&[(0, &[201]), (8, &0x1000u64.to_le_bytes())]),
            )
            .unwrap();
        }
        assert_eq!(rig.command(INIT2, &mut [0; 48]), (0, UNTOUCHED));
        rig.add_memory(vm_type);
        rig
    }

    pub(crate) fn add_memory(&mut self, vm_type: u64) {
        let host = self.host(0).to_le_bytes();
        let len = RAM.to_le_bytes();
        if vm_type == SNP {
            let mut request = structure::<64>(&[(0, &len)]);
            self.memfd = Fd(self.pointer(self.vm, CREATE_MEMFD, &mut request).unwrap());
            let memfd = self.memfd.0.to_le_bytes();
            let mut region = structure::<160>(&[(4, &[4]), (16, &len), (24, &host), (40, &memfd)]);
            self.pointer(self.vm, SET_REGION2, &mut region).unwrap();
        } else {
            let mut region = structure::<32>(&[(16, &len), (24, &host)]);
            self.pointer(self.vm, SET_REGION, &mut region).unwrap();
            self.pointer(
                self.vm,
                REG_REGION,
                &mut structure::<16>(&[(0, &host), (8, &len)]),
            )
            .unwrap();
        }
    }

    /// Where a gpa's shared side lies.
    pub(crate) fn host(&self, gpa: u64) -> u64 {
        self.memory.regions()[0].host as u64 + gpa
    }

    pub(crate) fn pointer(&self, fd: Fd, request: u32, argument: &mut [u8]) -> std::io::Result<i32> {
        // SAFETY: the structure is as long as the request demands, and its addresses are memory of the test that
        // lives on, or null, or addresses of nothing, at which the model answers EFAULT.
        unsafe {
            self.model
                .ioctl_pointer(fd, number(request), argument.as_mut_ptr())
        }
    }

    /// A command through a descriptor: error number and error field.
    pub(crate) fn command_by(&self, sev: i32, id: u32, data: &mut [u8]) -> (i32, u32) {
        let at = (data.as_mut_ptr() as u64).to_le_bytes();
        let mut command = structure::<24>(&[
            (0, &id.to_le_bytes()),
            (8, &at),
            (16, &UNTOUCHED.to_le_bytes()),
            (20, &sev.to_le_bytes()),
        ]);
        let result = self.pointer(self.vm, ENCRYPT_OP, &mut command);
        (
            errno(&result),
            u32::from_le_bytes(command[16..20].try_into().unwrap()),
        )
    }

    pub(crate) fn command(&self, id: u32, data: &mut [u8]) -> (i32, u32) {
        self.command_by(self.sev.0, id, data)
    }

    pub(crate) fn vcpu(&self, id: u64) -> Fd {
        Fd(self.model.ioctl_value(self.vm, number(CREATE_VCPU), id).unwrap())
    }

    /// A VP whose run structure is mapped: descriptor and address.
    pub(crate) fn running_vcpu(&self, id: u64) -> (Fd, *mut u8) {
        let fd = self.vcpu(id);
        (fd, self.model.map(fd, 0x3000).unwrap().as_ptr())
    }

    pub(crate) fn run(&self, vcpu: Fd) -> i32 {
        errno(&self.model.ioctl_value(vcpu, number(RUN), 0))
    }

    pub(crate) fn start(&self) -> (i32, u32) {
        self.start_with(POLICY)
    }

    pub(crate) fn start_with(&self, policy: u64) -> (i32, u32) {
        self.command(SNP_START, &mut structure::<64>(&[(0, &policy.to_le_bytes())]))
    }

    pub(crate) fn set_private(&self, gpa: u64, len: u64, private: bool) -> i32 {
        let attribute = if private { 8 } else { 0 };
        let mut request = structure::<32>(&[
            (0, &gpa.to_le_bytes()),
            (8, &len.to_le_bytes()),
            (16, &[attribute]),
        ]);
        errno(&self.pointer(self.vm, SET_ATTRIBUTES, &mut request))
    }

    /// SNP_LAUNCH_UPDATE of whole pages from the shared side of the same gpa: error number, error field, what is left.
    pub(crate) fn update(&self, gpa: u64, len: u64, kind: u8) -> (i32, u32, u64) {
        self.update_from(gpa, len, kind, self.host(gpa))
    }

    pub(crate) fn update_from(&self, gpa: u64, len: u64, kind: u8, source: u64) -> (i32, u32, u64) {
        let mut update = update_structure(gpa, len, kind, source);
        let (errno, error) = self.command(SNP_UPDATE, &mut update);
        (errno, error, le64(&update, 16))
    }

    /// Private, then added with type NORMAL.
    pub(crate) fn add(&self, gpa: u64, pages: u64) {
        assert_eq!(self.set_private(gpa, pages * 4096, true), 0);
        assert_eq!(self.update(gpa, pages * 4096, NORMAL), (0, 0, 0));
    }

    pub(crate) fn finish(&self) -> (i32, u32) {
        self.command(SNP_FINISH, &mut [0; 88])
    }

    /// The launch that was finished.
    pub(crate) fn launched(&self) -> LaunchRecord {
        self.model.launches().pop().expect("a finished launch")
    }

    /// Its digest after a finish that succeeds.
    pub(crate) fn digest(&self) -> Vec<u8> {
        assert_eq!(self.finish(), (0, 0));
        self.launched().digest
    }

    pub(crate) fn guest(&self) -> Guest {
        self.model.guest(1).expect("the first VM")
    }
}

pub(crate) fn update_structure(gpa: u64, len: u64, kind: u8, source: u64) -> [u8; 64] {
    structure(&[
        (0, &(gpa / 4096).to_le_bytes()),
        (8, &source.to_le_bytes()),
        (16, &len.to_le_bytes()),
        (24, &[kind]),
    ])
}
