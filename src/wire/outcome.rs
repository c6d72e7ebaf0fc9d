//! Results of units, looked at as a whole.

use crate::proto::v1::unit_result::Outcome;
use crate::proto::v1::{
    self, EditProbe, EditStep, EvalMeasure, MetricReading, NamedNumber, VerifiedCell, model,
};
use crate::version::{Factor, keys_of, rows_of_solve};

/// The first number of a result that is none, by its field: an infinity or NaN. Such a number
/// cannot be averaged, drawn or written as JSON, and says only that the arithmetic left its range.
pub fn not_finite(outcome: &Outcome) -> Option<(String, f64)> {
    let found: Vec<(String, f64)> = match outcome {
        Outcome::Grid(grid) => {
            let scores = grid.scores.iter().copied();
            let layers = (grid.layers as usize).max(1);
            let cell = |(n, score)| (format!("scores[{}][{}]", n / layers, n % layers), score);
            let reading = |reading: &MetricReading| {
                let name = reading.metric().as_str_name();
                let ends = [reading.clean, reading.corrupted];
                let all = ends.into_iter().chain(reading.scores.iter().copied());
                let mut wrong = all.filter(|value| !value.is_finite());
                wrong.next().map(|value| (name.to_owned(), value))
            };
            let verified = |(n, cell): (usize, &VerifiedCell)| {
                let field = format!("verified[{n}].exact");
                let exact = cell.exact.clone();
                exact.into_iter().map(move |value| (field.clone(), value))
            };
            return [
                ("high", grid.high),
                ("low", grid.low),
                ("noise_scale", grid.noise_scale),
            ]
            .into_iter()
            .map(|(field, value)| (field.to_owned(), value))
            .chain(scores.enumerate().map(cell))
            .chain(grid.readings.iter().filter_map(reading))
            .chain(grid.verified.iter().enumerate().flat_map(verified))
            .find(|(_, value)| !value.is_finite());
        }
        Outcome::NoiseLevel(level) => vec![("scale".to_owned(), level.scale)],
        Outcome::Edit(made) => {
            let edit = made.edit.iter();
            edit.flat_map(|edit| edit.parameters.iter().chain(&edit.figures).map(named))
                .chain(made.probes.iter().enumerate().flat_map(probe))
                .chain(made.steps.iter().enumerate().flat_map(step))
                .collect()
        }
        Outcome::Eval(made) => {
            let edit = made.edit.iter();
            edit.flat_map(|edit| [("edit.loss", edit.loss), ("edit.norm", edit.norm)])
                .map(|(field, value)| (field.to_owned(), value))
                .chain(made.before.iter().flat_map(measure))
                .chain(made.measured.iter().flat_map(measure))
                .collect()
        }
        Outcome::MassEditTarget(target) => [
            ("loss", target.loss),
            ("probability", target.probability),
            ("length", target.length),
        ]
        .map(|(field, value)| (field.to_owned(), value))
        .to_vec(),
        Outcome::MassEditSolved(solved) => solved.figures.iter().map(named).collect(),
        Outcome::MassEditFact(fact) => {
            let drifts = fact.neighbour_drifts.iter().enumerate();
            let drifts = drifts.map(|(n, &drift)| (format!("neighbour_drifts[{n}]"), drift));
            drifts
                .chain(fact.probes.iter().enumerate().flat_map(probe))
                .collect()
        }
        Outcome::MassEditChecked(checked) => {
            let layers = checked.layers.iter().flat_map(|layer| &layer.figures);
            let keys = checked.worst.iter();
            let keys = keys.flat_map(|key| key.leverage.iter().chain(&key.share));
            let cosines = checked.near.iter().map(|pair| ("near.cosine", pair.cosine));
            let others = checked.overwritten.iter();
            let others = others.map(|fact| ("overwritten.cosine", fact.cosine));
            (layers.map(named))
                .chain(keys.map(|&value| ("worst".to_owned(), value)))
                .chain(
                    cosines
                        .chain(others)
                        .map(|(field, value)| (field.to_owned(), value)),
                )
                .collect()
        }
        // Keys are looked at where they are accepted.
        // Texts, and names of objects whose numbers are looked at where they are made.
        Outcome::Completion(_)
        | Outcome::StatsShard(_)
        | Outcome::StatsSum(_)
        | Outcome::MassEditContexts(_)
        | Outcome::MassEditKeys(_)
        | Outcome::Failure(_) => Vec::new(),
    };
    found.into_iter().find(|(_, value)| !value.is_finite())
}

/// What a probability may be beyond 0 and 1: a softmax in half precision does not sum to 1 exactly.
const SLACK: f64 = 0.01;

/// What of a result cannot be of a model of this shape, in words: a probability that is none, a
/// token that is not in the vocabulary. A shape that says nothing (zeroes) bounds nothing.
pub fn out_of_range(outcome: &Outcome, shape: &model::Shape) -> Option<String> {
    let token = |field: &str, ids: &[u32]| {
        let wrong = |&&id: &&u32| shape.vocabulary > 0 && id >= shape.vocabulary;
        let id = ids.iter().find(wrong)?;
        let of = shape.vocabulary;
        Some(format!("{field} has token {id}, the vocabulary has {of}"))
    };
    let wide = |field: &str, singles: &[u8]| {
        let (width, found) = (shape.width, singles.len() / 4);
        let wrong = width > 0 && found != width as usize;
        wrong.then(|| format!("its {field} has {found} numbers, the model's width is {width}"))
    };
    match outcome {
        Outcome::Grid(grid) => {
            let numbers = [("high", grid.high), ("low", grid.low)].into_iter();
            // An estimate of a probability need not be one.
            let estimated = grid.engine() == v1::Engine::Attribution;
            let scores = grid.scores.iter().filter(|_| !estimated);
            let scores = scores.map(|&score| ("scores", score));
            let exact = grid.verified.iter().filter_map(|cell| cell.exact.first());
            let scores = scores.chain(exact.map(|&score| ("verified", score)));
            if let Some(what) = numbers.chain(scores).find_map(improbable) {
                return Some(what);
            }
            let other = grid.corrupted.iter().flat_map(|it| &it.tokens);
            let other: Vec<u32> = other.chain(&grid.foil).map(|token| token.id).collect();
            token("grid", &grid.token_ids)
                .or_else(|| token("answer", &[grid.answer_id]))
                .or_else(|| token("corrupted prompt or foil", &other))
        }
        Outcome::Completion(completion) => token("completion", &completion.token_ids),
        Outcome::Edit(made) => {
            let probes = made.probes.iter().enumerate().flat_map(probe);
            let steps = made.steps.iter().enumerate();
            let steps = steps.map(|(n, it)| (format!("steps[{n}].probability"), it.probability));
            probes
                .chain(steps)
                .find_map(|(field, value)| improbable((&field, value)))
        }
        Outcome::MassEditTarget(target) => wide("target", &target.value)
            .or_else(|| improbable(("probability", target.probability))),
        // Keys that are read after the edit have no residual.
        Outcome::MassEditKeys(read) if read.residual.is_empty() => None,
        Outcome::MassEditKeys(read) => wide("residual", &read.residual),
        Outcome::MassEditFact(fact) => {
            let mut probes = fact.probes.iter().enumerate().flat_map(probe);
            probes.find_map(|(field, value)| improbable((&field, value)))
        }
        Outcome::NoiseLevel(_)
        | Outcome::StatsShard(_)
        | Outcome::StatsSum(_)
        | Outcome::Eval(_)
        | Outcome::MassEditContexts(_)
        | Outcome::MassEditSolved(_)
        | Outcome::MassEditChecked(_)
        | Outcome::Failure(_) => None,
    }
}

/// The objects that an outcome is nothing without, with the sizes that it says they have.
pub fn objects_of(outcome: &Outcome) -> Vec<(String, u64)> {
    match outcome {
        Outcome::StatsShard(shard) => {
            let sums = shard.sums.iter();
            sums.map(|sum| (sum.digest.clone(), sum.size)).collect()
        }
        Outcome::StatsSum(sum) => vec![(sum.digest.clone(), sum.size)],
        Outcome::MassEditSolved(solved) => {
            let size = |factor| Factor::bytes(factor).unwrap_or(u64::MAX);
            let change = solved.factor.iter();
            let change = change.map(|factor| (factor.digest.clone(), size(factor)));
            let rows = solved.solve.iter().flat_map(rows_of_solve);
            let rows = rows.chain(solved.keys.iter().map(keys_of));
            let rows = rows.map(|it| (it.digest.to_owned(), it.bytes().unwrap_or(u64::MAX)));
            change.chain(rows).collect()
        }
        // What an edit is made of is looked at where it becomes a version.
        _ => Vec::new(),
    }
}

fn improbable((field, value): (&str, f64)) -> Option<String> {
    let no = !(-SLACK..=1.0 + SLACK).contains(&value);
    no.then(|| format!("{field} is {value}, which is no probability"))
}

fn named(number: &NamedNumber) -> (String, f64) {
    (number.key.clone(), number.value)
}

fn probe((n, probe): (usize, &EditProbe)) -> Vec<(String, f64)> {
    let fields = [
        ("new_before", Some(probe.new_before)),
        ("new_after", Some(probe.new_after)),
        ("true_before", probe.true_before),
        ("true_after", probe.true_after),
    ];
    let known = fields.into_iter();
    known
        .filter_map(|(field, value)| Some((format!("probes[{n}].{field}"), value?)))
        .collect()
}

fn step((n, step): (usize, &EditStep)) -> [(String, f64); 4] {
    [
        ("loss", step.loss),
        ("nll", step.nll),
        ("probability", step.probability),
        ("drift", step.drift),
    ]
    .map(|(field, value)| (format!("steps[{n}].{field}"), value))
}

fn measure(measure: &EvalMeasure) -> Vec<(String, f64)> {
    let figures = measure.figures.iter().map(named);
    let answers = measure.answers.iter().enumerate();
    let scores = answers.flat_map(|(n, answer)| {
        let both = [
            ("new_object", &answer.new_object),
            ("true_object", &answer.true_object),
        ];
        both.into_iter().filter_map(move |(field, score)| {
            Some((format!("answers[{n}].{field}.nll"), score.as_ref()?.nll))
        })
    });
    let text = measure.text.iter();
    let text = text.map(|read| ("text.nll".to_owned(), read.nll));
    figures.chain(scores).chain(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(outcome: &Outcome) -> Option<String> {
        not_finite(outcome).map(|(field, _)| field)
    }

    #[test]
    fn a_result_that_no_model_of_the_shape_can_give_is_found() {
        let shape = model::Shape {
            vocabulary: 288,
            ..Default::default()
        };
        let nothing_known = model::Shape::default();
        let sound = v1::Grid {
            token_ids: vec![1, 287],
            high: 1.0,
            layers: 3,
            scores: vec![0.0, 1.000_1, 0.2, 0.3, 0.4, 0.5],
            ..Default::default()
        };
        let grid = |change: &dyn Fn(&mut v1::Grid)| {
            let mut grid = sound.clone();
            change(&mut grid);
            Outcome::Grid(grid)
        };
        assert_eq!(out_of_range(&grid(&|_| {}), &shape), None);
        // Estimates of probabilities may be none, and exact ones beside them must.
        let estimate = |scores: Vec<f64>, exact| {
            move |it: &mut v1::Grid| {
                it.engine = v1::Engine::Attribution as i32;
                it.scores.clone_from(&scores);
                it.verified = vec![VerifiedCell {
                    exact: vec![exact, 7.0],
                    ..Default::default()
                }];
            }
        };
        let sound_estimate = grid(&estimate(vec![2.0, -1.0], 0.5));
        assert_eq!(out_of_range(&sound_estimate, &shape), None);
        let infinite = not_finite(&grid(&estimate(vec![2.0], f64::INFINITY)));
        assert_eq!(infinite.unwrap().0, "verified[0].exact");
        for (outcome, what) in [
            (grid(&|it| it.high = 1.5), "high is 1.5"),
            (grid(&|it| it.low = -0.5), "low is -0.5"),
            (grid(&|it| it.scores[2] = 2.0), "scores is 2"),
            (grid(&estimate(vec![0.4, 9.0], 1.2)), "verified is 1.2"),
            (grid(&|it| it.token_ids[0] = 288), "grid has token 288"),
            (
                grid(&|it| it.answer_id = 1_000_000),
                "answer has token 1000000",
            ),
        ] {
            let found = out_of_range(&outcome, &shape).unwrap();
            assert!(found.contains(what), "{found}");
        }
        let completion = Outcome::Completion(v1::Completion {
            token_ids: vec![1_000_000],
            ..Default::default()
        });
        assert!(out_of_range(&completion, &shape).is_some());
        assert_eq!(out_of_range(&completion, &nothing_known), None);
        let edit = |new_after, probability| {
            Outcome::Edit(v1::EditOutcome {
                probes: vec![EditProbe {
                    new_after,
                    ..Default::default()
                }],
                steps: vec![EditStep {
                    probability,
                    ..Default::default()
                }],
                ..Default::default()
            })
        };
        assert_eq!(out_of_range(&edit(0.9, 0.1), &shape), None);
        assert!(out_of_range(&edit(7.0, 0.1), &shape).is_some());
        assert!(out_of_range(&edit(0.9, -3.0), &shape).is_some());

        // What a mass edit's later steps compute with has the model's width.
        let wide = model::Shape { width: 2, ..shape };
        let target = |numbers: usize| {
            Outcome::MassEditTarget(v1::MassEditTarget {
                value: vec![0; 4 * numbers],
                ..Default::default()
            })
        };
        let keys = |numbers: usize| {
            Outcome::MassEditKeys(v1::MassEditKeys {
                residual: vec![0; 4 * numbers],
                ..Default::default()
            })
        };
        for outcome in [target(2), keys(2), keys(0)] {
            assert_eq!(out_of_range(&outcome, &wide), None);
        }
        for outcome in [target(0), target(3), keys(3)] {
            let found = out_of_range(&outcome, &wide).unwrap();
            assert!(found.contains("the model's width is 2"), "{found}");
        }
    }

    #[test]
    fn the_objects_of_a_result_are_told_with_their_sizes() {
        let digest = "ab".repeat(32);
        let solved = |width| {
            let factor = v1::LowRankFactor {
                digest: digest.clone(),
                rank: 2,
                width,
                inner: 5,
                ..Default::default()
            };
            Outcome::MassEditSolved(v1::MassEditSolved {
                factor: Some(factor),
                ..Default::default()
            })
        };
        assert_eq!(objects_of(&solved(3)), [(digest.clone(), 4 * 2 * 8)]);
        // No object has the bytes of numbers that cannot be counted.
        assert_eq!(objects_of(&solved(u64::MAX)), [(digest.clone(), u64::MAX)]);
        let sum = Outcome::StatsSum(v1::StatsSum {
            digest: digest.clone(),
            size: 7,
            ..Default::default()
        });
        assert_eq!(objects_of(&sum), [(digest, 7)]);
        assert_eq!(objects_of(&Outcome::Grid(v1::Grid::default())), []);
    }

    #[test]
    fn a_number_that_is_none_is_found_in_every_kind_of_result() {
        let grid = |high, score| {
            Outcome::Grid(v1::Grid {
                high,
                layers: 2,
                scores: vec![0.0, 0.1, 0.2, score],
                ..Default::default()
            })
        };
        assert_eq!(field(&grid(0.5, 0.5)), None);
        assert_eq!(field(&grid(f64::NAN, 0.5)).unwrap(), "high");
        assert_eq!(field(&grid(0.5, f64::NAN)).unwrap(), "scores[1][1]");
        let level = |scale| Outcome::NoiseLevel(v1::NoiseLevel { scale });
        assert_eq!(field(&level(0.1)), None);
        assert_eq!(field(&level(f64::INFINITY)).unwrap(), "scale");
        let edit = |figure, after, loss| {
            Outcome::Edit(v1::EditOutcome {
                edit: Some(v1::Edit {
                    figures: vec![v1::NamedNumber {
                        key: "efficacy".into(),
                        value: figure,
                    }],
                    ..Default::default()
                }),
                probes: vec![v1::EditProbe {
                    true_after: after,
                    ..Default::default()
                }],
                steps: vec![v1::EditStep {
                    loss,
                    ..Default::default()
                }],
                ..Default::default()
            })
        };
        assert_eq!(field(&edit(0.5, None, 1.0)), None);
        assert_eq!(field(&edit(f64::NAN, None, 1.0)).unwrap(), "efficacy");
        let after = edit(0.5, Some(f64::NAN), 1.0);
        assert_eq!(field(&after).unwrap(), "probes[0].true_after");
        let diverged = edit(0.5, None, f64::INFINITY);
        assert_eq!(field(&diverged).unwrap(), "steps[0].loss");
        let eval = |nll| {
            Outcome::Eval(v1::EvalOutcome {
                measured: Some(v1::EvalMeasure {
                    answers: vec![v1::EvalAnswer {
                        new_object: Some(v1::EvalScore {
                            nll,
                            ..Default::default()
                        }),
                        ..Default::default()
                    }],
                    ..Default::default()
                }),
                ..Default::default()
            })
        };
        assert_eq!(field(&eval(3.0)), None);
        assert_eq!(field(&eval(f64::NAN)).unwrap(), "answers[0].new_object.nll");
    }
}
