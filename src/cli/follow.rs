//! Follows a job to its end, with progress for whoever watches.
#![allow(clippy::disallowed_methods)] // who shows how time goes by has a clock

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tonic::Code;

use super::output;
use super::signals::asked_to_stop;
use crate::client::Client;
use crate::coordinator::is_terminal;
use crate::proto::v1::{self, JobState};
use crate::work::{self, Work};

/// How long a coordinator may be away before a call is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait before it is asked again.
const PAUSE: Duration = Duration::from_millis(300);
/// How often progress is printed where there is no terminal to draw a bar on.
const LINE_EVERY: Duration = Duration::from_secs(20);
/// How long a job may be without a worker before its follower asks why, and how often then.
const ALONE: Duration = Duration::from_secs(10);

/// Follows a job until it has ended, or is held and will not go on by itself. A coordinator that
/// restarts meanwhile is waited for.
///
/// # Errors
/// The coordinator's refusal, or that it stays away.
pub async fn follow(client: &Client, name: &str) -> anyhow::Result<v1::Job> {
    let mut view = View::new();
    let mut after_sequence = 0;
    let mut away_since: Option<Instant> = None;
    loop {
        let request = v1::WatchJobRequest {
            name: name.to_owned(),
            after_sequence,
        };
        let broken = match client.jobs().watch_job(request).await {
            Err(status) => status,
            Ok(stream) => {
                let mut stream = stream.into_inner();
                loop {
                    let message = loop {
                        match tokio::time::timeout(ALONE, stream.message()).await {
                            Ok(message) => break message,
                            Err(_) => view.ask_why_alone(client, name).await,
                        }
                    };
                    match message {
                        Ok(Some(message)) => {
                            away_since = None;
                            if let Some(event) = message.events.last() {
                                after_sequence = event.sequence;
                            }
                            let job = message.job.unwrap_or_default();
                            view.show(&job, &message.progress.unwrap_or_default());
                            view.ask_why_alone(client, name).await;
                            let stands = is_terminal(job.state()) || job.state() == JobState::Held;
                            if stands && after_sequence >= job.last_sequence {
                                view.clear();
                                return Ok(job);
                            }
                        }
                        Ok(None) => break tonic::Status::unavailable("the stream was closed"),
                        Err(status) => break status,
                    }
                }
            }
        };
        let away = away_since.get_or_insert_with(Instant::now).elapsed();
        if !passes(&broken) || away > client.patience() {
            view.clear();
            return Err(broken.into());
        }
        view.waiting();
        tokio::time::sleep(PAUSE).await;
    }
}

/// Follows a job that may go on without its user; none when the user leaves, who is told how it
/// does. A coordinator inside the command goes with it.
///
/// # Errors
/// As [`follow`].
pub async fn to_end(
    client: &Client,
    name: &str,
    embedded: bool,
) -> anyhow::Result<Option<v1::Job>> {
    tokio::select! {
        ended = follow(client, name) => ended.map(Some),
        () = asked_to_stop() => {
            let id = name.trim_start_matches("jobs/");
            match embedded {
                true => say!("stopped; 'palimpsest job watch {id}' goes on where it was"),
                false => say!("the job goes on; 'palimpsest job watch {id}' follows it"),
            }
            Ok(None)
        }
    }
}

/// Follows a job that is of no use to anybody else: it is cancelled when its user leaves.
///
/// # Errors
/// As [`follow`], and that it was cancelled.
pub async fn attend(client: &Client, name: String) -> anyhow::Result<v1::Job> {
    tokio::select! {
        ended = follow(client, &name) => ended,
        () = asked_to_stop() => {
            let request = v1::CancelJobRequest { name };
            client.jobs().cancel_job(request).await?;
            anyhow::bail!("cancelled; nothing was changed");
        }
    }
}

/// Makes a call that changes nothing when it is made twice, and makes it again while the coordinator
/// is away.
///
/// # Errors
/// The coordinator's refusal, or that it stays away.
pub async fn patiently<T, F>(call: impl Fn() -> F) -> Result<T, tonic::Status>
where
    F: Future<Output = Result<T, tonic::Status>>,
{
    let start = Instant::now();
    loop {
        match call().await {
            Err(status) if passes(&status) && start.elapsed() < PATIENCE => {
                tokio::time::sleep(PAUSE).await;
            }
            done => return done,
        }
    }
}

/// Whether an error may be gone when a coordinator that restarts is back. What a dying connection
/// says differs with the moment of its death.
fn passes(status: &tonic::Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal
    )
}

/// The units of a job, as people count them.
pub fn unit_word(job: &v1::Job) -> &'static str {
    work::of(job).map_or("units", Work::units_word)
}

/// A job's state as a word.
pub fn state(job: &v1::Job) -> String {
    output::word(job.state().as_str_name(), "JOB_STATE_")
}

/// Says what can be done with a job that does not go on by itself.
pub fn say_held(job: &v1::Job) {
    if job.state() == v1::JobState::Held {
        let id = job.name.trim_start_matches("jobs/");
        say!(
            "{} tasks are in quarantine, because several workers were lost while they ran them: \
             'palimpsest job requeue {id}' gives them another round, 'palimpsest job cancel {id}' \
             gives them up",
            job.counts.unwrap_or_default().tasks_quarantined
        );
    }
}

/// Success if the job did all that it was asked.
pub fn exit_code(job: &v1::Job) -> ExitCode {
    match job.state() {
        v1::JobState::Succeeded => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

struct View {
    bar: ProgressBar,
    drawn: bool,
    /// When the open stage was seen first, and how many of its units were done then: no rate
    /// follows from those.
    seen: Option<Seen>,
    last_line: Option<Instant>,
    /// The newest step of an edit that was printed: its unit and its number.
    told: Option<(u64, u32)>,
    /// The stage that was printed last, by its name.
    stage: String,
    /// Since when no worker has been at it, and when it was asked why.
    alone: Option<Instant>,
    asked: Option<Instant>,
    /// What was said of that.
    why: String,
}

/// A stage when it was seen first.
struct Seen {
    stage: u32,
    done: u64,
    at: Instant,
}

impl View {
    fn new() -> Self {
        let style = ProgressStyle::with_template("{bar:32.cyan/dim} {pos}/{len} {msg}");
        let bar =
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self {
            bar,
            drawn: std::io::stderr().is_terminal(),
            seen: None,
            last_line: None,
            told: None,
            stage: String::new(),
            alone: None,
            asked: None,
            why: String::new(),
        }
    }

    /// Says why no worker has been at it for a while, as the coordinator explains it, once.
    async fn ask_why_alone(&mut self, client: &Client, name: &str) {
        let waits = |since: Option<Instant>| since.is_some_and(|since| since.elapsed() >= ALONE);
        if !waits(self.alone) || self.asked.is_some() && !waits(self.asked) {
            return;
        }
        self.asked = Some(Instant::now());
        let request = v1::ExplainJobRequest {
            name: name.to_owned(),
        };
        let Ok(explained) = client.jobs().explain_job(request).await else {
            return; // that it is away is told by who follows it
        };
        let reasons = explained.into_inner().reasons;
        let why = reasons.into_iter().take(2).collect::<Vec<_>>().join(" ");
        if why != self.why {
            self.bar.suspend(|| say!("{why}"));
            self.why = why;
        }
    }

    fn show(&mut self, job: &v1::Job, progress: &v1::JobProgress) {
        let counts = job.counts.unwrap_or_default();
        self.alone = match progress.workers == 0 && !is_terminal(job.state()) {
            true => self.alone.or_else(|| Some(Instant::now())),
            false => None,
        };
        let left = self.left(&counts, progress);
        let failed = match counts.units_failed {
            0 => String::new(),
            n => format!(", {n} failed"),
        };
        let workers = match progress.workers {
            1 => "1 worker".to_owned(),
            n => format!("{n} workers"),
        };
        let steps_word = work::of(job).map_or("", Work::steps_word);
        let cells = match progress.steps_per_second {
            rate if rate > 0.0 && !steps_word.is_empty() => {
                format!(", {} {steps_word}/s", output::grouped(rate.round() as u64))
            }
            _ => String::new(),
        };
        let steps: String = progress.edits.iter().map(step).collect();
        let at = stage(&counts, progress);
        let message = format!(
            "{}{failed}{cells}, {workers}{at}{left}{steps}",
            unit_word(job)
        );
        if !self.drawn {
            self.steps(progress);
        }
        let title = progress.stage.as_ref().map_or("", |stage| &stage.title);
        if !self.drawn && counts.stages > 1 && self.stage != title {
            title.clone_into(&mut self.stage);
            say!("{}", at.trim_start_matches("; "));
        }
        if self.drawn {
            self.bar.set_length(counts.units);
            self.bar.set_position(counts.units_done);
            self.bar.set_message(message);
        } else if self
            .last_line
            .is_none_or(|last| last.elapsed() > LINE_EVERY)
        {
            self.last_line = Some(Instant::now());
            say!("{}/{} {message}", counts.units_done, counts.units);
        }
    }

    /// How long the open stage goes on, at the rate that was seen of it. Units of other stages take
    /// other times, and those of hidden ones are not among the job's own.
    fn left(&mut self, counts: &v1::JobCounts, progress: &v1::JobProgress) -> String {
        let (stage, done, units) = match &progress.stage {
            Some(open) if counts.stages > 1 => (open.stage, open.units_done, open.units),
            _ => (0, counts.units_done, counts.units),
        };
        if self.seen.as_ref().is_none_or(|seen| seen.stage != stage) {
            let at = Instant::now();
            self.seen = Some(Seen { stage, done, at });
        }
        let seen = self.seen.iter();
        seen.map(|it| time_left(it.done, done, units, it.at.elapsed()))
            .collect()
    }

    /// A line for every step of an edit that was not told yet.
    fn steps(&mut self, progress: &v1::JobProgress) {
        for edit in &progress.edits {
            for made in &edit.steps {
                let place = (edit.unit, made.number);
                if self.told.is_none_or(|told| place > told) {
                    self.told = Some(place);
                    say!("{}", words(edit, made));
                }
            }
        }
    }

    fn waiting(&mut self) {
        if self.drawn {
            self.bar
                .set_message("the coordinator is away: waiting for it");
        }
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// The stage that is open of a job that has several, behind what else is said: its name and how far
/// it is.
fn stage(counts: &v1::JobCounts, progress: &v1::JobProgress) -> String {
    match &progress.stage {
        Some(stage) if counts.stages > 1 => format!(
            "; stage {} of {}: {}, {} of {} done",
            stage.stage + 1,
            counts.stages,
            stage.title,
            stage.units_done,
            stage.units
        ),
        _ => String::new(),
    }
}

/// The newest step of an edit, behind what else is said.
fn step(edit: &v1::EditProgress) -> String {
    let newest = edit.steps.last();
    newest.map_or(String::new(), |made| format!("; {}", words(edit, made)))
}

fn words(edit: &v1::EditProgress, made: &v1::edit_progress::Step) -> String {
    format!(
        "step {}/{} loss {:.2} p {:.2} kl {:.3}",
        made.number + 1,
        edit.most_steps,
        made.loss,
        made.probability,
        made.kl
    )
}

/// The time that the rest of some units takes, behind what else is said; nothing before one more is
/// done.
fn time_left(first: u64, done: u64, units: u64, elapsed: Duration) -> String {
    match done.saturating_sub(first) {
        0 => String::new(),
        new => {
            let rate = new as f64 / elapsed.as_secs_f64().max(0.1);
            let left = units.saturating_sub(done) as f64 / rate;
            format!(", {} left", rough(left))
        }
    }
}

/// A time to go, to the precision that a guess has.
fn rough(seconds: f64) -> String {
    match seconds {
        s if s < 100.0 => format!("{s:.0} s"),
        s if s < 6000.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_from_what_was_done_while_it_was_watched() {
        let minute = Duration::from_secs(60);
        assert_eq!(time_left(10, 10, 100, minute), "");
        assert_eq!(time_left(10, 40, 100, minute), ", 2 min left");
        assert_eq!(time_left(0, 100, 100, minute), ", 0 s left");
        // A stage that a coordinator counts anew is no fault of its follower.
        assert_eq!(time_left(10, 5, 100, minute), "");
    }

    #[test]
    fn the_rate_is_that_of_the_open_stage() {
        let counts = v1::JobCounts {
            units: 2,
            stages: 2,
            ..Default::default()
        };
        let at = |stage, units_done| v1::JobProgress {
            stage: Some(v1::JobStage {
                stage,
                units_done,
                units: 600,
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut view = View::new();
        assert_eq!(view.left(&counts, &at(0, 30)), "");
        let said = view.left(&counts, &at(0, 60));
        assert!(said.ends_with(" left"), "{said}");
        // Nothing is known of the next one yet.
        assert_eq!(view.left(&counts, &at(1, 500)), "");
    }
}
