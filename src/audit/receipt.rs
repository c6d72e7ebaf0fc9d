//! Receipts: what a job was asked and what it came to, signed with the key of the audit log. Whoever
//! has one and the key needs nobody else: what is compared here is in the receipt, or with it.

use prost::Message as _;

use super::lines::{Reader, Writer};
use super::merkle::{self, Frontier, Hash};
use super::note::signed_text;
use super::{Checkpoint, Error, leaf_hash};
use crate::objects::Digest;
use crate::proto::v1;

/// What a receipt begins with. A checkpoint begins with the name of its key.
const HEAD: &str = "palimpsest-receipt/1";
/// What the audit log says of a job that is created.
pub const CREATED: &str = "jobs.create";

/// What a receipt says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The job, `jobs/{job}`.
    pub job: String,
    /// How it ended.
    pub state: String,
    /// The model, `models/{model}`.
    pub model: String,
    /// The digest of the model's files.
    pub files: String,
    /// The version that the job ran on, `models/{model}/versions/{version}`.
    pub version: String,
    /// BLAKE3 of what was asked.
    pub asked: String,
    /// How many results there are.
    pub results: u64,
    /// The root over them.
    pub root: Hash,
    /// What computed them: how many, and a fingerprint in words.
    pub computed: Vec<(u64, String)>,
    /// The place of the audit log's entry that says that the job was created.
    pub entry: u64,
    /// The hash of that entry.
    pub leaf: Hash,
}

/// A receipt that holds.
#[derive(Clone, Debug)]
pub struct Verified {
    /// What it says.
    pub receipt: Receipt,
    /// What was asked: the model, the version and the spec of the job.
    pub asked: v1::Job,
    /// The audit log's entry of the job.
    pub entry: v1::AuditEntry,
    /// The checkpoint that the entry is under.
    pub checkpoint: Checkpoint,
}

impl Receipt {
    /// The text that is signed.
    pub(super) fn text(&self) -> String {
        let mut text = Writer::new(HEAD);
        let mut line = |name: &str, value: &str| text.line(name, value);
        line("job", &self.job);
        line("state", &self.state);
        line("model", &self.model);
        line("files", &self.files);
        line("version", &self.version);
        line("asked", &self.asked);
        line(
            "results",
            &format!("{} {}", self.results, merkle::hex(&self.root)),
        );
        for (count, fingerprint) in &self.computed {
            line("computed", &format!("{count} {fingerprint}"));
        }
        line(
            "entry",
            &format!("{} {}", self.entry, merkle::hex(&self.leaf)),
        );
        text.text()
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = Reader::new(text, HEAD)?;
        let counted = |text: String| -> Option<(u64, String)> {
            let (count, rest) = text.split_once(' ')?;
            Some((count.parse().ok()?, rest.to_owned()))
        };
        let [job, state, model, files, version, asked] =
            ["job", "state", "model", "files", "version", "asked"].map(|name| lines.next(name));
        let (results, root) = counted(lines.next("results")?)?;
        let mut computed = Vec::new();
        while let Some(text) = lines.next("computed") {
            computed.push(counted(text)?);
        }
        let (entry, leaf) = counted(lines.next("entry")?)?;
        lines.is_over().then_some(Self {
            job: job?,
            state: state?,
            model: model?,
            files: files?,
            version: version?,
            asked: asked?,
            results,
            root: merkle::from_hex(&root)?,
            computed,
            entry,
            leaf: merkle::from_hex(&leaf)?,
        })
    }

    /// Reads a receipt and holds all that is in it against the key: its signature, what was asked,
    /// and that the job's entry is in the log, under a checkpoint of the same key.
    ///
    /// # Errors
    /// [`Error::Note`] says what does not hold.
    pub fn verify(sent: &v1::Receipt, key: &str) -> Result<Verified, Error> {
        let what = "the receipt";
        let fail = |problem: &str| Error::Note {
            what,
            problem: problem.to_owned(),
        };
        let (_, text) = signed_text(what, &sent.note, key)?;
        let receipt = Self::parse(text).ok_or_else(|| fail("its lines are not those of one"))?;
        if Digest::of(&sent.asked).to_string() != receipt.asked {
            return Err(fail("what was asked is something else than what it is of"));
        }
        let asked = v1::Job::decode(sent.asked.as_slice());
        let asked = asked.map_err(|_| fail("what was asked is no job"))?;
        let leaf = sent.entry.clone().unwrap_or_default();
        if leaf_hash(&leaf) != receipt.leaf {
            return Err(fail(
                "the entry of the audit log is not the one that it names",
            ));
        }
        let entry = match leaf.leaf.is_empty() {
            // Too large for a message, as its hash shows.
            true => leaf.entry.unwrap_or_default(),
            false => v1::AuditEntry::decode(leaf.leaf.as_slice())
                .map_err(|_| fail("the entry of the audit log is none"))?,
        };
        if entry.sequence != receipt.entry
            || entry.resource != receipt.job
            || entry.action != CREATED
        {
            return Err(fail("the entry of the audit log is not of its job"));
        }
        let signed = sent.checkpoint.clone().unwrap_or_default();
        let checkpoint = Checkpoint::verify(&signed.note, key)?;
        let path: Option<Vec<Hash>> = (sent.path.iter())
            .map(|hash| hash.as_slice().try_into().ok())
            .collect();
        let path = path.ok_or_else(|| fail("the proof has hashes that are not of 32 bytes"))?;
        let index = receipt.entry.checked_sub(1);
        let is_in = |index| {
            merkle::is_included(
                &receipt.leaf,
                index,
                checkpoint.size,
                &path,
                &checkpoint.root,
            )
        };
        if !index.is_some_and(is_in) {
            return Err(fail(
                "its entry is not in the audit log under its checkpoint",
            ));
        }
        Ok(Verified {
            receipt,
            asked,
            entry,
            checkpoint,
        })
    }

    /// Holds results against it: serialised, as they are listed whole and in order.
    ///
    /// # Errors
    /// [`Error::Note`] when they are not those that it is of.
    pub fn check_results<T: AsRef<[u8]>>(
        &self,
        results: impl IntoIterator<Item = T>,
    ) -> Result<(), Error> {
        let mut frontier = Frontier::default();
        for result in results {
            frontier.push(merkle::leaf(result.as_ref()));
        }
        if (frontier.size(), frontier.root()) == (self.results, self.root) {
            return Ok(());
        }
        let problem = match frontier.size() == self.results {
            true => "its results are not these: one of them was altered, or is in another place"
                .to_owned(),
            false => format!(
                "it is of {} results, these are {}",
                self.results,
                frontier.size()
            ),
        };
        Err(Error::Note {
            what: "the receipt",
            problem,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::audit::Signer;

    fn results() -> Vec<Vec<u8>> {
        (0..5).map(|n| vec![n; n as usize + 1]).collect()
    }

    /// A receipt of a job whose entry is the second of three.
    fn made() -> (v1::Receipt, Signer) {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::generate(folder.path()).unwrap();
        let asked = v1::Job {
            model: "models/m".to_owned(),
            version: "models/m/versions/v".to_owned(),
            ..Default::default()
        };
        let asked = asked.encode_to_vec();
        let leaves: Vec<Vec<u8>> = (1..=3)
            .map(|sequence| {
                let entry = v1::AuditEntry {
                    sequence,
                    action: CREATED.to_owned(),
                    resource: format!("jobs/{sequence}"),
                    ..Default::default()
                };
                entry.encode_to_vec()
            })
            .collect();
        let hashes: Vec<Hash> = leaves.iter().map(|leaf| merkle::leaf(leaf)).collect();
        let mut frontier = Frontier::default();
        for result in results() {
            frontier.push(merkle::leaf(&result));
        }
        let receipt = Receipt {
            job: "jobs/2".to_owned(),
            state: "succeeded".to_owned(),
            model: "models/m".to_owned(),
            files: "ab".repeat(32),
            version: "models/m/versions/v".to_owned(),
            asked: Digest::of(&asked).to_string(),
            results: 5,
            root: frontier.root(),
            computed: vec![(4, "cpu, F32".to_owned()), (1, "a\nentry 9 b".to_owned())],
            entry: 2,
            leaf: hashes[1],
        };
        let sent = v1::Receipt {
            note: signer.sign_text(&receipt.text()),
            verifier_key: signer.verifier(),
            asked,
            entry: Some(v1::AuditLeaf {
                leaf: leaves[1].clone(),
                ..Default::default()
            }),
            path: merkle::inclusion(&hashes, 1)
                .into_iter()
                .map(Vec::from)
                .collect(),
            checkpoint: Some(v1::AuditCheckpoint {
                note: signer.sign(3, &merkle::root(&hashes)),
                ..Default::default()
            }),
        };
        (sent, signer)
    }

    #[test]
    fn a_receipt_reads_back_and_nothing_in_it_may_be_another() {
        let (sent, signer) = made();
        let key = signer.verifier();
        let verified = Receipt::verify(&sent, &key).unwrap();
        assert_eq!(verified.receipt.job, "jobs/2");
        // What comes from elsewhere makes no line of its own.
        assert_eq!(verified.receipt.computed[1], (1, "a entry 9 b".to_owned()));
        assert_eq!(verified.asked.model, "models/m");
        assert_eq!(verified.checkpoint.size, 3);
        let (other, _) = made();
        type Change<'a> = &'a dyn Fn(&mut v1::Receipt);
        let changes: [(Change<'_>, &str); 9] = [
            (
                &|it| it.note = it.note.replace("succeeded", "failed"),
                "altered",
            ),
            (
                &|it| it.note = it.checkpoint.clone().unwrap().note,
                "not those of one",
            ),
            (&|it| it.note = other.note.clone(), "not signed by"),
            (&|it| it.asked.push(1), "asked"),
            (
                &|it| it.entry.as_mut().unwrap().leaf.push(0),
                "not the one that it names",
            ),
            (&|it| it.entry = None, "not the one that it names"),
            (&|it| drop(it.path.pop()), "not in the audit log"),
            (&|it| it.path[0][0] ^= 1, "not in the audit log"),
            (
                &|it| it.checkpoint = other.checkpoint.clone(),
                "not signed by",
            ),
        ];
        for (change, what) in changes {
            let mut wrong = sent.clone();
            change(&mut wrong);
            let said = Receipt::verify(&wrong, &key).unwrap_err().to_string();
            assert!(said.contains(what), "{said}: {what}");
        }
        // A receipt is no checkpoint, whoever asks.
        assert!(Checkpoint::verify(&sent.note, &key).is_err());
    }

    #[test]
    fn an_entry_of_another_job_vouches_for_none() {
        let (mut sent, signer) = made();
        let key = signer.verifier();
        let mut receipt = Receipt::verify(&sent, &key).unwrap().receipt;
        receipt.job = "jobs/3".to_owned();
        sent.note = signer.sign_text(&receipt.text());
        let said = Receipt::verify(&sent, &key).unwrap_err().to_string();
        assert!(said.contains("not of its job"), "{said}");
    }

    #[test]
    fn the_results_are_all_of_them_in_their_order() {
        let (sent, signer) = made();
        let receipt = Receipt::verify(&sent, &signer.verifier()).unwrap().receipt;
        receipt.check_results(results()).unwrap();
        let mut swapped = results();
        swapped.swap(0, 1);
        let mut altered = results();
        altered[3][0] ^= 1;
        for wrong in [swapped, altered, results()[1..].to_vec(), Vec::new()] {
            receipt.check_results(wrong).unwrap_err();
        }
    }
}
