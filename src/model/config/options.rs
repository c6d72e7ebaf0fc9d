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
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 10] = [
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
        }
    }

    /// The end-of-text id of a configuration that does not name one: what the family's
    /// configuration class has there.
    pub(super) fn eos(self) -> Option<u32> {
        match self {
            Family::Gpt2 | Family::GptJ => Some(50_256),
            Family::GptNeoX | Family::Llama | Family::Mistral => Some(2),
            Family::Qwen2 | Family::Qwen3 => None,
            Family::Gemma2 | Family::Gemma3 => Some(1),
            Family::Phi3 => Some(32_000),
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
    /// Divide by the root mean square, scale by `weight`.
    Rms,
    /// As `Rms`, scaled by `1 + weight` (Gemma).
    RmsPlusOne,
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
