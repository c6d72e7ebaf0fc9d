//! What a sweep chooses, between the contract and the code that traces: kinds, metrics, directions,
//! engines, and whose reading of severed paths is followed.

use crate::causal::{Compat, Direction, Engine, Gradient, Kind, Metric, Severed};
use crate::proto::v1;

/// The state that a kind of the contract restores, and the sub-module that it severs; [`None`]
/// for the unspecified kind.
pub fn kind(kind: v1::Kind) -> Option<(Kind, Option<Severed>)> {
    match kind {
        v1::Kind::Unspecified => None,
        v1::Kind::Hidden => Some((Kind::Hidden, None)),
        v1::Kind::Mlp => Some((Kind::Mlp, None)),
        v1::Kind::Attn => Some((Kind::Attn, None)),
        v1::Kind::HiddenSeveredMlp => Some((Kind::Hidden, Some(Severed::Mlp))),
        v1::Kind::HiddenSeveredAttn => Some((Kind::Hidden, Some(Severed::Attn))),
        v1::Kind::ResidPre => Some((Kind::ResidPre, None)),
        v1::Kind::ResidMid => Some((Kind::ResidMid, None)),
        v1::Kind::Head => Some((Kind::Head, None)),
        v1::Kind::HeadAll => Some((Kind::HeadAll, None)),
        v1::Kind::HeadQ => Some((Kind::HeadQ, None)),
        v1::Kind::HeadQAll => Some((Kind::HeadQAll, None)),
        v1::Kind::HeadK => Some((Kind::HeadK, None)),
        v1::Kind::HeadKAll => Some((Kind::HeadKAll, None)),
        v1::Kind::HeadV => Some((Kind::HeadV, None)),
        v1::Kind::HeadVAll => Some((Kind::HeadVAll, None)),
        v1::Kind::HeadPattern => Some((Kind::HeadPattern, None)),
        v1::Kind::HeadPatternAll => Some((Kind::HeadPatternAll, None)),
        v1::Kind::Neuron => Some((Kind::Neuron, None)),
    }
}

/// The other way. A path is severed around a block's output only, so `severed` decides the kind
/// where there is one.
pub fn kind_to_proto(kind: Kind, severed: Option<Severed>) -> v1::Kind {
    match (severed, kind) {
        (Some(Severed::Mlp), _) => v1::Kind::HiddenSeveredMlp,
        (Some(Severed::Attn), _) => v1::Kind::HiddenSeveredAttn,
        (None, Kind::Hidden) => v1::Kind::Hidden,
        (None, Kind::Mlp) => v1::Kind::Mlp,
        (None, Kind::Attn) => v1::Kind::Attn,
        (None, Kind::ResidPre) => v1::Kind::ResidPre,
        (None, Kind::ResidMid) => v1::Kind::ResidMid,
        (None, Kind::Head) => v1::Kind::Head,
        (None, Kind::HeadAll) => v1::Kind::HeadAll,
        (None, Kind::HeadQ) => v1::Kind::HeadQ,
        (None, Kind::HeadQAll) => v1::Kind::HeadQAll,
        (None, Kind::HeadK) => v1::Kind::HeadK,
        (None, Kind::HeadKAll) => v1::Kind::HeadKAll,
        (None, Kind::HeadV) => v1::Kind::HeadV,
        (None, Kind::HeadVAll) => v1::Kind::HeadVAll,
        (None, Kind::HeadPattern) => v1::Kind::HeadPattern,
        (None, Kind::HeadPatternAll) => v1::Kind::HeadPatternAll,
        (None, Kind::Neuron) => v1::Kind::Neuron,
    }
}

/// Whose reading of severed paths a sweep follows; what is not said is the default.
pub fn compat(compat: v1::Compat) -> Compat {
    match compat {
        v1::Compat::Unspecified | v1::Compat::None => Compat::None,
        v1::Compat::PaperCode => Compat::PaperCode,
    }
}

/// The other way.
pub fn compat_to_proto(compat: Compat) -> v1::Compat {
    match compat {
        Compat::None => v1::Compat::None,
        Compat::PaperCode => v1::Compat::PaperCode,
    }
}

/// How grids are computed, with the gradients of estimates; what is not said is the default.
pub fn engine(engine: v1::Engine, steps: u32, drop: bool) -> Engine {
    match engine {
        v1::Engine::Unspecified | v1::Engine::Exact => Engine::Exact,
        v1::Engine::Plain => Engine::Plain,
        v1::Engine::Attribution => Engine::Attribution(Gradient {
            steps: steps.max(1) as usize,
            drop,
        }),
    }
}

/// The other way; what is the default is not said.
pub fn engine_to_proto(engine: Engine) -> (v1::Engine, u32, bool) {
    match engine {
        Engine::Exact => (v1::Engine::Unspecified, 0, false),
        Engine::Plain => (v1::Engine::Plain, 0, false),
        Engine::Attribution(Gradient { steps, drop }) => {
            let steps = if steps > 1 { steps as u32 } else { 0 };
            (v1::Engine::Attribution, steps, drop)
        }
    }
}

/// The metric of the contract; [`None`] for the unspecified one.
pub fn metric(metric: v1::Metric) -> Option<Metric> {
    match metric {
        v1::Metric::Unspecified => None,
        v1::Metric::Probability => Some(Metric::Probability),
        v1::Metric::LogProbability => Some(Metric::LogProbability),
        v1::Metric::LogitDifference => Some(Metric::LogitDifference),
        v1::Metric::Kl => Some(Metric::Kl),
        v1::Metric::Rank => Some(Metric::Rank),
    }
}

/// The other way.
pub fn metric_to_proto(metric: Metric) -> v1::Metric {
    match metric {
        Metric::Probability => v1::Metric::Probability,
        Metric::LogProbability => v1::Metric::LogProbability,
        Metric::LogitDifference => v1::Metric::LogitDifference,
        Metric::Kl => v1::Metric::Kl,
        Metric::Rank => v1::Metric::Rank,
    }
}

/// The metrics that a sweep shows, each once.
pub fn shown(sweep: &v1::TraceSpec) -> Vec<Metric> {
    let mut metrics: Vec<Metric> = Vec::new();
    for metric in sweep.metrics().filter_map(metric) {
        if !metrics.contains(&metric) {
            metrics.push(metric);
        }
    }
    if metrics.is_empty() {
        metrics.push(Metric::Probability);
    }
    metrics
}

/// Which run is patched; what is not said is the default.
pub fn direction(direction: v1::Direction) -> Direction {
    match direction {
        v1::Direction::Unspecified | v1::Direction::Denoising => Direction::Denoising,
        v1::Direction::Noising => Direction::Noising,
    }
}

/// The other way; the default is not said.
pub fn direction_to_proto(direction: Direction) -> v1::Direction {
    match direction {
        Direction::Denoising => v1::Direction::Unspecified,
        Direction::Noising => v1::Direction::Noising,
    }
}
