//! Well-formed inputs to begin from, made from the fixtures and by the writers of the same forms.

use std::fs;

use palimpsest::objects::Digest;
use palimpsest::proto::v1;
use prost::Message;

use super::parsers::fixture;

/// The seeds of a parser.
pub fn of(name: &str) -> Vec<Vec<u8>> {
    let read = |path: &str| fs::read(fixture(path)).expect("a fixture");
    let text = |text: &str| text.as_bytes().to_vec();
    match name {
        "safetensors" => vec![read("llama/model.safetensors")],
        "gguf" => vec![read("llama/model.q8_0.gguf"), read("gpt2/model.q8_0.gguf")],
        "config" => [
            "gpt2",
            "gptj",
            "gemma2",
            "gemma3",
            "llama-llama3",
            "phi3",
            "qwen3",
            "gpt-neox-parallel",
            "olmo3",
            "smollm3",
            "granite",
            "opt",
            "gpt-neo",
            "phi",
            "starcoder2",
            "cohere2",
            "falcon-new",
            "bloom",
            "mixtral",
            "qwen3-moe",
            "gpt-oss",
        ]
        .iter()
        .flat_map(|family| {
            [
                read(&format!("{family}/config.json")),
                read(&format!("{family}/config.v4.json")),
            ]
        })
        .collect(),
        "tokenizer" => vec![read("tokenizer.json")],
        "facts" => vec![
            text(
                r#"[{"known_id": 1, "subject": "Aster", "attribute": "Nowhere", "template": "{} is in", "prediction": " Nowhere", "prompt": "Aster is in", "relation_id": "P1"}]"#,
            ),
            text(
                "{\"prompt\": \"Aster is in\", \"subject\": \"Aster\", \"id\": \"a\"}\n{\"prompt\": \"B is\", \"subject\": \"B\"}\n",
            ),
            text(
                r#"[{"case_id": 0, "requested_rewrite": {"prompt": "{} is in", "relation_id": "P1", "target_new": {"str": "A", "id": "Q1"}, "target_true": {"str": "B", "id": "Q2"}, "subject": "Aster"}, "paraphrase_prompts": ["x"], "neighborhood_prompts": ["y"]}]"#,
            ),
        ],
        "requests" => vec![
            text(
                r#"[{"case_id": 0, "requested_rewrite": {"prompt": "{} is in", "relation_id": "P1", "target_new": {"str": "A", "id": "Q1"}, "target_true": {"str": "B", "id": "Q2"}, "subject": "Aster"}, "paraphrase_prompts": ["x"], "neighborhood_prompts": ["y"], "attribute_prompts": [], "generation_prompts": ["z"]}]"#,
            ),
            text(
                r#"[{"case_id": 1, "prompt": "Aster is in", "target_new": "A", "subject": "Aster", "ground_truth": "B", "rephrase_prompt": "x", "locality_prompt": "y", "locality_ground_truth": "c"}]"#,
            ),
            text(
                r#"[{"subject": "Aster", "src": "Where is Aster?", "pred": "B", "rephrase": "x", "alt": "A", "answers": ["B"], "loc": "nq question: y", "loc_ans": "c"}]"#,
            ),
        ],
        "corpus" => vec![
            text("One text.\n\nAnother text."),
            text(r#"["One text.", {"text": "Another."}]"#),
            text("{\"text\": \"One\"}\n{\"text\": \"Another\"}\n"),
        ],
        "npz" => vec![
            palimpsest::stats::Moment::new(2, vec![1.0, 0.5, 0.5, 2.0], 3)
                .map(|moment| moment.to_npz().expect("an archive"))
                .expect("a moment"),
        ],
        "note" => {
            let signer = palimpsest::audit::Signer::generate("a key".as_ref()).expect("a key");
            vec![format!("{}\n{}", signer.verifier(), signer.sign(7, &[3; 32])).into_bytes()]
        }
        "log" | "records" => {
            let (log, records) = stored();
            if name == "log" { vec![log] } else { records }
        }
        "objects" => vec![upload(b"abc", 0), upload(&[7; 3000], 0), upload(b"abc", 1)],
        "factors" => {
            let data: Vec<u8> = [1.0f32, 2.0, 3.0]
                .iter()
                .flat_map(|x| x.to_le_bytes())
                .collect();
            let factor = v1::LowRankFactor {
                tensor_name: "w".into(),
                layer: 1,
                width: 1,
                inner: 2,
                rank: 1,
                digest: Digest::of(&data).to_string(),
                data,
            };
            let grid = v1::Grid {
                fact: Some(v1::Fact {
                    prompt: "Aster is".into(),
                    subject: "Aster".into(),
                    ..Default::default()
                }),
                kind: v1::Kind::Mlp as i32,
                token_ids: vec![1, 2],
                ..Default::default()
            };
            vec![factor.encode_to_vec(), grid.encode_to_vec()]
        }
        "tokens" => {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let path = folder.path().join("tokens");
            let caller = palimpsest::auth::Caller {
                role: palimpsest::auth::Role::Editor,
                principal: "ada".into(),
            };
            palimpsest::auth::issue(&path, &caller, None).expect("a token");
            vec![fs::read(&path).expect("the file")]
        }
        _ => Vec::new(),
    }
}

/// The body of a call that uploads these bytes, from an offset on.
fn upload(bytes: &[u8], offset: u64) -> Vec<u8> {
    let message = v1::WriteObjectRequest {
        digest: Digest::of(bytes).to_string(),
        size: bytes.len() as u64,
        offset,
        data: bytes[offset as usize..].to_vec(),
    }
    .encode_to_vec();
    let mut body = vec![0];
    body.extend((message.len() as u32).to_be_bytes());
    body.extend(message);
    body
}

/// The log and the records of the kept store, brought to today's format.
fn stored() -> (Vec<u8>, Vec<Vec<u8>>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = fs::File::open(fixture("store-format-1/store.zip")).expect("a fixture");
    let mut archive = zip::ZipArchive::new(file).expect("an archive");
    archive.extract(folder.path()).expect("the archive's files");
    drop(palimpsest::store::Store::open(folder.path()).expect("a store"));
    let mut files: Vec<_> = fs::read_dir(folder.path().join("log"))
        .expect("the log")
        .map(|file| file.expect("a file").path())
        .collect();
    files.sort();
    let log = files.iter().map(|file| fs::read(file).expect("a file"));
    let log = log.max_by_key(Vec::len).expect("a segment");

    let index = sled::open(folder.path().join("records")).expect("the index");
    // One of each kind, by the first byte of the key.
    let mut records: Vec<Vec<u8>> = Vec::new();
    for record in index.iter() {
        let (key, value) = record.expect("a record");
        if records
            .last()
            .is_some_and(|last| last.get(1) == key.first())
        {
            continue;
        }
        let length = u8::try_from(key.len()).expect("a short key");
        records.push([&[length][..], &key, &value].concat());
    }
    (log, records)
}
