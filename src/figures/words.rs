//! What figures call things, and their colours.

use crate::causal::{Direction, Engine, Metric};
use crate::plot;
use crate::proto::v1;
use crate::wire;

/// What stands behind the title of a figure: that answers were read whole, and that it is of
/// estimates.
pub fn title(whole_answers: bool, engine: Engine) -> String {
    let whole = if whole_answers { ", whole answers" } else { "" };
    let estimate = engine.estimate().map(|what| format!(", {what}"));
    format!("{whole}{}", estimate.unwrap_or_default())
}

/// Whether effects that point the other way have colours of their own. In the published figures, of
/// the probability that restoring brings back, they are drawn as none.
pub fn is_signed(metric: Metric, direction: Direction, engine: Engine) -> bool {
    let published = (Metric::Probability, Direction::Denoising);
    (metric, direction) != published || engine.estimate().is_some()
}

/// What an effect is in.
pub fn value_label(metric: Metric, direction: Direction) -> String {
    match direction {
        Direction::Denoising => format!("{} back", metric.words()),
        Direction::Noising => format!("{} lost", metric.words()),
    }
}

/// What the rows of heads are called.
pub fn heads(count: usize) -> Vec<String> {
    (0..count).map(|head| format!("head {head}")).collect()
}

/// The colours of a kind: heads are parts of attention.
pub fn coloured_as(kind: v1::Kind) -> plot::Kind {
    match wire::kind(kind).is_some_and(|(kind, _)| kind.is_of_heads()) {
        true => plot::Kind::Attn,
        false => drawn_as(kind),
    }
}

/// Severed kinds restore a state, and are drawn as one.
pub fn drawn_as(kind: v1::Kind) -> plot::Kind {
    match kind {
        v1::Kind::Mlp => plot::Kind::Mlp,
        v1::Kind::Attn => plot::Kind::Attn,
        _ => plot::Kind::Hidden,
    }
}

/// What is restored where it is neither a block's output nor a sub-module's.
pub fn state_name(kind: v1::Kind) -> Option<&'static str> {
    match kind {
        v1::Kind::ResidPre => Some("the residual before a block"),
        v1::Kind::ResidMid => Some("the residual between attention and MLP"),
        v1::Kind::Head => Some("what a head gives"),
        v1::Kind::HeadAll => Some("what a head gives at every token"),
        v1::Kind::HeadQ => Some("the query of a head"),
        v1::Kind::HeadQAll => Some("the query of a head at every token"),
        v1::Kind::HeadK => Some("the key of a head"),
        v1::Kind::HeadKAll => Some("the key of a head at every token"),
        v1::Kind::HeadV => Some("the value of a head"),
        v1::Kind::HeadVAll => Some("the value of a head at every token"),
        v1::Kind::HeadPattern => Some("the pattern of a head"),
        v1::Kind::HeadPatternAll => Some("the pattern of a head at every token"),
        v1::Kind::Neuron => Some("the strongest neuron"),
        _ => None,
    }
}

pub fn severed_name(kind: v1::Kind) -> Option<&'static str> {
    match kind {
        v1::Kind::HiddenSeveredMlp => Some("MLP"),
        v1::Kind::HiddenSeveredAttn => Some("attention"),
        _ => None,
    }
}
