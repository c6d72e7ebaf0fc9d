//! The figures of a job, and how they look in the terminal.

use std::io::Write;

use super::estimates::title;
use super::{Results, Unit, WIDTH, starred};
use crate::causal::{Averages, Direction, Engine, Grid, Mean, Metric, Role};
use crate::cli::results::Error;
use crate::plot::axis::number;
use crate::plot::text::visible;
use crate::plot::{self, Across, Colour, Curves, HeatMap, Panel, Panels, Series};
use crate::proto::v1;
use crate::wire;

impl Results<'_> {
    /// Heat maps in the terminal: of one traced fact all kinds, of heads at single tokens the token of
    /// the highest effect; of several the averages. `width` is the terminal's.
    ///
    /// # Errors
    /// [`Error::Output`], [`Error::Averages`] and [`Error::Plot`].
    pub fn heatmaps(
        &self,
        out: &mut dyn Write,
        width: Option<usize>,
        colour: Colour,
    ) -> Result<(), Error> {
        if self.traced_facts() > 1 {
            return self.average_maps(out, width, colour);
        }
        let maps = self.units.iter().filter_map(|unit| {
            let highest = unit.traced()?.peak()?.0.token;
            let mut pages = self.fact_maps(unit);
            let shown = highest.filter(|&token| token < pages.len());
            Some(pages.swap_remove(shown.unwrap_or_default()).1)
        });
        for (n, map) in maps.enumerate() {
            if n > 0 {
                writeln!(out)?;
            }
            print(out, &map, width, colour)?;
        }
        Ok(())
    }

    /// The averages by role of token as heat maps, and the effect with and without severed paths as
    /// curves, in the terminal.
    ///
    /// # Errors
    /// [`Error::Output`], [`Error::Averages`] and [`Error::Plot`].
    pub(super) fn average_maps(
        &self,
        out: &mut dyn Write,
        width: Option<usize>,
        colour: Colour,
    ) -> Result<(), Error> {
        let kinds = self.by_kind()?;
        for (n, (kind, averages)) in kinds.iter().enumerate() {
            if n > 0 {
                writeln!(out)?;
            }
            if let Some(map) = highest_map(*kind, averages) {
                print(out, &map, width, colour)?;
            }
        }
        if let Some(curves) = severed_curves(&kinds) {
            let text = curves
                .to_terminal(width.unwrap_or(WIDTH), colour)
                .map_err(|source| Error::Plot {
                    figure: curves.title.clone(),
                    source,
                })?;
            writeln!(out)?;
            out.write_all(text.as_bytes())?;
        }
        Ok(())
    }

    /// The heat map of a unit, if its fact was traced: one, or, where it is of heads at single
    /// tokens, one a token. Each with what its file's name has more.
    pub(super) fn fact_maps(&self, unit: &Unit<'_>) -> Vec<(String, HeatMap)> {
        let Some((grid, map)) = unit.traced().map(|grid| (grid, self.fact_map(unit, grid))) else {
            return Vec::new();
        };
        if !grid.kind.is_of_heads() {
            return vec![(String::new(), map)];
        }
        let of_heads = HeatMap {
            rows: heads(grid.heads),
            starred: 0..0,
            ..map
        };
        if grid.kind.is_over_tokens() {
            return vec![(String::new(), of_heads)];
        }
        let pages = of_heads.scores.chunks(grid.heads * grid.layers);
        let page = |(token, scores): (usize, &[f32])| {
            let map = HeatMap {
                title: format!("{}, at {}", of_heads.title, starred(grid, token)),
                scores: scores.to_vec(),
                ..of_heads.clone()
            };
            (format!("_t{token:02}"), map)
        };
        pages.enumerate().map(page).collect()
    }

    /// All of a grid as one heat map, whose rows are tokens.
    fn fact_map(&self, unit: &Unit<'_>, grid: &Grid) -> HeatMap {
        let tokens: Vec<String> = grid.tokens.iter().map(|token| token.text.clone()).collect();
        let mut map = HeatMap::trace(plot::Trace {
            tokens: &tokens,
            subject: grid.subject.clone(),
            layers: grid.layers,
            scores: &scores(grid),
            kind: drawn_as(unit.kind),
            window: grid.window,
            low: grid.low.unwrap_or_default() as f32,
            high: grid.high as f32,
            answer: &grid.answer_text(),
            model: self.model,
        });
        map.kind = coloured_as(unit.kind);
        if let Some(severed) = severed_name(unit.kind) {
            map.title = format!("Impact of restoring state with {severed} severed");
        }
        if let Some(state) = state_name(unit.kind) {
            map.title = map.title.replace("state", state);
        }
        if let Some(paths) = &grid.paths {
            map.title += &format!(", {paths}");
        }
        if grid.metric != Metric::Probability || grid.direction != Direction::Denoising {
            // Other metrics have no common scale: what is drawn is the effect, from none on.
            let effects = grid.scores.iter().filter_map(|&score| grid.effect(score));
            map.scores = effects.map(|effect| effect as f32).collect();
            (map.low, map.high) = (0.0, None);
            map.value_label = value_label(grid.metric, grid.direction);
            if grid.direction == Direction::Noising {
                map.title = map.title.replace("restoring", "corrupting");
                map.title = map.title.replace("after corrupted", "after clean");
            }
            let total = number(grid.total_effect().unwrap_or_default());
            map.title += &format!(", {}: total effect {total}", grid.metric.words());
        }
        map.title += &title(grid.whole_answers, grid.engine);
        map.signed = is_signed(grid.metric, grid.direction, grid.engine);
        map
    }
}

/// Whether effects that point the other way have colours of their own. In the published figures, of
/// the probability that restoring brings back, they are drawn as none.
pub(super) fn is_signed(metric: Metric, direction: Direction, engine: Engine) -> bool {
    let published = (Metric::Probability, Direction::Denoising);
    (metric, direction) != published || engine.estimate().is_some()
}

/// What an effect is in.
fn value_label(metric: Metric, direction: Direction) -> String {
    match direction {
        Direction::Denoising => format!("{} back", metric.words()),
        Direction::Noising => format!("{} lost", metric.words()),
    }
}

/// A heat map in the terminal.
pub(super) fn print(
    out: &mut dyn Write,
    map: &HeatMap,
    width: Option<usize>,
    colour: Colour,
) -> Result<(), Error> {
    let text = map
        .to_terminal(width.unwrap_or(WIDTH), colour)
        .map_err(|source| Error::Plot {
            figure: map.title.clone(),
            source,
        })?;
    out.write_all(text.as_bytes())?;
    Ok(())
}

/// The averages of all kinds in one figure, a row each: the indirect effect by role of token as a
/// heat map (paper, figure 2) and as curves with their 95 % bands, of heads that of the role where
/// it is highest; and, where paths were severed, the effect with and without them (figure 3).
pub(super) fn panels(model: &str, metric: Metric, kinds: &[(v1::Kind, Averages)]) -> Panels {
    let whole = kinds
        .iter()
        .filter(|(kind, _)| severed_name(*kind).is_none());
    let mut rows: Vec<Vec<Panel>> = whole
        .map(|(kind, averages)| {
            let map = highest_map(*kind, averages).map(Panel::Map);
            let curves = average_curves(*kind, averages).map(Panel::Curves);
            map.into_iter().chain(curves).collect()
        })
        .collect();
    if let Some(curves) = severed_curves(kinds) {
        rows.push(vec![Panel::Curves(curves)]);
    }
    let facts = kinds.iter().map(|(_, averages)| averages.total_effect);
    let total = facts.max_by_key(|total| total.rows).unwrap_or_default();
    let interval = match total.interval() {
        Some((from, to)) => format!(" (95 % {} to {})", number(from), number(to)),
        None => String::new(),
    };
    let engine = kinds.first().map(|(_, averages)| averages.engine);
    Panels {
        title: format!(
            "Average effects{}{} over {} facts, {}: total effect {}{interval}",
            match engine.and_then(Engine::estimate) {
                Some(what) => format!(" ({what})"),
                None => String::new(),
            },
            match metric {
                Metric::Probability => String::new(),
                other => format!(" on the {}", other.words()),
            },
            total.rows,
            visible(model),
            number(total.mean)
        ),
        rows,
    }
}

/// The scores as figures and the published files hold them.
pub(super) fn scores(grid: &Grid) -> Vec<f32> {
    grid.scores.iter().map(|&score| score as f32).collect()
}

/// Average indirect effects as heat maps, each with what its file's name has more: one by role and
/// layer, without the roles that no token has; or, of heads, for each of these roles one by head and
/// layer.
pub(super) fn average_maps(kind: v1::Kind, averages: &Averages) -> Vec<(String, HeatMap)> {
    let roles: Vec<Role> = roles(averages).collect();
    if !averages.kind.is_of_heads() {
        let names: Vec<String> = roles.iter().map(Role::to_string).collect();
        return vec![(String::new(), average_map(kind, averages, &roles, &names))];
    }
    let page = |&role: &Role| {
        let mut map = average_map(kind, averages, &[role], &heads(averages.heads));
        if role == Role::Every {
            return (String::new(), map);
        }
        map.title += &format!(", {role}");
        (format!("_{}", role.to_string().replace(' ', "_")), map)
    };
    roles.iter().map(page).collect()
}

/// The only one of these, or that of the role where the effect is highest.
fn highest_map(kind: v1::Kind, averages: &Averages) -> Option<HeatMap> {
    let mut maps = average_maps(kind, averages);
    let highest = averages.locate().map(|site| site.role);
    let place = roles(averages).position(|role| Some(role) == highest);
    match place.filter(|&at| at < maps.len()) {
        Some(at) => Some(maps.swap_remove(at).1),
        None => maps.pop().map(|(_, map)| map),
    }
}

/// The effects of some roles, one below the other.
fn average_map(kind: v1::Kind, averages: &Averages, roles: &[Role], rows: &[String]) -> HeatMap {
    let names: Vec<&str> = rows.iter().map(String::as_str).collect();
    let effects: Vec<f32> = roles
        .iter()
        .flat_map(|&role| averages.role(role))
        .map(|effect| effect.mean as f32)
        .collect();
    let mut map = HeatMap::average(drawn_as(kind), &names, averages.layers, &effects);
    map.kind = coloured_as(kind);
    map.title = average_title(kind, &map);
    if let Some(paths) = &averages.paths {
        map.title += &format!(", {paths}");
    }
    if averages.metric != Metric::Probability {
        map.title += &format!(", {}", averages.metric.words());
    }
    if averages.direction == Direction::Noising {
        map.title += ", noising";
    }
    map.title += &title(averages.whole_answers, averages.engine);
    map.signed = is_signed(averages.metric, averages.direction, averages.engine);
    map
}

/// What a heat map of averages of `kind` is called.
pub(super) fn average_title(kind: v1::Kind, map: &HeatMap) -> String {
    match severed_name(kind) {
        Some(severed) => {
            format!("Average indirect effect of a single state with {severed} severed")
        }
        None => match state_name(kind) {
            Some(state) => map.title.replace("a single state", state),
            None => map.title.clone(),
        },
    }
}

/// The same as curves over layers with their 95 % bands; none of heads, which are too many.
pub(super) fn average_curves(kind: v1::Kind, averages: &Averages) -> Option<Curves> {
    if averages.kind.is_of_heads() {
        return None;
    }
    let (_, map) = average_maps(kind, averages).pop()?;
    Some(Curves {
        title: map.title,
        across: Across::Layers,
        x_label: map.x_label,
        y_label: map.value_label,
        series: roles(averages)
            .map(|role| series(&role.to_string(), averages.role(role), None))
            .collect(),
    })
}

/// The effect of a state at the last subject token beside its effects with a sub-module severed
/// (paper, figure 3); nothing without both.
pub(super) fn severed_curves(kinds: &[(v1::Kind, Averages)]) -> Option<Curves> {
    let at = |kind: v1::Kind, name: &str, drawn: plot::Kind| {
        let (_, averages) = kinds.iter().find(|(known, _)| *known == kind)?;
        Some(series(name, averages.role(Role::LastSubject), Some(drawn)))
    };
    let whole = at(v1::Kind::Hidden, "no path severed", plot::Kind::Hidden)?;
    let severed = [
        at(
            v1::Kind::HiddenSeveredAttn,
            "attention severed",
            plot::Kind::Attn,
        ),
        at(v1::Kind::HiddenSeveredMlp, "MLP severed", plot::Kind::Mlp),
    ];
    let series: Vec<Series> = std::iter::once(whole)
        .chain(severed.into_iter().flatten())
        .collect();
    (series.len() > 1).then(|| Curves {
        title: "Effect of a state at the last subject token".into(),
        across: Across::Layers,
        x_label: "restored layer".into(),
        y_label: "AIE".into(),
        series,
    })
}

/// The roles that some token had.
fn roles(averages: &Averages) -> impl Iterator<Item = Role> {
    let roles = averages.roles().iter().copied();
    roles.filter(|&role| averages.role(role).iter().any(|effect| effect.rows > 0))
}

fn series(name: &str, effects: &[Mean], kind: Option<plot::Kind>) -> Series {
    let half = |effect: &Mean| {
        effect
            .interval()
            .map(|(low, high)| ((high - low) / 2.0) as f32)
    };
    Series {
        name: name.to_owned(),
        mean: effects.iter().map(|effect| effect.mean as f32).collect(),
        // One row tells nothing of its error: then there is no band.
        half_width: effects
            .iter()
            .map(half)
            .collect::<Option<_>>()
            .unwrap_or_default(),
        kind,
    }
}

/// What the rows of heads are called.
fn heads(count: usize) -> Vec<String> {
    (0..count).map(|head| format!("head {head}")).collect()
}

/// The colours of a kind: heads are parts of attention.
fn coloured_as(kind: v1::Kind) -> plot::Kind {
    match wire::kind(kind).is_some_and(|(kind, _)| kind.is_of_heads()) {
        true => plot::Kind::Attn,
        false => drawn_as(kind),
    }
}

/// Severed kinds restore a state, and are drawn as one.
pub(super) fn drawn_as(kind: v1::Kind) -> plot::Kind {
    match kind {
        v1::Kind::Mlp => plot::Kind::Mlp,
        v1::Kind::Attn => plot::Kind::Attn,
        _ => plot::Kind::Hidden,
    }
}

/// What is restored where it is neither a block's output nor a sub-module's.
pub(super) fn state_name(kind: v1::Kind) -> Option<&'static str> {
    match kind {
        v1::Kind::ResidPre => Some("the residual before a block"),
        v1::Kind::ResidMid => Some("the residual between attention and MLP"),
        v1::Kind::Head => Some("what a head gives"),
        v1::Kind::HeadAll => Some("what a head gives at every token"),
        v1::Kind::HeadQ => Some("the query of a head"),
        v1::Kind::HeadQAll => Some("the query of a head at every token"),
        v1::Kind::HeadK => Some("the key of a head"),
        v1::Kind::HeadKAll => Some("the key of a head at every token"),
        v1::Kind::HeadV => Some("the value of a head"),
        v1::Kind::HeadVAll => Some("the value of a head at every token"),
        v1::Kind::HeadPattern => Some("the pattern of a head"),
        v1::Kind::HeadPatternAll => Some("the pattern of a head at every token"),
        v1::Kind::Neuron => Some("the strongest neuron"),
        _ => None,
    }
}

fn severed_name(kind: v1::Kind) -> Option<&'static str> {
    match kind {
        v1::Kind::HiddenSeveredMlp => Some("MLP"),
        v1::Kind::HiddenSeveredAttn => Some("attention"),
        _ => None,
    }
}
