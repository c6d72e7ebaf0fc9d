//! What an edit of many facts costs: targets against full passes, the floor and two workers, and
//! the solve of a layer.
//!
//! ```text
//! cargo bench --bench mass
//! cargo bench --bench mass -- --parts targets --facts 8 --file facts.json --save target/mass.json
//! cargo bench --bench mass -- --parts solve --sizes 1536,6400,16384
//! ```
//!
//! `targets`: seconds a target (z) and a key, and a step of it against a full forward and backward
//! pass of its rows (whole sequences through all layers, every token's logits, back to the first
//! layer, without gradients of weights) and against what must be multiplied and added. The full
//! pass is measured with all rows filled up to the longest in one batch and with the rows of each
//! length apart; the ratio is to the cheaper one. `--save` writes facts and contexts for
//! `benches/published_targets.py`. `together`: a step of several facts whose rows lie in one batch.
//! `workers`: targets of one process with one thread, of one with two, and of two with one.
//! `solve`: a layer's factorisation and solves by size, with the share of the machine's own rate of
//! float64 products, and the most memory of a process that does nothing else.
//!
//! `--file` takes records like CounterFact's; without it there are a few built in. With one thread
//! times are the thread's CPU time; with more they are the clock's. Medians are of the facts.
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
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use crate::clock::{Clock, memory, peak_memory};
    use anyhow::{Context, Result, bail};
    use palimpsest::edit::{
        self, Contexts, Damping, Hyperparameters, KeyCovariance, Method, Metric, Overrides,
        Request, Step, Unwatched, Watch,
    };
    use palimpsest::model::{Checkpoint, Model, Pass, Plain};
    use palimpsest::stats::Moment;
    use serde_json::{Value, json};
    use tch::{Device, Kind, Tensor};

    const SMOLLM2: &str = ".deps/SmolLM2-135M-Instruct.Q4_1.gguf";
    /// As `deploy/` and the published tables of models of its family have them.
    const LAYERS: [usize; 5] = [4, 5, 6, 7, 8];
    const FACTS: [[&str; 3]; 8] = [
        ["The mother tongue of {} is", "Danielle Darrieux", "English"],
        [
            "The official religion of {} is",
            "Edwin of Northumbria",
            "Islam",
        ],
        ["{} is located in the city of", "The Eiffel Tower", "Rome"],
        ["{} plays the sport of", "Michael Jordan", "tennis"],
        [
            "{}, which is located in",
            "Autonomous University of Madrid",
            "Sweden",
        ],
        [
            "The headquarter of {} is located in",
            "Monell Chemical Senses Center",
            "Mumbai",
        ],
        ["{} was developed by", "Windows Embedded CE 6.0", "Nintendo"],
        ["{} passed away in", "Johann von Rist", "Istanbul"],
    ];

    struct Options {
        threads: i32,
        parts: Vec<String>,
        facts: usize,
        file: Option<PathBuf>,
        save: Option<PathBuf>,
        sizes: Vec<usize>,
        columns: Vec<usize>,
        /// Set for a child: only compute targets, or only one solve.
        quiet: bool,
    }

    impl Options {
        fn read() -> Result<Self> {
            let mut options = Self {
                threads: 1,
                parts: ["targets", "together", "workers", "solve"]
                    .map(String::from)
                    .to_vec(),
                facts: FACTS.len(),
                file: None,
                save: None,
                sizes: vec![1536, 6400, 16384],
                columns: vec![100, 1000],
                quiet: false,
            };
            let mut arguments = std::env::args().skip(1);
            while let Some(name) = arguments.next() {
                if name == "--bench" {
                    continue; // cargo's own
                }
                let value = arguments
                    .next()
                    .with_context(|| format!("{name} needs a value"))?;
                let sizes = || value.split(',').map(str::parse).collect::<Result<_, _>>();
                match name.as_str() {
                    "--threads" => options.threads = value.parse()?,
                    "--parts" => options.parts = value.split(',').map(String::from).collect(),
                    "--facts" => options.facts = value.parse()?,
                    "--file" => options.file = Some(value.into()),
                    "--save" => options.save = Some(value.into()),
                    "--sizes" => options.sizes = sizes()?,
                    "--columns" => options.columns = sizes()?,
                    "--quiet" => options.quiet = value.parse()?,
                    _ => bail!("unknown option {name}"),
                }
            }
            Ok(options)
        }

        fn requests(&self) -> Result<Vec<Request>> {
            let Some(file) = &self.file else {
                let built_in = FACTS.iter().take(self.facts);
                return Ok(built_in
                    .map(|[prompt, subject, target]| request(prompt, subject, target))
                    .collect());
            };
            let records: Vec<Value> = serde_json::from_slice(&std::fs::read(file)?)?;
            let of = |record: &Value| -> Option<Request> {
                let rewrite = &record["requested_rewrite"];
                Some(request(
                    rewrite["prompt"].as_str()?,
                    rewrite["subject"].as_str()?,
                    rewrite["target_new"]["str"].as_str()?,
                ))
            };
            let requests = records
                .iter()
                .take(self.facts)
                .map(of)
                .collect::<Option<_>>();
            requests.context("these are no records like CounterFact's")
        }
    }

    fn request(prompt: &str, subject: &str, target: &str) -> Request {
        Request {
            prompt: prompt.into(),
            subject: subject.into(),
            target_new: target.into(),
            target_true: None,
        }
    }

    pub fn main() -> Result<()> {
        let options = Options::read()?;
        tch::set_num_threads(options.threads);
        for part in &options.parts {
            match part.as_str() {
                "solve" if options.quiet => solve_one(&options)?,
                "solve" => solves(&options)?,
                "targets" | "together" | "workers" | "child" => {
                    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(SMOLLM2);
                    if !path.exists() {
                        println!("skipped: {SMOLLM2} is missing; deploy/setup.sh brings it");
                        continue;
                    }
                    match part.as_str() {
                        "targets" => targets(&path, &options)?,
                        "together" => together(&path, &options)?,
                        "child" => child(&path, &options)?,
                        _ => workers(&options)?,
                    }
                }
                _ => bail!("unknown part {part}"),
            }
        }
        Ok(())
    }

    /// A model, and what a mass edit of it is computed with.
    struct Setting {
        model: Model,
        contexts: Vec<String>,
        hyper: Hyperparameters,
    }

    fn setting(path: &Path) -> Result<Setting> {
        let model = Model::load(&Checkpoint::open(path)?, Device::Cpu, Kind::Float)?;
        let contexts = edit::sample_openings(&model, 0, || true)?;
        let overrides = Overrides::at(LAYERS.last().copied());
        let hyper = Hyperparameters::new(Method::Memit, model.config(), &overrides)?;
        Ok(Setting {
            model,
            contexts,
            hyper,
        })
    }

    fn shared(model: &Model, contexts: &[String]) -> Result<Contexts> {
        let layers = model.config().layers;
        Ok(Contexts::read(model, contexts, layers, &Unwatched)?)
    }

    /// When each step was measured.
    struct Stepped<'a> {
        clock: &'a Clock,
        at: RefCell<Vec<f64>>,
    }

    impl Watch for Stepped<'_> {
        fn step(&self, _step: &Step) {
            self.at.borrow_mut().push(self.clock.now());
        }
    }

    fn targets(path: &Path, options: &Options) -> Result<()> {
        let clock = Clock::new(options.threads);
        let Setting {
            model,
            contexts,
            hyper,
        } = setting(path)?;
        let requests = options.requests()?;
        println!(
            "SmolLM2-135M, f32, layers {LAYERS:?}, {} facts, {} thread(s); seconds are {}",
            requests.len(),
            options.threads,
            clock.said()
        );
        if let Some(save) = &options.save {
            let facts: Vec<Value> = requests
                .iter()
                .map(|it| json!({"prompt": it.prompt, "subject": it.subject, "target_new": it.target_new}))
                .collect();
            let hyper = json!({
                "learning_rate": hyper.learning_rate, "steps": hyper.steps, "clamp": hyper.clamp,
                "weight_decay": hyper.weight_decay, "kl_factor": hyper.kl_factor, "stop_loss": hyper.stop_loss,
            });
            let all = json!({"facts": facts, "contexts": contexts, "layer": LAYERS[4], "hyper": hyper, "rome": false});
            std::fs::write(save, serde_json::to_vec(&all)?)?;
        }
        let rate = gemm(Kind::Float, &clock);
        let config = model.config();
        let block = (config.width
            * (2 * config.heads * config.head_dim + 2 * config.kv_heads * config.head_dim)
            + config.width * config.inner * if config.gated { 3 } else { 2 })
            as f64;
        let head = (config.width * config.vocab) as f64;
        let layers = config.layers as f64;
        let above = layers - 1.0 - hyper.layer as f64;
        let (shared, sharing) = clock.time(|| shared(&model, &contexts));
        let shared = shared?;
        println!("what all facts share, once a lease: {sharing:.2}");
        let mut found = Figures::default();
        for (n, request) in requests.iter().enumerate() {
            let watch = Stepped {
                clock: &clock,
                at: RefCell::default(),
            };
            let facts = std::slice::from_ref(request);
            let (target, seconds) =
                clock.time(|| edit::target(&model, facts, &shared, &hyper, &watch));
            let target = target?;
            let at = watch.at.into_inner();
            let between: Vec<f64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let steps = target.steps.len() as f64;
            let rows = rows(&model, request, &contexts)?;
            let (by_length, filled) = (by_length(&rows), filled(&rows));
            if n == 0 {
                full_pass(&model, &by_length); // memory is allotted
            }
            let apart = clock.time(|| full_pass(&model, &by_length)).1;
            let together = clock.time(|| full_pass(&model, &filled)).1;
            let full = apart.min(together) * steps;
            let tokens: f64 = rows.iter().map(|row| row.ids.len() as f64).sum();
            let moving: f64 = rows
                .iter()
                .map(|row| (row.ids.len() - row.lookup) as f64)
                .sum();
            let reads: f64 = rows.iter().map(|row| row.reads as f64).sum();
            // Section 1.11 of the definitions; the step that is only measured goes forth alone.
            let passes = 2.0 * steps - 1.0;
            let floor = tokens * hyper.layer as f64 * block
                + passes * (moving * above * block + reads * head);
            let (keys, reading) = clock.time(|| {
                edit::mass_keys(
                    &model,
                    request,
                    &shared,
                    &[hyper.layer],
                    hyper.layer,
                    &Unwatched,
                )
            });
            keys?;
            if !between.is_empty() {
                found.step.push(median(between));
            }
            found.seconds.push(seconds);
            found.steps.push(steps);
            found.ratio.push(full / seconds);
            found.share.push(floor / seconds / rate);
            found.floor.push(floor);
            found.reading.push(reading);
        }
        println!(
            "a target: {:.2} (a step {:.3}, {:.0} steps); of a full forward and backward pass of its rows a step: ratio 1/{:.1}",
            median(found.seconds.clone()),
            median(found.step),
            median(found.steps),
            median(found.ratio)
        );
        println!(
            "floor of a target: {:.0} G multiply-adds, done at {:.0} % of the machine's own rate ({:.1} G/s)",
            median(found.floor) / 1e9,
            100.0 * median(found.share),
            rate / 1e9
        );
        println!(
            "keys of a layer: {:.3}; all targets: {:.1}; most memory: {}",
            median(found.reading),
            found.seconds.iter().sum::<f64>(),
            peak_memory()
        );
        Ok(())
    }

    #[derive(Default)]
    struct Figures {
        step: Vec<f64>,
        seconds: Vec<f64>,
        steps: Vec<f64>,
        ratio: Vec<f64>,
        share: Vec<f64>,
        floor: Vec<f64>,
        reading: Vec<f64>,
    }

    /// The rows of several facts in one batch, as those of facts that share their key are.
    fn together(path: &Path, options: &Options) -> Result<()> {
        let Setting {
            model,
            contexts,
            hyper,
        } = setting(path)?;
        let hyper = Hyperparameters {
            steps: 6,
            stop_loss: -1.0,
            ..hyper
        };
        let requests = options.requests()?;
        let shared = shared(&model, &contexts)?;
        for threads in [1, 2] {
            tch::set_num_threads(threads);
            let clock = Clock::new(threads);
            let mut said = Vec::new();
            for facts in [1, 2, 4, 8] {
                let mut each = Vec::new();
                for requests in requests.chunks_exact(facts) {
                    let watch = Stepped {
                        clock: &clock,
                        at: RefCell::default(),
                    };
                    edit::target(&model, requests, &shared, &hyper, &watch)?;
                    let at = watch.at.into_inner();
                    let between = at.windows(2).map(|pair| (pair[1] - pair[0]) / facts as f64);
                    each.extend(between);
                }
                if !each.is_empty() {
                    said.push(format!("{facts}: {:.3}", median(each)));
                }
            }
            println!(
                "a step and fact, by facts in one batch, {threads} thread(s), {}: {}",
                clock.said(),
                said.join(", ")
            );
        }
        tch::set_num_threads(options.threads);
        Ok(())
    }

    /// Targets in processes of their own.
    fn workers(options: &Options) -> Result<()> {
        let run = |processes: usize, threads: i32| -> Result<f64> {
            let me = std::env::current_exe()?;
            let children = (0..processes).map(|_| {
                let mut child = Command::new(&me);
                child.args(["--parts", "child", "--threads", &threads.to_string()]);
                child.args(["--facts", &options.facts.to_string()]);
                if let Some(file) = &options.file {
                    child.arg("--file").arg(file);
                }
                child.stdout(Stdio::piped()).spawn()
            });
            let children: Vec<_> = children.collect::<Result<_, _>>()?;
            let mut slowest = 0.0_f64;
            for child in children {
                let said = child.wait_with_output()?;
                let said = String::from_utf8_lossy(&said.stdout);
                slowest = slowest.max(
                    said.trim()
                        .parse()
                        .context("a child did not say its time")?,
                );
            }
            Ok((processes * options.facts) as f64 / slowest)
        };
        let (one, wide, two) = (run(1, 1)?, run(1, 2)?, run(2, 1)?);
        println!(
            "targets a second by the clock: {one:.3} of one process; {wide:.3} with two threads (x{:.2}); {two:.3} of two \
             processes (x{:.2})",
            wide / one,
            two / one
        );
        Ok(())
    }

    fn child(path: &Path, options: &Options) -> Result<()> {
        let Setting {
            model,
            contexts,
            hyper,
        } = setting(path)?;
        let requests = options.requests()?;
        let shared = shared(&model, &contexts)?;
        let begun = Instant::now();
        for request in &requests {
            edit::target(
                &model,
                std::slice::from_ref(request),
                &shared,
                &hyper,
                &Unwatched,
            )?;
        }
        println!("{}", begun.elapsed().as_secs_f64());
        Ok(())
    }

    /// A row of a target: its tokens, where the subject ends, and how many positions are read.
    struct Row {
        ids: Vec<u32>,
        lookup: usize,
        reads: usize,
    }

    fn rows(model: &Model, request: &Request, contexts: &[String]) -> Result<Vec<Row>> {
        let tokenizer = model.tokenizer();
        let lookup = |text: &str| -> Result<usize> {
            let end = text.find(&request.subject).unwrap_or(0) + request.subject.len();
            let offsets = tokenizer.encode(text)?.offsets;
            let last = offsets
                .iter()
                .rposition(|&(from, to)| from < end && from < to);
            last.context("a subject without a token")
        };
        let mut rows = Vec::new();
        for context in contexts {
            let text = context.replacen("{}", &request.text(), 1);
            let found = tokenizer.continuation(&text, &request.target_new)?;
            rows.push(Row {
                ids: [&found.prompt, &found.target[..found.target.len() - 1]].concat(),
                lookup: lookup(&text)?,
                reads: found.target.len(),
            });
        }
        let text = format!("{} is a", request.subject);
        let at = lookup(&text)?;
        let mut ids = tokenizer.encode(&text)?.ids;
        ids.truncate(at + 1);
        rows.push(Row {
            ids,
            lookup: at,
            reads: 1,
        });
        Ok(rows)
    }

    type ByLength = BTreeMap<usize, Vec<Vec<u32>>>;

    fn by_length(rows: &[Row]) -> ByLength {
        let mut apart = ByLength::new();
        for row in rows {
            apart
                .entry(row.ids.len())
                .or_default()
                .push(row.ids.clone());
        }
        apart
    }

    /// The same in one batch, filled up to the longest: no token sees those behind it.
    fn filled(rows: &[Row]) -> ByLength {
        let longest = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
        let fill = |row: &Row| {
            let mut ids = row.ids.clone();
            ids.resize(longest, 0);
            ids
        };
        BTreeMap::from([(longest, rows.iter().map(fill).collect())])
    }

    fn full_pass(model: &Model, batch: &ByLength) {
        let mut losses = Vec::new();
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
        }
        Tensor::stack(&losses, 0).sum(Kind::Float).backward();
    }

    /// Each size in a process of its own, whose memory is that of the solve.
    fn solves(options: &Options) -> Result<()> {
        for size in &options.sizes {
            for columns in &options.columns {
                let mut child = Command::new(std::env::current_exe()?);
                child.args(["--parts", "solve", "--quiet", "true"]);
                child.args(["--threads", &options.threads.to_string()]);
                child.args([
                    "--sizes",
                    &size.to_string(),
                    "--columns",
                    &columns.to_string(),
                ]);
                if !child.status()?.success() {
                    println!("m {size}, n {columns}: failed");
                }
            }
        }
        Ok(())
    }

    fn solve_one(options: &Options) -> Result<()> {
        let (size, facts) = (options.sizes[0], options.columns[0]);
        let clock = Clock::new(options.threads);
        let rate = gemm(Kind::Double, &clock);
        let (m, n, width) = (size as f64, facts as f64, 1024);
        let before = memory("VmRSS:");
        // Of the matrices that this process has at a time, of float64 and m x m.
        let matrices = || {
            let most = (memory("VmHWM:") - before) / (m * m * 8.0);
            let _ = std::fs::write("/proc/self/clear_refs", "5");
            most
        };
        let moment = moment(size)?;
        matrices();
        let (covariance, factorising) =
            clock.time(|| KeyCovariance::in_place(moment, 0.0, Device::Cpu));
        let covariance = covariance?.context("statistics that have no factor")?;
        let to_factorise = matrices();
        let _no_grad = tch::no_grad_guard();
        let double = (Kind::Double, Device::Cpu);
        let keys = Tensor::randn([size as i64, facts as i64], double);
        let residuals = Tensor::randn([width, facts as i64], double);
        let metric = Metric::weighted(&covariance, 15000.0);
        let (solved, seconds) =
            clock.time(|| edit::solve(&metric, &keys, &residuals, Damping::Unit));
        solved?;
        let to_solve = matrices();
        // Two triangular solves, the small matrix, its factor and what it is applied to.
        let work = m * m * n + m * n * n / 2.0 + n * n * n / 6.0 + m * n * n;
        println!(
            "m {size}, n {facts}, {}: factorised once in {factorising:.2} ({:.0} % of {:.1} G multiply-adds/s), solved in \
             {seconds:.2} ({:.0} %); most memory {to_factorise:.2} m x m float64, then {to_solve:.2} with the keys",
            clock.said(),
            100.0 * m * m * m / 6.0 / factorising / rate,
            rate / 1e9,
            100.0 * work / seconds / rate,
        );
        Ok(())
    }

    /// Positive definite, not diagonal, and quickly made.
    fn moment(size: usize) -> Result<Moment> {
        let mut sum = vec![0.0; size * size];
        for row in 0..size {
            for column in 0..size {
                let apart = row.abs_diff(column) as f64;
                sum[row * size + column] = 1e6 * (-apart / 8.0).exp();
            }
        }
        Ok(Moment::new(size, sum, 1_000_000)?)
    }

    /// Multiply-adds a second of a large product.
    fn gemm(kind: Kind, clock: &Clock) -> f64 {
        let size = 1536;
        let _no_grad = tch::no_grad_guard();
        let x = Tensor::randn([size, size], (kind, Device::Cpu));
        let _ = x.matmul(&x);
        let seconds: Vec<f64> = (0..5).map(|_| clock.time(|| x.matmul(&x)).1).collect();
        (size as f64).powi(3) / median(seconds)
    }

    fn median(mut numbers: Vec<f64>) -> f64 {
        numbers.sort_by(f64::total_cmp);
        match numbers.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => numbers[n / 2],
            n => (numbers[n / 2 - 1] + numbers[n / 2]) / 2.0,
        }
    }
}
