//! Checkpoints as signed notes, and the key that signs them.
//!
//! The text is that of C2SP's tlog-checkpoint (<https://c2sp.org/tlog-checkpoint>): origin, size
//! and root in base64 on a line each; the signature is a signed note's, over the text with its
//! last newline, by ed25519. So tools made for other transparency logs can check it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

use super::Error;
use super::merkle::{Hash, hex};

/// The type of an ed25519 key in a signed note.
const ED25519: u8 = 1;
/// What the private key of an author begins with.
const PRIVATE: &str = "PRIVATE+KEY+";
/// Bytes of a key's name.
const NAME_LIMIT: usize = 128;

/// A private key: a store's, which signs checkpoints and receipts, or an author's, which signs
/// manifests.
pub struct Signer {
    key: SigningKey,
    name: String,
}

impl Signer {
    /// The key in a file.
    ///
    /// # Errors
    /// [`Error::Key`] when it is not one.
    pub fn read(path: &Path) -> Result<Option<Self>, Error> {
        match fs::read(path) {
            Ok(text) => Self::parse(&text, path).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::Key {
                path: path.to_owned(),
                problem: format!("cannot be read: {error}"),
            }),
        }
    }

    /// The key as it lies in a file, of that path.
    ///
    /// # Errors
    /// [`Error::Key`] when it is not one.
    pub(super) fn parse(text: &[u8], path: &Path) -> Result<Self, Error> {
        let seed = BASE64.decode(text.trim_ascii()).ok();
        let seed: Option<[u8; 32]> = seed.and_then(|seed| seed.try_into().ok());
        seed.map(Self::new).ok_or_else(|| Error::Key {
            path: path.to_owned(),
            problem: "is not 32 bytes in base64: restore it from a backup".to_owned(),
        })
    }

    /// A new key.
    ///
    /// # Errors
    /// [`Error::Key`] when the system gives no random numbers; `path` is used there.
    pub fn generate(path: &Path) -> Result<Self, Error> {
        random(path).map(Self::new)
    }

    fn new(seed: [u8; 32]) -> Self {
        let key = SigningKey::from_bytes(&seed);
        let name = hex(&Sha256::digest(key.verifying_key().as_bytes())[..8]);
        Self {
            key,
            name: format!("palimpsest-audit/{name}"),
        }
    }

    /// A new key of somebody who signs what they made, under a name of theirs.
    ///
    /// # Errors
    /// [`Error::Key`]: a signed note has no room for such a name, or the system gives no random
    /// numbers; `path` is used there.
    pub fn named(name: &str, path: &Path) -> Result<Self, Error> {
        let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '+';
        if name.is_empty() || name.len() > NAME_LIMIT || !name.chars().all(plain) {
            return Err(Error::Key {
                path: path.to_owned(),
                problem: format!(
                    "cannot have the name '{}': give 1 to {NAME_LIMIT} bytes without spaces and '+', such as ada@lab.example",
                    crate::text::cut(name, 40)
                ),
            });
        }
        let key = SigningKey::from_bytes(&random(path)?);
        let name = name.to_owned();
        Ok(Self { key, name })
    }

    /// Writes the key into a new file, which only its owner reads.
    ///
    /// # Errors
    /// [`Error::Key`], also where there is such a file already.
    pub fn write_private(&self, path: &Path) -> Result<(), Error> {
        let mut file = File::options();
        let opened = file.write(true).create_new(true).mode(0o600).open(path);
        let written = opened.and_then(|mut file| {
            file.write_all(self.private().as_bytes())?;
            file.sync_all()
        });
        written.map_err(|error| Error::Key {
            path: path.to_owned(),
            problem: format!("cannot be written: {error}"),
        })
    }

    /// The key as its owner's file has it: `PRIVATE+KEY+NAME+HASH+BASE64`, the form of Go's
    /// `sumdb/note`.
    fn private(&self) -> String {
        let typed = [&[ED25519][..], self.key.as_bytes()].concat();
        let hash = hex(&key_hash(&self.name, self.key.verifying_key().as_bytes()));
        format!("{PRIVATE}{}+{hash}+{}\n", self.name, BASE64.encode(typed))
    }

    /// The key in its owner's file.
    ///
    /// # Errors
    /// [`Error::Key`] when it cannot be read or is none.
    pub fn read_private(path: &Path) -> Result<Self, Error> {
        let fail = |problem: String| Error::Key {
            path: path.to_owned(),
            problem,
        };
        let text = fs::read_to_string(path).map_err(|error| {
            fail(format!(
                "cannot be read: {error}; 'palimpsest auth signing-key FILE' makes one"
            ))
        })?;
        let key = text.trim().strip_prefix(PRIVATE).and_then(|rest| {
            let mut parts = rest.splitn(3, '+');
            let (name, hash, key) = (parts.next()?, parts.next()?, parts.next()?);
            let typed = BASE64.decode(key).ok()?;
            let seed: [u8; 32] = typed.strip_prefix(&[ED25519])?.try_into().ok()?;
            let key = SigningKey::from_bytes(&seed);
            let fits = hex(&key_hash(name, key.verifying_key().as_bytes())) == hash;
            let name = name.to_owned();
            fits.then_some(Self { key, name })
        });
        let none = "is no private key: 'palimpsest auth signing-key FILE' makes one";
        key.ok_or_else(|| fail(none.to_owned()))
    }

    /// The key as it lies in a file.
    pub(super) fn text(&self) -> String {
        format!("{}\n", BASE64.encode(self.key.to_bytes()))
    }

    /// Writes the key where only its owner reads it.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let temporary = path.with_extension("new");
        let written = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| {
                file.write_all(self.text().as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&temporary, path))
            .and_then(|()| match path.parent() {
                Some(folder) => File::open(folder)?.sync_all(),
                None => Ok(()),
            });
        written.map_err(|error| Error::Key {
            path: path.to_owned(),
            problem: format!("cannot be written: {error}"),
        })
    }

    /// The key that verifies: `NAME+HASH+BASE64`.
    pub fn verifier(&self) -> String {
        let public = self.key.verifying_key();
        let typed = [&[ED25519][..], public.as_bytes()].concat();
        let hash = hex(&key_hash(&self.name, public.as_bytes()));
        format!("{}+{hash}+{}", self.name, BASE64.encode(typed))
    }

    /// The checkpoint of a log of this size with this root.
    pub fn sign(&self, size: u64, root: &Hash) -> String {
        let text = format!("{}\n{size}\n{}\n", self.name, BASE64.encode(root));
        self.sign_text(&text)
    }

    /// A text, which ends with a newline, as a signed note. Its first line says what it is: a
    /// checkpoint's is the name of the key.
    pub(super) fn sign_text(&self, text: &str) -> String {
        let signature = self.key.sign(text.as_bytes());
        let hash = key_hash(&self.name, self.key.verifying_key().as_bytes());
        let signed = [&hash[..], &signature.to_bytes()].concat();
        format!("{text}\n\u{2014} {} {}\n", self.name, BASE64.encode(signed))
    }
}

impl std::fmt::Debug for Signer {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

fn random(path: &Path) -> Result<[u8; 32], Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| Error::Key {
        path: path.to_owned(),
        problem: format!("cannot be made, the system gives no random numbers: {error}"),
    })?;
    Ok(seed)
}

fn key_hash(name: &str, public: &[u8]) -> [u8; 4] {
    let hash = Sha256::new()
        .chain_update(name)
        .chain_update([b'\n', ED25519])
        .chain_update(public)
        .finalize();
    [hash[0], hash[1], hash[2], hash[3]]
}

/// What a checkpoint says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log: the name of its key.
    pub origin: String,
    /// Entries in it.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Hash,
}

impl Checkpoint {
    /// Reads a note and checks its signature with a verifier key, `NAME+HASH+BASE64`.
    ///
    /// # Errors
    /// [`Error::Note`]: the note or the key is malformed, or the note is not signed by the key.
    pub fn verify(note: &str, verifier: &str) -> Result<Self, Error> {
        let what = "the checkpoint";
        let (name, text) = signed_text(what, note, verifier)?;
        let mut lines = text.lines();
        let (origin, size, root) = (lines.next(), lines.next(), lines.next());
        let root = root.and_then(|root| BASE64.decode(root).ok()?.try_into().ok());
        match (origin, size.and_then(|size| size.parse().ok()), root) {
            (Some(origin), Some(size), Some(root)) if origin == name => Ok(Self {
                origin: origin.to_owned(),
                size,
                root,
            }),
            _ => Err(Error::Note {
                what,
                problem: "its lines are not origin, size and root".to_owned(),
            }),
        }
    }
}

/// The name of a key and the text of a note that it signed.
///
/// # Errors
/// [`Error::Note`]: the note or the key is malformed, or the note is not signed by the key.
pub(super) fn signed_text<'a>(
    what: &'static str,
    note: &'a str,
    verifier: &str,
) -> Result<(String, &'a str), Error> {
    let (name, key) = parse_verifier(verifier)?;
    let fail = |problem: &str| Error::Note {
        what,
        problem: problem.to_owned(),
    };
    let cut = note
        .find("\n\n")
        .ok_or_else(|| fail("it has no empty line before a signature"))?;
    let (text, signatures) = (&note[..=cut], &note[cut + 2..]);
    let prefix = format!("\u{2014} {name} ");
    let signature = signatures
        .lines()
        .find_map(|line| line.strip_prefix(prefix.as_str()))
        .ok_or_else(|| fail(&format!("it is not signed by {name}")))?;
    let signed = BASE64
        .decode(signature)
        .map_err(|_| fail("its signature is not base64"))?;
    let expected = key_hash(&name, key.as_bytes());
    let signature = signed
        .strip_prefix(&expected[..])
        .and_then(|rest| Signature::from_slice(rest).ok())
        .ok_or_else(|| fail("its signature is of another key"))?;
    key.verify_strict(text.as_bytes(), &signature)
        .map_err(|_| fail("its signature does not fit: it was altered"))?;
    Ok((name, text))
}

fn parse_verifier(verifier: &str) -> Result<(String, VerifyingKey), Error> {
    let fail = |problem: &str| Error::Note {
        what: "the verifier key",
        problem: format!("{problem}; give it as 'palimpsest audit key' prints it"),
    };
    let mut parts = verifier.trim().splitn(3, '+');
    let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(fail("it has not three parts"));
    };
    let typed = BASE64
        .decode(key)
        .map_err(|_| fail("its key is not base64"))?;
    let public: [u8; 32] = typed
        .strip_prefix(&[ED25519])
        .and_then(|public| public.try_into().ok())
        .ok_or_else(|| fail("its key is not ed25519"))?;
    if hex(&key_hash(name, &public)) != hash {
        return Err(fail("its hash does not fit its key"));
    }
    let key = VerifyingKey::from_bytes(&public).map_err(|_| fail("its key is no point"))?;
    Ok((name.to_owned(), key))
}

/// Holds a note whose every byte was altered against what reads it.
#[cfg(test)]
pub(super) fn assert_no_byte_may_change(note: &str, holds: impl Fn(&str) -> bool) {
    for at in 0..note.len() {
        let mut bytes = note.as_bytes().to_vec();
        bytes[at] ^= 1;
        let Ok(altered) = String::from_utf8(bytes) else {
            continue;
        };
        // A last newline that became something else belongs to no signature.
        let same = altered.trim_end() == note.trim_end();
        assert!(same || !holds(&altered), "byte {at}: {altered}");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // golang.org/x/mod/sumdb/note, the reference for signed notes: its documented example key.
    const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const PETERS_NOTE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn the_published_notes_signature_holds_and_an_altered_one_does_not() {
        // It is signed rightly, and only then found to be no checkpoint.
        let message = |note: &str| Checkpoint::verify(note, PETER).unwrap_err().to_string();
        assert!(message(PETERS_NOTE).contains("its lines are not origin"));
        let altered = PETERS_NOTE.replace("answer", "Answer");
        assert!(message(&altered).contains("it was altered"));
    }

    #[test]
    fn a_checkpoint_reads_back_and_no_byte_of_it_may_change() {
        let signer = Signer::new([7; 32]);
        let note = signer.sign(42, &[9; 32]);
        let read = Checkpoint::verify(&note, &signer.verifier()).unwrap();
        assert_eq!((read.size, read.root), (42, [9; 32]));
        let holds = |note: &str| Checkpoint::verify(note, &signer.verifier()).is_ok();
        assert_no_byte_may_change(&note, holds);
        let other = Signer::new([8; 32]).verifier();
        assert!(Checkpoint::verify(&note, &other).is_err());
    }

    #[test]
    fn an_authors_key_reads_back_and_is_the_one_that_other_tools_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ada.key");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            Signer::read_private(&path).map(|key| key.verifier())
        };
        // golang.org/x/mod/sumdb/note: the private key of its documented example.
        let theirs =
            "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
        assert_eq!(read(theirs).unwrap(), PETER);
        let ours = Signer::named("ada@lab", &path).unwrap();
        assert_eq!(read(&ours.private()).unwrap(), ours.verifier());
        for wrong in [
            theirs.replace("c74f", "c74e"),
            theirs.replace("Peter", "Petra"),
            String::new(),
        ] {
            assert!(
                read(&wrong)
                    .unwrap_err()
                    .to_string()
                    .contains("no private key"),
                "{wrong}"
            );
        }
        for name in ["", "a b", "a+b", "a\nb", &"x".repeat(129)] {
            let error = Signer::named(name, &path).unwrap_err().to_string();
            assert!(error.contains("1 to 128 bytes"), "{error}");
        }
    }

    #[test]
    fn the_key_is_its_owners_alone_and_reads_back() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.key");
        assert!(Signer::read(&path).unwrap().is_none());
        let signer = Signer::generate(&path).unwrap();
        signer.write(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let read = Signer::read(&path).unwrap().unwrap();
        assert_eq!(read.verifier(), signer.verifier());
        assert!(!format!("{signer:?}").contains(&BASE64.encode(signer.key.to_bytes())));
        fs::write(&path, "short").unwrap();
        let message = Signer::read(&path).unwrap_err().to_string();
        assert!(
            message.contains("audit.key") && message.contains("32 bytes"),
            "{message}"
        );
    }
}
