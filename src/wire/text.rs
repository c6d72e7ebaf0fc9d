//! Texts of failures, within their bounds.

use std::borrow::Cow;

/// Most bytes of a failure's message. It is kept once for every unit of a task, and shown in lists.
pub const LONGEST_MESSAGE: usize = 4096;

/// A text of at most `limit` bytes: of a longer one the beginning and the end, where messages name
/// what is wrong and what helps, and how much is left out between them.
pub fn shortened(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return Cow::Borrowed(text);
    }
    // Room for the longest number of bytes.
    let room = limit.saturating_sub(" ... ( bytes left out) ... ".len() + 20);
    let mut head = room * 3 / 4;
    while !text.is_char_boundary(head) {
        head -= 1;
    }
    let mut tail = text.len() - (room - room * 3 / 4);
    while !text.is_char_boundary(tail) {
        tail += 1;
    }
    let left_out = tail - head;
    let (head, tail) = (&text[..head], &text[tail..]);
    Cow::Owned(format!("{head} ... ({left_out} bytes left out) ... {tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_text_stays_and_a_long_one_keeps_its_beginning_and_its_end() {
        assert_eq!(shortened("short", 100), "short");
        for filler in ["a", "\u{e9}", "\u{1f5fc}"] {
            let text = format!("prompt {}: use less", filler.repeat(1 << 18));
            let short = shortened(&text, LONGEST_MESSAGE);
            assert!(short.len() <= LONGEST_MESSAGE, "{}", short.len());
            assert!(short.len() > LONGEST_MESSAGE - 60, "{}", short.len());
            assert!(short.starts_with("prompt ") && short.ends_with(": use less"));
            assert!(short.contains(" bytes left out"));
        }
    }
}
