//! The units of a statistics lease: pieces of a corpus through the model.

use super::super::engine::{Sink, failure, result};
use crate::model::Model;
use crate::proto::v1::unit_result::Outcome;
use crate::proto::v1::{self, FailureClass, leased_unit::Spec};
use crate::stats::{Collector, Error, pieces, self_sample};

/// Sums up the keys of every unit's texts.
pub(super) fn run(
    model: &Model,
    lease: &v1::Lease,
    spec: &v1::StatsSpec,
    fingerprint: &v1::Fingerprint,
    sink: &mut dyn Sink,
) -> Result<(), v1::Failure> {
    for unit in &lease.units {
        let Some(Spec::Stats(asked)) = &unit.spec else {
            continue;
        };
        let outcome = match shard(model, spec, asked, sink) {
            Ok(shard) => Outcome::StatsShard(shard),
            Err(Stopped::Cancelled) => break,
            Err(Stopped::Here(failure)) => return Err(failure),
            Err(Stopped::Unit(error)) => {
                Outcome::Failure(failure(FailureClass::Invalid, error.to_string()))
            }
        };
        sink.commit(result(unit.unit, outcome), fingerprint.clone());
    }
    Ok(())
}

/// Why a unit gave no sums.
enum Stopped {
    Cancelled,
    /// It asks for what cannot be done.
    Unit(Error),
    /// The worker cannot keep them.
    Here(v1::Failure),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        match error {
            Error::Cancelled => Stopped::Cancelled,
            error => Stopped::Unit(error),
        }
    }
}

fn shard(
    model: &Model,
    spec: &v1::StatsSpec,
    asked: &v1::StatsUnit,
    sink: &mut dyn Sink,
) -> Result<v1::StatsShard, Stopped> {
    let layers: Vec<usize> = spec.layers.iter().map(|&layer| layer as usize).collect();
    let length = spec.length as usize;
    let mut collector = Collector::new(model, &layers)?;
    if asked.self_sample > 0 {
        let drawn = self_sample(model, asked.self_sample, length, asked.seed, || {
            sink.advance(1);
            !sink.cancelled()
        })?;
        for text in drawn {
            collector.add(&text)?;
        }
    }
    for document in &asked.documents {
        for piece in pieces(model, document, length)? {
            if sink.cancelled() {
                return Err(Stopped::Cancelled);
            }
            sink.advance(piece.len() as u64);
            collector.add(&piece)?;
        }
    }
    let mut tokens = 0;
    let mut sums = Vec::with_capacity(layers.len());
    for (&layer, moment) in layers.iter().zip(collector.finish()?) {
        let file = moment
            .to_npz()
            .map_err(|error| Stopped::Here(failure(FailureClass::Transient, error.to_string())))?;
        tokens = moment.count();
        sums.push(v1::stats_shard::Sum {
            layer: layer as u32,
            size: file.len() as u64,
            digest: sink.put(&file).map_err(Stopped::Here)?,
        });
    }
    Ok(v1::StatsShard { tokens, sums })
}
