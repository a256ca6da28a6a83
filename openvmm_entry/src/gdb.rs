// SPDX-License-Identifier: MIT
//! `--gdb PORT`: debuggers on a loopback port, one after the other.
//!
//! Always true: the guest does not run before the first debugger lets it; it is stopped while a debugger
//! thinks and runs on when one detaches. Not here: the protocol (`gdb_server`).

use gdb_server::{Debuggee, Server, SessionEnd, Stopped, serve};
use openvmm_core::rpc::{DebugStop, VerbError, VmClient};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use virt::{RunError, Runner, VpDebug, VpStop};
use x86defs::X86State;
use x86defs::paging::PAGE_SIZE;

/// Listens on loopback and serves debuggers on a thread of its own until the VM is gone.
pub(crate) fn listen(port: u16, vp_count: u32, client: VmClient) -> anyhow::Result<()> {
    let server = Server::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    let address = server
        .address()
        .unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    tracing::info!("the guest waits for a debugger: target remote {address}");
    std::thread::Builder::new().name("gdb".into()).spawn(move || {
        let mut machine = Machine {
            client,
            vp_count,
            ended: None,
        };
        while session(&server, &mut machine) {}
    })?;
    Ok(())
}

/// One debugger from connection to end; `false` when no other can follow.
fn session(server: &Server, machine: &mut Machine) -> bool {
    let stream = match server.accept() {
        Ok(stream) => stream,
        Err(error) => {
            tracing::error!("{error}");
            return false;
        }
    };
    let stopped = match machine.client.pause() {
        Ok(()) | Err(VerbError::Paused | VerbError::Halted(_)) => machine.client.set_debugged(true),
        Err(error) => Err(error),
    };
    if stopped.is_err() {
        return false;
    }
    let end = serve(stream, machine);
    let quiet = machine.set_breakpoints(&BTreeSet::new());
    match end {
        Ok(SessionEnd::Killed) => {
            let _ = machine.client.stop(0);
            false
        }
        Ok(SessionEnd::Exited) => false,
        Ok(SessionEnd::Detached) | Err(_) => {
            if let Err(error) = &end {
                tracing::warn!("{error}");
            }
            // The VM may have ended meanwhile; then there is nothing to let run.
            let released = machine
                .client
                .set_debugged(false)
                .and_then(|()| machine.client.resume());
            !matches!(released, Err(VerbError::Gone)) && quiet.is_ok()
        }
    }
}

/// The VM as `gdb_server` drives it.
struct Machine {
    client: VmClient,
    vp_count: u32,
    /// A stop that a step gave.
    ended: Option<Stopped>,
}

impl Machine {
    /// Does `work` on a VP's thread.
    fn on_vp<T: Send + 'static>(
        &self,
        vp: u32,
        work: impl FnOnce(&mut dyn Runner) -> Result<T, RunError> + Send + 'static,
    ) -> Result<T, String> {
        let result = self.client.on_vp(vp, work).map_err(|e| e.to_string())?;
        result.map_err(|e| e.to_string())
    }

    /// Does `work` with a VP's debug support.
    fn debug<T: Send + 'static>(
        &self,
        vp: u32,
        work: impl FnOnce(&mut dyn VpDebug) -> Result<T, RunError> + Send + 'static,
    ) -> Result<T, String> {
        self.on_vp(vp, |runner| match runner.debug() {
            Some(debug) => work(debug),
            None => Err(RunError::Unavailable {
                hypervisor: "debugging",
                reason: "this hypervisor has no support for it; use --hypervisor soft".into(),
            }),
        })
    }

    /// Calls `piece` for each part of a linear range that lies in one mapped page; the count of bytes up
    /// to the first page that is not mapped or not RAM.
    fn pages(
        &self,
        vp: u32,
        address: u64,
        len: usize,
        mut piece: impl FnMut(u64, std::ops::Range<usize>) -> bool,
    ) -> Result<usize, String> {
        let mut done = 0;
        while done < len {
            let at = address.wrapping_add(done as u64);
            let room = (PAGE_SIZE - at % PAGE_SIZE) as usize;
            let end = (done + room).min(len);
            let gpa = self.debug(vp, move |debug| debug.translate(vp, at))?;
            match gpa {
                Some(gpa) if piece(gpa, done..end) => done = end,
                _ => break,
            }
        }
        Ok(done)
    }
}

impl Debuggee for Machine {
    fn vp_count(&self) -> u32 {
        self.vp_count
    }

    fn state(&mut self, vp: u32) -> Result<X86State, String> {
        self.on_vp(vp, move |runner| runner.state(vp))
    }

    fn set_state(&mut self, vp: u32, state: &X86State) -> Result<(), String> {
        let state = *state;
        self.on_vp(vp, move |runner| runner.set_state(vp, &state))
    }

    fn fxsave(&mut self, vp: u32) -> Result<[u8; 512], String> {
        self.debug(vp, move |debug| debug.fxsave(vp))
    }

    fn read(&mut self, vp: u32, address: u64, data: &mut [u8]) -> Result<usize, String> {
        let client = self.client.clone();
        self.pages(vp, address, data.len(), |gpa, range| {
            match client.read_memory(gpa, range.len() as u64) {
                Ok(bytes) => {
                    data[range].copy_from_slice(&bytes);
                    true
                }
                Err(_) => false,
            }
        })
    }

    fn write(&mut self, vp: u32, address: u64, data: &[u8]) -> Result<(), String> {
        let client = self.client.clone();
        let done = self.pages(vp, address, data.len(), |gpa, range| {
            client.write_memory(gpa, data[range].to_vec()).is_ok()
        })?;
        if done == data.len() {
            Ok(())
        } else {
            Err(format!("no memory at {:#x}", address + done as u64))
        }
    }

    fn set_breakpoints(&mut self, addresses: &BTreeSet<u64>) -> Result<(), String> {
        for vp in 0..self.vp_count {
            let addresses: Vec<u64> = addresses.iter().copied().collect();
            self.debug(vp, move |debug| debug.set_breakpoints(&addresses))?;
        }
        Ok(())
    }

    fn resume(&mut self, step: Option<u32>) -> Result<(), String> {
        let Some(vp) = step else {
            return match self.client.resume() {
                // A halted guest cannot run on; the debugger sees it stop at once.
                Err(VerbError::Halted(_)) => {
                    self.ended = Some(Stopped::Crashed(0));
                    Ok(())
                }
                other => other.map_err(|e| e.to_string()),
            };
        };
        self.ended = Some(match self.debug(vp, move |debug| debug.step(vp))? {
            VpStop::TripleFault { vp } | VpStop::Unrunnable { vp, .. } => Stopped::Crashed(vp),
            VpStop::Breakpoint { vp } => Stopped::Breakpoint(vp),
            VpStop::Stepped { vp } => Stopped::Stepped(vp),
            VpStop::Requested => Stopped::Interrupted,
        });
        Ok(())
    }

    fn interrupt(&mut self) -> Result<(), String> {
        match self.client.pause() {
            Ok(()) | Err(VerbError::Paused | VerbError::Halted(_)) => {
                self.ended = Some(Stopped::Interrupted);
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn wait(&mut self, limit: Duration) -> Option<Stopped> {
        if let Some(stopped) = self.ended.take() {
            return Some(stopped);
        }
        match self.client.debug_stop() {
            Ok(Some(DebugStop::Breakpoint(vp))) => Some(Stopped::Breakpoint(vp)),
            Ok(Some(DebugStop::Crashed)) => Some(Stopped::Crashed(0)),
            Ok(None) => {
                std::thread::sleep(limit);
                None
            }
            Err(_) => Some(Stopped::Exited(0)),
        }
    }
}
