// SPDX-License-Identifier: MIT
//! Where serial ports lead: the terminal, stderr, a file, a listening socket.
//!
//! Always true: a VP that writes to a port never waits for the other side. Bytes go to a bounded queue
//! that a thread of the port empties; when the other side is too slow, or absent, the oldest bytes are
//! dropped and a warning says so once. Not here: the UART.

mod listen;
mod queue;

use crate::console;
use openvmm_core::rpc::VmClient;
use openvmm_core::{InputSink, SerialEnd, SerialEnds};
use openvmm_defs::SerialBackend;
use queue::Queue;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long the end of the process waits for output that the other side has not taken.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// A port could not be connected.
#[derive(Debug, thiserror::Error)]
#[error("--{option} {what}")]
pub(crate) struct SerialError {
    option: String,
    what: String,
    source: std::io::Error,
}

/// All connected ports of a VM.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    queues: Vec<Arc<Queue>>,
    sockets: Vec<PathBuf>,
}

impl Ports {
    /// Connects COM1 to COM4 and the virtio console. Keys go to the one whose backend is the console.
    pub(crate) fn open(
        com: &[SerialBackend; 4],
        virtio: Option<&SerialBackend>,
        client: &VmClient,
    ) -> Result<(Self, SerialEnds), SerialError> {
        let mut ports = Self::default();
        let mut ends = SerialEnds::default();
        let mut connect = |option: String, backend: &SerialBackend| {
            ports.connect(backend, client).map_err(|source| SerialError {
                option,
                what: describe(backend),
                source,
            })
        };
        for (number, (backend, end)) in (1..).zip(com.iter().zip(&mut ends.com)) {
            *end = connect(format!("com{number}"), backend)?;
        }
        if let Some(backend) = virtio {
            ends.virtio = connect("virtio-console".into(), backend)?;
        }
        Ok((ports, ends))
    }

    fn connect(&mut self, backend: &SerialBackend, client: &VmClient) -> std::io::Result<Option<SerialEnd>> {
        let queue = Queue::new(describe(backend));
        let connect_input: Box<dyn FnOnce(InputSink) + Send> = match backend {
            SerialBackend::None => return Ok(None),
            SerialBackend::Stderr => {
                queue::drain_into(&queue, std::io::stderr())?;
                Box::new(drop)
            }
            SerialBackend::File(path) => {
                queue::drain_into(&queue, std::fs::File::create(path)?)?;
                Box::new(drop)
            }
            SerialBackend::Console => {
                queue::drain_into(&queue, std::io::stdout())?;
                let client = client.clone();
                Box::new(move |sink| {
                    if let Err(error) = console::spawn(sink, client) {
                        tracing::warn!("cannot read stdin: {error}");
                    }
                })
            }
            SerialBackend::Listen(path) => {
                self.sockets.push(path.clone());
                listen::serve(listen::bind_unix(path)?, &queue)?
            }
            SerialBackend::ListenTcp(address) => {
                listen::serve(std::net::TcpListener::bind(address)?, &queue)?
            }
        };
        self.queues.push(queue.clone());
        Ok(Some(SerialEnd {
            output: Box::new(Outlet(queue)),
            connect_input,
        }))
    }

    /// Waits, within limits, until everything that the guest wrote has left, and removes sockets.
    pub(crate) fn finish(self) {
        for queue in &self.queues {
            queue.wait_empty(FLUSH_LIMIT);
        }
        for path in &self.sockets {
            // It may be gone already.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn describe(backend: &SerialBackend) -> String {
    match backend {
        SerialBackend::None => "none".into(),
        SerialBackend::Console => "console".into(),
        SerialBackend::Stderr => "stderr".into(),
        SerialBackend::File(path) => format!("file={}", path.display()),
        SerialBackend::Listen(path) => format!("listen={}", path.display()),
        SerialBackend::ListenTcp(address) => format!("listen=tcp:{address}"),
    }
}

/// The UART's side of a queue.
struct Outlet(Arc<Queue>);

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.push(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
