//! GGUF's names, orientations and row orders, and transformers'.
//!
//! A tensor has its name in GGUF by what it does in the model, whatever its family: so the names
//! follow from the [`Layout`], and no family has a list of its own.

use super::super::super::config::{Config, Family, NormKind};
use super::super::super::families::{Layout, Linear, Mlp, Norm, Parameter, Qkv, Up};

/// What llama.cpp's converter does with the values of a tensor on their way to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// Nothing.
    Not,
    /// They lie the other way round: the `Conv1D`s of GPT-2.
    Transposed,
    /// The rows of each of so many heads are in pairs that are rotated together, where transformers
    /// has the halves of a head apart.
    Pairs(usize),
    /// All queries, then all keys, then all values, where transformers has them head by head.
    ByPart,
    /// One is added: what a norm multiplies with is stored whole (Gemma).
    PlusOne,
}

/// A tensor of a file.
pub struct Stored {
    /// Its name there.
    pub name: String,
    /// As transformers has it.
    pub parameter: Parameter,
    /// What was done to it.
    pub turned: Turned,
}

/// The tensors of a model of this configuration in a GGUF file.
pub fn stored(config: &Config) -> Vec<Stored> {
    let layout = Layout::new(config);
    let mut all = Names {
        norm: match config.norm {
            NormKind::RmsPlusOne => Turned::PlusOne,
            _ => Turned::Not,
        },
        stored: Vec::new(),
    };
    all.add("token_embd.weight", &layout.embedding, Turned::Not);
    all.norm("token_embd_norm", layout.embedding_norm.as_ref());
    if let Some(positions) = &layout.positions {
        all.add("position_embd.weight", positions, Turned::Not);
    }
    for (l, layer) in layout.layers.iter().enumerate() {
        let name = |part: &str| format!("blk.{l}.{part}");
        // The second norm of a block of Falcon's is that of the MLP there, and comes first.
        let (attn, mlp) = match (config.family, &layer.mlp_norm) {
            (Family::Falcon, Some(_)) => ("attn_norm_2", "attn_norm"),
            _ => ("attn_norm", "ffn_norm"),
        };
        all.norm(&name(attn), layer.attn_norm.as_ref());
        all.norm(&name(mlp), layer.mlp_norm.as_ref());
        all.norm(&name("post_attention_norm"), layer.attn_post_norm.as_ref());
        all.norm(&name("post_ffw_norm"), layer.mlp_post_norm.as_ref());
        all.norm(&name("attn_q_norm"), layer.q_norm.as_ref());
        all.norm(&name("attn_k_norm"), layer.k_norm.as_ref());
        match &layer.qkv {
            Qkv::Separate(maps) => {
                let [q, k, v] = &**maps;
                let pairs = |heads| match in_pairs(config.family) {
                    true => Turned::Pairs(heads),
                    false => Turned::Not,
                };
                all.linear(&name("attn_q"), q, pairs(config.heads));
                all.linear(&name("attn_k"), k, pairs(config.kv_heads));
                all.linear(&name("attn_v"), v, Turned::Not);
            }
            Qkv::Fused(map) => all.linear(&name("attn_qkv"), map, Turned::Not),
            Qkv::ByHead(map) => all.linear(&name("attn_qkv"), map, Turned::ByPart),
        }
        all.linear(&name("attn_output"), &layer.o, Turned::Not);
        // No architecture that is read has experts.
        if let Mlp::Dense(mlp) = &layer.mlp {
            match &mlp.up {
                Up::Plain(map) | Up::Fused(map) => all.linear(&name("ffn_up"), map, Turned::Not),
                Up::Gated(maps) => {
                    all.linear(&name("ffn_gate"), &maps[0], Turned::Not);
                    all.linear(&name("ffn_up"), &maps[1], Turned::Not);
                }
            }
            all.linear(&name("ffn_down"), &mlp.down, Turned::Not);
        }
    }
    all.norm("output_norm", Some(&layout.final_norm));
    if let Some(head) = &layout.head {
        all.linear("output", head, Turned::Not);
    }
    if let Some(bias) = &layout.head_bias {
        all.add("output.bias", bias, Turned::Not);
    }
    all.stored
}

/// Whether llama.cpp rotates neighbours of this family, and transformers channels half a head apart.
fn in_pairs(family: Family) -> bool {
    use Family::{Granite, Llama, Mistral, SmolLm3};
    matches!(family, Llama | Mistral | Granite | SmolLm3)
}

struct Names {
    norm: Turned,
    stored: Vec<Stored>,
}

impl Names {
    fn add(&mut self, name: &str, parameter: &Parameter, turned: Turned) {
        self.stored.push(Stored {
            name: name.to_owned(),
            parameter: parameter.clone(),
            turned,
        });
    }

    fn linear(&mut self, name: &str, map: &Linear, turned: Turned) {
        let weight = if map.transposed {
            Turned::Transposed
        } else {
            turned
        };
        self.add(&format!("{name}.weight"), &map.weight, weight);
        if let Some(bias) = &map.bias {
            self.add(&format!("{name}.bias"), bias, turned);
        }
    }

    fn norm(&mut self, name: &str, norm: Option<&Norm>) {
        let Some(norm) = norm else { return };
        self.add(&format!("{name}.weight"), &norm.weight, self.norm);
        if let Some(bias) = &norm.bias {
            self.add(&format!("{name}.bias"), bias, Turned::Not);
        }
    }
}

impl Turned {
    /// The values as transformers has them, of a file's; `shape` is transformers', `size` the bytes
    /// of an element.
    pub fn back(
        self,
        bytes: &[u8],
        shape: &[usize],
        size: usize,
        config: &Config,
    ) -> Option<Vec<u8>> {
        let row = shape.iter().skip(1).product::<usize>() * size;
        match self {
            Self::Not => None,
            Self::Transposed => Some(transposed(bytes, shape[0] * size, size)),
            Self::Pairs(heads) => Some(halves(bytes, heads, config.head_dim, row)),
            Self::ByPart => Some(by_head(bytes, config, row)),
            Self::PlusOne => Some(less_one(bytes)),
        }
    }
}

/// Transposes a matrix with `row` bytes a row and `size` bytes an element.
fn transposed(bytes: &[u8], row: usize, size: usize) -> Vec<u8> {
    let rows = bytes.len() / row;
    let mut out = Vec::with_capacity(bytes.len());
    for column in 0..row / size {
        for r in 0..rows {
            let at = r * row + column * size;
            out.extend_from_slice(&bytes[at..at + size]);
        }
    }
    out
}

/// Rows `0 1 2 3 ..` of each head reordered to `0 2 4 .. 1 3 5 ..`; `row` bytes each.
fn halves(bytes: &[u8], heads: usize, head_dim: usize, row: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for head in 0..heads {
        for channel in (0..head_dim).step_by(2).chain((1..head_dim).step_by(2)) {
            let at = (head * head_dim + channel) * row;
            out.extend_from_slice(&bytes[at..at + row]);
        }
    }
    out
}

/// All queries, all keys and all values reordered to the queries that share a key, that key and its
/// value, for each key; `row` bytes a row.
fn by_head(bytes: &[u8], config: &Config, row: usize) -> Vec<u8> {
    let head = config.head_dim * row;
    let (keys, shared) = (config.kv_heads, config.heads / config.kv_heads);
    let mut out = Vec::with_capacity(bytes.len());
    for key in 0..keys {
        let (k, v) = (config.heads + key, config.heads + keys + key);
        for (first, count) in [(key * shared, shared), (k, 1), (v, 1)] {
            out.extend_from_slice(&bytes[first * head..(first + count) * head]);
        }
    }
    out
}

/// Singles, each less one.
fn less_one(bytes: &[u8]) -> Vec<u8> {
    let singles = bytes
        .chunks_exact(4)
        .map(|it| f32::from_le_bytes([it[0], it[1], it[2], it[3]]));
    singles.flat_map(|it| (it - 1.0).to_le_bytes()).collect()
}
