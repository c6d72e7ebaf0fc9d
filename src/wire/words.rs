//! What people, JSON and metrics call the values of the contract's enums.

use crate::proto::v1;

/// The kinds that can be asked for, in the order in which results list them.
pub const KINDS: [v1::Kind; 18] = [
    v1::Kind::Hidden,
    v1::Kind::Mlp,
    v1::Kind::Attn,
    v1::Kind::HiddenSeveredMlp,
    v1::Kind::HiddenSeveredAttn,
    v1::Kind::ResidPre,
    v1::Kind::ResidMid,
    v1::Kind::Head,
    v1::Kind::HeadAll,
    v1::Kind::HeadQ,
    v1::Kind::HeadQAll,
    v1::Kind::HeadK,
    v1::Kind::HeadKAll,
    v1::Kind::HeadV,
    v1::Kind::HeadVAll,
    v1::Kind::HeadPattern,
    v1::Kind::HeadPatternAll,
    v1::Kind::Neuron,
];

/// What users call a kind: `hidden`, `mlp`, `attn`, `hidden_severed_mlp`, `resid_pre`.
pub fn kind_name(kind: v1::Kind) -> &'static str {
    match kind {
        v1::Kind::Unspecified => "unspecified",
        v1::Kind::Hidden => "hidden",
        v1::Kind::Mlp => "mlp",
        v1::Kind::Attn => "attn",
        v1::Kind::HiddenSeveredMlp => "hidden_severed_mlp",
        v1::Kind::HiddenSeveredAttn => "hidden_severed_attn",
        v1::Kind::ResidPre => "resid_pre",
        v1::Kind::ResidMid => "resid_mid",
        v1::Kind::Head => "head",
        v1::Kind::HeadAll => "head_all",
        v1::Kind::HeadQ => "head_q",
        v1::Kind::HeadQAll => "head_q_all",
        v1::Kind::HeadK => "head_k",
        v1::Kind::HeadKAll => "head_k_all",
        v1::Kind::HeadV => "head_v",
        v1::Kind::HeadVAll => "head_v_all",
        v1::Kind::HeadPattern => "head_pattern",
        v1::Kind::HeadPatternAll => "head_pattern_all",
        v1::Kind::Neuron => "neuron",
    }
}

/// The kind of that name.
pub fn named_kind(name: &str) -> Option<v1::Kind> {
    KINDS.into_iter().find(|&kind| kind_name(kind) == name)
}

/// What users call a kind of work: `trace`, `mass_edit`.
pub fn job_kind(kind: v1::JobKind) -> String {
    let name = kind.as_str_name().to_lowercase();
    name.trim_start_matches("job_kind_").to_owned()
}

/// What people, JSON and metrics call a class of failures: `worker_lost`.
pub fn class_name(class: v1::FailureClass) -> &'static str {
    match class {
        v1::FailureClass::Unspecified => "unspecified",
        v1::FailureClass::Transient => "transient",
        v1::FailureClass::WorkerLost => "worker_lost",
        v1::FailureClass::Preempted => "preempted",
        v1::FailureClass::Backpressure => "backpressure",
        v1::FailureClass::OutOfMemory => "out_of_memory",
        v1::FailureClass::Invalid => "invalid",
        v1::FailureClass::Poison => "poison",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_work_can_be_listed() {
        let named = (1..)
            .map_while(|n| v1::JobKind::try_from(n).ok())
            .map(job_kind);
        let named: Vec<String> = named.collect();
        assert_eq!(named, crate::work::WORDS);
    }

    #[test]
    fn names_of_kinds_read_back_and_the_unspecified_one_has_none() {
        for kind in KINDS {
            assert_eq!(named_kind(kind_name(kind)), Some(kind));
        }
        assert_eq!(named_kind("unspecified"), None);
    }
}
