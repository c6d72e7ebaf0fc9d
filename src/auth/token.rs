//! Bearer tokens: random, given out once, kept as hashes in a file that is read again when it
//! changes.
//!
//! A line of the file is a token: `HASH ROLE PRINCIPAL EXPIRY`, where the expiry is RFC 3339 or
//! `-`. A line that is deleted, or a file that is gone or cannot be understood, lets nobody in: at
//! the next request, without a restart. Tokens have 256 random bits, so a plain BLAKE3 of one tells
//! nothing about it.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use super::{Caller, Error, is_principal};

/// How a token begins, so that one that has leaked can be found and recognised.
const PREFIX: &str = "palimpsest_";

/// Why a token lets nobody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is not in the file: never given out, or revoked.
    Unknown,
    /// Its time is over.
    Expired,
}

/// A token as the file has it: what it lets its holder do can be looked up, and nobody can be it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenHash(blake3::Hash);

impl TokenHash {
    /// That of a token.
    pub fn of(token: &str) -> Self {
        Self(hash(token))
    }
}

struct Grant {
    hash: blake3::Hash,
    caller: Caller,
    expires: Option<Timestamp>,
}

/// What tells one content of a file from the next.
type Stamp = (u64, i64, i64, u64);

#[derive(Default)]
struct State {
    stamp: Option<Stamp>,
    grants: Vec<Grant>,
}

/// The tokens of a file.
pub struct Tokens {
    path: PathBuf,
    state: Mutex<State>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("path", &self.path).finish()
    }
}

impl Tokens {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Line`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let stamp = stamp(path)?;
        let grants = read(path)?;
        let stamp = Some(stamp);
        Ok(Self {
            path: path.to_owned(),
            state: Mutex::new(State { stamp, grants }),
        })
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn caller(&self, token: &str, now: Timestamp) -> Result<Caller, Refusal> {
        self.holder(&TokenHash::of(token), now)
    }

    /// Whose token of this hash it is now.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn holder(&self, token: &TokenHash, now: Timestamp) -> Result<Caller, Refusal> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.refresh(&mut state);
        let hash = token.0;
        // All are compared, each in constant time (blake3 promises that of its `==`): how long it
        // takes tells nothing about which one is near.
        let mut found = None;
        for grant in &state.grants {
            if grant.hash == hash {
                found = Some(grant);
            }
        }
        let grant = found.ok_or(Refusal::Unknown)?;
        if grant.expires.is_some_and(|expires| expires <= now) {
            return Err(Refusal::Expired);
        }
        Ok(grant.caller.clone())
    }

    fn refresh(&self, state: &mut State) {
        let now = stamp(&self.path).ok();
        if now.is_some() && now == state.stamp {
            return;
        }
        match read(&self.path) {
            Ok(grants) => {
                tracing::info!(tokens = grants.len(), "the token file has changed");
                *state = State { stamp: now, grants };
            }
            Err(error) => {
                // Said once, not at every request.
                if state.stamp.is_some() || !state.grants.is_empty() {
                    tracing::error!(%error, "no token is taken any more");
                }
                *state = State::default();
            }
        }
    }
}

/// Whether there is what looks like a token in a text.
pub fn has_token(text: &str) -> bool {
    text.match_indices(PREFIX).any(|(at, _)| {
        let rest = text[at + PREFIX.len()..].bytes().take(64);
        rest.filter(u8::is_ascii_hexdigit).count() == 64
    })
}

fn stamp(path: &Path) -> Result<Stamp, Error> {
    let metadata = fs::metadata(path).map_err(Error::file("read", path))?;
    Ok((
        metadata.ino(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.len(),
    ))
}

fn hash(token: &str) -> blake3::Hash {
    blake3::hash(token.as_bytes())
}

fn read(path: &Path) -> Result<Vec<Grant>, Error> {
    let text = crate::text::utf8::read(path).map_err(Error::file("read", path))?;
    let mut grants = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        grants.push(parse(line).map_err(|problem| Error::Line {
            path: path.to_owned(),
            line: number + 1,
            problem,
        })?);
    }
    Ok(grants)
}

fn parse(line: &str) -> Result<Grant, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [hash, role, principal, expires] = words[..] else {
        return Err(format!("it has {} words", words.len()));
    };
    if !is_principal(principal) {
        return Err("the principal is not a name".to_owned());
    }
    Ok(Grant {
        hash: blake3::Hash::from_hex(hash).map_err(|_| "the hash is not 64 hex digits")?,
        caller: Caller {
            role: role
                .parse()
                .map_err(|remedy| format!("the role: {remedy}"))?,
            principal: principal.to_owned(),
        },
        expires: match expires {
            "-" => None,
            time => Some(
                time.parse()
                    .map_err(|_| "the expiry is neither a time nor -")?,
            ),
        },
    })
}

/// Makes a token and adds its hash to the file, which is made if need be. What is returned is kept
/// nowhere.
///
/// # Errors
/// [`Error::File`].
pub fn issue(path: &Path, caller: &Caller, expires: Option<Timestamp>) -> Result<String, Error> {
    let mut secret = [0_u8; 32];
    let source = "/dev/urandom";
    fs::File::open(source)
        .and_then(|mut random| random.read_exact(&mut secret))
        .map_err(Error::file("read", source))?;
    let mut token = PREFIX.to_owned();
    for byte in secret {
        // Writing to a String cannot fail.
        let _ = write!(token, "{byte:02x}");
    }
    let expires = expires.map_or_else(|| "-".to_owned(), |time| time.to_string());
    let line = format!(
        "{} {} {} {expires}\n",
        hash(&token).to_hex(),
        caller.role,
        caller.principal
    );
    let mut file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(Error::file("open", path))?;
    file.write_all(line.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(Error::file("write", path))?;
    Ok(token)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::auth::Role;

    fn ada() -> Caller {
        Caller {
            role: Role::Editor,
            principal: "ada".to_owned(),
        }
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_token_names_its_caller_until_it_expires_or_is_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let lasting = issue(&path, &ada(), None).unwrap();
        let tokens = Tokens::open(&path).unwrap();
        assert_eq!(tokens.caller(&lasting, now()), Ok(ada()));
        // Given out while the server runs.
        let brief = issue(&path, &ada(), Some("2026-01-01T00:00:01Z".parse().unwrap())).unwrap();
        assert_ne!(brief, lasting);
        assert_eq!(tokens.caller(&brief, now()), Ok(ada()));
        let later = now() + jiff::SignedDuration::from_secs(1);
        assert_eq!(tokens.caller(&brief, later), Err(Refusal::Expired));
        // Revoked: its line is deleted.
        let text = fs::read_to_string(&path).unwrap();
        let (_, rest) = text.split_once('\n').unwrap();
        fs::write(&path, rest).unwrap();
        assert_eq!(tokens.caller(&lasting, now()), Err(Refusal::Unknown));
        assert_eq!(tokens.caller(&brief, now()), Ok(ada()));
    }

    #[test]
    fn the_file_holds_no_token_and_belongs_to_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let token = issue(&path, &ada(), None).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            !text.contains(token.strip_prefix(PREFIX).unwrap()),
            "{text}"
        );
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(token.len(), PREFIX.len() + 64);
    }

    #[test]
    fn a_file_that_is_gone_or_damaged_lets_nobody_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let token = issue(&path, &ada(), None).unwrap();
        let tokens = Tokens::open(&path).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{whole}half a line")).unwrap();
        assert_eq!(tokens.caller(&token, now()), Err(Refusal::Unknown));
        fs::remove_file(&path).unwrap();
        assert_eq!(tokens.caller(&token, now()), Err(Refusal::Unknown));
        fs::write(&path, format!("# for the laboratory\n\n{whole}")).unwrap();
        assert_eq!(tokens.caller(&token, now()), Ok(ada()));
        assert_eq!(tokens.caller("", now()), Err(Refusal::Unknown));
        assert_eq!(tokens.caller(&token[..40], now()), Err(Refusal::Unknown));
    }

    #[test]
    fn a_line_that_cannot_be_understood_is_named_and_not_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let hash = "ab".repeat(32);
        for (line, problem) in [
            ("secret".to_owned(), "it has 1 words"),
            (format!("{} viewer ada -", &hash[1..]), "64 hex digits"),
            (format!("{hash} root ada -"), "give viewer, submitter"),
            (format!("{hash} viewer a/b -"), "not a name"),
            (format!("{hash} viewer ada soon"), "neither a time nor -"),
        ] {
            fs::write(&path, format!("# tokens\n{line}\n")).unwrap();
            let error = Tokens::open(&path).unwrap_err().to_string();
            assert!(
                error.contains("line 2") && error.contains(problem),
                "{error}"
            );
            assert!(
                !error.contains("secret") && !error.contains(&hash[1..]),
                "{error}"
            );
        }
    }
}
