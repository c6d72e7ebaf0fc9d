//! Names and identifiers that a client gives.

use crate::work::Violation;

/// Longest request id.
const NAME_LIMIT: usize = 200;

/// A request id.
///
/// # Errors
/// When it is too long.
pub fn request_id(id: &str) -> Result<(), Violation> {
    if id.len() > NAME_LIMIT {
        let what = format!("it has {} bytes: {NAME_LIMIT} at most", id.len());
        return Err(("request_id".to_owned(), what));
    }
    Ok(())
}

/// An identifier that becomes part of a resource name.
///
/// # Errors
/// When it is not one.
pub fn identifier(field: &str, id: &str) -> Result<(), Violation> {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let allowed = |c: char| letter(c) || matches!(c, '.' | '_' | '-');
    if id.is_empty() || id.len() > 100 || !id.starts_with(letter) || !id.chars().all(allowed) {
        let shown: String = id.chars().take(100).collect();
        return Err((
            field.to_owned(),
            format!(
                "'{shown}' is not an identifier: use up to 100 lower-case letters, digits, '.', \
                 '_' and '-', a letter or digit first"
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_safe_in_names_and_paths() {
        for good in ["smollm2-135m", "a", "7b.v1_x"] {
            identifier("model_id", good).unwrap();
        }
        for bad in ["", "A", "a/b", "..", "-a", &"a".repeat(101), "ä"] {
            assert!(identifier("model_id", bad).is_err(), "{bad}");
        }
    }
}
