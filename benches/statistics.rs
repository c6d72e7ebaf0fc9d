//! What key statistics cost: the keys of a corpus through the model up to the last layer asked, and
//! their sums of squares.
//!
//! ```text
//! cargo bench --bench statistics -- --file corpus.json
//! cargo bench --bench statistics -- --file corpus.json --layers 4,5,6,7,8 --threads 2 --save ours.npz
//! ```
//!
//! A corpus is a JSON list of texts, or of objects with a `Text`; without one it is the licence. The
//! floor is what must be multiplied: every token through the blocks up to the last layer's key, and
//! half of each symmetric product of keys. `published_statistics.py` does the same in the published
//! way, and compares the sums of `--save`. With one thread (the default) times are CPU time.
#![allow(clippy::disallowed_methods)] // a bench measures time

#[cfg(not(feature = "torch"))]
fn main() {
    eprintln!("skipped: statistics need the feature `torch`");
}

#[cfg(feature = "torch")]
fn main() -> anyhow::Result<()> {
    bench::main()
}

#[cfg(feature = "torch")]
mod clock;

#[cfg(feature = "torch")]
mod bench {
    use std::path::{Path, PathBuf};

    use anyhow::{Context, Result, bail};
    use palimpsest::model::{Checkpoint, Model, Products};
    use palimpsest::stats::{Collector, pieces};
    use tch::{Device, Kind, Tensor};

    use crate::clock::{Clock, peak_memory};

    const SMOLLM2: &str = ".deps/SmolLM2-135M-Instruct.Q4_1.gguf";

    struct Options {
        threads: i32,
        layers: Vec<usize>,
        file: Option<PathBuf>,
        save: Option<PathBuf>,
        /// Times all is done; the median counts.
        turns: usize,
    }

    impl Options {
        fn read() -> Result<Self> {
            let mut options = Self {
                threads: 1,
                layers: vec![6],
                file: None,
                save: None,
                turns: 3,
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
                    "--layers" => {
                        let layers = value.split(',').map(str::parse);
                        options.layers = layers.collect::<Result<_, _>>()?;
                    }
                    "--file" => options.file = Some(value.into()),
                    "--save" => options.save = Some(value.into()),
                    "--turns" => options.turns = value.parse::<usize>()?.max(1),
                    _ => bail!("unknown option {name}"),
                }
            }
            Ok(options)
        }

        fn texts(&self, root: &Path) -> Result<Vec<String>> {
            let Some(file) = &self.file else {
                return Ok(vec![std::fs::read_to_string(root.join("LICENSE-APACHE"))?]);
            };
            let list: Vec<serde_json::Value> = serde_json::from_slice(&std::fs::read(file)?)?;
            let text = |entry: &serde_json::Value| {
                let text = entry.as_str().or_else(|| entry["Text"].as_str());
                Ok(text.context("an entry without a text")?.to_owned())
            };
            list.iter().map(text).collect()
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
        let texts = options.texts(root)?;
        let clock = Clock::new(options.threads);
        let mut seconds = Vec::new();
        let mut moments = Vec::new();
        for _ in 0..options.turns {
            let (found, spent) = clock.time(|| -> Result<_> {
                let mut collector = Collector::new(&model, &options.layers)?;
                for text in &texts {
                    for piece in pieces(&model, text, 512)? {
                        collector.add(&piece, |_| true)?;
                    }
                }
                Ok(collector.finish(|_| true)?)
            });
            moments = found?;
            seconds.push(spent);
        }
        seconds.sort_by(f64::total_cmp);
        let median = seconds[seconds.len() / 2];
        let tokens = moments.first().context("give at least one layer")?.count() as f64;

        let config = model.config();
        let heads = 2 * (config.heads + config.kv_heads) * config.head_dim;
        let up = config.inner * if config.gated { 2 } else { 1 };
        let attended = config.width * heads;
        let block = attended + config.width * (up + config.inner);
        let last = options.layers.iter().max().copied().unwrap_or_default();
        let squares = options.layers.len() * config.inner * config.inner / 2;
        let each = last * block + attended + config.width * up + squares;
        let floor = tokens * each as f64;
        let rate = rate(&clock);
        println!(
            "SmolLM2-135M, f32, layers {:?}, {} thread(s), {}: {} texts, {tokens} tokens: median {median:.2} s of {}, {:.0} \
             tokens/s; floor {:.0} G multiply-adds, done at {:.0} % of the machine's own rate ({:.1} G/s); most memory {}",
            options.layers,
            options.threads,
            clock.said(),
            texts.len(),
            options.turns,
            tokens / median,
            floor / 1e9,
            100.0 * floor / median / rate,
            rate / 1e9,
            peak_memory(),
        );
        if let Some(file) = &options.save {
            std::fs::write(file, moments[0].to_npz()?)?;
        }
        Ok(())
    }

    /// Multiply-adds a second of a large product of the models' own kind.
    fn rate(clock: &Clock) -> f64 {
        let _no_grad = tch::no_grad_guard();
        let size = 1536;
        let x = Tensor::randn([size, size], (Kind::Float, Device::Cpu));
        let _ = Products::linear(&x, &x);
        let spent = (0..5).map(|_| clock.time(|| Products::linear(&x, &x)).1);
        (size as f64).powi(3) / spent.fold(f64::INFINITY, f64::min)
    }
}
