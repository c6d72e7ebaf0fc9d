//! Mixtures of experts: what has one key has none there, and says so; a token's experts are its own
//! business; configurations and files that would be another model are refused.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // a failed test says why by panicking

use std::path::{Path, PathBuf};

use palimpsest::causal::{Kind as Site, Noise, Settings, Unwatched, trace};
use palimpsest::edit::{
    self, Contexts, Hyperparameters, Method, Overrides, Request, fine_tune, mass_keys, target,
};
use palimpsest::model::{Checkpoint, Config, Model, Plain, continue_greedily};
use palimpsest::stats::Collector;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::attribution_properties::pairs;
use crate::families::{WORDS, rows_are_alike, with_mlp};

const MIXTURES: [&str; 4] = ["mixtral", "qwen3-moe", "qwen3-moe-sparse", "gpt-oss"];

fn folder(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    fixtures.join(name)
}

fn load(name: &str, kind: Kind) -> Model {
    tch::set_num_threads(1);
    let checkpoint = Checkpoint::open(&folder(name)).unwrap();
    Model::load(&checkpoint, Device::Cpu, kind).unwrap()
}

fn request() -> Request {
    Request {
        prompt: "{} stands in the".into(),
        subject: "The Castle of Aster".into(),
        target_new: "city".into(),
        target_true: Some("land".into()),
    }
}

/// The message names the family, the layer and the reason.
#[track_caller]
fn says(refused: impl std::fmt::Display, model: &Model, layer: usize) {
    let said = refused.to_string();
    let family = model.config().family;
    let named = format!("layer {layer} of this {family} model is a mixture of");
    assert!(
        said.contains(&named) && said.contains("no one key"),
        "{said}"
    );
    match with_mlp(model) {
        Some(other) => assert!(said.contains(&format!("with an MLP: {other}")), "{said}"),
        None => assert!(said.contains("all its layers"), "{said}"),
    }
}

#[test]
fn edits_and_statistics_of_experts_are_refused_before_anything_is_computed() {
    for name in MIXTURES {
        let mut model = load(name, Kind::Float);
        let layers = 0..model.config().layers;
        let is_mixture = |layer: &usize| model.config().experts_of(*layer).is_some();
        let layer = layers.clone().find(is_mixture).unwrap();
        for method in [
            Method::Rome,
            Method::RRome,
            Method::FtL,
            Method::Memit,
            Method::Emmet,
            Method::AlphaEdit,
            Method::Encore,
        ] {
            let overrides = Overrides::at(Some(layer));
            let refused = Hyperparameters::new(method, model.config(), &overrides);
            says(refused.unwrap_err(), &model, layer);
        }
        let hyper = Hyperparameters {
            layer,
            ..Hyperparameters::of(Method::FtL, model.config().family, 3, 16)
        };
        let tuned = fine_tune(&model, &request(), &hyper, &edit::Unwatched);
        says(tuned.unwrap_err(), &model, layer);
        let contexts =
            Contexts::read(&model, &["{}".to_owned()], layers.end, &edit::Unwatched).unwrap();
        let found = target(&model, &[request()], &contexts, &hyper, &edit::Unwatched);
        says(found.unwrap_err(), &model, layer);
        let keys = mass_keys(
            &model,
            &request(),
            &contexts,
            &[layer],
            layer,
            &edit::Unwatched,
        );
        says(keys.unwrap_err(), &model, layer);
        let collector = Collector::new(&model, &[layer]);
        says(collector.unwrap_err(), &model, layer);
        says(model.down_projection(layer).unwrap_err(), &model, layer);
        let key = Tensor::zeros([16], (Kind::Float, Device::Cpu));
        says(model.mlp_output(layer, &key).unwrap_err(), &model, layer);
        let put =
            model.set_down_projection(layer, &Tensor::zeros([2, 2], (Kind::Float, Device::Cpu)));
        says(put.unwrap_err(), &model, layer);
    }
}

#[test]
fn neurons_are_refused_where_there_are_experts() {
    for name in MIXTURES {
        let model = load(name, Kind::Float);
        let settings = Settings {
            kinds: vec![Site::Neuron],
            engine: palimpsest::causal::Engine::Attribution(palimpsest::causal::Gradient {
                steps: 1,
                drop: false,
            }),
            ..Settings::new(Noise::gaussian(0.3))
        };
        let fact = pairs(&model, 1).remove(0);
        let refused = trace(&model, &fact, &settings, &Unwatched).unwrap_err();
        let said = refused.to_string();
        assert!(
            said.contains("neuron") && said.contains("experts"),
            "{said}"
        );
    }
}

/// The twelve tokens of the short prompt, and what transformers' `generate` goes on with, without
/// sampling and past every end of a text.
#[test]
fn continuations_are_those_of_transformers() {
    let _guard = tch::no_grad_guard();
    for (name, wanted) in [
        ("mixtral", [97, 80, 267, 148, 199, 119, 25, 80, 175, 21]),
        ("qwen3-moe", [271, 76, 66, 235, 235, 88, 271, 76, 107, 32]),
        (
            "qwen3-moe-sparse",
            [17, 5, 115, 38, 36, 119, 105, 229, 73, 44],
        ),
        ("gpt-oss", [104, 203, 41, 41, 76, 203, 153, 260, 26, 280]),
    ] {
        let model = load(name, Kind::Float);
        let expected = Tensor::read_safetensors(folder(name).join("expected.safetensors")).unwrap();
        let ids = expected.into_iter().find(|(name, _)| name == "short.ids");
        let ids = Vec::<i64>::try_from(ids.unwrap().1).unwrap();
        let text: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
        let found = continue_greedily(&model, &[text], wanted.len(), || true).unwrap();
        assert_eq!(found.unwrap(), [wanted], "{name}");
    }
}

/// To the bit, as products promise it with AVX-512: whatever is beside a row, and however many go to
/// one expert.
#[test]
fn a_row_gives_the_same_alone_and_in_company() {
    let _guard = tch::no_grad_guard();
    let promised = rows_are_alike();
    for name in MIXTURES {
        for kind in [Kind::Float, Kind::BFloat16] {
            let model = load(name, kind);
            let ids: Vec<u32> = model.tokenizer().encode(&WORDS.join(" ")).unwrap().ids;
            let rows: Vec<Tensor> = (0..7)
                .map(|row| model.ids(&ids[row..row + 9]).unwrap())
                .collect();
            let together = model.forward(&Tensor::cat(&rows, 0), &mut Plain);
            for (n, row) in (0..).zip(&rows) {
                let alone = model.forward(row, &mut Plain);
                let found = together.narrow(0, n, 1);
                let off = (&found - &alone).abs().max().double_value(&[]);
                assert!(off < 1e-4 || kind != Kind::Float, "{name}: {off}");
                assert!(!promised || found.equal(&alone), "{name} {kind:?}: {off}");
            }
        }
    }
}

/// A token may go to other experts where scores are close, so this is of most tokens.
#[test]
fn half_precision_stays_close() {
    let _guard = tch::no_grad_guard();
    for name in MIXTURES {
        let [wide, narrow] = [Kind::Float, Kind::BFloat16].map(|kind| {
            let model = load(name, kind);
            let ids = model.tokenizer().encode(&WORDS.join(" ")).unwrap().ids;
            model.forward(&model.ids(&ids).unwrap(), &mut Plain)
        });
        let off = (&wide - narrow).abs().median() / wide.std(false);
        assert!(off.double_value(&[]) < 0.03, "{name}: {off}");
    }
}

/// A fixture's configuration with one field set, or taken out.
fn with(name: &str, field: &str, value: Option<Value>) -> Result<Config, String> {
    let text = std::fs::read(folder(name).join("config.json")).unwrap();
    let mut fields: serde_json::Map<String, Value> = serde_json::from_slice(&text).unwrap();
    match value {
        Some(value) => fields.insert(field.to_owned(), value),
        None => fields.remove(field),
    };
    Config::from_json(fields).map_err(|error| error.to_string())
}

#[test]
fn options_that_would_be_another_model_are_refused_by_name() {
    for (name, field, value) in [
        ("mixtral", "num_local_experts", json!(0)),
        ("mixtral", "num_local_experts", json!(1_000_000)),
        ("mixtral", "num_experts", json!(7)),
        ("mixtral", "num_experts_per_tok", json!(5)),
        ("mixtral", "num_experts_per_tok", json!(0)),
        ("mixtral", "norm_topk_prob", json!(false)),
        ("mixtral", "shared_expert_intermediate_size", json!(8)),
        ("qwen3-moe", "decoder_sparse_step", json!(0)),
        ("qwen3-moe", "mlp_only_layers", json!(["one"])),
        ("qwen3-moe", "mlp_only_layers", json!(1)),
        ("qwen3-moe", "moe_intermediate_size", json!(0)),
        ("gpt-oss", "swiglu_limit", json!(5.0)),
        ("gpt-oss", "swiglu_alpha", json!(1.0)),
        ("gpt-oss", "hidden_act", json!("gelu")),
        ("gpt-oss", "sliding_window", Value::Null),
        ("gpt-oss", "experts_per_token", json!(3)),
        (
            "gpt-oss",
            "quantization_config",
            json!({"quant_method": "awq"}),
        ),
    ] {
        let refused = with(name, field, Some(value.clone())).unwrap_err();
        let what = match field {
            "moe_intermediate_size" => "inner width",
            "num_local_experts" => "num_experts",
            field => field,
        };
        assert!(refused.contains(what), "{name} {field} {value}: {refused}");
    }
    let refused = with("gpt-oss", "rope_parameters", None).unwrap_err();
    assert!(refused.contains("rope_scaling"), "{refused}");
}

#[test]
fn which_layers_have_experts_is_as_in_transformers() {
    let layers = |name: &str, field: &str, value: Value| {
        let config = with(name, field, Some(value)).unwrap();
        (0..3)
            .map(|layer| config.experts_of(layer).is_some())
            .collect::<Vec<bool>>()
    };
    let name = "qwen3-moe";
    assert_eq!(layers(name, "mlp_only_layers", json!([])), [true; 3]);
    assert_eq!(
        layers(name, "mlp_only_layers", json!([0, 2, 9])),
        [false, true, false]
    );
    assert_eq!(layers(name, "mlp_only_layers", Value::Null), [true; 3]);
    // Layer 1, whose turn it is, is one of `mlp_only_layers`.
    assert_eq!(layers(name, "decoder_sparse_step", json!(2)), [false; 3]);
    assert_eq!(
        layers("qwen3-moe-sparse", "decoder_sparse_step", json!(3)),
        [false, false, true]
    );
}
