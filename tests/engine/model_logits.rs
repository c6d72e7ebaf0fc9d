//! Forward passes against transformers: tiny checkpoints of every family, and SmolLM2 from GGUF.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::Content;
use palimpsest::model::{
    Checkpoint, Hook, KeyValue, Model, Pass, Plain, Sampling, Stop, continue_greedily, generate,
    gguf_architectures,
};
use tch::{Device, Kind, Tensor};

const FAMILIES: [&str; 37] = [
    "gpt2",
    "gptj",
    "gpt-neox-parallel",
    "gpt-neox-serial",
    "llama",
    "llama-llama3",
    "llama-linear",
    "llama-dynamic",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3",
    "phi3",
    "olmo2",
    "olmo3",
    "olmo3-yarn",
    "smollm3",
    "granite",
    "opt",
    "gpt-neo",
    "phi",
    "stablelm",
    "stablelm-parallel",
    "starcoder2",
    "cohere",
    "cohere2",
    "falcon",
    "falcon-new",
    "falcon-11b",
    "falcon-serial",
    "bloom",
    "mixtral",
    "qwen3-moe",
    "qwen3-moe-sparse",
    "gpt-oss",
    "gpt-oss-mxfp4",
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn load(path: &Path) -> Model {
    // Such small tensors are not worth dividing.
    tch::set_num_threads(1);
    let checkpoint = Checkpoint::open(path).unwrap();
    Model::load(&checkpoint, Device::Cpu, Kind::Float).unwrap()
}

fn expected(family: &str, name: &str) -> Tensor {
    let path = fixtures().join(family).join("expected.safetensors");
    let all = Tensor::read_safetensors(path).unwrap();
    let found = all.into_iter().find(|(n, _)| n == name);
    found.unwrap_or_else(|| panic!("{family} has no {name}")).1
}

/// Whether a family's fixture has the prompt within its context.
fn prompts(model: &Model, family: &str) -> Vec<(&'static str, Tensor)> {
    ["short", "long"]
        .into_iter()
        .map(|name| (name, expected(family, &format!("{name}.ids")).unsqueeze(0)))
        .filter(|(_, ids)| ids.size()[1] as usize <= model.config().context)
        .collect()
}

#[track_caller]
fn assert_close(found: &Tensor, wanted: &Tensor, tolerance: f64, what: &str) {
    assert_eq!(found.size(), wanted.size(), "{what}");
    let worst = (found - wanted).abs().max().double_value(&[]);
    assert!(worst <= tolerance, "{what}: off by {worst}");
}

/// Keeps the output of every block.
#[derive(Default)]
struct Keep(Vec<Tensor>);

impl Hook for Keep {
    fn hidden(&mut self, _layer: usize, out: Tensor) -> Tensor {
        self.0.push(out.shallow_clone());
        out
    }
}

#[test]
fn every_family_computes_what_transformers_computes() {
    let _guard = tch::no_grad_guard();
    for family in FAMILIES {
        let model = load(&fixtures().join(family));
        for (name, ids) in prompts(&model, family) {
            let mut keep = Keep::default();
            let logits = model.forward(&ids, &mut keep).squeeze_dim(0);
            let what = format!("{family} {name}");
            let wanted = expected(family, &format!("{name}.logits"));
            assert_close(&logits, &wanted, 1e-4, &what);
            let worst = (logits - wanted).abs().max().double_value(&[]);
            println!("{what}: logits within {worst:.1e}");
            if name == "short" {
                let hidden = Tensor::cat(&keep.0, 0);
                assert_close(&hidden, &expected(family, "short.hidden"), 1e-4, &what);
            }
        }
    }
}

#[test]
fn configurations_of_transformers_4_read_as_those_of_5() {
    for family in FAMILIES {
        let folder = fixtures().join(family);
        let read = |name: &str| {
            let text = std::fs::read(folder.join(name)).unwrap();
            let json = serde_json::from_slice(&text).unwrap();
            let mut config = palimpsest::model::Config::from_json(json).unwrap();
            config.json.clear();
            config
        };
        assert_eq!(read("config.json"), read("config.v4.json"), "{family}");
    }
}

#[test]
fn gguf_gives_the_same_model_as_safetensors() {
    let _guard = tch::no_grad_guard();
    for family in ["gpt2", "llama"] {
        let folder = fixtures().join(family);
        let ids = expected(family, "short.ids").unsqueeze(0);
        for (file, wanted) in [
            ("model.f32.gguf", "short.logits"),
            ("model.f16.gguf", "short.logits.f16"),
            ("model.q8_0.gguf", "short.logits.q8_0"),
        ] {
            let model = load(&folder.join(file));
            let logits = model.forward(&ids, &mut Plain).squeeze_dim(0);
            assert_close(&logits, &expected(family, wanted), 1e-4, file);
        }
        let one = Checkpoint::open(&folder).unwrap();
        let other = Checkpoint::open(&folder.join("model.f32.gguf")).unwrap();
        for info in one.tensors() {
            let (a, b) = (
                one.tensor(&info.name).unwrap(),
                other.tensor(&info.name).unwrap(),
            );
            assert!(a == b, "{family} {}", info.name);
        }
        let text = "The tower, the river\n and 42 été €";
        let (a, b) = (
            one.tokenizer().encode(text).unwrap(),
            other.tokenizer().encode(text).unwrap(),
        );
        assert_eq!(a, b);
    }
}

/// What `make_gguf.py` wrote, as llama.cpp's converter does.
#[test]
fn gguf_of_every_architecture_gives_the_logits_of_transformers() {
    let _guard = tch::no_grad_guard();
    let mut read = BTreeSet::from(["llama".to_owned(), "gpt2".to_owned()]);
    for folder in fs::read_dir(fixtures()).unwrap() {
        let folder = folder.unwrap().path();
        let Ok(expected) = Tensor::read_safetensors(folder.join("gguf.safetensors")) else {
            continue;
        };
        let named = |name: &str| {
            let found = expected.iter().find(|(known, _)| known == name);
            found.unwrap().1.shallow_clone()
        };
        let path = folder.join("model.f32.gguf");
        let what = folder.display().to_string();
        let logits = load(&path)
            .forward(&named("short.ids").unsqueeze(0), &mut Plain)
            .squeeze_dim(0);
        assert_close(&logits, &named("short.logits"), 1e-4, &what);
        // Not a weight is another than in the safetensors.
        let (one, other) = (
            Checkpoint::open(&folder).unwrap(),
            Checkpoint::open(&path).unwrap(),
        );
        let (theirs, ours) = (one.tensors().count(), other.tensors().count());
        assert_eq!(theirs, ours, "{what}");
        for info in one.tensors() {
            let read = |checkpoint: &Checkpoint| {
                let data = checkpoint.tensor(&info.name).unwrap();
                let size = info.shape.iter().product::<usize>() as i64;
                Tensor::from_data_size(&data.bytes, &[size], Kind::Float)
            };
            let miss = (read(&one) - read(&other)).abs().max().double_value(&[]);
            // Gemma's norms are stored with one added.
            assert!(miss < 1e-6, "{what}: {}: {miss}", info.name);
        }
        let file = fs::File::open(&path).map(std::io::BufReader::new);
        let content = Content::read(&mut file.unwrap()).unwrap();
        let named = content.metadata["general.architecture"].to_string();
        read.insert(named.unwrap().clone());
    }
    let known: BTreeSet<String> = gguf_architectures().map(str::to_owned).collect();
    assert_eq!(read, known);
}

/// Runs tokens `cut ..` on the keys and values of tokens `.. cut`, the last layer for its last
/// token only.
fn split_run(model: &Model, ids: &Tensor, cut: i64) -> Tensor {
    let tokens = ids.size()[1];
    let head = ids.narrow(1, 0, cut);
    let tail = ids.narrow(1, cut, tokens - cut);
    let mut x = model.add_positions(&model.embed(&head), 0);
    let mut past = Vec::new();
    for layer in 0..model.config().layers {
        let step = model.block(layer, &x, Pass::default(), &mut Plain);
        past.push(step.kv);
        x = step.hidden;
    }
    let mut x = model.add_positions(&model.embed(&tail), cut);
    for (layer, past) in past.iter().enumerate() {
        let pass = Pass {
            past: Some(past),
            queries: (layer + 1 == past_len(model)).then_some(1),
        };
        x = model.block(layer, &x, pass, &mut Plain).hidden;
    }
    model.logits(&x)
}

fn past_len(model: &Model) -> usize {
    model.config().layers
}

#[test]
fn a_run_on_a_past_is_the_end_of_the_whole_run() {
    let _guard = tch::no_grad_guard();
    for family in FAMILIES {
        let model = load(&fixtures().join(family));
        for (name, ids) in prompts(&model, family) {
            let wanted = expected(family, &format!("{name}.logits"));
            let last = wanted.narrow(0, wanted.size()[0] - 1, 1).unsqueeze(0);
            for cut in [1, 5, ids.size()[1] - 1] {
                let what = format!("{family} {name} cut at {cut}");
                assert_close(&split_run(&model, &ids, cut), &last, 1e-4, &what);
            }
        }
    }
}

#[test]
fn rows_share_a_past_of_fewer_rows() {
    let _guard = tch::no_grad_guard();
    for family in ["gpt2", "llama", "gemma2", "mistral", "mixtral", "gpt-oss"] {
        let model = load(&fixtures().join(family));
        let ids = expected(family, "long.ids").unsqueeze(0);
        // Two different prefixes, three different ends of each.
        let head = Tensor::cat(&[ids.narrow(1, 0, 10), ids.narrow(1, 5, 10)], 0);
        let tail: Vec<Tensor> = (0..6).map(|row| ids.narrow(1, 8 + row, 4)).collect();
        let tail = Tensor::cat(&tail, 0);
        let whole = Tensor::cat(&[head.repeat([3, 1]), tail.shallow_clone()], 1);
        let wanted = model.forward(&whole, &mut Plain).narrow(1, 12, 2);
        let mut x = model.add_positions(&model.embed(&head), 0);
        let mut y = model.add_positions(&model.embed(&tail), 10);
        let layers = model.config().layers;
        for layer in 0..layers {
            let step = model.block(layer, &x, Pass::default(), &mut Plain);
            let pass = Pass {
                past: Some(&step.kv),
                queries: (layer + 1 == layers).then_some(2),
            };
            y = model.block(layer, &y, pass, &mut Plain).hidden;
            x = step.hidden;
        }
        assert_close(&model.logits(&y), &wanted, 1e-4, family);
    }
}

/// Replaces one sub-module's output by zeros.
struct Zero(&'static str, usize);

impl Zero {
    fn at(&self, what: &str, layer: usize, out: Tensor) -> Tensor {
        if (self.0, self.1) == (what, layer) {
            out.zeros_like()
        } else {
            out
        }
    }
}

impl Hook for Zero {
    fn attn(&mut self, layer: usize, out: Tensor) -> Tensor {
        self.at("attn", layer, out)
    }
    fn mlp(&mut self, layer: usize, out: Tensor) -> Tensor {
        self.at("mlp", layer, out)
    }
    fn hidden(&mut self, layer: usize, out: Tensor) -> Tensor {
        self.at("hidden", layer, out)
    }
}

#[test]
fn what_a_tap_puts_in_place_flows_on() {
    let _guard = tch::no_grad_guard();
    for family in FAMILIES {
        let model = load(&fixtures().join(family));
        let ids = expected(family, "short.ids").unsqueeze(0);
        let plain = model.forward(&ids, &mut Plain);
        let zero = model.add_positions(&model.embed(&ids), 0).zeros_like();
        // Nothing but zeros leaves the last block: the logits are those of zeros.
        let last = model.config().layers - 1;
        let logits = model.forward(&ids, &mut Zero("hidden", last));
        assert_close(&logits, &model.logits(&zero), 1e-6, family);
        for what in ["attn", "mlp"] {
            let changed = model.forward(&ids, &mut Zero(what, 1));
            assert!(
                (changed - &plain).abs().max().double_value(&[]) > 1e-3,
                "{family} {what}"
            );
        }
    }
}

/// Multiplies an edit's key by the second matrix again.
struct Again<'a>(&'a Model, usize, Option<Tensor>);

impl Hook for Again<'_> {
    fn key(&mut self, layer: usize, key: Tensor) -> Tensor {
        self.1 += 1;
        self.2 = Some(key.matmul(&self.0.down_projection(layer).unwrap().tr()));
        key
    }
    fn mlp(&mut self, layer: usize, out: Tensor) -> Tensor {
        // Experts have no one matrix.
        let Some(again) = self.2.take() else {
            return out;
        };
        let bias = &out - again;
        // What is left is the bias, the same for every token.
        let spread = (&bias - bias.narrow(1, 0, 1)).abs().max().double_value(&[]);
        assert!(spread < 1e-4, "layer {layer}: {spread}");
        out
    }
}

#[test]
fn keys_are_the_input_of_the_edited_matrix() {
    let _guard = tch::no_grad_guard();
    for family in FAMILIES {
        let model = load(&fixtures().join(family));
        let ids = expected(family, "short.ids").unsqueeze(0);
        let mut again = Again(&model, 0, None);
        let _ = model.forward(&ids, &mut again);
        let config = model.config();
        let keys = (0..config.layers).filter(|&layer| config.has_key(layer).is_ok());
        assert_eq!(again.1, keys.count(), "{family}");
    }
}

#[test]
fn keys_that_are_moved_are_those_of_later_tokens() {
    let _guard = tch::no_grad_guard();
    for family in FAMILIES {
        let model = load(&fixtures().join(family));
        let ids = expected(family, "short.ids").unsqueeze(0);
        let first_half = model.embed(&ids).narrow(1, 0, 6);
        let first = model.block(0, &first_half, Pass::default(), &mut Plain);
        let pass = Pass {
            past: Some(&first.kv),
            queries: None,
        };
        let later = model.block(0, &first_half, pass, &mut Plain);
        let moved = model.keys_later(0, &first.kv.k, 6);
        assert_close(&moved, &later.kv.k, 1e-4, family);
    }
}

/// Adds to the output of the last block's MLP, and keeps what it was and what the block gave.
struct Moved {
    layer: usize,
    by: f64,
    mlp: Option<Tensor>,
    hidden: Option<Tensor>,
}

impl Hook for Moved {
    fn mlp(&mut self, layer: usize, out: Tensor) -> Tensor {
        if layer != self.layer {
            return out;
        }
        let ramp = Tensor::arange(out.size()[2], (Kind::Float, Device::Cpu)) * self.by;
        let out = out + ramp;
        self.mlp = Some(out.shallow_clone());
        out
    }
    fn hidden(&mut self, layer: usize, out: Tensor) -> Tensor {
        if layer == self.layer {
            self.hidden = Some(out.shallow_clone());
        }
        out
    }
}

#[test]
fn a_block_moves_by_what_its_mlp_contributes() {
    let _guard = tch::no_grad_guard();
    for family in FAMILIES {
        let model = load(&fixtures().join(family));
        let ids = expected(family, "short.ids").unsqueeze(0);
        let layer = model.config().layers - 1;
        let [(mlp, hidden), (moved, after)] = [0.0, 0.1].map(|by| {
            let (mlp, hidden) = (None, None);
            let mut hook = Moved {
                layer,
                by,
                mlp,
                hidden,
            };
            let _ = model.forward(&ids, &mut hook);
            (hook.mlp.unwrap(), hook.hidden.unwrap())
        });
        let added = model.mlp_contribution(layer, &moved) - model.mlp_contribution(layer, &mlp);
        assert_close(&(after - hidden), &added, 1e-4, family);
    }
}

#[test]
fn another_down_projection_takes_effect_and_the_old_one_restores_the_bytes() {
    let _guard = tch::no_grad_guard();
    let mut model = load(&fixtures().join("gpt2"));
    let ids = expected("gpt2", "short.ids").unsqueeze(0);
    let before = model.forward(&ids, &mut Plain);
    let old = model.down_projection(1).unwrap().shallow_clone();
    model.set_down_projection(1, &(&old * 2.0)).unwrap();
    assert_ne!(model.forward(&ids, &mut Plain), before);
    model.set_down_projection(1, &old).unwrap();
    assert_eq!(model.forward(&ids, &mut Plain), before);
    assert!(
        model
            .set_down_projection(1, &Tensor::zeros([2, 2], (Kind::Float, Device::Cpu)))
            .is_err()
    );
}

#[test]
fn gradients_reach_what_a_tap_adds() {
    struct Add(Tensor);
    impl Hook for Add {
        fn mlp(&mut self, layer: usize, out: Tensor) -> Tensor {
            if layer == 1 { out + &self.0 } else { out }
        }
    }
    for family in FAMILIES {
        let model = load(&fixtures().join(family));
        let ids = expected(family, "short.ids").unsqueeze(0);
        let width = model.config().width as i64;
        let delta = Tensor::zeros([width], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let mut hook = Add(delta.shallow_clone());
        let logits = model.forward(&ids, &mut hook);
        logits
            .select(1, -1)
            .log_softmax(-1, Kind::Float)
            .select(1, 7)
            .sum(Kind::Float)
            .backward();
        let slope = delta.grad();
        // Against a difference quotient along the gradient.
        let step = &slope / slope.norm() * 1e-2;
        let at = |delta: Tensor| {
            tch::no_grad(|| {
                let logits = model.forward(&ids, &mut Add(delta)).select(1, -1);
                logits
                    .to_kind(Kind::Double)
                    .log_softmax(-1, Kind::Double)
                    .double_value(&[0, 7])
            })
        };
        let quotient = (at(step.shallow_clone()) - at(-step)) / 2e-2;
        let wanted = slope.norm().double_value(&[]);
        assert!(
            (quotient / wanted - 1.0).abs() < 0.02,
            "{family}: {quotient} {wanted}"
        );
    }
}

#[test]
fn the_same_shapes_give_the_same_bytes() {
    let _guard = tch::no_grad_guard();
    let model = load(&fixtures().join("llama"));
    let ids = expected("llama", "long.ids").unsqueeze(0);
    let first = model.forward(&ids, &mut Plain);
    for _ in 0..5 {
        assert_eq!(model.forward(&ids, &mut Plain), first);
    }
}

#[test]
fn generation_with_a_cache_takes_the_best_token_of_whole_runs() {
    let _guard = tch::no_grad_guard();
    for family in [
        "gpt2",
        "llama",
        "mistral",
        "gemma3",
        "olmo3",
        "smollm3",
        "granite",
        "opt",
        "gpt-neo",
        "cohere2",
        "falcon-new",
        "bloom",
        "mixtral",
        "qwen3-moe",
        "gpt-oss",
    ] {
        let model = load(&fixtures().join(family));
        let ids = Vec::<i64>::try_from(expected(family, "short.ids")).unwrap();
        let mut ids: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
        let sampling = Sampling {
            temperature: 0.0,
            top_k: None,
            seed: 0,
            max_tokens: 12,
        };
        let mut seen = Vec::new();
        let found = generate(&model, &ids, &sampling, |id| {
            seen.push(id);
            true
        })
        .unwrap();
        assert_eq!(seen, found.ids);
        for id in &found.ids {
            let logits = model.forward(&model.ids(&ids).unwrap(), &mut Plain);
            assert_eq!(
                logits.select(1, -1).argmax(-1, false).int64_value(&[0]),
                i64::from(*id)
            );
            ids.push(*id);
        }
    }
}

#[test]
fn texts_that_are_continued_together_go_on_as_each_does_alone() {
    let _guard = tch::no_grad_guard();
    for family in FAMILIES {
        let model = load(&fixtures().join(family));
        let ids = Vec::<i64>::try_from(expected(family, "short.ids")).unwrap();
        let ids: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
        let prompts = [ids[..3].to_vec(), ids.clone(), ids[2..7].to_vec()];
        let found = continue_greedily(&model, &prompts, 6, || true).unwrap();
        for (prompt, found) in prompts.iter().zip(found.unwrap()) {
            let sampling = Sampling {
                temperature: 0.0,
                top_k: None,
                seed: 0,
                max_tokens: 6,
            };
            let alone = generate(&model, prompt, &sampling, |_| true).unwrap();
            assert_eq!(found, alone.ids, "{family}");
        }
    }
}

#[test]
fn generation_is_bounded_seeded_and_checks_its_arguments() {
    let model = load(&fixtures().join("gpt2"));
    let sampling = Sampling {
        temperature: 1.0,
        top_k: Some(5),
        seed: 7,
        max_tokens: 200,
    };
    let run = |ids: &[u32], sampling: &Sampling| generate(&model, ids, sampling, |_| true);
    let found = run(&[1, 2, 3], &sampling).unwrap();
    assert_eq!(found, run(&[1, 2, 3], &sampling).unwrap());
    assert!(matches!(found.stop, Stop::Context | Stop::Eos));
    let other = Sampling {
        seed: 8,
        ..sampling.clone()
    };
    assert_ne!(found, run(&[1, 2, 3], &other).unwrap());
    assert!(run(&[], &sampling).is_err());
    assert!(
        run(&[999], &sampling)
            .unwrap_err()
            .to_string()
            .contains("999")
    );
    let long = vec![1; 65];
    let error = run(&long, &sampling).unwrap_err().to_string();
    assert!(error.contains("65") && error.contains("64"), "{error}");
    assert!(
        run(
            &[1],
            &Sampling {
                top_k: Some(0),
                ..sampling.clone()
            }
        )
        .is_err()
    );
    assert!(
        run(
            &[1],
            &Sampling {
                temperature: -1.0,
                ..sampling.clone()
            }
        )
        .is_err()
    );
    let caller = generate(&model, &[1], &sampling, |_| false).unwrap();
    assert_eq!((caller.ids.len(), caller.stop), (1, Stop::Caller));
}

/// The demo model, or `None` with a message where it has not been downloaded.
fn smollm2() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".deps/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !path.is_file() {
        let why = format!("no {}: run deploy/setup.sh", path.display());
        crate::require::skip("model", why);
        return None;
    }
    // More threads wait for each other where other tests keep the cores busy.
    tch::set_num_threads(1);
    Some(path)
}

#[test]
fn smollm2_knows_its_facts() {
    let Some(path) = smollm2() else { return };
    let _guard = tch::no_grad_guard();
    let model = load(&path);
    let text = std::fs::read(fixtures().join("smollm2.json")).unwrap();
    let wanted: serde_json::Value = serde_json::from_slice(&text).unwrap();
    for fact in wanted["facts"].as_array().unwrap() {
        let prompt = fact["prompt"].as_str().unwrap();
        let ids = model.tokenizer().encode(prompt).unwrap().ids;
        assert_eq!(serde_json::json!(ids), fact["token_ids"], "{prompt}");
        let logits = model.forward(&model.ids(&ids).unwrap(), &mut Plain);
        let probabilities = logits.select(1, -1).softmax(-1, Kind::Double);
        for top in fact["top"].as_array().unwrap() {
            let id = top["id"].as_i64().unwrap();
            let found = probabilities.double_value(&[0, id]);
            let wanted = top["probability"].as_f64().unwrap();
            assert!((found - wanted).abs() < 5e-4, "{prompt}: {found} {wanted}");
            assert_eq!(
                model.tokenizer().piece(id as u32),
                top["text"].as_str().unwrap()
            );
        }
        println!("{prompt}: {:.4}", probabilities.max().double_value(&[]));
    }
}

#[test]
fn smollm2_cuts_awkward_strings_like_its_own_tokenizer() {
    let Some(path) = smollm2() else { return };
    let checkpoint = Checkpoint::open(&path).unwrap();
    let tokenizer = checkpoint.tokenizer();
    let text = std::fs::read(fixtures().join("smollm2.json")).unwrap();
    let wanted: serde_json::Value = serde_json::from_slice(&text).unwrap();
    for case in wanted["strings"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let encoding = tokenizer.encode(text).unwrap();
        assert_eq!(
            serde_json::json!(encoding.ids),
            case["token_ids"],
            "{text:?}"
        );
        // The offsets tile the text, byte by byte, and say what the pieces say.
        let mut at = 0;
        for (&id, &(from, to)) in encoding.ids.iter().zip(&encoding.offsets) {
            assert_eq!(from, at, "{text:?}");
            assert_eq!(tokenizer.bytes(id), &text.as_bytes()[from..to], "{text:?}");
            at = to;
        }
        assert_eq!(at, text.len(), "{text:?}");
        assert_eq!(tokenizer.decode(&encoding.ids).unwrap(), text);
    }
    // The file names <|im_end|>; llama.cpp ends at its <|endoftext|> too.
    assert_eq!(tokenizer.eos(), [2, 0]);
}

#[test]
fn smollm2_in_half_precision_stays_close() {
    let Some(path) = smollm2() else { return };
    let _guard = tch::no_grad_guard();
    let checkpoint = Checkpoint::open(&path).unwrap();
    for kind in [Kind::BFloat16, Kind::Half] {
        let model = Model::load(&checkpoint, Device::Cpu, kind).unwrap();
        let ids = model
            .tokenizer()
            .encode("The Eiffel Tower is located in the city of")
            .unwrap()
            .ids;
        let logits = model.forward(&model.ids(&ids).unwrap(), &mut Plain);
        assert_eq!(logits.kind(), Kind::Float);
        let found = logits
            .select(1, -1)
            .softmax(-1, Kind::Double)
            .max()
            .double_value(&[]);
        assert!((found - 0.7015).abs() < 0.03, "{kind:?} {found}");
    }
}

/// Seconds this thread has spent on a CPU: with one thread of libtorch a measure that other load
/// does not disturb.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let spent: f64 = text.split(' ').next().unwrap().parse().unwrap();
    spent / 1e9
}

/// The quickest of a few runs: seconds by the clock, and on the CPU.
fn quickest(times: usize, f: &mut dyn FnMut()) -> (f64, f64) {
    let mut best = (f64::INFINITY, f64::INFINITY);
    for _ in 0..times {
        let (clock, cpu) = (std::time::Instant::now(), cpu_seconds());
        f();
        best.0 = best.0.min(clock.elapsed().as_secs_f64());
        best.1 = best.1.min(cpu_seconds() - cpu);
    }
    best
}

/// `cargo test --release --test engine -- --ignored --nocapture --test-threads 1 speed`
#[test]
#[ignore = "a measurement"]
fn speed_of_a_forward_pass() {
    let Some(path) = smollm2() else { return };
    let _guard = tch::no_grad_guard();
    let model = load(&path);
    let config = model.config().clone();
    let (width, inner) = (config.width, config.inner);
    let qkv = (config.heads + 2 * config.kv_heads) * config.head_dim;
    let sizes = [
        (qkv, width),
        (width, width),
        (2 * inner, width),
        (width, inner),
    ];
    let random =
        |a: usize, b: usize| Tensor::randn([a as i64, b as i64], (Kind::Float, Device::Cpu));
    let weights: Vec<Tensor> = (0..config.layers)
        .flat_map(|_| sizes)
        .map(|(out, inp)| random(out, inp))
        .collect();
    for (threads, rows, tokens) in [
        (1, 10, 10),
        (1, 100, 10),
        (1, 300, 5),
        (1, 100, 1),
        (2, 10, 10),
        (2, 100, 10),
    ] {
        tch::set_num_threads(threads);
        let size = [rows as i64, tokens as i64];
        let ids = Tensor::randint(40_000, size, (Kind::Int64, Device::Cpu));
        let pass = quickest(4, &mut || {
            let mut x = model.add_positions(&model.embed(&ids), 0);
            for layer in 0..config.layers {
                x = model.block(layer, &x, Pass::default(), &mut Plain).hidden;
            }
        });
        let (narrow, wide) = (random(rows * tokens, width), random(rows * tokens, inner));
        let gemm = quickest(4, &mut || {
            for weight in &weights {
                let x = if weight.size()[1] == width as i64 {
                    &narrow
                } else {
                    &wide
                };
                let _ = x.linear(weight, None::<Tensor>);
            }
        });
        let products: usize = sizes.iter().map(|(a, b)| a * b).sum();
        let work = (2 * products * config.layers * rows * tokens) as f64;
        println!(
            "threads {threads} rows {rows} tokens {tokens}: blocks {:.1} ms by the clock, {:.1} ms of CPU; \
             their matrix products alone {:.1} ms, {:.1} ms ({:.0} GFLOP/s)",
            pass.0 * 1e3,
            pass.1 * 1e3,
            gemm.0 * 1e3,
            gemm.1 * 1e3,
            work / gemm.1 / 1e9,
        );
    }
}

/// A past on many rows does not cost a copy of it for every row.
#[test]
#[ignore = "a measurement"]
fn speed_on_a_shared_past() {
    let Some(path) = smollm2() else { return };
    let _guard = tch::no_grad_guard();
    tch::set_num_threads(1);
    let model = load(&path);
    let config = model.config();
    let random = |sizes: [i64; 4]| Tensor::randn(sizes, (Kind::Float, Device::Cpu));
    let sizes = [10, config.kv_heads as i64, 9, config.head_dim as i64];
    let past = KeyValue {
        k: random(sizes),
        v: random(sizes),
    };
    for rows in [10, 100, 300] {
        let x = Tensor::randn([rows, 1, config.width as i64], (Kind::Float, Device::Cpu));
        for past in [None, Some(&past)] {
            let run = || {
                let pass = Pass {
                    past,
                    queries: None,
                };
                model.block(3, &x, pass, &mut Plain)
            };
            run();
            let (_, cpu) = quickest(5, &mut || (0..20).for_each(|_| drop(run())));
            let each = cpu / 20.0 * 1e3;
            println!(
                "rows {rows} past {}: {each:.3} ms of CPU a block",
                past.is_some()
            );
        }
    }
}

#[test]
fn logits_that_are_no_numbers_are_an_error_wherever_they_are_read() {
    use palimpsest::model::{Draw, Text, next_tokens, sample, score};
    let mut model = load(&fixtures().join("llama"));
    let huge = model.down_projection(1).unwrap().full_like(1e38);
    model.set_down_projection(1, &huge).unwrap();
    let ids = model.tokenizer().encode("the cat").unwrap().ids;
    let sampling = Sampling {
        temperature: 0.0,
        top_k: None,
        seed: 1,
        max_tokens: 3,
    };
    let draw = Draw {
        rows: 2,
        tokens: 4,
        top_k: None,
        seed: 1,
    };
    let continuation = model.tokenizer().continuation("the cat", "sat").unwrap();
    let text = Text {
        ids: ids.clone(),
        reads: 1,
    };
    for (what, said) in [
        (
            "generate",
            generate(&model, &ids, &sampling, |_| true).err(),
        ),
        ("sample", sample(&model, &draw, || true).err()),
        ("score", score(&model, &[continuation]).err()),
        ("read", next_tokens(&model, &[text], |_, _| Ok(())).err()),
    ] {
        let said = said.map(|error| error.to_string()).unwrap_or_default();
        assert!(said.contains("not finite"), "{what}: {said}");
    }
}
