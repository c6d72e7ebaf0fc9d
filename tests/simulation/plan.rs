//! What a seed decides: the jobs that are asked for.

use std::time::Duration;

use palimpsest::proto::v1::{self, CreateJobRequest, job::Spec};

use super::dice::Dice;

/// What goes wrong in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// Coordinator and workers are killed, asked to leave, and started again.
    Crashes,
    /// Messages are late, held, or lost, in one direction or both.
    Network,
    /// Some workers lie.
    Liars,
    /// All of it.
    Everything,
    /// Two coordinators follow one log in a bucket, and they, their machines and their ways to the
    /// bucket fail.
    Leaders,
}

impl Theme {
    pub fn name(self) -> &'static str {
        match self {
            Self::Crashes => "crashes",
            Self::Network => "network",
            Self::Liars => "liars",
            Self::Everything => "everything",
            Self::Leaders => "leaders",
        }
    }

    pub fn crashes(self) -> bool {
        matches!(self, Self::Crashes | Self::Everything | Self::Leaders)
    }

    pub fn network(self) -> bool {
        matches!(self, Self::Network | Self::Everything | Self::Leaders)
    }

    pub fn liars(self) -> bool {
        matches!(self, Self::Liars | Self::Everything)
    }

    /// The hosts of the coordinators.
    pub fn coordinators(self) -> &'static [&'static str] {
        match self {
            Self::Leaders => &["coordinator", "coordinator-b"],
            _ => &["coordinator"],
        }
    }

    /// Whether the log is in a bucket.
    pub fn shares(self) -> bool {
        self == Self::Leaders
    }

    /// Counted failures that a task has before it fails for good: two where nothing that happens
    /// may count (I7).
    pub fn attempts(self) -> u32 {
        if self.liars() { 1_000_000 } else { 2 }
    }
}

/// A job that a client asks for.
#[derive(Clone, Debug)]
pub struct Asked {
    pub request: CreateJobRequest,
    /// When it is cancelled, after it was accepted.
    pub cancel: Option<Duration>,
}

/// The jobs of a client.
pub fn jobs(client: &str, dice: &mut Dice) -> Vec<Asked> {
    (0..dice.among(1..=2))
        .map(|n| {
            let label = format!("{client}-{n}");
            let spec = if dice.once_in(4) {
                generate(&label, dice)
            } else {
                trace(&label, dice)
            };
            let job = v1::Job {
                model: "models/tiny".to_owned(),
                display_name: label.clone(),
                priority: dice.below(3) as i32,
                spec: Some(spec),
                ..Default::default()
            };
            let request = CreateJobRequest {
                job: Some(job),
                request_id: label,
                validate_only: false,
            };
            let cancel = dice
                .once_in(5)
                .then(|| Duration::from_millis(dice.below(4_000)));
            Asked { request, cancel }
        })
        .collect()
}

fn trace(label: &str, dice: &mut Dice) -> Spec {
    let facts = (0..dice.among(2..=10)).map(|n| {
        let subject = format!("The tower of {label} {n}");
        v1::Fact {
            prompt: format!("{subject} stands in the country of"),
            subject,
            ..Default::default()
        }
    });
    let kinds = [v1::Kind::Hidden, v1::Kind::Mlp, v1::Kind::Attn];
    Spec::Trace(v1::TraceSpec {
        facts: facts.collect(),
        kinds: kinds[..dice.among(1..=3) as usize]
            .iter()
            .map(|kind| *kind as i32)
            .collect(),
        noise: if dice.once_in(2) { "s3" } else { "0.1" }.to_owned(),
        samples: 3,
        ..Default::default()
    })
}

fn generate(label: &str, dice: &mut Dice) -> Spec {
    let prompts = (0..dice.among(3..=20)).map(|n| format!("The town of {label} {n} is"));
    Spec::Generate(v1::GenerateSpec {
        prompts: prompts.collect(),
        max_tokens: 16,
        ..Default::default()
    })
}
