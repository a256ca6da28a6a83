// SPDX-License-Identifier: MIT
//! Who is let in.

use crate::client;
use crate::frame::Frame;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Clients at a time.
const MOST_CLIENTS: usize = 16;

/// The screen and the keyboard that clients share.
pub struct Console {
    /// What is on the screen now.
    pub frame: Box<dyn Fn() -> Frame + Send + Sync>,
    /// A key: X11's symbol, and whether it goes down.
    pub key: Box<dyn Fn(u32, bool) + Send + Sync>,
}

/// A server; its threads end with it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    end: Arc<AtomicBool>,
    clients: Clients,
    thread: Option<JoinHandle<()>>,
}

/// The threads of clients, and the sockets that they wait at.
type Clients = Arc<Mutex<Vec<(JoinHandle<()>, TcpStream)>>>;

impl Server {
    /// Serves `console` on a loopback port; 0 is any that is free.
    pub fn start(port: u16, console: Console) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let address = listener.local_addr()?;
        let (end, clients) = (Arc::new(AtomicBool::new(false)), Clients::default());
        let (theirs, ended, console) = (clients.clone(), end.clone(), Arc::new(console));
        let thread = std::thread::Builder::new()
            .name("vnc".into())
            .spawn(move || accept(&listener, &console, &theirs, &ended))?;
        Ok(Self {
            address,
            end,
            clients,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn accept(listener: &TcpListener, console: &Arc<Console>, clients: &Clients, end: &AtomicBool) {
    for stream in listener.incoming() {
        if end.load(Ordering::Acquire) {
            return;
        }
        let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|(thread, _)| !thread.is_finished());
        if clients.len() == MOST_CLIENTS {
            tracing::warn!("vnc: {MOST_CLIENTS} clients are connected; another one is not let in");
            continue;
        }
        match stream.and_then(|stream| admit(stream, console.clone())) {
            Ok(client) => clients.push(client),
            Err(error) => tracing::warn!("vnc: {error}"),
        }
    }
}

fn admit(stream: TcpStream, console: Arc<Console>) -> io::Result<(JoinHandle<()>, TcpStream)> {
    let theirs = stream.try_clone()?;
    let thread = std::thread::Builder::new()
        .name("vnc client".into())
        .spawn(move || {
            if let Err(error) = client::serve(&theirs, &console) {
                tracing::info!("vnc: a client is gone: {error}");
            }
            // The other handle is kept until the next client comes; this one sees the end now.
            let _ = theirs.shutdown(Shutdown::Both);
        })?;
    Ok((thread, stream))
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Release);
        // Wakes the thread that accepts.
        let woken = TcpStream::connect(self.address).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| woken)
            && thread.join().is_err()
        {
            tracing::error!("the vnc server died; this is a bug in openvmm");
        }
        let clients = std::mem::take(&mut *self.clients.lock().unwrap_or_else(PoisonError::into_inner));
        for (thread, stream) in clients {
            // A client that is gone already has nothing to shut down.
            let _ = stream.shutdown(Shutdown::Both);
            if thread.join().is_err() {
                tracing::error!("a vnc client's thread died; this is a bug in openvmm");
            }
        }
    }
}
