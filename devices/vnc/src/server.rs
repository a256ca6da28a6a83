// SPDX-License-Identifier: MIT
//! Who is let in.

use crate::client;
use crate::frame::Frame;
use chipset_device::{LogBudget, lock};
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Clients at a time.
const MOST_CLIENTS: usize = 16;
/// Longest pause within a message, in the handshake, and until a client takes what it is sent.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long nobody is let in after the host could not.
const PAUSE: Duration = Duration::from_millis(100);
/// Lines of the log that clients can cause.
const MOST_LINES: u32 = 200;

/// The screen and the keyboard that clients share.
pub struct Console {
    /// What is on the screen now.
    pub frame: Box<dyn Fn() -> Frame + Send + Sync>,
    /// A key: X11's symbol, and whether it goes down.
    pub key: Box<dyn Fn(u32, bool) + Send + Sync>,
}

/// A server; its threads end with it.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the threads share.
struct Shared {
    console: Console,
    patience: Duration,
    end: AtomicBool,
    /// The threads of clients, and the sockets that they wait at.
    clients: Mutex<Vec<(JoinHandle<()>, TcpStream)>>,
    log: LogBudget,
}

impl Server {
    /// Serves `console` on a loopback port; 0 is any that is free.
    pub fn start(port: u16, console: Console) -> io::Result<Self> {
        Self::with_patience(port, console, PATIENCE)
    }

    /// The same, for clients that may pause as long as `patience` within a message, in the handshake, and before
    /// they take what they are sent.
    pub fn with_patience(port: u16, console: Console, patience: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            console,
            patience,
            end: AtomicBool::new(false),
            clients: Mutex::default(),
            log: LogBudget::new(MOST_LINES),
        });
        let theirs = shared.clone();
        let thread = std::thread::Builder::new()
            .name("vnc".into())
            .spawn(move || theirs.accept(&listener))?;
        Ok(Self {
            address,
            shared,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The machine was reset: clients may cause lines of the log again.
    pub fn refill_log(&self) {
        self.shared.log.refill();
    }
}

impl Shared {
    fn say(&self, text: impl FnOnce() -> String) {
        if let Some(line) = self.log.line(text) {
            tracing::info!("vnc: {line}");
        }
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.end.load(Ordering::Acquire) {
                return;
            }
            let mut clients = lock(&self.clients);
            clients.retain(|(thread, _)| !thread.is_finished());
            if clients.len() == MOST_CLIENTS {
                self.say(|| format!("{MOST_CLIENTS} clients are connected; another one is not let in"));
                continue;
            }
            match stream.and_then(|stream| self.admit(stream)) {
                Ok(client) => clients.push(client),
                Err(error) => {
                    drop(clients);
                    self.say(|| format!("a client cannot be let in: {error}"));
                    // What the host lacks now, descriptors for one, it will lack at once again.
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    fn admit(self: &Arc<Self>, stream: TcpStream) -> io::Result<(JoinHandle<()>, TcpStream)> {
        let (theirs, shared) = (stream.try_clone()?, self.clone());
        let thread = std::thread::Builder::new()
            .name("vnc client".into())
            .spawn(move || {
                if let Err(error) = client::serve(&theirs, &shared.console, shared.patience) {
                    shared.say(|| format!("a client is gone: {error}"));
                }
                // The other handle is kept until the next client comes; this one sees the end now.
                let _ = theirs.shutdown(Shutdown::Both);
            })?;
        Ok((thread, stream))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Release);
        // Wakes the thread that accepts.
        let woken = TcpStream::connect(self.address).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| woken)
            && thread.join().is_err()
        {
            tracing::error!("the vnc server died; this is a bug in openvmm");
        }
        let clients = std::mem::take(&mut *lock(&self.shared.clients));
        for (thread, stream) in clients {
            // A client that is gone already has nothing to shut down.
            let _ = stream.shutdown(Shutdown::Both);
            if thread.join().is_err() {
                tracing::error!("a vnc client's thread died; this is a bug in openvmm");
            }
        }
    }
}
