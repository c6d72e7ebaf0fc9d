//! What opening a checkpoint accepts, and what it says about one that is not right.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::quantized::gguf_file::{Content, Value as Gguf, write};
use candle_core::quantized::{GgmlDType, QTensor};
use palimpsest::model::tokenizer::GgufVocabulary;
use palimpsest::model::{Checkpoint, Config, Tokenizer};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/fixtures").join(name)
}

/// A copy of a fixture's checkpoint to spoil.
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

#[track_caller]
fn refused(path: &Path, words: &[&str]) {
    let error = Checkpoint::open(path).unwrap_err().to_string();
    for word in words {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
}

/// Rewrites the header of a safetensors file.
fn edit_header(file: &Path, edit: impl FnOnce(&mut Map<String, Value>)) {
    let bytes = fs::read(file).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    edit(&mut header);
    let mut text = serde_json::to_vec(&header).unwrap();
    while !text.len().is_multiple_of(8) {
        text.push(b' ');
    }
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.extend(text);
    out.extend(&bytes[8 + length..]);
    fs::write(file, out).unwrap();
}

fn edit_config(folder: &Path, edit: impl FnOnce(&mut Map<String, Value>)) {
    let path = folder.join("config.json");
    let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut config);
    fs::write(path, serde_json::to_vec(&config).unwrap()).unwrap();
}

#[test]
fn sharded_folders_open_and_list_their_files() {
    let checkpoint = Checkpoint::open(&fixture("llama-linear")).unwrap();
    let names: Vec<_> = checkpoint
        .files()
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(names[..2], ["config.json", "tokenizer.json"]);
    assert!(names.len() > 4, "{names:?}");
    for info in checkpoint.tensors() {
        let data = checkpoint.tensor(&info.name).unwrap();
        let elements: usize = data.shape.iter().product();
        assert_eq!(data.to_f32().len(), elements);
        data.check_finite(&info.name).unwrap();
    }
}

#[test]
fn names_without_the_prefix_old_buffers_and_a_second_copy_of_a_tied_head_are_fine() {
    let folder = copy("gpt2");
    edit_header(&folder.path().join("model.safetensors"), |header| {
        let old: Vec<String> = header.keys().cloned().collect();
        for name in old {
            if let Some(bare) = name.strip_prefix("transformer.") {
                let entry = header.remove(&name).unwrap();
                header.insert(bare.to_owned(), entry);
            }
        }
        let mut head = header["wte.weight"].clone();
        header.insert("lm_head.weight".into(), head.clone());
        head["dtype"] = json!("U32");
        header.insert("h.0.attn.bias".into(), head);
    });
    // safetensors itself refuses tensors that share bytes.
    refused(folder.path(), &["model.safetensors", "offset"]);
    let file = folder.path().join("model.safetensors");
    edit_header(&file, |header| {
        header.shift_remove("lm_head.weight");
        header.shift_remove("h.0.attn.bias");
    });
    let one = Checkpoint::open(folder.path()).unwrap();
    let other = Checkpoint::open(&fixture("gpt2")).unwrap();
    for info in other.tensors() {
        assert_eq!(
            one.tensor(&info.name).unwrap(),
            other.tensor(&info.name).unwrap()
        );
    }
    // Append real bytes for both.
    let size = fs::metadata(&file).unwrap().len();
    let bytes = fs::read(&file).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    let end = size - 8 - length;
    let embedding = other.tensor("transformer.wte.weight").unwrap();
    fs::write(&file, [&bytes, &*embedding.bytes, &[0; 16]].concat()).unwrap();
    edit_header(&file, |header| {
        let head = end + 288 * 32 * 4;
        header.insert(
            "lm_head.weight".into(),
            json!({"dtype": "F32", "shape": [288, 32], "data_offsets": [end, head]}),
        );
        header.insert(
            "h.0.attn.bias".into(),
            json!({"dtype": "BOOL", "shape": [16], "data_offsets": [head, head + 16]}),
        );
    });
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert!(checkpoint.tensor("lm_head.weight").is_err());
}

#[test]
fn files_that_are_cut_short_or_nonsense_are_named() {
    let folder = copy("llama");
    let file = folder.path().join("model.safetensors");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 10]).unwrap();
    refused(
        folder.path(),
        &[
            "model.safetensors",
            "not a valid safetensors file",
            "fetch it again",
        ],
    );
    fs::write(&file, b"").unwrap();
    refused(folder.path(), &["cut short or empty", "fetch it again"]);
    let long = [&(1u64 << 40).to_le_bytes(), &bytes[8..]].concat();
    fs::write(&file, long).unwrap();
    refused(folder.path(), &["model.safetensors", "header"]);
    fs::write(&file, b"").unwrap();
    refused(folder.path(), &["model.safetensors"]);
    fs::remove_file(&file).unwrap();
    refused(folder.path(), &["neither model.safetensors nor"]);
    fs::write(folder.path().join("pytorch_model.bin"), b"x").unwrap();
    refused(folder.path(), &["pytorch_model.bin", "safe_serialization"]);
    refused(&folder.path().join("nowhere"), &["nowhere", "No such file"]);
}

#[test]
fn tensors_must_be_those_of_the_configuration() {
    let spoil = |edit: &dyn Fn(&mut Map<String, Value>), words: &[&str]| {
        let folder = copy("llama");
        edit_header(&folder.path().join("model.safetensors"), edit);
        refused(folder.path(), words);
    };
    let norm = "model.layers.1.input_layernorm.weight";
    let rename = |header: &mut Map<String, Value>, to: &str| {
        let entry = header.remove(norm).unwrap();
        header.insert(to.into(), entry);
    };
    spoil(
        &|h| rename(h, "model.layers.1.other.weight"),
        &[norm, "missing", "[32]"],
    );
    spoil(
        &|h| h[norm]["shape"] = json!([4, 8]),
        &[norm, "[4, 8]", "calls for [32]"],
    );
    spoil(
        &|h| h[norm]["dtype"] = json!("I32"),
        &[norm, "I32", "F32, F16, BF16"],
    );
    let folder = copy("llama");
    edit_config(folder.path(), |config| {
        config["num_hidden_layers"] = json!(2);
    });
    refused(
        folder.path(),
        &["model.layers.2", "no place in a llama model"],
    );
}

#[test]
fn an_index_is_held_against_its_shards() {
    let spoil = |edit: &dyn Fn(&mut Value), words: &[&str]| {
        let folder = copy("llama-linear");
        let path = folder.path().join("model.safetensors.index.json");
        let mut index = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut index);
        fs::write(&path, serde_json::to_vec(&index).unwrap()).unwrap();
        refused(folder.path(), words);
    };
    let norm = "model.norm.weight";
    spoil(
        &|index| index["weight_map"][norm] = json!("absent.safetensors"),
        &["index.json", "absent.safetensors", "does not exist"],
    );
    spoil(
        &|index| index["weight_map"][norm] = json!("../secret.safetensors"),
        &["../secret.safetensors", "not a plain file name"],
    );
    spoil(
        &|index| index["weight_map"]["made.up"] = index["weight_map"][norm].clone(),
        &["made.up", "where it is not"],
    );
    spoil(&|index| index["weight_map"] = json!(3), &["weight_map"]);
}

#[test]
fn configurations_are_not_guessed_at() {
    let base = |family: &str| -> Map<String, Value> {
        let text = fs::read(fixture(family).join("config.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    let spoil = |family: &str, field: &str, value: Value, words: &[&str]| {
        let mut json = base(family);
        json.insert(field.into(), value);
        let error = Config::from_json(json).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{word:?} is not in: {error}");
        }
    };
    spoil(
        "llama",
        "model_type",
        json!("mamba"),
        &["mamba", "gpt2", "phi3"],
    );
    spoil("llama", "alibi", json!(true), &["alibi", "true", "llama"]);
    spoil(
        "llama",
        "hidden_act",
        json!("xielu"),
        &["hidden_act", "xielu", "silu"],
    );
    spoil(
        "llama",
        "num_key_value_heads",
        json!(3),
        &["num_key_value_heads", "divisor"],
    );
    spoil(
        "llama",
        "hidden_size",
        Value::Null,
        &["hidden_size", "missing"],
    );
    spoil(
        "llama",
        "hidden_size",
        json!("big"),
        &["hidden_size", "big"],
    );
    spoil("llama", "head_dim", json!(7), &["rotary", "7"]);
    spoil(
        "llama",
        "rms_norm_eps",
        json!(-1.0),
        &["rms_norm_eps", "above 0"],
    );
    spoil(
        "llama",
        "rope_parameters",
        json!({"rope_type": "longrope", "factor": 4.0}),
        &["rope_type", "longrope", "llama3"],
    );
    spoil(
        "llama",
        "rope_parameters",
        json!({"rope_type": "linear"}),
        &["rope_parameters.factor"],
    );
    spoil(
        "llama",
        "rope_parameters",
        json!({"rope_type": "default", "beta_fast": 32}),
        &["beta_fast"],
    );
    spoil(
        "llama",
        "quantization_config",
        json!({"bits": 4}),
        &["quantization_config", "bits"],
    );
    spoil(
        "gpt2",
        "scale_attn_by_inverse_layer_idx",
        json!(true),
        &["true", "false"],
    );
    spoil("gpt2", "n_head", json!(5), &["n_head", "5", "32"]);
    spoil(
        "gpt2",
        "add_cross_attention",
        json!(true),
        &["add_cross_attention"],
    );
    spoil(
        "gemma3",
        "layer_types",
        json!(["full_attention"]),
        &["layer_types", "3 times"],
    );
    spoil("gemma2", "sliding_window", json!(0), &["sliding_window"]);
}

#[test]
fn infinities_are_found_where_they_are() {
    let folder = copy("llama");
    let file = folder.path().join("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&file, bytes).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let errors: Vec<String> = checkpoint
        .tensors()
        .filter_map(|info| {
            let data = checkpoint.tensor(&info.name).unwrap();
            data.check_finite(&info.name).err().map(|e| e.to_string())
        })
        .collect();
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].contains("NaN") && errors[0].contains("model."),
        "{errors:?}"
    );
    #[cfg(feature = "torch")]
    {
        use palimpsest::model::Model;
        let model = Model::load(&checkpoint, tch::Device::Cpu, tch::Kind::Float);
        assert_eq!(model.unwrap_err().to_string(), errors[0]);
    }
}

type Metadata = Vec<(String, Gguf)>;
type Tensors = Vec<(String, QTensor)>;

/// The llama fixture's GGUF, rewritten.
fn gguf(edit: impl FnOnce(&mut Metadata, &mut Tensors)) -> tempfile::NamedTempFile {
    let mut file = fs::File::open(fixture("llama/model.f32.gguf")).unwrap();
    let content = Content::read(&mut file).unwrap();
    let read = |name: &String| {
        let tensor = content.tensor(&mut &file, name, &Device::Cpu).unwrap();
        (name.clone(), tensor)
    };
    let mut tensors: Tensors = content.tensor_infos.keys().map(read).collect();
    let mut metadata: Metadata = content.metadata.clone().into_iter().collect();
    edit(&mut metadata, &mut tensors);
    let metadata: Vec<(&str, &Gguf)> = metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let mut out = tempfile::NamedTempFile::new().unwrap();
    write(out.as_file_mut(), &metadata, &tensors).unwrap();
    out
}

fn set(metadata: &mut Metadata, key: &str, value: Gguf) {
    metadata.retain(|(k, _)| k != key);
    metadata.push((key.into(), value));
}

#[test]
fn gguf_files_that_are_not_right_are_named() {
    let spoil = |key: &str, value: Gguf, words: &[&str]| {
        let file = gguf(|metadata, _| set(metadata, key, value));
        refused(file.path(), words);
    };
    let text = |text: &str| Gguf::String(text.into());
    spoil(
        "general.architecture",
        text("mamba"),
        &["mamba", "bloom as GGUF; other families as safetensors"],
    );
    spoil(
        "tokenizer.ggml.pre",
        text("chameleon"),
        &["chameleon", "smollm"],
    );
    spoil("tokenizer.ggml.model", text("bert"), &["bert", "gpt2"]);
    spoil("llama.expert_count", Gguf::U32(8), &["llama.expert_count"]);
    spoil(
        "llama.rope.dimension_count",
        Gguf::U32(4),
        &["rope.dimension_count", "4", "8"],
    );
    spoil(
        "llama.rope.scaling.type",
        text("longrope"),
        &["rope.scaling.type", "longrope"],
    );
    spoil(
        "llama.attention.head_count",
        Gguf::U32(0),
        &["llama.attention.head_count", "0"],
    );
    spoil(
        "llama.block_count",
        Gguf::U32(4),
        &["model.layers.3", "missing"],
    );
    spoil(
        "llama.feed_forward_length",
        Gguf::U32(16),
        &["shape [32, 32]", "[16, 32]"],
    );
    spoil("general.alignment", Gguf::U32(0), &["GGUF"]);
    spoil(
        "llama.attention.layer_norm_rms_epsilon",
        Gguf::F32(f32::NAN),
        &["rms_epsilon", "NaN", "finite"],
    );
    spoil(
        "llama.rope.freq_base",
        text("500000"),
        &["rope.freq_base", "500000", "number"],
    );
    spoil(
        "split.count",
        Gguf::U16(3),
        &["3 parts", "NAME-00001-of-00003.gguf"],
    );
    spoil(
        "tokenizer.ggml.add_eos_token",
        Gguf::Bool(true),
        &["add_eos_token"],
    );
    let file = gguf(|metadata, _| metadata.retain(|(key, _)| key != "llama.context_length"));
    refused(file.path(), &["llama.context_length", "missing"]);
    let file = gguf(|metadata, _| metadata.retain(|(key, _)| key != "tokenizer.ggml.merges"));
    refused(file.path(), &["tokenizer.ggml.merges", "single bytes"]);

    // The number of a tensor's type is the fifth after its name: dimensions, sizes of two of them.
    let mut typed = fs::read(fixture("llama/model.f32.gguf")).unwrap();
    let name = b"blk.0.ffn_up.weight";
    let at = typed.windows(name.len()).position(|w| w == name).unwrap() + name.len() + 4 + 16;
    typed[at..at + 4].copy_from_slice(&20_u32.to_le_bytes());
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), typed).unwrap();
    refused(file.path(), &["IQ4_NL", "Q4_0", "another quantisation"]);

    let whole = fs::read(fixture("llama/model.f32.gguf")).unwrap();
    let cut = tempfile::NamedTempFile::new().unwrap();
    for length in [0, 3, 20, 500, whole.len() / 2, whole.len() - 64] {
        fs::write(cut.path(), &whole[..length]).unwrap();
        let error = Checkpoint::open(cut.path()).unwrap_err().to_string();
        assert!(
            error.contains("GGUF") || error.contains("cut short"),
            "{length}: {error}"
        );
    }
}

/// A number of rows of 256 that are, in turn, the two blocks of a K-quant (see
/// `fixtures/make_kquants.py`), and what their numbers are.
fn k_quant(file: &[u8], kind: GgmlDType, rows: usize) -> (QTensor, Vec<f32>) {
    let arrays = safetensors::SafeTensors::deserialize(file).unwrap();
    let name = format!("{kind:?}").to_lowercase().replace('k', "_k");
    let array = |part: &str| {
        arrays
            .tensor(&format!("{name}.{part}"))
            .unwrap()
            .data()
            .to_vec()
    };
    let blocks = array("blocks").repeat(rows / 2);
    let values: Vec<f32> = array("values")
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    let dims = vec![rows, 256];
    (
        qtensor_from_ggml(kind, &blocks, dims, &Device::Cpu).unwrap(),
        values,
    )
}

#[test]
fn k_quants_are_read_as_the_numbers_they_stand_for() {
    let blocks = fs::read(fixture("kquants.safetensors")).unwrap();
    let matrices = [
        ("attn_q", "self_attn.q_proj", GgmlDType::Q4K, 256),
        ("attn_k", "self_attn.k_proj", GgmlDType::Q4K, 128),
        ("attn_v", "self_attn.v_proj", GgmlDType::Q5K, 128),
        ("attn_output", "self_attn.o_proj", GgmlDType::Q6K, 256),
        ("ffn_gate", "mlp.gate_proj", GgmlDType::Q2K, 256),
        ("ffn_up", "mlp.up_proj", GgmlDType::Q3K, 256),
        ("ffn_down", "mlp.down_proj", GgmlDType::Q6K, 256),
    ];
    let file = gguf(|metadata, tensors| {
        for (key, value) in [
            ("embedding_length", 256),
            ("feed_forward_length", 256),
            ("rope.dimension_count", 64),
            ("block_count", 1),
        ] {
            set(metadata, &format!("llama.{key}"), Gguf::U32(value));
        }
        let ones = |shape: &[usize]| {
            let ones = candle_core::Tensor::ones(shape, candle_core::DType::F32, &Device::Cpu);
            QTensor::quantize(&ones.unwrap(), GgmlDType::F32).unwrap()
        };
        tensors.clear();
        tensors.push(("token_embd.weight".into(), ones(&[288, 256])));
        for norm in ["output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"] {
            tensors.push((format!("{norm}.weight"), ones(&[256])));
        }
        for (name, _, kind, rows) in matrices {
            tensors.push((
                format!("blk.0.{name}.weight"),
                k_quant(&blocks, kind, rows).0,
            ));
        }
    });
    let checkpoint = Checkpoint::open(file.path()).unwrap();
    for (_, name, kind, rows) in matrices {
        let name = format!("model.layers.0.{name}.weight");
        let data = checkpoint.tensor(&name).unwrap();
        assert_eq!(data.shape, [rows, 256], "{name}");
        let found: Vec<f32> = data
            .bytes
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        let values = k_quant(&blocks, kind, rows).1;
        for (row, found) in found.chunks(256).enumerate() {
            // Queries and keys: the even rows of each head of 64 come first (see the reader).
            let paired = name.contains("q_proj") || name.contains("k_proj");
            let block = if paired { row % 64 / 32 } else { row % 2 };
            for (found, value) in found.iter().zip(&values[block * 256..]) {
                let close = (found - value).abs() <= 1e-6 * value.abs().max(0.1);
                assert!(close, "{name}, {kind:?}, row {row}: {found} is not {value}");
            }
        }
    }
}

/// gguf-py's parts of a model in one file.
#[test]
fn the_parts_of_a_gguf_file_are_one_model_whichever_is_named() {
    let part = |n: usize| format!("parts-{n:05}-of-00003.gguf");
    let folder = tempfile::tempdir().unwrap();
    let at = |n: usize| folder.path().join(part(n));
    let fresh = || {
        for n in 1..=3 {
            fs::copy(fixture("llama").join(part(n)), at(n)).unwrap();
        }
    };
    fresh();
    let whole = Checkpoint::open(&fixture("llama/model.q8_0.gguf")).unwrap();
    for n in 1..=3 {
        let parts = Checkpoint::open(&at(n)).unwrap();
        assert_eq!(parts.files(), [at(1), at(2), at(3)]);
        assert!(parts.tensors().eq(whole.tensors()));
        for info in whole.tensors() {
            let (a, b) = (whole.tensor(&info.name), parts.tensor(&info.name));
            assert!(a.unwrap() == b.unwrap(), "{}", info.name);
        }
    }

    fs::remove_file(at(2)).unwrap();
    let missing = ["part 2 of 3", "parts-00002-of-00003.gguf", "one folder"];
    refused(&at(1), &missing);
    fs::copy(at(3), at(2)).unwrap();
    refused(&at(1), &["00002-of-00003", "is not part 2 of 3"]);
    fresh();
    fs::rename(at(3), folder.path().join("third.gguf")).unwrap();
    refused(
        &folder.path().join("third.gguf"),
        &["one of 3 parts", "NAME-00001-of-00003.gguf"],
    );
    fresh();
    // The second part of another model, with fewer tensors.
    let mut file = fs::File::open(at(2)).unwrap();
    let content = Content::read(&mut file).unwrap();
    let metadata: Vec<(&str, &Gguf)> = (content.metadata.iter())
        .map(|(key, value)| (key.as_str(), value))
        .collect();
    write(&mut fs::File::create(at(2)).unwrap(), &metadata, &[]).unwrap();
    refused(&at(1), &["00001-of-00003", "tensors in place of", "anew"]);
    fresh();
    let bytes = fs::read(at(3)).unwrap();
    fs::write(at(3), &bytes[..bytes.len() - 64]).unwrap();
    refused(&at(1), &["00003-of-00003", "cut short"]);
}

#[test]
fn gguf_frequency_tensors_are_read_as_the_rule_they_came_from() {
    let with = |divisors: Vec<f32>| {
        let tensor = candle_core::Tensor::new(divisors, &Device::Cpu).unwrap();
        let tensor = QTensor::quantize(&tensor, GgmlDType::F32).unwrap();
        gguf(|_, tensors| tensors.push(("rope_freqs.weight".into(), tensor)))
    };
    // Llama 3.1's rule (factor 8, 1 to 4 turns in 8192 tokens) on this model's four frequencies,
    // base 10,000: wavelengths 6.3, 63, 628 and 6283 tokens, of which the last turns 1.3 times and
    // so lies on the ramp.
    let smooth: f32 = (8192.0 / (std::f32::consts::TAU * 1000.0) - 1.0) / 3.0;
    let ramp = 1.0 / ((1.0 - smooth) / 8.0 + smooth);
    let file = with(vec![1.0, 1.0, 1.0, ramp]);
    let config = Checkpoint::open(file.path()).unwrap().config().clone();
    assert_eq!(config.json["rope_scaling"]["rope_type"], "llama3");
    assert_eq!(config.json["rope_scaling"]["factor"], 8.0);
    refused(
        with(vec![1.0, 2.0, 3.0, 4.0]).path(),
        &["rope_freqs.weight", "safetensors"],
    );
}

#[test]
fn yarn_of_a_gguf_file_is_that_of_a_configuration() {
    let file = gguf(|metadata, _| {
        set(
            metadata,
            "llama.rope.scaling.type",
            Gguf::String("yarn".into()),
        );
        set(metadata, "llama.rope.scaling.factor", Gguf::F32(4.0));
        let original = "llama.rope.scaling.original_context_length";
        set(metadata, original, Gguf::U32(16));
    });
    let read = Checkpoint::open(file.path()).unwrap();
    let folder = Checkpoint::open(&fixture("llama")).unwrap();
    let mut json = folder.config().json.clone();
    json["rope_parameters"] = serde_json::json!({
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
        "original_max_position_embeddings": 16,
    });
    let wanted = Config::from_json(json).unwrap();
    assert_eq!(read.config().attention, wanted.attention);
    assert_ne!(read.config().attention, folder.config().attention);
}

#[test]
fn every_end_that_a_gguf_file_names_ends_a_continuation() {
    let file = gguf(|metadata, _| {
        set(metadata, "tokenizer.ggml.eos_token_id", Gguf::U32(7));
        set(metadata, "tokenizer.ggml.eot_token_id", Gguf::U32(8));
        set(metadata, "tokenizer.ggml.eom_token_id", Gguf::U32(9));
        set(metadata, "tokenizer.ggml.fim_pad_token_id", Gguf::U32(10));
        // These only name what a prompt may have in it.
        set(metadata, "tokenizer.ggml.fim_pre_token_id", Gguf::U32(11));
        set(metadata, "tokenizer.ggml.padding_token_id", Gguf::U32(12));
    });
    let checkpoint = Checkpoint::open(file.path()).unwrap();
    let ends = checkpoint.tokenizer().eos();
    assert_eq!(ends[..4], [7, 8, 9, 10]);
    for other in [11, 12] {
        assert!(!ends.contains(&other), "{ends:?}");
    }
}

fn sentence_piece() -> GgufVocabulary {
    let tokens = [
        "<unk>", "<s>", "</s>", "<0xE2>", "<0x82>", "<0xAC>", "▁", "a", "b", "c", "ab", "bc", "▁a",
        "▁ab", "▁abc",
    ];
    let scores = [
        0., 0., 0., 0., 0., 0., -10., -11., -12., -13., -2., -1., -3., -4., -5.,
    ];
    let types = [2, 3, 3, 6, 6, 6, 1, 1, 1, 1, 1, 1, 1, 1, 1];
    GgufVocabulary {
        model: "llama".into(),
        tokens: tokens.map(String::from).to_vec(),
        scores: scores.to_vec(),
        types: types.to_vec(),
        bos: Some(1),
        eos: vec![2],
        unknown: Some(0),
        add_space_prefix: true,
        ..GgufVocabulary::default()
    }
}

#[test]
fn sentence_piece_vocabularies_merge_by_score() {
    let tokenizer = Tokenizer::from_gguf(sentence_piece()).unwrap();
    // `bc` (-1) comes before `ab` (-2), then `▁a` (-3), then the two of them (-5).
    let encoding = tokenizer.encode("abc b€").unwrap();
    let pieces: Vec<String> = encoding.ids.iter().map(|&id| tokenizer.piece(id)).collect();
    assert_eq!(encoding.ids, [1, 14, 6, 8, 3, 4, 5], "{pieces:?}");
    assert_eq!(tokenizer.bytes(4), [0x82]);
    // The euro sign's three bytes, one by one.
    assert_eq!(encoding.offsets[4..], [(5, 6), (6, 7), (7, 8)]);
    assert_eq!(tokenizer.decode(&encoding.ids[1..]).unwrap(), "abc b€");
    let plain = GgufVocabulary {
        add_bos: Some(false),
        ..sentence_piece()
    };
    assert_eq!(
        Tokenizer::from_gguf(plain)
            .unwrap()
            .encode("ab")
            .unwrap()
            .ids,
        [13]
    );
    let twice = GgufVocabulary {
        tokens: vec!["a".into(), "a".into()],
        scores: vec![0.0; 2],
        types: vec![1; 2],
        ..sentence_piece()
    };
    let error = Tokenizer::from_gguf(twice).unwrap_err().to_string();
    assert!(error.contains("both id 0 and id 1"), "{error}");
}

#[test]
fn each_name_of_a_pre_tokenizer_cuts_as_its_model_does() {
    let pieces = |pre: &str, text: &str| {
        // Digits, and the two bytes of a composed letter with an accent, as byte-level BPE writes them.
        let tokens = [
            "1", "2", "3", "4", "5", "34", "12", "123", "45", "Ã", "©", "e", "Ì", "ģ", "i", "W",
            "iW", ",", "i,",
        ];
        let tokenizer = Tokenizer::from_gguf(GgufVocabulary {
            model: "gpt2".into(),
            pre: Some(pre.into()),
            tokens: tokens.map(String::from).to_vec(),
            merges: ["3 4", "1 2", "12 3", "4 5", "i W", "i ,"]
                .map(String::from)
                .to_vec(),
            types: vec![1; tokens.len()],
            add_bos: Some(false),
            ..GgufVocabulary::default()
        });
        let tokenizer = tokenizer.unwrap();
        let ids = tokenizer.encode(text).unwrap().ids;
        ids.iter()
            .map(|&id| tokens[id as usize])
            .collect::<Vec<_>>()
            .join(" ")
    };
    for (pre, digits) in [
        ("gpt-2", "12 34 5"),
        ("phi-2", "12 34 5"),
        ("olmo", "12 34 5"),
        // In threes.
        ("falcon", "123 45"),
        // One by one.
        ("smollm", "1 2 3 4 5"),
        ("starcoder", "1 2 3 4 5"),
        ("refact", "1 2 3 4 5"),
        ("command-r", "1 2 3 4 5"),
        ("qwen2", "1 2 3 4 5"),
        ("stablelm2", "1 2 3 4 5"),
        ("deepseek-r1-qwen", "1 2 3 4 5"),
        ("tekken", "1 2 3 4 5"),
        ("llama-bpe", "123 45"),
        ("falcon3", "123 45"),
        ("dbrx", "123 45"),
        ("smaug-bpe", "123 45"),
        ("gpt-4o", "123 45"),
        ("bloom", "12 34 5"),
    ] {
        assert_eq!(pieces(pre, "12345"), digits, "{pre}");
        let composed = pieces(pre, "e\u{301}") == "Ã ©";
        let composes = ["olmo", "qwen2", "command-r", "stablelm2"];
        assert_eq!(composed, composes.contains(&pre), "{pre}");
        let by_case = ["tekken", "gpt-4o"].contains(&pre);
        let word = if by_case { "i W" } else { "iW" };
        assert_eq!(pieces(pre, "iW"), word, "{pre}");
        assert_eq!(pieces(pre, "i,W"), "i , W", "{pre}");
    }
}

#[test]
fn a_rebuilt_tokenizer_survives_its_own_file() {
    let one = Tokenizer::from_gguf(sentence_piece()).unwrap();
    let other = Tokenizer::from_json(one.to_json().to_owned(), vec![2]).unwrap();
    for text in ["abc b€", "", "  cab", "<s>a</s>"] {
        assert_eq!(one.encode(text).unwrap(), other.encode(text).unwrap());
    }
}

#[test]
fn ids_beyond_the_embedding_are_refused() {
    let folder = copy("llama");
    let path = folder.path().join("tokenizer.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let mut token = json["added_tokens"][0].clone();
    token["id"] = json!(288);
    token["content"] = json!("<image>");
    json["added_tokens"].as_array_mut().unwrap().push(token);
    fs::write(&path, serde_json::to_vec(&json).unwrap()).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let error = checkpoint
        .tokenizer()
        .encode("a <image>")
        .unwrap_err()
        .to_string();
    assert!(error.contains("288"), "{error}");
    fs::remove_file(&path).unwrap();
    refused(folder.path(), &["has no tokenizer.json", "save_pretrained"]);
}
