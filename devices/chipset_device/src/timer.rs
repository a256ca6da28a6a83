// SPDX-License-Identifier: MIT
//! Deadlines on the partition's clock.
//!
//! Devices arm a [`TimerHandle`]; whoever drives the partition (a host thread, or the deterministic
//! backend between instructions) calls [`TimerQueue::fire_due`]. Clients are called without the queue's
//! lock held, so they may arm again.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Duration;

/// A device that has deadlines.
pub trait TimerClient: Send + Sync {
    /// The deadline that was armed as `id` has passed; `now` is the clock in nanoseconds.
    fn timer_fired(&self, id: u32, now: u64);
}

/// A register machine with deadlines, kept in a `Mutex`: the mutex is the [`TimerClient`].
pub trait Timed: Send {
    /// The deadline that was armed as `id` has passed; `now` is the clock in nanoseconds.
    fn timer_fired(&mut self, id: u32, now: u64);
}

impl<T: Timed + ?Sized> TimerClient for Mutex<T> {
    fn timer_fired(&self, id: u32, now: u64) {
        self.lock()
            .unwrap_or_else(|e| e.into_inner())
            .timer_fired(id, now);
    }
}

#[derive(Default)]
struct State {
    due: BTreeSet<(u64, usize)>,
    clients: Vec<Client>,
    /// Counts changes of the earliest deadline and nudges, so that a sleeper misses none.
    changes: u64,
}

struct Client {
    target: Option<Weak<dyn TimerClient>>,
    id: u32,
    armed: Option<u64>,
}

/// All deadlines of a partition.
#[derive(Default)]
pub struct TimerQueue {
    state: Mutex<State>,
    changed: Condvar,
}

/// One timer, owned by a device.
#[derive(Clone)]
pub struct TimerHandle {
    queue: Arc<TimerQueue>,
    slot: usize,
}

impl TimerQueue {
    /// An empty queue.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Makes a timer whose client is connected later with [`TimerHandle::connect`] (devices are often
    /// built inside the `Arc` that they are called through).
    pub fn timer(self: &Arc<Self>, id: u32) -> TimerHandle {
        let mut s = self.lock();
        s.clients.push(Client {
            target: None,
            id,
            armed: None,
        });
        TimerHandle {
            queue: self.clone(),
            slot: s.clients.len() - 1,
        }
    }

    /// The earliest deadline in nanoseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        self.lock().due.first().map(|d| d.0)
    }

    /// Calls every client whose deadline is at or before `now`, in deadline order. A client that arms
    /// again in the past fires on the next call, not on this one.
    pub fn fire_due(&self, now: u64) {
        let fired: Vec<(Weak<dyn TimerClient>, u32)> = {
            let mut s = self.lock();
            let mut fired = Vec::new();
            while let Some(&(deadline, slot)) = s.due.first() {
                if deadline > now {
                    break;
                }
                s.due.remove(&(deadline, slot));
                let client = &mut s.clients[slot];
                client.armed = None;
                if let Some(target) = &client.target {
                    fired.push((target.clone(), client.id));
                }
            }
            fired
        };
        for (target, id) in fired {
            if let Some(client) = target.upgrade() {
                client.timer_fired(id, now);
            }
        }
    }

    /// The earliest deadline, and a ticket for [`TimerQueue::wait_changed`] that is valid from this look on.
    pub fn watch(&self) -> (Option<u64>, u64) {
        let s = self.lock();
        (s.due.first().map(|d| d.0), s.changes)
    }

    /// Blocks until the earliest deadline changed or a nudge came since `ticket` was taken (at once when
    /// that is the case already), or `limit` passes; the host timer thread's sleep.
    pub fn wait_changed(&self, ticket: u64, limit: Option<Duration>) {
        let s = self.lock();
        let unchanged = |s: &mut State| s.changes == ticket;
        match limit {
            Some(l) => drop(self.changed.wait_timeout_while(s, l, unchanged)),
            None => drop(self.changed.wait_while(s, unchanged)),
        }
    }

    /// Ends a [`TimerQueue::wait_changed`], also one that has not begun yet, without changing a deadline.
    pub fn nudge(&self) {
        self.lock().changes += 1;
        self.changed.notify_all();
    }
}

impl TimerHandle {
    /// Names the client that is called when the deadline passes.
    pub fn connect(&self, client: Weak<dyn TimerClient>) {
        self.queue.lock().clients[self.slot].target = Some(client);
    }

    /// Arms for `deadline` (nanoseconds on the partition's clock), replacing an earlier one.
    pub fn arm(&self, deadline: u64) {
        self.set(Some(deadline));
    }

    /// Disarms.
    pub fn disarm(&self) {
        self.set(None);
    }

    fn set(&self, deadline: Option<u64>) {
        let mut s = self.queue.lock();
        let first = s.due.first().copied();
        let old = std::mem::replace(&mut s.clients[self.slot].armed, deadline);
        if let Some(old) = old {
            s.due.remove(&(old, self.slot));
        }
        if let Some(d) = deadline {
            s.due.insert((d, self.slot));
        }
        if s.due.first().copied() != first {
            s.changes += 1;
            self.queue.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Counter(AtomicU32);
    impl TimerClient for Counter {
        fn timer_fired(&self, id: u32, _now: u64) {
            self.0.fetch_add(id, Ordering::Relaxed);
        }
    }

    #[test]
    fn only_due_timers_fire_and_only_once() {
        let q = TimerQueue::new();
        let c = Arc::new(Counter(AtomicU32::new(0)));
        let weak: Weak<dyn TimerClient> = Arc::downgrade(&(c.clone() as Arc<dyn TimerClient>));
        let (a, b) = (q.timer(1), q.timer(10));
        a.connect(weak.clone());
        b.connect(weak);
        a.arm(100);
        b.arm(200);
        assert_eq!(q.next_deadline(), Some(100));
        q.fire_due(150);
        assert_eq!(c.0.load(Ordering::Relaxed), 1);
        b.arm(300);
        q.fire_due(250);
        assert_eq!(c.0.load(Ordering::Relaxed), 1);
        b.disarm();
        q.fire_due(1000);
        assert_eq!(c.0.load(Ordering::Relaxed), 1);
        assert_eq!(q.next_deadline(), None);
    }

    #[test]
    fn a_nudge_or_an_earlier_deadline_before_the_wait_is_not_lost() {
        let q = TimerQueue::new();
        let (_, ticket) = q.watch();
        q.nudge();
        q.wait_changed(ticket, None);
        let (_, ticket) = q.watch();
        let t = q.timer(0);
        t.arm(5);
        q.wait_changed(ticket, None);
        let (deadline, ticket) = q.watch();
        assert_eq!(deadline, Some(5));
        t.arm(5);
        q.wait_changed(ticket, Some(Duration::from_millis(1)));
    }
}
