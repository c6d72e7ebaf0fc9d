//! What to trace: a fact in a sentence.

use serde::{Deserialize, Serialize};

/// A sentence that ends where the model is to complete a fact about its subject.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// The text to complete, such as `The Space Needle is in downtown`.
    pub prompt: String,
    /// The words of the prompt whose embeddings are corrupted; their first occurrence counts.
    pub subject: String,
    /// The expected answer. A fact that the model answers otherwise is recorded, not traced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attribute: Option<String>,
    /// The relation of the fact, by which results can be grouped, such as `P30`.
    #[serde(
        default,
        rename = "relation_id",
        skip_serializing_if = "Option::is_none"
    )]
    pub relation: Option<String>,
    /// The number of the fact in its data set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_id: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_the_published_fact_set_reads() {
        let fact: Fact = serde_json::from_str(
            r#"{"known_id": 0, "subject": "Vinson Massif", "attribute": "Antarctica",
                "template": "{} is located in the continent", "prediction": " of Antarctica.",
                "prompt": "Vinson Massif is located in the continent of", "relation_id": "P30"}"#,
        )
        .unwrap();
        assert_eq!(fact.relation.as_deref(), Some("P30"));
        assert_eq!(fact.attribute.as_deref(), Some("Antarctica"));
        assert_eq!(fact.known_id, Some(0));
    }
}
