//! How fast causal tracing is, against one full forward pass a cell and against the machine's own
//! matrix products.
//!
//! ```text
//! cargo bench --bench causal
//! cargo bench --bench causal -- --threads 2 --dtypes f32,bf16 --kinds hidden --gpt2-xl 4 --plain-cells 12
//! ```
//!
//! Prints one table a model and dtype. The machine may be busy with other things, so nothing is compared across
//! runs: products are timed between the tokens of the very trace they are compared with, and the plain
//! engine right before and after it, as is what the published code does for a cell: one pass over the samples and a
//! clean row with the logits of every token (the plain engine leaves out that row and those logits). With one thread (the default) times are the thread's CPU time, which other
//! load disturbs little; with more they are the clock's.
#![allow(clippy::disallowed_methods)] // a bench measures time

#[cfg(not(feature = "torch"))]
fn main() {
    eprintln!("skipped: tracing needs the feature `torch`");
}

#[cfg(feature = "torch")]
fn main() -> anyhow::Result<()> {
    bench::main()
}

#[cfg(feature = "torch")]
mod bench {
    use std::cell::{Cell, RefCell};
    use std::path::{Path, PathBuf};
    use std::time::Instant;

    use anyhow::{Context, Result, bail};
    use palimpsest::causal::{Engine, Error, Fact, Kind, Noise, Settings, Shape, Watch, trace};
    use palimpsest::model::{Checkpoint, Config, Model, Plain};
    use tch::{Device, Kind as Dtype, Tensor};

    const SMOLLM2: &str = ".deps/SmolLM2-135M-Instruct.Q4_1.gguf";

    struct Options {
        threads: i32,
        dtypes: Vec<Dtype>,
        kinds: Vec<Kind>,
        /// Layers of the random model in GPT-2 XL's shape; none to leave it out.
        gpt2_xl: Option<usize>,
        /// Cells that the plain engine traces; the rest is scaled up.
        plain_cells: u64,
    }

    impl Options {
        fn read() -> Result<Self> {
            let mut options = Self {
                threads: 1,
                dtypes: vec![Dtype::Float],
                kinds: Kind::ALL.to_vec(),
                gpt2_xl: None,
                plain_cells: 12,
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
                    "--gpt2-xl" => options.gpt2_xl = Some(value.parse()?),
                    "--plain-cells" => options.plain_cells = value.parse()?,
                    "--kinds" => {
                        let kinds = value.split(',').map(str::parse);
                        options.kinds = kinds.collect::<Result<_, Error>>()?;
                    }
                    "--dtypes" => {
                        let dtypes = value.split(',').map(palimpsest::model::device::dtype);
                        options.dtypes = dtypes.collect::<Result<_, _>>()?;
                    }
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
        match path.exists() {
            true => table(
                "SmolLM2-135M",
                &Checkpoint::open(&path)?,
                &options,
                Fact {
                    prompt: "The Eiffel Tower is located in the city of".into(),
                    subject: "The Eiffel Tower".into(),
                    ..Fact::default()
                },
                0.3,
            )?,
            false => println!("skipped: {SMOLLM2} is missing; deploy/setup.sh brings it"),
        }
        if let Some(layers) = options.gpt2_xl {
            let folder = tempfile::tempdir()?;
            gpt2_xl(
                folder.path(),
                &root.join("tests/fixtures/tokenizer.json"),
                layers,
            )?;
            table(
                &format!("random, GPT-2 XL's shape, {layers} layers"),
                &Checkpoint::open(folder.path())?,
                &options,
                Fact {
                    prompt: " of the and s in the city".into(),
                    subject: " of the".into(),
                    ..Fact::default()
                },
                0.1,
            )?;
        }
        Ok(())
    }

    fn table(
        name: &str,
        checkpoint: &Checkpoint,
        options: &Options,
        fact: Fact,
        sd: f64,
    ) -> Result<()> {
        for &dtype in &options.dtypes {
            let model = Model::load(checkpoint, Device::Cpu, dtype)?;
            let tokens = model.tokenizer().encode(&fact.prompt)?.ids.len();
            println!(
                "\n{name}, {dtype:?}, {} thread(s), {tokens} tokens, 10 samples; seconds are {}",
                options.threads,
                match options.threads {
                    1 => "CPU time",
                    _ => "by the clock",
                }
            );
            println!(
                "{:<8}{:>10}{:>12}{:>9}{:>15}{:>9}{:>12}{:>12}{:>12}{:>9}",
                "kind",
                "exact s",
                "plain s *",
                "ratio",
                "full pass s *",
                "ratio",
                "done/floor",
                "GMAC/s",
                "GEMM GMAC/s",
                "share"
            );
            for &kind in &options.kinds {
                row(&model, options, &fact, kind, sd)?;
            }
            println!(
                "* from {} of its cells, scaled; full pass: 11 rows and all logits a cell, as published. GMAC/s: multiply-adds of the floor a second; GEMM: the products \
                 of one block alone, on as many rows as the batches have",
                2 * options.plain_cells
            );
        }
        Ok(())
    }

    fn row(model: &Model, options: &Options, fact: &Fact, kind: Kind, sd: f64) -> Result<()> {
        let mut settings = Settings {
            kinds: vec![kind],
            engine: Engine::Plain,
            ..Settings::new(Noise::gaussian(sd))
        };
        let clock = Clock {
            threads: options.threads,
        };
        let cells = options.plain_cells;
        let encoding = model.tokenizer().encode(&fact.prompt)?;
        let ids = model
            .ids(&encoding.ids)?
            .repeat([settings.samples as i64 + 1, 1]);
        let before = plain_cell(model, fact, &settings, &clock, cells)?;
        let pass_before = full_pass(model, &ids, &clock, cells);

        settings.engine = Engine::Exact;
        let span =
            palimpsest::causal::subject_span(&fact.prompt, &fact.subject, &encoding.offsets)?;
        let shape = Shape {
            kind,
            tokens: encoding.ids.len(),
            before_subject: span.start,
            layers: model.config().layers,
            samples: settings.samples,
            window: settings.window,
        };
        let probe = Probe::new(model, &clock, mean_rows(&shape));
        let start = clock.now();
        trace(model, fact, &settings, &probe)?;
        let exact = clock.now() - start - probe.seconds.get();

        settings.engine = Engine::Plain;
        let after = plain_cell(model, fact, &settings, &clock, cells)?;
        let pass_after = full_pass(model, &ids, &clock, cells);
        let count = (shape.tokens * shape.layers) as f64;
        let plain = (before + after) / 2.0 * count;
        let full = (pass_before + pass_after) / 2.0 * count;

        let floor = shape.floor() as f64 * block_weights(model.config());
        let rate = floor / exact / 1e9;
        let gemm = probe.products.get() / probe.seconds.get() / 1e9;
        println!(
            "{:<8}{exact:>10.2}{plain:>12.1}{:>9.1}{full:>15.1}{:>9.1}{:>12.2}{rate:>12.1}{gemm:>12.1}{:>8.0} %",
            kind.to_string(),
            plain / exact,
            full / exact,
            done(model.config(), &shape) / floor,
            100.0 * rate / gemm
        );
        Ok(())
    }

    /// Seconds a forward pass with the logits of every token.
    fn full_pass(model: &Model, ids: &Tensor, clock: &Clock, times: u64) -> f64 {
        let _no_grad = tch::no_grad_guard();
        let start = clock.now();
        for _ in 0..times {
            drop(model.forward(ids, &mut Plain).softmax(-1, Dtype::Float));
        }
        (clock.now() - start) / times as f64
    }

    /// Seconds a cell of the plain engine.
    fn plain_cell(
        model: &Model,
        fact: &Fact,
        settings: &Settings,
        clock: &Clock,
        cells: u64,
    ) -> Result<f64> {
        let some = Some {
            cells,
            clock,
            spent: RefCell::new((0.0, 0.0)),
            done: Cell::new(0),
        };
        match trace(model, fact, settings, &some) {
            Err(Error::Cancelled) | Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let (first, last) = *some.spent.borrow();
        Ok((last - first) / (some.done.get() - 1) as f64)
    }

    /// Stops a trace after some cells, and notes when the first and the last of them were done.
    struct Some<'a> {
        cells: u64,
        clock: &'a Clock,
        spent: RefCell<(f64, f64)>,
        done: Cell<u64>,
    }

    impl Watch for Some<'_> {
        fn cancelled(&self) -> bool {
            self.done.get() > self.cells
        }

        fn cells(&self, done: u64, _total: u64) {
            let mut spent = self.spent.borrow_mut();
            spent.1 = self.clock.now();
            if done == 1 {
                spent.0 = spent.1;
            }
            self.done.set(done);
        }
    }

    /// Times the products of one block whenever a token of a trace is done.
    struct Probe<'a> {
        clock: &'a Clock,
        weights: Vec<Tensor>,
        inputs: Vec<Tensor>,
        seconds: Cell<f64>,
        products: Cell<f64>,
    }

    impl<'a> Probe<'a> {
        fn new(model: &Model, clock: &'a Clock, rows: i64) -> Self {
            let random = |a: i64, b: i64| {
                Tensor::randn([a, b], (Dtype::Float, Device::Cpu)).to_kind(model.dtype())
            };
            let (weights, inputs) = maps(model.config())
                .into_iter()
                .map(|(out, inp)| (random(out, inp), random(rows, inp)))
                .unzip();
            let probe = Self {
                clock,
                weights,
                inputs,
                seconds: Cell::new(0.0),
                products: Cell::new(0.0),
            };
            probe.measure();
            probe.seconds.set(0.0); // the first time is a warm-up
            probe.products.set(0.0);
            probe
        }

        fn measure(&self) {
            let start = self.clock.now();
            for (weight, input) in self.weights.iter().zip(&self.inputs) {
                let product = input.linear(weight, None::<&Tensor>);
                drop(product);
                let count = weight.numel() as f64 * input.size()[0] as f64;
                self.products.set(self.products.get() + count);
            }
            self.seconds
                .set(self.seconds.get() + self.clock.now() - start);
        }
    }

    impl Watch for Probe<'_> {
        fn cells(&self, _done: u64, _total: u64) {
            self.measure();
            self.measure();
        }
    }

    /// Seconds of this thread on a CPU, or by the clock when it is not alone.
    struct Clock {
        threads: i32,
    }

    thread_local!(static START: Instant = Instant::now());

    impl Clock {
        fn now(&self) -> f64 {
            let cpu = || -> Option<f64> {
                let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
                Some(text.split(' ').next()?.parse::<f64>().ok()? / 1e9)
            };
            match self.threads {
                1 => cpu(),
                _ => None,
            }
            .unwrap_or_else(|| START.with(Instant::elapsed).as_secs_f64())
        }
    }

    /// Outputs and inputs of the linear maps of one block.
    fn maps(config: &Config) -> [(i64, i64); 4] {
        let attention = config.heads * config.head_dim;
        let keys = config.kv_heads * config.head_dim;
        let up = config.inner * if config.gated { 2 } else { 1 };
        [
            (attention + 2 * keys, config.width),
            (config.width, attention),
            (up, config.width),
            (config.width, config.inner),
        ]
        .map(|(out, inp)| (out as i64, inp as i64))
    }

    fn block_weights(config: &Config) -> f64 {
        maps(config)
            .iter()
            .map(|(out, inp)| (out * inp) as f64)
            .sum()
    }

    /// Multiply-adds of all linear maps that the exact engine computes for one grid.
    fn done(config: &Config, shape: &Shape) -> f64 {
        let weights = block_weights(config);
        let keys = (2 * config.kv_heads * config.head_dim * config.width) as f64;
        let corrupted = shape.tokens - shape.before_subject;
        let cells = (0..shape.layers)
            .map(|layer| shape.kind.window(layer, shape.layers, shape.window))
            .collect::<std::collections::HashSet<_>>()
            .len()
            - usize::from(shape.kind == Kind::Hidden);
        // In the last block all but the last token only have their keys and values made.
        let spared: usize = (0..corrupted).map(|behind| behind * cells).sum();
        let runs = match shape.kind {
            Kind::Hidden => shape.samples + 1,
            Kind::Mlp | Kind::Attn => 2 * shape.samples + 1,
        };
        let vocabulary = shape.samples * cells * corrupted + shape.samples + 1;
        (shape.passes() as f64 + (runs * shape.tokens * shape.layers) as f64) * weights
            - (spared * shape.samples) as f64 * (weights - keys)
            + vocabulary as f64 * (config.width * config.vocab) as f64
    }

    /// Rows of the engine's batches, tokens counted apart, weighted by the work done in them.
    fn mean_rows(shape: &Shape) -> i64 {
        let (mut rows, mut squares) = (0.0, 0.0);
        for tokens in 1..=shape.tokens - shape.before_subject {
            for cells in 1..shape.layers {
                let batch = (shape.samples * cells * tokens) as f64;
                rows += batch;
                squares += batch * batch;
            }
        }
        (squares / rows) as i64
    }

    /// Writes a checkpoint with random weights.
    fn gpt2_xl(folder: &Path, tokenizer: &Path, layers: usize) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let (width, vocab, context) = (1600_i64, 50_257_i64, 1024_i64);
        let config = serde_json::json!({
            "model_type": "gpt2", "n_embd": width, "n_head": 25, "n_layer": layers, "n_positions": context,
            "vocab_size": vocab, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
            "bos_token_id": 287, "eos_token_id": 287,
        });
        std::fs::write(folder.join("config.json"), config.to_string())?;
        std::fs::copy(tokenizer, folder.join("tokenizer.json"))?;
        let float = (Dtype::Float, Device::Cpu);
        let matrix = |a: i64, b: i64| Tensor::randn([a, b], float) * 0.02;
        let embedding = matrix(vocab, width);
        // The tokenizer knows few of these tokens: only those can be an answer.
        let known = 256;
        let _ = embedding.narrow(0, known, vocab - known).zero_();
        let mut tensors = vec![
            ("transformer.wte.weight".to_owned(), embedding),
            ("transformer.wpe.weight".to_owned(), matrix(context, width)),
        ];
        let norm = |tensors: &mut Vec<(String, Tensor)>, name: String| {
            tensors.push((format!("{name}.weight"), Tensor::ones([width], float)));
            tensors.push((format!("{name}.bias"), Tensor::zeros([width], float)));
        };
        norm(&mut tensors, "transformer.ln_f".to_owned());
        for layer in 0..layers {
            let block = format!("transformer.h.{layer}");
            norm(&mut tensors, format!("{block}.ln_1"));
            norm(&mut tensors, format!("{block}.ln_2"));
            for (name, inp, out) in [
                ("attn.c_attn", width, 3 * width),
                ("attn.c_proj", width, width),
                ("mlp.c_fc", width, 4 * width),
                ("mlp.c_proj", 4 * width, width),
            ] {
                tensors.push((format!("{block}.{name}.weight"), matrix(inp, out)));
                tensors.push((format!("{block}.{name}.bias"), Tensor::zeros([out], float)));
            }
        }
        let path: PathBuf = folder.join("model.safetensors");
        Tensor::write_safetensors(&tensors, path)?;
        Ok(())
    }
}
