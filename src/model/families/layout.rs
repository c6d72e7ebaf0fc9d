//! The tensors of a model, by their canonical names and shapes.

use super::super::config::NormKind;

/// One tensor of a checkpoint, by its canonical name: the one transformers gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// For instance `model.layers.0.mlp.down_proj.weight`.
    pub name: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
}

/// The weight and bias of a linear map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linear {
    /// `[out, in]`, or `[in, out]` when `transposed`.
    pub weight: Parameter,
    /// `[out]`.
    pub bias: Option<Parameter>,
    /// GPT-2 stores its matrices as `[in, out]`.
    pub transposed: bool,
}

/// The weight and bias of a normalisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Norm {
    /// Scale, `[width]`.
    pub weight: Parameter,
    /// Shift, `[width]`; layer norm only.
    pub bias: Option<Parameter>,
}

/// How a checkpoint packs query, key and value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Qkv {
    /// Three maps.
    Separate(Box<[Linear; 3]>),
    /// One map; its outputs are all queries, then all keys, then all values.
    Fused(Linear),
    /// One map; its outputs are the queries that share key head 0, that key and its value, then
    /// those of key head 1 ... (GPT-NeoX, Falcon).
    ByHead(Linear),
}

/// How a checkpoint packs what the MLP reads with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Up {
    /// One map and a non-linearity.
    Plain(Linear),
    /// Gate and up, apart.
    Gated(Box<[Linear; 2]>),
    /// Gate, then up, as the outputs of one map (Phi-3).
    Fused(Linear),
}

/// The tensors of one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Before attention; `None` where it reads the residual stream itself (OLMo 2).
    pub attn_norm: Option<Norm>,
    /// On the output of attention.
    pub attn_post_norm: Option<Norm>,
    /// Before the MLP; `None` where the MLP reads what attention reads (GPT-J), or the residual
    /// stream itself (OLMo 2).
    pub mlp_norm: Option<Norm>,
    /// On the output of the MLP.
    pub mlp_post_norm: Option<Norm>,
    /// Query, key, value.
    pub qkv: Qkv,
    /// On every query head, `[head_dim]`, or on all of them, `[heads * head_dim]`.
    pub q_norm: Option<Norm>,
    /// On every key head, `[head_dim]`, or on all of them, `[kv_heads * head_dim]`.
    pub k_norm: Option<Norm>,
    /// The attention's output.
    pub o: Linear,
    /// First half of the MLP.
    pub up: Up,
    /// Second half of the MLP: the matrix that edits change.
    pub down: Linear,
}

/// Every tensor of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Token embedding, `[vocab, width]`.
    pub embedding: Parameter,
    /// On the token embedding where it enters block 0 (BLOOM).
    pub embedding_norm: Option<Norm>,
    /// Position embedding, `[context, width]`, behind the rows that stand for no token (OPT).
    pub positions: Option<Parameter>,
    /// One entry a block.
    pub layers: Vec<Layer>,
    /// Before the vocabulary projection.
    pub final_norm: Norm,
    /// The vocabulary projection; `None` when it is the token embedding.
    pub head: Option<Linear>,
    /// The bias of a vocabulary projection whose matrix is the token embedding, `[vocab]` (GPT-J).
    pub head_bias: Option<Parameter>,
}

impl Layout {
    /// All parameters, in the order of the computation.
    pub fn parameters(&self) -> Vec<&Parameter> {
        let mut all = vec![&self.embedding];
        if let Some(norm) = &self.embedding_norm {
            norm.collect(&mut all);
        }
        all.extend(&self.positions);
        for layer in &self.layers {
            if let Some(norm) = &layer.attn_norm {
                norm.collect(&mut all);
            }
            match &layer.qkv {
                Qkv::Separate(maps) => maps.iter().for_each(|map| map.collect(&mut all)),
                Qkv::Fused(map) | Qkv::ByHead(map) => map.collect(&mut all),
            }
            for norm in [&layer.q_norm, &layer.k_norm].into_iter().flatten() {
                norm.collect(&mut all);
            }
            layer.o.collect(&mut all);
            let norms = [&layer.attn_post_norm, &layer.mlp_norm];
            for norm in norms.into_iter().flatten() {
                norm.collect(&mut all);
            }
            match &layer.up {
                Up::Plain(map) | Up::Fused(map) => map.collect(&mut all),
                Up::Gated(maps) => maps.iter().for_each(|map| map.collect(&mut all)),
            }
            layer.down.collect(&mut all);
            if let Some(norm) = &layer.mlp_post_norm {
                norm.collect(&mut all);
            }
        }
        self.final_norm.collect(&mut all);
        if let Some(head) = &self.head {
            head.collect(&mut all);
        }
        all.extend(&self.head_bias);
        all
    }
}

impl Linear {
    pub(super) fn new(prefix: &str, out: usize, inp: usize, bias: bool) -> Self {
        Self {
            weight: parameter(format!("{prefix}.weight"), [out, inp]),
            bias: bias.then(|| parameter(format!("{prefix}.bias"), [out])),
            transposed: false,
        }
    }

    fn collect<'a>(&'a self, all: &mut Vec<&'a Parameter>) {
        all.push(&self.weight);
        all.extend(&self.bias);
    }
}

impl Norm {
    pub(super) fn new(kind: NormKind, prefix: &str, width: usize) -> Self {
        let bias = kind == NormKind::Layer;
        Self {
            weight: parameter(format!("{prefix}.weight"), [width]),
            bias: bias.then(|| parameter(format!("{prefix}.bias"), [width])),
        }
    }

    fn collect<'a>(&'a self, all: &mut Vec<&'a Parameter>) {
        all.push(&self.weight);
        all.extend(&self.bias);
    }
}

/// A parameter of this name and shape.
pub(super) fn parameter(name: String, shape: impl Into<Vec<usize>>) -> Parameter {
    Parameter {
        name,
        shape: shape.into(),
    }
}
