//! RippleEdits (Cohen et al. 2024): what else must change when a fact does, and what must not.
//!
//! Read as its release has it: `edit` with `prompt`, the whole sentence with its new object,
//! `subject_id`, `relation`, `target_id` and `original_fact`; and under the name of each criterion a
//! list of tests. The release names subjects by identifiers only: a `subject` in `edit` is taken
//! where there is one, and otherwise what the sentence has between its relation and `is`.

use serde_json::{Map, Value};

use super::edits::Rewrite;
use super::error::Problem;
use super::questions::{EDITED, Query, Record, Test};
use super::record::{Entry, mistyped, named, present, required, said, texts};

/// The criteria: as the file has them, and as they are told.
const CRITERIA: [(&str, &str); 7] = [
    ("Logical_Generalization", "logical generalization"),
    ("Compositionality_I", "compositionality I"),
    ("Compositionality_II", "compositionality II"),
    ("Subject_Aliasing", "subject aliasing"),
    ("Relation_Specificity", "relation specificity"),
    // As the data set's own description spells it.
    ("Relation_Specifity", "relation specificity"),
    ("Forgetfulness", "forgetfulness"),
];

/// Reads a record; none where it is of another set.
pub(super) fn record(value: &Value) -> Result<Option<Record>, Problem> {
    let Some(record) = value.as_object() else {
        return Ok(None);
    };
    let Some(Value::Object(edit)) = present(record, "edit") else {
        return Ok(None);
    };
    let rewrite = rewrite(edit)?;
    let prompt = rewrite.prompt.replacen("{}", &rewrite.subject, 1);
    let own = Query::of(prompt, vec![rewrite.target_new.clone()]);
    let mut tests = vec![Test::of(EDITED, vec![own])];
    for (field, criterion) in CRITERIA {
        match present(record, field) {
            None => {}
            Some(Value::Array(list)) => {
                for (n, test) in list.iter().enumerate() {
                    tests.push(read(test, criterion, &format!("{field}[{n}]"))?);
                }
            }
            Some(other) => return Err(mistyped(field.into(), other, "a list of tests")),
        }
    }
    Ok(Some(Record {
        rewrite,
        tests,
        ..Record::default()
    }))
}

/// "The mother of Ada is Eve." is a prompt about Ada, and Eve.
fn rewrite(edit: &Map<String, Value>) -> Result<Rewrite, Problem> {
    const SENTENCE: &str =
        "give the sentence with its new object, as in \"The mother of Ada is Eve.\"";
    let sentence = required(edit, "prompt", "edit.prompt".into(), SENTENCE)?;
    let bare = sentence.trim_end_matches('.');
    let unread = || Problem::Missing {
        field: "edit.prompt".to_owned(),
        remedy: SENTENCE,
    };
    let (before, target) = bare.rsplit_once(" is ").ok_or_else(unread)?;
    let subject = match said(
        edit,
        "subject",
        "edit.subject".into(),
        super::record::SUBJECT,
    )? {
        Some(subject) => subject,
        None => {
            let relation = said(edit, "relation", "edit.relation".into(), "give its name")?;
            let words = relation
                .unwrap_or_default()
                .to_lowercase()
                .replace('_', " ");
            let behind = before
                .find(&format!("{words} of "))
                .map(|at| at + words.len());
            let at = behind.filter(|_| !words.is_empty());
            let (_, subject) =
                before[at.unwrap_or(0)..]
                    .split_once(" of ")
                    .ok_or(Problem::Missing {
                        field: "edit.subject".to_owned(),
                        remedy: super::record::SUBJECT,
                    })?;
            subject.to_owned()
        }
    };
    let entry = Entry::of_sentence(&format!("{before} is"), &subject)?;
    Ok(Rewrite {
        prompt: entry.template(),
        subject,
        target_new: target.to_owned(),
        ..Rewrite::default()
    })
}

fn read(test: &Value, criterion: &str, place: &str) -> Result<Test, Problem> {
    let Value::Object(test) = test else {
        return Err(mistyped(
            place.to_owned(),
            test,
            "an object with test_queries",
        ));
    };
    let condition = said(
        test,
        "test_condition",
        format!("{place}.test_condition"),
        "OR or AND",
    )?;
    Ok(Test {
        any: condition.is_none_or(|condition| condition == "OR"),
        if_edited: true,
        conditions: queries(test, "condition_queries", place)?,
        ..Test::of(criterion, queries(test, "test_queries", place)?)
    })
}

fn queries(test: &Map<String, Value>, field: &str, place: &str) -> Result<Vec<Query>, Problem> {
    let list = match present(test, field) {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(other) => {
            return Err(mistyped(
                format!("{place}.{field}"),
                other,
                "a list of queries",
            ));
        }
    };
    let each = list.iter().enumerate().map(|(n, query)| {
        let place = format!("{place}.{field}[{n}]");
        let Value::Object(query) = query else {
            return Err(mistyped(place, query, "an object with prompt and answers"));
        };
        let prompt = required(
            query,
            "prompt",
            format!("{place}.prompt"),
            "give the question",
        )?;
        let answers = match present(query, "answers") {
            Some(Value::Array(answers)) => answers.iter().map(|answer| match answer {
                Value::Object(answer) => {
                    let field = format!("{place}.answers.value");
                    let mut names = vec![required(answer, "value", field, "give the answer")?];
                    names.extend(texts(answer, "aliases")?);
                    Ok(names)
                }
                other => Err(Problem::Type {
                    field: format!("{place}.answers"),
                    found: named(other),
                    wanted: "objects with value and aliases",
                }),
            }),
            _ => {
                return Err(Problem::Missing {
                    field: format!("{place}.answers"),
                    remedy: "give a list of value and aliases",
                });
            }
        };
        Ok(Query {
            prompt,
            answers: answers.collect::<Result<_, _>>()?,
            behind: None,
        })
    });
    each.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::evaluation::{Set, parse};
    use super::*;

    fn record() -> Value {
        let query = |prompt: &str, value: &str| serde_json::json!({"prompt": prompt, "query_type": "regular", "answers": [{"value": value, "aliases": ["Mum"]}]});
        serde_json::json!({"example_type": "random",
            "edit": {"prompt": "The name of the country of citizenship of Ada of Rome is Syria.", "subject_id": "Q1",
                "relation": "COUNTRY_OF_CITIZENSHIP", "target_id": "Q2", "original_fact": {"prompt": "x"}},
            "Forgetfulness": [{"test_queries": [query("Ada sings", "low"), query("Ada plays", "harp")], "test_condition": "AND",
                "condition_queries": [query("Eve is", "old")]}],
            "Logical_Generalization": [{"test_queries": [query("Ada lives in", "Asia")], "test_condition": "OR",
                "condition_queries": []}]})
    }

    #[test]
    fn a_record_asks_its_own_sentence_and_each_criterions_tests() {
        let data = parse("f", &record().to_string()).unwrap();
        assert_eq!(data.set, Set::Tests);
        let record = &data.records[0];
        assert_eq!(record.rewrite.subject, "Ada of Rome");
        assert_eq!(record.rewrite.target_new, "Syria");
        let [own, logic, forgets] = record.tests.as_slice() else {
            panic!("{:?}", record.tests)
        };
        assert_eq!((own.criterion.as_str(), own.if_edited), (EDITED, false));
        assert_eq!(
            own.queries[0].prompt,
            "The name of the country of citizenship of Ada of Rome is"
        );
        assert_eq!(logic.criterion, "logical generalization");
        assert!(logic.any && logic.if_edited && logic.conditions.is_empty());
        assert!(!forgets.any);
        assert_eq!(forgets.queries[1].answers, [["harp", "Mum"]]);
        assert_eq!(forgets.conditions[0].prompt, "Eve is");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (path, field) in [
            ("/edit/prompt", "edit.prompt"),
            (
                "/Forgetfulness/0/test_queries/1/prompt",
                "Forgetfulness[0].test_queries[1].prompt",
            ),
            (
                "/Forgetfulness/0/condition_queries/0/answers",
                "condition_queries[0].answers",
            ),
        ] {
            let mut value = record();
            *value.pointer_mut(path).unwrap() = Value::Null;
            let said = parse("f", &value.to_string()).unwrap_err().to_string();
            assert!(said.contains(field), "{said}");
        }
    }
}
