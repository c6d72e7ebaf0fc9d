//! Which facts of an edit are meant: by their ids, subjects or places.

use std::collections::{HashMap, HashSet};

use super::super::check::shorten;
use super::facts::named;
use crate::proto::v1;
use crate::version::{digest_of, short};

/// Facts that are named where one is not found, or several are.
const NAMED: usize = 3;

/// The places of the facts that are meant, rising. Facts of one key are taken out together: their
/// numbers a column are those of the edit.
///
/// # Errors
/// What is wrong, with the remedy.
pub fn left_out(edit: &v1::Edit, asked: &[String]) -> Result<Vec<u32>, String> {
    let (facts, id) = (edit.requests.len(), short(digest_of(&edit.name)));
    let names = Names::of(edit);
    let mut left_out = HashSet::with_capacity(asked.len());
    for text in asked {
        let fact = names.place(text)?;
        if !left_out.insert(fact) {
            let fact = named(&edit.requests[fact]);
            return Err(format!("{fact} is named twice: name it once"));
        }
    }
    if left_out.len() == facts {
        return Err(format!(
            "these are all {facts} facts of edit {id}: 'palimpsest revert {id}' takes the whole of it out"
        ));
    }
    let mut first = 0;
    for &size in &edit.columns {
        let end = first + size as usize;
        let (out, stays): (Vec<usize>, Vec<usize>) =
            (first..end).partition(|fact| left_out.contains(fact));
        if !out.is_empty() && !stays.is_empty() {
            return Err(format!(
                "{} shares its key, and so its change, with {}: name all of them or none",
                names.list(&out),
                names.list(&stays)
            ));
        }
        first = end;
    }
    let mut left_out: Vec<u32> = left_out.into_iter().map(|fact| fact as u32).collect();
    left_out.sort_unstable();
    Ok(left_out)
}

/// What the facts of an edit are called.
struct Names<'a> {
    edit: &'a v1::Edit,
    by_id: HashMap<&'a str, usize>,
    by_subject: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Names<'a> {
    fn of(edit: &'a v1::Edit) -> Self {
        let mut by_id = HashMap::new();
        let mut by_subject: HashMap<&str, Vec<usize>> = HashMap::new();
        for (n, fact) in edit.requests.iter().enumerate() {
            if let Some(id) = &fact.id {
                by_id.entry(id.as_str()).or_insert(n);
            }
            by_subject.entry(fact.subject.trim()).or_default().push(n);
        }
        Self {
            edit,
            by_id,
            by_subject,
        }
    }

    /// The fact that a text means: by its id; by `#` and its place; by its subject; by its place
    /// alone where no fact has an id.
    fn place(&self, text: &str) -> Result<usize, String> {
        if let Some(found) = self.by_id.get(text) {
            return Ok(*found);
        }
        let facts = self.edit.requests.len();
        let number = |text: &str| text.parse().ok().filter(|&number| number < facts);
        if let Some(found) = text.strip_prefix('#').and_then(number) {
            return Ok(found);
        }
        match self.by_subject.get(text.trim()).map(Vec::as_slice) {
            Some([one]) => return Ok(*one),
            Some(several) => {
                return Err(format!(
                    "{} facts are of the subject '{}': say which by its id or place, {}",
                    several.len(),
                    shorten(text),
                    self.list(several)
                ));
            }
            None => {}
        }
        if self.by_id.is_empty()
            && let Some(found) = number(text)
        {
            return Ok(found);
        }
        Err(self.unknown(text))
    }

    /// Facts, each with its place.
    fn list(&self, facts: &[usize]) -> String {
        let name = |&fact: &usize| format!("#{fact} {}", named(&self.edit.requests[fact]));
        let mut names: Vec<String> = facts.iter().take(NAMED).map(name).collect();
        if facts.len() > NAMED {
            names.push(format!("{} more", facts.len() - NAMED));
        }
        names.join(", ")
    }

    fn unknown(&self, text: &str) -> String {
        let facts = &self.edit.requests;
        let id = short(digest_of(&self.edit.name));
        let asked = pairs(text);
        let mut near: Vec<(f64, usize)> = (facts.iter().enumerate())
            .map(|(n, fact)| {
                let of_id = fact.id.as_deref().map_or(0.0, |id| alike(&asked, id));
                (of_id.max(alike(&asked, &fact.subject)), n)
            })
            .collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let near: Vec<usize> = near.into_iter().take(NAMED).map(|(_, n)| n).collect();
        format!(
            "'{}' is no fact of edit {id}, which has {}: give the id, the subject or the place of one, \
             which 'palimpsest show {id}' lists; such as {}",
            shorten(text),
            facts.len(),
            self.list(&near)
        )
    }
}

/// The pairs of letters of a name.
fn pairs(text: &str) -> HashSet<(char, char)> {
    let letters: Vec<char> = text.to_lowercase().chars().collect();
    letters.windows(2).map(|pair| (pair[0], pair[1])).collect()
}

/// How many pairs of letters two names share, of as many as they have: 0 to 1.
fn alike(asked: &HashSet<(char, char)>, name: &str) -> f64 {
    let name = pairs(name);
    let shared = asked.intersection(&name).count();
    2.0 * shared as f64 / (asked.len() + name.len()).max(1) as f64
}
