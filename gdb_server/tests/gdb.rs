// SPDX-License-Identifier: MIT
//! Debian's gdb against a machine of a few lines: registers, memory, breakpoints, stepping, detaching.

use gdb_server::{Debuggee, Server, SessionEnd, Stopped, serve};
use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;
use x86defs::X86State;

/// Every instruction is one byte long and does nothing; the machine has 64 KiB at the reset vector.
struct Machine {
    state: X86State,
    memory: Vec<u8>,
    breakpoints: BTreeSet<u64>,
    running: Option<Option<u32>>,
}

const BASE: u64 = 0xFFFF_0000;

impl Debuggee for Machine {
    fn vp_count(&self) -> u32 {
        2
    }
    fn state(&mut self, _vp: u32) -> Result<X86State, String> {
        Ok(self.state)
    }
    fn set_state(&mut self, _vp: u32, state: &X86State) -> Result<(), String> {
        self.state = *state;
        Ok(())
    }
    fn fxsave(&mut self, _vp: u32) -> Result<[u8; 512], String> {
        Ok([0; 512])
    }
    fn read(&mut self, _vp: u32, address: u64, data: &mut [u8]) -> Result<usize, String> {
        let Some(start) = address.checked_sub(BASE).filter(|s| *s < 0x1_0000) else {
            return Ok(0);
        };
        let n = data.len().min(0x1_0000 - start as usize);
        data[..n].copy_from_slice(&self.memory[start as usize..start as usize + n]);
        Ok(n)
    }
    fn write(&mut self, _vp: u32, address: u64, data: &[u8]) -> Result<(), String> {
        let start = address
            .checked_sub(BASE)
            .filter(|s| *s < 0x1_0000)
            .ok_or("not memory")? as usize;
        self.memory
            .get_mut(start..start + data.len())
            .ok_or("not memory")?
            .copy_from_slice(data);
        Ok(())
    }
    fn set_breakpoints(&mut self, addresses: &BTreeSet<u64>) -> Result<(), String> {
        self.breakpoints.clone_from(addresses);
        Ok(())
    }
    fn resume(&mut self, step: Option<u32>) -> Result<(), String> {
        self.running = Some(step);
        Ok(())
    }
    fn interrupt(&mut self) -> Result<(), String> {
        Ok(())
    }
    fn wait(&mut self, _limit: Duration) -> Option<Stopped> {
        let step = self.running.take()?;
        loop {
            self.state.rip = (self.state.rip + 1) & 0xFFFF;
            if let Some(vp) = step {
                return Some(Stopped::Stepped(vp));
            }
            if self.breakpoints.contains(&(BASE + self.state.rip)) {
                return Some(Stopped::Breakpoint(0));
            }
        }
    }
}

#[test]
fn gdb_steps_breaks_and_reads_memory_from_the_reset_vector() {
    if Command::new("gdb")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        println!("skipped: gdb_steps_breaks_and_reads_memory_from_the_reset_vector: gdb is not installed");
        return;
    }
    let server = Server::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = server.address().unwrap().port();
    let commands = [
        "set architecture i386:x86-64".to_string(),
        format!("target remote 127.0.0.1:{port}"),
        "print/x $pc".to_string(),
        "stepi".to_string(),
        "print/x $pc".to_string(),
        "break *0xffff0004".to_string(),
        "continue".to_string(),
        "print/x $pc".to_string(),
        "x/4xb 0xffff0004".to_string(),
        "set {char}0xffff0004 = 0x7f".to_string(),
        "x/1xb 0xffff0004".to_string(),
        "info threads".to_string(),
        "delete".to_string(),
        "detach".to_string(),
    ];
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for c in &commands {
        gdb.args(["-ex", c]);
    }
    let gdb = gdb.spawn().unwrap();
    let memory = (0..0x1_0000u32).map(|i| i as u8).collect();
    let mut machine = Machine {
        state: X86State::reset(),
        memory,
        breakpoints: BTreeSet::new(),
        running: None,
    };
    let end = serve(server.accept().unwrap(), &mut machine).unwrap();
    let output = gdb.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(end, SessionEnd::Detached, "{text}\n{errors}");
    let wanted = [
        "$1 = 0xfffffff0",
        "$2 = 0xfffffff1",
        "$3 = 0xffff0004",
        "0x04\t0x05\t0x06\t0x07",
        "0x7f",
        "vp 0 (bsp)",
        "vp 1",
    ];
    for wanted in wanted {
        assert!(text.contains(wanted), "{wanted} not in:\n{text}\n{errors}");
    }
    assert!(machine.breakpoints.is_empty());
}
