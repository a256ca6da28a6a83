// SPDX-License-Identifier: MIT
//! Socket device (section 5.10): streams between the guest and Unix sockets of the host.
//!
//! The host's side follows the convention of Firecracker and Cloud Hypervisor. A program of the host connects to
//! the device's socket `PATH`, sends `CONNECT PORT\n` and gets `OK HOST_PORT\n` once the guest has accepted. A
//! guest that connects to port P of the host (context id 2) is connected to the socket `PATH_P`.
//!
//! Always true: what waits for a slow end is bounded by the credit of section 5.10.6.3, in both directions; a
//! guest that sends more than its credit, or nonsense, gets RST. Streams only.

mod connection;
mod header;

use crate::device::VirtioDevice;
use crate::queue::{Chain, QueueError, VirtQueue};
use connection::{Connection, Received};
use header::{Header, LEN, Op, STREAM};
use io_thread::{Progress, Watch};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const RECEIVE: usize = 0;
const SEND: usize = 1;
/// The host's context id.
const HOST: u64 = 2;
/// Ports of connections that the host begins.
const FIRST_HOST_PORT: u32 = 0x4000_0000;
/// Connections, begun ones included.
const MOST_CONNECTIONS: usize = 256;
/// Packets without data that wait for buffers of the guest; the guest's packets wait when there are more.
const MOST_CONTROL: usize = 1024;
/// Packets in each direction before others are let at the device's registers.
const BATCH: usize = 64;
/// The longest `CONNECT PORT\n`.
const MOST_GREETING: usize = 32;

/// Port of the host, port of the guest.
type Ports = (u32, u32);

/// A connection of the host that has not said yet where it goes.
struct Caller {
    stream: UnixStream,
    fd: Arc<OwnedFd>,
    greeting: Vec<u8>,
}

/// The device.
pub struct Vsock {
    guest: u64,
    path: PathBuf,
    listener: UnixListener,
    listener_fd: Arc<OwnedFd>,
    callers: Vec<Caller>,
    connections: BTreeMap<Ports, Connection>,
    control: VecDeque<Header>,
    next_port: u32,
    /// The connection that sends to the guest next.
    turn: Ports,
    /// The guest has no buffers, so there is no use in reading from the host.
    starved: bool,
}

/// Nothing of an earlier run at `path`: a socket that nobody listens on is removed.
fn remove_stale(path: &Path) {
    let is_socket = std::fs::symlink_metadata(path)
        .is_ok_and(|meta| std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type()));
    if is_socket && UnixStream::connect(path).is_err() {
        // Binding says what is in the way if this fails.
        let _ = std::fs::remove_file(path);
    }
}

/// Connects without waiting: a listener whose queue is full refuses.
fn connect(path: &Path) -> io::Result<UnixStream> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

impl Vsock {
    /// A device for the guest with context id `guest` (3 or more), listening at `path`.
    pub fn listen(guest: u64, path: &Path) -> io::Result<Self> {
        remove_stale(path);
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            guest,
            path: path.to_owned(),
            listener_fd: Arc::new(listener.try_clone()?.into()),
            listener,
            callers: Vec::new(),
            connections: BTreeMap::new(),
            control: VecDeque::new(),
            next_port: FIRST_HOST_PORT,
            turn: (0, 0),
            starved: true,
        })
    }

    fn room(&self) -> bool {
        self.callers.len() + self.connections.len() < MOST_CONNECTIONS
    }

    fn header(&self, (host, guest): Ports, op: Op) -> Header {
        Header {
            src_cid: HOST,
            dst_cid: self.guest,
            src_port: host,
            dst_port: guest,
            op: op as u16,
            ..Header::default()
        }
    }

    fn reset_connection(&mut self, ports: Ports) {
        self.connections.remove(&ports);
        let header = self.header(ports, Op::Rst);
        self.control.push_back(header);
    }

    fn accept(&mut self) {
        while self.room() {
            let Ok((stream, _)) = self.listener.accept() else {
                return;
            };
            let ready = stream.set_nonblocking(true).and_then(|()| stream.try_clone());
            let Ok(clone) = ready else { continue };
            self.callers.push(Caller {
                stream,
                fd: Arc::new(clone.into()),
                greeting: Vec::new(),
            });
        }
    }

    /// Reads what callers say and begins their connections.
    fn greet(&mut self) {
        let mut waiting = Vec::new();
        for mut caller in std::mem::take(&mut self.callers) {
            match caller.listen() {
                Greeting::Waiting => waiting.push(caller),
                Greeting::Refused => {}
                Greeting::Port(guest) => {
                    let host = self.free_port(guest);
                    let connection = Connection::calling(caller.stream, caller.fd);
                    let header = connection.stamped(self.header((host, guest), Op::Request));
                    self.connections.insert((host, guest), connection);
                    self.control.push_back(header);
                }
            }
        }
        self.callers = waiting;
    }

    /// A port of the host that no connection to `guest` has. There are more ports than connections.
    fn free_port(&mut self, guest: u32) -> u32 {
        loop {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_HOST_PORT);
            if !self.connections.contains_key(&(port, guest)) {
                return port;
            }
        }
    }

    fn take_from_guest(&mut self, queue: &mut VirtQueue) -> Result<Progress, QueueError> {
        for _ in 0..BATCH {
            if self.control.len() >= MOST_CONTROL {
                // Goes on when the guest has taken some of them, which it says by notifying.
                return Ok(Progress::Idle);
            }
            let Some(chain) = queue.pop()? else {
                return Ok(Progress::Idle);
            };
            self.packet(queue, &chain);
            queue.push(chain, 0)?;
        }
        Ok(Progress::More)
    }

    fn packet(&mut self, queue: &VirtQueue, chain: &Chain) {
        let mut bytes = [0; LEN];
        let Ok(LEN) = chain.readable.read(queue.ram(), &mut bytes) else {
            return;
        };
        let header = Header::from_bytes(&bytes);
        let ports = (header.dst_port, header.src_port);
        if header.src_cid != self.guest || header.dst_cid != HOST {
            return;
        }
        let Some(op) = Op::of(header.op).filter(|_| header.kind == STREAM) else {
            self.refuse(ports, header.op);
            return;
        };
        if op == Op::Request {
            self.begin(ports, &header);
            return;
        }
        let Some(connection) = self.connections.get_mut(&ports) else {
            self.refuse(ports, header.op);
            return;
        };
        connection.credit(&header);
        let fine = match op {
            Op::Response => connection.accepted(ports.0),
            Op::Data => {
                let data = chain.readable.part(LEN as u64, header.len.into());
                data.total() == u64::from(header.len) && connection.take(queue.ram(), &data)
            }
            Op::Shutdown => {
                connection.guest_shuts(header.flags);
                true
            }
            Op::CreditUpdate => true,
            Op::CreditRequest => {
                connection.owes_credit = true;
                true
            }
            Op::Rst => {
                self.connections.remove(&ports);
                true
            }
            Op::Request => false,
        };
        if !fine {
            self.reset_connection(ports);
        }
    }

    /// Answers a packet that belongs to nothing; a reset is never answered.
    fn refuse(&mut self, ports: Ports, op: u16) {
        if op != Op::Rst as u16 {
            let header = self.header(ports, Op::Rst);
            self.control.push_back(header);
        }
    }

    /// The guest connects.
    fn begin(&mut self, ports: Ports, header: &Header) {
        let mut path = self.path.clone().into_os_string();
        path.push(format!("_{}", ports.0));
        let stream = if self.room() && !self.connections.contains_key(&ports) {
            connect(Path::new(&path))
        } else {
            Err(io::ErrorKind::ConnectionRefused.into())
        };
        let connection = stream.and_then(Connection::called);
        match connection {
            Ok(mut connection) => {
                connection.credit(header);
                let answer = connection.stamped(self.header(ports, Op::Response));
                self.connections.insert(ports, connection);
                self.control.push_back(answer);
            }
            Err(_) => self.refuse(ports, header.op),
        }
    }

    /// Writes to the host what it takes, and collects what has to be said to the guest about it.
    fn give_to_host(&mut self) {
        let mut ended = Vec::new();
        let (guest, control) = (self.guest, &mut self.control);
        for (&ports, connection) in &mut self.connections {
            if !connection.flush() {
                ended.push(ports);
            } else if connection.wants_update() && control.len() < MOST_CONTROL {
                let header = Header {
                    src_cid: HOST,
                    dst_cid: guest,
                    src_port: ports.0,
                    dst_port: ports.1,
                    op: Op::CreditUpdate as u16,
                    ..Header::default()
                };
                control.push_back(connection.stamped(header));
                connection.updated();
            }
        }
        ended.into_iter().for_each(|ports| self.reset_connection(ports));
    }

    fn give_to_guest(&mut self, queue: &mut VirtQueue) -> Result<Progress, QueueError> {
        for _ in 0..BATCH {
            let Some(chain) = queue.pop()? else {
                self.starved = true;
                return Ok(Progress::Idle);
            };
            self.starved = false;
            if chain.writable.total() < LEN as u64 {
                queue.push(chain, 0)?;
                continue;
            }
            let Some((header, data)) = self.next_packet(chain.writable.total() as usize - LEN) else {
                queue.unpop();
                return Ok(Progress::Idle);
            };
            let mut bytes = header.to_bytes().to_vec();
            bytes.extend(data);
            // A buffer outside RAM swallows the packet.
            let written = chain.writable.write(queue.ram(), &bytes).unwrap_or(0);
            queue.push(chain, written as u32)?;
        }
        Ok(Progress::More)
    }

    /// The next packet for the guest, with at most `room` bytes of data; connections take turns.
    fn next_packet(&mut self, room: usize) -> Option<(Header, Vec<u8>)> {
        if let Some(header) = self.control.pop_front() {
            return Some((header, Vec::new()));
        }
        let after = (std::ops::Bound::Excluded(self.turn), std::ops::Bound::Unbounded);
        let order: Vec<Ports> = self
            .connections
            .range(after)
            .chain(self.connections.range(..=self.turn))
            .map(|(&ports, _)| ports)
            .collect();
        for ports in order {
            let connection = self.connections.get_mut(&ports)?;
            let (op, data, flags) = match connection.receive(room) {
                Received::Nothing => continue,
                Received::Data(data) => (Op::Data, data, 0),
                Received::End => (Op::Shutdown, Vec::new(), header::SHUT_SEND),
                Received::Broken => {
                    self.connections.remove(&ports);
                    return Some((self.header(ports, Op::Rst), Vec::new()));
                }
            };
            self.turn = ports;
            let len = data.len() as u32;
            let header = Header {
                len,
                flags,
                ..self.header(ports, op)
            };
            let header = self.connections.get(&ports)?.stamped(header);
            return Some((header, data));
        }
        None
    }
}

/// What a caller has said so far.
enum Greeting {
    Waiting,
    Port(u32),
    Refused,
}

impl Caller {
    /// Reads up to the end of the line and not beyond, because data may follow.
    fn listen(&mut self) -> Greeting {
        let mut byte = [0];
        loop {
            match self.stream.read(&mut byte) {
                Ok(0) => return Greeting::Refused,
                Ok(_) if byte == *b"\n" => break,
                Ok(_) if self.greeting.len() < MOST_GREETING => self.greeting.push(byte[0]),
                Ok(_) => return Greeting::Refused,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Greeting::Waiting,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Greeting::Refused,
            }
        }
        let text = std::str::from_utf8(&self.greeting).unwrap_or("");
        let port = text.trim_end_matches('\r').strip_prefix("CONNECT ");
        port.and_then(|port| port.parse().ok())
            .map_or(Greeting::Refused, Greeting::Port)
    }
}

impl Drop for Vsock {
    fn drop(&mut self) {
        // Somebody may have removed it already.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl VirtioDevice for Vsock {
    fn kind(&self) -> u16 {
        19
    }

    fn class(&self) -> [u8; 3] {
        // Communication controller, other.
        [7, 0x80, 0]
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[256, 256, 16]
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        for (to, from) in data.iter_mut().zip(self.guest.to_le_bytes().iter().skip(offset)) {
            *to = *from;
        }
    }

    fn activate(&mut self, _features: u64) {}

    fn process(&mut self, queues: &mut [VirtQueue]) -> Result<Progress, QueueError> {
        let mut progress = Progress::Idle;
        if let Some(queue) = queues.get_mut(SEND) {
            progress = self.take_from_guest(queue)?;
        }
        self.accept();
        self.greet();
        self.give_to_host();
        if let Some(queue) = queues.get_mut(RECEIVE)
            && self.give_to_guest(queue)? == Progress::More
        {
            progress = Progress::More;
        }
        // The guest's packets may have waited for the answers to be taken.
        if queues.get(SEND).is_some_and(VirtQueue::is_waiting) && self.control.len() < MOST_CONTROL {
            progress = Progress::More;
        }
        Ok(progress)
    }

    fn watches(&self) -> Vec<Watch> {
        let read = |fd: &Arc<OwnedFd>| Watch {
            fd: fd.clone(),
            readable: true,
            writable: false,
        };
        let mut watches: Vec<Watch> = self.callers.iter().map(|caller| read(&caller.fd)).collect();
        if self.room() {
            watches.push(read(&self.listener_fd));
        }
        watches.extend(self.connections.values().filter_map(|c| c.watch(!self.starved)));
        watches
    }

    fn needs_thread(&self) -> bool {
        true
    }

    fn reset(&mut self) {
        // The host's ends see their connections end.
        self.connections.clear();
        self.control.clear();
        self.callers.clear();
        self.starved = true;
    }

    fn inspect(&self) -> String {
        format!(
            "guest {}\nsocket {}\nconnections {}\n",
            self.guest,
            self.path.display(),
            self.connections.len()
        )
    }
}

#[cfg(test)]
mod tests;
