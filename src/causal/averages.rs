//! Averages over facts: total and indirect effects by the role of a token.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::corruption::Direction;
use super::error::Error;
use super::grid::Grid;
use super::kind::{Kind, Severed};
use super::metric::Metric;
use super::paths::Paths;
use super::settings::Engine;

/// What a token is to the subject. `[b, e)` are the subject's tokens, `T` all of them.
///
/// A token can have two roles: a subject of one token is both its first and its last, and the
/// prompt's last token may be the subject's last or the first one behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Token `b`.
    FirstSubject,
    /// Tokens `b + 1 ..= e - 2`.
    MiddleSubject,
    /// Token `e - 1`.
    LastSubject,
    /// Token `e`, where there is one.
    FirstSubsequent,
    /// Tokens `e + 1 ..= T - 2`.
    Further,
    /// Token `T - 1`.
    Last,
    /// All tokens at once, in grids whose cells restore them so: their only role.
    Every,
}

impl Role {
    /// The roles of single tokens, in the order of a prompt.
    pub const ALL: [Role; 6] = [
        Role::FirstSubject,
        Role::MiddleSubject,
        Role::LastSubject,
        Role::FirstSubsequent,
        Role::Further,
        Role::Last,
    ];

    /// The roles that grids of `kind` tell apart.
    pub fn of_kind(kind: Kind) -> &'static [Role] {
        match kind.is_over_tokens() {
            true => &[Role::Every],
            false => &Self::ALL,
        }
    }

    /// What a token is to the subject of `grid`: of more than one role the subject's last token
    /// before its first, and both before what the token is to the prompt.
    pub fn of(grid: &Grid, token: usize) -> Option<Self> {
        let order = [
            Role::LastSubject,
            Role::FirstSubject,
            Role::MiddleSubject,
            Role::Last,
            Role::FirstSubsequent,
            Role::Further,
        ];
        let mut roles = order.into_iter();
        roles.find(|role| role.tokens(grid).contains(&token))
    }

    /// The tokens of `grid` that have this role; of [`Role::Every`] token 0, in the place of all.
    pub fn tokens(self, grid: &Grid) -> std::ops::Range<usize> {
        let (b, e, tokens) = (grid.subject.start, grid.subject.end, grid.tokens.len());
        match self {
            Role::FirstSubject => b..b + 1,
            Role::MiddleSubject => b + 1..(e - 1).max(b + 1),
            Role::LastSubject => e - 1..e,
            Role::FirstSubsequent => e..tokens.min(e + 1),
            Role::Further => e + 1..(tokens - 1).max(e + 1),
            Role::Last => tokens - 1..tokens,
            Role::Every => 0..1,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::FirstSubject => "first subject token",
            Role::MiddleSubject => "middle subject tokens",
            Role::LastSubject => "last subject token",
            Role::FirstSubsequent => "first subsequent token",
            Role::Further => "further tokens",
            Role::Last => "last token",
            Role::Every => "every token",
        })
    }
}

/// A mean with what is known about its error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    /// Rows that it was taken over.
    pub rows: u64,
    /// The mean; 0 over no rows.
    pub mean: f64,
    /// Sum of squared deviations from the mean (Welford): sums of squares would cancel.
    squares: f64,
}

/// Half the width of a 95 % interval, in standard errors.
const NORMAL_95: f64 = 1.959_963_984_540_054;

impl Mean {
    /// A mean that is known with half the width of its interval.
    pub fn known(rows: u64, mean: f64, half_width: Option<f64>) -> Self {
        let n = rows as f64;
        let squares = half_width.map_or(0.0, |half| (half / NORMAL_95).powi(2) * n * (n - 1.0));
        Self {
            rows,
            mean,
            squares,
        }
    }

    /// Half the width of the 95 % interval; [`None`] under two rows.
    pub fn half_width(&self) -> Option<f64> {
        Some(NORMAL_95 * self.standard_error()?)
    }

    /// Takes one more row in.
    pub fn add(&mut self, value: f64) {
        self.rows += 1;
        let delta = value - self.mean;
        self.mean += delta / self.rows as f64;
        self.squares += delta * (value - self.mean);
    }

    /// Standard error of the mean, from the unbiased deviation of the rows; [`None`] under two
    /// rows.
    pub fn standard_error(&self) -> Option<f64> {
        (self.rows >= 2).then(|| {
            let rows = self.rows as f64;
            (self.squares / (rows - 1.0) / rows).sqrt()
        })
    }

    /// The 95 % interval `mean -+ 1.96` standard errors (rows taken as independent and many);
    /// [`None`] under two rows.
    pub fn interval(&self) -> Option<(f64, f64)> {
        let half = self.half_width()?;
        Some((self.mean - half, self.mean + half))
    }
}

/// A layer and role with the effect there.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// The role of the restored token.
    pub role: Role,
    /// The restored layer, or the middle of the restored window.
    pub layer: usize,
    /// The restored head, where heads are told apart.
    pub head: Option<usize>,
    /// The average indirect effect, a difference of the metric.
    pub effect: Mean,
}

/// Averages of one kind of grid over facts that the model answered correctly.
///
/// Effects are differences of the metric towards what is looked for: [`Grid::effect`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Averages {
    /// The restored state.
    pub kind: Kind,
    /// The sub-module that could not react, if any.
    pub severed: Option<Severed>,
    /// What was read.
    #[serde(default)]
    pub metric: Metric,
    /// Which run was patched.
    #[serde(default)]
    pub direction: Direction,
    /// The paths along which heads were patched, where they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Paths>,
    /// How the scores were computed; of one engine all.
    #[serde(default)]
    pub engine: Engine,
    /// Whether the answers were read whole.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub whole_answers: bool,
    /// Blocks of the model.
    pub layers: usize,
    /// Cells of a layer: [`Grid::heads`].
    #[serde(default = "super::grid::one")]
    pub heads: usize,
    /// Facts that were answered otherwise than expected, or had nothing to be corrupted with, and
    /// so not taken in.
    pub wrong: u64,
    /// The metric in the clean run, one row a fact.
    pub high: Mean,
    /// The metric in the corrupted run, one row a fact.
    pub low: Mean,
    /// ATE: the average of [`Grid::total_effect`], one row a fact.
    pub total_effect: Mean,
    /// AIE: the average of [`Grid::effect`], `[role][layer]` in the order of [`Role::of_kind`], one
    /// row a token; of one head after another, `[role][head * layers + layer]`, where they are told
    /// apart.
    pub indirect_effect: Vec<Vec<Mean>>,
    /// The average of the effects' shares of their fact's total effect, likewise, over the facts
    /// that have them ([`Grid::share`]).
    #[serde(default)]
    pub share: Vec<Vec<Mean>>,
    /// Facts whose total effect is too small to divide by.
    #[serde(default)]
    pub without_share: u64,
}

impl Averages {
    /// Averages over no facts yet, for grids like `grid`.
    fn like(grid: &Grid) -> Self {
        let none = vec![Mean::default(); grid.heads * grid.layers];
        let none = vec![none; Role::of_kind(grid.kind).len()];
        Self {
            kind: grid.kind,
            severed: grid.severed,
            metric: grid.metric,
            direction: grid.direction,
            paths: grid.paths.clone(),
            engine: grid.engine,
            whole_answers: grid.whole_answers,
            layers: grid.layers,
            heads: grid.heads,
            wrong: 0,
            high: Mean::default(),
            low: Mean::default(),
            total_effect: Mean::default(),
            indirect_effect: none.clone(),
            share: none,
            without_share: 0,
        }
    }

    /// The averages over `grids`, in their order (which decides the last bits); [`None`] over none.
    ///
    /// # Errors
    /// Grids of different kinds, or of models with different numbers of layers.
    pub fn over<'a>(grids: impl IntoIterator<Item = &'a Grid>) -> Result<Option<Self>, Error> {
        let mut averages: Option<Self> = None;
        for grid in grids {
            averages.get_or_insert_with(|| Self::like(grid)).add(grid)?;
        }
        Ok(averages)
    }

    /// The averages of each relation; facts without one are under [`None`].
    ///
    /// # Errors
    /// As [`Averages::over`].
    pub fn by_relation<'a>(
        grids: impl IntoIterator<Item = &'a Grid>,
    ) -> Result<BTreeMap<Option<String>, Self>, Error> {
        let mut relations = BTreeMap::new();
        for grid in grids {
            relations
                .entry(grid.fact.relation.clone())
                .or_insert_with(|| Self::like(grid))
                .add(grid)?;
        }
        Ok(relations)
    }

    /// Takes one more fact in.
    ///
    /// # Errors
    /// A grid of another kind, or of a model with another number of layers.
    pub fn add(&mut self, grid: &Grid) -> Result<(), Error> {
        let same = |grid: &Grid| {
            let read = (grid.metric, grid.direction, grid.engine, grid.whole_answers);
            (grid.kind, grid.severed, read)
        };
        let read = (self.metric, self.direction, self.engine, self.whole_answers);
        if same(grid) != (self.kind, self.severed, read) || grid.paths != self.paths {
            let expected = Grid {
                kind: self.kind,
                severed: self.severed,
                metric: self.metric,
                direction: self.direction,
                paths: self.paths.clone(),
                engine: self.engine,
                whole_answers: self.whole_answers,
                ..grid.clone()
            };
            return Err(Error::Kinds {
                prompt: grid.fact.prompt.clone(),
                found: grid.measure(),
                expected: expected.measure(),
            });
        }
        for (what, found, expected) in [
            ("layers", grid.layers, self.layers),
            ("heads a layer", grid.heads, self.heads),
        ] {
            if found != expected {
                return Err(Error::Layers {
                    prompt: grid.fact.prompt.clone(),
                    what,
                    found,
                    expected,
                });
            }
        }
        let (true, Some(low), Some(total)) = (grid.traced(), grid.low, grid.total_effect()) else {
            self.wrong += 1;
            return Ok(());
        };
        self.high.add(grid.high);
        self.low.add(low);
        self.total_effect.add(total);
        self.without_share += u64::from(grid.share(total).is_none());
        let means = self.indirect_effect.iter_mut().zip(&mut self.share);
        for (role, (effects, shares)) in Role::of_kind(self.kind).iter().zip(means) {
            for token in role.tokens(grid) {
                let row = grid.row(token).unwrap_or_default();
                let row = row.iter().filter_map(|&score| grid.effect(score));
                for ((mean, share), effect) in effects.iter_mut().zip(&mut *shares).zip(row) {
                    mean.add(effect);
                    if let Some(of_total) = grid.share(effect) {
                        share.add(of_total);
                    }
                }
            }
        }
        Ok(())
    }

    /// The roles that are told apart.
    pub fn roles(&self) -> &'static [Role] {
        Role::of_kind(self.kind)
    }

    /// AIE of `role`, one a layer, of one head after another where they are told apart; nothing for
    /// a role that is not told apart.
    pub fn role(&self, role: Role) -> &[Mean] {
        Self::of(&self.indirect_effect, self.kind, role)
    }

    /// The shares of the total effect, likewise.
    pub fn shares(&self, role: Role) -> &[Mean] {
        Self::of(&self.share, self.kind, role)
    }

    fn of(means: &[Vec<Mean>], kind: Kind, role: Role) -> &[Mean] {
        let mut roles = Role::of_kind(kind).iter().zip(means);
        roles
            .find(|(told, _)| **told == role)
            .map_or(&[], |(_, means)| means)
    }

    /// The layer where the effect of `role` is highest, and the head, the first one of equals;
    /// [`None`] for a role that no token had.
    pub fn peak(&self, role: Role) -> Option<Site> {
        let mut best: Option<Site> = None;
        for (at, &effect) in self.role(role).iter().enumerate() {
            if effect.rows > 0 && best.is_none_or(|best| effect.mean > best.effect.mean) {
                best = Some(Site {
                    role,
                    layer: at % self.layers,
                    head: (self.kind.is_of_heads()).then_some(at / self.layers),
                    effect,
                });
            }
        }
        best
    }

    /// The share of the total effect at a site.
    pub fn share_at(&self, site: &Site) -> Option<&Mean> {
        let at = site.head.unwrap_or_default() * self.layers + site.layer;
        self.shares(site.role).get(at)
    }

    /// Where the effect peaks: the layer, head and role with the highest average indirect effect,
    /// the first one of equals. [`None`] when no fact was taken in.
    pub fn locate(&self) -> Option<Site> {
        let peaks = self.roles().iter().filter_map(|&role| self.peak(role));
        peaks.reduce(|best, next| {
            if next.effect.mean > best.effect.mean {
                next
            } else {
                best
            }
        })
    }

    /// Where an edit of these facts belongs: the layer where restoring the MLPs at the last token
    /// of the subject brings most back, the middle of the restored window (paper, sections 2.3 and
    /// 3). [`None`] for averages of anything but whole MLP grids, and when no fact was taken in.
    pub fn edit_site(&self) -> Option<Site> {
        match (self.kind, self.severed) {
            (Kind::Mlp, None) => self.peak(Role::LastSubject),
            _ => None,
        }
    }

    /// The layers around `site`, of its head, whose mean effect lies in its 95 % interval: what the
    /// facts cannot tell from the peak. The site's layer alone when it has no interval.
    pub fn plateau(&self, site: &Site) -> RangeInclusive<usize> {
        let Some((from, _)) = site.effect.interval() else {
            return site.layer..=site.layer;
        };
        let of_head = site.head.unwrap_or_default() * self.layers;
        let effects = &self.role(site.role)[of_head..of_head + self.layers];
        let like = |effect: &&Mean| effect.mean >= from;
        let below = effects[..site.layer].iter().rev().take_while(like).count();
        let above = effects[site.layer + 1..].iter().take_while(like).count();
        site.layer - below..=site.layer + above
    }
}

#[cfg(test)]
mod tests {
    use super::super::grid::tests::{grid, of_heads};
    use super::*;

    #[test]
    fn roles_cover_a_prompt_in_order() {
        let scores: Vec<&[f64]> = vec![&[0.0]; 9];
        let whole = grid(1..5, 0.9, 0.1, &scores);
        let ranges: Vec<_> = Role::ALL.iter().map(|role| role.tokens(&whole)).collect();
        assert_eq!(ranges, [1..2, 2..4, 4..5, 5..6, 6..8, 8..9]);
    }

    #[test]
    fn a_one_token_subject_is_first_and_last() {
        let scores: Vec<&[f64]> = vec![&[0.0]; 4];
        let short = grid(0..1, 0.9, 0.1, &scores);
        assert_eq!(Role::FirstSubject.tokens(&short), 0..1);
        assert_eq!(Role::LastSubject.tokens(&short), 0..1);
        assert!(Role::MiddleSubject.tokens(&short).is_empty());
    }

    #[test]
    fn a_subject_at_the_end_has_nothing_behind_it() {
        let scores: Vec<&[f64]> = vec![&[0.0]; 4];
        let end = grid(2..4, 0.9, 0.1, &scores);
        assert!(Role::FirstSubsequent.tokens(&end).is_empty());
        assert!(Role::Further.tokens(&end).is_empty());
        assert_eq!(Role::Last.tokens(&end), 3..4);
        let before_end = grid(1..3, 0.9, 0.1, &scores);
        assert_eq!(Role::FirstSubsequent.tokens(&before_end), 3..4);
        assert!(Role::Further.tokens(&before_end).is_empty());
    }

    #[test]
    fn effects_are_means_over_rows_with_their_errors() {
        // Two facts; the further tokens of the first are two rows.
        let one = grid(
            0..1,
            0.9,
            0.1,
            &[
                &[0.5, 0.2],
                &[0.1, 0.1],
                &[0.2, 0.1],
                &[0.4, 0.1],
                &[0.1, 0.9],
            ],
        );
        let two = grid(0..1, 0.5, 0.2, &[&[0.3, 0.2], &[0.2, 0.2], &[0.2, 0.5]]);
        let averages = Averages::over([&one, &two]).unwrap().unwrap();
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        assert_eq!(averages.total_effect.rows, 2);
        close(averages.total_effect.mean, 0.55);
        // deviation of 0.8 and 0.3 is 0.3536, over sqrt 2
        close(averages.total_effect.standard_error().unwrap(), 0.25);
        let (from, to) = averages.total_effect.interval().unwrap();
        close(to - from, 2.0 * 1.959963984540054 * 0.25);
        close(averages.role(Role::LastSubject)[0].mean, 0.25);
        assert_eq!(averages.role(Role::Further)[0].rows, 2);
        close(averages.role(Role::Further)[0].mean, 0.2);
        assert_eq!(averages.role(Role::MiddleSubject)[0].rows, 0);
        let site = averages.locate().unwrap();
        assert_eq!((site.role, site.layer), (Role::Last, 1));
        close(site.effect.mean, 0.55);
    }

    #[test]
    fn an_edit_goes_where_the_mlps_of_the_last_subject_token_bring_most_back() {
        // The token behind the subject brings more back, but an edit goes to the subject.
        let one = grid(0..1, 0.9, 0.0, &[&[0.1, 0.30, 0.28, 0.1], &[0.8; 4]]);
        let two = grid(0..1, 0.9, 0.0, &[&[0.1, 0.38, 0.36, 0.2], &[0.8; 4]]);
        let averages = Averages::over([&one, &two]).unwrap().unwrap();
        assert_eq!(averages.locate().unwrap().role, Role::FirstSubsequent);
        let site = averages.edit_site().unwrap();
        assert_eq!((site.role, site.layer), (Role::LastSubject, 1));
        // 0.34 with a half width of 1.96 * 0.04: down to 0.2616
        assert_eq!(averages.plateau(&site), 1..=2);
        let alone = Averages::over([&one]).unwrap().unwrap();
        assert_eq!(alone.plateau(&alone.edit_site().unwrap()), 1..=1);

        let mut other = one.clone();
        other.kind = Kind::Attn;
        let averages = Averages::over([&other]).unwrap().unwrap();
        assert_eq!(averages.edit_site(), None);
        assert_eq!(averages.peak(Role::FirstSubject).unwrap().layer, 1);
        assert_eq!(averages.peak(Role::MiddleSubject), None);
    }

    #[test]
    fn heads_are_averaged_apart_by_role_or_over_every_token() {
        let by_token = of_heads();
        let averages = Averages::over([&by_token]).unwrap().unwrap();
        let site = averages.locate().unwrap();
        assert_eq!(
            (site.role, site.head, site.layer),
            (Role::FirstSubsequent, Some(1), 0)
        );
        let of_subject = averages.peak(Role::LastSubject).unwrap();
        assert_eq!((of_subject.head, of_subject.layer), (Some(1), 1));
        assert_eq!(averages.plateau(&site), 0..=0);
        assert_eq!(averages.edit_site(), None);
        assert!((averages.share_at(&site).unwrap().mean - 1.0).abs() < 1e-12);
        assert!(averages.role(Role::Every).is_empty());
        let over_all = Grid {
            kind: Kind::HeadAll,
            heads: 4,
            ..by_token.clone()
        };
        let averages = Averages::over([&over_all, &over_all]).unwrap().unwrap();
        let site = averages.locate().unwrap();
        assert_eq!((site.role, site.head), (Role::Every, Some(3)));
        assert_eq!(site.effect.rows, 2);
        let fewer = Grid {
            heads: 2,
            ..over_all
        };
        let error = Averages::over([&by_token, &fewer]).unwrap_err().to_string();
        assert!(error.contains("is a head_all grid"), "{error}");
        let fewer = Grid {
            kind: Kind::Head,
            heads: 1,
            ..by_token.clone()
        };
        let error = Averages::over([&by_token, &fewer]).unwrap_err().to_string();
        assert!(error.contains("has 1 heads a layer"), "{error}");
    }

    #[test]
    fn one_row_has_no_error() {
        let averages = Averages::over([&grid(0..1, 0.9, 0.1, &[&[0.5]])])
            .unwrap()
            .unwrap();
        assert_eq!(averages.total_effect.standard_error(), None);
        assert_eq!(averages.total_effect.interval(), None);
    }

    #[test]
    fn wrong_answers_are_counted_and_left_out() {
        let mut wrong = grid(0..1, 0.9, 0.1, &[&[0.5], &[0.5]]);
        wrong.correct_prediction = false;
        wrong.low = None;
        wrong.scores.clear();
        let averages = Averages::over([&wrong]).unwrap().unwrap();
        assert_eq!((averages.wrong, averages.total_effect.rows), (1, 0));
        assert_eq!(averages.locate(), None);
        assert_eq!(Averages::over([]).unwrap(), None);
    }

    #[test]
    fn relations_are_averaged_apart() {
        let mut one = grid(0..1, 0.9, 0.1, &[&[0.5], &[0.5]]);
        one.fact.relation = Some("P30".into());
        let two = grid(0..1, 0.5, 0.2, &[&[0.3], &[0.2]]);
        let relations = Averages::by_relation([&one, &two, &one]).unwrap();
        assert_eq!(relations[&Some("P30".into())].total_effect.rows, 2);
        assert_eq!(relations[&None].total_effect.rows, 1);
    }

    #[test]
    fn grids_of_different_kinds_or_models_do_not_mix() {
        let one = grid(0..1, 0.9, 0.1, &[&[0.5], &[0.5]]);
        let mut other = one.clone();
        other.severed = Some(Severed::Mlp);
        other.kind = Kind::Hidden;
        let error = Averages::over([&one, &other]).unwrap_err().to_string();
        assert!(error.contains("hidden with mlp severed"), "{error}");
        let estimate = Grid {
            engine: Engine::Attribution(Default::default()),
            ..one.clone()
        };
        let error = Averages::over([&one, &estimate]).unwrap_err().to_string();
        assert!(error.contains("mlp, first-order estimate"), "{error}");
        let longer = grid(0..1, 0.9, 0.1, &[&[0.5, 0.5], &[0.5, 0.5]]);
        assert!(matches!(
            Averages::over([&one, &longer]),
            Err(Error::Layers { .. })
        ));
    }
}
