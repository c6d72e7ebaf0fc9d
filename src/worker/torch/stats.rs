//! Statistics units: pieces of a corpus through the model, and the sums over them.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use super::super::engine::Sink;
use super::super::prepare::Prepared;
use super::units::{Kind, Stopped, mixed};
use crate::model::Model;
use crate::proto::v1::unit_result::Outcome;
use crate::proto::v1::{self, leased_unit::Spec as Unit};
use crate::stats::{Collector, Error, Moment, Spectrum, pieces, self_sample};

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        match error {
            Error::Cancelled => Stopped::Cancelled,
            error => Stopped::Unit(error.to_string()),
        }
    }
}

/// The pieces of a lease.
pub(super) struct Collection<'a> {
    pub model: &'a Model,
    pub spec: &'a v1::StatsSpec,
    pub ready: &'a Prepared,
}

impl Collection<'_> {
    /// The sums over the keys of a unit's texts, each stored as an object.
    fn shard(
        &self,
        unit: u64,
        asked: &v1::StatsUnit,
        sink: &mut dyn Sink,
    ) -> Result<v1::StatsShard, Stopped> {
        let layers: Vec<usize> = (self.spec.layers.iter())
            .map(|&layer| layer as usize)
            .collect();
        let length = self.spec.length as usize;
        let mut collector = Collector::new(self.model, &layers)?;
        let mut drawn = Vec::new();
        if asked.self_sample > 0 {
            drawn = self_sample(self.model, asked.self_sample, length, asked.seed, || {
                sink.advance(1);
                !sink.cancelled()
            })?;
        }
        let is_drawn = !drawn.is_empty();
        let mut passed = |tokens: usize| {
            // Of texts that are drawn the drawing was counted.
            sink.advance(if is_drawn { 0 } else { tokens as u64 });
            !sink.cancelled()
        };
        for text in drawn {
            collector.add(&text, &mut passed)?;
        }
        let documents = self.ready.documents.get(&unit).unwrap_or(&asked.documents);
        for document in documents {
            for piece in pieces(self.model, document, length)? {
                collector.add(&piece, &mut passed)?;
            }
        }
        let moments = collector.finish(&mut passed)?;
        let mut tokens = 0;
        let mut sums = Vec::with_capacity(layers.len());
        for (&layer, moment) in layers.iter().zip(moments) {
            let file = moment.to_npz().map_err(Stopped::transient)?;
            tokens = moment.count();
            sums.push(v1::stats_shard::Sum {
                layer: layer as u32,
                size: file.len() as u64,
                digest: sink.put(&file).map_err(Stopped::Here)?,
            });
        }
        Ok(v1::StatsShard { tokens, sums })
    }
}

/// The sum of a layer over the pieces, added in their order: the same bytes every time. One file is
/// read at a time: a sum of a large model takes gigabytes.
fn sum(layer: u32, files: &[PathBuf], sink: &mut dyn Sink) -> Result<v1::StatsSum, Stopped> {
    let moments = files.iter().map(|file| {
        if sink.cancelled() {
            return Err(Stopped::Cancelled);
        }
        let file = File::open(file).map_err(Stopped::transient)?;
        let moment = Moment::from_npz(BufReader::new(file)).map_err(Stopped::transient)?;
        sink.advance(moment.count());
        Ok(moment)
    });
    let total = Moment::merged(moments)?;
    let total = total.ok_or_else(|| Stopped::transient("there is nothing to add up"))?;
    let spectrum = Spectrum::of(&total)?;
    let file = total.to_npz().map_err(Stopped::transient)?;
    Ok(v1::StatsSum {
        layer,
        tokens: total.count(),
        channels: total.size() as u32,
        size: file.len() as u64,
        digest: sink.put(&file).map_err(Stopped::Here)?,
        spectrum: Some(v1::KeySpectrum {
            trace: spectrum.trace,
            largest: spectrum.largest,
            smallest: spectrum.smallest,
            effective_rank: spectrum.effective_rank,
            rank: spectrum.rank as u32,
            rank_99: spectrum.rank_99 as u32,
        }),
    })
}

impl Kind for Collection<'_> {
    fn compute(
        &mut self,
        units: &[v1::LeasedUnit],
        sink: &mut dyn Sink,
    ) -> Result<Vec<Outcome>, Stopped> {
        match &units[0].spec {
            Some(Unit::Stats(asked)) => {
                let shard = self.shard(units[0].unit, asked, sink)?;
                Ok(vec![Outcome::StatsShard(shard)])
            }
            Some(Unit::StatsSum(asked)) => {
                let files = self.ready.sums.get(&units[0].unit);
                let files = files.map_or(&[][..], Vec::as_slice);
                let sum = sum(asked.layer, files, sink)?;
                Ok(vec![Outcome::StatsSum(sum)])
            }
            _ => Err(mixed(&units[0])),
        }
    }
}
