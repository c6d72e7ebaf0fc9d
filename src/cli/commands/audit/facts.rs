//! `palimpsest audit facts`: every fact that the edits of a version wrote is asked again on it.
//!
//! What is asked are evaluations, jobs like others: what one of them measured is not measured again,
//! and a command that was stopped goes on when it is given again.
//!
//! A fact is *superseded* where a later edit of the version wrote the same sentence, which is not
//! asked. Any other *holds* if the new object is likelier than the true one or, where no true one is
//! known, if each of its tokens is the likeliest. One that does not hold on the version that its own
//! edit made *never held*. Else it is *broken*: among the versions on the way from there, halving
//! finds one on which it does not hold, and which was made from one on which it does. A fact may
//! come and go: there may be others like it.

use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;

use anyhow::bail;
use serde_json::json;

use crate::cli::commands::eval::with_object;
use crate::cli::connection::Connection;
use crate::cli::submit::{self, parse_dtype};
use crate::cli::{follow, names, output, results};
use crate::client::Client;
use crate::plot::table::{Align, Table};
use crate::proto::v1::{self, unit_result::Outcome};
use crate::version::digest_of;

/// How the command ends when some fact does not hold: other than when it fails.
const SOME_DO_NOT_HOLD: u8 = 3;

/// Flags of `audit facts`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model; the only one there is if it is not given
    #[arg(long)]
    model: Option<String>,
    /// The version: a ref, v3, a digest's beginning, main~2
    #[arg(long = "ref", value_name = "VERSION", default_value = "main")]
    version: String,
    /// f32, bf16 or f16
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Do not look for the edits that broke those that do not hold
    #[arg(long)]
    no_blame: bool,
    /// List all facts, not only those that do not hold
    #[arg(long)]
    all: bool,
    /// One JSON object a fact
    #[arg(long)]
    json: bool,
}

/// A fact that an edit of the version wrote.
struct Fact {
    /// The edit, by its digest.
    edit: String,
    request: v1::EditRequest,
    /// The fact that stands in its place now.
    superseded: Option<usize>,
}

/// What a version answers to a fact.
#[derive(Clone, Copy)]
struct Answer {
    /// Probabilities a token.
    new: f64,
    old: Option<f64>,
    holds: bool,
}

/// What became of a fact.
enum State {
    Holds,
    Superseded,
    NeverHeld,
    /// With the place in the history of the version on which it did not hold, where it was looked
    /// for.
    Broken(Option<usize>),
    Unasked(String),
}

impl State {
    fn word(&self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Superseded => "superseded",
            Self::NeverHeld => "never held",
            Self::Broken(_) => "broken",
            Self::Unasked(_) => "not asked",
        }
    }

    fn is_well(&self) -> bool {
        matches!(self, Self::Holds | Self::Superseded)
    }
}

/// Answers to some facts, by their places; why not, for those that cannot be asked.
type Answers = BTreeMap<usize, Result<Answer, String>>;

/// Asks the facts of a version again.
///
/// # Errors
/// What cannot be asked for.
pub(super) async fn audit(args: &Args, connection: &Connection) -> anyhow::Result<ExitCode> {
    let dtype = parse_dtype(&args.dtype)?;
    let client = connection.client();
    let model = names::model(client, args.model.as_deref()).await?;
    let tip = names::get_version(client, &model, &args.version).await?;
    let facts = facts(client, &tip.name).await?;
    if facts.is_empty() {
        say!("{} has no edits: there is nothing to ask", args.version);
        return Ok(ExitCode::SUCCESS);
    }
    let asking = Asking {
        model: &model,
        facts: &facts,
        dtype,
        connection,
    };
    let standing = (0..facts.len()).filter(|&n| facts[n].superseded.is_none());
    let name = format!("facts of {}", args.version);
    let asked = BTreeMap::from([(tip.name.clone(), standing.collect())]);
    let Some(mut found) = asking.ask(asked, &name).await? else {
        return Ok(ExitCode::from(130));
    };
    let now = found.remove(&tip.name).unwrap_or_default();
    let mut history = names::versions(client, &model, Some(&tip.name), usize::MAX).await?;
    history.reverse();
    let blamed = match args.no_blame {
        true => BTreeMap::new(),
        false => match asking.blamed(&history, &now).await? {
            Some(blamed) => blamed,
            None => return Ok(ExitCode::from(130)),
        },
    };
    let states: Vec<State> = (0..facts.len())
        .map(|n| match now.get(&n) {
            None => State::Superseded,
            Some(Err(why)) => State::Unasked(why.clone()),
            Some(Ok(answer)) if answer.holds => State::Holds,
            Some(Ok(_)) => match blamed.get(&n) {
                Some(Blamed::Own) => State::NeverHeld,
                Some(Blamed::Version(at)) => State::Broken(Some(*at)),
                None => State::Broken(None),
            },
        })
        .collect();
    let report = Report {
        facts: &facts,
        states: &states,
        now: &now,
        history: &history,
        by_edit: facts_by_edit(&facts),
    };
    match args.json {
        true => report.json()?,
        false => report.print(args.all)?,
    }
    Ok(match states.iter().all(State::is_well) {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(SOME_DO_NOT_HOLD),
    })
}

/// The facts that the edits of a version wrote, in their order.
async fn facts(client: &Client, version: &str) -> anyhow::Result<Vec<Fact>> {
    let mut facts: Vec<Fact> = Vec::new();
    let take = |edit: v1::Edit| {
        let digest = digest_of(&edit.name).to_owned();
        facts.extend(edit.requests.into_iter().map(|request| Fact {
            edit: digest.clone(),
            request,
            superseded: None,
        }));
        true
    };
    client.each_edit(version, take).await?;
    let mut last: HashMap<String, usize> = HashMap::new();
    for n in (0..facts.len()).rev() {
        let request = &facts[n].request;
        let sentence = request.prompt.replacen("{}", &request.subject, 1);
        match last.get(sentence.trim()) {
            Some(&later) => facts[n].superseded = Some(later),
            None => _ = last.insert(sentence.trim().to_owned(), n),
        }
    }
    Ok(facts)
}

/// The first fact of each edit.
fn facts_by_edit(facts: &[Fact]) -> HashMap<&str, usize> {
    let places = facts.iter().enumerate().rev();
    places.map(|(n, fact)| (fact.edit.as_str(), n)).collect()
}

/// Whom a fact that does not hold is lost by.
enum Blamed {
    /// It did not hold on the version that its own edit made.
    Own,
    /// The place in the history of a version on which it did not hold, after one on which it did.
    Version(usize),
}

/// A fact that does not hold, between a version of the history on which it does and one on which it
/// does not.
struct Lost {
    fact: usize,
    holds: usize,
    lost: usize,
}

/// How facts are asked.
struct Asking<'a> {
    model: &'a str,
    facts: &'a [Fact],
    dtype: v1::Dtype,
    connection: &'a Connection,
}

impl Asking<'_> {
    /// Asks versions facts, the same time those with a true object and those without; none where
    /// the user left.
    async fn ask(
        &self,
        asked: BTreeMap<String, Vec<usize>>,
        name: &str,
    ) -> anyhow::Result<Option<BTreeMap<String, Answers>>> {
        let client = self.connection.client();
        let mut jobs = Vec::new();
        for (version, facts) in asked {
            let known = |&n: &usize| self.facts[n].request.target_true.is_some();
            let (known, others): (Vec<usize>, Vec<usize>) = facts.into_iter().partition(known);
            for (set, facts) in [
                (v1::EvalSet::Counterfact, known),
                (v1::EvalSet::Zsre, others),
            ] {
                if !facts.is_empty() {
                    let job = self.job(&version, set, &facts, name).await?;
                    let job = submit::create(client, submit::request(job)).await?;
                    jobs.push((version.clone(), facts, job.name));
                }
            }
        }
        let mut answers: BTreeMap<String, Answers> = BTreeMap::new();
        for (version, facts, job) in jobs {
            let embedded = self.connection.is_embedded();
            let Some(ended) = follow::to_end(client, &job, embedded).await? else {
                return Ok(None);
            };
            let (_, found) = results::results(client, &ended.name).await?;
            if found.len() != facts.len() {
                bail!("{} was stopped: ask again to go on", ended.name);
            }
            let of_version = answers.entry(version).or_default();
            for result in &found {
                if let Some(&fact) = facts.get(result.unit as usize) {
                    of_version.insert(fact, answer(result));
                }
            }
        }
        Ok(Some(answers))
    }

    /// An evaluation of facts on a version, and on no other.
    async fn job(
        &self,
        version: &str,
        set: v1::EvalSet,
        facts: &[usize],
        name: &str,
    ) -> anyhow::Result<v1::Job> {
        let record = |&n: &usize| v1::EvalRecord {
            request: Some(self.facts[n].request.clone()),
            ..Default::default()
        };
        let spec = v1::EvalSpec {
            records: facts.iter().map(record).collect(),
            set: set as i32,
            against: version.to_owned(),
            dtype: self.dtype as i32,
            ..Default::default()
        };
        let spec = with_object(spec, self.connection.client()).await?;
        Ok(v1::Job {
            model: self.model.to_owned(),
            version: version.to_owned(),
            spec: Some(spec.into()),
            display_name: name.to_owned(),
            priority: submit::sweep_priority(self.connection),
            ..Default::default()
        })
    }

    /// What the facts that do not hold are lost by; none where the user left.
    async fn blamed(
        &self,
        history: &[v1::Version],
        now: &Answers,
    ) -> anyhow::Result<Option<BTreeMap<usize, Blamed>>> {
        let made = made(history);
        let lost = now
            .iter()
            .filter(|(_, answer)| answer.as_ref().is_ok_and(|answer| !answer.holds));
        let mut lost: Vec<Lost> = lost
            .filter_map(|(&fact, _)| {
                let holds = *made.get(self.facts[fact].edit.as_str())?;
                Some(Lost {
                    fact,
                    holds,
                    lost: history.len() - 1,
                })
            })
            .collect();
        let mut blamed = BTreeMap::new();
        // Whether it ever held is asked first.
        let mut at: fn(&Lost) -> usize = |lost| lost.holds;
        loop {
            let mut asked: BTreeMap<String, Vec<usize>> = BTreeMap::new();
            for one in &lost {
                let version = history[at(one)].name.clone();
                asked.entry(version).or_default().push(one.fact);
            }
            if asked.is_empty() {
                return Ok(Some(blamed));
            }
            let Some(found) = self.ask(asked, "what broke a fact").await? else {
                return Ok(None);
            };
            let mut left = Vec::new();
            for one in lost {
                let place = at(&one);
                let answer = found.get(&history[place].name);
                let answer = answer.and_then(|answers| answers.get(&one.fact));
                // A version that gave no answer says nothing of whom it is lost by.
                let Some(Ok(answer)) = answer else { continue };
                let one = match answer.holds {
                    true => Lost {
                        holds: place,
                        ..one
                    },
                    false if place == one.holds => {
                        blamed.insert(one.fact, Blamed::Own);
                        continue;
                    }
                    false => Lost { lost: place, ..one },
                };
                match one.lost - one.holds {
                    0 | 1 => _ = blamed.insert(one.fact, Blamed::Version(one.lost)),
                    _ => left.push(one),
                }
            }
            lost = left;
            at = |lost| lost.holds.midpoint(lost.lost);
        }
    }
}

/// The places in a history of the versions that made its edits, by the edits' digests: the last of
/// each, where one was taken out and written again.
fn made(history: &[v1::Version]) -> HashMap<&str, usize> {
    let adds = |version: &v1::Version| {
        use v1::VersionKind::{CherryPick, Edit, Replace};
        matches!(version.kind(), Edit | CherryPick | Replace)
    };
    let versions = history.iter().enumerate().filter(|(_, it)| adds(it));
    versions
        .map(|(n, it)| (it.subject_edit.as_str(), n))
        .collect()
}

/// What a result says of its fact.
fn answer(result: &v1::UnitResult) -> Result<Answer, String> {
    let measured = match &result.outcome {
        Some(Outcome::Eval(outcome)) => outcome.measured.clone().unwrap_or_default(),
        Some(Outcome::Failure(failure)) => return Err(failure.message.clone()),
        _ => return Err("it came to no answer".to_owned()),
    };
    let asked = measured.answers.first();
    let new = asked.and_then(|it| it.new_object);
    let new = new.ok_or_else(|| "its answer is empty".to_owned())?;
    let old = asked.and_then(|it| it.true_object);
    let probability = |score: v1::EvalScore| (-score.nll).exp();
    Ok(Answer {
        new: probability(new),
        old: old.map(probability),
        holds: match old {
            Some(old) => new.nll < old.nll,
            None => new.likeliest == new.tokens,
        },
    })
}

/// What was found, to be shown.
struct Report<'a> {
    facts: &'a [Fact],
    states: &'a [State],
    now: &'a Answers,
    history: &'a [v1::Version],
    by_edit: HashMap<&'a str, usize>,
}

impl Report<'_> {
    fn answer(&self, fact: usize) -> Option<Answer> {
        self.now.get(&fact)?.as_ref().ok().copied()
    }

    /// A version of the history in words: its number, and what its edit wrote.
    fn version(&self, at: usize) -> String {
        let version = &self.history[at];
        let kind = names::kind(version);
        let (number, edit) = (version.number, names::brief(&version.subject_edit));
        match self.by_edit.get(version.subject_edit.as_str()) {
            Some(&first) => {
                let fact = names::request(&self.facts[first].request);
                format!("v{number}, {kind} {edit}: {fact}")
            }
            None => format!("v{number}, {kind} {edit}"),
        }
    }

    /// Why a fact is not simply there.
    fn by(&self, fact: usize) -> String {
        match &self.states[fact] {
            State::Broken(Some(at)) => self.version(*at),
            State::Unasked(why) => why.clone(),
            State::Superseded => {
                let later = self.facts[fact].superseded.map(|n| &self.facts[n]);
                later.map_or(String::new(), |later| {
                    let said = names::request(&later.request);
                    format!("edit {}: {said}", names::brief(&later.edit))
                })
            }
            _ => String::new(),
        }
    }

    fn json(&self) -> anyhow::Result<()> {
        for (n, fact) in self.facts.iter().enumerate() {
            let answer = self.answer(n);
            let later = fact.superseded.map(|n| &self.facts[n]);
            let broken_by = match self.states[n] {
                State::Broken(Some(at)) => Some(&self.history[at]),
                _ => None,
            };
            let why = match &self.states[n] {
                State::Unasked(why) => Some(why),
                _ => None,
            };
            output::json(&json!({
                "edit": fact.edit, "id": fact.request.id, "prompt": fact.request.prompt,
                "subject": fact.request.subject, "target_new": fact.request.target_new,
                "target_true": fact.request.target_true, "state": self.states[n].word(),
                "new": answer.map(|it| it.new), "true": answer.and_then(|it| it.old),
                "broken_by": broken_by.map(|version| json!({
                    "version": version.name, "number": version.number, "kind": names::kind(version),
                    "edit": version.subject_edit, "author": version.author, "why": version.why,
                })),
                "superseded_by": later.map(|later| json!({
                    "edit": later.edit, "id": later.request.id, "target_new": later.request.target_new,
                })),
                "problem": why,
            }))?;
        }
        Ok(())
    }

    fn print(&self, all: bool) -> anyhow::Result<()> {
        let mut table = Table::new(&[
            ("FACT", Align::Left),
            ("EDIT", Align::Left),
            ("STATE", Align::Left),
            ("NEW", Align::Right),
            ("TRUE", Align::Right),
            ("BY", Align::Left),
        ]);
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |it| format!("{it:.3}"));
        let mut rows = 0;
        for (n, fact) in self.facts.iter().enumerate() {
            if all || !self.states[n].is_well() {
                let answer = self.answer(n);
                table.row([
                    names::request(&fact.request),
                    names::brief(&fact.edit).to_owned(),
                    self.states[n].word().to_owned(),
                    number(answer.map(|it| it.new)),
                    number(answer.and_then(|it| it.old)),
                    self.by(n),
                ]);
                rows += 1;
            }
        }
        if rows > 0 {
            output::print_table(&table)?;
        }
        let count = |word: &str| self.states.iter().filter(|it| it.word() == word).count();
        let words = ["holds", "superseded", "broken", "never held", "not asked"];
        let parts = words.map(|word| {
            let shown = match count(word) {
                0 => return None,
                1 => word,
                _ if word == "holds" => "hold",
                _ => word,
            };
            Some(format!("{} {shown}", count(word)))
        });
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        let facts = match self.facts.len() {
            1 => "1 fact".to_owned(),
            count => format!("{count} facts"),
        };
        say!("{facts}: {}", parts.join(", "));
        Ok(())
    }
}
