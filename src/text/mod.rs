//! Texts of others, kept short; and bytes that should be texts.

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
