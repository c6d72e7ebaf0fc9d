//! What mass edits keep, so that facts can be taken out of them, and edits without some facts.

use tch::Tensor;

use super::super::engine::Sink;
use super::mass_edit::MassEdits;
use super::mass_figures::named;
use super::mass_parts::{bytes, rows};
use super::units::Stopped;
use crate::edit::Method;
use crate::objects::Digest;
use crate::proto::v1::unit_result::Outcome;
use crate::proto::v1::{self, mass_edit_spec::Without};
use crate::version::Factor;

impl MassEdits<'_> {
    /// The changes of a matrix in the lease's version, in order, with one more; or with this one in
    /// the place of that of the edit of which facts are taken out.
    pub(super) fn with_change<'b>(
        &'b self,
        change: &'b Factor,
    ) -> Result<Vec<(Digest, &'b Factor)>, Stopped> {
        let mut with = self.ready.version.on(&change.tensor);
        let one = (Digest::of(&change.data()), change);
        let Some(without) = &self.spec.without else {
            with.push(one);
            return Ok(with);
        };
        let mut factors = without.factors.iter();
        let old = factors.find(|it| it.tensor_name == change.tensor);
        let old = old.and_then(|it| it.digest.parse::<Digest>().ok());
        let place = with.iter().position(|(digest, _)| Some(*digest) == old);
        let place = place.ok_or_else(|| {
            Stopped::transient(format!(
                "the version has no change of {} by {}",
                change.tensor, without.edit
            ))
        })?;
        with[place] = one;
        Ok(with)
    }

    /// The columns that stay of what an edit keeps of a layer: keys and residuals, one a column.
    pub(super) fn kept_columns(
        &self,
        asked: &v1::MassEditUnit,
        layer: usize,
    ) -> Result<(Tensor, Tensor), Stopped> {
        let size = self.model().down_projection(layer).size();
        let kept = &self.ready.mass.replaced;
        let columns = |bytes: &[u8], numbers: i64| -> Result<Tensor, Stopped> {
            let rows = rows(bytes, numbers, &asked.columns)?;
            Ok(rows.tr().contiguous().to_device(self.device))
        };
        Ok((
            columns(&kept.keys, size[1])?,
            columns(&kept.residuals, size[0])?,
        ))
    }

    /// What an edit keeps of a layer: what it was solved from, where it is of several columns; and
    /// where facts are taken out, the others' keys that later edits leave alone.
    pub(super) fn kept(
        &self,
        asked: &v1::MassEditUnit,
        factor: &v1::LowRankFactor,
        (keys, missing): (&Tensor, &Tensor),
        sink: &mut dyn Sink,
    ) -> Result<(Option<v1::EditSolve>, Option<v1::EditKeys>), Stopped> {
        let columns = keys.size()[1] as u32;
        // ENCORE's are those that it is solved for.
        let solved_for = self.spec.without.is_some() && self.method == Method::Encore;
        let mut put = |rows: &Tensor| -> Result<String, Stopped> {
            sink.put(&bytes(rows)?).map_err(Stopped::Here)
        };
        let read = match columns > 1 || solved_for {
            true => put(&keys.tr())?,
            false => String::new(),
        };
        let protected = match &self.ready.mass.replaced.protected {
            _ if solved_for => Some(read.clone()),
            Some(protected) => Some(put(&rows(protected, keys.size()[0], &asked.columns)?)?),
            None => None,
        };
        let protected = protected.map(|digest| v1::EditKeys {
            tensor_name: factor.tensor_name.clone(),
            layer: factor.layer,
            inner: factor.inner,
            columns,
            digest,
        });
        if columns == 1 {
            // It stays whole.
            return Ok((None, protected));
        }
        let solve = v1::EditSolve {
            tensor_name: factor.tensor_name.clone(),
            layer: factor.layer,
            width: factor.width,
            inner: factor.inner,
            columns,
            keys: read,
            residuals: put(&missing.tr())?,
        };
        Ok((Some(solve), protected))
    }

    /// The units of a range whose results are not failures, by their places in it.
    pub(super) fn read_places(&self, range: &v1::UnitRange) -> Vec<u32> {
        let units = range.first_unit..range.first_unit + range.units;
        let failed = |unit: &u64| {
            let result = self.ready.mass.results.get(unit);
            matches!(result, Some(Outcome::Failure(_)))
        };
        let places = (0..).zip(units).filter(|(_, unit)| !failed(unit));
        places.map(|(place, _)| place).collect()
    }

    /// How many facts each column is of, of those that the edit has; none where the layers were
    /// solved for different facts.
    ///
    /// `has` says of each fact of the unit whether the edit has it.
    pub(super) fn facts_of_columns(
        &self,
        asked: &v1::MassEditUnit,
        solved: &[&v1::MassEditSolved],
        has: &[bool],
    ) -> Vec<u32> {
        let Some(first) = solved.first() else {
            return Vec::new();
        };
        if solved.iter().any(|it| it.groups != first.groups) {
            return Vec::new();
        }
        let firsts = &asked.columns;
        let of_group = |group: usize| {
            let start = firsts.get(group).map_or(has.len(), |&it| it as usize);
            let end = firsts.get(group + 1).map_or(has.len(), |&it| it as usize);
            let facts = has.get(start..end).unwrap_or_default();
            facts.iter().filter(|has| **has).count() as u32
        };
        match first.groups.is_empty() {
            true => (0..firsts.len()).map(of_group).collect(),
            false => (first.groups.iter().map(|&group| group as usize))
                .map(of_group)
                .collect(),
        }
    }
}

/// The measured facts that an edit has, and those that are taken out of it.
pub(super) fn parted<'a>(
    facts: Vec<&'a v1::MassEditFact>,
    without: Option<&Without>,
) -> (Vec<&'a v1::MassEditFact>, Vec<&'a v1::MassEditFact>) {
    let is_out = |n: u32| without.is_some_and(|it| it.left_out.binary_search(&n).is_ok());
    let (mut kept, mut left_out) = (Vec::with_capacity(facts.len()), Vec::new());
    for (n, fact) in (0..).zip(facts) {
        match is_out(n) {
            true => left_out.push(fact),
            false => kept.push(fact),
        }
    }
    (kept, left_out)
}

/// What became of the facts that are taken out: the mean probabilities of their targets after the
/// rewritten prompts. And how long the changes of the layers were before.
pub(super) fn of_left_out(
    facts: &[&v1::MassEditFact],
    without: Option<&Without>,
) -> Vec<v1::NamedNumber> {
    let mut figures = Vec::new();
    let Some(without) = without else {
        return figures;
    };
    figures.push(named(("left_out.facts", facts.len() as f64)));
    type Number = fn(&v1::EditProbe) -> Option<f64>;
    let numbers: [(&str, Number); 4] = [
        ("left_out.new.before", |it| Some(it.new_before)),
        ("left_out.new.after", |it| Some(it.new_after)),
        ("left_out.true.before", |it| it.true_before),
        ("left_out.true.after", |it| it.true_after),
    ];
    for (name, number) in numbers {
        let probes = facts.iter().flat_map(|fact| &fact.probes);
        let rewrites = probes.filter(|probe| probe.kind() == v1::EditProbeKind::Rewrite);
        let found: Vec<f64> = rewrites.filter_map(number).collect();
        if !found.is_empty() {
            figures.push(named((
                name,
                found.iter().sum::<f64>() / found.len() as f64,
            )));
        }
    }
    let norms = without.figures.iter();
    let norms = norms.filter(|it| it.key.ends_with(".norm") || it.key.ends_with(".relative_norm"));
    figures.extend(norms.map(|it| v1::NamedNumber {
        key: format!("{}.before", it.key),
        value: it.value,
    }));
    figures
}
