// SPDX-License-Identifier: MIT
//! Debian's cloud kernel with the Hyper-V machine's keyboard, screen, TPM and key-value pairs.

use crate::guests::{Linux, kernel};
use crate::hyperv::hyperv;
use std::time::Duration;
use vmm_tests::{Viewer, programs, skip};

#[test]
fn what_is_typed_at_the_prompt_and_in_a_vnc_client_arrives_at_the_guests_keyboard() {
    const NAME: &str = "what_is_typed_at_the_prompt_and_in_a_vnc_client_arrives_at_the_guests_keyboard";
    // Keys for a terminal that nobody has opened are lost.
    let script = "while ! grep -q AT.Translated /proc/bus/input/devices; do sleep 0.1; done\n\
                  exec 3</dev/tty1; echo ready for keys\nread first <&3; echo \"prompt typed: $first\"\n\
                  read second <&3; echo \"client typed: $second\"\npoweroff -f\n";
    let linux = match Linux::with_modules(&["hv_vmbus", "hyperv-keyboard"], script) {
        Ok(linux) => linux,
        Err(reason) => return skip(NAME, &reason),
    };
    let mut vm = hyperv(&linux).args(["--gfx", "--vnc-port", "0"]).start();
    let address = Viewer::address(&mut vm);
    vm.wait_for("ready for keys");
    vm.send(b"\x11type Hello, World!\n");
    vm.wait_for("prompt typed: Hello, World!");
    let mut viewer = Viewer::connect(&address);
    "vnc".chars().for_each(|c| viewer.press(c.into()));
    viewer.press(0xFF0D);
    vm.wait_for("client typed: vnc");
    assert_eq!(vm.wait_for_exit().code, 0);
}

#[test]
fn a_vnc_client_sees_what_the_guest_has_drawn() {
    const NAME: &str = "a_vnc_client_sees_what_the_guest_has_drawn";
    // Two rows of one colour each, over and over in the lower half of the screen.
    let script = "while [ ! -e /dev/fb0 ]; do sleep 0.1; done\n\
                  echo 0 > /sys/class/graphics/fbcon/cursor_blink\n\
                  cat /sys/class/graphics/fb0/virtual_size /sys/class/graphics/fb0/bits_per_pixel\n\
                  i=0; while [ $i -lt 1024 ]; do printf '\\021\\042\\063\\000'; i=$((i+1)); done > /row1\n\
                  i=0; while [ $i -lt 1024 ]; do printf '\\252\\273\\314\\000'; i=$((i+1)); done > /row2\n\
                  cat /row1 /row2 > /rows; i=0\n\
                  while [ $i -lt 192 ]; do cat /rows; i=$((i+1)); done > /half\n\
                  dd if=/half of=/dev/fb0 bs=4096 seek=384 2>/dev/null && echo drawn\n\
                  read line; poweroff -f\n";
    let linux = match Linux::with_modules(&["hv_vmbus", "hyperv_fb"], script) {
        Ok(linux) => linux,
        Err(reason) => return skip(NAME, &reason),
    };
    let mut vm = hyperv(&linux).args(["--gfx", "--vnc-port", "0"]).start();
    let address = Viewer::address(&mut vm);
    vm.wait_for("drawn");
    let mut viewer = Viewer::connect(&address);
    assert_eq!(viewer.size(), (1024, 768));
    let picture = viewer.picture();
    for (y, row) in picture.chunks_exact(1024).enumerate().skip(384) {
        let expected = if y % 2 == 0 { 0x33_2211 } else { 0xCC_BBAA };
        assert!(
            row.iter().all(|&pixel| pixel == expected),
            "row {y}: {:#x}",
            row[0]
        );
    }
    vm.send(b"\n");
    assert_eq!(vm.wait_for_exit().code, 0);
}

#[test]
fn linux_uses_the_tpm_through_its_acpi_table() {
    const NAME: &str = "linux_uses_the_tpm_through_its_acpi_table";
    let script = "echo version=$(cat /sys/class/tpm/tpm0/tpm_version_major)\n\
                  echo pcr0=$(cat /sys/class/tpm/tpm0/pcr-sha256/0)\n\
                  exec 3<>/dev/tpm0\nprintf '\\200\\001\\000\\000\\000\\014\\000\\000\\001\\173\\000\\010' >&3\n\
                  echo random=$(dd bs=4096 count=1 <&3 2>/dev/null | od -An -tx1 | tr -d ' \\n')\npoweroff -f\n";
    let linux = match Linux::with(script) {
        Ok(linux) => linux,
        Err(reason) => return skip(NAME, &reason),
    };
    let swtpm = match programs::Swtpm::start() {
        Ok(swtpm) => swtpm,
        Err(reason) => return skip(NAME, &reason),
    };
    let ended = hyperv(&linux)
        .args(["--tpm".into(), swtpm.socket().into_os_string()])
        .run();
    assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
    let zeros = format!("pcr0={}", "0".repeat(64));
    for expected in ["version=2", zeros.as_str(), "random=80010000001400000000"] {
        assert!(ended.stdout.contains(expected), "{expected}\n{}", ended.stdout);
    }
}

#[test]
fn host_and_guest_tell_each_other_key_value_pairs() {
    const NAME: &str = "host_and_guest_tell_each_other_key_value_pairs";
    let script = "mkdir -p /etc /var/lib/hyperv; echo NAME=TestGuest > /etc/os-release\n\
                  while [ ! -e /dev/vmbus/hv_kvp ]; do sleep 0.1; done\n\
                  hv_kvp_daemon -n &\n\
                  while ! grep -q VirtualMachineName /var/lib/hyperv/.kvp_pool_3 2>/dev/null; do sleep 0.2; done\n\
                  echo the host says $(tr -d '\\000' < /var/lib/hyperv/.kvp_pool_3)\n\
                  read line; poweroff -f\n";
    let linux = kernel().and_then(|kernel| {
        let daemon = kernel
            .ancestors()
            .nth(2)
            .map(|folder| folder.join("usr/sbin/hv_kvp_daemon"));
        let daemon = daemon.filter(|path| path.is_file());
        let daemon = daemon.ok_or("no hv_kvp_daemon; cargo xtask test fetches Debian's")?;
        Linux::with_program(&["hv_vmbus", "hv_utils"], ("hv_kvp_daemon", &daemon), script)
    });
    let linux = match linux {
        Ok(linux) => linux,
        Err(reason) => return skip(NAME, &reason),
    };
    let mut vm = hyperv(&linux).start();
    vm.wait_for("the host says VirtualMachineNameopenvmm");
    // The guest is asked after it was told; how soon depends on the machine.
    while !vm.transcript().contains("OSName=\"TestGuest\"") {
        std::thread::sleep(Duration::from_millis(500));
        // An empty line leaves the prompt.
        vm.send(b"\x11inspect\n\n");
        vm.wait_for_err("Kvp Ready");
    }
    vm.send(b"\n");
    assert_eq!(vm.wait_for_exit().code, 0);
}
