//! Digests from outside: of files, and as people and records write them.

use std::fs::File;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::{Digest, Error};

impl Digest {
    /// The name of a file's bytes, which are read in pieces.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read.
    pub fn of_file(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let mut hasher = blake3::Hasher::new();
        hasher
            .update_reader(file)
            .map_err(Error::io("read", path))?;
        Ok(hasher.finalize().into())
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |problem: String| {
            // What was meant to be a digest may be a whole file by mistake.
            let mut value: String = text.chars().take(80).collect();
            if value.len() < text.len() {
                value.push('…');
            }
            Error::BadDigest { value, problem }
        };
        // One spelling only: the text is a file's name and a key of records.
        if let Some(other) = text.chars().find(|c| !matches!(c, '0'..='9' | 'a'..='f')) {
            return Err(bad(format!("contains {other:?}")));
        }
        match blake3::Hash::from_hex(text) {
            Ok(hash) => Ok(hash.into()),
            Err(_) => Err(bad(format!("has {} digits", text.len()))),
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const EMPTY: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

    #[test]
    fn a_file_has_the_name_of_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..3_000_005).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(Digest::of_file(&path).unwrap(), Digest::of(&bytes));
    }

    #[test]
    fn text_and_json_round_trip() {
        let digest: Digest = EMPTY.parse().unwrap();
        assert_eq!(digest, Digest::of(b""));
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(json, format!("\"{EMPTY}\""));
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
    }

    #[test]
    fn errors_name_the_value_and_what_is_wrong() {
        for (text, problem) in [
            ("", "has 0 digits"),
            ("abc", "has 3 digits"),
            (&EMPTY.to_uppercase(), "contains 'A'"),
            (&format!("{}/", &EMPTY[1..]), "contains '/'"),
            ("é", "contains 'é'"),
        ] {
            let message = text.parse::<Digest>().unwrap_err().to_string();
            assert!(message.contains(problem), "{message}");
            assert!(message.contains(text), "{message}");
        }
        let long = "a".repeat(5000).parse::<Digest>().unwrap_err().to_string();
        assert!(long.len() < 300 && long.contains("has 5000 digits"));
    }
}
