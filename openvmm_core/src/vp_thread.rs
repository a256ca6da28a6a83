// SPDX-License-Identifier: MIT
//! One std thread per [`Runner`].
//!
//! Always true: a runner is touched by its own thread only; a thread that dies (a bug) is reported, not
//! waited for. Not here: what a stop means.

use std::ops::Range;
use std::sync::mpsc;
use std::thread::JoinHandle;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use virt::{RunError, Runner, VpIndex, VpStop};
use x86defs::X86State;

/// What VP threads and devices tell the worker.
#[derive(Debug)]
pub(crate) enum Event {
    /// The run call of a thread returned.
    Stopped(Result<VpStop, RunError>),
    /// A thread ended without being asked.
    Died(Range<VpIndex>),
    /// The firmware goes no further; the text says how.
    Look(String),
    /// A device asks for something.
    Power(chipset_device::PowerRequest),
}

enum Command {
    Run,
    Reset(oneshot::Sender<Result<(), RunError>>),
    With(Job),
}

/// Something to do with a runner on its own thread.
pub(crate) type Job = Box<dyn FnOnce(&mut dyn Runner) + Send>;

/// A runner on its thread.
pub(crate) struct VpThread {
    vps: Range<VpIndex>,
    commands: mpsc::Sender<Command>,
    thread: JoinHandle<()>,
}

impl VpThread {
    /// Moves `runner` to a thread of its own, idle.
    pub(crate) fn spawn(runner: Box<dyn Runner>, events: UnboundedSender<Event>) -> std::io::Result<Self> {
        let vps = runner.vps();
        let (commands, inbox) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(format!("vp{}", vps.start))
            .spawn(move || serve(runner, &inbox, events))?;
        Ok(Self {
            vps,
            commands,
            thread,
        })
    }

    /// The VPs that it runs.
    pub(crate) fn vps(&self) -> Range<VpIndex> {
        self.vps.clone()
    }

    /// Enters the guest; an [`Event::Stopped`] follows.
    pub(crate) fn run(&self) {
        // A dead thread has reported itself already.
        let _ = self.commands.send(Command::Run);
    }

    /// Puts its VPs in the state of the last launch.
    pub(crate) async fn reset(&self) -> Result<(), RunError> {
        let (reply, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Reset(reply));
        answer.await.unwrap_or_else(|_| Err(self.dead()))
    }

    /// Registers of one of its VPs.
    pub(crate) async fn state(&self, vp: VpIndex) -> Result<X86State, RunError> {
        let (reply, answer) = oneshot::channel();
        self.with(Box::new(move |runner| {
            let _ = reply.send(runner.state(vp));
        }));
        answer.await.unwrap_or_else(|_| Err(self.dead()))
    }

    /// Instructions that one of its VPs has retired; `None` when the backend does not count.
    pub(crate) async fn retired(&self, vp: VpIndex) -> Result<Option<u64>, RunError> {
        let (reply, answer) = oneshot::channel();
        self.with(Box::new(move |runner| {
            // Whoever asked may have given up.
            let _ = reply.send(runner.retired(vp));
        }));
        answer.await.map_err(|_| self.dead())
    }

    /// Does `job` on the thread, which must not be in its run call. A dead thread drops it.
    pub(crate) fn with(&self, job: Job) {
        let _ = self.commands.send(Command::With(job));
    }

    /// Ends the thread, which must not be in its run call.
    pub(crate) fn join(self) {
        drop(self.commands);
        // A panic was reported as Event::Died.
        let _ = self.thread.join();
    }

    fn dead(&self) -> RunError {
        RunError::Host {
            what: format!("thread of vp {}", self.vps.start),
            reason: "it has died".into(),
        }
    }
}

/// Reports the end of its thread unless told that all is well.
struct DeathNotice {
    events: UnboundedSender<Event>,
    vps: Range<VpIndex>,
    expected: bool,
}

impl Drop for DeathNotice {
    fn drop(&mut self) {
        if !self.expected {
            let _ = self.events.send(Event::Died(self.vps.clone()));
        }
    }
}

fn serve(mut runner: Box<dyn Runner>, inbox: &mpsc::Receiver<Command>, events: UnboundedSender<Event>) {
    let mut notice = DeathNotice {
        events: events.clone(),
        vps: runner.vps(),
        expected: false,
    };
    for command in inbox {
        match command {
            Command::Run => {
                let _ = events.send(Event::Stopped(runner.run()));
            }
            Command::Reset(reply) => {
                let _ = reply.send(runner.reset());
            }
            Command::With(job) => job(&mut *runner),
        }
    }
    notice.expected = true;
}
