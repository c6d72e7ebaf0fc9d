//! MQuAKE (Zhong et al. 2023): facts that are edited together, and questions whose answers follow
//! from several of them.
//!
//! | field | what is asked with it |
//! |---|---|
//! | `requested_rewrite`: `prompt`, `subject`, `target_new.str` | *edit-wise*: each edit's own prompt, as it was edited |
//! | `new_single_hops`: `question`, `cloze`, `answer`, `answer_alias` | *instance-wise*: all of them answered |
//! | `questions`, `new_answer`, `new_answer_alias` | *multi-hop*: one of them answered |
//! | `orig.new_triples` | the relation of each single hop, by which its examples are found |

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::error::Problem;
use super::questions::{Query, Record, Test};
use super::record::{Entry, mistyped, present, required, texts};

const QUESTION: &str = "give the question";
const ANSWER: &str = "give the answer after the edits";

/// Examples that stand before questions, so that a model sees what kind of answer is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examples {
    /// Before a question of a single fact, by its relation (`P36`). Without one a fact's own cloze is
    /// asked.
    pub by_relation: BTreeMap<String, String>,
    /// Before a question of several facts.
    pub hops: Option<String>,
    /// The same with the thoughts that lead to each answer, which begins behind `Answer:`.
    pub thoughts: Option<String>,
}

impl Examples {
    /// A question behind examples of its form.
    fn ask(examples: Option<&String>, question: &str) -> String {
        let before = examples.map_or(String::new(), |text| format!("{}\n", text.trim_end()));
        format!("{before}Q: {question} A:")
    }
}

/// Reads an instance; none where the record is of another set.
pub(super) fn record(
    value: &Value,
    entries: &[Entry],
    examples: &Examples,
) -> Result<Option<Record>, Problem> {
    let Some(record) = value.as_object().filter(|it| it.contains_key("questions")) else {
        return Ok(None);
    };
    let rewrites = entries.iter().map(super::edits::rewrite);
    let mut rewrites = rewrites.collect::<Result<Vec<_>, _>>()?;
    let hops = hops(record, examples)?;
    let mut tests = Vec::new();
    for rewrite in &rewrites {
        let prompt = rewrite.prompt.replacen("{}", &rewrite.subject, 1);
        // A hop that asks the same fact knows other names of its object.
        let same = hops.iter().find(|hop| hop.cloze == prompt);
        let names = same.map_or(vec![rewrite.target_new.clone()], |hop| hop.names.clone());
        tests.push(Test::of("edit-wise", vec![Query::of(prompt, names)]));
    }
    if !hops.is_empty() {
        let queries = hops.into_iter().map(|hop| Query::of(hop.prompt, hop.names));
        tests.push(Test::of("instance-wise", queries.collect()));
    }
    let questions = texts(record, "questions")?;
    if questions.is_empty() {
        return Err(Problem::Missing {
            field: "questions".to_owned(),
            remedy: QUESTION,
        });
    }
    let names = names(record, "new_answer", "new_answer_alias", |field| {
        field.to_owned()
    })?;
    let asked = |prompt: &dyn Fn(&str) -> String, behind: Option<&str>| {
        let query = |question: &String| Query {
            behind: behind.map(str::to_owned),
            ..Query::of(prompt(question), names.clone())
        };
        questions.iter().map(query).collect()
    };
    let plain = |question: &str| Examples::ask(examples.hops.as_ref(), question);
    tests.push(Test {
        any: true,
        ..Test::of("multi-hop", asked(&plain, None))
    });
    if let Some(thoughts) = &examples.thoughts {
        let thinking = |question: &str| {
            let before = thoughts.trim_end();
            format!("{before}\n\nQuestion: {question}\nThoughts:")
        };
        tests.push(Test {
            any: true,
            ..Test::of("multi-hop with thoughts", asked(&thinking, Some("Answer:")))
        });
    }
    // There is at least one.
    let first = rewrites.remove(0);
    Ok(Some(Record {
        rewrite: first,
        together: rewrites,
        tests,
        ..Record::default()
    }))
}

/// A fact on the way to an answer.
struct Hop {
    prompt: String,
    cloze: String,
    names: Vec<String>,
}

fn hops(record: &Map<String, Value>, examples: &Examples) -> Result<Vec<Hop>, Problem> {
    let list = match present(record, "new_single_hops") {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(other) => {
            let wanted = "a list of question, cloze and answer";
            return Err(mistyped("new_single_hops".into(), other, wanted));
        }
    };
    let each = list.iter().enumerate().map(|(n, hop)| {
        let inside = |field: &str| format!("new_single_hops[{n}].{field}");
        let Value::Object(hop) = hop else {
            let wanted = "an object with question, cloze and answer";
            return Err(mistyped(format!("new_single_hops[{n}]"), hop, wanted));
        };
        let question = required(hop, "question", inside("question"), QUESTION)?;
        let cloze = required(
            hop,
            "cloze",
            inside("cloze"),
            "give the question as a sentence",
        )?;
        let relation = record
            .get("orig")
            .and_then(|it| it.get("new_triples")?.get(n)?.get(1));
        let relation = relation.and_then(Value::as_str).unwrap_or_default();
        let before = examples.by_relation.get(relation);
        Ok(Hop {
            prompt: match before {
                Some(_) => Examples::ask(before, &question),
                None => cloze.clone(),
            },
            names: names(hop, "answer", "answer_alias", inside)?,
            cloze,
        })
    });
    each.collect()
}

/// An answer and its other names.
fn names(
    record: &Map<String, Value>,
    answer: &str,
    alias: &str,
    inside: impl Fn(&str) -> String,
) -> Result<Vec<String>, Problem> {
    let mut names = vec![required(record, answer, inside(answer), ANSWER)?];
    names.extend(texts(record, alias)?);
    Ok(names)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::evaluation::{Set, parse_with};
    use super::*;

    fn instance() -> Value {
        let rewrite = |subject: &str, new: &str| {
            serde_json::json!({"prompt": "{} is in", "relation_id": "P1", "subject": subject,
                "target_new": {"str": new}, "target_true": {"str": "Paris"}})
        };
        let hop = |question: &str, cloze: &str, answer: &str| serde_json::json!({"question": question, "cloze": cloze, "answer": answer, "answer_alias": ["the other"]});
        serde_json::json!({"case_id": 3, "requested_rewrite": [rewrite("The Louvre", "Rome"), rewrite("Rome", "Asia")],
            "questions": ["Where is the Louvre's city?", "And where?"], "new_answer": "Asia", "new_answer_alias": ["AS"],
            "new_single_hops": [hop("Where is The Louvre?", "The Louvre is in", "Rome"), hop("Where is Rome?", "Rome is in", "Asia")],
            "orig": {"new_triples": [["Q1", "P1", "Q2"], ["Q2", "P9", "Q3"]]}})
    }

    #[test]
    fn an_instance_asks_its_edits_its_hops_and_what_follows() {
        let mut examples = Examples::default();
        let read =
            |examples: &Examples| parse_with("f", &instance().to_string(), examples).unwrap();
        let data = read(&examples);
        assert_eq!(data.set, Set::Tests);
        let record = &data.records[0];
        assert_eq!(record.rewrite.subject, "The Louvre");
        assert_eq!(record.together[0].target_new, "Asia");
        let told: Vec<(&str, bool, Vec<&str>)> = (record.tests.iter())
            .map(|test| {
                let prompts = test.queries.iter().map(|query| query.prompt.as_str());
                (test.criterion.as_str(), test.any, prompts.collect())
            })
            .collect();
        assert_eq!(
            told,
            [
                ("edit-wise", false, vec!["The Louvre is in"]),
                ("edit-wise", false, vec!["Rome is in"]),
                (
                    "instance-wise",
                    false,
                    vec!["The Louvre is in", "Rome is in"]
                ),
                (
                    "multi-hop",
                    true,
                    vec!["Q: Where is the Louvre's city? A:", "Q: And where? A:"]
                ),
            ]
        );
        assert_eq!(record.tests[0].queries[0].answers, [["Rome", "the other"]]);
        assert_eq!(record.tests[3].queries[0].answers, [["Asia", "AS"]]);

        examples
            .by_relation
            .insert("P9".into(), "Q: 1? A: 2\n".into());
        examples.hops = Some("Q: 3? A: 4".into());
        examples.thoughts = Some("Question: 5\nThoughts: 6\nAnswer: 7".into());
        let data = read(&examples);
        let tests = &data.records[0].tests;
        assert_eq!(tests[2].queries[0].prompt, "The Louvre is in");
        assert_eq!(
            tests[2].queries[1].prompt,
            "Q: 1? A: 2\nQ: Where is Rome? A:"
        );
        assert_eq!(tests[3].queries[1].prompt, "Q: 3? A: 4\nQ: And where? A:");
        let thinking = &tests[4].queries[1];
        assert_eq!(thinking.behind.as_deref(), Some("Answer:"));
        assert!(
            thinking
                .prompt
                .ends_with("7\n\nQuestion: And where?\nThoughts:")
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let broken = |field: &str, change: &dyn Fn(&mut Value)| {
            let mut value = instance();
            change(&mut value);
            let said = parse_with("f", &value.to_string(), &Examples::default()).unwrap_err();
            assert!(said.to_string().contains(field), "{said}");
        };
        broken("new_answer", &|it| it["new_answer"] = Value::Null);
        broken("questions", &|it| it["questions"] = serde_json::json!([]));
        broken("new_single_hops[1].answer", &|it| {
            it["new_single_hops"][1]["answer"] = Value::Null
        });
        broken("requested_rewrite[1].subject", &|it| {
            it["requested_rewrite"][1]["subject"] = Value::Null
        });
        broken("requested_rewrite", &|it| {
            it["requested_rewrite"] = serde_json::json!([])
        });
    }
}
