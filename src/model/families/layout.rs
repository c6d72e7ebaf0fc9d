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
    /// The score of a key that every query sees and that has no value, `[heads]` (gpt-oss).
    pub sinks: Option<Parameter>,
    /// The attention's output.
    pub o: Linear,
    /// What comes behind attention.
    pub mlp: Mlp,
}

/// The feed-forward half of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mlp {
    /// One MLP for all tokens.
    Dense(Dense),
    /// Several, of which each token goes to some.
    Mixture(Mixture),
}

/// The tensors of one MLP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dense {
    /// First half.
    pub up: Up,
    /// Second half: the matrix that edits change.
    pub down: Linear,
}

/// The tensors of a mixture of experts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mixture {
    /// Scores of the experts, `[experts, width]`.
    pub router: Linear,
    /// The MLPs.
    pub experts: Experts,
}

/// How a checkpoint packs experts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Experts {
    /// Each by itself.
    Separate(Vec<Dense>),
    /// All in the same two tensors, with an axis of experts before the others (gpt-oss).
    Stacked {
        /// `[experts, width, 2 * inner]`: a channel of the gate, then the same of up.
        gate_up: Linear,
        /// `[experts, inner, width]`.
        down: Linear,
    },
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
            all.extend(&layer.sinks);
            layer.o.collect(&mut all);
            let norms = [&layer.attn_post_norm, &layer.mlp_norm];
            for norm in norms.into_iter().flatten() {
                norm.collect(&mut all);
            }
            match &layer.mlp {
                Mlp::Dense(dense) => dense.collect(&mut all),
                Mlp::Mixture(mixture) => mixture.collect(&mut all),
            }
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

impl Layer {
    /// The matrix that edits change; `None` where the layer is a mixture of experts, which has one
    /// an expert.
    pub fn down(&self) -> Option<&Linear> {
        match &self.mlp {
            Mlp::Dense(dense) => Some(&dense.down),
            Mlp::Mixture(_) => None,
        }
    }
}

impl Mlp {
    pub(super) fn dense(up: Up, down: Linear) -> Self {
        Self::Dense(Dense { up, down })
    }
}

impl Dense {
    fn collect<'a>(&'a self, all: &mut Vec<&'a Parameter>) {
        match &self.up {
            Up::Plain(map) | Up::Fused(map) => map.collect(all),
            Up::Gated(maps) => maps.iter().for_each(|map| map.collect(all)),
        }
        self.down.collect(all);
    }
}

impl Mixture {
    fn collect<'a>(&'a self, all: &mut Vec<&'a Parameter>) {
        self.router.collect(all);
        match &self.experts {
            Experts::Separate(experts) => experts.iter().for_each(|one| one.collect(all)),
            Experts::Stacked { gate_up, down } => {
                gate_up.collect(all);
                down.collect(all);
            }
        }
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
