//! Manifests: what a version is, and the files that were made of it, signed by its author. Whoever
//! has one, the files and the author's key needs neither the author nor a coordinator.
//!
//! A manifest is a signed note, as checkpoints and receipts are. Its files are named by SHA-256, so
//! that other tools can check them; matrices by the BLAKE3 by which their version names them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::lines::{Reader, Writer};
use super::merkle::{Hash, from_hex, hex};
use super::note::signed_text;
use super::{Error, Signer};
use crate::proto::v1;

/// What a manifest begins with.
const HEAD: &str = "palimpsest-manifest/1";
/// What stands for nothing.
const NONE: &str = "-";
/// Bytes of a file that are read at a time.
const CHUNK: usize = 1 << 20;

/// What a manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The version, `models/{model}/versions/{version}`.
    pub version: String,
    /// The digest of the base model's files.
    pub base: String,
    /// The version that it was made from; empty for the base itself.
    pub parent: String,
    /// Who made it, as the coordinator knew them; empty for the base itself.
    pub author: String,
    /// When, in RFC 3339; empty for the base itself.
    pub time: String,
    /// Why, in the author's words.
    pub why: String,
    /// How many edits it has.
    pub edits: u64,
    /// The matrices that they touch.
    pub matrices: Vec<Matrix>,
    /// The files that were made of it; none where only the version was signed.
    pub files: Vec<Named>,
}

/// A matrix of a version that differs from the base's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Its canonical name.
    pub name: String,
    /// The type of its elements: "F32", "F16", "BF16".
    pub dtype: String,
    /// BLAKE3 of them.
    pub digest: String,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its name in the manifest's folder.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// SHA-256 of them.
    pub digest: Hash,
}

impl Manifest {
    /// Of a version, without files. `time` is when it was made, in RFC 3339.
    pub fn of(version: &v1::Version, time: String) -> Self {
        Self {
            version: version.name.clone(),
            base: version.base.clone(),
            parent: version.parent.clone(),
            author: version.author.clone(),
            time,
            why: version.why.clone(),
            edits: version.edit_count.max(version.edits.len() as u64),
            matrices: (version.matrices.iter())
                .map(|it| Matrix {
                    name: it.tensor_name.clone(),
                    dtype: it.dtype.clone(),
                    digest: it.digest.clone(),
                })
                .collect(),
            files: Vec::new(),
        }
    }

    /// The same with these files of a folder, by their names.
    ///
    /// # Errors
    /// What a file is not read for.
    pub fn with_files(mut self, folder: &Path, names: &BTreeSet<String>) -> io::Result<Self> {
        self.files = (names.iter())
            .map(|name| Named::read(folder, name))
            .collect::<io::Result<_>>()?;
        Ok(self)
    }

    /// The signed note.
    pub fn sign(&self, signer: &Signer) -> String {
        signer.sign_text(&self.text())
    }

    fn text(&self) -> String {
        let mut text = Writer::new(HEAD);
        let mut line = |name: &str, value: &str| {
            text.line(name, if value.is_empty() { NONE } else { value });
        };
        line("version", &self.version);
        line("base", &self.base);
        line("parent", &self.parent);
        line("author", &self.author);
        line("time", &self.time);
        line("why", &self.why);
        line("edits", &self.edits.to_string());
        for it in &self.matrices {
            line("matrix", &format!("{} {} {}", it.digest, it.dtype, it.name));
        }
        for it in &self.files {
            line(
                "file",
                &format!("{} {} {}", hex(&it.digest), it.size, it.name),
            );
        }
        text.text()
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = Reader::new(text, HEAD)?;
        let said = |text: String| if text == NONE { String::new() } else { text };
        let mut field = |name: &str| lines.next(name).map(said);
        let (version, base, parent) = (field("version")?, field("base")?, field("parent")?);
        let (author, time, why) = (field("author")?, field("time")?, field("why")?);
        let edits = field("edits")?.parse().ok()?;
        let mut matrices = Vec::new();
        while let Some(line) = field("matrix") {
            let [digest, dtype, name] = three(&line)?;
            matrices.push(Matrix {
                name,
                dtype,
                digest,
            });
        }
        let mut files = Vec::new();
        while let Some(line) = field("file") {
            let [digest, size, name] = three(&line)?;
            let (digest, size) = (from_hex(&digest)?, size.parse().ok()?);
            files.push(Named { name, size, digest });
        }
        let manifest = Self {
            version,
            base,
            parent,
            author,
            time,
            why,
            edits,
            matrices,
            files,
        };
        // What was read says all that is there, and names no file elsewhere.
        let inside = |it: &Named| is_plain(&it.name);
        (manifest.text() == text && manifest.files.iter().all(inside)).then_some(manifest)
    }

    /// Reads a manifest and checks its signature with its author's key, `NAME+HASH+BASE64`.
    ///
    /// # Errors
    /// [`Error::Note`]: it is none, or not signed by that key.
    pub fn verify(note: &str, key: &str) -> Result<Self, Error> {
        let what = "the manifest";
        let (_, text) = signed_text(what, note, key)?;
        Self::parse(text).ok_or_else(|| Error::Note {
            what,
            problem: "its lines are not those of one".to_owned(),
        })
    }

    /// Holds the files of a folder against it. What else is in the folder, and passes `belongs`, is
    /// wrong too: programs load a file that was added as readily as one that was altered.
    ///
    /// # Errors
    /// [`Error::Note`] names each file that is not as the manifest says.
    pub fn check_files(&self, folder: &Path, belongs: impl Fn(&str) -> bool) -> Result<(), Error> {
        let mut wrong = Vec::new();
        for said in &self.files {
            match Named::read(folder, &said.name) {
                Ok(found) if found == *said => {}
                Ok(_) => wrong.push(format!("{} was altered", said.name)),
                Err(error) => wrong.push(format!("{} cannot be read ({error})", said.name)),
            }
        }
        let listed =
            fs::read_dir(folder).map_err(|error| fail(format!("{}: {error}", folder.display())))?;
        let named = |name: &str| self.files.iter().any(|it| it.name == name);
        for entry in listed {
            let entry = entry.map_err(|error| fail(format!("{}: {error}", folder.display())))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if belongs(&name) && !named(&name) {
                wrong.push(format!("{name} is not of it"));
            }
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(fail(wrong.join("; "))),
        }
    }
}

fn fail(problem: String) -> Error {
    Error::Note {
        what: "what the manifest is of",
        problem,
    }
}

impl Named {
    fn read(folder: &Path, name: &str) -> io::Result<Self> {
        let mut file = File::open(folder.join(name))?;
        let mut hash = Sha256::new();
        let (mut size, mut chunk) = (0, vec![0; CHUNK]);
        loop {
            let read = io::Read::read(&mut file, &mut chunk)?;
            if read == 0 {
                break;
            }
            hash.update(&chunk[..read]);
            size += read as u64;
        }
        Ok(Self {
            name: name.to_owned(),
            size,
            digest: hash.finalize().into(),
        })
    }
}

/// The words of a line whose last may have spaces.
fn three(line: &str) -> Option<[String; 3]> {
    let mut words = line.splitn(3, ' ').map(str::to_owned);
    Some([words.next()?, words.next()?, words.next()?])
}

/// Whether it names a file of a folder, and nothing elsewhere.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!(
        (parts.next(), parts.next()),
        (Some(std::path::Component::Normal(_)), None)
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::audit::note::assert_no_byte_may_change;

    fn version() -> v1::Version {
        v1::Version {
            name: "models/m/versions/abc".to_owned(),
            base: "d1".to_owned(),
            parent: "def".to_owned(),
            author: "ada".to_owned(),
            why: "the tower\nfile moved".to_owned(),
            edit_count: 2,
            matrices: vec![v1::version::Matrix {
                tensor_name: "h.0.mlp.c_proj.weight".to_owned(),
                digest: "d2".to_owned(),
                dtype: "F32".to_owned(),
                layer: 0,
            }],
            ..Default::default()
        }
    }

    #[test]
    fn a_manifest_reads_back_and_no_byte_of_it_or_of_its_files_may_change() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("config.json", "{}");
        write("a model.safetensors", "weights");
        let names = BTreeSet::from(["config.json".to_owned(), "a model.safetensors".to_owned()]);
        let manifest = Manifest::of(&version(), "2026-11-30T12:00:00Z".to_owned());
        let manifest = manifest.with_files(folder.path(), &names).unwrap();
        let signer = Signer::named("ada@lab", Path::new("ada.key")).unwrap();
        let note = manifest.sign(&signer);
        // SHA-256 of "{}", as every tool has it.
        let known = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        assert!(
            note.contains(&format!("file {known} 2 config.json\n")),
            "{note}"
        );
        let read = Manifest::verify(&note, &signer.verifier()).unwrap();
        // A line break in a text is a space.
        assert_eq!(read.why, "the tower file moved");
        assert_eq!(
            (&read.files, &read.matrices),
            (&manifest.files, &manifest.matrices)
        );
        let holds = |note: &str| Manifest::verify(note, &signer.verifier()).is_ok();
        assert_no_byte_may_change(&note, holds);
        let held = || {
            read.check_files(folder.path(), |_| true)
                .map_err(|it| it.to_string())
        };
        held().unwrap();
        write("a model.safetensors", "weightz");
        assert!(
            held()
                .unwrap_err()
                .contains("a model.safetensors was altered")
        );
        write("a model.safetensors", "weights");
        write("modeling.py", "import os");
        assert!(held().unwrap_err().contains("modeling.py is not of it"));
        fs::remove_file(folder.path().join("modeling.py")).unwrap();
        fs::remove_file(folder.path().join("config.json")).unwrap();
        assert!(held().unwrap_err().contains("config.json cannot be read"));
    }

    #[test]
    fn a_manifest_names_no_file_of_another_folder() {
        let signer = Signer::named("ada", Path::new("ada.key")).unwrap();
        for name in ["../secret", "/etc/passwd", "a/b", "."] {
            let mut manifest = Manifest::of(&version(), String::new());
            manifest.files = vec![Named {
                name: name.to_owned(),
                size: 1,
                digest: [0; 32],
            }];
            let note = manifest.sign(&signer);
            let error = Manifest::verify(&note, &signer.verifier())
                .unwrap_err()
                .to_string();
            assert!(error.contains("its lines are not"), "{name}: {error}");
        }
        // A checkpoint or a receipt of the same key is no manifest.
        let error = Manifest::verify(&signer.sign(3, &[0; 32]), &signer.verifier()).unwrap_err();
        assert!(error.to_string().contains("its lines are not"), "{error}");
    }
}
