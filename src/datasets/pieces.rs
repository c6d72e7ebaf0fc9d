//! A corpus on its way to the workers: laid down in one file, and cut into pieces.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use tempfile::NamedTempFile;

use crate::datasets::corpus::{self, PART};
use crate::objects::Digest;
use crate::proto::v1::{self, stats_unit};

/// A corpus in the form in which it is kept.
pub struct Corpus {
    /// The file, deleted with this.
    pub file: NamedTempFile,
    /// BLAKE3 of the file.
    pub digest: Digest,
    /// Its size, bytes.
    pub size: u64,
    /// The pieces of it, in order: whole documents that lie together, some 16,000 tokens.
    pub pieces: Vec<v1::StatsUnit>,
}

/// Reads the documents of files and lays them down, up to about so many tokens. Holds one piece of
/// them at a time.
///
/// # Errors
/// A file that cannot be read or used, the disk's, and files without text.
pub fn lay_down(files: &[PathBuf], tokens: Option<u64>) -> anyhow::Result<Corpus> {
    let file = NamedTempFile::new().context("cannot keep the corpus")?;
    let mut laying = Laying {
        out: BufWriter::new(file),
        hasher: blake3::Hasher::new(),
        size: 0,
        piece: Vec::new(),
        pieces: Vec::new(),
    };
    // English runs at some four bytes a token.
    let mut left = tokens.map_or(u64::MAX, |tokens| tokens.saturating_mul(4));
    for path in files {
        let mut failed = Ok(());
        corpus::documents(path, |text| {
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            let end = (0..=most.min(text.len()))
                .rev()
                .find(|&at| text.is_char_boundary(at));
            let taken = &text[..end.unwrap_or_default()];
            left -= taken.len() as u64;
            failed = laying.add(taken);
            failed.is_ok() && left > 0 && taken.len() == text.len()
        })?;
        failed.context("cannot keep the corpus")?;
    }
    laying.close().context("cannot keep the corpus")?;
    if laying.pieces.is_empty() {
        bail!("the corpus holds no text");
    }
    if laying.size > corpus::LARGEST_FILE {
        bail!(
            "the corpus has {} bytes of text, {} is the most: give --tokens {} or less",
            laying.size,
            corpus::LARGEST_FILE,
            corpus::LARGEST_FILE / 5
        );
    }
    let file = laying.out.into_inner().context("cannot keep the corpus")?;
    Ok(Corpus {
        file,
        digest: laying.hasher.finalize().into(),
        size: laying.size,
        pieces: laying.pieces,
    })
}

struct Laying {
    out: BufWriter<NamedTempFile>,
    hasher: blake3::Hasher,
    /// Bytes that are laid down.
    size: u64,
    /// The piece that is being filled.
    piece: Vec<u8>,
    pieces: Vec<v1::StatsUnit>,
}

impl Laying {
    fn add(&mut self, text: &str) -> std::io::Result<()> {
        if text.trim().is_empty() {
            return Ok(());
        }
        let line = corpus::to_bytes(std::slice::from_ref(&text.to_owned()));
        if !self.piece.is_empty() && self.piece.len() + line.len() > PART {
            self.close()?;
        }
        self.piece.extend(line);
        Ok(())
    }

    fn close(&mut self) -> std::io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        self.pieces.push(v1::StatsUnit {
            range: Some(stats_unit::Range {
                offset: self.size,
                length: self.piece.len() as u64,
                digest: Digest::of(&self.piece).to_string(),
            }),
            ..Default::default()
        });
        self.out.write_all(&self.piece)?;
        self.hasher.update(&self.piece);
        self.size += self.piece.len() as u64;
        self.piece.clear();
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_whole_lines_that_cover_the_file_and_carry_their_digests() {
        let folder = tempfile::tempdir().unwrap();
        let text: String = (0..60_000).map(|n| format!("word{n} ")).collect();
        let paths = ["a.txt", "b.json"].map(|name| folder.path().join(name));
        std::fs::write(&paths[0], &text).unwrap();
        std::fs::write(&paths[1], "[\"one \\\"quoted\\\"\", \" \", \"two\"]").unwrap();
        let laid = lay_down(&paths, None).unwrap();
        let bytes = std::fs::read(laid.file.path()).unwrap();
        assert_eq!(
            (Digest::of(&bytes), bytes.len() as u64),
            (laid.digest, laid.size)
        );
        assert!(laid.pieces.len() > 5, "{}", laid.pieces.len());
        let mut at = 0;
        let mut documents = Vec::new();
        for piece in &laid.pieces {
            let range = piece.range.as_ref().unwrap();
            assert_eq!(range.offset, at);
            at += range.length;
            let part = &bytes[range.offset as usize..at as usize];
            assert_eq!(Digest::of(part).to_string(), range.digest);
            let part = std::str::from_utf8(part).unwrap();
            documents.extend(corpus::parse("part", part).unwrap());
        }
        assert_eq!(at, laid.size);
        assert_eq!(
            documents.concat(),
            text.trim_end().to_owned() + " one \"quoted\"two"
        );

        let some = lay_down(&paths, Some(100)).unwrap();
        let bytes = std::fs::read_to_string(some.file.path()).unwrap();
        let kept = corpus::parse("some", &bytes).unwrap();
        assert_eq!(kept, [&text[..400]]);
        assert!(lay_down(&[folder.path().join("none.txt")], None).is_err());
    }
}
