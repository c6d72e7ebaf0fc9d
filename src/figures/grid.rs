//! A grid: what restoring each state brings back of one fact.

use super::words::{
    coloured_as, drawn_as, heads, is_signed, severed_name, state_name, title, value_label,
};
use crate::causal::{Direction, Grid, Metric};
use crate::plot::axis::number;
use crate::plot::text::label;
use crate::plot::{HeatMap, Trace};
use crate::proto::v1;

/// The scores as figures and the published files hold them.
pub fn scores(grid: &Grid) -> Vec<f32> {
    grid.scores.iter().map(|&score| score as f32).collect()
}

/// The text of a token, with a star where it is of the subject.
pub fn starred(grid: &Grid, token: usize) -> String {
    let star = match grid.subject.contains(&token) {
        true => "*",
        false => "",
    };
    format!("{}{star}", label(&grid.tokens[token].text))
}

/// The heat maps of a traced fact in a kind, on a model: one, or, where it is of heads at single
/// tokens, one a token. Each with what its file's name has more.
pub fn maps(model: &str, kind: v1::Kind, grid: &Grid) -> Vec<(String, HeatMap)> {
    let map = whole(model, kind, grid);
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

/// The only one of these, or that of the token where the effect is highest.
pub fn highest_map(model: &str, kind: v1::Kind, grid: &Grid) -> Option<HeatMap> {
    let highest = grid.peak()?.0.token.unwrap_or_default();
    let mut pages = maps(model, kind, grid);
    let shown = if highest < pages.len() { highest } else { 0 };
    Some(pages.swap_remove(shown).1)
}

/// All of a grid as one heat map, whose rows are tokens.
fn whole(model: &str, kind: v1::Kind, grid: &Grid) -> HeatMap {
    let tokens: Vec<String> = grid.tokens.iter().map(|token| token.text.clone()).collect();
    let mut map = HeatMap::trace(Trace {
        tokens: &tokens,
        subject: grid.subject.clone(),
        layers: grid.layers,
        scores: &scores(grid),
        kind: drawn_as(kind),
        window: grid.window,
        low: grid.low.unwrap_or_default() as f32,
        high: grid.high as f32,
        answer: &grid.answer_text(),
        model,
    });
    map.kind = coloured_as(kind);
    if let Some(severed) = severed_name(kind) {
        map.title = format!("Impact of restoring state with {severed} severed");
    }
    if let Some(state) = state_name(kind) {
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
