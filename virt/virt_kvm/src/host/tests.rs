// SPDX-License-Identifier: MIT
//! What a host without usable KVM is told.

use super::*;
use kvm_sys::{Fd, Node, Number};
use std::io;
use std::ptr::NonNull;
use std::sync::Mutex;

/// A host that answers the questions before a VM is made.
struct Host {
    /// Errno of opening `/dev/kvm`.
    open: Option<i32>,
    version: i32,
    absent: &'static [u32],
    open_fds: Mutex<i32>,
}

impl Sys for Host {
    fn open(&self, _: Node) -> io::Result<Fd> {
        match self.open {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => {
                *self.open_fds.lock().unwrap() += 1;
                Ok(Fd(7))
            }
        }
    }
    fn close(&self, fd: Fd) {
        assert_eq!(fd, Fd(7));
        *self.open_fds.lock().unwrap() -= 1;
    }
    fn ioctl_value(&self, _: Fd, request: Number, value: u64) -> io::Result<i32> {
        match request.name {
            "KVM_GET_API_VERSION" => Ok(self.version),
            "KVM_CHECK_EXTENSION" => Ok(i32::from(!self.absent.contains(&(value as u32)))),
            _ => Err(io::Error::from_raw_os_error(libc::ENOTTY)),
        }
    }
    unsafe fn ioctl_pointer(&self, _: Fd, _: Number, _: *mut u8) -> io::Result<i32> {
        Err(io::Error::from_raw_os_error(libc::ENOTTY))
    }
    fn map(&self, _: Fd, _: usize) -> io::Result<NonNull<u8>> {
        Err(io::Error::from_raw_os_error(libc::ENODEV))
    }
    unsafe fn unmap(&self, _: NonNull<u8>, _: usize) {}
    unsafe fn discard(&self, _: NonNull<u8>, _: usize) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::EINVAL))
    }
    fn punch(&self, _: Fd, _: u64, _: u64) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::ENODEV))
    }
}

fn refusal(open: Option<i32>, version: i32, absent: &'static [u32]) -> String {
    let host = Arc::new(Host {
        open,
        version,
        absent,
        open_fds: Mutex::new(0),
    });
    let error = Kvm::over(host.clone()).unwrap_err().to_string();
    assert_eq!(*host.open_fds.lock().unwrap(), 0, "nothing stays open");
    error
}

#[test]
fn a_missing_device_node_says_which_module_or_backend_to_take() {
    let text = refusal(Some(libc::ENOENT), 12, &[]);
    assert!(
        text.starts_with("kvm is not available: /dev/kvm does not exist; load the module"),
        "{text}"
    );
    assert!(text.ends_with("or use --hypervisor soft"), "{text}");
}

#[test]
fn a_refused_device_node_names_the_group() {
    let text = refusal(Some(libc::EACCES), 12, &[]);
    assert!(
        text.contains("no permission to open /dev/kvm; join the group that owns it"),
        "{text}"
    );
    assert!(text.ends_with("or use --hypervisor soft"), "{text}");
}

#[test]
fn a_device_node_without_a_driver_is_told_apart() {
    let text = refusal(Some(libc::ENODEV), 12, &[]);
    assert!(text.contains("no driver answers"), "{text}");
}

#[test]
fn another_interface_version_is_refused() {
    let text = refusal(None, 11, &[]);
    assert!(text.contains("its interface has version 11, not 12"), "{text}");
}

#[test]
fn missing_capabilities_are_all_named() {
    let text = refusal(None, 12, &[kb::KVM_CAP_X86_MSR_FILTER, kb::KVM_CAP_XSAVE]);
    assert!(
        text.contains("lacks KVM_CAP_XSAVE, KVM_CAP_X86_MSR_FILTER; update the kernel"),
        "{text}"
    );
}

#[test]
fn a_failing_call_is_named_with_the_hosts_answer() {
    let text = refusal(None, 12, &[]);
    assert!(text.starts_with("KVM_GET_SUPPORTED_CPUID: "), "{text}");
}

#[test]
fn vp_counts_outside_the_hosts_range_are_refused() {
    let Ok(kvm) = Kvm::open() else {
        eprintln!("skipped: no kvm");
        return;
    };
    for vp_count in [0, 256] {
        let memory = guest_memory::GuestMemory::allocate(&[(0, 0x1000)]).unwrap();
        let config = PartitionConfig {
            vp_count,
            memory,
            cpuid: Vec::new(),
            clock: Arc::new(virt::Clock::host()),
            timers: virt::TimerQueue::new(),
        };
        let error = kvm.new_partition(config).err().unwrap().to_string();
        assert!(
            error.starts_with(&format!("{vp_count} virtual processors: kvm runs 1 to ")),
            "{error}"
        );
    }
}

#[test]
fn the_tsc_frequency_is_known_and_is_what_the_host_counts() {
    let Ok(kvm) = Kvm::open() else {
        eprintln!("skipped: no kvm");
        return;
    };
    let Some(hz) = kvm.capabilities().tsc_hz else {
        eprintln!("skipped: the host's counter has no fixed frequency");
        return;
    };
    let (start, first) = (std::time::Instant::now(), kvm_sys::host_tsc());
    std::thread::sleep(std::time::Duration::from_millis(200));
    let seconds = start.elapsed().as_secs_f64();
    let counted = kvm_sys::host_tsc().wrapping_sub(first) as f64 / seconds;
    let ratio = counted / hz as f64;
    assert!(
        (0.95..1.05).contains(&ratio),
        "{hz} Hz said, {counted:.0} Hz counted"
    );
}

#[test]
fn the_probe_says_in_one_line_what_it_found() {
    let Ok(kvm) = Kvm::open() else {
        eprintln!("skipped: no kvm");
        return;
    };
    let probe = kvm.probe().unwrap();
    eprintln!("{}", probe.reason);
    assert!(!probe.reason.contains('\n') && probe.reason.contains("cpl 0"));
    assert_eq!(probe.hardware, probe.mips.is_some_and(|m| m >= 50.0));
}
