//! Turns hostile bytes into the inside of a JSON string that keeps to its line and its quotes.
//!
//! Beyond what RFC 8259 section 7 demands, it escapes whatever a terminal or a line-splitting reader would
//! act on: DEL and the C1 controls, the Unicode line separators, and the marks that reorder text.

/// Values longer than this are cut: one request must not fill the log.
pub(super) const MAX_VALUE: usize = 1024;

/// Appends the value, escaped and without quotes, and cut if it is longer than [`MAX_VALUE`] bytes.
/// Invalid UTF-8 becomes U+FFFD.
pub(super) fn push(out: &mut Vec<u8>, value: &[u8]) {
    let kept = shorten(value);
    if all_plain(kept) {
        out.extend_from_slice(kept);
    } else {
        for chunk in kept.utf8_chunks() {
            push_text(out, chunk.valid());
            if !chunk.invalid().is_empty() {
                out.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    }
    if kept.len() < value.len() {
        push_marker(out, value.len() - kept.len());
    }
}

/// Whether all bytes are [plain](is_plain). Blocks of fixed size compile to vector instructions; the last one overlaps
/// the one before it or, in a short value, is filled up.
fn all_plain(value: &[u8]) -> bool {
    const BLOCK: usize = 16;
    let is_plain_block = |block: &[u8; BLOCK]| block.iter().fold(true, |plain, byte| plain & is_plain(*byte));
    let last = value.last_chunk().copied().unwrap_or_else(|| {
        let mut filled_up = [b' '; BLOCK];
        filled_up.iter_mut().zip(value).for_each(|(to, from)| *to = *from);
        filled_up
    });
    value.as_chunks().0.iter().all(is_plain_block) && is_plain_block(&last)
}

/// Printable ASCII without the two characters that mean something inside quotes.
#[allow(clippy::needless_bitwise_bool, reason = "`&&` would take one byte at a time")]
#[allow(clippy::manual_range_contains, reason = "as above")]
pub(super) fn is_plain(byte: u8) -> bool {
    (byte >= b' ') & (byte <= b'~') & (byte != b'"') & (byte != b'\\')
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    let mut copied = 0;
    for (at, c) in text.char_indices() {
        if needs_escape(c) {
            out.extend_from_slice(text.get(copied..at).unwrap_or_default().as_bytes());
            push_escape(out, c);
            copied = at + c.len_utf8();
        }
    }
    out.extend_from_slice(text.get(copied..).unwrap_or_default().as_bytes());
}

fn needs_escape(c: char) -> bool {
    matches!(c, '"' | '\\') || acts_on_a_terminal(c)
}

/// Whether a terminal would do something else than show the character: controls, and marks that hide or reorder text.
pub fn acts_on_a_terminal(c: char) -> bool {
    // Zero-width and direction marks, line and paragraph separators, embeddings and isolates, the BOM.
    let misleads = matches!(c,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    c.is_control() || misleads
}

/// All of these characters are in the basic plane, so that one `\uXXXX` holds them.
fn push_escape(out: &mut Vec<u8>, c: char) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match c {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        c => {
            out.extend_from_slice(b"\\u");
            for shift in [12, 8, 4, 0] {
                let nibble = (u32::from(c) >> shift) & 0xf;
                out.extend(HEX.get(nibble as usize));
            }
        }
    }
}

/// The first bytes of the value, without a character torn in two.
fn shorten(value: &[u8]) -> &[u8] {
    if value.len() <= MAX_VALUE {
        return value;
    }
    let is_inside = |at: &usize| value.get(*at).is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000);
    let cut = (MAX_VALUE - 3..=MAX_VALUE).rev().find(|at| !is_inside(at)).unwrap_or(MAX_VALUE);
    value.get(..cut).unwrap_or(value)
}

fn push_marker(out: &mut Vec<u8>, missing: usize) {
    out.extend_from_slice(b"...[");
    out.extend_from_slice(itoa::Buffer::new().format(missing).as_bytes());
    out.extend_from_slice(b" bytes cut]");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(value: &[u8]) -> String {
        let mut out = Vec::new();
        push(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    fn breaks_a_line(c: char) -> bool {
        c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
    }

    #[test]
    fn what_could_break_a_line_is_escaped() {
        for (value, expected) in [
            (&b"plain /path"[..], "plain /path"),
            (b"a\nb\rc\td", r"a\nb\rc\td"),
            (br#"say "hi" \ bye"#, r#"say \"hi\" \\ bye"#),
            (b"nul\0esc\x1bdel\x7f", r"nul\u0000esc\u001bdel\u007f"),
            ("c1\u{85}\u{9b}".as_bytes(), r"c1\u0085\u009b"),
            ("ls\u{2028}ps\u{2029}".as_bytes(), r"ls\u2028ps\u2029"),
            ("rtl\u{202e}bom\u{feff}".as_bytes(), r"rtl\u202ebom\ufeff"),
            ("zażółć 🦀".as_bytes(), "zażółć 🦀"),
            (b"bad\xff\xfeutf", "bad\u{fffd}\u{fffd}utf"),
        ] {
            assert_eq!(escaped(value), expected);
        }
    }

    #[test]
    fn long_values_are_cut_at_a_character_and_say_so() {
        let long = vec![b'a'; 10 * 1024];
        assert_eq!(escaped(&long), format!("{}...[9216 bytes cut]", "a".repeat(MAX_VALUE)));

        let torn = format!("{}🦀", "a".repeat(MAX_VALUE - 1));
        assert_eq!(escaped(torn.as_bytes()), format!("{}...[4 bytes cut]", "a".repeat(MAX_VALUE - 1)));

        let exact = vec![b'a'; MAX_VALUE];
        assert_eq!(escaped(&exact).len(), MAX_VALUE);
    }

    proptest! {
        #[test]
        fn any_bytes_come_back_as_their_lossy_text(value in prop::collection::vec(any::<u8>(), 0..300)) {
            let text = escaped(&value);
            let stays_on_its_line = !text.contains(breaks_a_line);
            prop_assert!(stays_on_its_line);
            let back: String = serde_json::from_str(&format!("\"{text}\"")).unwrap();
            prop_assert_eq!(back, String::from_utf8_lossy(&value));
        }

        #[test]
        fn no_value_is_longer_than_its_bound(value in prop::collection::vec(any::<u8>(), 0..5000)) {
            // Six bytes for an escape at most, and the marker.
            prop_assert!(escaped(&value).len() <= 6 * MAX_VALUE + 32);
        }
    }
}
