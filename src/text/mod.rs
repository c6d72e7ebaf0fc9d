//! Texts of others, kept short; and bytes that should be texts.

pub mod utf8;

/// A text, or its beginning where it is longer than `most` bytes, with its length. What comes back
/// has at most `most` bytes and some 30 more.
pub fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most).rev().find(|&end| text.is_char_boundary(end));
    let end = end.unwrap_or(0);
    format!("{}... ({} bytes)", &text[..end], text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_says_how_long_it_was() {
        assert_eq!(cut("héllo", 6), "héllo");
        assert_eq!(cut("héllo", 2), "h... (6 bytes)");
        assert_eq!(cut("", 0), "");
    }
}
