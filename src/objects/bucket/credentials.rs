//! The key of a bucket, in a file as AWS's tools write it.

use std::path::Path;

use super::super::Error;

/// A key. It is given to the client of the bucket, and nowhere printed.
pub(super) struct Key {
    pub(super) id: String,
    pub(super) secret: String,
    pub(super) token: Option<String>,
}

/// Reads the key of the profile `default`, or of a file without profiles.
pub(super) fn read(path: &Path) -> Result<Key, Error> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    parse(&text).map_err(|problem| Error::Credentials {
        path: path.to_owned(),
        problem,
    })
}

/// The error never quotes the file: what stands in the wrong place may be the secret.
fn parse(text: &str) -> Result<Key, String> {
    let (mut id, mut secret, mut token) = (None, None, None);
    let mut ours = true;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(profile) = line.strip_prefix('[') {
            ours = profile.trim_end_matches(']').trim() == "default";
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            return Err(format!("its line {} is no 'name = value'", number + 1));
        };
        let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        match name.trim() {
            _ if !ours => {}
            "aws_access_key_id" => id = value,
            "aws_secret_access_key" => secret = value,
            "aws_session_token" => token = value,
            _ => {}
        }
    }
    match (id, secret) {
        (Some(id), Some(secret)) => Ok(Key { id, secret, token }),
        (Some(_), None) => Err("it has aws_access_key_id, but no aws_secret_access_key".to_owned()),
        (None, Some(_)) => Err("it has aws_secret_access_key, but no aws_access_key_id".to_owned()),
        (None, None) => Err("it has neither of them in the profile 'default'".to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_is_written_by_aws() {
        let key = parse(
            "# ours\n[other]\naws_access_key_id = no\n\n[default]\naws_access_key_id=AKIA\n\
             aws_secret_access_key = a/b+c==\nregion = x\n",
        )
        .ok()
        .unwrap();
        assert_eq!((key.id.as_str(), key.secret.as_str()), ("AKIA", "a/b+c=="));
        assert!(key.token.is_none());
        let key = parse("aws_access_key_id=a\naws_secret_access_key=b\naws_session_token=c");
        assert_eq!(key.ok().unwrap().token.as_deref(), Some("c"));
    }

    #[test]
    fn what_is_missing_is_named_and_no_secret_is_quoted() {
        for (text, named) in [
            ("", "neither"),
            (
                "[other]\naws_access_key_id=a\naws_secret_access_key=b",
                "default",
            ),
            ("aws_access_key_id = hush", "no aws_secret_access_key"),
            ("aws_secret_access_key = hush", "no aws_access_key_id"),
            (
                "aws_access_key_id = hush\naws_secret_access_key =",
                "no aws_secret_access_key",
            ),
            ("aws_secret_access_key hush", "line 1"),
        ] {
            let problem = parse(text).err().unwrap();
            assert!(problem.contains(named), "{problem}");
            assert!(!problem.contains("hush"), "{problem}");
        }
    }
}
