//! The two runs of the exact engine: the one whose states are put in, and the one that is patched,
//! with the states that the cells start from.

use std::ops::Range;

use tch::{Device, Tensor};

use super::kind::{Kind, Part, Severed};
use super::memory::{Budget, Failure, Piece};
use super::prompt::Prompt;
use super::task::{Progress, Task};
use crate::model::{Hook, KeyValue, Model, Pass, Plain};

/// Tokens of all rows together that a processor computes at a time: enough for its matrix products
/// to reach their full rate, and few enough for what lies between them to stay in its cache.
const TOKENS_AT_ONCE: usize = 512;

/// Cells that are computed at a time, of so many samples and tokens.
pub(super) fn cells_at_once(model: &Model, samples: usize, tokens: usize) -> usize {
    match model.device() {
        Device::Cpu => (TOKENS_AT_ONCE / (samples * tokens)).max(1),
        _ => usize::MAX, // what the memory budget lets through
    }
}

/// The run whose states are put in, one row: in denoising the clean one.
pub(super) struct Source {
    /// Keys and values of every block.
    pub kv: Vec<KeyValue>,
    /// Input of the first block, `[1, tokens, width]`.
    input: Tensor,
    /// Output of every block, likewise.
    pub hidden: Vec<Tensor>,
    /// Output of every attention sub-module, likewise.
    pub attn: Vec<Tensor>,
    /// Output of every MLP, likewise.
    pub mlp: Vec<Tensor>,
    /// The residual between every block's attention and its MLP, likewise; empty where there is none.
    mid: Vec<Tensor>,
    /// What the heads of every block give, `[1, tokens, heads * head_dim]`.
    pub heads: Vec<Tensor>,
    /// Their queries, `[1, tokens, heads, head_dim]`.
    pub queries: Vec<Tensor>,
    /// The states behind the last block that metrics are read from, `[1, read, width]`.
    last: Tensor,
}

impl AsRef<Tensor> for Source {
    fn as_ref(&self) -> &Tensor {
        &self.last
    }
}

impl Source {
    /// The outputs of a sub-module; none for what is no sub-module.
    pub fn of(&self, kind: Kind) -> Option<&[Tensor]> {
        match kind {
            Kind::Mlp => Some(&self.mlp),
            Kind::Attn => Some(&self.attn),
            _ => None,
        }
    }

    /// A state of a whole block, `[1, tokens, width]`.
    pub fn state(&self, kind: Kind, layer: usize) -> &Tensor {
        match kind {
            Kind::Mlp => &self.mlp[layer],
            Kind::Attn => &self.attn[layer],
            Kind::ResidPre => input(&self.input, &self.hidden, layer),
            Kind::ResidMid => &self.mid[layer],
            _ => &self.hidden[layer],
        }
    }

    /// The input of block `layer` at `token`, `[1, 1, width]`.
    pub fn input(&self, layer: usize, token: i64) -> Tensor {
        input(&self.input, &self.hidden, layer).narrow(1, token, 1)
    }
}

/// The input of a block: the first one's, or what the block below gave.
pub(super) fn input<'a>(first: &'a Tensor, hidden: &'a [Tensor], layer: usize) -> &'a Tensor {
    match layer.checked_sub(1) {
        Some(below) => &hidden[below],
        None => first,
    }
}

/// Runs a prompt as it is. It is one row, however many the patched run has.
pub(super) fn source(
    model: &Model,
    prompt: &Prompt,
    _rows: usize,
    progress: &Progress<'_>,
) -> Result<Source, Failure> {
    let (mut kv, mut hidden) = (Vec::new(), Vec::new());
    let (mut attn, mut mlp) = (Vec::new(), Vec::new());
    let (mut heads, mut queries) = (Vec::new(), Vec::new());
    let mut mid = Vec::new();
    let input = model.add_positions(&prompt.embeddings(model), 0);
    let mut x = input.shallow_clone();
    for layer in 0..model.config().layers {
        progress.go_on()?;
        let mut record = Record::default();
        let step = model.block(layer, &x, Pass::default(), &mut record);
        x = step.hidden;
        kv.push(step.kv);
        hidden.push(x.shallow_clone());
        attn.extend(record.attn);
        mlp.extend(record.mlp);
        mid.extend(record.mid);
        heads.extend(record.heads);
        queries.extend(record.queries);
    }
    Ok(Source {
        last: prompt.last_of(&x),
        kv,
        input,
        hidden,
        attn,
        mlp,
        mid,
        heads,
        queries,
    })
}

/// What a cell restores behind a block, and in which rows.
pub(super) struct Place<'a> {
    pub model: &'a Model,
    /// What is put in is of this run.
    pub source: &'a Source,
    pub kind: Kind,
    pub layer: usize,
    /// The tokens whose output is wanted. The state is restored at all of them, or at the first
    /// where those behind it see it.
    pub span: Range<i64>,
    pub samples: &'a Range<usize>,
}

impl Place<'_> {
    fn tokens(&self) -> i64 {
        self.span.end - self.span.start
    }
}

/// A run that is patched, one row a noise sample, from some token on: in denoising the corrupted
/// one.
#[derive(Default)]
pub(super) struct Run {
    /// The metrics of the readout, one row after another.
    pub values: Vec<f64>,
    /// Keys and values of every block.
    pub kv: Vec<KeyValue>,
    /// Input of the first block, `[samples, tokens, width]`: one, but where nothing ran yet.
    pub input: Vec<Tensor>,
    /// Output of every block, likewise.
    pub hidden: Vec<Tensor>,
    /// Output of every attention sub-module, kept when a grid severs it.
    pub attn: Vec<Tensor>,
    /// Output of every MLP, kept when a grid severs it or paths hold it.
    pub mlp: Vec<Tensor>,
    /// What every block would give if its attention gave the source's output at every token, kept
    /// when a grid restores it. What a block makes of one token's sub-module output stays at that
    /// token, so column `t` is the state of the cells whose window begins here with token `t`
    /// restored.
    restored_attn: Vec<Tensor>,
    /// The same for the MLP.
    restored_mlp: Vec<Tensor>,
    /// What the heads of every block give, `[samples, tokens, heads * head_dim]`, kept when a grid
    /// restores something of them.
    pub heads: Vec<Tensor>,
    /// Their queries, `[samples, tokens, heads, head_dim]`, likewise.
    pub queries: Vec<Tensor>,
}

impl Run {
    /// The output of `severed` in every block.
    pub fn of(&self, severed: Severed) -> &[Tensor] {
        match severed {
            Severed::Attn => &self.attn,
            Severed::Mlp => &self.mlp,
        }
    }

    /// The output of a block with a state of it restored, `[1 or samples, span, width]`: one, or one
    /// for each of `parts`, heads or neurons.
    pub fn restored(&self, place: &Place<'_>, parts: &[usize]) -> Vec<Tensor> {
        let (source, kind, layer) = (place.source, place.kind, place.layer);
        let token = place.span.start;
        let of_samples =
            |states: &[Tensor]| part(&states[layer], place.samples).narrow(1, token, 1);
        let restored = match kind {
            // What a block makes of the state between attention and MLP stays at its token: with it
            // restored, the block's output is restored.
            Kind::Hidden | Kind::ResidMid => source.hidden[layer].narrow(1, token, 1),
            Kind::ResidPre => source.input(layer, token), // before the block, not behind it
            Kind::Attn => of_samples(&self.restored_attn),
            Kind::Mlp => of_samples(&self.restored_mlp),
            Kind::Neuron => return self.with_neurons(place, parts),
            _ => return self.with_heads(place, parts),
        };
        vec![restored]
    }

    /// The same with a neuron of the MLP, for all of `neurons` in one computation.
    fn with_neurons(&self, place: &Place<'_>, neurons: &[usize]) -> Vec<Tensor> {
        let (model, layer, token) = (place.model, place.layer, place.span.start);
        let mut theirs = Neurons::default();
        let at = |states: &Tensor| states.narrow(1, token, 1);
        let _output = model.behind_heads(
            layer,
            &place.source.input(layer, token),
            &at(&place.source.heads[layer]),
            &mut theirs,
        );
        let of_cells = |states: &Tensor| {
            let states = at(&part(states, place.samples));
            states.repeat([neurons.len() as i64, 1, 1])
        };
        let x = of_cells(input(&self.input[0], &self.hidden, layer));
        let z = of_cells(&self.heads[layer]);
        let mut put = Neurons {
            key: theirs.key,
            put: neurons,
        };
        let hidden = model.behind_heads(layer, &x, &z, &mut put);
        hidden.split(place.samples.len() as i64, 0)
    }

    /// The same with something of a head, for all of `heads` in one computation.
    fn with_heads(&self, place: &Place<'_>, heads: &[usize]) -> Vec<Tensor> {
        let (model, kind, layer, samples) = (place.model, place.kind, place.layer, place.samples);
        let (first, tokens) = (place.span.start, place.tokens());
        let of_cells = |states: &Tensor| {
            let states = part(states, samples).narrow(1, first, tokens);
            states.repeat([heads.len() as i64, 1, 1])
        };
        let z = of_cells(&self.heads[layer]);
        let restored = self.restored_heads(place);
        let rows = samples.len() as i64;
        // The channels that a key-value head decides are those of all heads that share it.
        let cells = kind.heads(model.config().heads, model.config().kv_heads) as i64;
        let width = z.size()[2] / cells;
        for (cell, &head) in heads.iter().enumerate() {
            let of_head = |states: &Tensor| states.narrow(2, head as i64 * width, width);
            let mut own = of_head(&z.narrow(0, cell as i64 * rows, rows));
            own.copy_(&of_head(&restored));
        }
        let x = of_cells(input(&self.input[0], &self.hidden, layer));
        let hidden = model.behind_heads(layer, &x, &z, &mut Plain);
        hidden.split(rows, 0)
    }

    /// What the heads of a block give, `[1 or samples, span, heads * head_dim]`, with something of
    /// each of them restored. No head sees another, and no query: all heads, and what is not seen
    /// behind at all tokens, are restored at once.
    fn restored_heads(&self, place: &Place<'_>) -> Tensor {
        let (source, kind, layer, samples) = (place.source, place.kind, place.layer, place.samples);
        let (span, first, tokens) = (&place.span, place.span.start, place.tokens());
        let part_of_head = kind.of_head().map(|(part, _)| part);
        let queries = match part_of_head {
            Some(Part::Query | Part::Pattern) => {
                let size = source.queries[layer].size();
                let size = [&[samples.len() as i64], &size[1..]].concat();
                source.queries[layer].expand(size, false)
            }
            Some(Part::Key | Part::Value) => part(&self.queries[layer], samples),
            _ => return source.heads[layer].narrow(1, first, tokens),
        };
        let put = match kind.is_over_tokens() {
            true => span.clone(),
            false => first..first + 1,
        };
        // What is seen, of this run or of the source, whole or where it is put in.
        let seen = |ours: &Tensor, theirs: &Tensor, put: Option<Range<i64>>| {
            let seen = part(ours, samples).narrow(2, 0, span.end).copy();
            if let Some(put) = put {
                let at = |x: &Tensor| x.narrow(2, put.start, put.end - put.start);
                at(&seen).copy_(&at(theirs));
            }
            seen
        };
        let whole = (part_of_head == Some(Part::Pattern)).then_some(0..span.end);
        let of = |wanted| (part_of_head == Some(wanted)).then(|| put.clone());
        let (ours, theirs) = (&self.kv[layer], &source.kv[layer]);
        let kv = KeyValue {
            k: seen(&ours.k, &theirs.k, whole.or(of(Part::Key))),
            v: seen(&ours.v, &theirs.v, of(Part::Value)),
        };
        let queries = queries.narrow(1, first, tokens);
        place.model.heads(layer, &queries, &kv)
    }

    fn join(parts: &[Run]) -> Run {
        let join = |of: fn(&Run) -> &[Tensor]| -> Vec<Tensor> {
            (0..of(&parts[0]).len())
                .map(|layer| {
                    let parts: Vec<&Tensor> = parts.iter().map(|part| &of(part)[layer]).collect();
                    Tensor::cat(&parts, 0)
                })
                .collect()
        };
        Run {
            values: parts
                .iter()
                .flat_map(|part| part.values.iter().copied())
                .collect(),
            kv: (0..parts[0].kv.len())
                .map(|layer| {
                    let k: Vec<&Tensor> = parts.iter().map(|part| &part.kv[layer].k).collect();
                    let v: Vec<&Tensor> = parts.iter().map(|part| &part.kv[layer].v).collect();
                    KeyValue {
                        k: Tensor::cat(&k, 0),
                        v: Tensor::cat(&v, 0),
                    }
                })
                .collect(),
            input: join(|run| &run.input),
            hidden: join(|run| &run.hidden),
            attn: join(|run| &run.attn),
            mlp: join(|run| &run.mlp),
            restored_attn: join(|run| &run.restored_attn),
            restored_mlp: join(|run| &run.restored_mlp),
            heads: join(|run| &run.heads),
            queries: join(|run| &run.queries),
        }
    }
}

/// The rows of `samples` alone.
pub(super) fn part(rows: &Tensor, samples: &Range<usize>) -> Tensor {
    rows.narrow(0, samples.start as i64, samples.len() as i64)
}

/// The keys and values of the tokens before `token` in the rows of `samples`; [`None`] at the first
/// token.
pub(super) fn before(kv: &KeyValue, token: i64, samples: &Range<usize>) -> Option<KeyValue> {
    (token > 0).then(|| KeyValue {
        k: part(&kv.k, samples).narrow(2, 0, token),
        v: part(&kv.v, samples).narrow(2, 0, token),
    })
}

/// The patched run of all tokens, before anything is put in. `embeddings` are
/// `[samples, tokens, width]`.
pub(super) fn base(
    task: &Task<'_>,
    source: &Source,
    embeddings: &Tensor,
    budget: &Budget,
) -> Result<Run, Failure> {
    in_samples(task, task.prompt.len(), budget, |samples| {
        let mut run = Run::default();
        let mut x = task.model.add_positions(&part(embeddings, samples), 0);
        run.input.push(x.shallow_clone());
        for layer in 0..task.layers() {
            task.progress.go_on()?;
            let mut record = Record::default();
            let step = task.model.block(layer, &x, Pass::default(), &mut record);
            for (kind, states) in [
                (Kind::Attn, &mut run.restored_attn),
                (Kind::Mlp, &mut run.restored_mlp),
            ] {
                if let Some(outputs) = source.of(kind).filter(|_| task.restores(kind)) {
                    let mut restore = Everywhere {
                        kind,
                        state: &outputs[layer],
                    };
                    let restored = task.model.block(layer, &x, Pass::default(), &mut restore);
                    states.push(restored.hidden);
                }
            }
            if task.restores_heads() {
                run.heads.extend(record.heads);
                run.queries.extend(record.queries);
            }
            if task.severs(Severed::Attn) {
                run.attn.extend(record.attn);
            }
            if task.severs(Severed::Mlp) || task.holds_mlps() {
                run.mlp.extend(record.mlp);
            }
            run.kv.push(step.kv);
            run.hidden.push(step.hidden.shallow_clone());
            x = step.hidden;
        }
        run.values = task.readout.read(task.model, &task.prompt.last_of(&x));
        Ok(run)
    })
}

/// The published code's run under a severed path: from `token` on, that token's outputs of the
/// severed sub-module held at `frozen` in every block. The tokens before it are those of `run`.
pub(super) fn held(
    task: &Task<'_>,
    run: &Run,
    embeddings: &Tensor,
    (severed, frozen): (Severed, &[Tensor]),
    token: i64,
    budget: &Budget,
) -> Result<Run, Failure> {
    let tokens = task.prompt.len() as i64 - token;
    in_samples(task, tokens as usize, budget, |samples| {
        let mut held = Run::default();
        let x = part(embeddings, samples).narrow(1, token, tokens);
        let mut x = task.model.add_positions(&x, token);
        for (layer, frozen) in frozen.iter().enumerate() {
            task.progress.go_on()?;
            let past = before(&run.kv[layer], token, samples);
            let pass = Pass {
                past: past.as_ref(),
                queries: None,
            };
            let mut hold = Hold {
                frozen: Some((severed, part(frozen, samples).select(1, token))),
                restored: None,
            };
            x = task.model.block(layer, &x, pass, &mut hold).hidden;
            held.hidden.push(x.shallow_clone());
        }
        held.values = task.readout.read(task.model, &task.prompt.last_of(&x));
        Ok(held)
    })
}

/// Computes a run in as many samples at a time as fit.
fn in_samples(
    task: &Task<'_>,
    tokens: usize,
    budget: &Budget,
    mut work: impl FnMut(&Range<usize>) -> Result<Run, Failure>,
) -> Result<Run, Failure> {
    let mut parts = Vec::new();
    let all = Piece {
        cells: 0..1,
        samples: 0..task.rows(),
    };
    budget.spend(
        row_bytes(task.model, tokens, task.prompt.len()),
        all,
        |piece| {
            parts.push(work(&piece.samples)?);
            Ok(())
        },
    )?;
    Ok(match parts.len() {
        1 => parts.remove(0),
        _ => Run::join(&parts),
    })
}

/// An upper estimate of the bytes that one row of `tokens` tokens takes inside a block, with
/// `context` tokens to attend to.
pub(super) fn row_bytes(model: &Model, tokens: usize, context: usize) -> u64 {
    let config = model.config();
    let scalar = model.dtype().elt_size_in_bytes() as u64;
    let [tokens, context] = [tokens, context].map(|count| count as u64);
    let [width, inner, heads, kv_heads, head_dim] = [
        config.width,
        config.inner,
        config.heads,
        config.kv_heads,
        config.head_dim,
    ]
    .map(|size| size as u64);
    // What goes to an expert, what it gives, and their sum.
    let experts = config
        .experts
        .as_ref()
        .map_or(0, |experts| 3 * width + 4 * experts.inner as u64);
    let states = 6 * width + 4 * heads * head_dim + 4 * inner + experts;
    let keys = 2 * kv_heads * head_dim * context;
    // Scores and their softmax, in f32, where the attention is not a fused one.
    let scores = 2 * heads * tokens * context * 4;
    scalar * (tokens * states + keys) + scores
}

/// Keeps what the sub-modules gave.
#[derive(Default)]
struct Record {
    attn: Option<Tensor>,
    mlp: Option<Tensor>,
    mid: Option<Tensor>,
    heads: Option<Tensor>,
    queries: Option<Tensor>,
}

impl Hook for Record {
    fn resid_mid(&mut self, _layer: usize, x: Tensor) -> Tensor {
        self.mid = Some(x.shallow_clone());
        x
    }

    fn queries(&mut self, _layer: usize, q: Tensor) -> Tensor {
        self.queries = Some(q.shallow_clone());
        q
    }

    fn heads(&mut self, _layer: usize, z: Tensor) -> Tensor {
        self.heads = Some(z.shallow_clone());
        z
    }

    fn attn(&mut self, _layer: usize, out: Tensor) -> Tensor {
        self.attn = Some(out.shallow_clone());
        out
    }

    fn mlp(&mut self, _layer: usize, out: Tensor) -> Tensor {
        self.mlp = Some(out.shallow_clone());
        out
    }
}

/// Sees the input of an MLP's second matrix at one token; with one there, puts a neuron of it into
/// the rows of each cell.
#[derive(Default)]
struct Neurons<'a> {
    key: Option<Tensor>,
    put: &'a [usize],
}

impl Hook for Neurons<'_> {
    fn key(&mut self, _layer: usize, key: Tensor) -> Tensor {
        let Some(theirs) = &self.key else {
            self.key = Some(key.shallow_clone());
            return key;
        };
        let rows = key.size()[0] / self.put.len() as i64;
        for (cell, &neuron) in self.put.iter().enumerate() {
            let of = |states: &Tensor| states.narrow(2, neuron as i64, 1);
            let mut own = of(&key.narrow(0, cell as i64 * rows, rows));
            own.copy_(&of(theirs));
        }
        key
    }
}

/// Gives the source's output of one sub-module for every token and row.
struct Everywhere<'a> {
    kind: Kind,
    state: &'a Tensor,
}

impl Hook for Everywhere<'_> {
    fn attn(&mut self, _layer: usize, out: Tensor) -> Tensor {
        match self.kind {
            Kind::Attn => self.state.expand_as(&out),
            _ => out,
        }
    }

    fn mlp(&mut self, _layer: usize, out: Tensor) -> Tensor {
        match self.kind {
            Kind::Mlp => self.state.expand_as(&out),
            _ => out,
        }
    }
}

/// Overwrites sub-module outputs at the first token of the rows.
pub(super) struct Hold {
    /// The patched run's outputs of a severed sub-module, `[samples, width]`, put into every cell's
    /// rows.
    pub frozen: Option<(Severed, Tensor)>,
    /// The source's output of a sub-module, `[width]`, put into these ranges of rows.
    pub restored: Option<(Kind, Tensor, Vec<Range<i64>>)>,
}

impl Hold {
    fn put(&self, kind: Kind, out: Tensor) -> Tensor {
        let first = out.select(1, 0);
        match &self.frozen {
            Some((Severed::Attn, state)) if kind == Kind::Attn => put(&first, state),
            Some((Severed::Mlp, state)) if kind == Kind::Mlp => put(&first, state),
            _ => {}
        }
        if let Some((restored, state, ranges)) = &self.restored
            && *restored == kind
        {
            for rows in ranges {
                let mut rows = first.narrow(0, rows.start, rows.end - rows.start);
                rows.copy_(state);
            }
        }
        out
    }
}

/// Writes `state`, `[samples, width]`, into every cell of `rows`, `[cells * samples, width]`.
fn put(rows: &Tensor, state: &Tensor) {
    let cells = rows.size()[0] / state.size()[0];
    let mut rows = rows.shallow_clone();
    rows.copy_(&state.repeat([cells, 1]));
}

impl Hook for Hold {
    fn attn(&mut self, _layer: usize, out: Tensor) -> Tensor {
        self.put(Kind::Attn, out)
    }

    fn mlp(&mut self, _layer: usize, out: Tensor) -> Tensor {
        self.put(Kind::Mlp, out)
    }
}
