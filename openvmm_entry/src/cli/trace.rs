// SPDX-License-Identifier: MIT
//! `--trace-filter KIND[=LOW-HIGH]`.

use std::ops::RangeInclusive;

/// What a filter lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TraceKind {
    Instructions,
    Exceptions,
    Ports,
    Mmio,
}

/// One `--trace-filter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TraceFilter {
    pub(crate) kind: TraceKind,
    pub(crate) range: RangeInclusive<u64>,
}

/// Parses a filter; without a range it lets everything of its kind through.
pub(crate) fn parse(text: &str) -> Result<TraceFilter, String> {
    let (kind, range) = match text.split_once('=') {
        Some((kind, range)) => (kind, Some(range)),
        None => (text, None),
    };
    let kind = match kind {
        "instructions" => TraceKind::Instructions,
        "exceptions" => TraceKind::Exceptions,
        "ports" => TraceKind::Ports,
        "mmio" => TraceKind::Mmio,
        _ => return Err("known kinds are instructions, exceptions, ports and mmio".into()),
    };
    match range {
        None => Ok(TraceFilter {
            kind,
            range: 0..=u64::MAX,
        }),
        Some(_) if kind == TraceKind::Exceptions => Err("exceptions take no range".into()),
        Some(range) => Ok(TraceFilter {
            kind,
            range: addresses(range)?,
        }),
    }
}

/// LOW-HIGH, both inclusive, or one address; decimal or 0x hex.
fn addresses(text: &str) -> Result<RangeInclusive<u64>, String> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high) = (number(low)?, number(high)?);
    if low > high {
        return Err(format!("the range {text} ends before it begins"));
    }
    Ok(low..=high)
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text:?} is not an address; a range is LOW-HIGH, for example 0x3f8-0x3ff"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_have_a_kind_and_perhaps_a_range() {
        let filter = |kind, range| Ok(TraceFilter { kind, range });
        assert_eq!(parse("exceptions"), filter(TraceKind::Exceptions, 0..=u64::MAX));
        assert_eq!(
            parse("ports=0x3f8-0x3ff"),
            filter(TraceKind::Ports, 0x3F8..=0x3FF)
        );
        assert_eq!(parse("mmio=4096"), filter(TraceKind::Mmio, 4096..=4096));
    }

    #[test]
    fn wrong_filters_say_what_would_be_right() {
        for (text, error) in [
            (
                "calls",
                "known kinds are instructions, exceptions, ports and mmio",
            ),
            ("exceptions=1-2", "exceptions take no range"),
            ("ports=9-3", "the range 9-3 ends before it begins"),
            (
                "mmio=here",
                "\"here\" is not an address; a range is LOW-HIGH, for example 0x3f8-0x3ff",
            ),
        ] {
            assert_eq!(parse(text), Err(error.into()));
        }
    }
}
