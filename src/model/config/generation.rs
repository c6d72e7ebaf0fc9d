//! `generation_config.json`: what of it is used, and why the rest changes nothing here.
//!
//! The file holds the settings of transformers' `generate`. Ours takes the likeliest token, without
//! penalties, beams or filters, whatever the file says: a trace and an edit ask the model, and so
//! does a completion beside them. So of its fields the end-of-text ids are used, and no other.
//! Collected from transformers' `GenerationConfig` (4.26 to 5.23) and from published files.

use serde_json::{Map, Value};

use super::super::Error;
use super::fields::{token_ids, unsupported};

/// Fields with one reason to leave them unused.
const UNUSED: &[(&str, &[&str])] = &[
    (
        "says where the file came from",
        &[
            "_commit_hash",
            "_from_model_config",
            "_original_object_hash",
            "_name_or_path",
            "chat_format",
            "model_type",
            "transformers_version",
        ],
    ),
    (
        "chooses among tokens, or changes what they weigh, where ours takes the likeliest",
        &[
            "assistant_confidence_threshold",
            "assistant_early_exit",
            "assistant_ensemble_weight",
            "assistant_lookbehind",
            "bad_words_ids",
            "begin_suppress_tokens",
            "constraints",
            "diversity_penalty",
            "do_sample",
            "dola_layers",
            "early_stopping",
            "encoder_no_repeat_ngram_size",
            "encoder_repetition_penalty",
            "epsilon_cutoff",
            "eta_cutoff",
            "exponential_decay_length_penalty",
            "force_words_ids",
            "forced_bos_token_id",
            "forced_decoder_ids",
            "forced_eos_token_id",
            "guidance_scale",
            "is_assistant",
            "length_penalty",
            "max_matching_ngram_size",
            "min_length",
            "min_new_tokens",
            "min_p",
            "no_repeat_ngram_size",
            "num_assistant_tokens",
            "num_assistant_tokens_schedule",
            "num_beam_groups",
            "num_beams",
            "num_return_sequences",
            "penalty_alpha",
            "prompt_lookup_num_tokens",
            "remove_invalid_values",
            "renormalize_logits",
            "repetition_penalty",
            "sequence_bias",
            "speculation_type",
            "suppress_tokens",
            "target_lookbehind",
            "temperature",
            "token_healing",
            "top_h",
            "top_k",
            "top_p",
            "typical_p",
            "use_mtp",
            "watermarking_config",
        ],
    ),
    (
        "bounds a text, where a request says how many tokens it wants",
        &[
            "max_length",
            "max_new_tokens",
            "max_time",
            "max_window_size",
            "stop_strings",
        ],
    ),
    (
        "names tokens that are put beside a text, never its end",
        &[
            "bos_token_id",
            "decoder_start_token_id",
            "pad_token_id",
            "unk_token_id",
        ],
    ),
    (
        "says how something is computed, kept or given back, not what",
        &[
            "cache_config",
            "cache_implementation",
            "compile_config",
            "continuous_batching_config",
            "disable_compile",
            "low_memory",
            "max_cache_len",
            "output_attentions",
            "output_hidden_states",
            "output_logits",
            "output_scores",
            "prefill_chunk_size",
            "return_dict_in_generate",
            "return_legacy_cache",
            "use_cache",
        ],
    ),
];

/// Why a field of a `generation_config.json` changes nothing here; [`None`] for the one that is
/// used, and for one that nobody knows, which `generate` does not read either.
pub fn unused_by_generate(field: &str) -> Option<&'static str> {
    let row = UNUSED.iter().find(|(_, fields)| fields.contains(&field));
    row.map(|(because, _)| *because)
}

/// The end-of-text ids that the file names; [`None`] where it names none: then the configuration's
/// hold. (transformers would then end no text. What a text of the model ends with is the same all
/// the same.)
///
/// # Errors
/// [`Error::UnsupportedValue`].
pub(crate) fn eos(file: &Map<String, Value>) -> Result<Option<Vec<u32>>, Error> {
    let value = file.get("eos_token_id").filter(|value| !value.is_null());
    let read = |value: &Value| {
        let field = "generation_config.eos_token_id";
        token_ids(value).ok_or_else(|| unsupported(field, value, "a token id or a list of them"))
    };
    value.map(read).transpose()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    #[test]
    fn every_field_stands_once() {
        let mut seen = BTreeSet::new();
        let all = UNUSED.iter().flat_map(|(_, fields)| *fields);
        for field in all {
            assert!(seen.insert(field), "{field} stands twice");
        }
        assert!(!seen.contains(&"eos_token_id"));
    }

    #[test]
    fn the_end_is_one_id_or_several_or_the_configurations() {
        let of = |value: Value| eos(value.as_object().unwrap());
        let some = |ids: &[u32]| Some(ids.to_vec());
        assert_eq!(of(json!({"eos_token_id": 7})).unwrap(), some(&[7]));
        assert_eq!(of(json!({"eos_token_id": [7, 9]})).unwrap(), some(&[7, 9]));
        assert_eq!(of(json!({"eos_token_id": -1})).unwrap(), some(&[]));
        assert_eq!(of(json!({"eos_token_id": null})).unwrap(), None);
        assert_eq!(of(json!({"top_p": 0.8})).unwrap(), None);
        let refused = of(json!({"eos_token_id": "</s>"})).unwrap_err().to_string();
        assert!(
            refused.contains("generation_config.eos_token_id"),
            "{refused}"
        );
    }

    /// As in copies of the files of GPT-2, Llama 2 and 3.1, Atom, Phi-3, and tuned Gemma 2 and Qwen
    /// 2.5.
    #[test]
    fn every_field_of_published_files_is_used_or_has_a_reason() {
        for (file, ends) in [
            (
                json!({"_from_model_config": true, "bos_token_id": 50256, "eos_token_id": 50256,
                    "transformers_version": "4.30.2"}),
                vec![50_256],
            ),
            (
                json!({"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "temperature": 0.9,
                    "max_length": 4096, "top_p": 0.6, "transformers_version": "4.31.0.dev0"}),
                vec![2],
            ),
            (
                json!({"bos_token_id": 128000, "do_sample": true, "eos_token_id": [128001, 128008, 128009],
                    "temperature": 0.6, "top_p": 0.9, "transformers_version": "4.42.3"}),
                vec![128_001, 128_008, 128_009],
            ),
            (
                json!({"_from_model_config": true, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
                    "temperature": 0.3, "top_p": 0.95, "transformers_version": "4.31.0"}),
                vec![2],
            ),
            (
                json!({"_from_model_config": true, "bos_token_id": 1, "eos_token_id": [32000, 32001, 32007],
                    "pad_token_id": 32000, "transformers_version": "4.41.2"}),
                vec![32_000, 32_001, 32_007],
            ),
            (
                json!({"_from_model_config": true, "bos_token_id": 2, "cache_implementation": "hybrid",
                    "eos_token_id": [1, 107], "pad_token_id": 0, "transformers_version": "4.46.1"}),
                vec![1, 107],
            ),
            (
                json!({"bos_token_id": 151643, "do_sample": true, "eos_token_id": [151645, 151643],
                    "pad_token_id": 151643, "repetition_penalty": 1.05, "temperature": 0.1, "top_k": 30, "top_p": 0.3,
                    "transformers_version": "4.44.2", "length_penalty": 1.2, "encoder_repetition_penalty": 0.9,
                    "max_new_tokens": 131072}),
                vec![151_645, 151_643],
            ),
        ] {
            let file = file.as_object().unwrap();
            assert_eq!(eos(file).unwrap(), Some(ends));
            for field in file.keys().filter(|field| *field != "eos_token_id") {
                assert!(unused_by_generate(field).is_some(), "{field}");
            }
        }
    }
}
