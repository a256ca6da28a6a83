// SPDX-License-Identifier: MIT
//! `--com1..4 console|none|stderr|file=PATH|listen=PATH|listen=tcp:IP:PORT`.

use openvmm_defs::SerialBackend;

/// Parses the value.
pub(crate) fn parse(text: &str) -> Result<SerialBackend, String> {
    match text.split_once('=') {
        None if text == "console" => Ok(SerialBackend::Console),
        None if text == "none" => Ok(SerialBackend::None),
        None if text == "stderr" => Ok(SerialBackend::Stderr),
        Some((key @ ("file" | "listen"), "")) => Err(format!("{key}= is empty; give a path")),
        Some(("file", path)) => Ok(SerialBackend::File(path.into())),
        Some(("listen", address)) => match address.strip_prefix("tcp:") {
            None => Ok(SerialBackend::Listen(address.into())),
            Some(tcp) => tcp
                .parse()
                .map(SerialBackend::ListenTcp)
                .map_err(|_| format!("{tcp:?} is not IP:PORT; write for example listen=tcp:127.0.0.1:4444")),
        },
        _ => Err(format!(
            "unknown serial backend {text:?}; known are console, none, stderr, file=PATH, listen=PATH and \
             listen=tcp:IP:PORT"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_is_understood() {
        for (text, backend) in [
            ("console", SerialBackend::Console),
            ("none", SerialBackend::None),
            ("stderr", SerialBackend::Stderr),
            ("file=a=b", SerialBackend::File("a=b".into())),
            ("listen=/run/x", SerialBackend::Listen("/run/x".into())),
            (
                "listen=tcp:127.0.0.1:4444",
                SerialBackend::ListenTcp("127.0.0.1:4444".parse().unwrap()),
            ),
            (
                "listen=tcp:[::1]:1",
                SerialBackend::ListenTcp("[::1]:1".parse().unwrap()),
            ),
        ] {
            assert_eq!(parse(text), Ok(backend), "{text}");
        }
    }
}
