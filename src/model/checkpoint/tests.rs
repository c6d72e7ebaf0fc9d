//! Folders that people have, and what is stored in them beside what a configuration calls for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::families;
use super::Checkpoint;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// A copy of a fixture's configuration, tokenizer and weights.
fn copy(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture(name)).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap();
        let name = file.to_str().unwrap();
        if name.starts_with("model") && name.contains("safetensors")
            || ["config.json", "tokenizer.json"].contains(&name)
        {
            fs::copy(&path, folder.path().join(file)).unwrap();
        }
    }
    folder
}

/// A stored tensor: its type, its shape, its bytes.
type Stored = (Dtype, Vec<usize>, Vec<u8>);

/// Writes a model's one file anew, with other tensors.
fn rewrite(folder: &TempDir, edit: impl FnOnce(&mut BTreeMap<String, Stored>)) {
    let file = folder.path().join("model.safetensors");
    let bytes = fs::read(&file).unwrap();
    let read = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: BTreeMap<String, Stored> = (read.tensors().into_iter())
        .map(|(name, view)| {
            let (shape, data) = (view.shape().to_vec(), view.data().to_vec());
            (name, (view.dtype(), shape, data))
        })
        .collect();
    edit(&mut tensors);
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    fs::write(file, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn set(folder: &TempDir, field: &str, value: Value) {
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config[field] = value;
    fs::write(path, config.to_string()).unwrap();
}

fn refused(folder: &TempDir) -> String {
    Checkpoint::open(folder.path()).unwrap_err().to_string()
}

#[test]
fn a_stored_head_counts_where_it_is_not_the_embedding_and_is_the_embedding_where_it_is_equal() {
    let tied = Checkpoint::open(&fixture("gpt2")).unwrap();
    assert!(tied.config().tied);
    let embedding = tied.tensor("transformer.wte.weight").unwrap();
    let (equal, shape) = (embedding.bytes.to_vec(), embedding.shape.clone());
    let with = |bytes: &[u8], dtype: Dtype, shape: &[usize]| {
        let folder = copy("gpt2");
        rewrite(&folder, |tensors| {
            let head = (dtype, shape.to_vec(), bytes.to_vec());
            tensors.insert("lm_head.weight".into(), head);
        });
        folder
    };
    let copied = with(&equal, Dtype::F32, &shape);
    let checkpoint = Checkpoint::open(copied.path()).unwrap();
    assert!(checkpoint.config().tied && checkpoint.tensor("lm_head.weight").is_err());

    let mut other = equal.clone();
    other.rotate_left(64);
    let own = with(&other, Dtype::F32, &shape);
    let checkpoint = Checkpoint::open(own.path()).unwrap();
    assert!(!checkpoint.config().tied);
    assert_eq!(
        checkpoint.tensor("lm_head.weight").unwrap().bytes.to_vec(),
        other
    );

    // The same numbers in another format are equal only where nothing was rounded.
    let rounded: Vec<u8> = (embedding.to_f32().iter())
        .flat_map(|x| half::bf16::from_f32(*x).to_le_bytes())
        .collect();
    let folder = with(&rounded, Dtype::BF16, &shape);
    assert!(!Checkpoint::open(folder.path()).unwrap().config().tied);
    let said = refused(&with(&equal, Dtype::F32, &[shape[1], shape[0]]));
    assert!(said.contains("lm_head.weight"), "{said}");

    let folder = copy("gpt2");
    rewrite(&folder, |tensors| {
        tensors.insert(
            "lm_head.bias".into(),
            (Dtype::F32, vec![288], vec![0; 288 * 4]),
        );
    });
    let said = refused(&folder);
    assert!(
        said.contains("lm_head.bias") && said.contains("no place"),
        "{said}"
    );
}

#[test]
fn a_tied_gptj_keeps_the_bias_of_its_head() {
    let folder = copy("gptj");
    set(&folder, "tie_word_embeddings", json!(true));
    rewrite(&folder, |tensors| {
        tensors.remove("lm_head.weight").unwrap();
    });
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let whole = Checkpoint::open(&fixture("gptj")).unwrap();
    assert!(checkpoint.config().tied);
    assert_eq!(
        checkpoint.tensor("lm_head.bias").unwrap(),
        whole.tensor("lm_head.bias").unwrap()
    );
    rewrite(&folder, |tensors| {
        tensors.remove("lm_head.bias").unwrap();
    });
    let said = refused(&folder);
    assert!(
        said.contains("lm_head.bias") && said.contains("missing"),
        "{said}"
    );
}

#[test]
fn a_single_file_comes_before_the_index_that_an_earlier_model_left() {
    let single = copy("llama");
    for file in [
        "model.safetensors.index.json",
        "model-00001-of-00004.safetensors",
    ] {
        fs::copy(fixture("llama-linear").join(file), single.path().join(file)).unwrap();
    }
    let checkpoint = Checkpoint::open(single.path()).unwrap();
    let names: Vec<&str> = (checkpoint.files().iter())
        .map(|path| path.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["config.json", "tokenizer.json", "model.safetensors"]
    );
    let alone = Checkpoint::open(&fixture("llama")).unwrap();
    let norm = "model.norm.weight";
    assert_eq!(
        checkpoint.tensor(norm).unwrap(),
        alone.tensor(norm).unwrap()
    );
}

#[test]
fn a_folder_that_cannot_be_read_says_what_is_there_and_what_helps() {
    let spoiled = |file: &str, text: &str, taken: Option<&str>| {
        let folder = copy("llama");
        if let Some(taken) = taken {
            fs::remove_file(folder.path().join(taken)).unwrap();
        }
        fs::write(folder.path().join(file), text).unwrap();
        refused(&folder)
    };
    let weights = "model.safetensors";
    let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    let adapter = r#"{"base_model_name_or_path": "org/base"}"#;
    for (said, word) in [
        (spoiled(weights, lfs, None), "git lfs pull"),
        (spoiled("config.json", lfs, None), "git lfs pull"),
        (
            spoiled(weights, "<!DOCTYPE html><html>", None),
            "a web page",
        ),
        (
            spoiled("vocab.json", "{}", Some("tokenizer.json")),
            "AutoTokenizer",
        ),
        (
            spoiled("model.fp16.safetensors", "x", Some(weights)),
            "model.fp16.safetensors",
        ),
        (
            spoiled("a.gguf", "GGUF", Some(weights)),
            "name the file itself",
        ),
        (
            spoiled("adapter_config.json", adapter, Some(weights)),
            "org/base",
        ),
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn what_python_writes_for_no_number_and_no_token_is_read() {
    let folder = copy("llama");
    let text = r#"{"eos_token_id": 3, "temperature": NaN, "x": "NaN", "top_p": -Infinity}"#;
    fs::write(folder.path().join("generation_config.json"), text).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.tokenizer().eos(), [3]);
    let folder = copy("llama");
    set(&folder, "eos_token_id", json!(-1));
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert!(checkpoint.tokenizer().eos().is_empty());
}

#[test]
fn experts_in_mxfp4_are_one_tensor_each_and_half_of_one_is_refused() {
    let packed = Checkpoint::open(&fixture("gpt-oss-mxfp4")).unwrap();
    let name = "model.layers.0.mlp.experts.down_proj";
    let tensor = packed.tensor(name).unwrap();
    assert_eq!(tensor.shape, [4, 32, 32]);
    // One of sixteen numbers, times 2 to the power of -4 to -2.
    let known = |x: f32| {
        let times = [4, 8, 16].map(|power| (x.abs() * power as f32).to_bits());
        let numbers = [0.0f32, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0].map(f32::to_bits);
        times.iter().any(|x| numbers.contains(x))
    };
    assert!(tensor.to_f32().into_iter().all(known));
    let folder = copy("gpt-oss-mxfp4");
    rewrite(&folder, |tensors| {
        tensors.remove(&format!("{name}_scales")).unwrap();
    });
    let said = refused(&folder);
    let named = said.contains(&format!("{name}_blocks")) && said.contains("U8");
    assert!(named, "{said}");
}

#[test]
fn the_names_of_experts_say_of_which_layer_they_are() {
    for name in [
        "mixtral",
        "qwen3-moe",
        "qwen3-moe-sparse",
        "gpt-oss",
        "qwen3",
    ] {
        let checkpoint = Checkpoint::open(&fixture(name)).unwrap();
        let config = checkpoint.config();
        for layer in 0..config.layers {
            let mut tensors = checkpoint.tensors();
            let named = tensors.any(|it| families::layer_of_experts(&it.name) == Some(layer));
            assert_eq!(named, config.experts_of(layer).is_some(), "{name} {layer}");
            assert_eq!(named, checkpoint.down_projection(layer).is_err());
        }
    }
}
