//! Editing on tiny models gives what PyTorch's own autograd and optimiser and NumPy's solver give
//! for the same definitions, and on a real model too.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)] // a failed test says why by panicking

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;

use palimpsest::edit::{
    ContextPlan, Error, Hyperparameters, KeyCovariance, Method, Overrides, RankOne, Request, Step,
    Unwatched, Watch, fine_tune, rank_one, sample_contexts,
};
use palimpsest::model::{Checkpoint, Family, Model};
use palimpsest::stats::{Collector, Moment, pieces, self_sample};
use serde::Deserialize;

/// What `make_edits.py` writes.
#[derive(Deserialize)]
struct Expected {
    request: Fact,
    contexts: Vec<String>,
    layer: usize,
    corpus: Vec<String>,
    length: usize,
    count: u64,
    moment: Vec<f64>,
    hyper: Numbers,
    expected: Found,
    tuning: Tuning,
    tuned: Tuned,
}

/// The same of the demo model, without what is large.
#[derive(Deserialize)]
struct Smollm2 {
    request: Fact,
    contexts: Vec<String>,
    layer: usize,
    corpus: String,
    length: usize,
    count: u64,
    trace: f64,
    hyper: Numbers,
    expected: Found,
}

#[derive(Deserialize)]
struct Fact {
    prompt: String,
    subject: String,
    target_new: String,
    target_true: String,
}

#[derive(Deserialize)]
struct Numbers {
    learning_rate: f64,
    steps: usize,
    clamp: f64,
    weight_decay: f64,
    kl_factor: f64,
    stop_loss: f64,
    ridge: f64,
}

#[derive(Deserialize)]
struct Tuning {
    learning_rate: f64,
    steps: usize,
    bound: f64,
    stop_loss: f64,
}

#[derive(Deserialize)]
struct Found {
    key: Vec<f64>,
    direction: Vec<f64>,
    value: Vec<f64>,
    r_rome: Vec<f64>,
    rome: Vec<f64>,
    steps: Vec<[f64; 4]>,
}

#[derive(Deserialize)]
struct Tuned {
    change: Vec<f64>,
    losses: Vec<f64>,
}

impl Fact {
    fn request(&self) -> Request {
        Request {
            prompt: self.prompt.clone(),
            subject: self.subject.clone(),
            target_new: self.target_new.clone(),
            target_true: Some(self.target_true.clone()),
        }
    }
}

impl Numbers {
    fn hyper(&self, layer: usize) -> Hyperparameters {
        Hyperparameters {
            layer,
            steps: self.steps,
            learning_rate: self.learning_rate,
            clamp: self.clamp,
            weight_decay: self.weight_decay,
            kl_factor: self.kl_factor,
            stop_loss: self.stop_loss,
            ridge: self.ridge,
            bound: 1.0,
            ..Hyperparameters::of(Method::RRome, Family::Gpt2, 3, 16)
        }
    }
}

const TINY: [&str; 10] = [
    "gpt2",
    "llama",
    "gptj",
    "gemma2",
    "qwen2",
    "granite",
    "olmo2",
    "opt",
    "falcon-new",
    "bloom",
];

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn fixture(name: &str) -> (Model, Expected) {
    // Such small tensors are not worth dividing.
    tch::set_num_threads(1);
    let folder = path("tests/fixtures").join(name);
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let model = Model::load(&checkpoint, tch::Device::Cpu, tch::Kind::Float).unwrap();
    let text = fs::read_to_string(folder.join("edit.json")).unwrap();
    (model, serde_json::from_str(&text).unwrap())
}

fn collect(model: &Model, layers: &[usize], corpus: &[String], length: usize) -> Vec<Moment> {
    let mut collector = Collector::new(model, layers).unwrap();
    for text in corpus {
        for piece in pieces(model, text, length).unwrap() {
            collector.add(&piece, |_| true).unwrap();
        }
    }
    collector.finish(|_| true).unwrap()
}

/// Cosine above 0.999, as is asked, and the values themselves to a thousandth of the longest.
fn alike(what: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (one, other) = (dot(found, found).sqrt(), dot(expected, expected).sqrt());
    let cosine = dot(found, expected) / one / other;
    let apart = found.iter().zip(expected).map(|(a, b)| (a - b).powi(2));
    let apart = apart.sum::<f64>().sqrt() / other;
    eprintln!("{what}: cosine {cosine:.9}, apart {apart:.2e}");
    assert!(cosine > 0.999, "{what}: cosine {cosine}");
    assert!(apart < 1e-3, "{what}: relative distance {apart}");
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

fn check(name: &str, found: &RankOne, expected: &Found, left: &[f64]) {
    alike(&format!("{name} key"), &found.key, &expected.key);
    alike(&format!("{name} u"), &found.direction, &expected.direction);
    alike(&format!("{name} v*"), &found.value, &expected.value);
    alike(&format!("{name} left"), &wide(&found.update.left), left);
    alike(
        &format!("{name} right"),
        &wide(&found.update.right),
        &expected.direction,
    );
    assert_eq!(found.steps.len(), expected.steps.len(), "{name}");
    for (step, expected) in found.steps.iter().zip(&expected.steps) {
        for (found, expected) in [step.loss, step.nll, step.drift, step.decay]
            .iter()
            .zip(expected)
        {
            let close = (found - expected).abs() < 1e-3 * expected.abs().max(1e-2);
            assert!(close, "{name} step {}: {found} {expected}", step.number);
        }
    }
}

#[test]
fn statistics_are_those_of_numpy_however_they_are_sharded() {
    for name in TINY {
        let (model, expected) = fixture(name);
        let whole = collect(&model, &[expected.layer], &expected.corpus, expected.length);
        assert_eq!(whole[0].count(), expected.count);
        alike(&format!("{name} C"), whole[0].sum(), &expected.moment);
        // All layers in one pass, one shard a text, added up.
        let layers: Vec<usize> = (0..model.config().layers).collect();
        let mut sum = Moment::zero(model.config().inner);
        for text in &expected.corpus {
            let shard = collect(&model, &layers, std::slice::from_ref(text), expected.length);
            sum.add(&shard[expected.layer]).unwrap();
        }
        assert_eq!(sum.count(), whole[0].count());
        // Another order of float32 sums, of which the largest rounds most.
        let largest = whole[0]
            .sum()
            .iter()
            .fold(1.0_f64, |most, it| most.max(it.abs()));
        for (one, other) in sum.sum().iter().zip(whole[0].sum()) {
            let apart = (one - other).abs() / largest;
            assert!(
                apart < 1e-6,
                "{name}: {one} and {other} are {apart:.1e} apart"
            );
        }
    }
}

#[test]
fn rank_one_edits_are_those_of_pytorch() {
    for name in TINY {
        let (model, expected) = fixture(name);
        let inner = model.config().inner;
        let moment = Moment::new(inner, expected.moment, expected.count).unwrap();
        let covariance = KeyCovariance::new(moment, expected.hyper.ridge, model.device()).unwrap();
        let hyper = expected.hyper.hyper(expected.layer);
        let request = expected.request.request();
        for (method, left) in [
            (Method::RRome, &expected.expected.r_rome),
            (Method::Rome, &expected.expected.rome),
        ] {
            let found = rank_one(
                &model,
                &request,
                &expected.contexts,
                method,
                &hyper,
                &covariance,
                &Unwatched,
            );
            let name = format!("{name} {method}");
            check(&name, &found.unwrap(), &expected.expected, left);
        }
    }
}

#[test]
fn a_fine_tuned_matrix_is_that_of_pytorch_and_stays_in_its_bounds() {
    for name in TINY {
        let (model, expected) = fixture(name);
        let hyper = Hyperparameters {
            learning_rate: expected.tuning.learning_rate,
            steps: expected.tuning.steps,
            bound: expected.tuning.bound,
            stop_loss: expected.tuning.stop_loss,
            ..expected.hyper.hyper(expected.layer)
        };
        let request = expected.request.request();
        let (update, steps) = fine_tune(&model, &request, &hyper, &Unwatched).unwrap();
        let (width, inner) = (model.config().width, model.config().inner);
        assert_eq!(
            (update.width(), update.inner(), update.rank),
            (width, inner, width)
        );
        let change: Vec<f64> = (0..width * inner)
            .map(|at| f64::from(update.right[at % inner * width + at / inner]))
            .collect();
        alike(&format!("{name} ft-l"), &change, &expected.tuned.change);
        assert!(change.iter().all(|x| x.abs() <= hyper.bound * 1.0001));
        for (step, loss) in steps.iter().zip(&expected.tuned.losses) {
            assert!(
                (step.loss - loss).abs() < 1e-3,
                "{name}: {} {loss}",
                step.loss
            );
        }
        assert_eq!(steps.len(), expected.tuned.losses.len());
    }
}

#[test]
fn an_edited_matrix_gives_the_value_for_the_key() {
    let (mut model, expected) = fixture("llama");
    let moment = Moment::new(model.config().inner, expected.moment, expected.count).unwrap();
    let covariance = KeyCovariance::new(moment, expected.hyper.ridge, model.device()).unwrap();
    let hyper = expected.hyper.hyper(expected.layer);
    let request = expected.request.request();
    let edit = rank_one(
        &model,
        &request,
        &expected.contexts,
        Method::RRome,
        &hyper,
        &covariance,
        &Unwatched,
    )
    .unwrap();
    let outer = tch::Tensor::from_slice(&edit.update.left)
        .outer(&tch::Tensor::from_slice(&edit.update.right));
    let edited = model.down_projection(hyper.layer).unwrap() + outer;
    model.set_down_projection(hyper.layer, &edited).unwrap();
    let value = model
        .mlp_output(hyper.layer, &tch::Tensor::from_slice(&edit.key))
        .unwrap();
    let value: Vec<f32> = Vec::try_from(&value).unwrap();
    alike("W k*", &wide(&value), &edit.value);
}

#[test]
fn contexts_and_texts_are_drawn_from_a_seed() {
    let (model, _) = fixture("gpt2");
    let plan = |seed| ContextPlan {
        lengths: vec![(5, 3), (10, 2)],
        seed,
    };
    let draw = |seed| sample_contexts(&model, &plan(seed), || true).unwrap();
    let contexts = draw(1);
    assert_eq!(contexts.len(), 6);
    assert_eq!(contexts[0], "{}");
    assert!(
        contexts[1..]
            .iter()
            .all(|c| c.ends_with(". {}") && c.matches('{').count() == 1)
    );
    assert_eq!(contexts, draw(1));
    assert_ne!(contexts, draw(2));
    let texts = |seed| self_sample(&model, 100, 30, seed, || true).unwrap();
    assert_eq!(texts(1).iter().map(Vec::len).sum::<usize>(), 120);
    assert_eq!(texts(1), texts(1));
    assert_ne!(texts(1), texts(2));
    let stopped = sample_contexts(&model, &plan(1), || false);
    assert!(matches!(stopped, Err(Error::Cancelled)));
}

/// As Qwen's 151,936 rows and 151,665 tokens.
#[test]
fn rows_of_the_vocabulary_that_no_token_has_are_no_text_in_completions_and_contexts() {
    let (source, folder) = (path("tests/fixtures/gpt2"), tempfile::tempdir().unwrap());
    for name in ["config.json", "model.safetensors"] {
        fs::copy(source.join(name), folder.path().join(name)).unwrap();
    }
    let text = fs::read_to_string(source.join("tokenizer.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let tokens = 100;
    let vocabulary = json["model"]["vocab"].as_object_mut().unwrap();
    vocabulary.retain(|_, id| id.as_u64().unwrap() < tokens);
    json["model"]["merges"] = serde_json::json!([]);
    json["added_tokens"] = serde_json::json!([]);
    fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let model = Model::load(&checkpoint, tch::Device::Cpu, tch::Kind::Float).unwrap();
    assert!(model.config().vocab as u64 > tokens);
    let plan = ContextPlan {
        lengths: vec![(5, 8)],
        seed: 3,
    };
    let contexts = sample_contexts(&model, &plan, || true).unwrap();
    assert!(contexts.len() > 1, "{contexts:?}");
    assert!(contexts[1..].iter().all(|it| it.ends_with(". {}")));
    let prompt = model.tokenizer().encode("abc").unwrap().ids;
    let all: Vec<u32> = (0..model.config().vocab as u32).collect();
    let named = model
        .tokenizer()
        .decode_after(&prompt, &all[..tokens as usize])
        .unwrap();
    assert_eq!(
        model.tokenizer().decode_after(&prompt, &all).unwrap(),
        named
    );
}

#[test]
fn a_cancelled_edit_stops_and_every_step_is_told() {
    struct After(usize, Cell<usize>);
    impl Watch for After {
        fn cancelled(&self) -> bool {
            self.1.get() >= self.0
        }
        fn step(&self, step: &Step) {
            assert_eq!(step.number, self.1.get());
            self.1.set(step.number + 1);
        }
    }
    let (model, expected) = fixture("llama");
    let moment = Moment::new(model.config().inner, expected.moment, expected.count).unwrap();
    let covariance = KeyCovariance::new(moment, expected.hyper.ridge, model.device()).unwrap();
    let hyper = expected.hyper.hyper(expected.layer);
    let watch = After(3, Cell::new(0));
    let found = rank_one(
        &model,
        &expected.request.request(),
        &expected.contexts,
        Method::RRome,
        &hyper,
        &covariance,
        &watch,
    );
    assert!(matches!(found, Err(Error::Cancelled)));
    assert_eq!(watch.1.get(), 3);
}

#[test]
fn what_cannot_be_edited_is_named() {
    let (model, expected) = fixture("llama");
    let covariance =
        KeyCovariance::new(Moment::new(1, vec![1.0], 1).unwrap(), 0.0, model.device()).unwrap();
    let hyper = expected.hyper.hyper(expected.layer);
    let request = expected.request.request();
    let said = |request: &Request, contexts: &[&str], covariance: &KeyCovariance| {
        let contexts: Vec<String> = contexts.iter().map(|&c| c.to_owned()).collect();
        let found = rank_one(
            &model,
            request,
            &contexts,
            Method::RRome,
            &hyper,
            covariance,
            &Unwatched,
        );
        found.unwrap_err().to_string()
    };
    let size = said(&request, &["{}"], &covariance);
    assert!(size.contains("1 channels"), "{size}");
    let moment = Moment::new(
        model.config().inner,
        expected.moment.clone(),
        expected.count,
    )
    .unwrap();
    let covariance = KeyCovariance::new(moment, expected.hyper.ridge, model.device()).unwrap();
    let context = said(&request, &["no place"], &covariance);
    assert!(
        context.contains("context \"no place\" has 0 `{}`"),
        "{context}"
    );
    let empty = said(&request, &[], &covariance);
    assert!(empty.contains("at least one"), "{empty}");
    let overridden = Overrides::at(Some(99));
    let layer = Hyperparameters::new(Method::RRome, model.config(), &overridden).unwrap_err();
    assert!(layer.to_string().contains("layers 0 to 2"), "{layer}");
}

#[test]
fn a_real_model_is_edited_as_pytorch_edits_it() {
    let file = path(".deps/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !file.exists() {
        let why = format!("no {}: run deploy/setup.sh", file.display());
        crate::require::skip("model", why);
        return;
    }
    // Tests run beside each other: threads of one would wait for those of another.
    tch::set_num_threads(1);
    let checkpoint = Checkpoint::open(&file).unwrap();
    let model = Model::load(&checkpoint, tch::Device::Cpu, tch::Kind::Float).unwrap();
    let text = fs::read_to_string(path("tests/fixtures/smollm2_edit.json")).unwrap();
    let expected: Smollm2 = serde_json::from_str(&text).unwrap();
    let corpus = fs::read_to_string(path(&expected.corpus)).unwrap();
    let moments = collect(&model, &[expected.layer], &[corpus], expected.length);
    assert_eq!(moments[0].count(), expected.count);
    let size = moments[0].size();
    let trace: f64 = (0..size).map(|i| moments[0].sum()[i * (size + 1)]).sum();
    assert!(
        (trace / expected.trace - 1.0).abs() < 1e-4,
        "{trace} {}",
        expected.trace
    );
    let covariance =
        KeyCovariance::new(moments[0].clone(), expected.hyper.ridge, model.device()).unwrap();
    let found = rank_one(
        &model,
        &expected.request.request(),
        &expected.contexts,
        Method::RRome,
        &expected.hyper.hyper(expected.layer),
        &covariance,
        &Unwatched,
    );
    let left = &expected.expected.r_rome;
    check("SmolLM2", &found.unwrap(), &expected.expected, left);
}
