//! The metadata of a GGUF file that are not used, and the values under which they change nothing:
//! the same for a file as `config/unused.rs` is for a `config.json`. What llama.cpp's converter
//! writes is the source.

use candle_core::quantized::gguf_file::Value;

/// What a field that is used must hold. Another kind of value would be read over, and a default
/// taken.
#[derive(Clone, Copy)]
enum Kind {
    /// What its reader looks at itself.
    Any,
    /// A finite number.
    Number,
    Flag,
    Text,
}

/// Metadata below `{architecture}.` that the reader uses.
const USED: &[(&str, Kind)] = &[
    ("attention.head_count", Kind::Any),
    ("attention.head_count_kv", Kind::Any),
    ("attention.key_length", Kind::Any),
    ("attention.layer_norm_epsilon", Kind::Number),
    ("attention.layer_norm_rms_epsilon", Kind::Number),
    ("attention.value_length", Kind::Any),
    ("block_count", Kind::Any),
    ("context_length", Kind::Any),
    ("embedding_length", Kind::Any),
    ("feed_forward_length", Kind::Any),
    ("rope.dimension_count", Kind::Any),
    ("rope.freq_base", Kind::Number),
    ("rope.scaling.factor", Kind::Number),
    ("rope.scaling.type", Kind::Text),
];

/// Metadata below `tokenizer.ggml.` that the reader uses.
const USED_OF_TOKENIZER: &[(&str, Kind)] = &[
    ("add_bos_token", Kind::Flag),
    ("add_eos_token", Kind::Flag),
    ("add_space_prefix", Kind::Flag),
    ("merges", Kind::Any),
    ("model", Kind::Text),
    ("pre", Kind::Text),
    ("remove_extra_whitespaces", Kind::Flag),
    ("scores", Kind::Any),
    ("token_type", Kind::Any),
    ("tokens", Kind::Any),
];

/// What metadata that nobody uses may hold.
#[derive(Clone, Copy)]
enum Allowed {
    /// Anything: it names, counts or describes.
    Anything,
    /// 0 or the number: the model has no such thing.
    NoneOr(f64),
    Flag(bool),
    /// 0, or a window that holds the whole context.
    WholeContext,
    /// Nothing, or an empty list.
    Empty,
}

const UNUSED: &[(&str, Allowed)] = &[
    ("attention.causal", Allowed::Flag(true)),
    ("attention.clamp_kqv", Allowed::NoneOr(0.0)),
    ("attention.max_alibi_bias", Allowed::NoneOr(0.0)),
    ("attention.sliding_window", Allowed::WholeContext),
    ("embedding_scale", Allowed::NoneOr(1.0)),
    ("expert_count", Allowed::NoneOr(0.0)),
    ("expert_used_count", Allowed::NoneOr(0.0)),
    ("leading_dense_block_count", Allowed::NoneOr(0.0)),
    ("logit_scale", Allowed::NoneOr(1.0)),
    ("pooling_type", Allowed::NoneOr(0.0)),
    ("residual_scale", Allowed::NoneOr(1.0)),
    ("rope.scale_linear", Allowed::NoneOr(1.0)),
    ("rope.scaling.attn_factor", Allowed::NoneOr(1.0)),
    // Whether and from which length the model was trained on: the rule itself stands elsewhere.
    ("rope.scaling.finetuned", Allowed::Anything),
    ("rope.scaling.original_context_length", Allowed::Anything),
    // The order of rows in query and key that the reader assumes.
    ("tensor_data_layout", Allowed::Anything),
    ("use_parallel_residual", Allowed::Flag(false)),
    // The embedding's rows count.
    ("vocab_size", Allowed::Anything),
];

const UNUSED_OF_TOKENIZER: &[(&str, Allowed)] = &[
    ("add_sep_token", Allowed::Flag(false)),
    ("added_tokens", Allowed::Anything),
    ("escape_whitespaces", Allowed::Flag(true)),
    ("precompiled_charsmap", Allowed::Empty),
    ("token_type_count", Allowed::Anything),
];

/// Why a field is refused.
pub(super) enum Refused {
    /// Nobody knows it.
    Unknown,
    /// It may hold only this.
    Supported(String),
}

/// Holds a field below `{architecture}.` against the tables. `context` is the model's.
pub(super) fn check(field: &str, value: &Value, context: Option<f64>) -> Result<(), Refused> {
    held(field, value, context, USED, UNUSED)
}

/// Holds a field below `tokenizer.ggml.` against the tables. Ids of tokens only name.
pub(super) fn check_tokenizer(field: &str, value: &Value) -> Result<(), Refused> {
    if field.ends_with("_token_id") {
        return Ok(());
    }
    held(field, value, None, USED_OF_TOKENIZER, UNUSED_OF_TOKENIZER)
}

fn held(
    field: &str,
    value: &Value,
    context: Option<f64>,
    used: &[(&str, Kind)],
    unused: &[(&str, Allowed)],
) -> Result<(), Refused> {
    if let Some((_, kind)) = used.iter().find(|(name, _)| *name == field) {
        let (holds, supported) = match kind {
            Kind::Any => (true, ""),
            Kind::Number => (number(value).is_some_and(f64::is_finite), "a finite number"),
            Kind::Flag => (matches!(value, Value::Bool(_)), "true or false"),
            Kind::Text => (matches!(value, Value::String(_)), "a text"),
        };
        return match holds {
            true => Ok(()),
            false => Err(Refused::Supported(supported.to_owned())),
        };
    }
    let Some((_, allowed)) = unused.iter().find(|(name, _)| *name == field) else {
        return Err(Refused::Unknown);
    };
    let number = number(value);
    let (holds, supported) = match *allowed {
        Allowed::Anything => (true, String::new()),
        Allowed::NoneOr(one) => (
            number.is_some_and(|number| number == 0.0 || number == one),
            one.to_string(),
        ),
        Allowed::Flag(flag) => {
            let holds = matches!(value, Value::Bool(found) if *found == flag);
            (holds, flag.to_string())
        }
        Allowed::WholeContext => (
            number.is_some_and(|number| {
                number == 0.0 || context.is_some_and(|context| number >= context)
            }),
            "0, or at least the context's length".to_owned(),
        ),
        Allowed::Empty => (
            matches!(value, Value::Array(list) if list.is_empty()),
            "empty".to_owned(),
        ),
    };
    match holds {
        true => Ok(()),
        false => Err(Refused::Supported(supported)),
    }
}

/// A value as a number, where it is one.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::F32(x) => Some(decimal(*x)),
        Value::F64(x) => Some(*x),
        Value::I8(x) => Some((*x).into()),
        Value::I16(x) => Some((*x).into()),
        Value::I32(x) => Some((*x).into()),
        Value::I64(x) => Some(*x as f64),
        other => other.to_u64().ok().map(|n| n as f64),
    }
}

/// The double a human wrote when a file stores it as a single: 1e-5, not 9.99999974e-6.
fn decimal(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_what_is_so_anyway_is_taken_and_what_changes_something_is_refused() {
        let text = |text: &str| Value::String(text.into());
        for (field, same, other) in [
            ("tensor_data_layout", text("Meta AI original pth"), None),
            ("rope.scale_linear", Value::F32(1.0), Some(Value::F32(4.0))),
            ("expert_count", Value::U32(0), Some(Value::U32(8))),
            (
                "attention.causal",
                Value::Bool(true),
                Some(Value::Bool(false)),
            ),
            (
                "attention.sliding_window",
                Value::U32(4096),
                Some(Value::U32(512)),
            ),
            (
                "rope.scaling.attn_factor",
                Value::F32(1.0),
                Some(Value::F32(0.5)),
            ),
            ("vocab_size", Value::U32(32000), None),
            ("block_count", Value::U32(3), None),
            (
                "attention.layer_norm_rms_epsilon",
                Value::F32(1e-5),
                Some(Value::F32(f32::NAN)),
            ),
            ("rope.freq_base", Value::F32(5e5), Some(text("500000"))),
            (
                "rope.freq_base",
                Value::F64(5e5),
                Some(Value::F32(f32::INFINITY)),
            ),
            ("rope.scaling.type", text("none"), Some(Value::U32(2))),
        ] {
            assert!(check(field, &same, Some(2048.0)).is_ok(), "{field}");
            if let Some(other) = other {
                let refused = check(field, &other, Some(2048.0));
                assert!(matches!(refused, Err(Refused::Supported(_))), "{field}");
            }
        }
        let unknown = check("attention.temperature", &Value::F32(1.0), None);
        assert!(matches!(unknown, Err(Refused::Unknown)));
        assert!(check_tokenizer("fim_pre_token_id", &Value::U32(7)).is_ok());
        assert!(check_tokenizer("add_sep_token", &Value::Bool(true)).is_err());
        assert!(check_tokenizer("add_bos_token", &Value::Bool(true)).is_ok());
        assert!(check_tokenizer("add_bos_token", &Value::U8(1)).is_err());
        assert!(check_tokenizer("normalizer", &text("nfkc")).is_err());
    }
}
