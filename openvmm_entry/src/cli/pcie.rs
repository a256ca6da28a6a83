// SPDX-License-Identifier: MIT
//! `--pcie-root-complex NAME[,segment=N][,start_bus=N][,end_bus=N][,low_mmio=SIZE][,high_mmio=SIZE]` and
//! `--nvme-pci id=NAME[,rc=ROOT_COMPLEX]` (uefi-launch 1.5).

use super::size;
use openvmm_defs::RootComplexConfig;

/// A parsed `--nvme-pci`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NvmeArg {
    /// What disks name it by.
    pub(crate) id: String,
    /// The root complex it is on.
    pub(crate) root_complex: Option<String>,
}

/// Splits `text` into `key=value` parts and gives each to `take`, which says whether it knows the key.
fn parts<'t>(
    text: impl Iterator<Item = &'t str>,
    known: &str,
    mut take: impl FnMut(&'t str, &'t str) -> Result<bool, String>,
) -> Result<(), String> {
    let mut seen = Vec::new();
    for part in text {
        let Some((key, value)) = part.split_once('=').filter(|(_, value)| !value.is_empty()) else {
            return Err(format!("{part:?} is not key=value; known keys are {known}"));
        };
        if seen.contains(&key) {
            return Err(format!("key {key:?} is given twice"));
        }
        seen.push(key);
        if !take(key, value)? {
            return Err(format!("unknown key {key:?}; known keys are {known}"));
        }
    }
    Ok(())
}

/// Parses `--nvme-pci`.
pub(crate) fn parse_nvme(text: &str) -> Result<NvmeArg, String> {
    let (mut id, mut root_complex) = (None, None);
    parts(text.split(','), "id and rc", |key, value| {
        let slot = match key {
            "id" => &mut id,
            "rc" => &mut root_complex,
            _ => return Ok(false),
        };
        *slot = Some(value.to_owned());
        Ok(true)
    })?;
    let id =
        id.ok_or("the controller has no id; write id=NAME, and put disks on it with --disk FILE,on=NAME")?;
    Ok(NvmeArg { id, root_complex })
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|_| format!("{key}={value} is not a number that fits"))
}

/// Parses `--pcie-root-complex`.
pub(crate) fn parse_root_complex(text: &str) -> Result<RootComplexConfig, String> {
    const KNOWN: &str = "segment, start_bus, end_bus, low_mmio and high_mmio";
    let mut pieces = text.split(',');
    let name = pieces.next().unwrap_or("");
    if name.is_empty() || name.contains('=') {
        return Err("a root complex begins with its name; write NAME,key=value".into());
    }
    let mut complex = RootComplexConfig {
        name: name.to_owned(),
        end_bus: u8::MAX,
        ..RootComplexConfig::implicit()
    };
    parts(pieces, KNOWN, |key, value| {
        match key {
            "segment" => complex.segment = number(key, value)?,
            "start_bus" => complex.start_bus = number(key, value)?,
            "end_bus" => complex.end_bus = number(key, value)?,
            "low_mmio" => complex.low_mmio = size::parse(value)?,
            "high_mmio" => complex.high_mmio = size::parse(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(complex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_have_an_id_and_perhaps_a_place() {
        let parsed = parse_nvme("id=n0,rc=b").unwrap();
        assert_eq!(
            (parsed.id.as_str(), parsed.root_complex.as_deref()),
            ("n0", Some("b"))
        );
        for (text, message) in [
            ("", "is not key=value"),
            ("n0", "is not key=value"),
            ("rc=a", "has no id"),
            ("id=", "is not key=value"),
            ("id=a,id=b", "given twice"),
            ("id=a,lun=1", "unknown key"),
        ] {
            assert!(parse_nvme(text).unwrap_err().contains(message), "{text}");
        }
    }

    #[test]
    fn root_complexes_have_openvmms_keys_and_defaults() {
        let parsed =
            parse_root_complex("rc1,segment=2,start_bus=16,end_bus=31,low_mmio=32M,high_mmio=2G").unwrap();
        let expected = RootComplexConfig {
            name: "rc1".into(),
            segment: 2,
            start_bus: 16,
            end_bus: 31,
            low_mmio: 32 << 20,
            high_mmio: 2 << 30,
        };
        assert_eq!(parsed, expected);
        assert_eq!(parse_root_complex("a").unwrap().end_bus, 255);
        for (text, message) in [
            ("", "begins with its name"),
            ("segment=1", "begins with its name"),
            ("a,segment=65536", "is not a number that fits"),
            ("a,end_bus=256", "is not a number that fits"),
            ("a,low_mmio=much", "is not a size"),
            ("a,hdm=1", "unknown key"),
            ("a,preserve_bars", "is not key=value"),
        ] {
            assert!(parse_root_complex(text).unwrap_err().contains(message), "{text}");
        }
    }
}
