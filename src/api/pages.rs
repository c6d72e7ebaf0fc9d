//! Page sizes and opaque page tokens.

use prost::Message;
use tonic::Status;

use super::status::{invalid_argument, invalid_page_token};

const DEFAULT_SIZE: u32 = 100;
/// Most items of a page.
pub const LARGEST_SIZE: u32 = 1000;
/// Most bytes of items in a page, but for a single one: a message stays under 4 MiB.
pub const BYTES: usize = 3 << 20;

/// How many items a page is to have.
pub fn size(asked: u32) -> Result<usize, Status> {
    match asked {
        0 => Ok(DEFAULT_SIZE as usize),
        1..=LARGEST_SIZE => Ok(asked as usize),
        _ => Err(invalid_argument(
            "page_size",
            format!("{asked} is over the limit: ask for {LARGEST_SIZE} at most"),
        )),
    }
}

/// A token for the page after `last`. `list` names what is listed, so that a token of one list is
/// not taken for one of another.
pub fn token(list: &str, last: &str) -> String {
    format!("{list}/{last}")
        .bytes()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Cuts a page that has one item more than was asked for where there is more, by number and by
/// bytes, and gives the token of the next page, made of its last item; empty on the last page.
pub fn cut<T: Message>(
    list: &str,
    items: &mut Vec<T>,
    size: usize,
    key: impl FnOnce(&T) -> String,
) -> String {
    cut_by(list, items, size, T::encoded_len, key)
}

/// [`cut`], of items that are not messages themselves; `bytes` says how large an item's message is.
pub fn cut_by<T>(
    list: &str,
    items: &mut Vec<T>,
    size: usize,
    bytes: impl Fn(&T) -> usize,
    key: impl FnOnce(&T) -> String,
) -> String {
    let mut page = Page::new(size);
    let all = items.len();
    let fit = items.iter().take_while(|item| page.takes(bytes(item)));
    let fit = fit.count();
    items.truncate(fit);
    match items.last() {
        Some(last) if fit < all => token(list, &key(last)),
        _ => String::new(),
    }
}

/// The room that is left on a page.
#[derive(Debug)]
pub struct Page {
    size: usize,
    items: usize,
    bytes: usize,
}

impl Page {
    /// A page of `size` items, which is at least 1, and of [`BYTES`].
    pub fn new(size: usize) -> Self {
        Self {
            size,
            items: 0,
            bytes: 0,
        }
    }

    /// Whether an item of so many bytes still goes on the page; it is counted if it does. The first
    /// one always does.
    pub fn takes(&mut self, bytes: usize) -> bool {
        let fits = self.items < self.size && self.bytes + bytes <= BYTES;
        if fits || self.items == 0 {
            self.items += 1;
            self.bytes += bytes;
            return true;
        }
        false
    }
}

/// What the token of a list was made from; `None` for the first page.
pub fn after(list: &str, token: &str) -> Result<Option<String>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let bytes: Option<Vec<u8>> = (0..token.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(token.get(at..at + 2)?, 16).ok())
        .collect();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|text| Some(text.strip_prefix(list)?.strip_prefix('/')?.to_owned()))
        .map(Some)
        .ok_or_else(|| invalid_page_token(token))
}

/// What the token of a list was made from, where that is a number or the like.
pub fn number<T: std::str::FromStr>(list: &str, token: &str) -> Result<Option<T>, Status> {
    after(list, token)?
        .map(|text| text.parse().map_err(|_| invalid_page_token(token)))
        .transpose()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_by_number_and_by_bytes_and_has_at_least_one_item() {
        let half = "x".repeat(BYTES / 2 - 10);
        let list = |texts: &[&str], size: usize| {
            let mut items: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
            let next = cut("texts", &mut items, size, |last| last.len().to_string());
            (items.len(), !next.is_empty())
        };
        assert_eq!(list(&["a", "b", "c"], 2), (2, true));
        assert_eq!(list(&["a", "b"], 2), (2, false));
        assert_eq!(list(&[&half, &half, &half], 100), (2, true));
        let huge = "x".repeat(2 * BYTES);
        assert_eq!(list(&[&huge, "a"], 100), (1, true));
        assert_eq!(list(&[], 100), (0, false));
    }

    #[test]
    fn a_token_comes_back_and_belongs_to_its_list() {
        let made = token("jobs", "ö/7");
        assert_eq!(after("jobs", &made).unwrap().as_deref(), Some("ö/7"));
        assert!(after("models", &made).is_err());
        for bad in ["x", "zz", "ff", "6a6"] {
            assert!(after("jobs", bad).is_err(), "{bad}");
        }
    }
}
