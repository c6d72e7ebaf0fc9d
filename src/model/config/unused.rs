//! The fields of a `config.json` that are not used, and why: because they change nothing that is
//! computed, or because the one value they may have says what is so anyway. Every other field is
//! used by its family, or refused.
//!
//! Collected from what transformers' configuration classes write and have written (2019 to version
//! 5.23) and from published models. Where a family uses a field, its own reading counts and this
//! table is not asked.

use serde_json::Value;

/// What a field that nobody uses may hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Allowed {
    /// Anything.
    Anything,
    /// `false`, `null` or an empty object or list: the feature is off.
    Off,
    /// This number.
    Number(f64),
    /// A list of `full_attention`: no layer has a window.
    FullAttention,
}

impl Allowed {
    /// Whether a value is one of those. `null` always is: it stands for a field that is not there.
    pub fn holds(self, value: &Value) -> bool {
        match (self, value) {
            (Allowed::Anything, _) | (_, Value::Null) => true,
            (Allowed::Off, Value::Bool(on)) => !on,
            (Allowed::Off, Value::Object(map)) => map.is_empty(),
            (Allowed::Off, Value::Array(list)) => list.is_empty(),
            (Allowed::Number(number), found) => found.as_f64() == Some(number),
            (Allowed::FullAttention, Value::Array(list)) => {
                list.iter().all(|kind| kind == "full_attention")
            }
            _ => false,
        }
    }

    /// The values, in words.
    pub fn supported(self) -> String {
        match self {
            Allowed::Anything => "anything".to_owned(),
            Allowed::Off => "false or null".to_owned(),
            Allowed::Number(number) => number.to_string(),
            Allowed::FullAttention => "a list of full_attention".to_owned(),
        }
    }
}

/// Fields with one reason to leave them unused.
struct Unused {
    /// Why they change no number.
    because: &'static str,
    allowed: Allowed,
    fields: &'static [&'static str],
}

/// The table.
const UNUSED: &[Unused] = &[
    Unused {
        because: "says where the model came from and what wrote the file",
        allowed: Allowed::Anything,
        fields: &[
            "_commit_hash",
            "_model_name_or_path",
            "_name_or_path",
            "architectures",
            "auto_map",
            "custom_pipelines",
            "finetuning_task",
            "internal_version",
            "is_llama_config",
            "model_type",
            "transformers.js_config",
            "transformers_version",
            "unsloth_fixed",
            "unsloth_version",
        ],
    },
    Unused {
        because: "is for training: dropouts, first values, how memory is saved",
        allowed: Allowed::Anything,
        fields: &[
            "activation_dropout",
            "attention_dropout",
            "attention_probs_dropout_prob",
            "attn_pdrop",
            "dropout",
            "embd_pdrop",
            "embed_dropout",
            "embedding_dropout",
            "gradient_checkpointing",
            "hidden_dropout",
            "hidden_dropout_prob",
            "init_std",
            "initializer_range",
            "layerdrop",
            "loss_type",
            "resid_dropout",
            "resid_pdrop",
            "residual_dropout",
            "router_aux_loss_coef",
            "router_jitter_noise",
            "use_liger_kernel",
        ],
    },
    Unused {
        because: "is of a classification head, which a language model does not have",
        allowed: Allowed::Anything,
        fields: &[
            "_num_labels",
            "classifier_dropout",
            "classifier_dropout_prob",
            "id2label",
            "label2id",
            "num_labels",
            "problem_type",
            "summary_activation",
            "summary_first_dropout",
            "summary_proj_to_labels",
            "summary_type",
            "summary_use_proj",
        ],
    },
    Unused {
        because: "is a default of transformers' generate, where our own settings hold",
        allowed: Allowed::Anything,
        fields: &[
            "bad_words_ids",
            "begin_suppress_tokens",
            "diversity_penalty",
            "do_sample",
            "early_stopping",
            "encoder_no_repeat_ngram_size",
            "exponential_decay_length_penalty",
            "forced_bos_token_id",
            "forced_eos_token_id",
            "length_penalty",
            "max_length",
            "max_new_tokens",
            "min_length",
            "no_repeat_ngram_size",
            "num_beam_groups",
            "num_beams",
            "num_return_sequences",
            "penalty_alpha",
            "prefix",
            "remove_invalid_values",
            "repetition_penalty",
            "suppress_tokens",
            "task_specific_params",
            "temperature",
            "top_k",
            "top_p",
            "typical_p",
        ],
    },
    Unused {
        because: "names tokens and tokenizers, which their own files decide",
        allowed: Allowed::Anything,
        fields: &[
            "bos_token_id",
            "cls_token_id",
            "decoder_start_token_id",
            "mask_token_id",
            "model_max_length",
            "max_sequence_length",
            "pad_token_id",
            "sep_token_id",
            "tokenizer_class",
            "unk_token_id",
        ],
    },
    Unused {
        because: "says how and in which format something is computed or kept, not what",
        allowed: Allowed::Anything,
        fields: &[
            "_attn_implementation",
            "_attn_implementation_autoset",
            "_flash_attn_2_enabled",
            "attn_implementation",
            "cache_implementation",
            "chunk_size_feed_forward",
            "dtype",
            "keys_to_ignore_at_inference",
            "output_attentions",
            "output_hidden_states",
            "output_past",
            "output_router_logits",
            "output_scores",
            "pretraining_tp",
            "reorder_and_upcast_attn",
            "return_dict",
            "return_dict_in_generate",
            "tf_legacy_loss",
            "torch_dtype",
            "torchscript",
            "use_bfloat16",
            "use_cache",
            "use_flash_attention",
            "use_flash_attention_2",
            "use_flash_attn",
            "use_return_dict",
            "xla_device",
        ],
    },
    Unused {
        because: "is read by no decoder: transformers' masks are causal all the same",
        allowed: Allowed::Anything,
        fields: &["is_decoder", "predict_special_tokens"],
    },
    Unused {
        because: "is another family's name, which transformers does not read here (CodeQwen 1.5 has both)",
        allowed: Allowed::Anything,
        fields: &["rotary_emb_base", "seq_length"],
    },
    Unused {
        because: "is off, as here",
        allowed: Allowed::Off,
        fields: &[
            "add_cross_attention",
            "attention_bias",
            "attention_out_bias",
            "cross_attention_hidden_size",
            "eight_bit",
            "is_encoder_decoder",
            "lm_head_bias",
            "mlp_bias",
            "pruned_heads",
            "qk_layernorm",
            "quantization",
            "quantization_config",
            "rope_interleaved",
            "rope_scaling",
            "sliding_window",
            "tie_encoder_decoder",
            "use_bidirectional_attention",
            "use_mrope",
            "use_qk_norm",
            "use_sliding_window",
        ],
    },
    Unused {
        because: "has the value of a model without it",
        allowed: Allowed::Number(1.0),
        fields: &["full_attn_mod", "interpolate_factor", "rope_ratio"],
    },
    Unused {
        because: "has the value of a model without it",
        allowed: Allowed::Number(0.0),
        fields: &["n_special", "num_experts", "num_local_experts"],
    },
    Unused {
        because: "says that every layer sees everything, as here",
        allowed: Allowed::FullAttention,
        fields: &["layer_types"],
    },
];

/// Why a field of a `config.json` that is not used changes no number; [`None`] for one that is used
/// or refused.
pub fn reason(field: &str) -> Option<&'static str> {
    let row = UNUSED.iter().find(|row| row.fields.contains(&field));
    row.map(|row| row.because)
}

/// What a field that a family does not use may hold; [`None`] for a field that nobody knows.
pub(crate) fn allowed(field: &str) -> Option<Allowed> {
    let row = UNUSED.iter().find(|row| row.fields.contains(&field));
    row.map(|row| row.allowed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_field_stands_once_and_has_a_reason() {
        let mut seen = BTreeSet::new();
        for row in UNUSED {
            assert!(row.because.split(' ').count() > 2, "{}", row.because);
            for field in row.fields {
                assert!(seen.insert(field), "{field} stands twice");
            }
        }
    }
}
