//! Averages over facts: the indirect effect by role of token and layer.

use super::words::{coloured_as, drawn_as, heads, is_signed, severed_name, state_name, title};
use crate::causal::{Averages, Direction, Engine, Mean, Metric, Role};
use crate::plot::axis::number;
use crate::plot::text::visible;
use crate::plot::{self, Across, Curves, HeatMap, Panel, Panels, Series};
use crate::proto::v1;

/// The averages of all kinds in one figure, a row each: the indirect effect by role of token as a
/// heat map (paper, figure 2) and as curves with their 95 % bands, of heads that of the role where
/// it is highest; and, where paths were severed, the effect with and without them (figure 3).
///
/// `relation` is what the facts are of, where they are of one alone.
pub fn panels(
    model: &str,
    relation: Option<&str>,
    metric: Metric,
    kinds: &[(v1::Kind, Averages)],
) -> Panels {
    let whole = kinds
        .iter()
        .filter(|(kind, _)| severed_name(*kind).is_none());
    let mut rows: Vec<Vec<Panel>> = whole
        .map(|(kind, averages)| {
            let map = highest_average_map(*kind, averages).map(Panel::Map);
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
            "Average effects{}{} over {} facts{}, {}: total effect {}{interval}",
            match engine.and_then(Engine::estimate) {
                Some(what) => format!(" ({what})"),
                None => String::new(),
            },
            match metric {
                Metric::Probability => String::new(),
                other => format!(" on the {}", other.words()),
            },
            total.rows,
            match relation {
                Some("") => " without a relation".to_owned(),
                Some(name) => format!(" of {}", visible(name)),
                None => String::new(),
            },
            visible(model),
            number(total.mean)
        ),
        rows,
    }
}

/// Average indirect effects as heat maps, each with what its file's name has more: one by role and
/// layer, without the roles that no token has; or, of heads, for each of these roles one by head and
/// layer.
pub fn average_maps(kind: v1::Kind, averages: &Averages) -> Vec<(String, HeatMap)> {
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
pub fn highest_average_map(kind: v1::Kind, averages: &Averages) -> Option<HeatMap> {
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
pub fn average_title(kind: v1::Kind, map: &HeatMap) -> String {
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
pub fn average_curves(kind: v1::Kind, averages: &Averages) -> Option<Curves> {
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
pub fn severed_curves(kinds: &[(v1::Kind, Averages)]) -> Option<Curves> {
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
