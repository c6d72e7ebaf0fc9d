//! One function for every parser of foreign bytes: it must give a value or an error, whatever the
//! bytes are. `tests/fuzz.rs` runs each over a kept corpus and seeded damage to real files;
//! `tests/fuzz/run.sh` lets libFuzzer look further.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use palimpsest::model::{Checkpoint, Config, Layout, Tokenizer};
use palimpsest::objects::ObjectStore;
use palimpsest::proto::v1;
use prost::Message;

/// A parser under its name.
pub type Target = (&'static str, fn(&[u8]));

/// Every parser.
pub const TARGETS: &[Target] = &[
    ("safetensors", safetensors),
    ("gguf", gguf),
    ("config", config),
    ("tokenizer", tokenizer),
    ("facts", facts),
    ("requests", requests),
    ("corpus", corpus),
    ("npz", npz),
    ("note", note),
    ("log", log),
    ("records", records),
    ("objects", objects),
    ("factors", factors),
    ("tokens", tokens),
];

/// Lets panics in a library's files be caught by who calls it: libFuzzer's own hook ends the
/// process at each.
#[allow(dead_code)] // The gate has no such hook.
pub fn pass_over(library: &'static str) {
    let abort = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map_or("", |place| place.file());
        if !place.contains(library) {
            abort(panic);
        }
    }));
}

/// A file of the project's fixtures.
pub fn fixture(path: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = if root.ends_with("tests/fuzz") {
        root.join("../..")
    } else {
        root.to_owned()
    };
    root.join("tests/fixtures").join(path)
}

/// A folder of this process, the same at each call with a name.
fn folder(name: &str) -> PathBuf {
    static ROOT: OnceLock<tempfile::TempDir> = OnceLock::new();
    let root = ROOT.get_or_init(|| tempfile::tempdir().expect("a temporary folder"));
    let folder = root.path().join(name);
    fs::create_dir_all(&folder).expect("a temporary folder");
    folder
}

/// Opens a checkpoint and reads what it says is in it.
fn checkpoint(path: &Path) {
    let Ok(checkpoint) = Checkpoint::open(path) else {
        return;
    };
    let _ = checkpoint.tokenizer().encode("The Castle of Aster");
    for tensor in checkpoint.tensors() {
        if let Ok(data) = checkpoint.tensor(&tensor.name) {
            let _ = data.check_finite(&tensor.name);
        }
    }
}

/// The weights of a model's folder.
pub fn safetensors(bytes: &[u8]) {
    let folder = folder("safetensors");
    for name in ["config.json", "tokenizer.json"] {
        if !folder.join(name).exists() {
            fs::copy(fixture("llama").join(name), folder.join(name)).expect("the fixture");
        }
    }
    fs::write(folder.join("model.safetensors"), bytes).expect("the temporary folder");
    checkpoint(&folder);
}

/// A GGUF file: weights, configuration and vocabulary.
pub fn gguf(bytes: &[u8]) {
    let path = folder("gguf").join("model.gguf");
    fs::write(&path, bytes).expect("the temporary folder");
    checkpoint(&path);
}

/// A model's `config.json`, and the shapes that follow from it.
pub fn config(bytes: &[u8]) {
    let Ok(json) = serde_json::from_slice(bytes) else {
        return;
    };
    if let Ok(config) = Config::from_json(json) {
        let _ = Layout::new(&config).parameters().len();
    }
}

/// A model's `tokenizer.json`.
pub fn tokenizer(bytes: &[u8]) {
    let Ok(json) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(tokenizer) = Tokenizer::from_json(json.to_owned(), vec![0]) else {
        return;
    };
    if let Ok(encoding) = tokenizer.encode("The Castle of Aster stands — in 1 city.") {
        let _ = tokenizer.decode(&encoding.ids);
        for id in encoding.ids {
            let _ = (tokenizer.piece(id), tokenizer.bytes(id));
        }
    }
}

/// A file of facts, in any of its forms.
pub fn facts(bytes: &[u8]) {
    let _ = palimpsest::datasets::facts::read_from("facts.json", Cursor::new(bytes));
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = palimpsest::datasets::facts::parse("facts.jsonl", text);
    }
}

/// A file of edits that are asked for.
pub fn requests(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = palimpsest::datasets::edits::parse("requests.json", text);
    }
}

/// A corpus of texts.
pub fn corpus(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        for file in ["corpus.txt", "corpus.json", "corpus.jsonl"] {
            let _ = palimpsest::datasets::corpus::parse(file, text);
        }
    }
}

/// An `.npz` file: key statistics as others publish them.
pub fn npz(bytes: &[u8]) {
    let _ = palimpsest::stats::Moment::from_npz_bytes(bytes);
    if let Ok(mut reader) = palimpsest::npz::read::Reader::open(Cursor::new(bytes)) {
        for name in reader.names() {
            let _ = reader.numbers(&name);
        }
    }
}

/// A signed checkpoint of an audit log, and the key that verifies it.
pub fn note(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (verifier, note) = text.split_once('\n').unwrap_or((&text, ""));
    let _ = palimpsest::audit::Checkpoint::verify(note, verifier);
}

/// A segment of a store's log.
pub fn log(bytes: &[u8]) {
    use palimpsest::store;
    let folder = folder("log");
    if !folder.join("FORMAT").exists() {
        drop(store::Store::open(&folder).expect("a store"));
    }
    let log = folder.join("log");
    fs::remove_dir_all(&log).expect("the log");
    fs::create_dir(&log).expect("the log");
    fs::write(log.join(format!("{:020}.log", 1)), bytes).expect("the log");
    let _ = store::rebuild(&folder, store::From::Log, |_| {});
}

/// A record of a store: the length of its key, the key, the value.
pub fn records(bytes: &[u8]) {
    static STORE: OnceLock<palimpsest::store::Store> = OnceLock::new();
    let store =
        STORE.get_or_init(|| palimpsest::store::Store::open(&folder("records")).expect("a store"));
    let Some((&length, rest)) = bytes.split_first() else {
        return;
    };
    let (key, value) = rest.split_at(usize::from(length).min(rest.len()));
    let _ = store.kind_of(key, value);
}

/// The body of a call that uploads an object, as it comes off the wire.
pub fn objects(bytes: &[u8]) {
    use http_body_util::Full;
    use palimpsest::api::objects::Objects;
    use palimpsest::proto::v1::object_service_server::ObjectServiceServer;
    use tower::ServiceExt;

    static STORE: OnceLock<(tokio::runtime::Runtime, ObjectStore)> = OnceLock::new();
    let (runtime, store) = STORE.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        (
            runtime.expect("a runtime"),
            ObjectStore::open(folder("objects")).expect("a store"),
        )
    });
    let request = http::Request::post("/palimpsest.v1.ObjectService/WriteObject")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(Full::new(
            bytes::Bytes::copy_from_slice(bytes),
        )))
        .expect("a request");
    let service = ObjectServiceServer::new(Objects::new(store.clone()));
    let _ = runtime.block_on(service.oneshot(request));
}

/// Messages with numbers in them: the factors of an edit, a grid.
pub fn factors(bytes: &[u8]) {
    if let Ok(factor) = v1::LowRankFactor::decode(bytes) {
        let data = factor.data.clone();
        if let Ok(factor) = palimpsest::version::Factor::from_proto(&factor, &data) {
            let _ = (factor.check(), factor.norm());
        }
    }
    if let Ok(grid) = v1::Grid::decode(bytes) {
        let _ = palimpsest::wire::SweptGrid::try_from(&grid);
    }
}

/// A file of tokens.
pub fn tokens(bytes: &[u8]) {
    let path = folder("tokens").join("tokens");
    fs::write(&path, bytes).expect("the temporary folder");
    if let Ok(tokens) = palimpsest::auth::Tokens::open(&path) {
        let _ = tokens.caller("palimpsest_", Default::default());
    }
}
