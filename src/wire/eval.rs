//! Evaluations between the contract and the code that measures.

use crate::datasets::edits::Rewrite;
use crate::eval::{Answer, ProbeKind, Record, Scored, Set};
use crate::proto::v1;

/// The data set whose measures are asked for; texts have none but their own.
pub fn set(set: v1::EvalSet) -> Set {
    match set {
        v1::EvalSet::Zsre => Set::ZsRe,
        v1::EvalSet::Counterfact | v1::EvalSet::Texts | v1::EvalSet::Unspecified => {
            Set::CounterFact
        }
    }
}

/// A record as it came.
pub fn record(sent: &v1::EvalRecord) -> Record {
    let fact = sent.request.clone().unwrap_or_default();
    let neighbours = sent.neighbours.iter();
    Record {
        rewrite: Rewrite {
            prompt: fact.prompt,
            subject: fact.subject,
            target_new: fact.target_new,
            target_true: fact.target_true,
            id: fact.id,
            paraphrases: sent.paraphrases.clone(),
            neighbours: neighbours.clone().map(|it| it.prompt.clone()).collect(),
        },
        neighbour_answers: neighbours.map(|it| it.target_true.clone()).collect(),
        generation_prompts: sent.generation_prompts.clone(),
    }
}

/// The kind of prompt that an answer was to.
fn probe_kind(kind: ProbeKind) -> v1::EditProbeKind {
    match kind {
        ProbeKind::Rewrite => v1::EditProbeKind::Rewrite,
        ProbeKind::Paraphrase => v1::EditProbeKind::Paraphrase,
        ProbeKind::Neighbour => v1::EditProbeKind::Neighbour,
    }
}

/// An answer as it came; none where it does not say to what.
pub fn answer(sent: &v1::EvalAnswer) -> Option<Answer> {
    Some(Answer {
        kind: match sent.kind() {
            v1::EditProbeKind::Unspecified => return None,
            v1::EditProbeKind::Rewrite => ProbeKind::Rewrite,
            v1::EditProbeKind::Paraphrase => ProbeKind::Paraphrase,
            v1::EditProbeKind::Neighbour => ProbeKind::Neighbour,
        },
        new: sent.new_object.as_ref().map(score),
        old: sent.true_object.as_ref().map(score),
    })
}

/// An answer as it travels.
pub fn answer_to_proto(answer: &Answer) -> v1::EvalAnswer {
    v1::EvalAnswer {
        kind: probe_kind(answer.kind) as i32,
        new_object: answer.new.map(score_to_proto),
        true_object: answer.old.map(score_to_proto),
    }
}

/// A score as it travels.
pub fn score_to_proto(scored: Scored) -> v1::EvalScore {
    v1::EvalScore {
        nll: scored.nll,
        tokens: scored.tokens as u32,
        likeliest: scored.likeliest as u32,
    }
}

/// A score as it came.
pub fn score(sent: &v1::EvalScore) -> Scored {
    Scored {
        nll: sent.nll,
        tokens: sent.tokens as usize,
        likeliest: sent.likeliest as usize,
    }
}
