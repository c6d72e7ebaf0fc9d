//! What units of a mass edit name and carry: their facts, in words, and numbers as they travel.

use std::cell::RefCell;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use tch::{Device, Kind as Dtype, Tensor};

use super::super::engine::Sink;
use super::units::Stopped;
use crate::edit::{self, Error, Request, Step};
use crate::proto::v1;
use crate::stats::Moment;
use crate::text::cut;

/// Most bytes of a fact's text in a message.
const NAME_BYTES: usize = 160;

/// Most facts, or pairs of them, that warnings name.
pub(super) const NAMED: usize = 3;

/// The facts of a unit.
pub(super) fn requests(asked: &v1::MassEditUnit) -> impl Iterator<Item = Request> {
    let requests = asked.tasks.iter().filter_map(|task| task.request.clone());
    requests.map(Request::from)
}

pub(super) fn first_request(asked: &v1::MassEditUnit) -> Result<Request, Stopped> {
    let first = requests(asked).next();
    first.ok_or_else(|| Stopped::transient("the unit has no fact"))
}

/// A fact as messages name it.
pub(super) fn name_of(task: &v1::EditTask) -> String {
    let request = task.request.clone().unwrap_or_default();
    let id = request.id.clone().map_or(String::new(), |id| {
        format!("record {}, ", cut(&id, NAME_BYTES))
    });
    let text = Request::from(request).text();
    format!("{id}{:?}", cut(&text, NAME_BYTES))
}

/// What became of a fact of an earlier edit, in words.
pub(super) fn in_words(fact: &v1::OverwrittenFact) -> Option<String> {
    let task = v1::EditTask {
        request: fact.request.clone(),
        ..Default::default()
    };
    let (before, after) = fact.before.zip(fact.after)?;
    let brief = fact.edit.rsplit('/').next().unwrap_or_default();
    let target = task.request.as_ref().map_or("", |it| &it.target_new).trim();
    Some(format!(
        "{} overwrites {} of edit {}: the probability of {target:?} goes from {before:.3} to {after:.3}",
        fact.by,
        name_of(&task),
        brief.get(..12).unwrap_or(brief)
    ))
}

/// An error with the fact that it is of.
pub(super) fn of_fact(error: Error, asked: &v1::MassEditUnit) -> Stopped {
    match (Stopped::from(error), asked.tasks.first()) {
        (Stopped::Unit(what), Some(task)) => Stopped::Unit(format!("{}: {what}", name_of(task))),
        (other, _) => other,
    }
}

/// Numbers as they travel: little-endian singles.
pub(super) fn bytes(numbers: &Tensor) -> Result<Vec<u8>, Stopped> {
    let numbers = numbers.to_kind(Dtype::Float).to_device(Device::Cpu);
    let numbers = Vec::<f32>::try_from(&numbers.contiguous().view([-1])).map_err(Error::from)?;
    Ok(numbers
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect())
}

/// Numbers that travelled, in float64.
pub(super) fn tensor(bytes: &[u8]) -> Tensor {
    let numbers: Vec<f32> = (bytes.as_chunks::<4>().0.iter())
        .map(|number| f32::from_le_bytes(*number))
        .collect();
    Tensor::from_slice(&numbers).to_kind(Dtype::Double)
}

/// Some rows of numbers that are stored row by row, `[rows, numbers]` in float64.
pub(super) fn rows(bytes: &[u8], numbers: i64, which: &[u32]) -> Result<Tensor, Stopped> {
    let all = tensor(bytes);
    let count = all.size()[0].checked_div(numbers).unwrap_or_default();
    let wrong = which.iter().any(|&row| i64::from(row) >= count);
    if all.size()[0] != count * numbers || wrong {
        return Err(Stopped::Unit(format!(
            "what the edit keeps has {} numbers: no rows of {numbers}, or too few of them",
            all.size()[0]
        )));
    }
    let which: Vec<i64> = which.iter().map(|&row| i64::from(row)).collect();
    Ok(all
        .view([count, numbers])
        .index_select(0, &Tensor::from_slice(&which)))
}

/// The key statistics of a layer that a lease names, in a file on this machine.
pub(super) struct Statistics<'a> {
    path: &'a Path,
    digest: &'a str,
    pub layer: usize,
    /// Channels of a key.
    pub channels: usize,
    /// Keys that they are of.
    pub tokens: u64,
}

impl<'a> Statistics<'a> {
    pub fn of(
        path: Option<&'a Path>,
        spec: &'a v1::MassEditSpec,
        layer: usize,
    ) -> Result<Self, Stopped> {
        let none = || unreadable("the lease names none");
        let path = path.ok_or_else(none)?;
        let mut named = spec.statistics.iter();
        let named = named.find(|one| one.layer as usize == layer);
        let file = File::open(path).map_err(unreadable)?;
        let (channels, tokens) = Moment::measure(BufReader::new(file)).map_err(unreadable)?;
        Ok(Self {
            path,
            digest: named.map_or("", |named| named.digest.as_str()),
            layer,
            channels,
            tokens,
        })
    }

    /// Reads them.
    pub fn moment(&self) -> Result<Moment, Stopped> {
        let file = File::open(self.path).map_err(unreadable)?;
        Moment::from_npz(BufReader::new(file)).map_err(unreadable)
    }

    /// The name under which something that is made of them is kept. The number of threads and the
    /// library decide the last bits.
    pub fn name(&self, what: &str, made_by: &v1::Fingerprint) -> String {
        let v1::Fingerprint {
            device,
            threads,
            libtorch,
            ..
        } = made_by;
        let digest = self.digest;
        format!("{what} of the mean of {digest}; {device}, {threads} threads, libtorch {libtorch}")
    }
}

fn unreadable(what: impl ToString) -> Stopped {
    let what = what.to_string();
    Stopped::transient(format!("the key statistics cannot be read: {what}"))
}

/// Tells a sink of an optimisation's steps.
pub(super) struct Watched<'a>(RefCell<&'a mut dyn Sink>);

impl<'a> Watched<'a> {
    pub fn new(sink: &'a mut dyn Sink) -> Self {
        Self(RefCell::new(sink))
    }
}

impl edit::Watch for Watched<'_> {
    fn cancelled(&self) -> bool {
        self.0.borrow().cancelled()
    }

    fn step(&self, _step: &Step) {
        self.0.borrow_mut().advance(1);
    }
}
