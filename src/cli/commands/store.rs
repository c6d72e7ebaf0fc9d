//! `palimpsest store`: verify, rebuild, back up, restore and clean a store.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::audit;
use crate::cli::connection::{Connection, Need};
use crate::cli::flags::{Flags, flag};
use crate::cli::host::host_name;
use crate::cli::output;
use crate::client::Client;
use crate::config::{Config, LogPlace, StoreConfig, parse_duration};
use crate::objects::BucketSettings;
use crate::proto::v1;
use crate::store::{self, Backup, Collected, Grace, MovedObjects, Rebuilt, Report, Sharing, Store};

/// Subcommands of `store`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Look for everything that can be wrong with a store that no one has open
    Verify {
        #[command(flatten)]
        place: Place,
    },
    /// Make a store's index again from its log, or its log from its index
    Rebuild {
        /// What is sound; the log if it is not given, unless the index has what the log has lost
        #[arg(long, value_enum)]
        from: Option<Source>,
        #[command(flatten)]
        place: Place,
    },
    /// Copy a store, also while a coordinator has it
    Backup {
        /// The backup's folder: a new one, or one with an earlier backup, of which only what is new
        /// is copied
        to: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Make a backup a store
    Restore {
        /// The backup's folder
        from: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Put a store's objects into the bucket of store.bucket, which has them from then on; also
    /// looks whether a bucket that was copied has them all
    Push {
        /// The log too, for store.log = "bucket": several coordinators may follow it there
        #[arg(long)]
        with_log: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Fetch a store's objects, and its log if that is there, from its bucket into its folder, which
    /// has them from then on; the bucket keeps them
    Pull {
        /// The log alone: the objects stay where they are
        #[arg(long)]
        log_only: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Remove objects that nothing reaches, in the folder and in the bucket
    Gc {
        /// Count what would be removed, and remove nothing
        #[arg(long)]
        dry_run: bool,
        /// Keep what was stored or asked for in this time, such as 36h or 90min
        #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
        min_age: Duration,
        /// The address of the coordinator that has the store
        #[arg(long, value_name = "ADDRESS")]
        server: Option<String>,
        #[command(flatten)]
        place: Place,
    },
}

/// Which store, and how what was found is told.
#[derive(Debug, Args)]
pub struct Place {
    /// The store's folder
    #[arg(long, value_name = "FOLDER")]
    store: Option<String>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// What a store is rebuilt from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Source {
    /// The index is made again
    Log,
    /// The log is made again; the damaged one is kept beside it
    Index,
}

impl Command {
    fn place(&self) -> &Place {
        match self {
            Self::Verify { place }
            | Self::Rebuild { place, .. }
            | Self::Backup { place, .. }
            | Self::Restore { place, .. }
            | Self::Push { place, .. }
            | Self::Pull { place, .. }
            | Self::Gc { place, .. } => place,
        }
    }

    /// Adds what was given to the settings.
    pub fn flags(&self, flags: &mut Flags) {
        flag(flags, "serve.store", &self.place().store);
        if let Self::Gc { server, .. } = self {
            flag(flags, "client.server", server);
        }
    }
}

/// Runs a subcommand.
pub async fn run(command: Command, config: &Config) -> anyhow::Result<ExitCode> {
    let path = config.serve.store.clone();
    let json = command.place().json;
    let mut options = options(&config.store);
    match command {
        // To bring a log home, whatever the settings say already.
        Command::Pull { .. } => options.log = Some(sharing(&config.store)),
        // A backup has its log itself.
        Command::Restore { .. } => options.log = None,
        _ => {}
    }
    if let Command::Gc {
        dry_run, min_age, ..
    } = command
    {
        let collected = match &config.client.server {
            Some(_) => {
                Connection::with(&config.client, Need::Records, async |client| {
                    collect_there(client, dry_run, min_age).await
                })
                .await?
            }
            None => {
                let user = config.client.user.clone();
                let work = move || collect_here(&path, options, user, dry_run, min_age);
                tokio::task::spawn_blocking(work).await??
            }
        };
        return print(&GcReport::new(collected, dry_run), json);
    }
    tokio::task::spawn_blocking(move || offline(command, &path, options, json)).await?
}

/// How the settings say that a store is opened.
pub fn options(settings: &StoreConfig) -> store::Options {
    let bucket = settings.bucket.as_ref().zip(settings.credentials.as_ref());
    store::Options {
        quota: settings.quota.map(|size| size.bytes()),
        cache_size: settings.cache_size.map(|size| size.bytes()),
        log: (settings.log == LogPlace::Bucket).then(|| sharing(settings)),
        bucket: bucket.map(|(bucket, credentials)| BucketSettings {
            name: bucket.name.clone(),
            prefix: bucket.prefix.clone(),
            endpoint: settings.endpoint.as_ref().map(|it| it.as_str().to_owned()),
            region: settings.region.clone(),
            credentials: credentials.clone(),
            ca: settings.ca.clone(),
            timeout: settings.timeout,
        }),
    }
}

/// How a log in a bucket is shared.
fn sharing(settings: &StoreConfig) -> Sharing {
    Sharing::new(host_name(), settings.takeover)
}

/// What needs no coordinator.
fn offline(
    command: Command,
    path: &Path,
    options: store::Options,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let bar = Bar::new();
    match command {
        Command::Verify { .. } => {
            let report = store::verify(path, &options, |what, done, of| bar.show(what, done, of))?;
            bar.clear();
            let sound = report.problem_count == 0;
            let check = store::Check {
                time: jiff::Timestamp::now(),
                problems: report.problem_count,
            };
            // A store that cannot be written to can be verified all the same.
            if let Err(error) = store::note_check(path, check) {
                tracing::warn!(%error, "that it was verified could not be noted");
            }
            print(&report, json)?;
            Ok(if sound {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Command::Rebuild { from, .. } => {
            let source = match from {
                Some(Source::Log) => store::From::Log,
                Some(Source::Index) => store::From::Index,
                None => store::From::Newest,
            };
            let rebuilt = store::rebuild(path, source, |done| bar.show("batches", done, None))?;
            bar.clear();
            print(&RebuildReport::new(rebuilt), json)
        }
        Command::Backup { to, .. } => {
            let made = store::backup(path, &to, &options, |done| bar.show("bytes", done, None))?;
            bar.clear();
            print(&BackupReport::new(made, &to), json)
        }
        Command::Restore { from, .. } => {
            let show = |done| bar.show("bytes", done, None);
            let made = store::restore(&from, path, &options, show)
                .with_context(|| format!("restoring {}", from.display()))?;
            // Makes the index.
            Store::open_with(path, options)?;
            bar.clear();
            print(&BackupReport::new(made, path), json)
        }
        Command::Push { with_log: log, .. } | Command::Pull { log_only: log, .. } => {
            let show = |done| bar.show("bytes", done, None);
            let to_bucket = matches!(command, Command::Push { .. });
            let moved = match (to_bucket, log) {
                (true, false) => store::push(path, &options, show)?,
                (true, true) => store::push_log(path, &options, show)?,
                (false, false) => store::pull(path, &options, show)?,
                (false, true) => store::pull_log(path, &options)?,
            };
            bar.clear();
            let bucket = options.bucket.map(|it| it.url()).unwrap_or_default();
            let report = MovedReport {
                moved,
                bucket,
                to_bucket,
                log,
            };
            print(&report, json)
        }
        Command::Gc { .. } => bail!("collecting needs a store of its own"),
    }
}

#[allow(clippy::disallowed_methods)] // The age of files is counted by the system's clock.
fn collect_here(
    path: &Path,
    options: store::Options,
    user: Option<String>,
    dry_run: bool,
    min_age: Duration,
) -> anyhow::Result<Collected> {
    if !path.join("FORMAT").exists() {
        return Err(store::Error::NotAStore {
            path: path.to_owned(),
        }
        .into());
    }
    let store = Store::open_with(path, options)?;
    let now = SystemTime::now();
    let before = now
        .checked_sub(min_age)
        .context("--min-age: it is longer than time itself")?;
    let garbage = store.garbage(Grace { before })?;
    let counted = garbage.counted();
    if dry_run {
        store.leave()?;
        return Ok(counted);
    }
    if counted.removed + counted.partial > 0 {
        let entry = audit::EntryDraft {
            principal: user.unwrap_or_else(|| "anonymous".to_owned()),
            action: "objects.collect".to_owned(),
            resource: "objects".to_owned(),
            detail: counted.to_string(),
            ..audit::EntryDraft::default()
        };
        let millis = now.duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as u64;
        store.commit(&audit::Log::open(&store)?.append(entry, millis)?)?;
    }
    let collected = store.sweep(garbage)?;
    store.leave()?;
    Ok(collected)
}

async fn collect_there(
    client: &Client,
    dry_run: bool,
    min_age: Duration,
) -> anyhow::Result<Collected> {
    let request = v1::CollectObjectsRequest {
        dry_run,
        min_age: Some(prost_types::Duration::try_from(min_age)?),
    };
    let v1::CollectObjectsResponse {
        reached,
        young,
        removed,
        removed_bytes,
        partial,
        partial_bytes,
    } = client.store().collect_objects(request).await?.into_inner();
    Ok(Collected {
        reached,
        young,
        removed,
        removed_bytes,
        partial,
        partial_bytes,
    })
}

/// Something to print for people, or as JSON.
trait Print: Serialize {
    fn lines(&self) -> Vec<String>;
}

fn print(report: &impl Print, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        output::json(report)?;
    } else {
        for line in report.lines() {
            show!("{line}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Print for Report {
    fn lines(&self) -> Vec<String> {
        let records: Vec<String> = self
            .records
            .iter()
            .map(|(kind, count)| format!("{} {kind}", output::grouped(*count)))
            .collect();
        let mut lines = vec![
            format!("records  {}", records.join(", ")),
            format!(
                "log      {}, {} batches behind the checkpoint",
                output::bytes(self.log_bytes),
                output::grouped(self.batches)
            ),
            format!(
                "objects  {}{} with {}, and {} with {} that nothing reaches",
                match &self.bucket {
                    Some(bucket) => format!("read from {bucket}: "),
                    None => String::new(),
                },
                output::grouped(self.objects),
                output::bytes(self.object_bytes),
                output::grouped(self.orphans),
                output::bytes(self.orphan_bytes)
            ),
        ];
        lines.extend(
            self.problems
                .iter()
                .map(|problem| format!("wrong    {problem}")),
        );
        lines.push(match self.problem_count {
            0 => "The store is sound.".to_owned(),
            n => format!("{} things are wrong.", output::grouped(n)),
        });
        lines
    }
}

#[derive(Serialize)]
struct RebuildReport {
    records: u64,
    batches: u64,
    kept: Option<PathBuf>,
    #[serde(skip)]
    from: store::From,
}

impl RebuildReport {
    fn new(rebuilt: Rebuilt) -> Self {
        Self {
            records: rebuilt.records,
            batches: rebuilt.next - 1,
            kept: rebuilt.kept,
            from: rebuilt.from,
        }
    }
}

impl Print for RebuildReport {
    fn lines(&self) -> Vec<String> {
        let records = output::grouped(self.records);
        let made = match self.from {
            store::From::Index => "the log was made again from the index",
            store::From::Log | store::From::Newest => "the index was made again from the log",
        };
        let kept = match &self.kept {
            Some(kept) => format!(
                "; the one that was there is kept as {}: remove it when you need it no more",
                kept.display()
            ),
            None => String::new(),
        };
        vec![format!("{made}: {records} records{kept}")]
    }
}

#[derive(Serialize)]
struct BackupReport {
    #[serde(flatten)]
    backup: Backup,
    folder: PathBuf,
}

impl BackupReport {
    fn new(backup: Backup, folder: &Path) -> Self {
        Self {
            backup,
            folder: folder.to_owned(),
        }
    }
}

impl Print for BackupReport {
    fn lines(&self) -> Vec<String> {
        let Backup {
            log_bytes,
            objects,
            object_bytes,
            copied,
            ..
        } = self.backup;
        vec![format!(
            "{}: {} of log, {} objects with {}, {} of them copied now",
            self.folder.display(),
            output::bytes(log_bytes),
            output::grouped(objects),
            output::bytes(object_bytes),
            output::grouped(copied)
        )]
    }
}

#[derive(Serialize)]
struct MovedReport {
    #[serde(flatten)]
    moved: MovedObjects,
    bucket: String,
    #[serde(skip)]
    to_bucket: bool,
    #[serde(skip)]
    log: bool,
}

impl Print for MovedReport {
    fn lines(&self) -> Vec<String> {
        let done = format!(
            "{} objects with {}, {} of them copied now with {}",
            output::grouped(self.moved.objects),
            output::bytes(self.moved.object_bytes),
            output::grouped(self.moved.copied),
            output::bytes(self.moved.copied_bytes)
        );
        let bucket = &self.bucket;
        if self.to_bucket {
            let mut lines = vec![format!("{bucket} has the store's objects: {done}")];
            if self.log {
                lines.push(format!(
                    "{bucket} has its log: set store.log = \"bucket\" now"
                ));
            }
            lines
        } else if self.log {
            let now = "the folder has the store's log: set store.log = \"folder\" now";
            vec![now.to_owned()]
        } else {
            vec![
                format!("the folder has the store's objects: {done}"),
                format!("unset store.bucket now; {bucket} keeps them until you remove them there"),
            ]
        }
    }
}

#[derive(Serialize)]
struct GcReport {
    dry_run: bool,
    reached: u64,
    young: u64,
    removed: u64,
    removed_bytes: u64,
    partial: u64,
    partial_bytes: u64,
}

impl GcReport {
    fn new(collected: Collected, dry_run: bool) -> Self {
        Self {
            dry_run,
            reached: collected.reached,
            young: collected.young,
            removed: collected.removed,
            removed_bytes: collected.removed_bytes,
            partial: collected.partial,
            partial_bytes: collected.partial_bytes,
        }
    }
}

impl Print for GcReport {
    fn lines(&self) -> Vec<String> {
        let done = if self.dry_run { "would be" } else { "were" };
        vec![
            format!(
                "{} objects with {} {done} removed, and {} unfinished uploads with {}",
                output::grouped(self.removed),
                output::bytes(self.removed_bytes),
                output::grouped(self.partial),
                output::bytes(self.partial_bytes)
            ),
            format!(
                "{} are reached; {} are reached by nothing and younger than --min-age",
                output::grouped(self.reached),
                output::grouped(self.young)
            ),
        ]
    }
}

/// Progress, where there is a terminal to draw it on.
struct Bar {
    bar: ProgressBar,
}

impl Bar {
    fn new() -> Self {
        let bar = if std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{bar:32.cyan/dim} {msg}");
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        } else {
            ProgressBar::hidden()
        };
        Self { bar }
    }

    fn show(&self, what: &str, done: u64, of: Option<u64>) {
        if let Some(of) = of {
            self.bar.set_length(of);
            self.bar.set_position(done);
        }
        let done = if what.starts_with("bytes") {
            output::bytes(done)
        } else {
            output::grouped(done)
        };
        self.bar.set_message(format!("{done} {what}"));
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
