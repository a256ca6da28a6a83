// SPDX-License-Identifier: MIT
//! Log lines on stderr. `OPENVMM_LOG` holds a filter (`debug`, `openvmm_core=trace,...`); without it
//! everything from `info` up is shown, and no filter is parsed at start.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Installs the subscriber.
pub(crate) fn init() {
    let lines = tracing_subscriber::fmt()
        .without_time()
        .with_target(false)
        .with_ansi(false)
        .with_writer(std::io::stderr);
    match std::env::var("OPENVMM_LOG") {
        Ok(filter) => lines.with_env_filter(EnvFilter::new(filter)).init(),
        Err(_) => lines.with_max_level(LevelFilter::INFO).init(),
    }
}
