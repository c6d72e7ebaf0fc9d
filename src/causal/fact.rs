//! What to trace: a fact in a sentence.

use serde::{Deserialize, Serialize};

/// A sentence that ends where the model is to complete a fact about its subject.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// The text to complete, exactly as given, such as `The Space Needle is in downtown`.
    pub prompt: String,
    /// The words of the prompt whose embeddings are corrupted; their first occurrence counts.
    pub subject: String,
    /// The expected answer, without spaces around it. A fact that the model answers otherwise is
    /// recorded, not traced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attribute: Option<String>,
    /// The relation of the fact, by which results can be grouped, such as `P30`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relation: Option<String>,
    /// The number or name of the fact in its data set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}
