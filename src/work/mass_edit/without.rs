//! Facts that are taken out of an edit of many: what is asked, and which facts of the edit are
//! meant.

use super::super::{Items, Wrong};
use super::chosen::left_out;
use crate::edit::Method;
use crate::proto::v1;
use crate::version::{digest_of, short};

const FIELD: &str = "job.mass_edit.without";
/// Most facts that are named, and bytes of a name.
const FACTS_LIMIT: usize = 100_000;
const NAME_BYTES: usize = 1000;

impl v1::MassEditSpec {
    /// Checks a request that takes facts out: what the edit says already may not be said again.
    pub(super) fn check_without(&mut self, items: &Items, wrong: &mut Wrong) {
        // Ours to say.
        self.groups.clear();
        self.batches.clear();
        let given = [
            ("tasks", !items.is_empty()),
            ("method", !self.method.is_empty()),
            ("layers", !self.layers.is_empty()),
            ("parameters", !self.parameters.is_empty()),
            ("contexts", !self.contexts.is_empty()),
            ("batch", self.batch.is_some()),
            ("loss_layer", self.loss_layer.is_some()),
            ("layer_choice", !self.layer_choice.is_empty()),
            ("seed", self.seed != 0),
            ("keep_going", self.keep_going),
            ("check_only", self.check_only),
            ("statistics_names", !self.statistics_names.is_empty()),
            ("tasks_object", !self.tasks_object.is_empty()),
        ];
        for (field, _) in given.into_iter().filter(|(_, given)| *given) {
            let what = "facts are taken out of an edit as it was computed: leave it out";
            wrong.say(format_args!("job.mass_edit.{field}"), what);
        }
        let Some(without) = &mut self.without else {
            return;
        };
        without.shorten();
        if without.edit.is_empty() {
            wrong.say(format_args!("{FIELD}.edit"), "it is missing: name the edit");
        }
        let field = format!("{FIELD}.facts");
        if without.facts.is_empty() {
            wrong.say(&field, "there are none: name the facts that are taken out");
        }
        if without.facts.len() > FACTS_LIMIT {
            let what = format_args!("there are {}: {FACTS_LIMIT} at most", without.facts.len());
            wrong.say(&field, what);
        }
        if let Some(long) = without.facts.iter().find(|it| it.len() > NAME_BYTES) {
            let what = format_args!("one has {} bytes: {NAME_BYTES} at most", long.len());
            wrong.say(&field, what);
        }
    }

    /// Fills in what the edit says, of whose facts some are taken out.
    ///
    /// # Errors
    /// The field that is wrong, with the remedy.
    pub fn take_from(&mut self, edit: &v1::Edit) -> Result<Items, (String, String)> {
        let asked = self.without.take().unwrap_or_default();
        can_be_parted(edit).map_err(|what| (format!("{FIELD}.edit"), what))?;
        let left_out =
            left_out(edit, &asked.facts).map_err(|what| (format!("{FIELD}.facts"), what))?;
        let firsts = edit.columns.iter();
        self.groups = firsts
            .scan(0, |next, size| Some(std::mem::replace(next, *next + size)))
            .collect();
        self.batches = vec![0];
        self.method.clone_from(&edit.method);
        self.layers = edit.solves.iter().map(|solve| solve.layer).collect();
        self.parameters.clone_from(&edit.parameters);
        self.contexts.clone_from(&edit.contexts);
        self.seed = edit.seed.unwrap_or_default();
        self.layer_choice.clone_from(&edit.layer_choice);
        let strip = |factor: &v1::LowRankFactor| v1::LowRankFactor {
            data: Vec::new(),
            ..factor.clone()
        };
        self.without = Some(v1::mass_edit_spec::Without {
            left_out,
            solves: edit.solves.clone(),
            keys: edit.keys.clone(),
            factors: edit.factors.iter().map(strip).collect(),
            based_on: edit.based_on.clone(),
            figures: edit
                .figures
                .iter()
                .filter(|it| it.key.starts_with("layer."))
                .cloned()
                .collect(),
            ..asked
        });
        let task = |request: &v1::EditRequest| v1::EditTask {
            request: Some(request.clone()),
            ..Default::default()
        };
        Ok(Items::of(&Self {
            tasks: edit.requests.iter().map(task).collect(),
            ..Default::default()
        }))
    }
}

impl v1::mass_edit_spec::Without {
    /// Leaves what was asked, but for the many facts of it in lists.
    pub(super) fn shorten(&mut self) {
        self.left_out.clear();
        self.solves.clear();
        self.keys.clear();
        self.factors.clear();
        self.figures.clear();
    }
}

/// Says why an edit cannot be computed again without some of its facts, with the remedy. What it
/// keeps is looked at here: it may come from another store.
fn can_be_parted(edit: &v1::Edit) -> Result<(), String> {
    let id = short(digest_of(&edit.name));
    let whole = format!("'palimpsest revert {id}' takes the whole of it out");
    let facts = edit.requests.len();
    let method = edit.method.parse::<Method>().ok();
    if facts == 1 {
        return Err(format!("edit {id} is of one fact: {whole}"));
    }
    if !method.is_some_and(Method::is_mass) {
        return Err(format!(
            "edit {id} is by '{}', and not by a method that writes many facts at once and keeps what it \
             solved from: {whole}",
            edit.method
        ));
    }
    if edit.columns.len() == 1 {
        return Err(format!(
            "all {facts} facts of edit {id} share one key, and so one change: {whole}"
        ));
    }
    if edit.solves.is_empty() {
        return Err(format!(
            "edit {id} keeps no keys and residuals, from which it could be computed again: it was made by \
             an earlier version of the program, or came from a file; {whole}, and its other facts can \
             then be written again"
        ));
    }
    let layers = edit.factors.iter().map(|it| (it.layer, &it.tensor_name));
    let solves = edit.solves.iter().map(|it| (it.layer, &it.tensor_name));
    let counts = edit.solves.iter().map(|it| it.columns);
    let mut counts = counts.chain(edit.keys.iter().map(|it| it.columns));
    let of_columns: u64 = edit.columns.iter().map(|&it| u64::from(it)).sum();
    let all_keys = !method.is_some_and(Method::keeps_keys) || edit.keys.len() == edit.solves.len();
    if !layers.eq(solves)
        || of_columns != facts as u64
        || !counts.all(|count| count as usize == edit.columns.len())
        || !all_keys
    {
        return Err(format!(
            "edit {id} does not say which of its facts have which keys: {whole}"
        ));
    }
    Ok(())
}
