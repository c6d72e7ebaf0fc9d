//! What a record of a data set asks of a model.

use super::{ProbeKind, Question};
pub use crate::datasets::choices::Choice;
pub use crate::datasets::evaluation::{EDITED, Query, Record, Set, Test};

impl Record {
    /// What a model is asked, in order: the fact, the paraphrases, the neighbours. Nothing of
    /// [`Set::Tests`], which has queries.
    pub fn questions(&self, set: Set) -> Vec<Question> {
        if set == Set::Tests {
            return Vec::new();
        }
        let rewrite = &self.rewrite;
        let new = || Some(rewrite.target_new.clone());
        // CounterFact compares two objects everywhere; zsRE asks for one, and for the other only
        // where it shows whether the fact is known.
        let both = set == Set::CounterFact;
        let first = Question {
            kind: ProbeKind::Rewrite,
            prompt: rewrite.prompt.replacen("{}", &rewrite.subject, 1),
            new: new(),
            old: rewrite.target_true.clone(),
        };
        let paraphrases = rewrite.paraphrases.iter().map(|prompt| Question {
            kind: ProbeKind::Paraphrase,
            prompt: prompt.clone(),
            new: new(),
            old: rewrite.target_true.clone().filter(|_| both),
        });
        let neighbours = rewrite.neighbours.iter().zip(&self.neighbour_answers);
        let neighbours = neighbours.map(|(prompt, answer)| Question {
            kind: ProbeKind::Neighbour,
            prompt: prompt.clone(),
            new: new().filter(|_| both),
            old: Some(answer.clone()),
        });
        std::iter::once(first)
            .chain(paraphrases)
            .chain(neighbours)
            .collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::datasets::evaluation::parse;

    const FULL: &str = r#"[{"case_id": 7, "requested_rewrite": {"prompt": "{} is in", "relation_id": "P131",
        "target_new": {"str": "Rome", "id": "Q"}, "target_true": {"str": "Paris", "id": "Q"}, "subject": "The Louvre"},
        "paraphrase_prompts": ["One finds The Louvre in", "Where? The Louvre:"], "neighborhood_prompts": ["Notre-Dame is in"],
        "generation_prompts": ["The Louvre"]}]"#;
    const FLAT: &str = r#"{"case_id": 7, "prompt": "The Louvre is in", "target_new": "Rome", "subject": "The Louvre", "ground_truth": "Paris", "rephrase_prompt": "One finds The Louvre in", "locality_prompt": "Notre-Dame is in", "locality_ground_truth": "Paris"}"#;
    const ZSRE: &str = r#"{"subject": "The Louvre", "src": "Where is The Louvre?", "pred": "x", "alt": " Rome", "answers": ["Paris"], "rephrase": "The Louvre is where?", "loc": "nq question: who sang it", "loc_ans": "Ada"}"#;

    fn asked(text: &str) -> Vec<(ProbeKind, String, Option<String>, Option<String>)> {
        let data = parse("f", text).unwrap();
        let questions = data.records[0].questions(data.set).into_iter();
        questions
            .map(|q| (q.kind, q.prompt, q.new, q.old))
            .collect()
    }

    #[test]
    fn each_form_asks_what_its_measures_need() {
        let some = |text: &str| Some(text.to_owned());
        let pair = |kind, prompt: &str| (kind, prompt.to_owned(), some("Rome"), some("Paris"));
        let full = asked(FULL);
        assert_eq!(full[0], pair(ProbeKind::Rewrite, "The Louvre is in"));
        assert_eq!(full[2], pair(ProbeKind::Paraphrase, "Where? The Louvre:"));
        assert_eq!(full[3], pair(ProbeKind::Neighbour, "Notre-Dame is in"));
        assert_eq!(
            asked(FLAT),
            [full[0].clone(), full[1].clone(), full[3].clone()]
        );
        assert_eq!(
            asked(ZSRE),
            [
                pair(ProbeKind::Rewrite, "Where is The Louvre?"),
                (
                    ProbeKind::Paraphrase,
                    "The Louvre is where?".to_owned(),
                    some("Rome"),
                    None
                ),
                (
                    ProbeKind::Neighbour,
                    "who sang it".to_owned(),
                    None,
                    some("Ada")
                ),
            ]
        );
        let data = parse("f", FULL).unwrap();
        assert_eq!(data.records[0].generation_prompts, ["The Louvre"]);
    }

    #[test]
    fn records_that_are_kept_stand_as_they_did() {
        let other = FLAT.replace("Louvre", "Prado");
        let mut data = parse("f", &format!("{FLAT}\n{other}\n")).unwrap();
        data.keep(&[1]);
        let again = parse("g", &data.to_lines()).unwrap();
        assert_eq!(again.records, data.records);
        assert_eq!(again.records[0].rewrite.subject, "The Prado");
        let value: Value = serde_json::from_str(&data.to_lines()).unwrap();
        assert_eq!(value, serde_json::from_str::<Value>(&other).unwrap());
    }

    #[test]
    fn what_is_wrong_is_named_with_record_field_and_remedy() {
        let second = |changed: &str| format!("{FLAT}\n{changed}");
        for (text, record, field, remedy) in [
            (
                second(r#"{"subject": "a"}"#),
                "line 2",
                "\"prompt\" is missing",
                "give the text before the answer",
            ),
            (
                second(&FLAT.replace("\"ground_truth\"", "\"x\"")),
                "line 2",
                "\"ground_truth\" is missing",
                "give the true object",
            ),
            (
                second(&FLAT.replace("\"Rome\"", "\" \"")),
                "line 2",
                "\"target_new\" is blank",
                "",
            ),
            (
                FULL.replace("\"Rome\"", "\" \""),
                "record 1",
                "\"requested_rewrite.target_new.str\" is blank",
                "give the new object",
            ),
            (
                second(ZSRE),
                "line 2",
                "another data set",
                "one data set after the other",
            ),
            (
                second(&FLAT.replace("\"Notre-Dame is in\"", "5")),
                "line 2",
                "\"locality_prompt\" is a number",
                "give a text or a list of texts",
            ),
            (
                FULL.replace("\"Where? The Louvre:\"", "\"\""),
                "record 1",
                "\"paraphrase_prompts[1]\" is blank",
                "leave it out",
            ),
            (
                ZSRE.replace("\"loc_ans\"", "\"x\""),
                "record 1",
                "\"loc_ans\" has 0 answers to 1",
                "give one each",
            ),
            (
                second(&FLAT.replace("The Louvre is", "It is")),
                "line 2",
                "does not occur in prompt",
                "",
            ),
        ] {
            let said = parse("f.json", &text).unwrap_err().to_string();
            for part in ["f.json", record, field, remedy] {
                assert!(said.contains(part), "{part:?} in {said}");
            }
        }
        assert!(
            parse("f", "[]")
                .unwrap_err()
                .to_string()
                .contains("no records")
        );
    }
}
