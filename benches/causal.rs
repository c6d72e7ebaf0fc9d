//! How fast causal tracing is, against one full forward pass a cell and against the machine's own
//! matrix products.
//!
//! ```text
//! cargo bench --bench causal
//! cargo bench --bench causal -- --threads 2 --dtypes f32,bf16 --kinds hidden --gpt2-xl 48 --plain-cells 12
//! ```
//!
//! Prints one table a model, prompt and dtype. The machine may be busy with other things, so
//! nothing is compared across runs: products are timed between the tokens of the very trace they
//! are compared with, and the baselines right before and after it. With one thread (the default)
//! times are the thread's CPU time, which other load disturbs little; with more they are the
//! clock's.
//!
//! Three baselines, each scaled up from a few cells:
//! - *plain*: our plain engine, one pass over the samples a cell;
//! - *published*: what the published code does for a cell, one pass over the samples and a clean row, with the logits
//!   of every token;
//! - *same products*: the published pass again, with the matrix products of the exact engine.
//!
//! Then on SmolLM2, with `--facts` facts of the demo, or of `--file`, that another prompt corrupts (0
//! leaves it out): both directions in all metrics against one grid of noise; attribution patching, all
//! kinds at once, against the exact engine and against one forward pass over the same rows; and how
//! well its estimates rank the exact effects, of heads over `--head-facts` facts.
//!
//! The first two baselines multiply with libtorch's own products, as any program on libtorch does. The third
//! is what remains of the ratio when only the number of multiply-adds is saved.
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
mod clock;

#[cfg(feature = "torch")]
mod bench {
    use std::cell::{Cell, RefCell};
    use std::path::{Path, PathBuf};

    use crate::clock::Clock;
    use anyhow::{Context, Result, bail};
    use palimpsest::causal::{
        Corruption, Direction, Engine, Error, Fact, Gradient, Grid, Kind, Metric, Noise, Settings,
        Shape, Unwatched, Watch, rank_correlation, trace,
    };
    use palimpsest::datasets::facts;
    use palimpsest::model::{Checkpoint, Config, Model, Plain, Products, with_libtorch_products};
    use tch::{Device, Kind as Dtype, Tensor};

    const SMOLLM2: &str = ".deps/SmolLM2-135M-Instruct.Q4_1.gguf";

    struct Options {
        threads: i32,
        dtypes: Vec<Dtype>,
        kinds: Vec<Kind>,
        /// Layers of the random model in GPT-2 XL's shape, 0 to leave it out.
        gpt2_xl: usize,
        /// Cells that the plain engine traces; the rest is scaled up.
        plain_cells: u64,
        /// Facts over which estimates are compared with exact effects.
        facts: usize,
        /// The same of heads, which have many cells.
        head_facts: usize,
        /// Where they are.
        file: PathBuf,
    }

    impl Options {
        fn read() -> Result<Self> {
            let mut options = Self {
                threads: 1,
                dtypes: vec![Dtype::Float],
                kinds: Kind::PUBLISHED.to_vec(),
                gpt2_xl: layers_that_fit().min(12),
                plain_cells: 6,
                facts: 12,
                head_facts: 2,
                file: Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/demo_facts.json"),
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
                    "--gpt2-xl" => options.gpt2_xl = value.parse()?,
                    "--facts" => options.facts = value.parse()?,
                    "--head-facts" => options.head_facts = value.parse()?,
                    "--file" => options.file = value.into(),
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
        println!("{}", machine());
        let fact = |prompt: &str, subject: &str| Fact {
            prompt: prompt.into(),
            subject: subject.into(),
            ..Fact::default()
        };
        match path.exists() {
            true => tables(
                "SmolLM2-135M",
                &Checkpoint::open(&path)?,
                &options,
                &[
                    fact(
                        "The Eiffel Tower is located in the city of",
                        "The Eiffel Tower",
                    ),
                    fact(
                        "Of all the monuments that people travel far to see, the Eiffel Tower is located in the city of",
                        "Eiffel Tower",
                    ),
                ],
                0.3,
            )?,
            false => println!("skipped: {SMOLLM2} is missing; deploy/setup.sh brings it"),
        }
        if path.exists() && options.facts > 0 {
            let model = Model::load(&Checkpoint::open(&path)?, Device::Cpu, Dtype::Float)?;
            let facts = facts::read(&options.file)?;
            patching(&model, &options, &facts)?;
        }
        if options.gpt2_xl > 0 {
            let folder = tempfile::tempdir()?;
            let tokenizer = root.join("tests/fixtures/tokenizer.json");
            gpt2_xl(folder.path(), &tokenizer, options.gpt2_xl)?;
            tables(
                &format!("random, GPT-2 XL's shape, {} layers", options.gpt2_xl),
                &Checkpoint::open(folder.path())?,
                &options,
                &[fact(" of the and s in the city", " of the")],
                0.1,
            )?;
        }
        Ok(())
    }

    /// The processor and what it multiplies.
    fn machine() -> String {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = info.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split(": ").nth(1)).unwrap_or("")
        };
        let flags: Vec<&str> = field("flags").split(' ').collect();
        let has: Vec<&str> = [
            "avx2",
            "avx512f",
            "avx512_bf16",
            "avx512_fp16",
            "amx_bf16",
            "amx_fp16",
        ]
        .into_iter()
        .filter(|flag| flags.contains(flag))
        .collect();
        format!("{}, with {}", field("model name"), has.join(", "))
    }

    /// Layers of GPT-2 XL's shape in float32 that fit into a quarter of the free memory.
    fn layers_that_fit() -> usize {
        let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let free: usize = info
            .lines()
            .find_map(|line| line.strip_prefix("MemAvailable:"))
            .and_then(|rest| rest.trim().split(' ').next()?.parse().ok())
            .unwrap_or(0);
        free / 4 / (4 * 12 * 1600 * 1600 / 1024)
    }

    fn tables(
        name: &str,
        checkpoint: &Checkpoint,
        options: &Options,
        facts: &[Fact],
        sd: f64,
    ) -> Result<()> {
        // Seconds and grids of the first dtype, to which the others are compared.
        let mut first: Vec<(f64, Grid)> = Vec::new();
        for &dtype in &options.dtypes {
            let model = Model::load(checkpoint, Device::Cpu, dtype)?;
            let mut found = Vec::new();
            for fact in facts {
                found.extend(table(name, &model, options, fact, sd)?);
            }
            if first.is_empty() {
                first = found;
                continue;
            }
            for ((seconds, grid), (first_seconds, first)) in found.iter().zip(&first) {
                println!(
                    "{dtype:?} against {:?}, {} tokens, {}: {:.1} times as fast, scores within {:.4}",
                    options.dtypes[0],
                    grid.tokens.len(),
                    grid.measure(),
                    first_seconds / seconds,
                    furthest(grid, first)
                );
            }
        }
        Ok(())
    }

    /// The engine of estimates by the mean of so many gradients.
    fn attribution(steps: usize) -> Engine {
        Engine::Attribution(Gradient { steps, drop: false })
    }

    /// A fact that another prompt corrupts, with that prompt in its own words.
    fn corrupted(model: &Model, facts: &[Fact], fact: &Fact) -> Result<Option<Fact>> {
        let same = |other: &&Fact| {
            other.relation == fact.relation
                && other.attribute != fact.attribute
                && other.prompt.replace(&other.subject, "{}")
                    == fact.prompt.replace(&fact.subject, "{}")
        };
        let settings = Settings {
            kinds: vec![Kind::HeadAll],
            ..Settings::new(Corruption::Counterfactual(
                facts.iter().filter(same).take(64).cloned().collect(),
            ))
        };
        let attributed = Settings {
            engine: attribution(1),
            ..settings
        };
        let grid = trace(model, fact, &attributed, &Unwatched)?.remove(0);
        let foil = grid.foil.as_ref().map(|foil| foil.text.trim().to_owned());
        let prompt = grid.corrupted.as_ref().map(|other| other.prompt.clone());
        Ok(grid.traced().then(|| Fact {
            corrupted: prompt,
            foil,
            ..fact.clone()
        }))
    }

    /// Times patching between two prompts, exactly and by estimates, and compares the two.
    fn patching(model: &Model, options: &Options, facts: &[Fact]) -> Result<()> {
        let clock = &Clock::new(options.threads);
        let mut pairs = Vec::new();
        for fact in facts {
            if pairs.len() < options.facts {
                pairs.extend(corrupted(model, facts, fact)?);
            }
        }
        let Some(first) = pairs.first() else {
            bail!("no fact of {} has a partner", options.file.display());
        };
        directions(model, clock, first)?;
        estimates(model, clock, first)?;
        println!(
            "\nSpearman's correlation of estimated with exact effects over the cells behind the first other token, mean \
             and least over facts"
        );
        println!(
            "{:<16}{:>7}{:>18}{:>7}{:>24}{:>24}",
            "kind", "window", "metric", "facts", "gradient", "mean of 8 gradients"
        );
        let exact = Kind::ALL.into_iter().filter(|&kind| kind != Kind::Neuron);
        let (heads, layers): (Vec<Kind>, Vec<Kind>) = exact.partition(|kind| kind.is_of_heads());
        let few = &pairs[..options.head_facts.min(pairs.len())];
        correlations(model, &pairs, 1, &layers)?;
        correlations(model, &pairs, 10, &[Kind::Mlp, Kind::Attn])?;
        correlations(model, few, 1, &heads)
    }

    /// Patching by another prompt.
    fn by_prompt() -> Settings {
        Settings {
            metrics: vec![Metric::LogitDifference],
            ..Settings::new(Corruption::Counterfactual(Vec::new()))
        }
    }

    /// Both directions in every metric against one grid of noise in one.
    fn directions(model: &Model, clock: &Clock, fact: &Fact) -> Result<()> {
        let of = |settings: &Settings| -> Result<f64> {
            let start = clock.now();
            trace(model, fact, settings, &Unwatched)?;
            Ok(clock.now() - start)
        };
        let noise = Settings::new(Noise::gaussian(0.3));
        of(&noise)?; // the first pass of all sets libtorch up
        let mut other = Settings {
            metrics: Metric::ALL.to_vec(),
            ..by_prompt()
        };
        let mut both = 0.0;
        for direction in [Direction::Denoising, Direction::Noising] {
            other.direction = direction;
            both += of(&other)?;
        }
        let noise = of(&noise)?;
        println!(
            "\nhidden, mlp and attn of {:?}, {} thread(s): noise of 10 samples in one metric {noise:.2} s; another \
             prompt in five metrics and both directions {both:.2} s, {:.3} of it",
            fact.prompt,
            clock.threads,
            both / noise
        );
        Ok(())
    }

    /// Times attribution.
    fn estimates(model: &Model, clock: &Clock, fact: &Fact) -> Result<()> {
        let mut all = Kind::ALL.to_vec();
        all.retain(|kind| !kind.is_of_heads() && *kind != Kind::Neuron);
        let hidden = vec![Kind::Hidden];
        let noise = Settings::new(Noise::gaussian(0.3));
        let other = by_prompt();
        println!(
            "\nattribution, SmolLM2-135M, Float, {} thread(s), all kinds at once against the exact engine; a pass is one \
             forward pass over the rows that are patched; with heads: and all parts of heads and neurons too",
            clock.threads
        );
        println!(
            "{:<20}{:>9}{:>12}{:>14}{:>7}{:>14}{:>7}{:>9}{:>7}",
            "corruption",
            "all s",
            "with heads",
            "exact hidden",
            "ratio",
            "exact all",
            "ratio",
            "a pass",
            "ratio"
        );
        for (name, settings) in [("noise, 10 samples", &noise), ("another prompt", &other)] {
            let of = |engine, kinds: &[Kind]| -> Result<f64> {
                let settings = Settings {
                    engine,
                    kinds: kinds.to_vec(),
                    ..settings.clone()
                };
                let start = clock.now();
                trace(model, fact, &settings, &Unwatched)?;
                Ok(clock.now() - start)
            };
            of(attribution(1), &all)?; // the first pass of all sets libtorch up
            let heads = of(attribution(1), &Kind::ALL)?;
            let estimated = (of(attribution(1), &all)? + of(attribution(1), &all)?) / 2.0;
            let (exact, whole) = (of(Engine::Exact, &hidden)?, of(Engine::Exact, &all)?);
            let ids = model.tokenizer().encode(&fact.prompt)?.ids;
            let ids = model.ids(&ids)?.repeat([settings.rows() as i64, 1]);
            let pass = with_libtorch_products(|| full_pass(model, &ids, clock, 4));
            println!(
                "{name:<20}{estimated:>9.3}{heads:>12.3}{exact:>14.2}{:>7.1}{whole:>14.2}{:>7.1}{pass:>9.3}{:>7.1}",
                exact / estimated,
                whole / estimated,
                estimated / pass
            );
        }
        Ok(())
    }

    /// How well estimates rank the exact effects of `kinds`.
    fn correlations(model: &Model, facts: &[Fact], window: usize, kinds: &[Kind]) -> Result<()> {
        let of = |fact: &Fact, engine| -> Result<Vec<Grid>> {
            let settings = Settings {
                engine,
                window,
                kinds: kinds.to_vec(),
                ..by_prompt()
            };
            Ok(trace(model, fact, &settings, &Unwatched)?)
        };
        // By fact, then by kind: exact, and estimated in two ways.
        let mut found = Vec::new();
        for fact in facts {
            let exact = of(fact, Engine::Exact)?;
            let estimated = [of(fact, attribution(1))?, of(fact, attribution(8))?];
            found.push((exact, estimated));
        }
        for (n, kind) in kinds.iter().enumerate() {
            for metric in [Metric::Probability, Metric::LogitDifference] {
                let ranks = [0, 1].map(|way| {
                    let of_fact = |(exact, estimated): &(Vec<Grid>, [Vec<Grid>; 2])| {
                        ranks(&exact[n], &estimated[way][n], metric)
                    };
                    let all: Vec<f64> = found.iter().filter_map(of_fact).collect();
                    let mean = all.iter().sum::<f64>() / all.len() as f64;
                    let least = all.iter().copied().fold(f64::INFINITY, f64::min);
                    format!("{mean:.3} ({least:.3})")
                });
                println!(
                    "{:<16}{window:>7}{:>18}{:>7}{:>24}{:>24}",
                    kind.to_string(),
                    metric.words(),
                    found.len(),
                    ranks[0],
                    ranks[1]
                );
            }
        }
        Ok(())
    }

    /// The rank correlation of two grids' effects in a metric.
    fn ranks(exact: &Grid, estimated: &Grid, metric: Metric) -> Option<f64> {
        let effects = |grid: &Grid| -> Option<Vec<f64>> {
            let grid = grid.in_metric(metric)?;
            let from = match grid.kind.is_over_tokens() {
                true => 0,
                false => grid.first_difference()? * grid.heads * grid.layers,
            };
            let scores = grid.scores[from..].iter();
            scores.map(|&score| grid.effect(score)).collect()
        };
        rank_correlation(&effects(estimated)?, &effects(exact)?)
    }

    /// The largest difference between two grids' scores.
    fn furthest(a: &Grid, b: &Grid) -> f64 {
        let pairs = a.scores.iter().zip(&b.scores);
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }

    fn table(
        name: &str,
        model: &Model,
        options: &Options,
        fact: &Fact,
        sd: f64,
    ) -> Result<Vec<(f64, Grid)>> {
        let encoding = model.tokenizer().encode(&fact.prompt)?;
        let span =
            palimpsest::causal::subject_span(&fact.prompt, &fact.subject, None, &encoding.offsets)?;
        println!(
            "\n{name}, {:?}, {} thread(s), {} tokens, subject {}..{}, 10 samples; seconds are {}",
            model.dtype(),
            options.threads,
            encoding.ids.len(),
            span.start,
            span.end,
            match options.threads {
                1 => "CPU time",
                _ => "by the clock",
            }
        );
        println!(
            "{:<8}{:>9} |{:>9}{:>7} |{:>11}{:>7} |{:>15}{:>7} |{:>13}{:>13}{:>13} |{:>8}{:>8}{:>9}{:>8}",
            "kind",
            "exact s",
            "plain s",
            "ratio",
            "published s",
            "ratio",
            "same products s",
            "ratio",
            "plain/floor *",
            "published *",
            "exact *",
            "GMAC/s",
            "GEMM",
            "libtorch",
            "share"
        );
        let mut found = Vec::new();
        for &kind in &options.kinds {
            found.push(row(model, options, fact, kind, sd)?);
        }
        println!(
            "* multiply-adds over those of the floor. GMAC/s: multiply-adds done a second, all included. GEMM: the products of one \
             block alone on {ROWS} rows; libtorch: the same by libtorch's own. Baselines from {} of their cells, scaled",
            2 * options.plain_cells
        );
        Ok(found)
    }

    fn row(
        model: &Model,
        options: &Options,
        fact: &Fact,
        kind: Kind,
        sd: f64,
    ) -> Result<(f64, Grid)> {
        let mut settings = Settings {
            kinds: vec![kind],
            engine: Engine::Plain,
            ..Settings::new(Noise::gaussian(sd))
        };
        let clock = Clock::new(options.threads);
        let cells = options.plain_cells;
        let encoding = model.tokenizer().encode(&fact.prompt)?;
        let ids = model
            .ids(&encoding.ids)?
            .repeat([settings.samples as i64 + 1, 1]);
        let baselines = |settings: &Settings| -> Result<[f64; 3]> {
            Ok([
                plain_cell(model, fact, settings, &clock, cells)?,
                with_libtorch_products(|| full_pass(model, &ids, &clock, cells)),
                full_pass(model, &ids, &clock, cells),
            ])
        };
        let before = baselines(&settings)?;

        settings.engine = Engine::Exact;
        let span =
            palimpsest::causal::subject_span(&fact.prompt, &fact.subject, None, &encoding.offsets)?;
        let shape = Shape {
            kind,
            tokens: encoding.ids.len(),
            before_subject: span.start,
            layers: model.config().layers,
            heads: model.config().heads,
            kv_heads: model.config().kv_heads,
            samples: settings.samples,
            window: settings.window,
        };
        let probe = Probe::new(model, &clock);
        let start = clock.now();
        let grid = trace(model, fact, &settings, &probe)?.remove(0);
        let exact = clock.now() - start - probe.spent.get();

        settings.engine = Engine::Plain;
        let after = baselines(&settings)?;
        let count = shape.cells() as f64;
        let [plain, published, same] =
            std::array::from_fn(|i| (before[i] + after[i]) / 2.0 * count);

        let config = model.config();
        let floor = shape.floor() as f64 * block_weights(config);
        let vocabulary = (config.width * config.vocab) as f64;
        let pass = shape.layers as f64 * block_weights(config);
        let tokens = count * shape.tokens as f64;
        let plain_done =
            tokens * shape.samples as f64 * pass + count * shape.samples as f64 * vocabulary;
        let published_done = tokens * (shape.samples + 1) as f64 * (pass + vocabulary);
        let done = done(config, &shape);
        let rate = done / exact / 1e9;
        let [gemm, libtorch] = probe.rates();
        println!(
            "{:<8}{exact:>9.2} |{plain:>9.1}{:>7.1} |{published:>11.1}{:>7.1} |{same:>15.1}{:>7.1} \
             |{:>13.2}{:>13.2}{:>13.2} |{rate:>8.1}{gemm:>8.1}{libtorch:>9.1}{:>6.0} %",
            kind.to_string(),
            plain / exact,
            published / exact,
            same / exact,
            plain_done / floor,
            published_done / floor,
            done / floor,
            100.0 * rate / gemm
        );
        Ok((exact, grid))
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

    /// Rows of the timed products, tokens counted apart: as many as the exact engine's batches
    /// have.
    const ROWS: i64 = 512;

    /// Times the products of one block whenever a token of a trace is done.
    struct Probe<'a> {
        clock: &'a Clock,
        weights: Vec<Tensor>,
        inputs: Vec<Tensor>,
        /// Seconds with the exact engine's products and with libtorch's.
        seconds: [Cell<f64>; 2],
        /// Multiply-adds of each.
        products: Cell<f64>,
        /// Seconds that measuring took.
        spent: Cell<f64>,
    }

    impl<'a> Probe<'a> {
        fn new(model: &Model, clock: &'a Clock) -> Self {
            let random = |a: i64, b: i64| {
                Tensor::randn([a, b], (Dtype::Float, Device::Cpu)).to_kind(model.dtype())
            };
            let (weights, inputs) = maps(model.config())
                .into_iter()
                .map(|(out, inp)| (random(out, inp), random(ROWS, inp)))
                .unzip();
            Self {
                clock,
                weights,
                inputs,
                seconds: [Cell::new(0.0), Cell::new(0.0)],
                products: Cell::new(0.0),
                spent: Cell::new(0.0),
            }
        }

        fn measure(&self) {
            for (weight, input) in self.weights.iter().zip(&self.inputs) {
                let times: [f64; 2] = [false, true].map(|own| {
                    let product = || match own {
                        false => Products::linear(input, weight),
                        true => with_libtorch_products(|| Products::linear(input, weight)),
                    };
                    let start = self.clock.now();
                    drop(product()); // brings the matrices into the cache
                    let warm = self.clock.now();
                    drop(product());
                    let end = self.clock.now();
                    self.spent.set(self.spent.get() + end - start);
                    end - warm
                });
                for (seconds, time) in self.seconds.iter().zip(times) {
                    seconds.set(seconds.get() + time);
                }
                let count = weight.numel() as f64 * input.size()[0] as f64;
                self.products.set(self.products.get() + count);
            }
        }

        /// 1e9 multiply-adds a second.
        fn rates(&self) -> [f64; 2] {
            [0, 1].map(|i| self.products.get() / self.seconds[i].get() / 1e9)
        }
    }

    impl Watch for Probe<'_> {
        fn cells(&self, _done: u64, _total: u64) {
            self.measure();
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
        // In the last block all but the last token only have their keys and values made. The first
        // token of the subject is not computed in a hidden grid.
        let settled = usize::from(shape.kind == Kind::Hidden);
        let cells = cells * shape.kind.heads(shape.heads, shape.kv_heads);
        let (places, others) = match shape.kind.is_over_tokens() {
            true => (1, corrupted - 1),
            false => (corrupted, corrupted * (corrupted - 1) / 2),
        };
        let spared = cells * (others - settled.min(corrupted - 1));
        let runs = match shape.kind.is_windowed() {
            false => shape.samples + 1,
            true => 2 * shape.samples + 1,
        };
        let vocabulary = shape.samples * cells * places + shape.samples + 1;
        (shape.passes() as f64 + (runs * shape.tokens * shape.layers) as f64) * weights
            - (spared * shape.samples) as f64 * (weights - keys)
            + vocabulary as f64 * (config.width * config.vocab) as f64
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
