//! Settings that are given as flags.

/// Settings given as flags: key and value.
pub type Flags = Vec<(String, String)>;

/// Adds a flag that was given.
pub fn flag<T: ToString>(flags: &mut Flags, key: &str, value: &Option<T>) {
    if let Some(value) = value {
        flags.push((key.to_owned(), value.to_string()));
    }
}
