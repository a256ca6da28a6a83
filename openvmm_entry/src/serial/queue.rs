// SPDX-License-Identifier: MIT
//! A bounded byte queue between a VP and the thread that writes to the other side.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most bytes that wait for the other side.
pub(super) const CAPACITY: usize = 1 << 20;

#[derive(Debug, Default)]
struct State {
    bytes: VecDeque<u8>,
    /// Somebody takes bytes out; without that nobody waits for the queue to empty.
    attached: bool,
    /// Taken bytes are still being written.
    writing: bool,
    /// The current other side has gone.
    hung_up: bool,
    warned: bool,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    name: String,
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    /// An empty queue; `name` is for messages.
    pub(super) fn new(name: String) -> Arc<Self> {
        Arc::new(Self {
            name,
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds bytes without waiting; the oldest go when there are too many.
    pub(super) fn push(&self, bytes: &[u8]) {
        let mut s = self.lock();
        s.bytes.extend(bytes);
        let excess = s.bytes.len().saturating_sub(CAPACITY);
        s.bytes.drain(..excess);
        if excess > 0 && s.attached && !std::mem::replace(&mut s.warned, true) {
            tracing::warn!(
                "{}: the other side is too slow; output of the guest is being dropped",
                self.name
            );
        }
        drop(s);
        self.changed.notify_all();
    }

    /// Says that somebody takes bytes out, or no longer does.
    pub(super) fn attach(&self, attached: bool) {
        let mut s = self.lock();
        s.attached = attached;
        s.hung_up = false;
    }

    /// Ends the current [`Queue::take`]: the other side has gone.
    pub(super) fn hang_up(&self) {
        self.lock().hung_up = true;
        self.changed.notify_all();
    }

    /// Waits for bytes and takes all of them; `None` after a hang-up. The bytes taken before count as
    /// written now.
    pub(super) fn take(&self) -> Option<Vec<u8>> {
        let mut s = self.lock();
        s.writing = false;
        self.changed.notify_all();
        let mut s = self
            .changed
            .wait_while(s, |s| s.bytes.is_empty() && !s.hung_up)
            .unwrap_or_else(PoisonError::into_inner);
        if s.hung_up {
            return None;
        }
        s.writing = true;
        Some(s.bytes.drain(..).collect())
    }

    /// Waits until everything has been written, nobody takes bytes, or `limit` passes.
    pub(super) fn wait_empty(&self, limit: Duration) {
        let busy = |s: &mut State| s.attached && !s.hung_up && (s.writing || !s.bytes.is_empty());
        drop(self.changed.wait_timeout_while(self.lock(), limit, busy));
    }
}

/// Writes the queue to `out` on a thread of its own. After a failure the rest is dropped.
pub(super) fn drain_into(queue: &Arc<Queue>, mut out: impl Write + Send + 'static) -> std::io::Result<()> {
    queue.attach(true);
    let queue = queue.clone();
    std::thread::Builder::new().name("serial".into()).spawn(move || {
        let mut broken = false;
        while let Some(bytes) = queue.take() {
            if broken {
                continue;
            }
            if let Err(error) = out.write_all(&bytes).and_then(|()| out.flush()) {
                tracing::warn!("{}: {error}; further output of the guest is dropped", queue.name);
                broken = true;
            }
        }
    })?;
    Ok(())
}
