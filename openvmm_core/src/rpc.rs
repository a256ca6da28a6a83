// SPDX-License-Identifier: MIT
//! The typed verbs that drive a running VM, over tokio channels.
//!
//! Always true: each verb has one request type and one answer type; a client may live on any thread and
//! blocks only for its own answer. Not here: what the verbs do ([`crate::dispatch`]).

use crate::vp_thread::Job;
pub use chipset::battery::Charge;
use guest_memory::MemoryError;
use tokio::sync::{mpsc, oneshot};
use virt::{Runner, VpIndex};

/// Most bytes that one memory read returns.
pub const MAX_MEMORY_READ: u64 = 1 << 20;

/// A verb was not carried out.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum VerbError {
    #[error("the guest is running already")]
    Running,
    #[error("the guest is paused already")]
    Paused,
    #[error("the guest has ended ({0}); reset starts it again")]
    Halted(String),
    #[error("a read of {0:#x} bytes is more than {MAX_MEMORY_READ:#x}")]
    TooLong(u64),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error("the guest has no battery; start it with --battery")]
    NoBattery,
    #[error("the guest has no keyboard; start it with --gfx")]
    NoKeyboard,
    #[error("there is no vp {0}")]
    NoSuchVp(VpIndex),
    #[error("the vm is gone")]
    Gone,
}

/// One call: what is asked, and where the answer goes.
#[derive(Debug)]
pub(crate) struct Call<I, O> {
    pub(crate) input: I,
    reply: oneshot::Sender<O>,
}

impl<I, O> Call<I, O> {
    /// Takes the input out.
    pub(crate) fn take(self) -> (I, Call<(), O>) {
        let Self { input, reply } = self;
        (input, Call { input: (), reply })
    }

    /// Answers; a client that has gone away does not mind.
    pub(crate) fn answer(self, output: O) {
        let _ = self.reply.send(output);
    }
}

type Verb<I, O> = Call<I, Result<O, VerbError>>;

/// What a client can ask.
#[derive(Debug)]
pub(crate) enum Request {
    Start(Verb<(), ()>),
    Pause(Verb<(), ()>),
    Resume(Verb<(), ()>),
    Reset(Verb<(), ()>),
    Nmi(Verb<(), ()>),
    Shutdown(Verb<(), &'static str>),
    Battery(Verb<Charge, ()>),
    Type(Verb<String, ()>),
    Inspect(Verb<(), String>),
    ReadMemory(Verb<MemoryRange, Vec<u8>>),
    Dump(Verb<(), String>),
    /// What only a debugger asks.
    Debugger(DebugRequest),
    /// Ends the VM with this exit code.
    Stop(Verb<u8, ()>),
}

/// What only a debugger asks.
#[derive(Debug)]
pub(crate) enum DebugRequest {
    WriteMemory(Verb<(u64, Vec<u8>), ()>),
    /// Does something with a stopped VP's runner, on its thread.
    OnVp(Verb<OnVp, ()>),
    /// A debugger is attached: crashes pause instead of ending the VM.
    Attach(Verb<bool, ()>),
    /// Why the guest stopped for the debugger since the last call.
    TakeStop(Verb<(), Option<DebugStop>>),
}

/// A job for the thread that runs `vp`.
pub(crate) struct OnVp {
    pub(crate) vp: VpIndex,
    pub(crate) job: Job,
}

impl std::fmt::Debug for OnVp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "job on vp {}", self.vp)
    }
}

/// Why a guest under a debugger stopped by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DebugStop {
    /// A VP is at a breakpoint.
    Breakpoint(VpIndex),
    /// The guest crashed; its state can be read.
    Crashed,
}

/// Bytes to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MemoryRange {
    pub(crate) gpa: u64,
    pub(crate) len: u64,
}

/// The worker's end.
#[derive(Debug)]
pub struct Requests(pub(crate) mpsc::Receiver<Request>);

/// A client, and the end that the worker is given.
pub fn channel() -> (VmClient, Requests) {
    let (requests, worker) = mpsc::channel(8);
    (VmClient { requests }, Requests(worker))
}

/// Drives a VM from another thread. Clones drive the same VM.
#[derive(Debug, Clone)]
pub struct VmClient {
    requests: mpsc::Sender<Request>,
}

impl VmClient {
    /// Lets the guest run for the first time.
    pub fn start(&self) -> Result<(), VerbError> {
        self.call((), Request::Start)
    }

    /// Stops all VPs and the clock.
    pub fn pause(&self) -> Result<(), VerbError> {
        self.call((), Request::Pause)
    }

    /// Continues after a pause, or starts a VM that was created paused.
    pub fn resume(&self) -> Result<(), VerbError> {
        self.call((), Request::Resume)
    }

    /// Launches the guest again: same GUID, fresh entropy.
    pub fn reset(&self) -> Result<(), VerbError> {
        self.call((), Request::Reset)
    }

    /// Asks the guest to power off; says how it was asked.
    pub fn shutdown(&self) -> Result<&'static str, VerbError> {
        self.call((), Request::Shutdown)
    }

    /// Says that the host's battery has changed.
    pub fn set_battery(&self, charge: Charge) -> Result<(), VerbError> {
        self.call(charge, Request::Battery)
    }

    /// Types `text` and the enter key on the guest's keyboard.
    pub fn type_line(&self, text: String) -> Result<(), VerbError> {
        self.call(text, Request::Type)
    }

    /// Raises an NMI on the boot processor.
    pub fn nmi(&self) -> Result<(), VerbError> {
        self.call((), Request::Nmi)
    }

    /// State of the VM and its devices, as text.
    pub fn inspect(&self) -> Result<String, VerbError> {
        self.call((), Request::Inspect)
    }

    /// Guest RAM, at most [`MAX_MEMORY_READ`] bytes.
    pub fn read_memory(&self, gpa: u64, len: u64) -> Result<Vec<u8>, VerbError> {
        self.call(MemoryRange { gpa, len }, Request::ReadMemory)
    }

    /// Registers of all VPs and the code at their instruction pointers, as text.
    pub fn dump(&self) -> Result<String, VerbError> {
        self.call((), Request::Dump)
    }

    /// Writes guest RAM.
    pub fn write_memory(&self, gpa: u64, bytes: Vec<u8>) -> Result<(), VerbError> {
        self.call((gpa, bytes), |verb| {
            Request::Debugger(DebugRequest::WriteMemory(verb))
        })
    }

    /// Does `work` with the runner of a VP, on its thread. The guest must be stopped.
    pub fn on_vp<T: Send + 'static>(
        &self,
        vp: VpIndex,
        work: impl FnOnce(&mut dyn Runner) -> T + Send + 'static,
    ) -> Result<T, VerbError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |runner| {
            // A client that has gone away does not mind.
            let _ = reply.send(work(runner));
        });
        self.call(OnVp { vp, job }, |verb| {
            Request::Debugger(DebugRequest::OnVp(verb))
        })?;
        answer.blocking_recv().map_err(|_| VerbError::Gone)
    }

    /// Says that a debugger is attached, or no longer is. While one is, a crash pauses the guest.
    pub fn set_debugged(&self, attached: bool) -> Result<(), VerbError> {
        self.call(attached, |verb| Request::Debugger(DebugRequest::Attach(verb)))
    }

    /// Why the guest stopped for the debugger since the last call; `None` while it has not.
    pub fn debug_stop(&self) -> Result<Option<DebugStop>, VerbError> {
        self.call((), |verb| Request::Debugger(DebugRequest::TakeStop(verb)))
    }

    /// Ends the VM; the process is to exit with `code`.
    pub fn stop(&self, code: u8) -> Result<(), VerbError> {
        self.call(code, Request::Stop)
    }

    fn call<I, O>(&self, input: I, request: fn(Verb<I, O>) -> Request) -> Result<O, VerbError> {
        let (reply, answer) = oneshot::channel();
        self.requests
            .blocking_send(request(Call { input, reply }))
            .map_err(|_| VerbError::Gone)?;
        answer.blocking_recv().map_err(|_| VerbError::Gone)?
    }
}
