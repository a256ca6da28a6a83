// SPDX-License-Identifier: MIT
//! The terminal, the serial backends, and the ways in which a VM ends, with the probe's monitor
//! (`--uefi-debug`) as the guest.

use crate::images::{Folder, arg};
use guest_protocol::control::{MONITOR_PROMPT, command};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use vmm_tests::files::{self, TestFile};
use vmm_tests::{Backend, Vm, VmBuilder, on_every_backend};

const CTRL_Q: &[u8] = b"\x11";

/// A guest that waits in its monitor.
fn monitor(backend: Backend) -> (TestFile, VmBuilder) {
    let file = files::uefi_probe();
    let builder = Vm::builder(backend)
        .uefi_igvm(file.path())
        .args(["-m", "256MB", "--uefi-debug"]);
    (file, builder)
}

/// Connects as soon as the other side listens.
fn connected<S>(connect: impl Fn() -> std::io::Result<S>) -> S {
    let limit = Instant::now() + Duration::from_secs(60);
    loop {
        match connect() {
            Ok(stream) => return stream,
            Err(error) if Instant::now() > limit => panic!("nobody listens: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Types `k` until the guest says that it read it: what comes before its serial port is set up is lost.
fn type_until_answered(stream: &mut (impl Read + Write)) {
    let limit = Instant::now() + Duration::from_secs(120);
    let mut bytes = Vec::new();
    let mut buffer = [0; 256];
    while !bytes.windows(11).any(|window| window == b"input: 0x6b") {
        assert!(
            Instant::now() < limit,
            "no answer but {}",
            String::from_utf8_lossy(&bytes)
        );
        stream.write_all(b"k").unwrap();
        match stream.read(&mut buffer) {
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Reads until `wanted` has come.
fn read_until(stream: &mut impl Read, wanted: &str) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(wanted.as_bytes()) {
        let count = stream.read(&mut byte).unwrap();
        assert_ne!(
            count,
            0,
            "the stream ended after {}",
            String::from_utf8_lossy(&bytes)
        );
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap()
}

on_every_backend! {
    fn keys_reach_the_guest_ctrl_c_included(backend) {
        let (_file, builder) = monitor(backend);
        let mut vm = builder.start();
        vm.wait_for(MONITOR_PROMPT);
        vm.send(b"\x03");
        vm.wait_for("input: 0x03");
        vm.wait_for(MONITOR_PROMPT);
        vm.send(&[command::POWER_OFF]);
        assert_eq!(vm.wait_for_exit().code, 0);
    }

    fn ctrl_q_opens_the_prompt_and_its_commands_work(backend) {
        let (_file, builder) = monitor(backend);
        let mut vm = builder.start();
        vm.wait_for(MONITOR_PROMPT);
        vm.send(CTRL_Q);
        vm.send(b"pause\ninspect\nmemory 0x709000 16\ndump\n");
        // The blob begins with structure type 0 of 16 bytes.
        vm.wait_for_err("00 00 00 00 10 00 00 00");
        vm.wait_for_err("rip");
        vm.send(b"resume\n\n");
        vm.send(b"k");
        vm.wait_for("input: 0x6b");
        vm.wait_for(MONITOR_PROMPT);
        vm.send(CTRL_Q);
        vm.send(b"reset\n\n");
        vm.wait_for("start: uefi_probe");
        vm.wait_for(MONITOR_PROMPT);
        vm.send(CTRL_Q);
        vm.send(b"quit\n");
        assert_eq!(vm.wait_for_exit().code, 0);
    }

    fn paused_guest_starts_at_resume(backend) {
        let (_file, builder) = monitor(backend);
        let mut vm = builder.args(["-P"]).start();
        vm.wait_for_err("the guest is paused");
        assert!(!vm.transcript().contains("start: uefi_probe"));
        vm.send(CTRL_Q);
        vm.send(b"resume\n\n");
        vm.wait_for(MONITOR_PROMPT);
    }

    fn spinning_guest_can_be_paused_reset_and_stopped(backend) {
        let (_file, builder) = monitor(backend);
        let mut vm = builder.start();
        vm.wait_for(MONITOR_PROMPT);
        vm.send(&[command::SPIN]);
        vm.send(CTRL_Q);
        vm.send(b"pause\nresume\nreset\n\n");
        vm.wait_for("start: uefi_probe");
        vm.wait_for(MONITOR_PROMPT);
        vm.send(&[command::SPIN]);
        vm.send(CTRL_Q);
        vm.send(b"quit\n");
        assert_eq!(vm.wait_for_exit().code, 0);
    }

    fn end_actions_give_the_exit_code(backend) {
        for (command, options, code) in [
            (command::POWER_OFF, &[][..], 0),
            (command::POWER_OFF, &["--guest-shutdown-action", "exit:5"], 5),
            (command::RESET, &["--guest-reset-action", "exit:6"], 6),
            (command::CRASH, &[], 3),
            (command::CRASH, &["--guest-crash-action", "exit:9"], 9),
        ] {
            let (_file, builder) = monitor(backend);
            let mut vm = builder.args(options.iter().copied()).start();
            vm.wait_for(MONITOR_PROMPT);
            vm.send(&[command]);
            let ended = vm.wait_for_exit();
            assert_eq!(ended.code, code, "{options:?}\n{}", ended.stderr);
        }
    }

    fn crash_is_reported_with_registers(backend) {
        let (_file, builder) = monitor(backend);
        let mut vm = builder.start();
        vm.wait_for(MONITOR_PROMPT);
        vm.send(&[command::CRASH]);
        let ended = vm.wait_for_exit();
        assert!(ended.stderr.contains("triple fault"), "{}", ended.stderr);
        assert!(ended.stderr.contains("rip"), "{}", ended.stderr);
    }

    fn crash_action_reset_boots_again(backend) {
        let (_file, builder) = monitor(backend);
        let mut vm = builder.args(["--guest-crash-action", "reset"]).start();
        vm.wait_for(MONITOR_PROMPT);
        vm.send(&[command::CRASH]);
        vm.wait_for("start: uefi_probe");
        vm.wait_for(MONITOR_PROMPT);
    }

    fn test_exit_device_ends_with_the_low_seven_bits(backend) {
        let (_file, builder) = monitor(backend);
        let mut vm = builder.args(["--test-exit"]).start();
        vm.wait_for(MONITOR_PROMPT);
        vm.send(&[command::TEST_EXIT, b'7']);
        assert_eq!(vm.wait_for_exit().code, 7);
    }

    fn com1_can_be_a_file_stderr_or_nothing(backend) {
        let file = files::uefi_probe();
        let log = file.beside("com1.log");
        let base = Vm::builder(backend).uefi_igvm(file.path()).args(["-m", "256MB"]);
        let to_file = base.clone().args(["--com1".to_owned(), format!("file={}", arg(&log))]).run();
        assert_eq!((to_file.code, to_file.stdout.as_str()), (0, ""));
        vmm_tests::Report::parse(&std::fs::read_to_string(&log).unwrap()).unwrap().assert_all_ok();
        let to_stderr = base.clone().args(["--com1", "stderr"]).run();
        assert_eq!((to_stderr.code, to_stderr.stdout.as_str()), (0, ""));
        vmm_tests::Report::parse(&to_stderr.stderr).unwrap().assert_all_ok();
        let nowhere = base.args(["--com1", "none"]).run();
        assert_eq!((nowhere.code, nowhere.stdout.as_str()), (0, ""));
        assert!(!nowhere.stderr.contains("start: uefi_probe"));
    }

    fn com1_listens_on_a_unix_socket(backend) {
        let (file, builder) = monitor(backend);
        let socket = file.beside("com1.sock");
        let mut vm = builder.args(["--com1".to_owned(), format!("listen={}", arg(&socket))]).start();
        let mut stream = connected(|| UnixStream::connect(&socket));
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        type_until_answered(&mut stream);
        stream.write_all(&[command::POWER_OFF]).unwrap();
        assert_eq!(vm.wait_for_exit().code, 0);
        assert!(!socket.exists(), "the socket is left behind");
    }

    fn sigterm_stops_cleanly(backend) {
        let (_file, builder) = monitor(backend);
        let mut vm = builder.start();
        vm.wait_for(MONITOR_PROMPT);
        let pid = rustix::process::Pid::from_raw(vm.id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let ended = vm.wait_for_exit();
        assert!(ended.code >= 0, "it was killed by the signal\n{}", ended.stderr);
    }
}

#[test]
fn com1_listens_on_tcp() {
    let (_file, builder) = monitor(Backend::Soft);
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut vm = builder
        .args(["--com1".to_owned(), format!("listen=tcp:127.0.0.1:{port}")])
        .start();
    let mut stream = connected(|| std::net::TcpStream::connect(("127.0.0.1", port)));
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    type_until_answered(&mut stream);
    stream.write_all(&[command::POWER_OFF]).unwrap();
    assert_eq!(vm.wait_for_exit().code, 0);
}

/// On a real terminal: raw while the guest runs, as it was afterwards, however it ends.
#[test]
fn terminal_is_raw_while_running_and_restored_afterwards() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{LocalModes, tcgetattr};
    let (_file, builder) = monitor(Backend::Soft);
    for (end, code) in [(&b"s"[..], Some(0)), (b"c", Some(3)), (b"\x11quit\n", Some(0))] {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let open = || {
            std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open(name.to_str().unwrap())
                .unwrap()
        };
        let theirs = open();
        let before = tcgetattr(&theirs).unwrap();
        assert!(before.local_modes.contains(LocalModes::ICANON));
        let mut command = builder.command();
        let mut child = command
            .stdin(open())
            .stdout(open())
            .stderr(open())
            .spawn()
            .unwrap();
        drop(command);
        let mut screen = std::fs::File::from(ours);
        read_until(&mut screen, MONITOR_PROMPT);
        assert!(
            !tcgetattr(&theirs)
                .unwrap()
                .local_modes
                .contains(LocalModes::ICANON),
            "the terminal is not raw"
        );
        screen.write_all(end).unwrap();
        // Somebody must read, or the program blocks on a full terminal.
        let reader = std::thread::spawn(move || {
            let mut rest = Vec::new();
            // The terminal's other side being closed is reported as an error.
            let _ = screen.read_to_end(&mut rest);
            rest
        });
        let status = child.wait().unwrap();
        let after = tcgetattr(&theirs).unwrap();
        drop(theirs);
        let rest = String::from_utf8_lossy(&reader.join().unwrap()).into_owned();
        assert_eq!(status.code(), code, "{end:?}\n{rest}");
        assert_eq!(after.local_modes, before.local_modes, "{end:?}");
        assert_eq!(after.input_modes, before.input_modes, "{end:?}");
        assert_eq!(after.output_modes, before.output_modes, "{end:?}");
    }
}

#[test]
fn folders_and_taken_sockets_are_refused_as_backends() {
    let file = files::uefi_probe();
    let folder = Folder::new();
    let base = Vm::builder(Backend::Soft)
        .uefi_igvm(file.path())
        .args(["-m", "256MB"]);
    let spec = format!("file={}", arg(&folder.path("missing/log")));
    let ended = base.args(["--com1".to_owned(), spec]).run();
    assert_eq!(ended.code, 1);
    let message = folder.strip(&ended.stderr);
    assert_eq!(
        message,
        "openvmm: --com1 file=missing/log: No such file or directory (os error 2)\n"
    );
}
