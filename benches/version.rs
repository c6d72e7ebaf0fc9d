//! How long a version takes: materialising it, verified, and moving a ref to it.
//!
//! ```text
//! cargo bench --bench version
//! cargo bench --bench version -- --edits 1000 --width 1600 --inner 6400 --threads 2
//! cargo bench --bench version -- --only-grow --grow 10000
//! ```
//!
//! The matrix is of GPT-2 XL's shape, in its orientation. Every run is materialised twice and the
//! digests are compared. The clock's time is that of a machine which may be busy with other
//! things, so the best of the runs is given.

#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods)] // a bench is about time

use std::borrow::Cow;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser;
use palimpsest::client::upload;
use palimpsest::embedded::Embedded;
use palimpsest::model::{Checkpoint, DType, TensorData};
use palimpsest::objects::Digest;
use palimpsest::proto::v1;
use palimpsest::version::{Factor, materialise};

#[derive(Parser)]
struct Args {
    /// Edits of rank one
    #[arg(long, default_value_t = 1000)]
    edits: usize,
    /// What the matrix gives
    #[arg(long, default_value_t = 1600)]
    width: usize,
    /// What it takes
    #[arg(long, default_value_t = 6400)]
    inner: usize,
    /// Threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Runs, of which the best counts
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Versions of a tiny model that are made before a ref is moved over all of them
    #[arg(long, default_value_t = 1000)]
    versions: usize,
    /// Single edits on one ref of a tiny model
    #[arg(long, default_value_t = 10_000)]
    grow: usize,
    /// Nothing but that
    #[arg(long)]
    only_grow: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    if args.only_grow {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(growing(&args));
    }
    materialising(&args);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(moving(&args));
    runtime.block_on(growing(&args));
    #[cfg(feature = "torch")]
    switching(&args);
}

/// A worker's model moved to a version and back, against loading it anew.
#[cfg(feature = "torch")]
fn switching(args: &Args) {
    use palimpsest::version::Base;
    use palimpsest::worker::{LeasedVersion, Loaded};

    const SMOLLM2: &str = ".deps/SmolLM2-135M-Instruct.Q4_1.gguf";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(SMOLLM2);
    if !path.exists() {
        println!("\nskipped: {SMOLLM2} is missing; deploy/setup.sh brings it");
        return;
    }
    tch::set_num_threads(args.threads as i32);
    let base = Base::new(Checkpoint::open(&path).unwrap());
    let down = base.checkpoint().layout().layers[5]
        .down()
        .unwrap()
        .weight
        .clone();
    let mut sequence = Sequence(3);
    let load = || Loaded::open(&path, &[tch::Device::Cpu], v1::Dtype::F32).unwrap();
    let mut loading = Duration::MAX;
    for _ in 0..args.runs {
        let start = Instant::now();
        drop(load());
        loading = loading.min(start.elapsed());
    }
    println!("\nSmolLM2-135M loaded anew: {:.3} s", loading.as_secs_f64());
    let mut loaded = load();
    for edits in [1, 100] {
        let (mut forth, mut back) = (Duration::MAX, Duration::MAX);
        for _ in 0..args.runs {
            // Others every time: what was made of these would be gone on with.
            let factors: Vec<Factor> = (0..edits)
                .map(|_| {
                    let left = sequence.take(down.shape[0], 1e-3);
                    Factor::rank_one(&down.name, 5, left, sequence.take(down.shape[1], 1e-3))
                })
                .collect();
            let matrices = base.matrices(&factors).unwrap();
            let name = format!("models/m/versions/{edits}");
            let there = LeasedVersion::new(name, matrices, factors);
            let start = Instant::now();
            loaded.switch(&there).unwrap();
            forth = forth.min(start.elapsed());
            let start = Instant::now();
            loaded.switch(&LeasedVersion::default()).unwrap();
            back = back.min(start.elapsed());
        }
        println!(
            "switched to a version with {edits} rank-one edits of a matrix: {:.1} ms, its digest checked; back to the base: {:.1} ms",
            forth.as_secs_f64() * 1e3,
            back.as_secs_f64() * 1e3
        );
    }
}

/// Numbers of a fixed sequence, around zero.
struct Sequence(u32);

impl Sequence {
    fn take(&mut self, count: usize, scale: f32) -> Vec<f32> {
        (0..count)
            .map(|_| {
                self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                ((self.0 >> 8) as f32 / 16_777_216.0 - 0.5) * scale
            })
            .collect()
    }
}

fn materialising(args: &Args) {
    let mut sequence = Sequence(1);
    let factors: Vec<Factor> = (0..args.edits)
        .map(|_| {
            let (left, right) = (
                sequence.take(args.width, 0.1),
                sequence.take(args.inner, 0.1),
            );
            Factor::rank_one("w", 0, left, right)
        })
        .collect();
    let listed: Vec<&Factor> = factors.iter().collect();
    let numbers = sequence.take(args.width * args.inner, 1.0);
    let multiplies = (args.edits * args.width * args.inner) as f64;
    println!(
        "{} rank-one edits of a {} x {} matrix, {} threads",
        args.edits, args.inner, args.width, args.threads
    );
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let bytes: Vec<u8> = match dtype {
            DType::F32 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
            DType::BF16 => numbers
                .iter()
                .flat_map(|&x| half::bf16::from_f32(x).to_le_bytes())
                .collect(),
            DType::F16 => numbers
                .iter()
                .flat_map(|&x| half::f16::from_f32(x).to_le_bytes())
                .collect(),
        };
        let base = TensorData {
            dtype,
            shape: vec![args.inner, args.width],
            bytes: Cow::Owned(bytes),
        };
        let mut best = Duration::MAX;
        let mut digest = None;
        for _ in 0..args.runs.max(2) {
            let start = Instant::now();
            let made = materialise("w", &base, true, &listed, args.threads).unwrap();
            best = best.min(start.elapsed());
            let expected = *digest.get_or_insert(made.digest);
            assert_eq!(made.digest, expected, "I11");
        }
        println!(
            "  {dtype:>4}: {:.3} s, digest included; {:.1} G multiplications and additions a second",
            best.as_secs_f64(),
            multiplies / best.as_secs_f64() / 1e9
        );
    }
}

/// A tiny model in a store of its own.
struct Site {
    _folder: tempfile::TempDir,
    store: std::path::PathBuf,
    embedded: Embedded,
    /// The matrix that is edited, and its sizes.
    down: (String, Vec<usize>),
    sequence: Sequence,
}

impl Site {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().to_owned();
        let embedded = Embedded::start(&store, palimpsest::store::Options::default()).unwrap();
        let client = embedded.client().clone();
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama");
        let checkpoint = Checkpoint::open(&fixture).unwrap();
        let mut files = Vec::new();
        for path in checkpoint.files() {
            let digest = Digest::of_file(path).unwrap();
            upload(client.objects(), &digest, path, |_| {})
                .await
                .unwrap();
            files.push(v1::model::File {
                file_name: path.file_name().unwrap().to_str().unwrap().to_owned(),
                digest: digest.to_string(),
                size: std::fs::metadata(path).unwrap().len(),
                source_path: String::new(),
            });
        }
        let weight = &checkpoint.layout().layers[0].down().unwrap().weight;
        let down = (weight.name.clone(), weight.shape.clone());
        let model = v1::Model {
            family: "llama".to_owned(),
            shape: Some(v1::model::Shape {
                layers: 1,
                width: 1,
                vocabulary: 1,
                context: 1,
                block_parameters: 1,
                ..Default::default()
            }),
            files,
            ..Default::default()
        };
        let request = v1::CreateModelRequest {
            model_id: "m".to_owned(),
            model: Some(model),
        };
        client.models().create_model(request).await.unwrap();
        Self {
            _folder: folder,
            store,
            embedded,
            down,
            sequence: Sequence(2),
        }
    }

    /// One more edit of rank one on main, of one fact.
    async fn edit(&mut self) -> v1::Version {
        let left = self.sequence.take(self.down.1[0], 1e-3);
        let right = self.sequence.take(self.down.1[1], 1e-3);
        let edit = v1::Edit {
            method: "import".to_owned(),
            requests: vec![v1::EditRequest {
                prompt: "{} is located in the city of".to_owned(),
                subject: format!("Tower {:08}", self.sequence.0),
                target_new: " Rome".to_owned(),
                ..Default::default()
            }],
            factors: vec![Factor::rank_one(&self.down.0, 0, left, right).to_proto()],
            ..Default::default()
        };
        let request = v1::CreateEditRequest {
            parent: "models/m".to_owned(),
            source: Some(v1::create_edit_request::Source::Edit(edit)),
            why: String::new(),
            ..Default::default()
        };
        let made = self.embedded.client().versions().create_edit(request).await;
        made.unwrap().into_inner().version.unwrap()
    }

    /// Bytes of the files of the store: of all of it, and of its log alone.
    fn bytes(&self) -> (u64, u64) {
        fn of(folder: &Path) -> u64 {
            let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
            let bytes = entries.map(|entry| match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => of(&entry.path()),
                Ok(metadata) => metadata.len(),
                Err(_) => 0,
            });
            bytes.sum()
        }
        (of(&self.store), of(&self.store.join("log")))
    }
}

/// Single edits on one ref, one after another: what each costs and what they cost together.
async fn growing(args: &Args) {
    let mut site = Site::new().await;
    let (before, _) = site.bytes();
    println!("\nsingle edits on one ref, of a tiny model");
    let client = site.embedded.client().clone();
    let mut took = Vec::new();
    for count in 1..=args.grow {
        let start = Instant::now();
        site.edit().await;
        took.push(start.elapsed());
        if ![100, 1000, 3000, 10_000].contains(&count) && count != args.grow {
            continue;
        }
        let mut last = took.split_off(took.len().saturating_sub(100));
        last.sort();
        took.clear();
        let (bytes, log) = site.bytes();
        let bytes = bytes - before;
        println!(
            "{count:>6} edits: store {:.1} MB, its log {:.1} MB; CreateEdit {:.1} ms, the median of the last",
            bytes as f64 / 1e6,
            log as f64 / 1e6,
            last[last.len() / 2].as_secs_f64() * 1e3
        );
        let ms = |start: Instant| start.elapsed().as_secs_f64() * 1e3;
        let start = Instant::now();
        let mut listed = 0;
        client
            .each_version("models/m", |_| {
                listed += 1;
                true
            })
            .await
            .unwrap();
        let log = ms(start);
        assert_eq!(listed, count + 1);
        let start = Instant::now();
        let (mut compared, mut page_token) = (0, String::new());
        loop {
            let request = v1::CompareVersionsRequest {
                left: "models/m/versions/v0".to_owned(),
                right: "models/m/versions/main".to_owned(),
                page_token,
                ..Default::default()
            };
            let page = client.versions().compare_versions(request).await.unwrap();
            let page = page.into_inner();
            compared += page.right_edits.len();
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let diff = ms(start);
        assert_eq!(compared, count);
        let start = Instant::now();
        client.all_refs("models/m").await.unwrap();
        let refs = ms(start);
        let start = Instant::now();
        let request = v1::GetVersionRequest {
            name: "models/m/versions/main".to_owned(),
            without_edits: false,
        };
        client.versions().get_version(request).await.unwrap();
        let shown = ms(start);
        println!(
            "               log of all of them {log:.0} ms, diff v0 main with all of them {diff:.0} ms, refs {refs:.1} ms, GetVersion {shown:.1} ms"
        );
    }
    site.embedded.stop().await;
}

/// A rollback over many versions, as a client sees it.
async fn moving(args: &Args) {
    let mut site = Site::new().await;
    let client = site.embedded.client().clone();
    let start = Instant::now();
    let mut last = v1::Version::default();
    for _ in 0..args.versions {
        last = site.edit().await;
    }
    println!(
        "\n{} edits of a tiny model, one after another, each a durable version: {:.1} ms each",
        args.versions,
        start.elapsed().as_secs_f64() * 1e3 / args.versions as f64
    );
    for (what, to) in [
        ("back over all of them to the base", "v0".to_owned()),
        ("forth to the last", format!("v{}", last.number)),
    ] {
        let mut best = Duration::MAX;
        for _ in 0..args.runs {
            let asked = v1::Ref {
                name: "models/m/refs/main".to_owned(),
                version: format!("models/m/versions/{to}"),
                ..Default::default()
            };
            let request = v1::UpdateRefRequest {
                r#ref: Some(asked),
                force: false,
            };
            let start = Instant::now();
            client.versions().update_ref(request).await.unwrap();
            best = best.min(start.elapsed());
        }
        println!(
            "main moved {what}: {:.1} ms a call",
            best.as_secs_f64() * 1e3
        );
    }
    site.embedded.stop().await;
}
