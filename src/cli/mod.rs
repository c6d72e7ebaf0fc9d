//! The command line: one file a subcommand. Each parses, calls the client and prints. Data go to
//! standard output, everything else to standard error.

mod audit;
mod auth;
mod completions;
mod config;
mod connection;
mod diff;
mod doctor;
mod edit;
mod eval;
mod export;
mod follow;
mod generate;
mod job;
mod layer;
mod locate;
mod log;
mod model;
mod output;
mod pieces;
mod presentation;
mod refs;
mod results;
mod revert;
mod rewrite;
mod serve;
mod show;
mod stats;
mod status;
mod store;
mod trace;
mod version;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing::Instrument;

use crate::config::Config;
use crate::proto::v1::RefKind;
use crate::telemetry;

/// Finds where a language model keeps a fact, rewrites it, and never loses the page.
#[derive(Debug, Parser)]
#[command(name = "palimpsest", version, max_term_width = 100)]
struct Cli {
    /// The configuration file, instead of ./palimpsest.toml
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What is logged: error, warn, info, debug, or module=level pairs
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a coordinator
    Serve(serve::Args),
    /// Run a worker for a coordinator; list, drain or readmit workers
    Worker(worker::Args),
    /// Make certificates and tokens
    #[command(subcommand)]
    Auth(auth::Command),
    /// Import and look at models
    #[command(subcommand)]
    Model(model::Command),
    /// Trace where a model keeps facts
    Trace(Box<trace::Args>),
    /// Say where a sweep's effects peak, and so where an edit of its facts goes
    Locate(locate::Args),
    /// Complete a text
    Generate(generate::Args),
    /// Change what a model knows
    Edit(Box<edit::Args>),
    /// Measure what a version answers to a data set that edits are judged by
    Eval(Box<eval::Args>),
    /// Collect the key statistics that edits need
    #[command(subcommand)]
    Stats(stats::Command),
    /// Show the versions of a model as a graph
    Log(log::Args),
    /// Show a version or an edit
    Show(show::Args),
    /// Show what differs between two versions
    Diff(diff::Args),
    /// Move a branch to another version, back or forth
    Rollback(refs::RollbackArgs),
    /// Take an edit out of a branch
    Revert(revert::RevertArgs),
    /// Add an edit of another branch
    CherryPick(revert::PickArgs),
    /// Name a version for good
    Tag(refs::NameArgs),
    /// Begin another line of versions
    Branch(refs::NameArgs),
    /// Show tags and branches
    Refs(refs::ListArgs),
    /// Write a version as files that other programs load
    Export(export::Args),
    /// Show who changed what, and prove it
    #[command(subcommand)]
    Audit(audit::Command),
    /// Look at jobs, follow, cancel them, read their results
    #[command(subcommand)]
    Job(job::Command),
    /// Show the coordinator, its workers and its newest jobs
    Status(status::Args),
    /// Look for what is wrong here: engine, disks, store, coordinator, clock, settings
    Doctor(doctor::Args),
    /// Show the settings, and what there is to set
    #[command(subcommand)]
    Config(config::Command),
    /// Print what a shell completes this program by
    Completions(completions::Args),
    /// Write the manual
    Man(completions::ManArgs),
    /// Verify, rebuild, back up and clean the store
    #[command(subcommand)]
    Store(store::Command),
}

/// Settings given as flags: key and value.
type Flags = Vec<(String, String)>;

/// Adds a flag that was given.
fn flag<T: ToString>(flags: &mut Flags, key: &str, value: &Option<T>) {
    if let Some(value) = value {
        flags.push((key.to_owned(), value.to_string()));
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let name = words(&matches);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match run(cli, &name) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", output::explain(&error));
            ExitCode::FAILURE
        }
    }
}

/// What names a command: `job list`.
fn words(matches: &ArgMatches) -> String {
    let words = std::iter::successors(matches.subcommand(), |(_, it)| it.subcommand());
    words.map(|(name, _)| name).collect::<Vec<_>>().join(" ")
}

/// Runs a command; `name` is what names it.
fn run(cli: Cli, name: &str) -> anyhow::Result<ExitCode> {
    let mut flags = Flags::new();
    let is_server = match &cli.command {
        Command::Serve(_) => true,
        Command::Worker(args) => args.works(),
        _ => false,
    };
    flag(&mut flags, "log.filter", &cli.log);
    match &cli.command {
        Command::Serve(args) => args.flags(&mut flags),
        Command::Worker(args) => args.flags(&mut flags),
        Command::Auth(_) => {}
        Command::Model(command) => command.connection().flags(&mut flags),
        Command::Trace(args) => args.connection.flags(&mut flags),
        Command::Locate(args) => args.connection.flags(&mut flags),
        Command::Generate(args) => args.connection.flags(&mut flags),
        Command::Edit(args) => args.connection().flags(&mut flags),
        Command::Eval(args) => args.connection.flags(&mut flags),
        Command::Stats(command) => command.connection().flags(&mut flags),
        Command::Log(args) => args.connection.flags(&mut flags),
        Command::Show(args) => args.connection.flags(&mut flags),
        Command::Diff(args) => args.connection.flags(&mut flags),
        Command::Rollback(args) => args.connection().flags(&mut flags),
        Command::Revert(args) => args.connection().flags(&mut flags),
        Command::CherryPick(args) => args.connection().flags(&mut flags),
        Command::Tag(args) | Command::Branch(args) => args.connection().flags(&mut flags),
        Command::Refs(args) => args.connection().flags(&mut flags),
        Command::Export(args) => args.connection.flags(&mut flags),
        Command::Audit(command) => command.connection().flags(&mut flags),
        Command::Job(command) => command.connection().flags(&mut flags),
        Command::Status(args) => args.connection.flags(&mut flags),
        Command::Doctor(args) => args.connection.flags(&mut flags),
        // These need no settings: they are to work where the settings do not.
        Command::Config(config::Command::Reference { format }) => return config::reference(format),
        Command::Completions(args) => return completions::run(args, Cli::command()),
        Command::Man(args) => return completions::man(args, Cli::command()),
        Command::Config(config::Command::Show { .. }) => {}
        Command::Store(command) => command.flags(&mut flags),
    }
    let mut config = match (Config::load(cli.config.as_deref(), &flags), &cli.command) {
        (Ok(config), _) => config,
        (Err(error), Command::Doctor(args)) => return doctor::without_settings(args, &error),
        (Err(error), _) => return Err(error.into()),
    };
    // What a server tells its log as it goes, a command tells its user in its output.
    let unset = config.origin("log.filter") == Some(&crate::config::Origin::Default);
    if !is_server && unset {
        config.log.filter = "warn".to_owned();
    }
    connection::open_stores_with(store::options(&config.store));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let program = match &cli.command {
        Command::Serve(_) => "coordinator",
        Command::Worker(args) if args.works() => "worker",
        _ => "client",
    };
    let traces = {
        let _inside = runtime.enter();
        telemetry::init(&config.log, program)?
    };
    // What a server does belongs to those who ask for it.
    let span = match is_server {
        true => tracing::Span::none(),
        false => {
            tracing::info_span!(
                target: telemetry::traces::TARGET,
                "command",
                otel.name = format!("palimpsest {name}"),
                otel.kind = "client"
            )
        }
    };
    let code = runtime.block_on(
        async {
            match cli.command {
                Command::Serve(args) => serve::run(args, config).await,
                Command::Worker(args) => worker::run(args, config).await,
                Command::Auth(command) => auth::run(command),
                Command::Model(command) => model::run(command, &config.client).await,
                Command::Trace(args) => trace::run(*args, &config.client).await,
                Command::Locate(args) => locate::run(args, &config.client).await,
                Command::Generate(args) => generate::run(args, &config.client).await,
                Command::Edit(args) => edit::run(*args, &config.client, &config.edit).await,
                Command::Eval(args) => eval::run(*args, &config.client).await,
                Command::Stats(command) => stats::run(command, &config.client).await,
                Command::Log(args) => log::run(args, &config.client).await,
                Command::Show(args) => show::run(args, &config.client).await,
                Command::Diff(args) => diff::run(args, &config.client).await,
                Command::Rollback(args) => refs::rollback(args, &config.client).await,
                Command::Revert(args) => revert::revert(args, &config.client).await,
                Command::CherryPick(args) => revert::cherry_pick(args, &config.client).await,
                Command::Tag(args) => refs::name(args, RefKind::Tag, &config.client).await,
                Command::Branch(args) => refs::name(args, RefKind::Branch, &config.client).await,
                Command::Refs(args) => refs::list(args, &config.client).await,
                Command::Export(args) => export::run(args, &config.client).await,
                Command::Audit(command) => audit::run(command, &config.client).await,
                Command::Job(command) => job::run(command, &config.client).await,
                Command::Status(args) => status::run(args, &config.client).await,
                Command::Doctor(args) => doctor::run(&args, &config).await,
                Command::Config(config::Command::Show { origin, json }) => {
                    config::show(&config, origin, json)
                }
                // Done above, without settings.
                Command::Config(_) | Command::Completions(_) | Command::Man(_) => {
                    Ok(ExitCode::SUCCESS)
                }
                Command::Store(command) => store::run(command, &config).await,
            }
        }
        .instrument(span),
    );
    if let Some(traces) = traces {
        traces.stop();
    }
    // A blocking call that still runs, such as reading a terminal, does not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    code
}

/// Ends when the process is asked to: SIGTERM or Ctrl-C.
async fn asked_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let interrupt = tokio::signal::ctrl_c();
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = interrupt => {}
                _ = terminate.recv() => {}
            }
        }
        Err(error) => {
            tracing::warn!(%error, "SIGTERM cannot be caught");
            let _ = interrupt.await;
        }
    }
}
