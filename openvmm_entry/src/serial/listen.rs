// SPDX-License-Identifier: MIT
//! A serial port behind a listening socket: one client at a time.
//!
//! Always true: what the guest wrote before a client came is kept (up to the queue's size) and given to
//! the first one; a client that leaves makes room for the next.

use super::queue::Queue;
use openvmm_core::InputSink;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// A socket that clients connect to.
pub(super) trait Listener: Send + 'static {
    /// A connection; reading and writing ends are clones of it.
    type Stream: Read + Write + Send + 'static;
    /// Waits for a client.
    fn accept(&self) -> std::io::Result<Self::Stream>;
    /// A second handle of a connection.
    fn clone_of(stream: &Self::Stream) -> std::io::Result<Self::Stream>;
}

impl Listener for UnixListener {
    type Stream = UnixStream;
    fn accept(&self) -> std::io::Result<UnixStream> {
        Self::accept(self).map(|(stream, _)| stream)
    }
    fn clone_of(stream: &UnixStream) -> std::io::Result<UnixStream> {
        stream.try_clone()
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;
    fn accept(&self) -> std::io::Result<TcpStream> {
        let (stream, _) = Self::accept(self)?;
        // Keystrokes and echoes are single bytes.
        stream.set_nodelay(true)?;
        Ok(stream)
    }
    fn clone_of(stream: &TcpStream) -> std::io::Result<TcpStream> {
        stream.try_clone()
    }
}

/// Binds a Unix socket, replacing one that an earlier run left behind and that nobody listens on.
pub(super) fn bind_unix(path: &Path) -> std::io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(e) if e.kind() == ErrorKind::AddrInUse => {
            match UnixStream::connect(path) {
                Err(c) if c.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
                _ => return Err(e),
            }
            UnixListener::bind(path)
        }
        bound => bound,
    }
}

/// Serves clients on a thread of its own. The result connects the port's input.
pub(super) fn serve<L: Listener>(
    listener: L,
    queue: &Arc<Queue>,
) -> std::io::Result<Box<dyn FnOnce(InputSink) + Send>> {
    let sink = Arc::new(OnceLock::new());
    std::thread::Builder::new().name("serial".into()).spawn({
        let (queue, sink) = (queue.clone(), sink.clone());
        move || {
            loop {
                let served = listener
                    .accept()
                    .and_then(|client| serve_client::<L>(client, &queue, &sink));
                if let Err(error) = served {
                    tracing::warn!("serial socket: {error}");
                    // Out of descriptors, most likely: do not spin.
                    std::thread::sleep(std::time::Duration::from_millis(100));
                }
            }
        }
    })?;
    Ok(Box::new(move |input| {
        // Called once per port.
        let _ = sink.set(input);
    }))
}

fn serve_client<L: Listener>(
    client: L::Stream,
    queue: &Arc<Queue>,
    sink: &Arc<OnceLock<InputSink>>,
) -> std::io::Result<()> {
    let mut out = L::clone_of(&client)?;
    queue.attach(true);
    let reader = std::thread::Builder::new().name("serial-in".into()).spawn({
        let (queue, sink) = (queue.clone(), sink.clone());
        move || {
            read_all(client, &sink);
            queue.hang_up();
        }
    })?;
    while let Some(bytes) = queue.take() {
        // A client that has gone is noticed by the reader.
        if out.write_all(&bytes).and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    queue.attach(false);
    drop(out);
    // The reader ends with the connection.
    let _ = reader.join();
    Ok(())
}

fn read_all(mut client: impl Read, sink: &OnceLock<InputSink>) {
    let mut buffer = [0; 4096];
    loop {
        match client.read(&mut buffer) {
            Ok(0) => return,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
            Ok(n) => {
                if let Some(sink) = sink.get() {
                    sink(&buffer[..n]);
                }
            }
        }
    }
}
