//! Which layer an edit goes to, and why.

use anyhow::bail;

use super::results::{self, ENOUGH, Sites};
use super::{layers, names, submit};
use crate::client::Client;
use crate::coordinator::is_terminal;
use crate::datasets::edits::Rewrite;
use crate::datasets::facts;
use crate::proto::v1::{self, JobState, Kind};
use crate::work;

/// A layer as flags name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Where models of the family are edited, by what was published.
    Family,
    /// Where a trace says that the fact is.
    Located,
    /// This one, from 0.
    Number(u32),
}

/// Reads a layer.
///
/// # Errors
/// What should be written instead.
pub fn parse(text: &str) -> Result<Layer, String> {
    match text {
        "family" => Ok(Layer::Family),
        "auto" => Ok(Layer::Located),
        _ => match text.parse() {
            Ok(layer) => Ok(Layer::Number(layer)),
            Err(_) => Err("give auto, family or a number".to_owned()),
        },
    }
}

/// A layer that was chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// It; none for the family's.
    pub layer: Option<u32>,
    /// Why, in words; empty where the coordinator knows it as well.
    pub reason: String,
    /// Of a sweep, the last layer after it whose effect its facts cannot tell from that there.
    pub last_alike: Option<u32>,
}

impl Layer {
    /// The choice, where there is nothing to locate.
    fn given(self) -> Option<Choice> {
        match self {
            Layer::Family => Some(Choice::default()),
            Layer::Number(layer) => Some(Choice {
                layer: Some(layer),
                ..Choice::default()
            }),
            Layer::Located => None,
        }
    }
}

impl Choice {
    /// Says it to who waits.
    fn tell(&self) {
        match self.layer {
            Some(layer) => say!("layer {layer}: {}", self.reason),
            None => say!("{}", self.reason),
        }
    }
}

/// Chooses the layers of edits of one version of a model.
pub struct Chooser<'a> {
    client: &'a Client,
    model: &'a str,
    /// The version that is edited, by a name that a job takes.
    version: String,
    dtype: v1::Dtype,
    asked: Layer,
    /// What the sweeps that are there say, once it was looked for.
    swept: Option<Option<Choice>>,
}

impl<'a> Chooser<'a> {
    /// Chooses as `asked`. `reference` is the branch that takes the edits.
    pub fn new(
        client: &'a Client,
        model: &'a str,
        reference: &str,
        dtype: v1::Dtype,
        asked: Layer,
    ) -> Self {
        Self {
            client,
            model,
            version: names::version(model, reference),
            dtype,
            asked,
            swept: None,
        }
    }

    /// The layer for a fact. `auto` goes by the newest sweep of the model that succeeded and has
    /// the MLPs of at least ten facts that the model knows; where there is none, by a trace of the
    /// fact itself, which it runs; and by the family where that shows nothing. It says which.
    ///
    /// # Errors
    /// When the trace cannot be run, or was cancelled.
    pub async fn layer(&mut self, fact: &Rewrite) -> anyhow::Result<Choice> {
        if let Some(choice) = self.asked.given() {
            return Ok(choice);
        }
        let choice = match self.sweep().await? {
            Some(choice) => choice,
            None => self.trace(fact).await?,
        };
        choice.tell();
        Ok(choice)
    }

    /// One layer for many facts: of `auto` what the newest sweep says, since no fact of them can
    /// stand for the others.
    ///
    /// # Errors
    /// When there is no such sweep, or the coordinator cannot be asked.
    pub async fn common(&mut self) -> anyhow::Result<Choice> {
        if let Some(choice) = self.asked.given() {
            return Ok(choice);
        }
        let Some(choice) = self.sweep().await? else {
            bail!(
                "--layer auto: {}; or give family or a number",
                self.no_sweep()
            );
        };
        choice.tell();
        Ok(choice)
    }

    /// `count` layers of a model of `layers` for many facts, and why these: around the place where
    /// the newest sweep says that facts are.
    ///
    /// # Errors
    /// As [`Chooser::common`].
    pub async fn range(&mut self, count: u32, layers: u32) -> anyhow::Result<(Vec<u32>, String)> {
        let Some((choice, peak)) = self
            .sweep()
            .await?
            .and_then(|it| Some((it.clone(), it.layer?)))
        else {
            bail!(
                "--layers auto: {}; or give the layers, such as 4-8",
                self.no_sweep()
            );
        };
        let range = layers::around(peak, choice.last_alike.unwrap_or(peak), count, layers);
        let (first, last) = (range.first().copied(), range.last().copied());
        let mut reason = format!(
            "{} to {}, around layer {peak}, {}",
            first.unwrap_or(peak),
            last.unwrap_or(peak),
            choice.reason
        );
        while reason.len() > 500 {
            reason.pop();
        }
        say!("layers {reason}");
        Ok((range, reason))
    }

    fn no_sweep(&self) -> String {
        format!(
            "no sweep of {} has the MLPs of {ENOUGH} facts that it knows: 'palimpsest trace --facts FILE --kinds mlp' \
             makes one",
            self.model
        )
    }

    /// What the newest sweep over enough facts says.
    async fn sweep(&mut self) -> anyhow::Result<Option<Choice>> {
        if let Some(known) = &self.swept {
            return Ok(known.clone());
        }
        let mut found = None;
        for swept in self.client.all_jobs().await? {
            let Some(trace) = work::spec::<v1::TraceSpec>(&swept) else {
                continue;
            };
            // Where estimates are highest they may be furthest off.
            let fits = swept.model == self.model
                && swept.state() == JobState::Succeeded
                && trace.engine() != v1::Engine::Attribution
                && trace.fact_count >= ENOUGH
                && trace.kinds.contains(&(Kind::Mlp as i32));
            if !fits {
                continue;
            }
            let Ok(sites) = located(self.client, &swept.name).await? else {
                continue;
            };
            let Some((averages, site)) = sites.edit() else {
                continue;
            };
            let facts = averages.total_effect.rows;
            if facts >= ENOUGH && site.effect.mean > 0.0 {
                found = Some(Choice {
                    layer: Some(site.layer as u32),
                    reason: format!(
                        "located by the sweep {}: of {facts} facts, the MLPs around it bring most back at the subject's \
                         last token, {:.1} % on average",
                        swept.name,
                        100.0 * site.effect.mean
                    ),
                    last_alike: Some(*averages.plateau(&site).end() as u32),
                });
                break;
            }
        }
        self.swept = Some(found.clone());
        Ok(found)
    }

    /// Traces what the model says of the fact now.
    async fn trace(&self, fact: &Rewrite) -> anyhow::Result<Choice> {
        let traced = match fact.parts() {
            Some((before, after)) => facts::placed(before, &fact.subject, after).into(),
            None => bail!(
                "prompt {:?}: put one {{}} where the subject goes",
                fact.prompt
            ),
        };
        let spec = v1::TraceSpec {
            facts: vec![traced],
            kinds: vec![Kind::Mlp as i32],
            dtype: self.dtype as i32,
            ..Default::default()
        };
        let asked = v1::Job {
            version: self.version.clone(),
            model: self.model.to_owned(),
            spec: Some(spec.into()),
            display_name: format!("the layer of {}", fact.subject)
                .chars()
                .take(60)
                .collect(),
            // Someone waits for it.
            priority: 1,
            ..Default::default()
        };
        say!("no sweep has {ENOUGH} facts that the model knows: the fact itself is traced");
        let ended = submit::run(self.client, asked).await?;
        if !is_terminal(ended.state()) {
            bail!("{} is held: 'palimpsest job show' says why", ended.name);
        }
        let why_not = match located(self.client, &ended.name).await? {
            Ok(sites) => match sites.edit() {
                Some((_, site)) if site.effect.mean > 0.0 => {
                    return Ok(Choice {
                        layer: Some(site.layer as u32),
                        reason: format!(
                            "located by {}, a trace of this fact: the MLPs around it bring most back at the subject's \
                             last token, {:.1} %",
                            ended.name,
                            100.0 * site.effect.mean
                        ),
                        last_alike: None,
                    });
                }
                _ => "no MLP brings anything back".to_owned(),
            },
            Err(why_not) => why_not,
        };
        let mut reason = format!(
            "where models of its family are edited, for the trace of this fact, {}, locates nothing: {why_not}",
            ended.name
        );
        while reason.len() > 500 {
            reason.pop();
        }
        Ok(Choice {
            reason,
            ..Choice::default()
        })
    }
}

/// Where the effects of a job peak, or why they show nothing: the model may know none of its facts.
async fn located(client: &Client, name: &str) -> anyhow::Result<Result<Sites, String>> {
    match results::sites(client, name, None).await {
        Ok(sites) => Ok(Ok(sites)),
        Err(error) if error.is::<results::Error>() => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_a_number_or_how_to_find_it() {
        assert_eq!(parse("auto").unwrap(), Layer::Located);
        assert_eq!(parse("family").unwrap(), Layer::Family);
        assert_eq!(parse("17").unwrap(), Layer::Number(17));
        for wrong in ["", "-1", "Auto", "3..5"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
