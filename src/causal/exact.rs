//! The exact engine: only what a cell can change is computed.
//!
//! With token `t` restored in layer `l`, nothing below block `l + 1` and nothing at the tokens
//! before `t` differs from the run that is patched (the corrupted one, or in noising the clean
//! one), and only the last token's logits count. So the cells of one token are rows of one batch
//! that grows as the layers go by, a staircase: in at the layer that is restored, up through the
//! blocks above it with the tokens `t ..`, on the keys and values that the corrupted run left for
//! the tokens before. The first token of the subject need not even be computed itself: with its
//! state restored and nothing corrupted before it, it goes on as in the clean run. Nothing is
//! approximated: the numbers are those of one full pass a cell, up to the order in which another
//! matrix product sums.

use std::collections::BTreeMap;
use std::ops::Range;

use tch::Tensor;

use super::kind::Kind;
use super::memory::{Budget, Failure, Piece};
use super::noise::Noise;
use super::path_runs;
use super::rows::means;
use super::runs::{
    Hold, Place, Run, Source, base, before, cells_at_once, held, input, part, row_bytes,
};
use super::settings::Compat;
use super::stairs::{Entry, Window, entries, windows};
use super::task::{Measure, Scores, Task};
use crate::model::Pass;

pub(super) fn scores(task: &Task<'_>, source: &Source) -> Result<Scores, Failure> {
    let (tokens, layers, settings) = (task.prompt.len(), task.layers(), task.settings);
    let (places, count) = (task.prompt.tokens.len(), task.readout.count());
    if task.noise.is_some_and(Noise::is_none) {
        // The corrupted run is the clean one, and so is every run with something restored.
        let cells = task.measures.iter().map(|it| it.cells(places, layers));
        task.progress.add(cells.clone().sum());
        return Ok(Scores {
            base: task.source.clone(),
            grids: cells.map(|cells| task.source.repeat(cells)).collect(),
            verified: Vec::new(),
            neurons: Vec::new(),
        });
    }
    let budget = &Budget::new(settings.memory_bytes);
    let mut draws = task.draws();
    let run = base(task, source, &task.embeddings(draws.as_mut()), budget)?;
    let second = match settings.compat {
        Compat::PaperCode if !settings.severed.is_empty() => {
            let embeddings = task.embeddings(draws.as_mut());
            let second = base(task, source, &embeddings, budget)?;
            Some((embeddings, second))
        }
        _ => None,
    };
    let mut grids = Vec::new();
    for measure in task.measures {
        if let Some(paths) = &settings.paths {
            grids.push(path_runs::scores(
                task, paths, source, &run, measure, budget,
            )?);
            continue;
        }
        let mut scores = Vec::with_capacity(measure.cells(places, layers) * count);
        let places = match measure.kind.is_over_tokens() {
            // The tokens before are the same in both runs.
            true => task.first..task.first + 1,
            false => 0..places,
        };
        for token in places {
            let row = match (&second, measure.severed) {
                (Some((embeddings, second)), Some(severed)) if token >= task.first => {
                    let frozen = (severed, run.of(severed));
                    let base = held(task, second, embeddings, frozen, token as i64, budget)?;
                    let baseline = Baseline {
                        run: second,
                        frozen: Some(run.of(severed)),
                        input: second.input[0].narrow(1, token as i64, (tokens - token) as i64),
                        hidden: base.hidden,
                        settled: false,
                        values: means(&base.values, count),
                    };
                    row(task, source, measure, (token, None), &baseline, budget)?
                }
                (second, severed) => {
                    let run = match (second, severed) {
                        (Some((_, second)), Some(_)) => second,
                        _ => &run,
                    };
                    let baseline = Baseline::of(task, run, measure, token);
                    row(task, source, measure, (token, None), &baseline, budget)?
                }
            };
            scores.extend(row);
            task.progress.add(measure.heads * layers);
        }
        grids.push(scores);
    }
    Ok(Scores {
        base: means(&run.values, count),
        grids,
        verified: Vec::new(),
        neurons: Vec::new(),
    })
}

/// The mean metrics of some cells of every measure, with the run of these `[rows, tokens, width]`
/// embeddings patched. Each is a token, or 0 for all of them at once, and a place in its
/// `[heads][layers]`.
pub(super) fn cells(
    task: &Task<'_>,
    source: &Source,
    embeddings: &Tensor,
    wanted: &[Vec<(usize, usize)>],
) -> Result<Vec<Vec<Vec<f64>>>, Failure> {
    let (count, budget) = (
        task.readout.count(),
        &Budget::new(task.settings.memory_bytes),
    );
    let run = base(task, source, embeddings, budget)?;
    let of_measure = |(measure, wanted): (&Measure, &Vec<(usize, usize)>)| {
        let mut by_token: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for &(token, column) in wanted {
            by_token.entry(token).or_default().push(column);
        }
        let mut rows = BTreeMap::new();
        for (token, columns) in by_token {
            let from = match measure.kind.is_over_tokens() {
                true => task.first, // the tokens before are the same in both runs
                false => token,
            };
            let baseline = Baseline::of(task, &run, measure, from);
            let only = (from, Some(columns.as_slice()));
            rows.insert(token, row(task, source, measure, only, &baseline, budget)?);
        }
        let cell = |(token, column): &(usize, usize)| {
            rows[token][column * count..(column + 1) * count].to_vec()
        };
        Ok(wanted.iter().map(cell).collect())
    };
    task.measures.iter().zip(wanted).map(of_measure).collect()
}

/// The mean metrics of some neurons, each a token, a layer and its number, with the run of these
/// embeddings patched.
pub(super) fn neurons(
    task: &Task<'_>,
    source: &Source,
    embeddings: &Tensor,
    wanted: &[(usize, usize, usize)],
) -> Result<Vec<Vec<f64>>, Failure> {
    let (count, budget) = (
        task.readout.count(),
        &Budget::new(task.settings.memory_bytes),
    );
    let run = base(task, source, embeddings, budget)?;
    let measure = &Measure {
        kind: Kind::Neuron,
        severed: None,
        heads: 1,
    };
    let mut by_token: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (n, (token, _, _)) in wanted.iter().enumerate() {
        by_token.entry(*token).or_default().push(n);
    }
    let mut found = vec![Vec::new(); wanted.len()];
    for (token, cells) in by_token {
        // From the first layer up, as a staircase takes them in.
        let mut cells = cells;
        cells.sort_by_key(|&n| wanted[n].1);
        let window = |(at, &n): (usize, &usize)| Window {
            layers: wanted[n].1..wanted[n].1 + 1,
            part: Some(wanted[n].2),
            columns: at..at + 1,
        };
        let windows = cells.iter().enumerate().map(window).collect();
        let baseline = Baseline::of(task, &run, measure, token);
        let scores = climb(task, source, measure, (token, windows), &baseline, budget)?;
        for (n, scores) in cells.into_iter().zip(scores.chunks(count)) {
            found[n] = scores.to_vec();
        }
    }
    Ok(found)
}

/// What the cells of one token stand on: the run that is patched.
struct Baseline<'a> {
    /// Keys and values of the tokens before, and restored states.
    run: &'a Run,
    /// The outputs at which a severed sub-module is held, `[samples, tokens, width]` a layer.
    frozen: Option<&'a [Tensor]>,
    /// Input of the first block at the cells' token and those behind it,
    /// `[samples, tokens, width]`.
    input: Tensor,
    /// Output of every block, likewise.
    hidden: Vec<Tensor>,
    /// Whether the restored token goes on as in the source: nothing other is before it, and nothing
    /// holds it back. Its states need not be computed then, and its keys and values are the
    /// source's.
    settled: bool,
    /// The mean metrics with nothing restored.
    values: Vec<f64>,
}

impl<'a> Baseline<'a> {
    /// That run itself.
    fn of(task: &Task<'_>, run: &'a Run, measure: &Measure, token: usize) -> Self {
        let rest = (task.prompt.len() - token) as i64;
        let from_token = |states: &Tensor| states.narrow(1, token as i64, rest);
        Self {
            run,
            frozen: measure.severed.map(|severed| run.of(severed)),
            input: from_token(&run.input[0]),
            hidden: run.hidden.iter().map(from_token).collect(),
            settled: measure.kind.is_residual()
                && measure.severed.is_none()
                && token == task.first
                && (!is_read(task, token) || rest == 1),
            values: means(&run.values, task.readout.count()),
        }
    }
}

/// Whether metrics are read behind a token.
fn is_read(task: &Task<'_>, token: usize) -> bool {
    token + task.prompt.positions() >= task.prompt.len()
}

/// The metrics of one token's cells, layer by layer of one head after another; of all tokens from
/// this one on where they are restored at once. Where only some are wanted, places in
/// `[heads][layers]`, the others may be those with nothing restored.
fn row(
    task: &Task<'_>,
    source: &Source,
    measure: &Measure,
    (token, wanted): (usize, Option<&[usize]>),
    baseline: &Baseline<'_>,
    budget: &Budget,
) -> Result<Vec<f64>, Failure> {
    let width = task.settings.window;
    let mut windows = windows(measure.kind, task.layers(), measure.heads, width);
    if let Some(wanted) = wanted {
        windows.retain(|window| wanted.iter().any(|it| window.columns.contains(it)));
    }
    climb(task, source, measure, (token, windows), baseline, budget)
}

/// The metrics of the cells of some windows of one token, in the order of their columns: of those
/// between, the ones with nothing restored.
fn climb(
    task: &Task<'_>,
    source: &Source,
    measure: &Measure,
    (token, mut windows): (usize, Vec<Window>),
    baseline: &Baseline<'_>,
    budget: &Budget,
) -> Result<Vec<f64>, Failure> {
    let (tokens, layers, samples) = (task.prompt.len(), task.layers(), task.rows());
    let count = task.readout.count();
    let cells = match measure.kind {
        Kind::Neuron => windows.len(),
        _ => measure.heads * layers,
    };
    let mut scores = baseline.values.repeat(cells);
    let mut fill = |columns: &Range<usize>, values: &[f64]| {
        for cell in scores[columns.start * count..columns.end * count].chunks_mut(count) {
            cell.copy_from_slice(values);
        }
    };
    if token < task.first {
        return Ok(scores); // the same in both runs, so putting it in changes nothing
    }
    let last = token + 1 == tokens;
    let is_read = is_read(task, token);
    if last && baseline.settled {
        fill(&(0..layers), &task.source);
        return Ok(scores);
    }
    windows.retain(|window| {
        // What the last token's attention sees matters in the last block too.
        if window.layers.start + 1 < layers || measure.kind.is_seen_behind() {
            return true;
        }
        if last && measure.kind.is_residual() {
            // All that the answer is read from is the source's.
            fill(&window.columns, &task.source);
            return false;
        }
        // In the last block a token only changes itself, and the answer is read at the last ones.
        is_read || measure.kind.is_over_tokens()
    });
    let mut found = vec![0.0; windows.len() * samples * count];
    let all = Piece {
        cells: 0..windows.len(),
        samples: 0..samples,
    };
    let computed = tokens - token - usize::from(baseline.settled);
    budget.spend(row_bytes(task.model, computed, tokens), all, |piece| {
        let cells = &windows[piece.cells.clone()];
        let rows = run(
            task,
            source,
            measure,
            token,
            baseline,
            cells,
            &piece.samples,
        )?;
        let each = piece.samples.len() * count;
        for (cell, row) in piece.cells.clone().zip(rows.chunks(each)) {
            let at = (cell * samples + piece.samples.start) * count;
            found[at..at + row.len()].copy_from_slice(row);
        }
        Ok(())
    })?;
    for (window, found) in windows.iter().zip(found.chunks(samples * count)) {
        fill(&window.columns, &means(found, count));
    }
    Ok(scores)
}

/// The staircase: the metrics of `windows`' rows, `[windows][samples][metrics]`.
fn run(
    task: &Task<'_>,
    source: &Source,
    measure: &Measure,
    token: usize,
    baseline: &Baseline<'_>,
    windows: &[Window],
    samples: &Range<usize>,
) -> Result<Vec<f64>, Failure> {
    let layers = task.layers();
    let at = token as i64;
    let behind = task.prompt.len() as i64 - at - 1;
    let read = task.prompt.positions() as i64;
    let count = samples.len() as i64;
    let entries = entries(measure.kind, windows);
    // A cell's rows, with its tokens' states restored where they are not settled.
    let entering = |restored: &Tensor, run: &Tensor| {
        let rest = part(run, samples).narrow(1, 1, behind);
        if baseline.settled {
            return rest;
        }
        let size = restored.size();
        let restored = restored.expand([count, size[1], size[2]], false);
        match size[1] {
            1 => Tensor::cat(&[restored, rest], 1),
            _ => restored,
        }
    };
    let computed = behind as usize + usize::from(!baseline.settled);
    let mut batches = Batches {
        rows: count,
        most: cells_at_once(task.model, samples.len(), computed),
        batches: Vec::new(),
    };
    for layer in 0..layers {
        for (window, entry) in entries.iter().enumerate() {
            if *entry == Entry::Before(layer) {
                let rest = input(&baseline.input, &baseline.hidden, layer);
                batches.admit(window, entering(&source.input(layer, at), rest));
            }
            if let Entry::Copy { before, of } = *entry
                && before == layer
                && let Some(rows) = batches.of(of)
            {
                batches.admit(window, rows);
            }
        }
        let past = match baseline.settled {
            true => Some(source.kv[layer].narrow(0, at + 1)),
            false => before(&baseline.run.kv[layer], at, samples),
        };
        let top = layer + 1 == layers;
        let pass = Pass {
            past: past.as_ref(),
            queries: top.then_some(read),
        };
        for batch in &mut batches.batches {
            task.progress.go_on()?;
            let mut hold = Hold {
                frozen: None,
                restored: None,
            };
            if !top || is_read(task, token) {
                hold.frozen = measure
                    .severed
                    .zip(baseline.frozen)
                    .map(|(severed, frozen)| {
                        (severed, part(&frozen[layer], samples).select(1, at))
                    });
                let held = batch
                    .windows
                    .iter()
                    .map(|&window| windows[window].layers.contains(&layer));
                let ranges = ranges(held, count);
                if let Some(outputs) = source.of(measure.kind).filter(|_| !ranges.is_empty()) {
                    let state = outputs[layer].select(1, at).squeeze_dim(0);
                    hold.restored = Some((measure.kind, state, ranges));
                }
            }
            let step = task.model.block(layer, &batch.joined(), pass, &mut hold);
            batch.states = vec![step.hidden];
        }
        let behind_it = (0..windows.len()).filter(|&it| entries[it] == Entry::Behind(layer));
        let behind_it: Vec<usize> = behind_it.collect();
        if behind_it.is_empty() {
            continue;
        }
        let parts = behind_it.iter().filter_map(|&it| windows[it].part);
        let parts: Vec<usize> = parts.collect();
        let span = match measure.kind.is_over_tokens() || measure.kind.is_seen_behind() {
            true => at..at + behind + 1,
            false => at..at + 1,
        };
        let place = Place {
            model: task.model,
            source,
            kind: measure.kind,
            layer,
            span,
            samples,
        };
        let restored = baseline.run.restored(&place, &parts);
        for (window, restored) in behind_it.into_iter().zip(&restored) {
            let mut rows = entering(restored, &baseline.hidden[layer]);
            if layer + 1 == layers {
                rows = task.prompt.last_of(&rows); // as the others come out of it
            }
            batches.admit(window, rows);
        }
    }
    let mut inside = Vec::new();
    let mut last = Vec::new();
    for batch in &mut batches.batches {
        inside.append(&mut batch.windows);
        last.push(task.prompt.last_of(&batch.joined()));
    }
    if last.is_empty() {
        return Ok(Vec::new());
    }
    let found = task.readout.read(task.model, &Tensor::cat(&last, 0));
    // Back from the order of the rows to that of the windows.
    let each = samples.len() * task.readout.count();
    let mut ordered = vec![0.0; found.len()];
    for (window, found) in inside.iter().zip(found.chunks(each)) {
        ordered[window * each..(window + 1) * each].copy_from_slice(found);
    }
    Ok(ordered)
}

/// The cells on their way up. New ones come into the last batch until it is full: so nothing is
/// moved for them but a batch that still grows.
struct Batches {
    /// Rows a cell.
    rows: i64,
    /// Cells a batch.
    most: usize,
    batches: Vec<Batch>,
}

struct Batch {
    /// The windows of its cells, in the order of its rows.
    windows: Vec<usize>,
    /// Their states, `[rows, tokens, width]` in pieces.
    states: Vec<Tensor>,
}

impl Batches {
    fn admit(&mut self, window: usize, states: Tensor) {
        match self.batches.last_mut() {
            Some(batch) if batch.windows.len() < self.most => {
                batch.windows.push(window);
                batch.states.push(states);
            }
            _ => self.batches.push(Batch {
                windows: vec![window],
                states: vec![states],
            }),
        }
    }

    /// The rows of one window's cell.
    fn of(&mut self, window: usize) -> Option<Tensor> {
        self.batches.iter_mut().find_map(|batch| {
            let place = batch.windows.iter().position(|&other| other == window)?;
            let from = place as i64 * self.rows;
            Some(batch.joined().narrow(0, from, self.rows))
        })
    }
}

impl Batch {
    /// The states as one tensor.
    fn joined(&mut self) -> Tensor {
        if self.states.len() > 1 {
            self.states = vec![Tensor::cat(&self.states, 0)];
        }
        self.states[0].shallow_clone()
    }
}

/// The rows of the cells that are `held`, `count` rows a cell, neighbours joined.
fn ranges(held: impl Iterator<Item = bool>, count: i64) -> Vec<Range<i64>> {
    let mut ranges: Vec<Range<i64>> = Vec::new();
    for (cell, held) in held.enumerate() {
        let start = cell as i64 * count;
        match ranges.last_mut() {
            _ if !held => {}
            Some(last) if last.end == start => last.end += count,
            _ => ranges.push(start..start + count),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_cells_are_one_range() {
        let held = [true, true, false, true, false];
        assert_eq!(ranges(held.into_iter(), 10), [0..20, 30..40]);
        assert!(ranges([false, false].into_iter(), 10).is_empty());
    }
}
