//! Text of unknown origin made fit to be seen: control characters shown, widths known.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// A token, answer or name as one visible line.
///
/// Newlines and tabs become `⏎` and `⇥`; other controls, and characters that reorder or hide text
/// (bidirectional overrides, zero-width spaces), become their code points: a prompt must not be
/// able to steer the terminal or to make a label read differently from what the model saw.
/// Unicode's control pictures are not used, because few typefaces have them.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push('⏎'),
            '\t' => out.push('⇥'),
            c if c.is_control() || is_hidden(c) => out.push_str(&format!("‹U+{:04X}›", c as u32)),
            c => out.push(c),
        }
    }
    out
}

/// A token as an axis label: visible, without the space most tokens begin with; a token that is
/// nothing but spaces is shown as that many `␣`.
pub fn label(token: &str) -> String {
    let trimmed = token.trim_matches(' ');
    if trimmed.is_empty() {
        "␣".repeat(token.len())
    } else {
        visible(trimmed)
    }
}

/// Characters that have no picture of their own yet change how their neighbours are read. The
/// zero-width joiner and the variation selectors are not among them: emoji are made of them.
pub fn is_hidden(c: char) -> bool {
    matches!(c,
        '\u{ad}'
        | '\u{61c}'
        | '\u{180e}'
        | '\u{200b}' | '\u{200c}' | '\u{200e}' | '\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{fffe}' | '\u{ffff}'
        | '\u{e0000}'..='\u{e007f}')
}

/// Columns `text` takes in a terminal.
pub fn columns(text: &str) -> usize {
    text.width()
}

/// `text` cut to at most `limit` terminal columns, the last of them `…` where something was cut.
pub fn truncate(text: &str, limit: usize) -> String {
    cut(text, limit as f32, 1.0, |s| s.width() as f32)
}

/// `text` cut to at most `limit` ems of the figures' widest typeface, ending in `…` where cut.
pub fn truncate_ems(text: &str, limit: f32) -> String {
    cut(text, limit, 1.0, ems)
}

fn cut(text: &str, limit: f32, ellipsis: f32, measure: impl Fn(&str) -> f32) -> String {
    if measure(text) <= limit {
        return text.to_owned();
    }
    if limit < ellipsis {
        return String::new();
    }
    // Measured as a whole prefix each time: the width of a joined emoji is not the sum of its
    // parts.
    let mut end = 0;
    for (at, c) in text.char_indices() {
        let next = at + c.len_utf8();
        if measure(&text[..next]) > limit - ellipsis {
            break;
        }
        end = next;
    }
    // A dangling joiner would pull the ellipsis into the emoji before it; a space would part them.
    let kept = text[..end].trim_end_matches(['\u{200d}', ' ']);
    format!("{kept}…")
}

/// `text` in lines of at most `limit` columns, broken at spaces; a word that is longer is cut.
pub fn wrap(text: &str, limit: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= limit => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(truncate(word, limit)),
        }
    }
    lines
}

/// `text` padded with spaces on the left to `width` terminal columns.
pub fn pad_left(text: &str, width: usize) -> String {
    format!("{}{text}", " ".repeat(width.saturating_sub(text.width())))
}

/// `text` padded with spaces on the right to `width` terminal columns.
pub fn pad_right(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

/// Advance widths of ASCII 0x20..=0x7e in thousandths of an em: of Times, which the figures ask for
/// (Adobe's metrics; Times New Roman, Liberation Serif and Nimbus Roman share them), or of DejaVu
/// Serif, which a machine without any of these draws them in and which is a third wider; whichever
/// is more. So no label is cut off on any, at the price of some white where Times is there.
#[rustfmt::skip]
const WIDEST: [u16; 95] = [
    318, 402, 460, 838, 637, 951, 891, 275, 391, 391, 500, 838, 318, 338, 318, 337,
    637, 637, 637, 637, 637, 637, 637, 637, 637, 637, 337, 337, 838, 838, 838, 537,
    1000, 723, 735, 766, 802, 730, 694, 799, 873, 396, 401, 748, 665, 1024, 875, 820,
    673, 820, 753, 686, 667, 843, 723, 1028, 722, 722, 695, 391, 337, 391, 838, 500,
    500, 597, 641, 561, 641, 592, 371, 641, 645, 320, 311, 606, 320, 949, 645, 603,
    641, 641, 479, 514, 402, 645, 565, 856, 564, 565, 527, 637, 337, 637, 838,
];

/// Most width of `text` in ems of the figures' typefaces: exact for ASCII in the widest of them, an
/// estimate beyond it.
pub fn ems(text: &str) -> f32 {
    text.chars()
        .map(|c| match c {
            ' '..='~' => f32::from(WIDEST[c as usize - 0x20]) / 1000.0,
            c => match c.width().unwrap_or(0) {
                0 => 0.0,
                1 => 1.0,
                _ => 1.25,
            },
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_and_direction_marks_become_visible() {
        assert_eq!(
            visible("a\nb\tc\r\0\u{1b}[31m\u{7f}"),
            "a⏎b⇥c‹U+000D›‹U+0000›‹U+001B›[31m‹U+007F›"
        );
        assert_eq!(visible("abc\u{202e}def\u{9b}"), "abc‹U+202E›def‹U+009B›");
        assert_eq!(visible("🧑‍🚀 <b>&\"'"), "🧑‍🚀 <b>&\"'");
    }

    #[test]
    fn a_label_drops_the_leading_space_but_not_a_token_of_spaces() {
        assert_eq!(label(" Needle"), "Needle");
        assert_eq!(label("  "), "␣␣");
        assert_eq!(label(" \n"), "⏎");
        assert_eq!(label(""), "");
    }

    #[test]
    fn cutting_counts_columns_not_characters() {
        assert_eq!(truncate("Washington", 10), "Washington");
        assert_eq!(truncate("Washington", 5), "Wash…");
        assert_eq!(truncate("東京都庁", 5), "東京…");
        assert_eq!(truncate("東京都庁", 4), "東…");
        assert_eq!(truncate("ab", 1), "…");
        assert_eq!(truncate("ab", 0), "");
        let cut = truncate("👩‍👩‍👧‍👦👩‍👩‍👧‍👦👩‍👩‍👧‍👦", 5);
        assert!(columns(&cut) <= 5 && cut.ends_with('…'), "{cut}");
    }

    #[test]
    fn lines_break_at_spaces_and_only_there() {
        assert_eq!(
            wrap("clean 0.976, corrupted 0.0262", 14),
            ["clean 0.976,", "corrupted", "0.0262"]
        );
        assert_eq!(wrap("abcdefgh ij", 5), ["abcd…", "ij"]);
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn text_is_measured_in_the_widest_of_the_typefaces() {
        assert_eq!(WIDEST.len(), ('~' as usize) - (' ' as usize) + 1);
        // DejaVu Serif's W and i, Times's Y.
        assert!((ems("Wi") - 1.348).abs() < 1e-6);
        assert!((ems("Y") - 0.722).abs() < 1e-6);
        assert!(ems("日本") >= 2.0);
    }
}
