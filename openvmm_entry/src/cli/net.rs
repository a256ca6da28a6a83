// SPDX-License-Identifier: MIT
//! `--net tap:NAME|none`, `--virtio-net tap:NAME` and `--virtio-vsock PATH[,cid=N]`.

use super::igvm::split_outside_brackets;
use openvmm_defs::VsockConfig;

/// Where a network interface of the guest leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NetArg {
    /// Nowhere: no interface.
    None,
    /// A tap interface of the host.
    Tap(String),
}

/// The first context id that is a guest's.
const FIRST_GUEST_CID: u32 = 3;

/// Parses `--net` and `--virtio-net`.
pub(crate) fn parse(text: &str) -> Result<NetArg, String> {
    match text.split_once(':') {
        None if text == "none" => Ok(NetArg::None),
        Some(("tap", "")) => Err("tap: has no interface; write tap:NAME".into()),
        Some(("tap", name)) => Ok(NetArg::Tap(name.to_owned())),
        _ if text.starts_with("consomme") || text.starts_with("dio") => Err(format!(
            "the network backend {text:?} is not available; make a tap interface and write tap:NAME"
        )),
        _ => Err(format!(
            "unknown network backend {text:?}; known are tap:NAME and none"
        )),
    }
}

/// Parses `--virtio-vsock`.
pub(crate) fn parse_vsock(text: &str) -> Result<VsockConfig, String> {
    let mut parts = split_outside_brackets(text).into_iter();
    let path = parts.next().unwrap_or("");
    let path = path
        .strip_prefix('[')
        .and_then(|p| p.strip_suffix(']'))
        .unwrap_or(path);
    if path.is_empty() {
        return Err("the socket's path is empty; give where programs of the host connect".into());
    }
    let mut guest_cid = FIRST_GUEST_CID;
    for part in parts {
        let number = part.strip_prefix("cid=").and_then(|n| n.parse().ok());
        // All ones is "any".
        guest_cid = number
            .filter(|cid| (FIRST_GUEST_CID..u32::MAX).contains(cid))
            .ok_or_else(|| format!("{part:?} is not cid=N with N from 3 to 4294967294"))?;
    }
    Ok(VsockConfig {
        guest_cid,
        path: path.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_understood_and_others_refused() {
        assert_eq!(parse("none"), Ok(NetArg::None));
        assert_eq!(parse("tap:vm0"), Ok(NetArg::Tap("vm0".into())));
        for (text, message) in [
            ("tap:", "tap: has no interface"),
            ("consomme:10.0.0.0/24", "is not available"),
            ("dio", "is not available"),
            ("user", "unknown network backend"),
        ] {
            assert!(parse(text).unwrap_err().contains(message), "{text}");
        }
    }

    #[test]
    fn sockets_have_a_path_and_a_context_id() {
        let parsed = |text| parse_vsock(text).map(|v| (v.guest_cid, v.path.display().to_string()));
        assert_eq!(parsed("/run/v"), Ok((3, "/run/v".into())));
        assert_eq!(parsed("[a,b],cid=42"), Ok((42, "a,b".into())));
        for bad in ["", ",cid=4", "v,cid=2", "v,cid=4294967295", "v,cid", "v,port=1"] {
            assert!(parse_vsock(bad).is_err(), "{bad}");
        }
    }
}
