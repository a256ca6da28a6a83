// SPDX-License-Identifier: MIT
//! The seam: requests by number, arguments as raw bytes, and what is told of them.
//!
//! Always true: an unknown request, or one on the wrong kind of descriptor, is ENOTTY; a descriptor that is
//! not open is EBADF. Every call is in the transcript. Not here: what a request does.

use crate::faults::{Call, Fault};
use crate::firmware::{le, le32, put};
use crate::guest_view::Guest;
use crate::host::{FakeHost, SevNode};
use crate::model::{Finding, LaunchRecord, Model, Object, PageRun};
use crate::physical::PAGE_LEN;
use crate::psp::{self, ModelSession};
use crate::requests::{self as rq, command};
use crate::script::{GuestStep, StepResult};
use crate::user::{self, User};
use crate::vm::commands::ERROR_AT;
use kvm_sys::{Fd, Node, Number, Sys};
use libc::{EACCES, EBADF, EINTR, EINVAL, EIO, ENODEV, ENOENT, ENOTTY, ENXIO};
use p384::ecdsa::VerifyingKey;
use std::io;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of a run structure's mapping.
const RUN_BYTES: usize = 3 * 4096;
/// KVM_EXIT_HYPERCALL's capability, and the calls that may leave: MAP_GPA_RANGE.
const CAP_EXIT_HYPERCALL: u32 = 201;
const HYPERCALLS: u64 = 1 << 12;

/// A model of KVM and the security processor in the place of the kernel.
#[derive(Debug)]
pub struct ModelSys {
    inner: Mutex<Model>,
}

impl ModelSys {
    /// A model of that host, with nothing open.
    pub fn new(host: FakeHost) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Model::new(host)),
        })
    }

    pub(crate) fn model(&self) -> MutexGuard<'_, Model> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host that it stands for.
    pub fn host(&self) -> FakeHost {
        self.model().host.clone()
    }

    /// All launches that were finished, also of VMs that are gone.
    pub fn launches(&self) -> Vec<LaunchRecord> {
        self.model().launches.clone()
    }

    /// What no call failed for and somebody would suffer from.
    pub fn findings(&self) -> Vec<Finding> {
        self.model().findings.clone()
    }

    /// Every call so far.
    pub fn transcript(&self) -> Vec<Call> {
        self.model().calls.done.clone()
    }

    /// Makes the `nth` call of that name (from 0) go wrong, once.
    pub fn inject(&self, name: &str, nth: usize, fault: Fault) {
        self.model().calls.inject(name, nth, fault);
    }

    /// Injected faults that no call has met yet.
    pub fn unmet_faults(&self) -> usize {
        self.model().calls.unmet()
    }

    /// Says that another thread is creating a VP of a VM.
    pub fn set_creating_vp(&self, vm: u32, creating: bool) {
        if let Some(vm) = self.model().vms.get_mut(&vm) {
            vm.creating_vp = creating;
        }
    }

    /// Descriptors that are open.
    pub fn open_descriptors(&self) -> usize {
        self.model().objects.len()
    }

    /// Run structures that are mapped.
    pub fn live_mappings(&self) -> usize {
        self.model().live_mappings()
    }

    /// Guests that the firmware holds.
    pub fn firmware_guests(&self) -> usize {
        self.model().psp.guest_count()
    }

    /// Pages that are not the hypervisor's.
    pub fn assigned_pages(&self) -> usize {
        self.model().physical.assigned()
    }

    /// A guest owner's session with this platform, for a policy; keys come from `seed`.
    pub fn session(&self, policy: u32, seed: &[u8]) -> ModelSession {
        let platform = self.model().psp.public_key();
        ModelSession::new(&platform, policy, seed)
    }

    /// The key that verifies attestation reports of the model. Nobody should trust it.
    pub fn report_key(&self) -> VerifyingKey {
        psp::report_key()
    }

    fn call<T>(
        &self,
        name: &'static str,
        act: impl FnOnce(&mut Model, Option<Fault>) -> (Result<T, i32>, Option<u32>),
    ) -> io::Result<T> {
        let mut model = self.model();
        let (nth, fault) = model.calls.begin(name);
        let is_command = name.starts_with("KVM_SEV_");
        let (result, firmware) = match fault {
            Some(Fault::Errno(errno)) => (Err(errno), None),
            Some(Fault::Firmware(_)) if !is_command => (Err(EIO), None),
            Some(Fault::Partial(_)) if name != command::name(command::SNP_LAUNCH_UPDATE) => {
                (Err(EINTR), None)
            }
            Some(Fault::PspDead) => {
                model.psp.dead = true;
                act(&mut model, None)
            }
            fault => act(&mut model, fault),
        };
        model
            .calls
            .end(name, nth, result.as_ref().err().copied(), firmware);
        result.map_err(io::Error::from_raw_os_error)
    }

    /// A call that says nothing of the firmware.
    fn plain<T>(&self, name: &'static str, act: impl FnOnce(&mut Model) -> Result<T, i32>) -> io::Result<T> {
        self.call(name, |model, _| (act(model), None))
    }
}

impl Guest {
    /// Adds steps to what a VP (by creation order) does.
    pub fn script(&self, vp: usize, steps: impl IntoIterator<Item = GuestStep>) {
        self.with_script(vp, |script| script.steps.extend(steps));
    }

    /// What became of a VP's steps so far.
    pub fn results(&self, vp: usize) -> Vec<StepResult> {
        self.with_script(vp, |script| script.results.clone())
            .unwrap_or_default()
    }

    /// The state of all its memory.
    pub fn pages(&self) -> Vec<PageRun> {
        let mut model = self.sys().model();
        model
            .machine(self.vm())
            .map_or_else(Vec::new, |machine| machine.page_runs())
    }

    fn with_script<T>(&self, vp: usize, act: impl FnOnce(&mut crate::script::Script) -> T) -> Option<T> {
        let mut model = self.sys().model();
        let vcpu = model.vms.get_mut(&self.vm())?.vcpus.get_mut(vp)?;
        Some(act(&mut vcpu.script))
    }
}

impl Model {
    fn object(&self, fd: Fd) -> Result<Object, i32> {
        self.objects.get(fd.0).ok_or(EBADF)
    }

    fn value_request(&mut self, fd: Fd, number: u32, value: u64) -> Result<i32, i32> {
        match (self.object(fd)?, number) {
            (Object::Kvm, rq::GET_API_VERSION) => Ok(12),
            (Object::Kvm, rq::GET_VCPU_MMAP_SIZE) => Ok(RUN_BYTES as i32),
            (Object::Kvm | Object::Vm(_), rq::CHECK_EXTENSION) => Ok(self.extension(value)),
            (Object::Kvm, rq::CREATE_VM) if value < 32 && self.host.vm_types() >> value & 1 != 0 => {
                Ok(self.create_vm(value))
            }
            (Object::Kvm, rq::CREATE_VM) => Err(EINVAL),
            (Object::Vm(id), rq::CREATE_VCPU) => {
                let n = self.machine(id).ok_or(EBADF)?.create_vcpu(value)?;
                Ok(self.objects.add(Object::Vcpu(id, n)))
            }
            (Object::Vcpu(id, n), rq::RUN) if value == 0 => {
                // SAFETY: the run structure is the model's own mapping, and what a step writes to shared memory
                // goes through the leave that its slot holds.
                let user = unsafe { User::vouched() };
                self.machine(id).ok_or(EBADF)?.run(n, user)
            }
            (Object::Vcpu(..), rq::RUN) => Err(EINVAL),
            _ => Err(ENOTTY),
        }
    }

    /// KVM_CHECK_EXTENSION.
    fn extension(&self, capability: u64) -> i32 {
        let since = |major, minor| i32::from(self.host.kernel_version() >= (major, minor));
        match capability {
            // USER_MEMORY, EXT_CPUID, NR_MEMSLOTS, MP_STATE, DEVICE_CTRL, ENABLE_CAP_VM, IMMEDIATE_EXIT.
            3 | 7 | 14 | 89 | 98 | 136 => 1,
            10 => 32764,
            // NR_VCPUS, MAX_VCPUS, MAX_VCPU_ID.
            9 | 66 | 128 => 1024,
            201 => HYPERCALLS as i32,
            // VM_COPY_ENC_CONTEXT_FROM and VM_MOVE_ENC_CONTEXT_FROM prove nothing.
            197 | 206 => 1,
            209 => i32::from(self.host.device_attributes),
            231 | 232 | 234 => since(6, 8),
            233 => i32::from(self.host.has_memory_attributes()) * 8,
            235 => self.host.vm_types() as i32,
            236 => since(6, 11),
            _ => 0,
        }
    }

    fn pointer_request(&mut self, fd: Fd, number: u32, at: u64, user: User) -> Result<i32, i32> {
        let object = self.object(fd)?;
        match (object, number) {
            (Object::Kvm, rq::GET_SUPPORTED_CPUID) => self.supported_cpuid(at, user),
            (Object::Kvm, rq::HAS_DEVICE_ATTR | rq::GET_DEVICE_ATTR) => {
                self.device_attribute(number, at, user)
            }
            (Object::Sev, rq::SEV_ISSUE_CMD) => self.issue_command(at, user),
            (Object::Vm(_), rq::ENABLE_CAP) => self.enable_capability(object, &user.array(at)?),
            (Object::Vm(id), rq::CREATE_GUEST_MEMFD) => {
                let memfd = self.machine(id).ok_or(EBADF)?.check_memfd(&user.array(at)?)?;
                let fd = self.objects.add(Object::Memfd);
                self.physical.memfds.insert(fd, memfd);
                Ok(fd)
            }
            (Object::Vm(id), _) => {
                let mut machine = self.machine(id).ok_or(EBADF)?;
                match number {
                    rq::SET_USER_MEMORY_REGION => machine.set_region(&user.array::<32>(at)?, user),
                    rq::SET_USER_MEMORY_REGION2 => machine.set_region(&user.array::<160>(at)?, user),
                    rq::SET_MEMORY_ATTRIBUTES => machine.set_attributes(&user.array(at)?),
                    rq::MEMORY_ENCRYPT_REG_REGION => machine.register_range(&user.array(at)?, user),
                    rq::MEMORY_ENCRYPT_UNREG_REGION => machine.unregister_range(&user.array(at)?),
                    _ => Err(ENOTTY),
                }
                .map(|()| 0)
            }
            (Object::Vcpu(id, n), _) => self.machine(id).ok_or(EBADF)?.vcpu_request(n, number, at, user),
            _ => Err(ENOTTY),
        }
    }

    fn enable_capability(&mut self, object: Object, request: &[u8; 104]) -> Result<i32, i32> {
        let Object::Vm(id) = object else {
            return Err(ENOTTY);
        };
        let (capability, flags, argument) = (le32(request, 0), le32(request, 4), le::<8>(request, 8));
        if flags != 0 || capability != CAP_EXIT_HYPERCALL || argument & !HYPERCALLS != 0 {
            return Err(EINVAL);
        }
        self.vms.get_mut(&id).ok_or(EBADF)?.hypercalls = argument;
        Ok(0)
    }

    fn supported_cpuid(&self, at: u64, user: User) -> Result<i32, i32> {
        let room = user.u32(at)? as usize;
        let entries = &self.host.cpuid;
        if room < entries.len() {
            return Err(libc::E2BIG);
        }
        let mut bytes = Vec::new();
        for e in entries {
            let words = [e.function, e.index, e.flags, e.eax, e.ebx, e.ecx, e.edx, 0, 0, 0];
            bytes.extend(words.into_iter().flat_map(u32::to_le_bytes));
        }
        user.write(at, &(entries.len() as u32).to_le_bytes())?;
        user.write(at + 8, &bytes)?;
        Ok(0)
    }

    /// Group SEV: 0 VMSA features, 1 policy bits.
    fn device_attribute(&self, number: u32, at: u64, user: User) -> Result<i32, i32> {
        let request = user.array::<24>(at)?;
        let (flags, group, attribute, address) = (
            le32(&request, 0),
            le32(&request, 4),
            le::<8>(&request, 8),
            le::<8>(&request, 16),
        );
        if flags != 0 {
            return Err(EINVAL);
        }
        if !self.host.device_attributes || group != 1 {
            return Err(ENXIO);
        }
        let value = match attribute {
            0 => self.host.features,
            1 if self.host.vm_types() >> 4 & 1 != 0 => self.host.policy_bits,
            _ => return Err(ENXIO),
        };
        if number == rq::GET_DEVICE_ATTR {
            user.write(address, &value.to_le_bytes())?;
        }
        Ok(0)
    }

    /// SEV_ISSUE_CMD: PLATFORM_STATUS and the status of SEV-SNP.
    fn issue_command(&mut self, at: u64, user: User) -> Result<i32, i32> {
        const PLATFORM_STATUS: u32 = 1;
        const SNP_PLATFORM_STATUS: u32 = 9;
        let request = user.array::<16>(at)?;
        let (id, data) = (le32(&request, 0), le::<8>(&request, 4));
        if self.psp.dead {
            return Err(libc::EBUSY);
        }
        let (major, minor) = self.host.api;
        let guests = self.psp.guest_count() as u64;
        let state = if guests > 0 { 2 } else { 1 };
        match id {
            PLATFORM_STATUS => {
                let mut status = [major, minor, state, 0, 1, 0, 0, self.host.build, 0, 0, 0, 0];
                put::<4>(&mut status, 8, guests);
                user.write(data, &status)?;
            }
            SNP_PLATFORM_STATUS if self.host.is_on("sev_snp") => {
                let mut status = [0; 32];
                status[..4].copy_from_slice(&[major, minor, 1, 1]);
                put::<4>(&mut status, 4, self.host.build.into());
                put::<4>(&mut status, 12, guests);
                user.write(data, &status)?;
            }
            _ => return Err(EINVAL),
        }
        user.write(at + 12, &0u32.to_le_bytes())?;
        Ok(0)
    }
}

impl Sys for ModelSys {
    fn open(&self, node: Node) -> io::Result<Fd> {
        match node {
            Node::Kvm => self.plain("open /dev/kvm", |model| Ok(Fd(model.objects.add(Object::Kvm)))),
            Node::Sev => self.plain("open /dev/sev", |model| match model.host.sev_node {
                SevNode::Present => Ok(Fd(model.objects.add(Object::Sev))),
                SevNode::Absent => Err(ENOENT),
                SevNode::Denied => Err(EACCES),
            }),
        }
    }

    fn close(&self, fd: Fd) {
        let mut model = self.model();
        match model.objects.remove(fd.0) {
            Some(Object::Memfd) => model.physical.drop_memfd(fd.0),
            Some(Object::Vm(id) | Object::Vcpu(id, _)) => model.end_if_unused(id),
            _ => {}
        }
    }

    fn ioctl_value(&self, fd: Fd, request: Number, value: u64) -> io::Result<i32> {
        self.plain(rq::name(request.number), |model| {
            model.value_request(fd, request.number, value)
        })
    }

    unsafe fn ioctl_pointer(&self, fd: Fd, request: Number, argument: *mut u8) -> io::Result<i32> {
        // SAFETY: the caller vouches for the argument and for every address in it.
        let user = unsafe { User::vouched() };
        let (number, at) = (request.number, argument as u64);
        if number != rq::MEMORY_ENCRYPT_OP {
            return self.plain(rq::name(number), |model| {
                model.pointer_request(fd, number, at, user)
            });
        }
        let name = user.u32(at).map_or("KVM_MEMORY_ENCRYPT_OP", command::name);
        self.call(name, |model, fault| {
            let id = match model.object(fd) {
                Ok(Object::Vm(id)) => id,
                Ok(_) => return (Err(ENOTTY), None),
                Err(errno) => return (Err(errno), None),
            };
            if let Some(Fault::Firmware(code)) = fault {
                let written = user.write(at + ERROR_AT, &code.to_le_bytes());
                return (written.and(Err(EIO)), Some(code));
            }
            match model.machine(id) {
                Some(mut machine) => machine.memory_encrypt_op(at, user, fault),
                None => (Err(EBADF), None),
            }
        })
    }

    fn map(&self, fd: Fd, len: usize) -> io::Result<NonNull<u8>> {
        self.plain("mmap", |model| {
            let Object::Vcpu(id, n) = model.object(fd)? else {
                return Err(ENODEV);
            };
            let vcpu = model
                .vms
                .get_mut(&id)
                .and_then(|vm| vm.vcpus.get_mut(n))
                .ok_or(EBADF)?;
            if len > RUN_BYTES || vcpu.run.is_some() {
                return Err(EINVAL);
            }
            let at = user::map(len)?;
            vcpu.run = Some((at, len));
            NonNull::new(at as *mut u8).ok_or(EINVAL)
        })
    }

    unsafe fn unmap(&self, at: NonNull<u8>, len: usize) {
        let mut model = self.model();
        let key = Some((at.as_ptr() as u64, len));
        let found = model.vms.values_mut().find_map(|vm| {
            let vcpu = vm.vcpus.iter_mut().find(|vcpu| vcpu.run == key)?;
            vcpu.run = None;
            Some(vm.id)
        });
        if let Some(id) = found {
            // SAFETY: the mapping is the model's own, nobody else knows it, and the caller is done with it.
            unsafe { user::unmap(at.as_ptr() as u64, len) };
            model.end_if_unused(id);
        }
    }

    unsafe fn discard(&self, at: NonNull<u8>, len: usize) -> io::Result<()> {
        let start = at.as_ptr() as u64;
        self.plain("discard", |model| {
            // SAFETY: the caller vouches for the pages and gives up what they hold.
            unsafe { user::discard(start, len)? };
            model
                .vms
                .values_mut()
                .for_each(|vm| vm.note_discard(start, len as u64));
            Ok(())
        })
    }

    fn punch(&self, fd: Fd, offset: u64, len: u64) -> io::Result<()> {
        self.plain("punch", |model| {
            let memfd = model.physical.memfds.get(&fd.0).ok_or(EBADF)?;
            let end = offset.checked_add(len).ok_or(EINVAL)?;
            if len == 0 || !offset.is_multiple_of(PAGE_LEN) || !len.is_multiple_of(PAGE_LEN) {
                return Err(EINVAL);
            }
            let pages = offset / PAGE_LEN..end / PAGE_LEN;
            let owner = memfd.vm;
            model.physical.punch(fd.0, pages.clone());
            if let Some(vm) = model.vms.get_mut(&owner) {
                vm.note_punch(fd.0, pages);
            }
            Ok(())
        })
    }
}
