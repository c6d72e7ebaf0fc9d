//! The configurations of published models, as fields and values (`tests/fixtures/published.txt`):
//! each is understood, or refused by the name of what changes its numbers.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::Config;

struct Published {
    name: String,
    /// Whether it was held against a copy of the published file.
    compared: bool,
    fields: Map<String, Value>,
    /// A word of the message by which it is refused.
    refused: Option<String>,
}

fn published() -> Vec<Published> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/published.txt");
    let text = std::fs::read_to_string(path).unwrap();
    let (mut shared, mut in_group) = (Map::new(), false);
    let mut all: Vec<Published> = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if let Some(group) = line.strip_prefix("= ") {
            (shared, in_group) = (Map::new(), true);
            assert!(!group.is_empty());
            continue;
        }
        let Some(fields) = line.strip_prefix("  ") else {
            in_group = false;
            let name = line.strip_prefix("* ");
            all.push(Published {
                name: name.unwrap_or(line).to_owned(),
                compared: name.is_some(),
                fields: shared.clone(),
                refused: None,
            });
            continue;
        };
        let mut words = fields.split(' ').filter(|word| !word.is_empty());
        while let Some(word) = words.next() {
            let model = all.last_mut().filter(|_| !in_group);
            match (model, word) {
                (Some(model), "!") => model.refused = words.next().map(str::to_owned),
                (Some(model), word) if word.starts_with('-') => {
                    assert!(model.fields.remove(&word[1..]).is_some(), "{word}");
                }
                (model, word) => {
                    let (field, value) = word.split_once('=').unwrap();
                    let value =
                        serde_json::from_str(value).unwrap_or_else(|e| panic!("{word}: {e}"));
                    let fields = model.map_or(&mut shared, |model| &mut model.fields);
                    fields.insert(field.to_owned(), value);
                }
            }
        }
    }
    all
}

#[test]
fn published_configurations_are_understood_or_refused_for_what_changes_their_numbers() {
    let all = published();
    let compared = all.iter().filter(|it| it.compared).count();
    assert!(
        all.len() >= 120 && compared >= 55,
        "{} {compared}",
        all.len()
    );
    let mut wrong = Vec::new();
    for Published {
        name,
        fields,
        refused,
        ..
    } in all
    {
        match (Config::from_json(fields), refused) {
            (Ok(_), None) => {}
            (Err(error), Some(word)) if error.to_string().contains(&word) => {}
            (found, _) => wrong.push(format!("{name}: {:?}", found.map(|it| it.family))),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn of(name: &str) -> Config {
    let found = published().into_iter().find(|it| it.name == name);
    Config::from_json(found.unwrap().fields).unwrap()
}

/// A published configuration with fields set, or taken out where they are `None`.
fn with(name: &str, changes: &[(&str, Option<Value>)]) -> Result<Config, String> {
    let mut fields = published()
        .into_iter()
        .find(|it| it.name == name)
        .unwrap()
        .fields;
    for (field, value) in changes {
        match value {
            Some(value) => fields.insert((*field).to_owned(), value.clone()),
            None => fields.remove(*field),
        };
    }
    Config::from_json(fields).map_err(|error| error.to_string())
}

#[test]
fn what_an_absent_field_means_is_as_in_transformers() {
    let mistral = with(
        "Mistral-7B-v0.1",
        &[("sliding_window", None), ("num_key_value_heads", None)],
    );
    let mistral = mistral.unwrap();
    assert_eq!(
        (mistral.attention[0].window, mistral.kv_heads),
        (Some(4096), 8)
    );
    assert_eq!(of("Mistral-7B-Instruct-v0.3").attention[0].window, None);
    let null = with(
        "Mistral-7B-v0.1",
        &[("num_key_value_heads", Some(Value::Null))],
    )
    .unwrap();
    assert_eq!(null.kv_heads, 32);
    assert_eq!(of("llama-7b of 2023").kv_heads, 32);
    let windows = [
        ("use_sliding_window", Some(json!(true))),
        ("sliding_window", None),
    ];
    let qwen = with("Qwen2.5-0.5B-Instruct", &windows).unwrap();
    assert_eq!(qwen.attention[20].window, None);
    assert_eq!(qwen.attention[21].window, Some(4096));
}

#[test]
fn an_end_of_text_that_is_not_named_is_the_familys_and_null_is_none() {
    assert_eq!(of("distilgpt2 of 2019").eos, [50_256]);
    assert_eq!(of("distilgpt2 of 2019").family, super::Family::Gpt2);
    for (name, id) in [
        ("gpt-j-6b", vec![50_256]),
        ("pythia-70m", vec![2]),
        ("Llama-2-7b-hf", vec![2]),
        ("Mistral-7B-v0.1", vec![2]),
        ("Qwen2.5-0.5B", vec![]),
        ("Qwen3-0.6B", vec![]),
        ("gemma-2-2b", vec![1]),
        ("gemma-3-1b-it", vec![1]),
        ("phi-4", vec![32_000]),
        ("OLMo-2-1124-7B", vec![50_279]),
        ("SmolLM3-3B", vec![128_001]),
        ("granite-3.3-2b-instruct", vec![2]),
        ("opt-125m", vec![2]),
        ("gpt-neo-125m", vec![50_256]),
        ("phi-2", vec![2]),
        ("stablelm-2-1_6b", vec![0]),
        ("starcoder2-3b", vec![50_256]),
        ("c4ai-command-r-v01", vec![255_001]),
        ("c4ai-command-r7b-12-2024", vec![255_001]),
        ("falcon-7b", vec![11]),
        ("bloom-560m", vec![2]),
        ("Mixtral-8x7B-v0.1", vec![2]),
        ("Qwen3-30B-A3B", vec![]),
        ("gpt-oss-20b, unpacked", vec![]),
    ] {
        assert_eq!(
            with(name, &[("eos_token_id", None)]).unwrap().eos,
            id,
            "{name}"
        );
        let null = with(name, &[("eos_token_id", Some(Value::Null))]).unwrap();
        assert!(null.eos.is_empty(), "{name}");
    }
}

#[test]
fn of_two_objects_of_rotary_parameters_the_old_name_counts() {
    let name = "Llama-3.2-1B as transformers 5 writes it";
    let both = |scaling: Value| with(name, &[("rope_scaling", Some(scaling))]);
    let rope = |config: Config| config.attention[0].rope.clone().unwrap();
    let linear = rope(both(json!({"type": "linear", "factor": 4.0})).unwrap());
    assert_eq!(linear.scaling, super::RopeScaling::Linear { factor: 4.0 });
    // The base of the new object goes with it.
    assert_eq!(linear.theta, 10_000.0);
    let refused = both(json!({"rope_type": "longrope", "factor": 4.0})).unwrap_err();
    assert!(refused.contains("longrope"), "{refused}");
    assert_eq!(rope(both(json!({})).unwrap()), rope(of(name)));
    assert_eq!(rope(both(Value::Null).unwrap()), rope(of(name)));
}

/// As transformers 5.23 computes it: seen in the logits of small models of each family, with and
/// without the field.
#[test]
fn which_part_of_a_head_turns_is_the_familys_business() {
    let dims = |name: &str, changes: &[(&str, Option<Value>)]| {
        with(name, changes).map(|config| {
            let rope = config.attention[0].rope.clone().unwrap();
            (rope.dims * 100 / config.head_dim, rope.theta)
        })
    };
    let half = json!(0.5);
    let object = |extra: Value| {
        let mut object = json!({"rope_type": "default", "rope_theta": 10000.0});
        let (map, Value::Object(extra)) = (object.as_object_mut().unwrap(), extra) else {
            unreachable!()
        };
        map.extend(extra);
        ("rope_parameters", Some(object))
    };
    let beside = ("partial_rotary_factor", Some(half.clone()));
    let inside = object(json!({"partial_rotary_factor": 0.5}));
    for name in [
        "Llama-2-7b-hf",
        "Mistral-7B-v0.1",
        "Qwen2.5-0.5B",
        "Qwen3-0.6B",
        "gemma-2-2b",
        "gemma-3-1b-it",
    ] {
        // The frequencies are those of the whole head.
        for change in [&beside, &inside] {
            let found = dims(name, std::slice::from_ref(change)).unwrap();
            assert_eq!(found.0, 100, "{name}");
        }
        // Those of a stretched embedding are of a part, and transformers then fails.
        let linear = json!({"rope_type": "linear", "factor": 2.0});
        let stretched = ("rope_scaling", Some(linear));
        let refused = dims(name, &[stretched, beside.clone()]).unwrap_err();
        assert!(refused.contains("partial_rotary_factor"), "{refused}");
    }
    // The object's first, then the one beside it.
    let phi = "Phi-3-mini-4k-instruct";
    let whole = ("partial_rotary_factor", Some(json!(1.0)));
    assert_eq!(dims(phi, std::slice::from_ref(&beside)).unwrap().0, 50);
    assert_eq!(dims(phi, &[inside.clone(), whole]).unwrap().0, 50);
    let linear = json!({"rope_type": "linear", "factor": 2.0});
    let refused = dims(phi, &[("rope_scaling", Some(linear))]).unwrap_err();
    assert!(refused.contains("rope_scaling"), "{refused}");
    // GPT-NeoX has names of its own, and reads no others.
    let pythia = "pythia-70m";
    let base = ("rope_theta", Some(json!(500.0)));
    assert_eq!(dims(pythia, &[beside, base]).unwrap(), (25, 10_000.0));
    assert_eq!(dims(pythia, &[inside]).unwrap().0, 50);
}

#[test]
fn the_length_before_stretching_is_that_beside_the_object_first() {
    let scaling = |original: Option<u32>| {
        let mut object = json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        });
        if let Some(original) = original {
            object["original_max_position_embeddings"] = json!(original);
        }
        Some(object)
    };
    let original = |inner, outer: Option<u32>| {
        let outer = outer.map(|outer| json!(outer));
        let changes = [
            ("rope_scaling", scaling(inner)),
            ("original_max_position_embeddings", outer),
        ];
        let config = with("Llama-3.1-8B-Instruct", &changes).unwrap();
        match config.attention[0].rope.clone().unwrap().scaling {
            super::RopeScaling::Llama3 { original, .. } => original,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(original(Some(8192), None), 8192.0);
    assert_eq!(original(None, Some(4096)), 4096.0);
    assert_eq!(original(Some(8192), Some(4096)), 4096.0);
    assert_eq!(original(None, None), 131_072.0);
}

#[test]
fn a_field_that_changes_nothing_is_refused_where_its_value_does() {
    for (name, field, value) in [
        ("Qwen2.5-0.5B", "use_mrope", json!(true)),
        ("Llama-2-7b-hf", "sliding_window", json!(4096)),
        ("Phi-3-mini-4k-instruct", "attention_bias", json!(true)),
        ("gpt2-medium", "n_special", json!(3)),
        ("gpt2", "hidden_size", json!(1024)),
        ("gemma-2-9b", "sliding_window_size", json!(512)),
        ("Llama-2-7b-hf", "quantization", json!({"bits": 4})),
        ("Llama-2-7b-hf", "layer_types", json!(["sliding_attention"])),
        (
            "Llama-2-7b-hf",
            "rope_parameters",
            json!({"rope_type": "default", "factor": 4.0}),
        ),
        ("Llama-2-7b-hf", "a_field_that_nobody_knows", json!(1)),
    ] {
        let refused = with(name, &[(field, Some(value))]).unwrap_err();
        let what = if field == "rope_parameters" {
            "factor"
        } else {
            field
        };
        assert!(refused.contains(what), "{name} {field}: {refused}");
    }
    let python = with(
        "Llama-2-7b-hf",
        &[("hidden_act", Some(json!("gelu_python")))],
    )
    .unwrap();
    assert_eq!(python.activation, super::Activation::Gelu);
}
