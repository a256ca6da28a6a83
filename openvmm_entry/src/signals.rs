// SPDX-License-Identifier: MIT
//! SIGINT, SIGTERM and SIGHUP from outside: the first stops the VM cleanly, the second ends the process
//! at once. Either way the exit code is 128 plus the signal's number and the terminal is put back.

use crate::terminal;
use openvmm_core::rpc::VmClient;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Watches for signals on a thread of its own.
pub(crate) fn watch(client: VmClient) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for (count, signal) in signals.forever().enumerate() {
                let code = 128 + signal as u8;
                if count > 0 {
                    terminal::restore();
                    std::process::exit(code.into());
                }
                let client = client.clone();
                // The answer may never come when the launch hangs; the next signal must still be seen.
                let stopper = std::thread::Builder::new()
                    .name("stop".into())
                    .spawn(move || client.stop(code));
                if let Err(error) = stopper {
                    tracing::warn!("cannot stop cleanly: {error}; a second signal ends the process");
                }
            }
        })?;
    Ok(())
}
