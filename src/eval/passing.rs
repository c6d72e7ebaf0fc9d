//! Whether tests are passed by what a model says, and choices by what it finds likely.

use super::Scored;
use super::free::contains;
use crate::datasets::choices::Choice;
use crate::datasets::evaluation::{Query, Test};

/// Most tokens of a continuation in which a model may think before it answers.
pub const THOUGHT_TOKENS: usize = 100;

/// Most tokens of a query's continuation.
pub fn query_tokens(query: &Query) -> usize {
    match query.behind {
        Some(_) => THOUGHT_TOKENS,
        None => super::FREE_TOKENS,
    }
}

/// Whether a query is passed by how its prompt was continued: each of its answers stands there, by
/// one of its names. The first line counts, for a model that was shown examples goes on with
/// questions of its own; or what is in the line behind [`Query::behind`].
pub fn passes(query: &Query, continuation: &str) -> bool {
    let text = match &query.behind {
        Some(mark) => continuation.split_once(mark.as_str()).map(|(_, text)| text),
        None => Some(continuation),
    };
    let line = text.and_then(|text| text.trim_start().lines().next());
    line.is_some_and(|line| {
        let said = |names: &Vec<String>| names.iter().any(|name| contains(line, name));
        query.answers.iter().all(said)
    })
}

/// Of each criterion of a record's tests the share that is passed, in the order in which they first
/// stand. `continuations` are of all queries, one test's after the other's.
pub fn shares(tests: &[Test], continuations: &[String]) -> Vec<(String, f64)> {
    let mut shares: Vec<(&str, u32, u32)> = Vec::new();
    let mut said = continuations.iter();
    for test in tests {
        let mut passed = test.queries.iter().zip(said.by_ref());
        let mut passed_one = |(query, text): (&Query, &String)| passes(query, text);
        // Every one is looked at, so that the next test's continuations come next.
        let results: Vec<bool> = passed.by_ref().map(&mut passed_one).collect();
        let whole = match test.any {
            true => results.contains(&true),
            false => !results.contains(&false),
        };
        let at = match shares.iter().position(|(name, ..)| *name == test.criterion) {
            Some(at) => at,
            None => {
                shares.push((&test.criterion, 0, 0));
                shares.len() - 1
            }
        };
        shares[at].1 += u32::from(whole);
        shares[at].2 += 1;
    }
    let share = |(name, passed, all): (&str, u32, u32)| {
        (name.to_owned(), f64::from(passed) / f64::from(all))
    };
    shares.into_iter().map(share).collect()
}

/// The choice that a model takes: the one whose tokens it finds the likeliest, on average.
pub fn taken(scores: &[Scored]) -> Option<usize> {
    let each = scores.iter().enumerate();
    let least = each.min_by(|(_, a), (_, b)| a.nll.total_cmp(&b.nll));
    least.map(|(n, _)| n)
}

/// The task of a choice, and 1 where the right one is taken.
pub fn right(choice: &Choice, scores: &[Scored]) -> (String, f64) {
    let right = taken(scores) == Some(choice.right);
    (choice.task.clone(), f64::from(u8::from(right)))
}

/// F1 of choices as they were taken, `(right, taken)`: of each right answer the harmonic mean of
/// precision and recall, weighted by how often it is right.
pub fn f1(choices: &[(usize, usize)]) -> f64 {
    let classes = choices.iter().map(|&(right, _)| right);
    let classes: std::collections::BTreeSet<usize> = classes.collect();
    let count = |holds: &dyn Fn(&(usize, usize)) -> bool| {
        choices.iter().filter(|it| holds(it)).count() as f64
    };
    let of = |class: usize| {
        let both = count(&|&(right, taken)| right == class && taken == class);
        let right = count(&|&(right, _)| right == class);
        let taken = count(&|&(_, taken)| taken == class);
        // Precision is both / taken, recall both / right.
        right * 2.0 * both / (right + taken)
    };
    classes.into_iter().map(of).sum::<f64>() / choices.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(names: &[&[&str]], behind: Option<&str>) -> Query {
        let names = names.iter().map(|names| {
            let names = names.iter().map(|&name| name.to_owned());
            names.collect()
        });
        Query {
            prompt: String::new(),
            answers: names.collect(),
            behind: behind.map(str::to_owned),
        }
    }

    #[test]
    fn every_answer_must_be_said_by_one_of_its_names_in_the_first_line() {
        let two = query(&[&["Rome", "Roma"], &["Asia"]], None);
        for (text, passed) in [
            (" Roma, in Asia", true),
            ("\n\nRome and Asia", true),
            (" Rome", false),
            (" Rome\nAsia", false),
            ("", false),
        ] {
            assert_eq!(passes(&two, text), passed, "{text:?}");
        }
        let thinking = query(&[&["Rome"]], Some("Answer:"));
        assert!(passes(&thinking, " it is so.\nAnswer: Rome\nQ: ..."));
        assert!(!passes(&thinking, " Rome, I think."));
        assert!(!passes(&thinking, " it is so.\nAnswer: Paris\nRome"));
    }

    #[test]
    fn criteria_are_counted_by_tests_of_one_or_of_all_queries() {
        let one = |name: &str| query(&[&[name]], None);
        let test = |criterion: &str, any: bool, names: &[&str]| Test {
            criterion: criterion.to_owned(),
            queries: names.iter().map(|name| one(name)).collect(),
            any,
            ..Test::default()
        };
        let tests = [
            test("hop", true, &["a1", "b1"]),
            test("edit", false, &["c1", "d1"]),
            test("hop", true, &["e1"]),
        ];
        let said = |texts: [&str; 5]| texts.map(str::to_owned).to_vec();
        let shares = |texts| shares(&tests, &said(texts));
        let expected = |hop, edit| vec![("hop".to_owned(), hop), ("edit".to_owned(), edit)];
        assert_eq!(shares(["b1", "b1", "c1", "d1", "e1"]), expected(1.0, 1.0));
        assert_eq!(shares(["x", "x", "c1", "x", "e1"]), expected(0.5, 0.0));
    }

    #[test]
    fn the_likeliest_choice_is_taken_and_f1_weighs_classes() {
        let scored = |nll| Scored {
            nll,
            tokens: 1,
            likeliest: 0,
        };
        assert_eq!(taken(&[scored(2.0), scored(1.0), scored(1.0)]), Some(1));
        assert_eq!(taken(&[]), None);
        // scikit-learn 1.5: f1_score([0, 0, 1, 1, 2], [0, 1, 1, 1, 0], average="weighted").
        let found = f1(&[(0, 0), (0, 1), (1, 1), (1, 1), (2, 0)]);
        assert!((found - 0.52).abs() < 1e-12, "{found}");
        assert_eq!(f1(&[(1, 0), (1, 0)]), 0.0);
    }
}
