// SPDX-License-Identifier: MIT
//! Debian's cloud kernel exchanges data with the host over a tap interface and over sockets, compared by hash, and
//! talks over a virtio console.
//!
//! Always true: traffic stays in a network namespace of the test's own. `OPENVMM_TRANSFER_MIB` asks for more than
//! the few MiB of an ordinary run.

use crate::disks::{MIB, pattern, sha256};
use crate::guests::Linux;
use guest_images::debian::VIRTIO_PCI;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use vmm_tests::files::TestFile;
use vmm_tests::{Backend, Vm, VmBuilder, skip};

fn len() -> usize {
    let asked = std::env::var("OPENVMM_TRANSFER_MIB").ok();
    asked.and_then(|mib| mib.parse().ok()).unwrap_or(4) * MIB
}

fn direct(linux: &Linux) -> VmBuilder {
    Vm::builder(Backend::Soft)
        .limit(Duration::from_secs(600))
        .args(["-m", "512M", "-c", "console=ttyS0 quiet panic=-1"])
        .args(["-k".as_ref(), linux.kernel.as_os_str()])
        .args(["-r".as_ref(), linux.initramfs.path().as_os_str()])
}

/// Whether a tap interface can be made in a network namespace of its own.
fn taps() -> Result<(), String> {
    if let Err(error) = File::options().read(true).write(true).open("/dev/net/tun") {
        return Err(format!("/dev/net/tun: {error}"));
    }
    let status = Command::new("unshare").args(["--net", "true"]).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err("network namespaces need root".into()),
        Err(error) => Err(format!("unshare of util-linux: {error}")),
    }
}

#[test]
fn a_guest_exchanges_data_over_a_tap_interface() {
    let modules = [&VIRTIO_PCI[..], &["failover", "net_failover", "virtio_net"]].concat();
    over_a_tap("a_guest_exchanges_data_over_a_tap_interface", &modules, &[]);
}

#[test]
fn a_guest_exchanges_data_over_a_tap_interface_and_vmbus() {
    let name = "a_guest_exchanges_data_over_a_tap_interface_and_vmbus";
    over_a_tap(name, &["hv_vmbus", "hv_netvsc"], &["--hv"]);
}

fn over_a_tap(name: &str, modules: &[&str], more: &[&str]) {
    if let Err(reason) = taps() {
        return skip(name, &reason);
    }
    let script = "ifconfig lo 127.0.0.1\nifconfig eth0 192.168.77.2 netmask 255.255.255.0 up\n\
                  until nc -w 2 192.168.77.1 9000 > /data; [ -s /data ]; do sleep 0.2; done\nsha256sum /data\n\
                  nc 192.168.77.1 9001 < /data && echo sent\npoweroff -f\n";
    let linux = match Linux::with_modules(modules, script) {
        Ok(linux) => linux,
        Err(reason) => return skip(name, &reason),
    };
    let bytes = pattern(len(), 11);
    let (there, back) = (TestFile::new("there", &bytes), TestFile::new("back", &[]));
    // The interface is the VMM's; it is there once the VMM runs. Serving goes on until the guest has all.
    let host = "(until ip addr add 192.168.77.1/24 dev vm0 2>/dev/null && ip link set vm0 up; do sleep 0.1; done; \
                busybox nc -l -p 9001 -e sh -c 'cat > \"$1\"' sh \"$2\" & busybox nc -l -p 9000 < \"$1\"; wait) & \
                shift 2; exec \"$@\"";
    let vm = direct(&linux)
        .args(["--net", "tap:vm0"])
        .args(more.iter().copied())
        .command();
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", host, "sh"]);
    command.args([there.path(), back.path()]).arg(vm.get_program());
    command.args(vm.get_args()).stdin(Stdio::null());
    let ended = command.output().expect("unshare of util-linux");
    let console = String::from_utf8_lossy(&ended.stdout);
    let messages = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{console}\n{messages}");
    assert!(
        console.contains(&format!("{}  /data", sha256(&bytes))),
        "{console}\n{messages}"
    );
    assert!(console.contains("sent"), "{console}");
    assert!(std::fs::read(back.path()).unwrap() == bytes, "what came back");
}

#[test]
fn a_guest_exchanges_data_over_sockets() {
    const NAME: &str = "a_guest_exchanges_data_over_sockets";
    let script = "vsock_tool fetch 5000 > /data\nsha256sum /data\nvsock_tool send 5001 < /data && echo sent\n\
                  vsock_tool answer 7000\npoweroff -f\n";
    let sockets = [
        "vsock",
        "vmw_vsock_virtio_transport_common",
        "vmw_vsock_virtio_transport",
    ];
    let modules = [&VIRTIO_PCI[..], &sockets].concat();
    let tool = Path::new(env!("CARGO_BIN_EXE_vsock_tool"));
    let linux = match Linux::with_program(&modules, ("vsock_tool", tool), script) {
        Ok(linux) => linux,
        Err(reason) => return skip(NAME, &reason),
    };
    let bytes = pattern(len(), 12);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v");
    let listen = |port: u32| UnixListener::bind(folder.path().join(format!("v_{port}"))).unwrap();
    let (gives, takes) = (listen(5000), listen(5001));
    let sent = bytes.clone();
    let giver = std::thread::spawn(move || gives.accept().unwrap().0.write_all(&sent).unwrap());
    let taker = std::thread::spawn(move || {
        let mut all = Vec::new();
        takes.accept().unwrap().0.read_to_end(&mut all).unwrap();
        all
    });
    let mut vm = direct(&linux)
        .args(["--virtio-vsock".as_ref(), path.as_os_str()])
        .start();
    let console = vm.wait_for("listening");
    assert!(
        console.contains(&format!("{}  /data", sha256(&bytes))),
        "{console}"
    );
    assert!(console.contains("sent"), "{console}");
    giver.join().unwrap();
    assert!(taker.join().unwrap() == bytes, "what the guest sent");
    // The other way round: the host calls.
    let mut host = UnixStream::connect(&path).unwrap();
    host.write_all(b"CONNECT 7000\nto and fro").unwrap();
    let mut reader = BufReader::new(host.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.starts_with("OK "), "{line}");
    host.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    reader.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "to and fro");
    assert_eq!(vm.wait_for_exit().code, 0);
    assert!(!path.exists(), "the socket goes with the VM");
}

#[test]
fn a_guest_talks_over_a_virtio_console() {
    const NAME: &str = "a_guest_talks_over_a_virtio_console";
    // Raw, so that nothing is echoed.
    let script = "stty -F /dev/hvc0 raw -echo\nexec 3<> /dev/hvc0\necho here is the guest >&3\nread line <&3\n\
                  echo answer=$line\npoweroff -f\n";
    let modules = [&VIRTIO_PCI[..], &["virtio_console"]].concat();
    let linux = match Linux::with_modules(&modules, script) {
        Ok(linux) => linux,
        Err(reason) => return skip(NAME, &reason),
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("console");
    let mut vm = direct(&linux)
        .args(["--virtio-console", &format!("listen={}", path.display())])
        .start();
    vm.wait_for_err("virtio-console is PCI function");
    let mut host = UnixStream::connect(&path).unwrap();
    let mut line = String::new();
    BufReader::new(host.try_clone().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line.trim_end(), "here is the guest");
    host.write_all(b"here is the host\n").unwrap();
    vm.wait_for("answer=here is the host");
    assert_eq!(vm.wait_for_exit().code, 0);
}
