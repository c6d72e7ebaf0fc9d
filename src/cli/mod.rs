//! The command line, in three layers: `commands/`, one file a subcommand; what they share, from
//! flags to following a job (`submit.rs`, `follow.rs`, ..); and `results/`, which shows what each
//! kind of job gave. Data go to standard output, everything else to standard error.

#![deny(clippy::print_stdout, clippy::print_stderr)] // output.rs prints

// First, for its macros.
#[macro_use]
mod output;

mod change;
mod commands;
mod connection;
mod engines;
mod flags;
mod follow;
mod host;
mod joined;
mod key_statistics;
mod layer;
mod layers;
mod model_folder;
mod named_ref;
mod names;
mod receipt_file;
mod results;
mod signals;
mod submit;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing::Instrument;

use commands::{
    audit, auth, branch, cherry_pick, completions, config, console, diff, doctor, edit, eval,
    export, generate, guide, job, local, locate, log, man, model, refs, revert, rollback, serve,
    show, sign, stats, status, store, tag, trace, verify_manifest, verify_receipt, worker,
};
use flags::{Flags, flag};

use crate::config::Config;
use crate::telemetry;

/// Finds where a language model keeps a fact, rewrites it, and never loses the page.
#[derive(Debug, Parser)]
#[command(name = "palimpsest", version, max_term_width = 100)]
#[command(
    after_help = "'palimpsest guide' lists the guides, from the first hour on; \
                        'palimpsest guide when-it-fails' says of each error what it means and what to do."
)]
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
    /// Run a coordinator and a worker for the programs of one user on this machine
    Local(local::Args),
    /// Look, edit and roll back in a browser
    Console(console::Args),
    /// Make certificates, tokens and signing keys
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
    Rollback(rollback::Args),
    /// Take an edit out of a branch
    Revert(revert::Args),
    /// Add an edit of another branch
    CherryPick(cherry_pick::Args),
    /// Name a version for good
    Tag(tag::Args),
    /// Begin another line of versions
    Branch(branch::Args),
    /// Show tags and branches
    Refs(refs::Args),
    /// Write a version as files that other programs load
    Export(export::Args),
    /// Sign a version that you made
    Sign(sign::Args),
    /// Show who changed what, and prove it
    #[command(subcommand)]
    Audit(audit::Command),
    /// Check a receipt of 'palimpsest job receipt', with nothing but a key
    VerifyReceipt(verify_receipt::Args),
    /// Check what an author signed, and the files that it is of, with nothing but a key
    VerifyManifest(verify_manifest::Args),
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
    /// Read the guides: the first hour, the words, what to do when something fails
    Guide(guide::Args),
    /// Print what a shell completes this program by
    Completions(completions::Args),
    /// Write the manual
    Man(man::Args),
    /// Verify, rebuild, back up and clean the store
    #[command(subcommand)]
    Store(store::Command),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(said) => return shown(&said),
    };
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    #[cfg(feature = "torch")]
    if match &cli.command {
        // The console's worker computes for as long as it is open.
        Command::Local(_) | Command::Console(_) => true,
        Command::Worker(args) => args.works(),
        _ => false,
    } {
        // Comes back only where it cannot be done, and then other workers wait longer, no more.
        let _ = crate::worker::wait_asleep();
    }
    let ended = run(cli, &matches).and_then(|code| {
        output::flush()?;
        Ok(code)
    });
    code_of(ended)
}

/// What the command line itself answers: help, the version, or what is wrong with it.
fn shown(said: &clap::Error) -> ExitCode {
    let code = u8::try_from(said.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
    let printed = said.print().map_err(output::Error::from);
    code_of(
        printed
            .and_then(|()| output::flush())
            .map(|()| code)
            .map_err(Into::into),
    )
}

fn code_of(ended: anyhow::Result<ExitCode>) -> ExitCode {
    match ended {
        Ok(code) => code,
        Err(error) if output::is_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::say_error(&error);
            ExitCode::FAILURE
        }
    }
}

/// What names a command: `job list`.
fn words(matches: &ArgMatches) -> String {
    let words = std::iter::successors(matches.subcommand(), |(_, it)| it.subcommand());
    words.map(|(name, _)| name).collect::<Vec<_>>().join(" ")
}

/// The command line, with the flags of the connection where a command talks to a coordinator.
fn command() -> clap::Command {
    Cli::command().mut_subcommands(|of| {
        // These run one, or need none.
        let alone = [
            "serve",
            "local",
            "auth",
            "config",
            "guide",
            "completions",
            "man",
            "store",
            "verify-receipt",
            "verify-manifest",
        ];
        match alone.contains(&of.get_name()) {
            true => of,
            false => connection::with_flags(of),
        }
    })
}

/// Runs a command, which `matches` came of.
fn run(cli: Cli, matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let name = words(matches);
    let mut flags = Flags::new();
    let is_server = match &cli.command {
        Command::Serve(_) | Command::Local(_) => true,
        Command::Worker(args) => args.works(),
        _ => false,
    };
    flag(&mut flags, "log.filter", &cli.log);
    connection::flags(matches, &mut flags)?;
    match &cli.command {
        Command::Serve(args) => args.flags(&mut flags),
        Command::Local(args) => args.flags(&mut flags),
        Command::Worker(args) => args.flags(&mut flags),
        Command::Store(command) => command.flags(&mut flags),
        // These need no settings: they are to work where the settings do not.
        Command::Config(config::Command::Reference { format }) => return config::reference(format),
        Command::Guide(args) => return guide::run(args),
        Command::Completions(args) => return completions::run(args, command()),
        Command::Man(args) => return man::run(args, command()),
        Command::VerifyReceipt(args) => return verify_receipt::run(args),
        Command::VerifyManifest(args) => return verify_manifest::run(args),
        _ => {}
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
        Command::Serve(_) | Command::Local(_) => "coordinator",
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
                Command::Local(args) => local::run(args, config).await,
                Command::Worker(args) => worker::run(args, config).await,
                Command::Console(args) => console::run(args, &config.client).await,
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
                Command::Rollback(args) => rollback::run(args, &config.client).await,
                Command::Revert(args) => revert::run(args, &config.client).await,
                Command::CherryPick(args) => cherry_pick::run(args, &config.client).await,
                Command::Tag(args) => tag::run(args, &config.client).await,
                Command::Branch(args) => branch::run(args, &config.client).await,
                Command::Refs(args) => refs::run(args, &config.client).await,
                Command::Export(args) => export::run(args, &config.client).await,
                Command::Sign(args) => sign::run(args, &config.client).await,
                Command::Audit(command) => audit::run(command, &config.client).await,
                Command::Job(command) => job::run(command, &config.client).await,
                Command::Status(args) => status::run(args, &config.client).await,
                Command::Doctor(args) => doctor::run(&args, &config).await,
                Command::Config(config::Command::Show { origin, json }) => {
                    config::show(&config, origin, json)
                }
                // Done above, without settings.
                Command::Config(_)
                | Command::Guide(_)
                | Command::Completions(_)
                | Command::Man(_)
                | Command::VerifyReceipt(_)
                | Command::VerifyManifest(_) => Ok(ExitCode::SUCCESS),
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_printed_but_through_output() {
        fn look(folder: &std::path::Path) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    look(&path);
                    continue;
                }
                let source = std::fs::read_to_string(&path).unwrap_or_default();
                // This test names them.
                let allowed = ["src/cli/output.rs", "src/cli/mod.rs"];
                if allowed.iter().any(|allowed| path.ends_with(allowed)) {
                    continue;
                }
                for stream in ["stdout()", "stderr().lock()", "stderr().write"] {
                    assert!(!source.contains(stream), "{}: {stream}", path.display());
                }
            }
        }
        look(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli"));
    }

    #[test]
    fn every_command_says_what_it_is_about_in_words_of_its_own() {
        fn look(command: &clap::Command, seen: &mut std::collections::BTreeSet<String>) {
            for one in command
                .get_subcommands()
                .filter(|it| it.get_name() != "help")
            {
                let about = one.get_about().map(ToString::to_string).unwrap_or_default();
                let name = one.get_name();
                assert!(
                    !about.is_empty() && !about.starts_with("Flags"),
                    "{name}: {about}"
                );
                assert!(
                    seen.insert(about.clone()),
                    "{name} says what another says: {about}"
                );
                look(one, seen);
            }
        }
        look(&command(), &mut std::collections::BTreeSet::new());
    }

    #[test]
    fn every_command_that_talks_to_a_coordinator_takes_the_flags_of_the_connection() {
        fn look(command: &clap::Command, path: &str, without: &mut Vec<String>) {
            let path = format!("{path} {}", command.get_name());
            let has = command.get_arguments().any(|it| it.get_id() == "server");
            if !has {
                without.push(path.clone());
            }
            for of in command.get_subcommands() {
                look(of, &path, without);
            }
        }
        let command = command();
        command.clone().debug_assert();
        let mut without = Vec::new();
        for of in command.get_subcommands() {
            look(of, "", &mut without);
        }
        let alone = [
            "serve",
            "local",
            "auth",
            "config",
            "guide",
            "completions",
            "man",
            "store",
            "verify-receipt",
            "verify-manifest",
        ];
        // What has subcommands and does nothing itself has none either.
        let groups = ["worker", "model", "stats", "audit", "job"];
        without.retain(|path| {
            let words: Vec<&str> = path.split_whitespace().collect();
            let group = words.len() == 1 && groups.contains(&words[0]);
            !alone.contains(&words[0]) && !group
        });
        assert!(without.is_empty(), "{without:?}");
    }

    /// What is wrong with a command as a text has it: `palimpsest job list --json`.
    fn wrong(command: &clap::Command, line: &str) -> Option<String> {
        let mut words = line.split_whitespace().skip(1).peekable();
        let (mut at, mut inside) = (command, true);
        let mut known: Vec<&clap::Arg> = command.get_arguments().collect();
        while let Some(word) = words.next() {
            match word.trim_matches(|c: char| !c.is_alphanumeric() && c != '-') {
                flag if flag.starts_with("--") => {
                    let name = flag.trim_start_matches('-').split('=').next();
                    let found = known.iter().find(|arg| arg.get_long() == name);
                    let takes = match found {
                        Some(arg) => arg.get_action().takes_values(),
                        None if name == Some("help") || name == Some("version") => false,
                        None => return Some(format!("{flag} is no flag of {}", at.get_name())),
                    };
                    if takes && inside && at.has_subcommands() {
                        words.next();
                    }
                }
                "" => {}
                word if inside && at.has_subcommands() => match at.find_subcommand(word) {
                    Some(found) => {
                        at = found;
                        known.extend(at.get_arguments());
                    }
                    None if at.is_subcommand_required_set() => {
                        return Some(format!("{word} is no command of {}", at.get_name()));
                    }
                    None => inside = false,
                },
                _ => inside = false,
            }
        }
        None
    }

    #[test]
    fn commands_of_the_guides_and_the_readme_are_of_this_command_line() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
        let mut command = command();
        command.build();
        let guides = crate::guide::GUIDES.iter().map(|it| (it.name, it.text));
        let mut seen = 0;
        for (name, text) in guides.chain([("README", readme.as_str())]) {
            let text = text.replace("\\\n", " ");
            let commands = text
                .split(['`', '\n', '|', '&', '(', '#'])
                .filter(|code| code.starts_with("palimpsest "));
            for line in commands {
                let found = wrong(&command, line);
                assert!(found.is_none(), "{name}: {line}: {}", found.unwrap());
                seen += 1;
            }
        }
        assert!(seen > 80, "only {seen} commands were found");
    }

    #[test]
    fn a_command_that_there_is_not_is_found_out() {
        let mut command = command();
        command.build();
        assert_eq!(
            wrong(&command, "palimpsest --config c.toml job list --json"),
            None
        );
        assert_eq!(
            wrong(&command, "palimpsest trace \"a list\" --noise 0.3"),
            None
        );
        assert!(wrong(&command, "palimpsest job lost").is_some());
        assert!(wrong(&command, "palimpsest job list --jsn").is_some());
    }
}
