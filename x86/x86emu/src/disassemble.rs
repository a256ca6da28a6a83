// SPDX-License-Identifier: MIT
//! Instructions as text, for traces. Not here: anything that runs them.

use iced_x86::{Decoder, DecoderOptions, FastFormatter};

/// The length and the text (Intel syntax) of the instruction at the start of `bytes`; `bitness` is 16, 32
/// or 64. Bytes that are no instruction are `(bad)` with the length that decoding needed.
pub fn disassemble(bitness: u32, rip: u64, bytes: &[u8]) -> (usize, String) {
    if !matches!(bitness, 16 | 32 | 64) {
        return (0, "(bad)".into());
    }
    let decoded = Decoder::with_ip(bitness, bytes, rip, DecoderOptions::NONE).decode();
    let mut text = String::new();
    FastFormatter::new().format(&decoded, &mut text);
    (decoded.len(), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_instruction_is_taken_from_the_bytes() {
        assert_eq!(
            disassemble(32, 0x1000, &[0xB0, b'>', 0xEE]),
            (2, "mov al,3Eh".into())
        );
        assert_eq!(disassemble(64, 0, &[0x06]).1, "(bad)");
        assert_eq!(disassemble(7, 0, &[0x90]), (0, "(bad)".into()));
    }
}
