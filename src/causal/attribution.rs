//! Attribution patching: estimates of all cells of all grids from one gradient.
//!
//! A cell puts the difference of two runs into the one that is patched, at one token of one state.
//! To first order the metric changes by that difference times its gradient in the patched run
//! (Nanda 2023, AtP), and one backward pass has the gradient at every state. So all kinds together
//! cost two forward passes and a backward pass a metric, where the exact engine computes every
//! cell. What lies between is curvature, which integrated gradients and gradient drop
//! ([`Gradient`]) treat in part; cells that are patched exactly beside the estimates say how much
//! is left. Windows are sums of their layers: the estimate knows nothing of what layers that are
//! put in together do to each other.

use std::collections::BTreeMap;

use tch::{Kind as Dtype, Tensor};

use super::exact;
use super::grid::Verified;
use super::head_effects::{Change, Heads};
use super::kind::Kind;
use super::memory::{Budget, Failure, Piece};
use super::rows::to_f64;
use super::runs::{Source, part, row_bytes};
use super::settings::{Engine, Gradient};
use super::task::{Measure, Scores, Task};
use super::verification::choose;
use crate::model::{Hook, Model, Pass};

/// What the graph of a block keeps for its gradient, in units of what the block takes without one.
const GRAPH: u64 = 3;

/// Most numbers that effects are summed up in: 2 GiB of them, twice. Neurons with a way a layer
/// come near it.
const MOST_EFFECTS: usize = 1 << 28;

pub(super) fn scores(task: &Task<'_>, source: &Source) -> Result<Scores, Failure> {
    let gradient = match task.settings.engine {
        Engine::Attribution(gradient) => gradient,
        Engine::Exact | Engine::Plain => Gradient::default(),
    };
    let mut draws = task.draws();
    let rows = task.embeddings(draws.as_mut());
    let budget = Budget::new(task.settings.memory_bytes);
    let mut sums = Sums::new(task, gradient)?;
    let tokens = task.prompt.len();
    let graph = GRAPH * task.layers() as u64 * row_bytes(task.model, tokens, tokens);
    budget.spend(graph, all(task), |piece| {
        sums.add(&estimate(
            task,
            source,
            gradient,
            &part(&rows, &piece.samples),
        )?);
        Ok(())
    })?;
    let base: Vec<f64> = sums
        .base
        .iter()
        .map(|sum| sum / task.rows() as f64)
        .collect();
    let estimates = &Estimates {
        task,
        sums: &sums,
        base: &base,
    };
    let neurons: Vec<Vec<u32>> = task
        .measures
        .iter()
        .map(|measure| match measure.kind {
            Kind::Neuron => estimates.strongest(measure),
            _ => Vec::new(),
        })
        .collect();
    let grids: Vec<Vec<f64>> = task
        .measures
        .iter()
        .zip(&neurons)
        .map(|(measure, neurons)| estimates.scores(measure, neurons))
        .collect();
    let verified = verify(estimates, source, &rows, &grids)?;
    let places = task.prompt.tokens.len();
    let cells = task
        .measures
        .iter()
        .map(|it| it.cells(places, task.layers()));
    task.progress.add(cells.sum());
    Ok(Scores {
        base,
        grids,
        verified,
        neurons,
    })
}

/// All samples of one cell.
fn all(task: &Task<'_>) -> Piece {
    Piece {
        cells: 0..1,
        samples: 0..task.rows(),
    }
}

/// Sums over rows, and over the steps of integrated gradients.
struct Sums {
    gradient: Gradient,
    kinds: Kinds,
    layers: usize,
    /// Of every metric in the run that is patched.
    base: Vec<f64>,
    /// Of every estimated effect, `[metrics][ways][kinds][layers][cells]`. There is one way for
    /// the whole gradient; with gradient drop one for every layer that is left out.
    effects: Vec<f64>,
}

/// The kinds that are estimated, each with the cells of a layer: `[tokens][heads]`, `[heads]` where
/// every token is patched at once, or `[tokens][neurons]`.
#[derive(Clone)]
struct Kinds(Vec<(Kind, usize)>);

impl Kinds {
    fn of(task: &Task<'_>) -> Self {
        let inner = task.model.config().inner;
        let each = |it: &Measure| {
            let cells = it.cells(task.prompt.len(), 1);
            match it.kind {
                Kind::Neuron => (it.kind, cells.saturating_mul(inner)),
                kind => (kind, cells),
            }
        };
        let mut kinds: Vec<(Kind, usize)> = task.measures.iter().map(each).collect();
        kinds.sort_unstable();
        kinds.dedup();
        Self(kinds)
    }

    /// The cells of a layer, of all kinds.
    fn cells(&self) -> usize {
        self.0.iter().map(|(_, cells)| cells).sum()
    }

    /// Where the effects of a kind begin among those of `layers` layers, and its cells of a layer.
    fn place(&self, kind: Kind, layers: usize) -> (usize, usize) {
        let at = self.0.iter().position(|(it, _)| *it == kind);
        let at = at.unwrap_or_default();
        let before: usize = self.0[..at].iter().map(|(_, cells)| cells * layers).sum();
        (before, self.0[at].1)
    }

    /// The states at which gradients are needed, each once.
    fn states(&self) -> Vec<Kind> {
        let mut states: Vec<Kind> = self.0.iter().map(|(kind, _)| state_of(*kind)).collect();
        states.sort_unstable();
        states.dedup();
        states
    }
}

/// The state whose gradient decides the effects of a kind: for all parts of heads what the heads
/// give.
fn state_of(kind: Kind) -> Kind {
    match kind.is_of_heads() {
        true => Kind::Head,
        false => kind,
    }
}

impl Sums {
    fn new(task: &Task<'_>, gradient: Gradient) -> Result<Self, Failure> {
        let kinds = Kinds::of(task);
        let layers = task.layers();
        let ways = if gradient.drop { layers } else { 1 };
        let metrics = task.readout.count();
        // They are on the host, where an allocation that fails ends the process.
        let mut sizes = [metrics, ways, layers].into_iter();
        match sizes.try_fold(kinds.cells(), usize::checked_mul) {
            Some(effects) if effects <= MOST_EFFECTS => Ok(Self {
                gradient,
                base: vec![0.0; metrics],
                effects: vec![0.0; effects],
                kinds,
                layers,
            }),
            _ => Err(Failure::OutOfMemory),
        }
    }

    fn add(&mut self, more: &Self) {
        let sums = self.base.iter_mut().chain(&mut self.effects);
        for (sum, more) in sums.zip(more.base.iter().chain(&more.effects)) {
            *sum += more;
        }
    }

    /// Takes in the effects of one metric by one way, `[kinds][layers][cells]`.
    fn add_effects(&mut self, metric: usize, way: usize, effects: &[f64]) {
        let ways = self.effects.len() / self.base.len() / effects.len();
        let from = (metric * ways + way) * effects.len();
        let sums = &mut self.effects[from..from + effects.len()];
        for (sum, effect) in sums.iter_mut().zip(effects) {
            *sum += effect;
        }
    }
}

/// What the sums say of every cell.
struct Estimates<'a> {
    task: &'a Task<'a>,
    sums: &'a Sums,
    /// The metrics of the run that is patched.
    base: &'a [f64],
}

impl Estimates<'_> {
    /// How much a cell is estimated to add to a metric. `cell` is its place among those of its layer.
    fn effect(&self, measure: &Measure, metric: usize, cell: usize, layer: usize) -> f64 {
        let (sums, settings) = (self.sums, self.task.settings);
        let (from, cells) = sums.kinds.place(measure.kind, sums.layers);
        let window = measure.kind.window(layer, sums.layers, settings.window);
        let summed = (self.task.rows() * sums.gradient.steps) as f64;
        let each = sums.kinds.cells() * sums.layers;
        let of_metric = sums.effects.len() / self.base.len();
        let ways = sums.effects[metric * of_metric..(metric + 1) * of_metric].chunks(each);
        let effects = ways.map(|effects| {
            let at = |layer: usize| effects[from + layer * cells + cell];
            window.clone().map(at).sum::<f64>() / summed
        });
        match sums.gradient.drop {
            false => effects.sum(),
            true => {
                let magnitudes: f64 = effects.map(f64::abs).sum();
                // Without its own layer a sub-module has no effect.
                let others = sums.layers - usize::from(is_output(measure.kind));
                let metric = settings.read().get(metric).copied().unwrap_or_default();
                settings.direction.order(metric) * magnitudes / others as f64
            }
        }
    }

    /// The metrics of a cell: of the run that is patched and what the state that is put in is
    /// estimated to add.
    fn score(&self, measure: &Measure, cell: usize, layer: usize) -> Vec<f64> {
        let metrics = self.base.iter().enumerate();
        let score = |(n, base): (usize, &f64)| base + self.effect(measure, n, cell, layer);
        metrics.map(score).collect()
    }

    /// The metric by which cells are ranked: the first that was asked for.
    fn ranked(&self) -> usize {
        let settings = self.task.settings;
        let first = settings.metrics.first().copied().unwrap_or_default();
        let place = settings.read().iter().position(|&metric| metric == first);
        place.unwrap_or_default()
    }

    /// The neuron with the largest estimate at each token and layer, the first of equals.
    fn strongest(&self, measure: &Measure) -> Vec<u32> {
        let (tokens, ranked) = (self.task.prompt.tokens.len(), self.ranked());
        let inner = self.task.model.config().inner;
        let places = (0..tokens).flat_map(|token| (0..self.sums.layers).map(move |it| (token, it)));
        let strongest = |(token, layer): (usize, usize)| {
            let size = |neuron| {
                self.effect(measure, ranked, token * inner + neuron, layer)
                    .abs()
            };
            let first = (0, size(0));
            let larger = |best: (usize, f64), neuron| match size(neuron) {
                size if size > best.1 => (neuron, size),
                _ => best,
            };
            (1..inner).fold(first, larger).0 as u32
        };
        places.map(strongest).collect()
    }

    /// The scores of a grid; of neurons those of these.
    fn scores(&self, measure: &Measure, neurons: &[u32]) -> Vec<f64> {
        let layers = self.sums.layers;
        let inner = self.task.model.config().inner;
        // The cells of a layer: not those of tokens that are only given.
        let cells = measure.cells(self.task.prompt.tokens.len(), 1);
        let mut scores = Vec::with_capacity(cells * layers * self.base.len());
        for cell in 0..cells {
            for layer in 0..layers {
                let cell = match neurons.get(cell * layers + layer) {
                    Some(&neuron) => cell * inner + neuron as usize,
                    None => cell,
                };
                scores.extend(self.score(measure, cell, layer));
            }
        }
        scores
    }
}

/// Whether a state is what a sub-module gives or a part of it, and not the residual.
fn is_output(kind: Kind) -> bool {
    !kind.is_residual()
}

/// The sums over some rows of the run that is patched, `[rows, tokens, width]` embeddings.
fn estimate(
    task: &Task<'_>,
    source: &Source,
    gradient: Gradient,
    rows: &Tensor,
) -> Result<Sums, Failure> {
    let mut sums = Sums::new(task, gradient)?;
    let own = task.model.add_positions(rows, 0);
    // Positions are the same in both, so this is the difference of the embeddings.
    let to_source = source.state(Kind::ResidPre, 0) - &own;
    let mut changes = Changes::default();
    let states = sums.kinds.states();
    for step in 0..gradient.steps {
        let input = &own + &to_source * (step as f64 / gradient.steps as f64);
        let graph = Graph::of(task, &input)?;
        if step == 0 {
            let columns = graph.metrics.iter().map(|metric| to_f64(&metric.detach()));
            sums.base = columns.map(|column| column.iter().sum()).collect();
            changes = Changes::to(source, task.model, &graph, &sums.kinds);
        }
        // Where blocks are left out, what reaches them from above is needed too.
        let with_hidden = [states.as_slice(), &[Kind::Hidden]].concat();
        for metric in 0..graph.metrics.len() {
            task.progress.go_on()?;
            let mut gradients = graph.backward(&graph.metrics[metric], &with_hidden, task.layers());
            let hidden = gradients.pop().unwrap_or_default();
            let gradients = states.iter().copied().zip(gradients).collect();
            let whole = changes.effects(&graph, &gradients);
            if !gradient.drop {
                sums.add_effects(metric, 0, &whole);
                continue;
            }
            for (layer, above) in hidden.iter().enumerate() {
                task.progress.go_on()?;
                let mut effects = whole.clone();
                graph.leave_out(layer, above, (&sums.kinds, &changes), &mut effects);
                sums.add_effects(metric, layer, &effects);
            }
        }
    }
    Ok(sums)
}

/// Gradients of a metric by state, each `[layers]` of `[rows, tokens, width]`.
type Gradients = BTreeMap<Kind, Vec<Tensor>>;

/// What a cell would put in more than is there: by kind and layer, in float32.
#[derive(Default)]
struct Changes(Vec<(Kind, Vec<Put>)>);

enum Put {
    /// A state of a whole block, `[rows, tokens, width]`.
    State(Tensor),
    /// Neurons, `[rows, tokens, inner]`.
    Neurons(Tensor),
    /// Parts of heads.
    Heads(Change),
}

impl Changes {
    fn to(source: &Source, model: &Model, graph: &Graph, kinds: &Kinds) -> Self {
        let of_heads = kinds.0.iter().any(|(kind, _)| kind.is_of_heads());
        let heads: Vec<Heads> = match of_heads {
            true => (0..graph.heads.len())
                .map(|layer| Heads::of_source(model, layer, source))
                .collect(),
            false => Vec::new(),
        };
        let wide = |state: &Tensor| state.detach().to_kind(Dtype::Float);
        let change = |kind: Kind, layer: usize| match kind {
            Kind::Neuron => {
                let mut theirs = Kept::default();
                let input = source.state(Kind::ResidPre, layer);
                let _output = model.block(layer, input, Pass::default(), &mut theirs);
                let theirs = theirs.0.remove(&kind).unwrap_or_default().remove(0);
                Put::Neurons(wide(&theirs) - wide(&graph.states(kind)[layer]))
            }
            kind if kind.is_of_heads() => {
                let (own, source) = (&graph.heads[layer], &heads[layer]);
                Put::Heads(Change::of(model, layer, kind, own, source))
            }
            kind => {
                let own = &graph.states(kind)[layer];
                Put::State(wide(source.state(kind, layer)) - wide(own))
            }
        };
        let layers = graph.layers;
        let of_kind = |&(kind, _): &(Kind, usize)| {
            (kind, (0..layers).map(|layer| change(kind, layer)).collect())
        };
        Self(kinds.0.iter().map(of_kind).collect())
    }

    /// The sums over rows of changes times gradients, `[kinds][layers][cells]`, of as many layers as
    /// there are gradients.
    fn effects(&self, graph: &Graph, gradients: &Gradients) -> Vec<f64> {
        let effects = self.0.iter().flat_map(|(kind, changes)| {
            let gradients = gradients
                .get(&state_of(*kind))
                .map_or(&[][..], Vec::as_slice);
            let layers = changes.iter().zip(gradients).enumerate();
            layers.map(|(layer, (change, gradient))| match change {
                Put::State(change) => effect(change, gradient),
                Put::Neurons(change) => {
                    let each = change * gradient.to_kind(Dtype::Float);
                    let each = each.sum_dim_intlist([0i64].as_slice(), false, Dtype::Double);
                    each.reshape([-1])
                }
                Put::Heads(change) => change.effect(*kind, &graph.heads[layer], gradient),
            })
        });
        match effects.collect::<Vec<_>>().as_slice() {
            [] => Vec::new(),
            effects => to_f64(&Tensor::cat(effects, 0)),
        }
    }
}

/// The sum over rows of a difference times a gradient, `[tokens]`.
fn effect(difference: &Tensor, gradient: &Tensor) -> Tensor {
    let product = difference * gradient.to_kind(Dtype::Float);
    product.sum_dim_intlist([0i64, 2].as_slice(), false, Dtype::Double)
}

/// A run with all that its gradients need.
struct Graph {
    layers: usize,
    states: BTreeMap<Kind, Vec<Tensor>>,
    /// What the heads of each layer have, where any part of them is estimated.
    heads: Vec<Heads>,
    /// The metrics, `[rows]` each.
    metrics: Vec<Tensor>,
}

impl Graph {
    /// From the first block's input on, `[rows, tokens, width]`.
    fn of(task: &Task<'_>, input: &Tensor) -> Result<Self, Failure> {
        // Back to no gradients also when memory runs out.
        let _before = tch::no_grad_guard();
        let input = input.detach().set_requires_grad(true);
        let mut kept = Kept::default();
        tch::with_grad(|| {
            let mut x = input;
            for layer in 0..task.layers() {
                task.progress.go_on()?;
                x = task
                    .model
                    .block(layer, &x, Pass::default(), &mut kept)
                    .hidden;
            }
            let last = task.prompt.last_of(&x);
            Ok(Self {
                layers: task.layers(),
                metrics: task.readout.columns(task.model, &last),
                states: kept.0,
                heads: Vec::new(),
            })
        })
        .map(|graph: Self| graph.with_heads(task))
    }

    fn with_heads(mut self, task: &Task<'_>) -> Self {
        if task.measures.iter().any(|it| it.kind.is_of_heads()) {
            let of = |kind: Kind, layer: usize| &self.states(kind)[layer];
            let of_layer = |layer| {
                let states = (
                    of(Kind::Head, layer),
                    of(Kind::HeadQ, layer),
                    of(Kind::HeadK, layer),
                    of(Kind::HeadV, layer),
                );
                Heads::of(task.model, layer, states)
            };
            self.heads = (0..self.layers).map(of_layer).collect();
        }
        self
    }

    /// The states of a kind, `[rows, tokens, width]` a layer.
    fn states(&self, kind: Kind) -> &[Tensor] {
        self.states.get(&kind).map_or(&[], Vec::as_slice)
    }

    /// The gradients of the sum of `values` at the states of `kinds` in the first `layers` blocks,
    /// `[kinds][layers]` of `[rows, tokens, width]`.
    fn backward(&self, values: &Tensor, kinds: &[Kind], layers: usize) -> Vec<Vec<Tensor>> {
        let states = kinds.iter().flat_map(|&kind| &self.states(kind)[..layers]);
        let states: Vec<&Tensor> = states.collect();
        let sum = tch::with_grad(|| values.sum(values.kind()));
        let mut gradients = Tensor::run_backward(&[sum], &states, true, false).into_iter();
        let of_kind = |_| gradients.by_ref().take(layers).collect();
        kinds.iter().map(of_kind).collect()
    }

    /// Makes of the whole `effects`, `[kinds][layers][cells]`, those with the attention and the
    /// MLP of block `layer` left out of the gradient's way: what comes from `above` it, the
    /// gradient at its output, goes on below it as it is. States above see no difference.
    fn leave_out(
        &self,
        layer: usize,
        above: &Tensor,
        (kinds, changes): (&Kinds, &Changes),
        effects: &mut [f64],
    ) {
        let mut put = |kind: Kind, layer: usize, values: &[f64]| {
            let (from, cells) = kinds.place(kind, self.layers);
            let from = from + layer * cells;
            effects[from..from + values.len()].copy_from_slice(values);
        };
        for ((kind, cells), (_, changes)) in kinds.0.iter().zip(&changes.0) {
            match (kind, &changes[layer]) {
                (Kind::Hidden, _) => {} // behind what is left out
                (Kind::ResidPre | Kind::ResidMid, Put::State(change)) => {
                    put(*kind, layer, &to_f64(&effect(change, above)));
                }
                _ => put(*kind, layer, &vec![0.0; *cells]),
            }
        }
        if layer == 0 {
            return;
        }
        let below = &self.states(Kind::Hidden)[layer - 1];
        let values = tch::with_grad(|| below * above);
        let states = kinds.states();
        let gradients = self.backward(&values, &states, layer);
        let gradients = states.into_iter().zip(gradients).collect();
        let found = changes.effects(self, &gradients);
        for (kind, _) in &kinds.0 {
            let (from, cells) = kinds.place(*kind, layer);
            put(*kind, 0, &found[from..from + layer * cells]);
        }
    }
}

/// Keeps every state as it is, with the graph that it hangs in.
#[derive(Default)]
struct Kept(BTreeMap<Kind, Vec<Tensor>>);

impl Kept {
    fn keep(&mut self, kind: Kind, state: Tensor) -> Tensor {
        let states = self.0.entry(kind).or_default();
        states.push(state.shallow_clone());
        state
    }
}

impl Hook for Kept {
    fn resid_pre(&mut self, _layer: usize, x: Tensor) -> Tensor {
        self.keep(Kind::ResidPre, x)
    }

    fn resid_mid(&mut self, _layer: usize, x: Tensor) -> Tensor {
        self.keep(Kind::ResidMid, x)
    }

    fn queries(&mut self, _layer: usize, q: Tensor) -> Tensor {
        self.keep(Kind::HeadQ, q)
    }

    fn keys(&mut self, _layer: usize, k: Tensor) -> Tensor {
        self.keep(Kind::HeadK, k)
    }

    fn values(&mut self, _layer: usize, v: Tensor) -> Tensor {
        self.keep(Kind::HeadV, v)
    }

    fn heads(&mut self, _layer: usize, z: Tensor) -> Tensor {
        self.keep(Kind::Head, z)
    }

    fn key(&mut self, _layer: usize, key: Tensor) -> Tensor {
        self.keep(Kind::Neuron, key)
    }

    fn attn(&mut self, _layer: usize, out: Tensor) -> Tensor {
        self.keep(Kind::Attn, out)
    }

    fn mlp(&mut self, _layer: usize, out: Tensor) -> Tensor {
        self.keep(Kind::Mlp, out)
    }

    fn hidden(&mut self, _layer: usize, out: Tensor) -> Tensor {
        self.keep(Kind::Hidden, out)
    }
}

/// The exact scores of some cells of every grid: of those whose scores are furthest from those of
/// the run that is patched, and of others by chance.
fn verify(
    estimates: &Estimates<'_>,
    source: &Source,
    rows: &Tensor,
    grids: &[Vec<f64>],
) -> Result<Vec<Vec<Verified>>, Failure> {
    let (task, base) = (estimates.task, estimates.base);
    let settings = task.settings;
    if settings.verify == 0 {
        return Ok(Vec::new());
    }
    let ranked = estimates.ranked();
    let (prompt, layers, inner) = (task.prompt.ids(), task.layers(), task.model.config().inner);
    let chosen = |(measure, scores): (&Measure, &Vec<f64>)| {
        let (magnitudes, width): (Vec<f64>, usize) = match measure.kind {
            Kind::Neuron => {
                let each = layers * inner;
                let cells = 0..task.prompt.tokens.len() * each;
                let size = |cell: usize| {
                    let (token, layer, neuron) = (cell / each, cell % each / inner, cell % inner);
                    let cell = token * inner + neuron;
                    estimates.effect(measure, ranked, cell, layer).abs()
                };
                (cells.map(size).collect(), each)
            }
            _ => {
                let cells = scores.chunks(base.len());
                let size = |cell: &[f64]| (cell[ranked] - base[ranked]).abs();
                (cells.map(size).collect(), measure.heads * layers)
            }
        };
        let first = match measure.kind.is_over_tokens() {
            true => 0,
            false => task.first,
        };
        let chance = (settings.seed, prompt.as_slice());
        choose(&magnitudes, width, first, settings.verify, chance)
    };
    let chosen = task.measures.iter().zip(grids).map(chosen);
    let chosen: Vec<Vec<(usize, usize, bool)>> = chosen.collect();
    let places: Vec<Vec<(usize, usize)>> = chosen
        .iter()
        .zip(task.measures)
        .map(|(cells, measure)| match measure.kind {
            Kind::Neuron => Vec::new(), // by themselves
            _ => cells
                .iter()
                .map(|&(row, column, _)| (row, column))
                .collect(),
        })
        .collect();
    let exact = exact::cells(task, source, rows, &places)?;
    let mut verified = Vec::new();
    for ((measure, cells), exact) in task.measures.iter().zip(chosen).zip(exact) {
        if measure.kind == Kind::Neuron {
            verified.push(verify_neurons(estimates, source, rows, (measure, cells))?);
            continue;
        }
        let cells = cells.into_iter().zip(exact);
        let cells = cells.map(|((token, column, random), exact)| Verified {
            token,
            head: measure.kind.is_of_heads().then_some(column / layers),
            layer: column % layers,
            neuron: None,
            random,
            exact,
            estimate: Vec::new(),
        });
        verified.push(cells.collect());
    }
    Ok(verified)
}

/// Those of chosen neurons, each a token, a place in `[layers][neurons]` and whether by chance.
fn verify_neurons(
    estimates: &Estimates<'_>,
    source: &Source,
    rows: &Tensor,
    (measure, cells): (&Measure, Vec<(usize, usize, bool)>),
) -> Result<Vec<Verified>, Failure> {
    let inner = estimates.task.model.config().inner;
    let place =
        |&(token, column, _): &(usize, usize, bool)| (token, column / inner, column % inner);
    let wanted: Vec<(usize, usize, usize)> = cells.iter().map(place).collect();
    let exact = exact::neurons(estimates.task, source, rows, &wanted)?;
    let verified = cells.iter().zip(wanted).zip(exact);
    let verified = verified.map(|((cell, (token, layer, neuron)), exact)| Verified {
        token,
        head: None,
        layer,
        neuron: Some(neuron),
        random: cell.2,
        exact,
        estimate: estimates.score(measure, token * inner + neuron, layer),
    });
    Ok(verified.collect())
}
