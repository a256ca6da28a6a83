// SPDX-License-Identifier: MIT
//! Showing that long work goes on.
//!
//! Always true: nothing is drawn unless standard error is a terminal and the work takes longer than a
//! second; what was drawn is gone when the work ends. Not here: what the work is.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Work shorter than this shows nothing.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time between two pictures.
const TICK: Duration = Duration::from_millis(100);

/// Does `work` and shows `label` and the time that it has taken.
pub(crate) fn during<T>(label: &str, work: impl FnOnce() -> T) -> T {
    if !std::io::stderr().is_terminal() {
        return work();
    }
    let (done, wait) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut patience = PATIENCE;
            let mut bar: Option<ProgressBar> = None;
            while wait.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                bar.get_or_insert_with(|| spinner(label)).tick();
                patience = TICK;
            }
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
        });
        let result = work();
        // The other side ends when this one is gone.
        drop(done);
        result
    })
}

fn spinner(label: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.set_elapsed(PATIENCE);
    bar.set_message(label.to_owned());
    bar
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_work_is_done_and_its_result_handed_on() {
        assert_eq!(super::during("adding", || 2 + 2), 4);
    }
}
