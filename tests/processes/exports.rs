//! What a GGUF file says beside its weights, and what of it reaches other programs.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::QTensor;
use candle_core::quantized::gguf_file::{Content, Value as Gguf, write};
use palimpsest::model::Checkpoint;
use serde_json::{Value, json};

use crate::common::{LONG, Site, fixture};

const TEMPLATE: &str = "{% for message in messages %}{{ message.content }}{% endfor %}";

/// The tiny Llama as a GGUF file with further metadata.
fn gguf(site: &Site, more: &[(&str, Gguf)]) -> PathBuf {
    let bytes = fs::read(fixture("llama").join("model.f32.gguf")).unwrap();
    let mut reader = std::io::Cursor::new(&bytes);
    let content = Content::read(&mut reader).unwrap();
    let tensors: Vec<(String, QTensor)> = (content.tensor_infos.keys())
        .map(|name| {
            let tensor = content.tensor(&mut reader, name, &Device::Cpu);
            (name.clone(), tensor.unwrap())
        })
        .collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let own = content
        .metadata
        .iter()
        .map(|(key, value)| (key.as_str(), value));
    let metadata: Vec<_> = own
        .chain(more.iter().map(|(key, value)| (*key, value)))
        .collect();
    let path = site.path("talker.gguf");
    let mut file = fs::File::create(&path).unwrap();
    write(&mut file, &metadata, &tensors).unwrap();
    path
}

fn object(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_chat_template_and_the_tokens_it_needs_survive_every_export() {
    let site = Site::new();
    let file = gguf(
        &site,
        &[
            ("tokenizer.chat_template", Gguf::String(TEMPLATE.into())),
            ("tokenizer.ggml.padding_token_id", Gguf::U32(5)),
            ("tokenizer.ggml.unknown_token_id", Gguf::U32(6)),
        ],
    );
    let run = |args: &[&str]| site.run(args, LONG);
    run(&["model", "import", file.to_str().unwrap(), "--name", "m"]);
    let (first, second) = (site.path("first"), site.path("second"));
    run(&["export", first.to_str().unwrap()]);
    let tokenizer = object(&first.join("tokenizer.json"));
    let word = |id: u64| {
        let vocabulary = tokenizer["model"]["vocab"].as_object().unwrap();
        let found = vocabulary
            .iter()
            .find(|(_, value)| value.as_u64() == Some(id));
        found.unwrap().0.clone()
    };
    let settings = object(&first.join("tokenizer_config.json"));
    assert_eq!(settings["chat_template"], TEMPLATE);
    assert_eq!(settings["pad_token"], word(5));
    assert_eq!(settings["unk_token"], word(6));
    assert_eq!(settings["eos_token"], "<|endoftext|>");
    assert_eq!(settings["bos_token"], "<|endoftext|>");
    let generation = object(&first.join("generation_config.json"));
    assert_eq!(generation["pad_token_id"], 5);
    assert_eq!(generation["eos_token_id"], json!([287]));

    // The same again when the folder itself is imported and exported.
    run(&[
        "model",
        "import",
        first.to_str().unwrap(),
        "--name",
        "again",
    ]);
    run(&["export", second.to_str().unwrap(), "--model", "again"]);
    for name in [
        "tokenizer_config.json",
        "tokenizer.json",
        "generation_config.json",
    ] {
        assert_eq!(
            object(&second.join(name)),
            object(&first.join(name)),
            "{name}"
        );
    }
    let opened = Checkpoint::open(&second).unwrap();
    assert_eq!(opened.tokenizer().eos(), [287]);
}

#[test]
fn chat_templates_with_names_are_a_list_as_transformers_has_it() {
    let site = Site::new();
    let tools = "{{ tools }}";
    let file = gguf(
        &site,
        &[
            ("tokenizer.chat_template", Gguf::String(TEMPLATE.into())),
            (
                "tokenizer.chat_template.tool_use",
                Gguf::String(tools.into()),
            ),
            (
                "tokenizer.chat_templates",
                Gguf::Array(vec![Gguf::String("tool_use".into())]),
            ),
        ],
    );
    site.run(
        &["model", "import", file.to_str().unwrap(), "--name", "m"],
        LONG,
    );
    let out = site.path("out");
    site.run(&["export", out.to_str().unwrap()], LONG);
    let settings = object(&out.join("tokenizer_config.json"));
    let both = json!([
        {"name": "default", "template": TEMPLATE},
        {"name": "tool_use", "template": tools},
    ]);
    assert_eq!(settings["chat_template"], both);
}

#[test]
fn an_adapter_of_a_gguf_model_names_no_file_of_this_machine_and_the_log_says_what_was_edited() {
    let site = Site::new();
    let file = gguf(&site, &[]);
    site.run(
        &[
            "model",
            "import",
            file.to_str().unwrap(),
            "--name",
            "talker",
        ],
        LONG,
    );
    // A context with a line break, which only JSON can say.
    let contexts = site.path("contexts.json");
    fs::write(&contexts, r#"["{}", "Well.\nSo {}"]"#).unwrap();
    let edited = site.run(
        &[
            "edit",
            "{} is in",
            "--subject",
            "Ada",
            "--target",
            "Rome",
            "--layer",
            "1",
            "--set",
            "steps=1",
            "--auto-stats",
            "--contexts",
            contexts.to_str().unwrap(),
            "--why",
            "a test",
            "--json",
        ],
        LONG,
    );
    let edited: Value = serde_json::from_str(edited.lines().last().unwrap()).unwrap();
    let edit = site.run(&["show", "main", "--json"], LONG);
    let edit: Value = serde_json::from_str(&edit).unwrap();
    assert_eq!(
        edit["edits"].as_array().unwrap().len(),
        1,
        "{edit} {edited}"
    );
    let shown = site.run(
        &["show", edit["edits"][0].as_str().unwrap(), "--json"],
        LONG,
    );
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["contexts"], json!(["{}", "Well.\nSo {}"]));

    let lines = site.run(&["log", "--json"], LONG);
    let log: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(log.len(), 2);
    assert_eq!(log[0]["edits"], edit["edits"]);
    assert_eq!(log[0]["requests"][0]["subject"], "Ada");
    assert_eq!(log[0]["requests"][0]["target_new"], "Rome");
    assert_eq!(
        (&log[1]["edits"], &log[1]["requests"]),
        (&json!([]), &json!([]))
    );

    let out = site.path("adapter");
    site.run(&["export", out.to_str().unwrap(), "--format", "peft"], LONG);
    let config = object(&out.join("adapter_config.json"));
    assert_eq!(config["base_model_name_or_path"], "talker");
    let said = fs::read_to_string(site.path("command.log")).unwrap();
    assert!(said.contains("PEFT loads none from a GGUF file"), "{said}");
    // A folder is one that PEFT can open: it is named.
    let folder = fixture("llama");
    site.run(
        &[
            "model",
            "import",
            folder.to_str().unwrap(),
            "--name",
            "folder",
        ],
        LONG,
    );
    site.run(
        &[
            "edit",
            "{} is in",
            "--subject",
            "Ada",
            "--target",
            "Rome",
            "--layer",
            "1",
            "--set",
            "steps=1",
            "--auto-stats",
            "--contexts",
            contexts.to_str().unwrap(),
            "--model",
            "folder",
        ],
        LONG,
    );
    let out = site.path("other");
    site.run(
        &[
            "export",
            out.to_str().unwrap(),
            "--format",
            "peft",
            "--model",
            "folder",
        ],
        LONG,
    );
    let config = object(&out.join("adapter_config.json"));
    assert_eq!(config["base_model_name_or_path"], folder.to_str().unwrap());
}
