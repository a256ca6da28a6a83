// SPDX-License-Identifier: MIT
//! Sizes: a number with an optional suffix K, M, G or T (KB, MB, ... and KiB, MiB, ... mean the same), in
//! units of 1024.

/// Parses a size in bytes.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is not a size; write a number with K, M, G or T, as in 2GB");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| bad())?;
    let suffix = suffix.to_ascii_uppercase();
    let unit = suffix
        .strip_suffix("IB")
        .or(suffix.strip_suffix('B'))
        .unwrap_or(&suffix);
    let shift = match (unit, suffix.as_str()) {
        ("", "" | "B") => 0,
        ("K", _) => 10,
        ("M", _) => 20,
        ("G", _) => 30,
        ("T", _) => 40,
        _ => return Err(bad()),
    };
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("{text:?} is more than 64 bits can count"))
}

/// Parses `-m SIZE` or `-m size=SIZE`. Whether the machine can hold that much is the layout's business.
pub(crate) fn parse_memory(text: &str) -> Result<u64, String> {
    let mut size = None;
    for (i, part) in text.split(',').enumerate() {
        let value = match part.split_once('=') {
            Some(("size", value)) => value,
            Some((key, _)) => return Err(format!("unknown key {key:?}; the only key is size")),
            None if i == 0 => part,
            None => return Err(format!("{part:?} is not key=value")),
        };
        if size.replace(parse(value)?).is_some() {
            return Err("the size is given twice".into());
        }
    }
    match size {
        Some(0) | None => Err("a guest needs memory; write a size, as in 2GB".into()),
        Some(size) if size % 4096 != 0 => Err(format!("{size} bytes is not a multiple of 4096 (4K)")),
        Some(size) => Ok(size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_count_in_units_of_1024() {
        for (text, bytes) in [
            ("4096", 4096),
            ("4096B", 4096),
            ("4K", 4096),
            ("512m", 512 << 20),
            ("2GB", 2 << 30),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        assert_eq!(parse_memory("size=1GB"), Ok(1 << 30));
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in [
            "",
            "K",
            "1.5G",
            "2X",
            "-1",
            "1 G",
            "2GBB",
            "1IB",
            "99999999999999999999",
            "1GiBB",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(
            parse("20000000T"),
            Err("\"20000000T\" is more than 64 bits can count".into())
        );
    }
}
