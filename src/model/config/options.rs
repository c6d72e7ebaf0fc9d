//! What families differ in.

/// The model families there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// OpenAI GPT-2.
    Gpt2,
    /// EleutherAI GPT-J.
    GptJ,
    /// EleutherAI GPT-NeoX and Pythia.
    GptNeoX,
    /// Meta Llama 1 to 3, and models of its shape (SmolLM2, TinyLlama ...).
    Llama,
    /// Mistral 7B and its kin.
    Mistral,
    /// Alibaba Qwen 2 and 2.5.
    Qwen2,
    /// Alibaba Qwen 3, dense.
    Qwen3,
    /// Google Gemma 2.
    Gemma2,
    /// Google Gemma 3, text only.
    Gemma3,
    /// Microsoft Phi-3 and Phi-4 mini.
    Phi3,
    /// Allen AI OLMo 2.
    Olmo2,
    /// Allen AI OLMo 3.
    Olmo3,
    /// Hugging Face SmolLM3.
    SmolLm3,
    /// IBM Granite 3, dense.
    Granite,
    /// Meta OPT.
    Opt,
    /// EleutherAI GPT-Neo.
    GptNeo,
    /// Microsoft Phi-1, 1.5 and 2.
    Phi,
    /// Stability AI StableLM 3B and 2.
    StableLm,
    /// BigCode StarCoder 2.
    StarCoder2,
    /// Cohere Command R.
    Cohere,
    /// Cohere Command R7B and Command A.
    Cohere2,
    /// TII Falcon.
    Falcon,
    /// BigScience BLOOM.
    Bloom,
    /// Mistral's Mixtral.
    Mixtral,
    /// Alibaba Qwen 3, mixtures of experts.
    Qwen3Moe,
    /// OpenAI gpt-oss.
    GptOss,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 26] = [
        Family::Gpt2,
        Family::GptJ,
        Family::GptNeoX,
        Family::Llama,
        Family::Mistral,
        Family::Qwen2,
        Family::Qwen3,
        Family::Gemma2,
        Family::Gemma3,
        Family::Phi3,
        Family::Olmo2,
        Family::Olmo3,
        Family::SmolLm3,
        Family::Granite,
        Family::Opt,
        Family::GptNeo,
        Family::Phi,
        Family::StableLm,
        Family::StarCoder2,
        Family::Cohere,
        Family::Cohere2,
        Family::Falcon,
        Family::Bloom,
        Family::Mixtral,
        Family::Qwen3Moe,
        Family::GptOss,
    ];

    /// The `model_type` of transformers.
    pub fn model_type(self) -> &'static str {
        match self {
            Family::Gpt2 => "gpt2",
            Family::GptJ => "gptj",
            Family::GptNeoX => "gpt_neox",
            Family::Llama => "llama",
            Family::Mistral => "mistral",
            Family::Qwen2 => "qwen2",
            Family::Qwen3 => "qwen3",
            Family::Gemma2 => "gemma2",
            Family::Gemma3 => "gemma3_text",
            Family::Phi3 => "phi3",
            Family::Olmo2 => "olmo2",
            Family::Olmo3 => "olmo3",
            Family::SmolLm3 => "smollm3",
            Family::Granite => "granite",
            Family::Opt => "opt",
            Family::GptNeo => "gpt_neo",
            Family::Phi => "phi",
            Family::StableLm => "stablelm",
            Family::StarCoder2 => "starcoder2",
            Family::Cohere => "cohere",
            Family::Cohere2 => "cohere2",
            Family::Falcon => "falcon",
            Family::Bloom => "bloom",
            Family::Mixtral => "mixtral",
            Family::Qwen3Moe => "qwen3_moe",
            Family::GptOss => "gpt_oss",
        }
    }

    /// The class of transformers that is this family's language model: what `architectures` names.
    pub fn architecture(self) -> &'static str {
        match self {
            Family::Gpt2 => "GPT2LMHeadModel",
            Family::GptJ => "GPTJForCausalLM",
            Family::GptNeoX => "GPTNeoXForCausalLM",
            Family::Llama => "LlamaForCausalLM",
            Family::Mistral => "MistralForCausalLM",
            Family::Qwen2 => "Qwen2ForCausalLM",
            Family::Qwen3 => "Qwen3ForCausalLM",
            Family::Gemma2 => "Gemma2ForCausalLM",
            Family::Gemma3 => "Gemma3ForCausalLM",
            Family::Phi3 => "Phi3ForCausalLM",
            Family::Olmo2 => "Olmo2ForCausalLM",
            Family::Olmo3 => "Olmo3ForCausalLM",
            Family::SmolLm3 => "SmolLM3ForCausalLM",
            Family::Granite => "GraniteForCausalLM",
            Family::Opt => "OPTForCausalLM",
            Family::GptNeo => "GPTNeoForCausalLM",
            Family::Phi => "PhiForCausalLM",
            Family::StableLm => "StableLmForCausalLM",
            Family::StarCoder2 => "Starcoder2ForCausalLM",
            Family::Cohere => "CohereForCausalLM",
            Family::Cohere2 => "Cohere2ForCausalLM",
            Family::Falcon => "FalconForCausalLM",
            Family::Bloom => "BloomForCausalLM",
            Family::Mixtral => "MixtralForCausalLM",
            Family::Qwen3Moe => "Qwen3MoeForCausalLM",
            Family::GptOss => "GptOssForCausalLM",
        }
    }

    /// The end-of-text id of a configuration that does not name one: what the family's
    /// configuration class has there.
    pub(super) fn eos(self) -> Option<u32> {
        match self {
            Family::Gpt2 | Family::GptJ | Family::GptNeo | Family::StarCoder2 => Some(50_256),
            Family::GptNeoX | Family::Llama | Family::Mistral | Family::Granite => Some(2),
            Family::Opt | Family::Phi | Family::Bloom | Family::Mixtral => Some(2),
            Family::StableLm => Some(0),
            Family::Falcon => Some(11),
            Family::Cohere | Family::Cohere2 => Some(255_001),
            Family::Qwen2 | Family::Qwen3 | Family::Qwen3Moe | Family::GptOss => None,
            Family::Gemma2 | Family::Gemma3 => Some(1),
            Family::Phi3 => Some(32_000),
            Family::Olmo2 | Family::Olmo3 => Some(50_279),
            Family::SmolLm3 => Some(128_001),
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.model_type())
    }
}

/// How a normalisation layer normalises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// Subtract the mean, divide by the standard deviation, scale by `weight`, add `bias`.
    Layer,
    /// As `Layer`, without the `bias` (Cohere).
    LayerWithoutBias,
    /// Divide by the root mean square, scale by `weight`.
    Rms,
    /// As `Rms`, rounded to the model's type only once scaled (OLMo 2).
    RmsScaledWide,
    /// As `Rms`, scaled by `1 + weight` (Gemma).
    RmsPlusOne,
}

/// How queries and keys are normalised before rotary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// Not at all.
    None,
    /// Every head by itself (Qwen 3, Gemma 3).
    Heads,
    /// All queries of a token together, and all its keys (OLMo 2).
    Whole,
}

/// The non-linearity of the MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Gaussian error linear unit, exact.
    Gelu,
    /// Its tanh approximation.
    GeluTanh,
    /// `x * sigmoid(x)`.
    Silu,
    /// `max(x, 0)`.
    Relu,
}

/// What the MLP of a block reads, and what the block adds up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// `x' = x + attn(norm(x))`, `out = x' + mlp(norm(x'))`.
    Serial,
    /// `out = x + attn(norm(x)) + mlp(norm(x))`.
    Parallel,
}

/// The experts that stand in the place of an MLP (Shazeer et al. 2017): as many MLPs, of which each
/// token goes to few. What the layer gives is their sum, each times its weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Experts {
    /// Experts of a layer.
    pub count: usize,
    /// To how many of them a token goes: those with the highest scores.
    pub chosen: usize,
    /// Inner width of one.
    pub inner: usize,
    /// What the weights are.
    pub routing: Routing,
    /// Whether each reads as `(up(x) + 1) * g * sigmoid(1.702 g)`, where `g` is `gate(x)`, cut at 7,
    /// and `up(x)` is cut at 7 and -7 (gpt-oss).
    pub clamped: bool,
    /// Which blocks have them, one entry a block; the others have an MLP.
    pub layers: Vec<bool>,
}

/// How the experts that a token goes to are weighted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routing {
    /// By the softmax over all experts, so that those weights are below 1 together.
    Softmax,
    /// The same, divided by their sum.
    Normalised,
    /// By the softmax over those that the token goes to: the same numbers, rounded otherwise.
    AmongChosen,
}

/// Which linear maps of a block have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Biases {
    /// Query, key and value.
    pub qkv: bool,
    /// The attention's output.
    pub o: bool,
    /// Every matrix of the MLP.
    pub mlp: bool,
    /// The vocabulary projection.
    pub head: bool,
}
