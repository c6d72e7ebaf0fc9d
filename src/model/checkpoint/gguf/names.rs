//! GGUF's names, orientations and row orders, and transformers'.

use super::super::super::config::Family;

/// transformers' name of a GGUF tensor.
pub fn canonical(family: Family, name: &str) -> Option<String> {
    let (stem, kind) = name.rsplit_once('.')?;
    let whole = match (family, stem) {
        (Family::Gpt2, "token_embd") => Some("transformer.wte"),
        (Family::Gpt2, "position_embd") => Some("transformer.wpe"),
        (Family::Gpt2, "output_norm") => Some("transformer.ln_f"),
        (Family::Llama, "token_embd") => Some("model.embed_tokens"),
        (Family::Llama, "output_norm") => Some("model.norm"),
        (_, "output") => Some("lm_head"),
        _ => None,
    };
    if let Some(whole) = whole {
        return Some(format!("{whole}.{kind}"));
    }
    let (layer, part) = stem.strip_prefix("blk.")?.split_once('.')?;
    let part = match (family, part) {
        (Family::Gpt2, "attn_norm") => "ln_1",
        (Family::Gpt2, "attn_qkv") => "attn.c_attn",
        (Family::Gpt2, "attn_output") => "attn.c_proj",
        (Family::Gpt2, "ffn_norm") => "ln_2",
        (Family::Gpt2, "ffn_up") => "mlp.c_fc",
        (Family::Gpt2, "ffn_down") => "mlp.c_proj",
        (Family::Llama, "attn_norm") => "input_layernorm",
        (Family::Llama, "attn_q") => "self_attn.q_proj",
        (Family::Llama, "attn_k") => "self_attn.k_proj",
        (Family::Llama, "attn_v") => "self_attn.v_proj",
        (Family::Llama, "attn_output") => "self_attn.o_proj",
        (Family::Llama, "ffn_norm") => "post_attention_layernorm",
        (Family::Llama, "ffn_gate") => "mlp.gate_proj",
        (Family::Llama, "ffn_up") => "mlp.up_proj",
        (Family::Llama, "ffn_down") => "mlp.down_proj",
        _ => return None,
    };
    let stack = if family == Family::Gpt2 {
        "transformer.h"
    } else {
        "model.layers"
    };
    Some(format!("{stack}.{layer}.{part}.{kind}"))
}

/// Whether transformers stores this matrix the other way round: the `Conv1D`s of GPT-2.
pub fn is_transposed(family: Family, name: &str) -> bool {
    let matrices = ["attn_qkv", "attn_output", "ffn_up", "ffn_down"];
    family == Family::Gpt2
        && name.ends_with(".weight")
        && matrices.iter().any(|part| name.contains(part))
}

/// Transposes a matrix with `row` bytes a row and `size` bytes an element.
pub fn transposed(bytes: &[u8], row: usize, size: usize) -> Vec<u8> {
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
pub fn halves(bytes: &[u8], heads: usize, head_dim: usize, row: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for head in 0..heads {
        for channel in (0..head_dim).step_by(2).chain((1..head_dim).step_by(2)) {
            let at = (head * head_dim + channel) * row;
            out.extend_from_slice(&bytes[at..at + row]);
        }
    }
    out
}
