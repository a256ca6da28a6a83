// SPDX-License-Identifier: MIT
//! Just enough of Rust's lexing to look at code without its comments and literals.
//!
//! Always true: [`code_only`] keeps every line break and every byte position, so line numbers found in
//! its result are those of the file. Not here: parsing.

/// The text with comments, strings and character literals replaced by blanks.
pub(super) fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let len = skipped_len(bytes, at);
        if len == 0 {
            out.push(if bytes[at].is_ascii() { bytes[at] } else { b' ' });
            at += 1;
            continue;
        }
        let end = (at + len).min(bytes.len());
        out.extend(
            bytes[at..end]
                .iter()
                .map(|&b| if b == b'\n' { b'\n' } else { b' ' }),
        );
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Length of the comment or literal at `at`, 0 if there is none.
fn skipped_len(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
    }
    if rest.starts_with(b"/*") {
        return block_comment_len(rest);
    }
    let after_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    match rest[0] {
        b'"' => 1 + quoted_len(&rest[1..], b'"'),
        b'r' | b'b' | b'c' if !after_word => prefixed_len(rest),
        b'\'' => char_len(rest),
        _ => 0,
    }
}

fn block_comment_len(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// Bytes up to and including the closing quote.
fn quoted_len(rest: &[u8], quote: u8) -> usize {
    let mut at = 0;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b if b == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// `r"`, `r#"`, `b"`, `br#"`, `c"`, `b'`: a literal with a prefix, 0 for a plain word.
fn prefixed_len(rest: &[u8]) -> usize {
    let letters = rest
        .iter()
        .take(2)
        .take_while(|b| matches!(b, b'r' | b'b' | b'c'))
        .count();
    let raw = rest[..letters].contains(&b'r');
    let hashes = rest[letters..].iter().take_while(|&&b| b == b'#').count();
    let open = letters + hashes;
    match rest.get(open) {
        Some(b'"') if raw => {
            let close = [&b"\""[..], &b"#".repeat(hashes)].concat();
            let body = &rest[open + 1..];
            let len = body.windows(close.len()).position(|w| w == close);
            len.map_or(rest.len(), |len| open + 1 + len + close.len())
        }
        Some(b'"') if hashes == 0 => open + 1 + quoted_len(&rest[open + 1..], b'"'),
        Some(b'\'') if hashes == 0 && rest[0] == b'b' => open + 1 + quoted_len(&rest[open + 1..], b'\''),
        _ => 0,
    }
}

/// A character literal; 0 for a lifetime.
fn char_len(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        return 1 + quoted_len(&rest[1..], b'\'');
    }
    let text = &rest[1..];
    let width = (1..=4).find(|&n| text.get(n) == Some(&b'\'') && is_one_char(&text[..n]));
    width.map_or(0, |n| n + 2)
}

fn is_one_char(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.chars().count() == 1)
}

/// Positions of `word` as a whole word in `code`.
pub(super) fn words<'t>(code: &'t str, word: &'t str) -> impl Iterator<Item = usize> + 't {
    let is_part = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let bytes = code.as_bytes();
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = at.checked_sub(1).and_then(|i| bytes.get(i));
        !before.is_some_and(is_part) && !bytes.get(at + word.len()).is_some_and(is_part)
    })
}

/// Line number, from 1, of a byte position.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at].iter().filter(|&&b| b == b'\n').count()
}

/// A function: its name, its first line and how many lines it has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) lines: usize,
}

/// The functions that have a body, from text that [`code_only`] made.
pub(super) fn functions(code: &str) -> Vec<Function> {
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    for at in words(code, "fn") {
        let after = code[at + 2..].trim_start();
        let name: String = after
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        if name.is_empty() {
            continue;
        }
        let Some(end) = body_end(bytes, at) else { continue };
        let line = line_of(code, at);
        found.push(Function {
            name,
            line,
            lines: line_of(code, end) - line + 1,
        });
    }
    found
}

/// Position of the brace that closes the body of the function at `at`; `None` if it has none.
fn body_end(bytes: &[u8], at: usize) -> Option<usize> {
    let (mut round, mut curly) = (0_usize, 0_usize);
    for (i, byte) in bytes.iter().enumerate().skip(at) {
        match byte {
            b'(' | b'[' if curly == 0 => round += 1,
            b')' | b']' if curly == 0 => round = round.checked_sub(1)?,
            b';' if curly == 0 && round == 0 => return None,
            b'{' => curly += 1,
            b'}' => {
                curly = curly.checked_sub(1)?;
                if curly == 0 && round == 0 {
                    return Some(i);
                }
            }
            _ => {}
        }
    }
    None
}
