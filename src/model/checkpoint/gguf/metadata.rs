//! The metadata of a GGUF file that are not used, and the values under which they change nothing: the same for a file as
//! `config/unused.rs` is for a `config.json`. What llama.cpp's converter writes is the source.

use candle_core::quantized::gguf_file::Value;

/// Metadata below `{architecture}.` that the reader uses.
const USED: &[&str] = &[
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "attention.value_length",
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.factor",
    "rope.scaling.type",
];

/// Metadata below `tokenizer.ggml.` that the reader uses.
const USED_OF_TOKENIZER: &[&str] = &[
    "add_bos_token",
    "add_eos_token",
    "add_space_prefix",
    "merges",
    "model",
    "pre",
    "remove_extra_whitespaces",
    "scores",
    "token_type",
    "tokens",
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
    used: &[&str],
    unused: &[(&str, Allowed)],
) -> Result<(), Refused> {
    if used.contains(&field) {
        return Ok(());
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
        assert!(check_tokenizer("normalizer", &text("nfkc")).is_err());
    }
}
