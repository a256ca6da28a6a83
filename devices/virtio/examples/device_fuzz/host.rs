// SPDX-License-Identifier: MIT
//! What is at the other end of the devices: a wire with frames on it, programs that listen, answer and hang up.
//!
//! Always true: nothing here waits, so that a case repeats. Not here: what the guest does (`device_fuzz`).

use soak_case::Random;
use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use tap::Tap;
use virtio::{Net, Progress, QueueError, VirtQueue, VirtioDevice, Vsock};

/// A device that works on the thread that asks, whatever it needs in a VM.
pub(crate) struct HereAndNow<D>(pub(crate) D);

impl<D: VirtioDevice> VirtioDevice for HereAndNow<D> {
    fn kind(&self) -> u16 {
        self.0.kind()
    }

    fn class(&self) -> [u8; 3] {
        self.0.class()
    }

    fn features(&self) -> u64 {
        self.0.features()
    }

    fn queue_sizes(&self) -> &[u16] {
        self.0.queue_sizes()
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        self.0.read_config(offset, data);
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        self.0.write_config(offset, data);
    }

    fn activate(&mut self, features: u64) {
        self.0.activate(features);
    }

    fn process(&mut self, queues: &mut [VirtQueue]) -> Result<Progress, QueueError> {
        let progress = self.0.process(queues);
        // What a thread would wait for now.
        drop(self.0.watches());
        progress
    }

    fn reset(&mut self) {
        self.0.reset();
    }

    fn inspect(&self) -> String {
        self.0.inspect()
    }
}

/// What is at the other end of a device.
pub(crate) enum Host {
    Nobody,
    /// Of a network device.
    Wire(UnixDatagram),
    /// Of a socket device: the programs that listen, and all streams.
    Programs {
        path: PathBuf,
        listeners: Vec<UnixListener>,
        streams: Vec<UnixStream>,
    },
}

/// Ports of the host with a listener, and as many without.
const PORTS: u64 = 3;

impl Host {
    /// A network device and its wire.
    pub(crate) fn wire() -> std::io::Result<(Box<dyn VirtioDevice>, Self)> {
        let (ours, theirs) = UnixDatagram::pair()?;
        ours.set_nonblocking(true)?;
        let net = Net::new(Tap::over_datagrams("fuzzed", theirs)?, [2, 0, 0, 0, 0, 1]);
        Ok((Box::new(HereAndNow(net)), Self::Wire(ours)))
    }

    /// A socket device and its programs.
    pub(crate) fn programs(folder: &Path) -> std::io::Result<(Box<dyn VirtioDevice>, Self)> {
        let path = folder.join("sockets");
        let listeners = (0..PORTS).map(|port| {
            let path = folder.join(format!("sockets_{port}"));
            // Of the case before.
            let _ = std::fs::remove_file(&path);
            let listener = UnixListener::bind(path)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        let listeners = listeners.collect::<std::io::Result<_>>()?;
        let vsock = Vsock::listen(GUEST_CID, &path)?;
        let host = Self::Programs {
            path,
            listeners,
            streams: Vec::new(),
        };
        Ok((Box::new(HereAndNow(vsock)), host))
    }

    /// Something that a host may do at any time. What does not work, because a queue is full or an end has gone, is
    /// as good as done.
    pub(crate) fn act(&mut self, random: &mut Random) {
        let bytes = vec![random.bits() as u8; 1 << random.below(13)];
        match self {
            Self::Nobody => {}
            Self::Wire(wire) => {
                let _ = wire.send(&bytes);
                let _ = wire.recv(&mut [0; 2048]);
            }
            Self::Programs {
                path,
                listeners,
                streams,
            } => {
                let connected = match random.below(8) {
                    0 => UnixStream::connect(path).ok(),
                    1 | 2 => {
                        let called = listeners[random.below(PORTS) as usize].accept();
                        called.ok().map(|(stream, _)| stream)
                    }
                    3 => {
                        streams.pop();
                        None
                    }
                    _ => None,
                };
                streams.extend(connected.filter(|stream| stream.set_nonblocking(true).is_ok()));
                let count = streams.len() as u64;
                if let Some(stream) = streams.get_mut(random.below(count) as usize) {
                    let _ = match random.below(4) {
                        0 => stream.write(format!("CONNECT {}\n", random.below(5)).as_bytes()),
                        1 => stream.write(&bytes),
                        2 => stream.read(&mut [0; 4096]),
                        _ => stream.shutdown(std::net::Shutdown::Write).map(|()| 0),
                    };
                }
            }
        }
    }
}

/// The guest's context id.
const GUEST_CID: u64 = 3;

/// The header of a socket packet that mostly makes sense (section 5.10.6).
pub(crate) fn socket_packet(random: &mut Random) -> Vec<u8> {
    let cid = random.pick(&[GUEST_CID, GUEST_CID, GUEST_CID, 2, 77]);
    let mut header = cid.to_le_bytes().to_vec();
    header.extend(2u64.to_le_bytes());
    header.extend((random.below(2) as u32).to_le_bytes());
    header.extend(random.pick(&[0u32, 0, 1, 3, 0x4000_0000]).to_le_bytes());
    header.extend((random.below(600) as u32).to_le_bytes());
    header.extend(random.pick(&[1u16, 1, 1, 2]).to_le_bytes());
    header.extend(
        random
            .pick(&[1u16, 1, 1, 2, 3, 4, 5, 5, 5, 6, 7, 0, 8])
            .to_le_bytes(),
    );
    header.extend((random.below(4) as u32).to_le_bytes());
    header.extend((random.value() as u32).to_le_bytes());
    header.extend((random.value() as u32).to_le_bytes());
    header
}
