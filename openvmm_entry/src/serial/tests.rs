// SPDX-License-Identifier: MIT
//! Files and sockets, end to end.

use super::*;
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;

fn open(backend: SerialBackend) -> Result<(Ports, SerialEnd), SerialError> {
    let (client, _requests) = openvmm_core::rpc::channel();
    let com = [
        SerialBackend::None,
        backend,
        SerialBackend::None,
        SerialBackend::None,
    ];
    let (ports, ends) = Ports::open(&com, None, &client)?;
    let [none, end, ..] = ends.com;
    assert!(none.is_none());
    Ok((ports, end.unwrap()))
}

fn input_of(end: SerialEnd) -> (Box<dyn Write + Send>, mpsc::Receiver<Vec<u8>>) {
    let (tx, rx) = mpsc::channel();
    (end.connect_input)(Arc::new(move |bytes: &[u8]| tx.send(bytes.to_vec()).unwrap()));
    (end.output, rx)
}

#[test]
fn a_file_has_everything_when_the_ports_are_finished() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.txt");
    let (ports, mut end) = open(SerialBackend::File(path.clone())).unwrap();
    for line in 0..1000 {
        writeln!(end.output, "line {line}").unwrap();
    }
    ports.finish();
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(text.lines().count(), 1000);
    assert!(text.ends_with("line 999\n"));
}

#[test]
fn a_socket_gives_the_first_client_what_was_written_before_and_serves_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("com2");
    let (ports, end) = open(SerialBackend::Listen(path.clone())).unwrap();
    let (mut output, input) = input_of(end);
    output.write_all(b"early ").unwrap();
    for greeting in ["hello", "again"] {
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(greeting.as_bytes()).unwrap();
        assert_eq!(
            input.recv_timeout(Duration::from_secs(10)).unwrap(),
            greeting.as_bytes()
        );
        output.write_all(greeting.as_bytes()).unwrap();
        let expected = if greeting == "hello" {
            "early hello"
        } else {
            "again"
        };
        let mut seen = vec![0; expected.len()];
        client.read_exact(&mut seen).unwrap();
        assert_eq!(seen, expected.as_bytes());
    }
    ports.finish();
    assert!(!path.exists());
}

#[test]
fn a_tcp_port_carries_bytes_both_ways() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (_ports, end) = open(SerialBackend::ListenTcp(free)).unwrap();
    let (mut output, input) = input_of(end);
    let mut client = TcpStream::connect(free).unwrap();
    client.write_all(b"in").unwrap();
    assert_eq!(input.recv_timeout(Duration::from_secs(10)).unwrap(), b"in");
    output.write_all(b"out").unwrap();
    let mut seen = [0; 3];
    client.read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"out");
}

#[test]
fn a_writer_never_waits_for_an_absent_client() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("com2");
    let (ports, mut end) = open(SerialBackend::Listen(path.clone())).unwrap();
    let chunk = [b'x'; 4096];
    for _ in 0..2 * queue::CAPACITY / chunk.len() {
        end.output.write_all(&chunk).unwrap();
    }
    end.output.write_all(b"end").unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    let mut seen = vec![0; queue::CAPACITY];
    client.read_exact(&mut seen).unwrap();
    assert!(seen.ends_with(b"xend"));
    drop(client);
    ports.finish();
}

#[test]
fn a_socket_that_nobody_listens_on_is_replaced_and_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("com2");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let (_ports, _end) = open(SerialBackend::Listen(path.clone())).unwrap();
    let error = anyhow::Error::from(open(SerialBackend::Listen(path.clone())).unwrap_err());
    assert_eq!(
        format!("{error:#}"),
        format!(
            "--com2 listen={}: Address already in use (os error 98)",
            path.display()
        )
    );
}

#[test]
fn a_port_that_cannot_be_opened_says_which_and_why() {
    let error = open(SerialBackend::File("/no/such/dir/x".into()))
        .map(drop)
        .unwrap_err();
    assert_eq!(
        format!("{:#}", anyhow::Error::from(error)),
        "--com2 file=/no/such/dir/x: No such file or directory (os error 2)"
    );
}
