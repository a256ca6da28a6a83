// SPDX-License-Identifier: MIT
//! Key-value pairs: the host tells the guest its name for it, and reads what the guest says of itself
//! (Linux include/uapi/linux/hyperv.h, "hv_kvp_msg").
//!
//! Always true: at most [`MOST`] pairs of a guest are kept. Not here: versions and transactions (`ic`); a
//! program in the guest answers, and without one the first question stays open.

/// Operations.
const SET: u8 = 1;
const ENUMERATE: u8 = 3;
/// Pools: what the guest's system says of itself, what the host says of itself.
const POOL_AUTO: u8 = 2;
const POOL_HOST: u8 = 3;
/// Values are strings.
const STRING: u32 = 1;
/// Room for a key and for a value, in UTF-16 bytes with a NUL.
const KEY: usize = 512;
const VALUE: usize = 2048;
/// Type and sizes before them.
const SIZES: usize = 12;
/// Pairs of a guest.
const MOST: u32 = 64;
/// What the host says.
const TOLD: (&str, &str) = ("VirtualMachineName", "openvmm");

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Next {
    #[default]
    Tell,
    Ask(u32),
    Rest,
}

/// How far host and guest have come.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    next: Next,
    pairs: Vec<(String, String)>,
    told: bool,
}

impl Exchange {
    /// The next question; `None` while there is nothing to ask.
    pub(super) fn question(&self) -> Option<Vec<u8>> {
        match self.next {
            Next::Tell => {
                let mut body = vec![SET, POOL_HOST, 0, 0];
                body.extend(pair(TOLD));
                Some(body)
            }
            Next::Ask(index) => {
                let mut body = vec![ENUMERATE, POOL_AUTO, 0, 0];
                body.extend(index.to_le_bytes());
                body.extend(pair(("", "")));
                Some(body)
            }
            Next::Rest => None,
        }
    }

    /// The guest's answer to it.
    pub(super) fn answered(&mut self, status: u32, body: &[u8]) {
        match self.next {
            Next::Tell => {
                self.told = status == 0;
                self.next = Next::Ask(0);
            }
            Next::Ask(index) => {
                let found = body.get(8..).filter(|_| status == 0).and_then(read_pair);
                self.pairs.truncate(index as usize);
                let more = found.is_some() && index + 1 < MOST;
                self.pairs.extend(found);
                self.next = if more { Next::Ask(index + 1) } else { Next::Rest };
            }
            Next::Rest => {}
        }
    }

    /// Looks again at what the guest says.
    pub(super) fn again(&mut self) {
        if self.next == Next::Rest {
            self.next = Next::Ask(0);
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!(" told {}", self.told);
        for (key, value) in &self.pairs {
            text += &format!(" {}={value:?}", key.escape_debug());
        }
        text
    }
}

fn pair((key, value): (&str, &str)) -> Vec<u8> {
    let units = |text: &str| {
        text.encode_utf16()
            .chain([0])
            .flat_map(u16::to_le_bytes)
            .collect::<Vec<_>>()
    };
    let (key, value) = (units(key), units(value));
    let sizes = [STRING, key.len() as u32, value.len() as u32];
    let mut bytes: Vec<u8> = sizes.into_iter().flat_map(u32::to_le_bytes).collect();
    bytes.resize(SIZES + KEY + VALUE, 0);
    bytes[SIZES..SIZES + key.len()].copy_from_slice(&key);
    bytes[SIZES + KEY..SIZES + KEY + value.len()].copy_from_slice(&value);
    bytes
}

/// A key and its value; `None` when they do not fit their room.
fn read_pair(bytes: &[u8]) -> Option<(String, String)> {
    let size = |at: usize| {
        let size = bytes.get(at..at + 4)?;
        Some(u32::from_le_bytes([size[0], size[1], size[2], size[3]]) as usize)
    };
    let text = |at: usize, len: usize, room: usize| {
        let bytes = bytes.get(at..)?.get(..len)?;
        let units: Vec<u16> = bytes
            .chunks_exact(2)
            .map(|b| u16::from_le_bytes([b[0], b[1]]))
            .collect();
        let end = units.iter().position(|&unit| unit == 0).unwrap_or(units.len());
        (len <= room).then(|| String::from_utf16_lossy(&units[..end]))
    };
    let key = text(SIZES, size(4)?, KEY)?;
    Some((key, text(SIZES + KEY, size(8)?, VALUE)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_told_and_asked_until_it_has_no_more() {
        let mut exchange = Exchange::default();
        let told = exchange.question().unwrap();
        assert_eq!((told.len(), &told[..4]), (2576, [1, 3, 0, 0].as_slice()));
        assert_eq!(read_pair(&told[4..]), Some((TOLD.0.into(), TOLD.1.into())));
        exchange.answered(0, &[]);
        let asked = exchange.question().unwrap();
        assert_eq!(
            (asked.len(), &asked[..8]),
            (2580, [3, 2, 0, 0, 0, 0, 0, 0].as_slice())
        );
        let mut answer = asked[..8].to_vec();
        answer.extend(pair(("OSName", "Debian")));
        exchange.answered(0, &answer);
        assert_eq!(exchange.question().unwrap()[4], 1);
        exchange.answered(0x8007_0103, &answer);
        assert_eq!(exchange.question(), None);
        assert_eq!(exchange.text(), " told true OSName=\"Debian\"");
        exchange.again();
        assert_eq!(exchange.question().unwrap()[4], 0);
    }

    #[test]
    fn what_a_guest_says_is_shown_without_control_characters() {
        let mut exchange = Exchange::default();
        exchange.answered(0, &[]);
        let mut answer = vec![0; 8];
        answer.extend(pair(("a\u{1b}[2J", "b\r")));
        exchange.answered(0, &answer);
        assert_eq!(exchange.text(), r#" told true a\u{1b}[2J="b\r""#);
    }

    #[test]
    fn sizes_that_a_guest_makes_up_are_no_pair() {
        let mut bytes = pair(("a", "b"));
        for (at, size) in [(4, 514_u32), (4, u32::MAX), (8, 2050), (8, u32::MAX)] {
            let kept = bytes.clone();
            bytes[at..at + 4].copy_from_slice(&size.to_le_bytes());
            assert_eq!(read_pair(&bytes), None, "{at} {size:#x}");
            bytes = kept;
        }
        assert_eq!(read_pair(&bytes[..20]), None);
    }
}
