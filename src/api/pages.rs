//! Page sizes and opaque page tokens.

use tonic::Status;

use super::status::{invalid_argument, invalid_page_token};

const DEFAULT_SIZE: u32 = 100;
const LARGEST_SIZE: u32 = 1000;

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

/// Cuts a page that has one item more than was asked for where there is more, and gives the token of the next page, made
/// of its last item; empty on the last page.
pub fn cut<T>(
    list: &str,
    items: &mut Vec<T>,
    size: usize,
    key: impl FnOnce(&T) -> String,
) -> String {
    let more = items.len() > size;
    items.truncate(size);
    match items.last() {
        Some(last) if more => token(list, &key(last)),
        _ => String::new(),
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

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
