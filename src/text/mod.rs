//! Texts of others, kept short; bytes that should be texts; and scripts.

pub mod utf8;

/// A text, or where it is longer than `most` bytes its beginning and its end, with how long it is:
/// what is wrong stands at one of the two. What comes back has at most `most` bytes, or as many as
/// that note.
pub fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let note = format!(" ... ({} bytes) ... ", text.len());
    let room = most.saturating_sub(note.len());
    let mut head = room - room / 4;
    while !text.is_char_boundary(head) {
        head -= 1;
    }
    let mut tail = text.len() - room / 4;
    while !text.is_char_boundary(tail) {
        tail += 1;
    }
    format!("{}{note}{}", &text[..head], &text[tail..])
}

/// Whether a character is of a script that puts no spaces between words: Han and its punctuation,
/// kana, Thai, Lao, Tibetan, Myanmar, Khmer.
pub fn unspaced(c: char) -> bool {
    matches!(u32::from(c),
        0x0E00..=0x0EFF | 0x0F00..=0x0FFF | 0x1000..=0x109F | 0x1780..=0x17FF
        | 0x3000..=0x30FF | 0x31F0..=0x31FF | 0x3400..=0x4DBF | 0x4E00..=0x9FFF
        | 0xF900..=0xFAFF | 0xFF00..=0xFFEF | 0x20000..=0x3FFFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_text_stays_and_a_long_one_keeps_its_beginning_and_its_end() {
        assert_eq!(cut("h\u{e9}llo", 6), "h\u{e9}llo");
        assert_eq!(cut("h\u{e9}llo", 2), " ... (6 bytes) ... ");
        assert_eq!(cut("", 0), "");
        for filler in ["a", "\u{e9}", "\u{1f5fc}"] {
            let text = format!("prompt {}: use less", filler.repeat(1 << 18));
            for most in [80, 4096] {
                let short = cut(&text, most);
                assert!(short.len() <= most, "{}", short.len());
                assert!(short.len() > most - 8, "{}", short.len());
                assert!(short.starts_with("prompt ") && short.ends_with("use less"));
                let note = format!(" ... ({} bytes) ... ", text.len());
                assert!(short.contains(&note), "{short}");
            }
        }
    }
}
