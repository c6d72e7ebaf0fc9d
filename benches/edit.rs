//! What an edit costs: a step of its optimisation against a full forward and backward pass of the
//! same batch, the edit in all, and the most memory.
//!
//! ```text
//! cargo bench --bench edit
//! cargo bench --bench edit -- --threads 2 --layer 5 --steps 20
//! cargo bench --bench edit -- --save FILE      # then benches/published_targets.py
//! ```
//!
//! The full pass is what the published code does at a step: whole sequences through all layers, the
//! logits of every token, and back to the first layer; like it, without gradients of weights. It is
//! measured in two ways: with every row filled up to the longest in one batch, as published, and
//! with the rows of each length in a batch of their own, where nothing is filled up but the weights
//! are read again for every length. The ratio is to the cheaper of the two. The floor is what a
//! step must multiply and add: of the rows the tokens from the subject's last on, through the
//! layers above the edited one, forth and back, and the logits that are read. All take turns, so
//! that a busy machine slows all. With one thread (the default) times are the thread's CPU time;
//! with more they are the clock's.
#![allow(clippy::disallowed_methods)] // a bench measures time

#[cfg(not(feature = "torch"))]
fn main() {
    eprintln!("skipped: editing needs the feature `torch`");
}

#[cfg(feature = "torch")]
fn main() -> anyhow::Result<()> {
    bench::main()
}

#[cfg(feature = "torch")]
mod clock;

#[cfg(feature = "torch")]
mod bench {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    use crate::clock::{Clock, peak_memory};
    use anyhow::{Context, Result, bail};
    use palimpsest::edit::{
        ContextPlan, Hyperparameters, KeyCovariance, Method, Optimiser, Overrides, Request,
        Unwatched, rank_one, sample_contexts,
    };
    use palimpsest::model::{Checkpoint, Model, Pass, Plain};
    use palimpsest::stats::{Collector, pieces};
    use serde_json::json;
    use tch::{Device, Kind, Tensor};

    const SMOLLM2: &str = ".deps/SmolLM2-135M-Instruct.Q4_1.gguf";

    struct Options {
        threads: i32,
        layer: Option<usize>,
        /// Steps and full passes that are timed.
        steps: usize,
        /// Where to keep what `published_targets.py` takes.
        save: Option<PathBuf>,
    }

    impl Options {
        fn read() -> Result<Self> {
            let mut options = Self {
                threads: 1,
                layer: None,
                steps: 8,
                save: None,
            };
            let mut arguments = std::env::args().skip(1);
            while let Some(name) = arguments.next() {
                if name == "--bench" {
                    continue; // cargo's own
                }
                let value = arguments
                    .next()
                    .with_context(|| format!("{name} needs a value"))?;
                match name.as_str() {
                    "--threads" => options.threads = value.parse()?,
                    "--layer" => options.layer = Some(value.parse()?),
                    "--save" => options.save = Some(value.into()),
                    "--steps" => options.steps = value.parse()?,
                    _ => bail!("unknown option {name}"),
                }
            }
            Ok(options)
        }
    }

    pub fn main() -> Result<()> {
        let options = Options::read()?;
        tch::set_num_threads(options.threads);
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = root.join(SMOLLM2);
        if !path.exists() {
            println!("skipped: {SMOLLM2} is missing; deploy/setup.sh brings it");
            return Ok(());
        }
        let model = Model::load(&Checkpoint::open(&path)?, Device::Cpu, Kind::Float)?;
        let request = Request {
            prompt: "{} is located in the city of".into(),
            subject: "The Eiffel Tower".into(),
            target_new: "Rome".into(),
            target_true: Some("Paris".into()),
        };
        let overrides = Overrides::at(options.layer);
        let hyper = Hyperparameters::new(Method::RRome, model.config(), &overrides)?;
        let clock = Clock::new(options.threads);
        println!(
            "SmolLM2-135M, f32, layer {}, {} thread(s); seconds are {}",
            hyper.layer,
            options.threads,
            clock.said()
        );

        let (contexts, drawing) =
            clock.time(|| sample_contexts(&model, &ContextPlan::default(), || true));
        let contexts = contexts?;
        println!("drawing {} contexts: {drawing:.2}", contexts.len() - 1);

        if let Some(file) = &options.save {
            let saved = json!({
                "facts": [{"prompt": request.prompt, "subject": request.subject, "target_new": request.target_new}],
                "contexts": contexts, "layer": hyper.layer, "rome": true,
                "hyper": {
                    "learning_rate": hyper.learning_rate, "steps": hyper.steps, "clamp": hyper.clamp,
                    "weight_decay": hyper.weight_decay, "kl_factor": hyper.kl_factor, "stop_loss": hyper.stop_loss,
                },
            });
            std::fs::write(file, saved.to_string())?;
        }

        let licence = std::fs::read_to_string(root.join("LICENSE-APACHE"))?;
        let (moments, collecting) = clock.time(|| -> Result<_> {
            let mut collector = Collector::new(&model, &[hyper.layer])?;
            for piece in pieces(&model, &licence, 512)? {
                collector.add(&piece, |_| true)?;
            }
            Ok(collector.finish(|_| true)?)
        });
        let moment = moments?.remove(0);
        println!(
            "key statistics of one layer: {:.0} tokens/s",
            moment.count() as f64 / collecting
        );
        // So little text does not make it positive definite; what it costs is the same.
        let (covariance, factorising) =
            clock.time(|| KeyCovariance::new(moment, 1e-2, model.device()));
        let covariance = covariance?;
        println!("factorising them, once a layer: {factorising:.2}");

        let (optimiser, staging) =
            clock.time(|| Optimiser::prepare(&model, &request, &contexts, &hyper, &Unwatched));
        let mut optimiser = optimiser?;
        println!("what is computed once an edit: {staging:.2}");
        let by_length = batch(&model, &request, &contexts)?;
        let filled = filled(&by_length);
        let rows: usize = by_length.values().map(Vec::len).sum();
        let tokens: usize = by_length.iter().map(|(n, rows)| n * rows.len()).sum();
        // Once each before it counts: memory is allotted.
        optimiser.step(&Unwatched)?;
        full_pass(&model, &by_length);
        let (mut step, mut apart, mut together) = (0.0, 0.0, 0.0);
        let turns = options.steps as f64;
        for _ in 0..options.steps {
            let (stepped, seconds) = clock.time(|| optimiser.step(&Unwatched));
            stepped?;
            step += seconds / turns;
            apart += clock.time(|| full_pass(&model, &by_length)).1 / turns;
            together += clock.time(|| full_pass(&model, &filled)).1 / turns;
        }
        println!(
            "a step: {step:.3}; a full forward and backward pass of its {rows} rows: {together:.3} in one batch filled up to \
             {} tokens, {apart:.3} by length, {tokens} tokens; ratio 1/{:.1}",
            filled.iter().map(|(n, rows)| n * rows.len()).sum::<usize>(),
            apart.min(together) / step
        );
        let config = model.config();
        let block = (config.width
            * (2 * config.heads * config.head_dim + 2 * config.kv_heads * config.head_dim)
            + config.width * config.inner * if config.gated { 3 } else { 2 })
            as f64;
        let head = (config.width * config.vocab) as f64;
        let layers = config.layers as f64;
        let (moving, reads) = optimiser.work();
        let above = layers - 1.0 - hyper.layer as f64;
        let floor = 2.0 * (moving as f64 * above * block + reads as f64 * head);
        let full = 2.0 * tokens as f64 * (layers * block + head);
        println!(
            "floor of a step: {:.1} G multiply-adds ({moving} tokens, {reads} reads), {:.1} G/s; of a full pass that fills \
             nothing up: {:.1} G; ratio 1/{:.1}",
            floor / 1e9,
            floor / 1e9 / step,
            full / 1e9,
            full / floor
        );
        let (edit, seconds) = clock.time(|| {
            let method = Method::RRome;
            rank_one(
                &model,
                &request,
                &contexts,
                method,
                &hyper,
                &covariance,
                &Unwatched,
            )
        });
        let steps = edit?.steps;
        println!(
            "an edit, {} steps to a probability of {:.2}: {seconds:.2}",
            steps.len(),
            steps.last().map_or(0.0, |step| step.probability)
        );
        println!("most memory of the process: {}", peak_memory());
        Ok(())
    }

    /// Every row of a step as a whole sequence, by length.
    fn batch(
        model: &Model,
        request: &Request,
        contexts: &[String],
    ) -> Result<BTreeMap<usize, Vec<Vec<u32>>>> {
        let tokenizer = model.tokenizer();
        let mut rows = BTreeMap::<usize, Vec<Vec<u32>>>::new();
        for context in contexts {
            let text = context.replacen("{}", &request.text(), 1);
            let found = tokenizer.continuation(&text, &request.target_new)?;
            let ids = [&found.prompt, &found.target[..found.target.len() - 1]].concat();
            rows.entry(ids.len()).or_default().push(ids);
        }
        let essence = tokenizer.encode(&format!("{} is a", request.subject))?.ids;
        rows.entry(essence.len()).or_default().push(essence);
        Ok(rows)
    }

    /// The same in one batch, filled up to the longest: no token sees those behind it.
    fn filled(by_length: &BTreeMap<usize, Vec<Vec<u32>>>) -> BTreeMap<usize, Vec<Vec<u32>>> {
        let longest = by_length.keys().max().copied().unwrap_or_default();
        let fill = |row: &Vec<u32>| {
            let mut row = row.clone();
            row.resize(longest, 0);
            row
        };
        let rows = by_length.values().flatten().map(fill).collect();
        BTreeMap::from([(longest, rows)])
    }

    fn full_pass(model: &Model, batch: &BTreeMap<usize, Vec<Vec<u32>>>) {
        let mut losses = Vec::new();
        let mut inputs = Vec::new();
        for (&tokens, rows) in batch {
            let ids: Vec<i64> = rows.iter().flatten().map(|&id| i64::from(id)).collect();
            let ids = Tensor::from_slice(&ids).view([rows.len() as i64, tokens as i64]);
            let embedded = model.embed(&ids).detach().set_requires_grad(true);
            let mut x = model.add_positions(&embedded, 0);
            for layer in 0..model.config().layers {
                x = model.block(layer, &x, Pass::default(), &mut Plain).hidden;
            }
            let log = model.logits(&x).log_softmax(-1, Kind::Float);
            losses.push(log.gather(2, &ids.unsqueeze(2), false).sum(Kind::Float));
            inputs.push(embedded);
        }
        Tensor::stack(&losses, 0).sum(Kind::Float).backward();
        assert!(inputs.iter().all(|input| input.grad().defined()));
    }
}
