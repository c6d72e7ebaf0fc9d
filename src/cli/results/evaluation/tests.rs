//! An evaluation's tables and sentences.
#![allow(clippy::unwrap_used)]

use super::*;

fn job(against: &str) -> v1::Job {
    let record = |n: usize| v1::EvalRecord {
        request: Some(v1::EditRequest {
            prompt: "{} is in".to_owned(),
            subject: format!("Tower {n}"),
            target_new: "Rome".to_owned(),
            target_true: Some("Paris".to_owned()),
            id: Some(format!("{}", 70 + n)),
        }),
        ..Default::default()
    };
    v1::Job {
        name: "jobs/j".to_owned(),
        version: "models/m/versions/b".to_owned(),
        spec: Some(v1::job::Spec::Eval(v1::EvalSpec {
            records: (1..4).map(record).collect(),
            set: v1::EvalSet::Counterfact as i32,
            against: against.to_owned(),
            left_out: 5,
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn measured(unit: u64, scores: [f64; 3]) -> v1::UnitResult {
    let figures = Metric::SCORES.iter().zip(scores);
    let measure = v1::EvalMeasure {
        figures: figures
            .map(|(metric, value)| v1::NamedNumber {
                key: metric.to_string(),
                value,
            })
            .collect(),
        ..Default::default()
    };
    v1::UnitResult {
        unit,
        outcome: Some(Outcome::Eval(v1::EvalOutcome {
            measured: Some(measure),
            ..Default::default()
        })),
    }
}

fn failed(unit: u64) -> v1::UnitResult {
    let failure = v1::Failure {
        failure_class: v1::FailureClass::Invalid as i32,
        message: "the prompt is too long: shorten it".to_owned(),
    };
    v1::UnitResult {
        unit,
        outcome: Some(Outcome::Failure(failure)),
    }
}

fn told(job: &v1::Job, results: &[v1::UnitResult]) -> String {
    let label = |name: &str| name.rsplit('/').next().unwrap().to_owned();
    let evaluation = Evaluation::new(job, results, label).unwrap();
    let mut out = Vec::new();
    evaluation
        .report(&mut out, false, None, Colour::Never)
        .unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn two_versions_stand_side_by_side_over_the_records_that_both_have() {
    let job = job("models/m/versions/a");
    let results = [
        measured(0, [1.0, 1.0, 0.5]),
        measured(1, [1.0, 0.0, 1.0]),
        failed(2),
        measured(3, [0.0, 0.5, 0.5]),
        measured(4, [0.0, 0.0, 1.0]),
        failed(5),
    ];
    assert_eq!(
        told(&job, &results),
        "MEASURE  N     a           95 %      b            95 %  CHANGE            95 %\n\
         ES       2   0.0     0.0 to 0.0  100.0  100.0 to 100.0   100.0  100.0 to 100.0\n\
         PS       2  25.0  -24.0 to 74.0   50.0  -48.0 to 148.0    25.0   -24.0 to 74.0\n\
         NS       2  75.0  26.0 to 124.0   75.0   26.0 to 124.0     0.0      0.0 to 0.0\n\
         S        2   0.0                  69.2   20.5 to 117.9    69.2\n\
         2 records of CounterFact on models/m/versions/b, against models/m/versions/a.\n\
         5 records were left out: the unedited model does not know their facts.\n\
         record 3 (case_id 73) failed (invalid): the prompt is too long: shorten it\n"
    );
}

#[test]
fn results_so_far_say_what_is_missing_and_foreign_ones_are_refused() {
    let job = job("models/m/versions/b");
    let said = told(&job, &[measured(0, [1.0, 1.0, 1.0])]);
    assert!(said.contains("2 records are not measured."), "{said}");
    assert!(!said.contains("CHANGE"), "{said}");
    let label = |_: &str| String::new();
    for unit in [3, 6] {
        let foreign = [measured(unit, [1.0; 3])];
        assert!(Evaluation::new(&job, &foreign, label).is_err());
    }
}

#[test]
fn the_perplexity_of_texts_is_told_with_its_ratio() {
    let text = |text: &str| v1::EvalRecord {
        text: text.to_owned(),
        ..Default::default()
    };
    let mut job = job("models/m/versions/a");
    job.spec = Some(v1::job::Spec::Eval(v1::EvalSpec {
        records: vec![text("It rains."), text("The sun shines again.")],
        set: v1::EvalSet::Texts as i32,
        against: "models/m/versions/a".to_owned(),
        ..Default::default()
    }));
    let read = |unit, tokens: u32, perplexity: f64| v1::UnitResult {
        unit,
        outcome: Some(Outcome::Eval(v1::EvalOutcome {
            measured: Some(v1::EvalMeasure {
                text: Some(v1::EvalScore {
                    nll: perplexity.ln(),
                    tokens,
                    likeliest: 1,
                }),
                ..Default::default()
            }),
            ..Default::default()
        })),
    };
    // The job's own version comes first.
    let results = [
        read(0, 3, 2.5),
        read(1, 3, 10.0),
        read(2, 3, 2.0),
        read(3, 3, 8.0),
    ];
    assert_eq!(
        told(&job, &results),
        "MEASURE     N    a         95 %    b          95 %  RATIO            95 %\n\
         PPL         2  4.0  -1.4 to 9.4  5.0  -1.8 to 11.8  1.250  1.250 to 1.250\n\
         PPL MEDIAN  2  5.0               6.3                1.250\n\
         2 texts on models/m/versions/b, against models/m/versions/a.\n"
    );
}
