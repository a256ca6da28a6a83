// SPDX-License-Identifier: MIT
//! Where devices send power requests: to the worker, and to every VP's stop flag.

use crate::vp_thread::Event;
use chipset_device::{PowerRequest, PowerSink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc::UnboundedSender;
use virt::VpSignals;

/// The partition's power sink. The first request of a run wins; later ones are dropped.
pub(crate) struct PowerPort {
    signals: Arc<VpSignals>,
    events: UnboundedSender<Event>,
    taken: AtomicBool,
}

impl PowerPort {
    pub(crate) fn new(signals: Arc<VpSignals>, events: UnboundedSender<Event>) -> Arc<Self> {
        Arc::new(Self {
            signals,
            events,
            taken: AtomicBool::new(false),
        })
    }

    /// Accepts a request again; called before each run.
    pub(crate) fn rearm(&self) {
        self.taken.store(false, Ordering::SeqCst);
    }
}

impl PowerSink for PowerPort {
    fn request(&self, request: PowerRequest) {
        if self.taken.swap(true, Ordering::SeqCst) {
            return;
        }
        // The event first: whoever sees the stop must find its cause in the queue.
        let _ = self.events.send(Event::Power(request));
        self.signals.set_stop(true);
    }
}
