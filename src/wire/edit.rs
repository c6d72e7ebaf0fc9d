//! Edits between the contract and the code that computes them.

use crate::edit::measured::Gates;
use crate::edit::{self, Hyperparameters, Method, Step};
use crate::proto::v1;

impl From<v1::EditRequest> for edit::Request {
    fn from(request: v1::EditRequest) -> Self {
        Self {
            prompt: request.prompt,
            subject: request.subject,
            target_new: request.target_new,
            target_true: request.target_true,
        }
    }
}

/// What an edit must pass; what is not said is no gate.
pub fn gates(asked: &v1::EditGates) -> Gates {
    Gates {
        efficacy: asked.efficacy,
        neighbour_drift: asked.neighbour_drift,
        norm: asked.norm,
        norm_warning: asked.norm_warning,
        ppl_ratio: asked.ppl_ratio,
        server_ppl_ratio: asked.server_ppl_ratio,
        locality: asked.locality,
        downstream_drop: asked.downstream_drop,
    }
}

/// The numbers of an edit by their names, in the order of names.
pub fn parameters(method: Method, hyper: &Hyperparameters) -> Vec<v1::NamedNumber> {
    let mut numbers = hyper.named(method);
    numbers.push(("layer", hyper.layer as f64));
    numbers.sort_by_key(|(key, _)| *key);
    numbers.into_iter().map(number).collect()
}

/// A number with its name.
fn number((key, value): (&str, f64)) -> v1::NamedNumber {
    v1::NamedNumber {
        key: key.to_owned(),
        value,
    }
}

/// A fingerprint in words, as an edit keeps it.
pub fn describe(fingerprint: &v1::Fingerprint) -> String {
    format!(
        "{}, {}, {} threads, libtorch {}, engine {}",
        fingerprint.device,
        fingerprint.dtype,
        fingerprint.threads,
        fingerprint.libtorch,
        fingerprint.engine_revision
    )
}

/// A step of an optimisation as it travels.
pub fn step_to_proto(step: &Step) -> v1::EditStep {
    v1::EditStep {
        loss: step.loss,
        nll: step.nll,
        probability: step.probability,
        drift: step.drift,
    }
}
