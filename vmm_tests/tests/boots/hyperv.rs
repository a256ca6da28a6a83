// SPDX-License-Identifier: MIT
//! Debian's cloud kernel on the Hyper-V machine: VMBus, its SCSI disk, integration components, clocks.

use crate::guests::Linux;
use vmm_tests::files::TestFile;
use vmm_tests::{Backend, Vm, VmBuilder, skip};

/// What VMBus and a disk on it take.
const MODULES: [&str; 7] = [
    "hv_vmbus",
    "hv_utils",
    "scsi_common",
    "scsi_mod",
    "scsi_transport_fc",
    "hv_storvsc",
    "sd_mod",
];
const MIB: usize = 1 << 20;

pub(crate) fn hyperv(linux: &Linux) -> VmBuilder {
    Vm::builder(Backend::Soft)
        .args(["--hv", "-m", "256M", "-c", "console=ttyS0 panic=-1"])
        .args(["-k".as_ref(), linux.kernel.as_os_str()])
        .args(["-r".as_ref(), linux.initramfs.path().as_os_str()])
}

#[test]
fn a_scsi_disk_on_vmbus_is_written_read_back_and_there_after_a_reboot() {
    const NAME: &str = "a_scsi_disk_on_vmbus_is_written_read_back_and_there_after_a_reboot";
    let script = "i=0; while [ ! -b /dev/sda ] && [ $i -lt 50 ]; do sleep 0.1; i=$((i+1)); done\n\
                  if [ \"$(dd if=/dev/sda bs=9 count=1 2>/dev/null)\" = 'once-more' ]; then\n\
                  echo second boot: $(dd if=/dev/sda bs=1M skip=1 count=2 2>/dev/null | sha256sum)\n\
                  poweroff -f\nfi\n\
                  echo size=$(cat /sys/block/sda/size) vendor=$(cat /sys/block/sda/device/vendor)\n\
                  dd if=/dev/urandom of=/dev/sda bs=1M seek=1 count=2 conv=fsync 2>/dev/null && echo wrote\n\
                  echo first boot: $(dd if=/dev/sda bs=1M skip=1 count=2 iflag=direct 2>/dev/null | sha256sum)\n\
                  printf once-more | dd of=/dev/sda conv=fsync,notrunc 2>/dev/null\n\
                  grep -i vmbus /proc/interrupts | head -2\nls /sys/bus/vmbus/devices | wc -l\n\
                  reboot -f\n";
    let linux = match Linux::with_modules(&MODULES, script) {
        Ok(linux) => linux,
        Err(reason) => return skip(NAME, &reason),
    };
    let disk = TestFile::new("sda", &vec![0; 4 * MIB]);
    let ended = hyperv(&linux)
        .args(["--disk".as_ref(), disk.path().as_os_str()])
        .run();
    assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
    let line = |head: &str| {
        let found = ended
            .stdout
            .lines()
            .find_map(|line| line.trim().strip_prefix(head));
        found
            .unwrap_or_else(|| panic!("{head}\n{}", ended.stdout))
            .to_owned()
    };
    assert_eq!(line("first boot:"), line("second boot:"));
    assert!(
        ended.stdout.contains("size=8192 vendor=OpenVMM"),
        "{}",
        ended.stdout
    );
}

/// A minute by the reference TSC page and by the real-time clock; nearly free where time skips to deadlines.
#[test]
fn two_processors_keep_time_by_the_reference_page_and_synthetic_timers() {
    const NAME: &str = "two_processors_keep_time_by_the_reference_page_and_synthetic_timers";
    let script = "echo clock=$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)\n\
                  for i in 0 1; do echo events$i=$(cat /sys/devices/system/clockevents/clockevent$i/current_device); done\n\
                  echo processors=$(nproc)\n\
                  rtc() { cat /sys/class/rtc/rtc0/since_epoch; }\n\
                  a=$(date +%s); b=$(rtc); sleep 60; c=$(date +%s); d=$(rtc)\n\
                  echo minute=$((c - a)) drift=$((c - a - d + b))\npoweroff -f\n";
    let linux = match Linux::with(script) {
        Ok(linux) => linux,
        Err(reason) => return skip(NAME, &reason),
    };
    let ended = hyperv(&linux)
        .args(["-p", "2", "--deterministic"])
        .args(["-c", "clocksource=hyperv_clocksource_tsc_page"])
        .run();
    assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
    for expected in [
        "clock=hyperv_clocksource_tsc_page",
        "events0=Hyper-V clockevent",
        "events1=Hyper-V clockevent",
        "processors=2",
        "minute=60",
    ] {
        assert!(ended.stdout.contains(expected), "{expected}\n{}", ended.stdout);
    }
    let drift = ended
        .stdout
        .lines()
        .find_map(|line| line.trim().rsplit_once("drift="));
    let drift: i32 = drift.expect("a drift").1.parse().expect("a number");
    assert!(drift.abs() <= 1, "{}", ended.stdout);
}

#[test]
fn shutdown_at_the_prompt_reaches_the_guest_over_vmbus() {
    const NAME: &str = "shutdown_at_the_prompt_reaches_the_guest_over_vmbus";
    let script = "mkdir -p /sbin\nprintf '#!/bin/sh\\necho powering off >/dev/console\\npoweroff -f\\n' > /sbin/poweroff\n\
                  chmod +x /sbin/poweroff\necho ready for shutdown\nsleep 1000\n";
    let linux = match Linux::with_modules(&["hv_vmbus", "hv_utils"], script) {
        Ok(linux) => linux,
        Err(reason) => return skip(NAME, &reason),
    };
    let mut vm = hyperv(&linux).start();
    vm.wait_for("ready for shutdown");
    vm.send(b"\x11shutdown\n");
    vm.wait_for_err("asked to power off over vmbus");
    vm.wait_for("powering off");
    assert_eq!(vm.wait_for_exit().code, 0);
}
