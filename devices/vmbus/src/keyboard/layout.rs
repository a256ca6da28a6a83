// SPDX-License-Identifier: MIT
//! Which key is where on a US keyboard: scan codes of set 1 by character and by X11 key symbol.
//!
//! Always true: a character and its shifted form are one key. Not here: other countries' keyboards; a guest
//! that is told of one reads these codes as its keys.

use super::KeyEvent;

/// First code of a run of keys, the keys, and the same with shift.
const RUNS: [(u8, &str, &str); 5] = [
    (0x02, "1234567890-=", "!@#$%^&*()_+"),
    (0x10, "qwertyuiop[]", "QWERTYUIOP{}"),
    (0x1E, "asdfghjkl;'`", "ASDFGHJKL:\"~"),
    (0x2B, "\\zxcvbnm,./", "|ZXCVBNM<>?"),
    (0x39, " ", " "),
];
const SHIFT: u8 = 0x2A;
const ENTER: u8 = 0x1C;
const TAB: u8 = 0x0F;
const BACKSPACE: u8 = 0x0E;

/// Key symbols of keys that are no characters: symbol, code, whether it is extended (X11 keysymdef.h).
const SYMBOLS: [(u32, u8, bool); 33] = [
    (0xFF08, BACKSPACE, false),
    (0xFF09, TAB, false),
    (0xFF0D, ENTER, false),
    (0xFF14, 0x46, false),
    (0xFF1B, 0x01, false),
    (0xFF50, 0x47, true),
    (0xFF51, 0x4B, true),
    (0xFF52, 0x48, true),
    (0xFF53, 0x4D, true),
    (0xFF54, 0x50, true),
    (0xFF55, 0x49, true),
    (0xFF56, 0x51, true),
    (0xFF57, 0x4F, true),
    (0xFF63, 0x52, true),
    (0xFF67, 0x5D, true),
    (0xFF7F, 0x45, false),
    (0xFF8D, ENTER, true),
    (0xFFC8, 0x57, false),
    (0xFFC9, 0x58, false),
    (0xFFE1, SHIFT, false),
    (0xFFE2, 0x36, false),
    (0xFFE3, 0x1D, false),
    (0xFFE4, 0x1D, true),
    (0xFFE5, 0x3A, false),
    (0xFFE7, 0x38, false),
    (0xFFE8, 0x38, true),
    (0xFFE9, 0x38, false),
    (0xFFEA, 0x38, true),
    (0xFFEB, 0x5B, true),
    (0xFFEC, 0x5C, true),
    (0xFE03, 0x38, true),
    (0xFE20, TAB, false),
    (0xFFFF, 0x53, true),
];
/// F1 to F10.
const FUNCTION: std::ops::RangeInclusive<u32> = 0xFFBE..=0xFFC7;
const FUNCTION_CODE: u8 = 0x3B;

/// The key of a character, and whether it takes shift.
fn of_char(c: char) -> Option<(u8, bool)> {
    RUNS.iter().find_map(|(first, plain, shifted)| {
        let find = |keys: &str| (*first..).zip(keys.chars()).find(|(_, key)| *key == c);
        let plain = find(plain).map(|(code, _)| (code, false));
        plain.or_else(|| find(shifted).map(|(code, _)| (code, true)))
    })
}

/// What a key symbol's key does; `None` for keys that this keyboard does not have. Clients press shift
/// themselves.
pub fn of_symbol(symbol: u32, down: bool) -> Option<KeyEvent> {
    let release = !down;
    let event = |code, extended| KeyEvent {
        code,
        extended,
        release,
    };
    if FUNCTION.contains(&symbol) {
        return Some(event(FUNCTION_CODE + (symbol - FUNCTION.start()) as u8, false));
    }
    if let Some((_, code, extended)) = SYMBOLS.iter().find(|(known, ..)| *known == symbol) {
        return Some(event(*code, *extended));
    }
    // The symbols of Latin 1 are its characters.
    let (code, _) = of_char(char::from_u32(symbol)?)?;
    Some(event(code, false))
}

/// The movements that type `text`; characters that this keyboard does not have are left out.
pub fn of_text(text: &str) -> Vec<KeyEvent> {
    let mut events = Vec::new();
    let mut push = |code, release| {
        events.push(KeyEvent {
            code,
            extended: false,
            release,
        });
    };
    for c in text.chars() {
        let key = match c {
            '\n' => Some((ENTER, false)),
            '\t' => Some((TAB, false)),
            other => of_char(other),
        };
        let Some((code, shift)) = key else { continue };
        if shift {
            push(SHIFT, false);
        }
        push(code, false);
        push(code, true);
        if shift {
            push(SHIFT, true);
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_printable_character_has_one_key() {
        let mut keys: Vec<_> = (' '..='~').map(|c| of_char(c).unwrap()).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 95);
        assert_eq!(of_char('ä'), None);
    }

    #[test]
    fn text_is_typed_with_shift_where_it_takes_it() {
        let typed: Vec<_> = of_text("aB\n").iter().map(|e| (e.code, e.release)).collect();
        let b = [(0x2A, false), (0x30, false), (0x30, true), (0x2A, true)];
        assert_eq!(typed[..2], [(0x1E, false), (0x1E, true)]);
        assert_eq!(typed[2..6], b);
        assert_eq!(typed[6..], [(0x1C, false), (0x1C, true)]);
    }

    #[test]
    fn symbols_are_characters_and_other_keys() {
        let code = |symbol| of_symbol(symbol, true).map(|e| (e.code, e.extended));
        assert_eq!(code(u32::from('a')), code(u32::from('A')));
        assert_eq!(code(0xFFC7), Some((0x44, false)));
        assert_eq!(code(0xFFFF), Some((0x53, true)));
        assert_eq!(code(0x1_0000), None);
        assert!(of_symbol(0xFF0D, false).unwrap().release);
    }
}
