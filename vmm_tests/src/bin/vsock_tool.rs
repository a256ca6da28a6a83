// SPDX-License-Identifier: MIT
//! Runs inside a Linux guest: `fetch PORT` copies what the host sends to standard output, `send PORT` sends
//! standard input to the host, `answer PORT` waits for the host and sends back what comes.

use std::io::{self, Write};
use std::net::Shutdown;
use vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockListener, VsockStream};

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (verb, port) = (arguments.next().unwrap_or_default(), arguments.next());
    let port = port.and_then(|port| port.parse().ok());
    let port: u32 = port.ok_or_else(|| io::Error::other("fetch, send or answer, and a port"))?;
    let host = || VsockStream::connect_with_cid_port(VMADDR_CID_HOST, port);
    match verb.as_str() {
        "fetch" => {
            io::copy(&mut host()?, &mut io::stdout().lock())?;
            io::stdout().flush()
        }
        "send" => {
            let mut stream = host()?;
            io::copy(&mut io::stdin().lock(), &mut stream)?;
            stream.shutdown(Shutdown::Write)
        }
        "answer" => {
            let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port)?;
            println!("listening");
            let (mut stream, _) = listener.accept()?;
            io::copy(&mut stream.try_clone()?, &mut stream)?;
            stream.shutdown(Shutdown::Write)
        }
        _ => Err(io::Error::other("the verbs are fetch, send and answer")),
    }
}
