//! Key statistics: a unit is a piece of a corpus. When all are summed up, a unit a layer adds the
//! sums of the pieces, in their order.

use std::mem::take;

use super::check::{corpus, dtype, short_text};
use super::{Found, Items, Stage, Work, Wrong, estimated_tokens};
use crate::objects::Digest;
use crate::proto::v1::{self, leased_unit::Spec as Unit, unit_result::Outcome};
use crate::stats::MOST_DRAWN;

/// Most bytes of a corpus in one piece.
const RANGE_LIMIT: u64 = 16 << 20;
/// What a worker fetches for itself counts this part of it: a task has up to 4 MiB of a corpus.
const FETCHED: u64 = 4;
/// Most layers of one job; no model has as many.
const LAYERS_LIMIT: usize = 1000;
/// Longest text that says where a corpus came from.
const SOURCE_LIMIT: usize = 1000;
/// The stage of the pieces, by its number.
const PIECES: u32 = 0;

impl Work for v1::StatsSpec {
    fn units_word(&self) -> &'static str {
        "pieces"
    }

    fn take_parts(&mut self) -> Items {
        Items::of(&Self {
            pieces: take(&mut self.pieces),
            ..Default::default()
        })
    }

    fn put_parts(&mut self, items: &Items) {
        self.pieces = items.messages().collect();
    }

    fn has_parts(&self) -> bool {
        !self.pieces.is_empty()
    }

    fn check(&mut self, items: &Items, wrong: &mut Wrong) {
        if items.is_empty() {
            let what = "there are none: give texts, or tokens to draw";
            wrong.say("job.stats.pieces", what);
        }
        for n in 0..items.len() {
            let piece = items.message(n).unwrap_or_default();
            self.check_piece(n, &piece, wrong);
        }
        if let Some(named) = &self.corpus {
            corpus("job.stats.corpus", named, wrong);
        }
        short_text("job.stats.source", &self.source, SOURCE_LIMIT, wrong);
        self.layers.sort_unstable();
        self.layers.dedup();
        if self.layers.is_empty() {
            wrong.say("job.stats.layers", "there are none: give at least one");
        } else if self.layers.len() > LAYERS_LIMIT {
            let what = format_args!("there are {}: {LAYERS_LIMIT} at most", self.layers.len());
            wrong.say("job.stats.layers", what);
        }
        if self.length == 0 {
            self.length = 256;
        }
        dtype(&mut self.dtype, wrong);
    }

    fn corpus(&self) -> Option<(&'static str, &v1::Corpus)> {
        Some(("job.stats.corpus", self.corpus.as_ref()?))
    }

    fn stages(&self, _version: &str, items: &Items) -> Vec<Stage> {
        let pieces = items.len() as u64;
        vec![
            Stage::new("pieces", 0..pieces),
            Stage {
                hidden: true,
                ..Stage::new("sums", pieces..pieces + self.layers.len() as u64)
            },
        ]
    }

    fn cost(&self, items: &Items, unit: u64, shape: &v1::model::Shape) -> f64 {
        match items.message(unit as usize) {
            Some(piece) => piece_tokens(&piece) * shape.parameters as f64,
            // A sum of matrices, each some four widths wide: bound by the reading of them.
            None => 16.0 * f64::from(shape.width).powi(2) * items.len() as f64,
        }
    }

    fn size(&self, items: &Items, unit: u64) -> usize {
        let piece: v1::StatsUnit = items.message(unit as usize).unwrap_or_default();
        // A worker fetches the texts of a lease and holds them.
        let elsewhere = piece.range.map_or(0, |range| range.length / FETCHED);
        let own = items.get(unit as usize).map_or(0, <[u8]>::len);
        own + usize::try_from(elsewhere).unwrap_or(RANGE_LIMIT as usize)
    }

    fn dtype(&self) -> v1::Dtype {
        self.dtype()
    }

    fn unit(&self, _version: &str, items: &Items, unit: u64) -> Option<Unit> {
        let pieces = items.len() as u64;
        Some(match items.message(unit as usize) {
            Some(piece) => Unit::Stats(piece),
            None => Unit::StatsSum(v1::StatsSumUnit {
                layer: *self.layers.get((unit - pieces) as usize)?,
                pieces: Some(v1::UnitRange {
                    stage: PIECES,
                    first_unit: 0,
                    units: pieces,
                }),
            }),
        })
    }

    fn settings(&self, _found: &Found) -> v1::lease::Settings {
        v1::lease::Settings::Stats(Self {
            pieces: Vec::new(),
            ..self.clone()
        })
    }

    // What they hold lies in objects that nothing else keeps: they answer no other job.

    fn accept(
        &self,
        items: &Items,
        unit: u64,
        outcome: &Outcome,
        _shape: &v1::model::Shape,
    ) -> Result<(), String> {
        let stored = |digest: &str| match digest.parse::<Digest>() {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("its sum lies in no object: {error}")),
        };
        let pieces = items.len() as u64;
        match outcome {
            Outcome::StatsShard(shard) if unit < pieces => {
                let layers = shard.sums.iter().map(|sum| sum.layer);
                if !layers.eq(self.layers.iter().copied()) {
                    return Err("it has not one sum for every layer, in order".to_owned());
                }
                shard.sums.iter().try_for_each(|sum| stored(&sum.digest))
            }
            Outcome::StatsSum(sum) if unit >= pieces => {
                if self.layers.get((unit - pieces) as usize) != Some(&sum.layer) {
                    return Err(format!("layer {} is not the one it is of", sum.layer));
                }
                stored(&sum.digest)
            }
            _ => Err("it is no sum of key statistics of this stage".to_owned()),
        }
    }
}

impl v1::StatsSpec {
    fn check_piece(&self, n: usize, piece: &v1::StatsUnit, wrong: &mut Wrong) {
        let ways = [
            !piece.documents.is_empty(),
            piece.self_sample > 0,
            piece.range.is_some(),
        ];
        if ways.into_iter().filter(|&way| way).count() != 1 {
            let what = "give texts, where they lie, or tokens to draw from the model: one of these";
            wrong.say(format_args!("job.stats.pieces[{n}]"), what);
        }
        if piece.self_sample > MOST_DRAWN {
            let what = format_args!(
                "{} tokens are too many for one piece: {MOST_DRAWN} at most, give more pieces",
                piece.self_sample
            );
            wrong.say(format_args!("job.stats.pieces[{n}].self_sample"), what);
        }
        if let Some(range) = &piece.range
            && let Err(what) = part_of(range, self.corpus.as_ref())
        {
            wrong.say(format_args!("job.stats.pieces[{n}].range"), what);
        }
    }
}

/// Whether a range is a part of the corpus, and no more than a worker reads at a time.
fn part_of(range: &v1::stats_unit::Range, corpus: Option<&v1::Corpus>) -> Result<(), String> {
    let Some(corpus) = corpus else {
        return Err("there is no corpus that it is of: name it in job.stats.corpus".to_owned());
    };
    let end = range.offset.checked_add(range.length);
    if end.is_none_or(|end| end > corpus.size) {
        return Err(format!(
            "{} bytes from {} on end behind the corpus, which has {}",
            range.length, range.offset, corpus.size
        ));
    }
    if range.length == 0 || range.length > RANGE_LIMIT {
        return Err(format!("{} bytes: give 1 to {RANGE_LIMIT}", range.length));
    }
    match range.digest.parse::<Digest>() {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Tokens of a piece of a corpus; those drawn from the model are computed twice.
fn piece_tokens(piece: &v1::StatsUnit) -> f64 {
    let texts = piece.documents.iter().map(|text| estimated_tokens(text));
    let range = piece.range.as_ref().map_or(0, |range| range.length);
    texts.sum::<f64>() + range as f64 / 4.0 + 2.0 * piece.self_sample as f64
}
