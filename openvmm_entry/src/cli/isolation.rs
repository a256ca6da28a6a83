// SPDX-License-Identifier: MIT
//! `--isolation KIND[,key=value]..`.
//!
//! Always true: a key is given once and belongs to its kind; nothing is decided about the host. Not here:
//! which kinds are launched ([`crate::config`]).

use openvmm_defs::IsolationRequest;

/// A parsed `--isolation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IsolationArg {
    /// The kind.
    pub(crate) kind: IsolationRequest,
    /// What the keys say.
    pub(crate) sev: SevSettings,
}

/// Keys of the AMD kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SevSettings {
    /// Guest policy instead of the file's.
    pub(crate) policy: Option<u64>,
    /// What attestation reports carry as HOST_DATA.
    pub(crate) host_data: Option<[u8; 32]>,
    /// Expected position of the host's C-bit.
    pub(crate) cbitpos: Option<u32>,
    /// Expected loss of physical address bits.
    pub(crate) reduced_phys_bits: Option<u32>,
}

const KINDS: [(&str, IsolationRequest); 7] = [
    ("none", IsolationRequest::None),
    ("vbs", IsolationRequest::Vbs),
    ("snp", IsolationRequest::Snp),
    ("tdx", IsolationRequest::Tdx),
    ("sev", IsolationRequest::Sev),
    ("sev-es", IsolationRequest::SevEs),
    ("cca", IsolationRequest::Cca),
];

/// The name of a kind.
pub(crate) fn name(kind: IsolationRequest) -> &'static str {
    KINDS.iter().find(|row| row.1 == kind).map_or("none", |row| row.0)
}

/// Why a value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IsolationArgError {
    #[error(
        "unknown kind {0:?}; known kinds are none, snp, sev-es, sev, and to be measured only tdx, vbs and cca"
    )]
    Kind(String),
    #[error("{0:?} is not key=value")]
    NotKeyValue(String),
    #[error("{kind} has no key {key:?}; {known}")]
    Key {
        kind: &'static str,
        key: String,
        known: &'static str,
    },
    #[error("key {0} is given twice; give it once")]
    Twice(&'static str),
    #[error("{key}={value} is not a number; write it as 123 or 0x7b")]
    Number { key: &'static str, value: String },
    #[error(
        "cbitpos={0} is not a bit of a physical address; it is 47 or 51 on today's processors, and never needed"
    )]
    CBit(u64),
    #[error("reduced-phys-bits={0} is not 1 to 63; it is 1 to 6 on today's processors, and never needed")]
    ReducedBits(u64),
    #[error(
        "host-data is not 64 hexadecimal digits (QEMU takes it in base64: `base64 -d | xxd -p -c 32` turns it around)"
    )]
    HostData,
}

/// Parses the value of `--isolation`.
pub(crate) fn parse(text: &str) -> Result<IsolationArg, IsolationArgError> {
    let mut parts = text.split(',');
    let kind = parts.next().unwrap_or_default();
    let &(kind, request) = KINDS
        .iter()
        .find(|row| row.0 == kind)
        .ok_or_else(|| IsolationArgError::Kind(kind.into()))?;
    let mut sev = SevSettings::default();
    for part in parts {
        let (key, value) = part
            .split_once('=')
            .ok_or_else(|| IsolationArgError::NotKeyValue(part.into()))?;
        set(&mut sev, (kind, request), key, value)?;
    }
    Ok(IsolationArg { kind: request, sev })
}

fn set(
    sev: &mut SevSettings,
    (kind, request): (&'static str, IsolationRequest),
    key: &str,
    value: &str,
) -> Result<(), IsolationArgError> {
    let amd = matches!(
        request,
        IsolationRequest::Sev | IsolationRequest::SevEs | IsolationRequest::Snp
    );
    match key {
        "policy" if amd => once(&mut sev.policy, "policy", number("policy", value)?),
        "cbitpos" if amd => {
            let bit = number("cbitpos", value)?;
            let bit = u32::try_from(bit)
                .ok()
                .filter(|bit| (32..64).contains(bit))
                .ok_or(IsolationArgError::CBit(bit))?;
            once(&mut sev.cbitpos, "cbitpos", bit)
        }
        "reduced-phys-bits" if amd => {
            let bits = number("reduced-phys-bits", value)?;
            let valid = u32::try_from(bits).ok().filter(|bits| (1..64).contains(bits));
            let bits = valid.ok_or(IsolationArgError::ReducedBits(bits))?;
            once(&mut sev.reduced_phys_bits, "reduced-phys-bits", bits)
        }
        "host-data" if request == IsolationRequest::Snp => once(
            &mut sev.host_data,
            "host-data",
            host_data(value).ok_or(IsolationArgError::HostData)?,
        ),
        _ => Err(IsolationArgError::Key {
            kind,
            key: key.into(),
            known: match request {
                IsolationRequest::Snp => "its keys are policy, host-data, cbitpos and reduced-phys-bits",
                _ if amd => "its keys are policy, cbitpos and reduced-phys-bits",
                _ => "it has none",
            },
        }),
    }
}

fn once<T>(slot: &mut Option<T>, key: &'static str, value: T) -> Result<(), IsolationArgError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(IsolationArgError::Twice(key)),
    }
}

fn number(key: &'static str, value: &str) -> Result<u64, IsolationArgError> {
    let parsed = match value.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => value.parse(),
    };
    parsed.map_err(|_| IsolationArgError::Number {
        key,
        value: value.into(),
    })
}

fn host_data(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut data = [0; 32];
    for (at, byte) in data.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_known_by_its_name() {
        for (text, kind) in KINDS {
            let sev = SevSettings::default();
            assert_eq!(parse(text), Ok(IsolationArg { kind, sev }));
            assert_eq!(name(kind), text);
        }
    }

    #[test]
    fn keys_are_taken_in_any_order() {
        let data = "00112233445566778899aabbccddeeffFFEEDDCCBBAA99887766554433221100";
        let parsed = parse(&format!(
            "snp,reduced-phys-bits=5,cbitpos=51,host-data={data},policy=0xb0000"
        ))
        .unwrap();
        assert_eq!(parsed.kind, IsolationRequest::Snp);
        let sev = parsed.sev;
        assert_eq!(
            (sev.policy, sev.cbitpos, sev.reduced_phys_bits),
            (Some(0xB_0000), Some(51), Some(5))
        );
        let bytes = sev.host_data.unwrap();
        assert_eq!((bytes[1], bytes[16], bytes[31]), (0x11, 0xFF, 0));
        assert_eq!(parse("sev-es,policy=5").unwrap().sev.policy, Some(5));
    }

    #[test]
    fn every_mistake_has_its_message() {
        for (text, message) in [
            (
                "sgx",
                "unknown kind \"sgx\"; known kinds are none, snp, sev-es, sev, and to be measured only tdx, vbs and cca",
            ),
            (
                "",
                "unknown kind \"\"; known kinds are none, snp, sev-es, sev, and to be measured only tdx, vbs and cca",
            ),
            ("snp,policy", "\"policy\" is not key=value"),
            (
                "snp,smt=on",
                "snp has no key \"smt\"; its keys are policy, host-data, cbitpos and reduced-phys-bits",
            ),
            (
                "sev,host-data=00",
                "sev has no key \"host-data\"; its keys are policy, cbitpos and reduced-phys-bits",
            ),
            ("none,policy=1", "none has no key \"policy\"; it has none"),
            ("snp,policy=1,policy=2", "key policy is given twice; give it once"),
            (
                "snp,policy=0xz",
                "policy=0xz is not a number; write it as 123 or 0x7b",
            ),
            (
                "snp,cbitpos=7",
                "cbitpos=7 is not a bit of a physical address; it is 47 or 51 on today's processors, and never needed",
            ),
            (
                "sev,reduced-phys-bits=0",
                "reduced-phys-bits=0 is not 1 to 63; it is 1 to 6 on today's processors, and never needed",
            ),
            (
                "snp,host-data=+011",
                "host-data is not 64 hexadecimal digits (QEMU takes it in base64: `base64 -d | xxd -p -c 32` turns it around)",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message, "{text}");
        }
    }
}
