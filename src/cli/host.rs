//! The machine's name.

/// The host's name in the letters of an identifier.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let letters: String = name
        .trim()
        .to_lowercase()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '-'
            }
        })
        .take(30)
        .collect();
    let letters = letters.trim_matches('-');
    if letters.is_empty() {
        "worker".to_owned()
    } else {
        letters.to_owned()
    }
}
