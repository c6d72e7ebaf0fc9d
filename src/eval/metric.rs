//! What follows from a record's answers.

use std::fmt;
use std::str::FromStr;

use super::{Answer, ProbeKind, Said, Scored, Set};

/// A measure of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Efficacy score: the rewritten fact's new object is likelier than the true one.
    Es,
    /// Paraphrase score.
    Ps,
    /// Neighbourhood score: the true object is likelier than the new one.
    Ns,
    /// Efficacy magnitude: by how much, as a probability a token.
    Em,
    /// Paraphrase magnitude.
    Pm,
    /// Neighbourhood magnitude.
    Nm,
    /// Efficacy accuracy: tokens of the new object that are the likeliest.
    Ea,
    /// Paraphrase accuracy.
    Pa,
    /// Neighbourhood accuracy: tokens of the unrelated question's answer that are the likeliest.
    /// Specificity.
    Na,
    /// The rewritten prompt is continued by the new object and nothing else.
    EExact,
    /// The same of paraphrases.
    PExact,
    /// Neighbours are continued by the true object and nothing else.
    NExact,
    /// The rewritten prompt's continuation has the new object in it.
    EContains,
    /// The same of paraphrases.
    PContains,
    /// Neighbours' continuations have the true object in them.
    NContains,
    /// Generation entropy.
    Ge,
}

impl Metric {
    /// All of them, in the order of tables.
    pub const ALL: [Metric; 16] = [
        Metric::Es,
        Metric::Ps,
        Metric::Ns,
        Metric::Em,
        Metric::Pm,
        Metric::Nm,
        Metric::Ea,
        Metric::Pa,
        Metric::Na,
        Metric::EExact,
        Metric::PExact,
        Metric::NExact,
        Metric::EContains,
        Metric::PContains,
        Metric::NContains,
        Metric::Ge,
    ];

    /// The measures whose data set's means make S.
    pub const SCORES: [Metric; 3] = [Metric::Es, Metric::Ps, Metric::Ns];

    /// What its values are multiplied by in tables: all but the entropy are read in hundredths.
    pub fn scale(self) -> f64 {
        if self == Metric::Ge { 1.0 } else { 100.0 }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Metric::Es => "ES",
            Metric::Ps => "PS",
            Metric::Ns => "NS",
            Metric::Em => "EM",
            Metric::Pm => "PM",
            Metric::Nm => "NM",
            Metric::Ea => "EA",
            Metric::Pa => "PA",
            Metric::Na => "NA",
            Metric::EExact => "E EXACT",
            Metric::PExact => "P EXACT",
            Metric::NExact => "N EXACT",
            Metric::EContains => "E CONTAINS",
            Metric::PContains => "P CONTAINS",
            Metric::NContains => "N CONTAINS",
            Metric::Ge => "GE",
        })
    }
}

impl FromStr for Metric {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let named = Metric::ALL.into_iter().find(|m| m.to_string() == text);
        named.ok_or(())
    }
}

/// A record's values: those that its answers allow. `said` is what free continuations of its prompts
/// gave, where there are any, and `entropies` are of the texts drawn for it.
pub fn figures(
    set: Set,
    answers: &[Answer],
    said: &[Said],
    entropies: &[f64],
) -> Vec<(Metric, f64)> {
    let mut figures = Vec::new();
    let mut add = |metric: Metric, values: Vec<f64>| {
        if !values.is_empty() {
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            figures.push((metric, mean));
        }
    };
    let of = |kind: ProbeKind| answers.iter().filter(move |answer| answer.kind == kind);
    for (kind, score, magnitude, accuracy) in [
        (ProbeKind::Rewrite, Metric::Es, Metric::Em, Metric::Ea),
        (ProbeKind::Paraphrase, Metric::Ps, Metric::Pm, Metric::Pa),
        (ProbeKind::Neighbour, Metric::Ns, Metric::Nm, Metric::Na),
    ] {
        let stays = kind == ProbeKind::Neighbour;
        // What should be the likelier one, and what should not.
        let pairs = of(kind).filter_map(|answer| {
            let (new, old) = (answer.new?, answer.old?);
            Some(if stays { (old, new) } else { (new, old) })
        });
        match set {
            Set::CounterFact => {
                let pairs: Vec<(Scored, Scored)> = pairs.collect();
                let better = |(wanted, other): &(Scored, Scored)| wanted.nll < other.nll;
                let margin =
                    |(wanted, other): &(Scored, Scored)| (-wanted.nll).exp() - (-other.nll).exp();
                add(
                    score,
                    pairs.iter().map(|pair| f64::from(better(pair))).collect(),
                );
                add(magnitude, pairs.iter().map(margin).collect());
            }
            Set::ZsRe => {
                let wanted = of(kind).filter_map(|it| if stays { it.old } else { it.new });
                let share = |scored: Scored| scored.likeliest as f64 / scored.tokens as f64;
                add(accuracy, wanted.map(share).collect());
            }
            Set::Tests => {}
        }
    }
    for (kind, exact, contains) in [
        (ProbeKind::Rewrite, Metric::EExact, Metric::EContains),
        (ProbeKind::Paraphrase, Metric::PExact, Metric::PContains),
        (ProbeKind::Neighbour, Metric::NExact, Metric::NContains),
    ] {
        let of = said.iter().filter(|said| said.kind == kind);
        let share = |holds: fn(&Said) -> bool| of.clone().map(|it| f64::from(holds(it))).collect();
        add(exact, share(|it| it.exact));
        add(contains, share(|it| it.contains));
    }
    add(Metric::Ge, entropies.to_vec());
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(p: f64, tokens: usize, likeliest: usize) -> Option<Scored> {
        Some(Scored {
            nll: -p.ln(),
            tokens,
            likeliest,
        })
    }

    fn answer(kind: ProbeKind, new: f64, old: f64) -> Answer {
        Answer {
            kind,
            new: scored(new, 1, 0),
            old: scored(old, 1, 0),
        }
    }

    fn value(figures: &[(Metric, f64)], metric: Metric) -> Option<f64> {
        let found = figures.iter().find(|(it, _)| *it == metric);
        found.map(|(_, value)| *value)
    }

    #[test]
    fn counterfacts_values_are_those_found_by_hand() {
        let answers = [
            answer(ProbeKind::Rewrite, 0.9, 0.05),
            answer(ProbeKind::Paraphrase, 0.4, 0.1),
            answer(ProbeKind::Paraphrase, 0.2, 0.3),
            answer(ProbeKind::Neighbour, 0.1, 0.8),
            answer(ProbeKind::Neighbour, 0.6, 0.2),
            answer(ProbeKind::Neighbour, 0.3, 0.3),
            answer(ProbeKind::Neighbour, 0.0625, 0.125),
        ];
        let figures = figures(Set::CounterFact, &answers, &[], &[]);
        for (metric, expected) in [
            (Metric::Es, 1.0),
            (Metric::Em, 0.85),
            (Metric::Ps, 0.5),
            (Metric::Pm, (0.3 - 0.1) / 2.0),
            // Equal is not likelier.
            (Metric::Ns, 0.5),
            (Metric::Nm, (0.7 - 0.4 + 0.0 + 0.0625) / 4.0),
        ] {
            let found = value(&figures, metric).unwrap_or(f64::NAN);
            assert!((found - expected).abs() < 1e-12, "{metric}: {found}");
        }
        assert_eq!(value(&figures, Metric::Ea), None);
        assert_eq!(figures.len(), 6);
    }

    #[test]
    fn zsres_accuracies_count_tokens_and_ignore_what_is_not_asked() {
        let answers = [
            Answer {
                kind: ProbeKind::Rewrite,
                new: scored(0.5, 4, 3),
                old: scored(0.1, 2, 2),
            },
            Answer {
                kind: ProbeKind::Neighbour,
                new: None,
                old: scored(0.5, 3, 1),
            },
        ];
        let said = [Said {
            kind: ProbeKind::Rewrite,
            exact: false,
            contains: true,
        }];
        let figures = figures(Set::ZsRe, &answers, &said, &[300.0, 500.0]);
        assert_eq!(value(&figures, Metric::Ea), Some(0.75));
        assert_eq!(value(&figures, Metric::Pa), None);
        assert_eq!(value(&figures, Metric::Na), Some(1.0 / 3.0));
        assert_eq!(value(&figures, Metric::Ge), Some(400.0));
        assert_eq!(value(&figures, Metric::EExact), Some(0.0));
        assert_eq!(value(&figures, Metric::EContains), Some(1.0));
        assert_eq!(value(&figures, Metric::NContains), None);
        assert_eq!(figures.len(), 5);
    }

    #[test]
    fn names_read_back() {
        for metric in Metric::ALL {
            assert_eq!(metric.to_string().parse(), Ok(metric));
        }
    }
}
