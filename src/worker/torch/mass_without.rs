//! What mass edits keep, so that facts can be taken out of them, and edits without some facts.

use tch::Tensor;

use super::super::engine::Sink;
use super::mass_edit::MassEdits;
use super::mass_parts::{bytes, rows};
use super::units::Stopped;
use crate::edit::Method;
use crate::objects::Digest;
use crate::proto::v1;
use crate::proto::v1::unit_result::Outcome;
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
        let size = self.model().down_projection(layer)?.size();
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
