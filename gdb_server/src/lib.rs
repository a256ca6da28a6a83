// SPDX-License-Identifier: MIT
//! The GDB remote protocol for a virtual machine: break, step, registers and memory of every VP, from
//! the first instruction on.
//!
//! Always true: one debugger at a time, on loopback unless told otherwise; the machine is stopped while
//! the debugger thinks; VP `n` is thread `n + 1`. Outside 64-bit mode the instruction pointer is shown
//! and taken as a linear address (CS base added), so that `x/i $pc` and breakpoints mean what they say in
//! real mode too.
//! Not here: how a machine runs or stops ([`Debuggee`]).
#![forbid(unsafe_code)]

mod registers;
mod target;

use gdbstub::common::Signal;
use gdbstub::conn::{Connection, ConnectionExt};
use gdbstub::stub::run_blocking::{BlockingEventLoop, Event, WaitForStopReasonError};
use gdbstub::stub::{DisconnectReason, GdbStub, MultiThreadStopReason};
use gdbstub::target::Target;
use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use target::{Adapter, tid};
use x86defs::X86State;

/// Why a machine that was resumed stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// A VP is at a breakpoint.
    Breakpoint(u32),
    /// The VP that was to step has stepped.
    Stepped(u32),
    /// [`Debuggee::interrupt`] stopped it.
    Interrupted,
    /// A VP crashed; its state can be read.
    Crashed(u32),
    /// The machine is gone; the code is what the process exits with.
    Exited(u8),
}

/// A machine as the server needs it. The server calls it from one thread.
pub trait Debuggee {
    /// Number of VPs.
    fn vp_count(&self) -> u32;
    /// Registers of a stopped VP.
    fn state(&mut self, vp: u32) -> Result<X86State, String>;
    /// Replaces registers of a stopped VP.
    fn set_state(&mut self, vp: u32, state: &X86State) -> Result<(), String>;
    /// x87 and SSE registers as a 64-bit FXSAVE image.
    fn fxsave(&mut self, vp: u32) -> Result<[u8; 512], String>;
    /// Reads memory at a linear address of a VP; the count is how many bytes could be read.
    fn read(&mut self, vp: u32, address: u64, data: &mut [u8]) -> Result<usize, String>;
    /// Writes memory at a linear address of a VP.
    fn write(&mut self, vp: u32, address: u64, data: &[u8]) -> Result<(), String>;
    /// Replaces the set of breakpoints (linear addresses).
    fn set_breakpoints(&mut self, addresses: &BTreeSet<u64>) -> Result<(), String>;
    /// Lets the machine run, or one VP for one instruction.
    fn resume(&mut self, step: Option<u32>) -> Result<(), String>;
    /// Asks a running machine to stop; the stop comes through [`Debuggee::wait`].
    fn interrupt(&mut self) -> Result<(), String>;
    /// Waits for a stop, at most `limit`.
    fn wait(&mut self, limit: Duration) -> Option<Stopped>;
}

/// What ended a session with a debugger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// It let go; the machine should run on.
    Detached,
    /// It asked for the machine to be killed.
    Killed,
    /// The machine ended.
    Exited,
}

/// A failure of the server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The port cannot be listened on.
    #[error("cannot listen for gdb on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The host's answer.
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("the connection to gdb broke: {0}")]
    Connection(String),
    /// The machine could not do what the debugger asked.
    #[error("the machine cannot be debugged on: {0}")]
    Target(String),
}

/// Listens for debuggers.
pub struct Server {
    listener: TcpListener,
}

impl Server {
    /// Listens on `address`; port 0 picks a free one.
    pub fn listen(address: SocketAddr) -> Result<Self, ServerError> {
        let listener =
            TcpListener::bind(address).map_err(|source| ServerError::Listen { address, source })?;
        Ok(Self { listener })
    }

    /// Where it listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Waits for a debugger. The machine should be stopped by the time [`serve`] is called.
    pub fn accept(&self) -> Result<TcpStream, ServerError> {
        let (stream, _) = self
            .listener
            .accept()
            .map_err(|e| ServerError::Connection(e.to_string()))?;
        stream
            .set_nodelay(true)
            .map_err(|e| ServerError::Connection(e.to_string()))?;
        Ok(stream)
    }
}

/// Serves one debugger until it leaves or the machine ends. The machine must be stopped.
pub fn serve<D: Debuggee>(stream: TcpStream, machine: &mut D) -> Result<SessionEnd, ServerError> {
    let mut adapter = Adapter::new(machine);
    let stub = GdbStub::new(stream);
    match stub.run_blocking::<EventLoop<'_, D>>(&mut adapter) {
        Ok(DisconnectReason::Disconnect) => Ok(SessionEnd::Detached),
        Ok(DisconnectReason::Kill) => Ok(SessionEnd::Killed),
        Ok(DisconnectReason::TargetExited(_) | DisconnectReason::TargetTerminated(_)) => {
            Ok(SessionEnd::Exited)
        }
        Err(e) if e.is_target_error() => Err(ServerError::Target(e.into_target_error().unwrap_or_default())),
        Err(e) => Err(ServerError::Connection(e.to_string())),
    }
}

/// How long to look for a stop before looking at the connection again.
const POLL: Duration = Duration::from_millis(5);

struct EventLoop<'m, D>(PhantomData<&'m mut D>);

type WaitError<C> = WaitForStopReasonError<String, C>;

impl<'m, D: Debuggee> BlockingEventLoop for EventLoop<'m, D> {
    type Target = Adapter<'m, D>;
    type Connection = TcpStream;
    type StopReason = MultiThreadStopReason<u64>;

    fn wait_for_stop_reason(
        target: &mut Self::Target,
        connection: &mut Self::Connection,
    ) -> Result<Event<Self::StopReason>, WaitError<<Self::Connection as Connection>::Error>> {
        loop {
            if let Some(stopped) = target.machine().wait(POLL) {
                return Ok(Event::TargetStopped(stop_reason(&stopped)));
            }
            if connection
                .peek()
                .map_err(WaitForStopReasonError::Connection)?
                .is_some()
            {
                let byte = ConnectionExt::read(connection).map_err(WaitForStopReasonError::Connection)?;
                return Ok(Event::IncomingData(byte));
            }
        }
    }

    fn on_interrupt(
        target: &mut Self::Target,
    ) -> Result<Option<Self::StopReason>, <Self::Target as Target>::Error> {
        target.machine().interrupt()?;
        Ok(None)
    }
}

fn stop_reason(stopped: &Stopped) -> MultiThreadStopReason<u64> {
    match stopped {
        Stopped::Breakpoint(vp) => MultiThreadStopReason::SwBreak(tid(*vp)),
        Stopped::Stepped(_) => MultiThreadStopReason::DoneStep,
        Stopped::Interrupted => MultiThreadStopReason::Signal(Signal::SIGINT),
        Stopped::Crashed(vp) => MultiThreadStopReason::SignalWithThread {
            tid: tid(*vp),
            signal: Signal::SIGABRT,
        },
        Stopped::Exited(code) => MultiThreadStopReason::Exited(*code),
    }
}
