//! `palimpsest doctor`: what is wrong here, and what to do about it.
#![allow(clippy::disallowed_methods)] // this machine's clock is one of the things that are checked

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::cli::commands::store::options;
use crate::cli::connection::credentials;
use crate::cli::output;
use crate::client::{Client, Credentials};
use crate::config::{self, Addresses, Config, Origin};
use crate::objects::Bucket;
use crate::proto::v1;
use crate::store;

/// Free bytes of a disk under which little more can be done, and under which nothing can.
const LITTLE: u64 = 5 << 30;
const NOTHING: u64 = 256 << 20;
/// How far clocks may differ: certificates and tokens end by them, and people compare times of
/// logs.
const CLOCKS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// How long a coordinator may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Flags of `doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One JSON object a check
    #[arg(long)]
    json: bool,
    /// Try the device as well (--device): grids, an edit and key statistics of random models, held
    /// against the same computed another way, and how fast it is (a minute or more)
    #[arg(long)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// What was looked at, and how it is.
#[derive(Debug, Serialize)]
struct Finding {
    check: String,
    verdict: Verdict,
    found: String,
    /// What to do; none when all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, check: &str, found: impl Into<String>) {
        self.add(check, Verdict::Ok, found, None);
    }

    fn warn(&mut self, check: &str, found: impl Into<String>, remedy: &str) {
        self.add(check, Verdict::Warn, found, Some(remedy));
    }

    fn fail(&mut self, check: &str, found: impl Into<String>, remedy: &str) {
        self.add(check, Verdict::Fail, found, Some(remedy));
    }

    fn tell(&self, json: bool) -> anyhow::Result<ExitCode> {
        let names = self.0.iter().map(|finding| finding.check.chars().count());
        let width = names.max().unwrap_or_default();
        for finding in &self.0 {
            if json {
                output::json(finding)?;
                continue;
            }
            let verdict = format!("{:?}", finding.verdict).to_uppercase();
            show!("{verdict:<5} {:<width$} {}", finding.check, finding.found)?;
            if let Some(remedy) = &finding.remedy {
                show!("      {:<width$} to help: {remedy}", "")?;
            }
        }
        let worst = self.0.iter().map(|finding| finding.verdict).max();
        Ok(match worst {
            Some(Verdict::Fail) => ExitCode::FAILURE,
            _ => ExitCode::SUCCESS,
        })
    }

    fn add(
        &mut self,
        check: &str,
        verdict: Verdict,
        found: impl Into<String>,
        remedy: Option<&str>,
    ) {
        self.0.push(Finding {
            check: check.to_owned(),
            verdict,
            found: found.into(),
            remedy: remedy.map(str::to_owned),
        });
    }
}

/// Looks at everything that can be looked at, and prints how it is. Succeeds unless something
/// fails.
pub async fn run(args: &Args, config: &Config) -> anyhow::Result<ExitCode> {
    let mut findings = Findings::default();
    findings.ok("configuration", sources(config));
    engine(&mut findings);
    if args.bench {
        let (device, together) = (config.client.device.as_str(), !config.client.per_device);
        bench(&mut findings, device, together).await?;
    }
    stores(&mut findings, config);
    disks(&mut findings, config);
    bucket(&mut findings, config).await?;
    coordinators(&mut findings, config).await;
    findings.tell(args.json)
}

/// What can be said where the settings cannot be read: nothing else is known then.
pub fn without_settings(args: &Args, error: &config::Error) -> anyhow::Result<ExitCode> {
    let mut findings = Findings::default();
    let remedy = "correct it; 'palimpsest config reference' prints what there is to set";
    findings.fail("configuration", error.to_string(), remedy);
    engine(&mut findings);
    findings.tell(args.json)
}

/// Where the settings come from.
fn sources(config: &Config) -> String {
    let mut named: Vec<String> = Vec::new();
    let mut set = 0;
    for setting in config::SETTINGS {
        match config.origin(setting.key) {
            None | Some(Origin::Default) => {}
            Some(origin) => {
                set += 1;
                let origin = origin.to_string();
                if matches!(config.origin(setting.key), Some(Origin::File(_)))
                    && !named.contains(&origin)
                {
                    named.push(origin);
                }
            }
        }
    }
    match named.is_empty() {
        true => format!("{set} settings are set, none of them by a file"),
        false => format!("{set} settings are set, by {} and others", named.join(", ")),
    }
}

#[cfg(feature = "torch")]
fn engine(findings: &mut Findings) {
    let found = crate::worker::self_test();
    findings.ok("libtorch", format!("version {}", found.libtorch));
    for (name, rate) in &found.devices {
        let check = format!("device {name}");
        match rate {
            Ok(rate) => {
                let threads = match name.as_str() {
                    "cpu" => format!(" with {} threads", found.threads),
                    _ => String::new(),
                };
                let found = format!("{:.1} GMAC/s in float32{threads}", rate / 1e9);
                findings.ok(&check, found);
            }
            Err(what) => findings.fail(
                &check,
                what,
                "choose another with worker.device; for a GPU, check its driver and its memory",
            ),
        }
    }
    if found.devices.len() == 1 && Path::new("/dev/nvidia0").exists() {
        findings.warn(
            "device cuda",
            "this machine has a GPU that libtorch does not see",
            "build with a libtorch for CUDA: deploy/setup.sh --cuda",
        );
    }
}

/// Tries a device, on a thread of its own: it takes long.
#[cfg(feature = "torch")]
async fn bench(findings: &mut Findings, device: &str, together: bool) -> anyhow::Result<()> {
    use crate::worker::TrialOutcome;

    say!("trying {device} on random models: a minute or more");
    let name = device.to_owned();
    let tried =
        tokio::task::spawn_blocking(move || crate::worker::try_devices(&name, together, true))
            .await?;
    let trials = match tried {
        Ok(trials) => trials,
        Err(error) => {
            let remedy = "name one that 'palimpsest doctor' lists";
            findings.fail(&format!("device {device}"), error.to_string(), remedy);
            return Ok(());
        }
    };
    for trial in trials {
        match trial.outcome {
            TrialOutcome::Right(found) => findings.ok(&trial.name, found),
            TrialOutcome::Wrong(what) => findings.fail(
                &trial.name,
                what,
                "let no worker run there: update the driver, use the libtorch that this program was built for, or another \
                 device; if it stays, report it with this output",
            ),
            TrialOutcome::NotTried(what) => findings.fail(
                &trial.name,
                what,
                "a random model of 0.4 GB goes through the folder for temporary files and this machine's memory: free some, \
                 or name another folder with TMPDIR",
            ),
        }
    }
    Ok(())
}

#[cfg(not(feature = "torch"))]
#[allow(clippy::unused_async)]
async fn bench(findings: &mut Findings, device: &str, _together: bool) -> anyhow::Result<()> {
    let remedy = "use a program that was built with the feature `torch`";
    findings.fail(
        &format!("device {device}"),
        "this program computes nothing",
        remedy,
    );
    Ok(())
}

#[cfg(not(feature = "torch"))]
fn engine(findings: &mut Findings) {
    findings.ok(
        "libtorch",
        "not built in: this program coordinates and asks, and computes nothing",
    );
}

fn stores(findings: &mut Findings, config: &Config) {
    let mut folders: Vec<(&str, &Path)> = vec![("serve.store", &config.serve.store)];
    if config.client.server.is_none() && config.client.store != config.serve.store {
        folders.push(("client.store", &config.client.store));
    }
    for (key, path) in folders {
        let check = format!("store {key}");
        match store::probe(path) {
            Ok(store::Probe { format: None, .. }) => {
                findings.ok(&check, format!("none at {} yet: it is made when it is needed", path.display()));
            }
            Ok(store::Probe {
                format: Some(format),
                open,
                checked,
            }) => {
                let open = if open { ", open in another process" } else { "" };
                let at = format!("format {format} at {}{open}", path.display());
                match checked {
                    None => findings.ok(&check, format!("{at}; nobody has verified it yet")),
                    Some(store::Check { time, problems: 0 }) => {
                        findings.ok(&check, format!("{at}; verified {time:.0}: sound"));
                    }
                    Some(store::Check { time, problems }) => findings.fail(
                        &check,
                        format!("{at}; verified {time:.0}: {problems} problems"),
                        "run 'palimpsest store verify' again, then 'palimpsest store rebuild', or \
                         restore a backup",
                    ),
                }
            }
            Err(error) => findings.fail(
                &check,
                error.to_string(),
                "see 'palimpsest store verify' and 'palimpsest store rebuild'; a newer format needs a \
                 newer program",
            ),
        }
    }
}

fn disks(findings: &mut Findings, config: &Config) {
    for (key, path) in [
        ("serve.store", &config.serve.store),
        ("worker.cache", &config.worker.cache),
    ] {
        let check = format!("disk of {key}");
        let folder = existing(path);
        let free = match fs2::available_space(&folder) {
            Ok(free) => free,
            Err(error) => {
                findings.fail(
                    &check,
                    format!("{}: {error}", folder.display()),
                    "name another folder",
                );
                continue;
            }
        };
        // Whatever its bits say, the folder may be on a disk that is read-only.
        if let Err(error) = tempfile::NamedTempFile::new_in(&folder) {
            let found = format!("nothing can be written to {}: {error}", folder.display());
            findings.fail(
                &check,
                found,
                &format!("name another folder with {key}, or allow writing to this one"),
            );
            continue;
        }
        let found = format!("{} free at {}", output::bytes(free), folder.display());
        let remedy = format!(
            "free some, remove what nothing needs with 'palimpsest store gc', or name another \
             folder with {key}"
        );
        match free {
            free if free < NOTHING => findings.fail(&check, found, &remedy),
            free if free < LITTLE => findings.warn(&check, found, &remedy),
            _ => findings.ok(&check, found),
        }
    }
}

/// Asks the bucket, if there is one, whose it is: that needs its address, its key, and both clocks.
async fn bucket(findings: &mut Findings, config: &Config) -> anyhow::Result<()> {
    let Some(settings) = options(&config.store).bucket else {
        return Ok(());
    };
    let url = settings.url();
    let asked = tokio::task::spawn_blocking(|| Bucket::new(settings)?.owner()).await?;
    match asked {
        Ok(None) => findings.ok(
            "bucket",
            format!("{url} answers, and has no store's objects yet"),
        ),
        Ok(Some(_)) => findings.ok(
            "bucket",
            format!("{url} answers, and has a store's objects"),
        ),
        Err(error) => findings.fail(
            "bucket",
            error.to_string(),
            "check store.bucket, store.endpoint, store.region and store.credentials, the network, \
             and this machine's clock",
        ),
    }
    Ok(())
}

/// The folder, or the nearest one above it that there is.
fn existing(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute
        .ancestors()
        .find(|folder| folder.is_dir())
        .map_or_else(|| PathBuf::from("/"), Path::to_owned)
}

async fn coordinators(findings: &mut Findings, config: &Config) {
    let client = &config.client;
    if let Some(server) = &client.server {
        let credentials = credentials(client);
        coordinator(findings, "client.server", server, &credentials).await;
    }
    let worker = &config.worker;
    // Its default names a coordinator that need not be there.
    if config.origin("worker.coordinator") != Some(&Origin::Default) {
        let credentials = Credentials {
            ca: worker.ca.as_deref(),
            certificate: worker.certificate.as_deref().zip(worker.key.as_deref()),
            token_file: worker.token_file.as_deref(),
            insecure: worker.insecure,
        };
        coordinator(
            findings,
            "worker.coordinator",
            &worker.coordinator,
            &credentials,
        )
        .await;
    } else if client.server.is_none() {
        findings.ok(
            "coordinator",
            "none is configured: commands run one inside themselves",
        );
    }
}

async fn coordinator(
    findings: &mut Findings,
    key: &str,
    address: &Addresses,
    credentials: &Credentials<'_>,
) {
    let check = format!("coordinator {key}");
    let asked = async {
        let client = Client::connect_with(address.as_str(), credentials).await?;
        let answer = client.status().get_status(v1::GetStatusRequest {}).await?;
        Ok::<_, anyhow::Error>(answer.into_inner().status.unwrap_or_default())
    };
    let status = match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => {
            let section = key.split('.').next().unwrap_or(key);
            let remedy = format!(
                "check {key}, {section}.ca, {section}.certificate and {section}.token_file, and \
                 that 'palimpsest serve' runs there"
            );
            return findings.fail(&check, output::brief_error(&error), &remedy);
        }
        Err(_) => {
            let found = format!(
                "{} does not answer within {} s",
                address.as_str(),
                PATIENCE.as_secs()
            );
            return findings.fail(
                &check,
                found,
                "check the address, the network and the coordinator's log",
            );
        }
    };
    let caller = status.caller.clone().unwrap_or_default();
    let secure = if address.is_secure() {
        "over TLS"
    } else {
        "without TLS"
    };
    let who = match caller.role.as_str() {
        "" => "it asks nobody who they are".to_owned(),
        role => format!("you are {}, a {role}", caller.principal),
    };
    let found = format!(
        "{} answers {secure}, version {}; {who}",
        address.as_str(),
        status.version
    );
    let ours = env!("CARGO_PKG_VERSION");
    match status.version == ours {
        true => findings.ok(&check, found),
        false => findings.warn(
            &check,
            format!("{found}; this program is version {ours}"),
            "upgrade the older of the two; the contract only grows, so both go on meanwhile",
        ),
    }
    clock(findings, key, &status);
    let violated: Vec<String> = status
        .invariants
        .iter()
        .filter(|invariant| invariant.violations > 0)
        .map(|invariant| invariant.invariant.clone())
        .collect();
    if !violated.is_empty() {
        findings.fail(
            &format!("invariants of {key}"),
            format!("{} were violated", violated.join(", ")),
            "this is a bug: keep the coordinator's log, and run 'palimpsest store verify' when it \
             is stopped",
        );
    }
}

fn clock(findings: &mut Findings, key: &str, status: &v1::Status) {
    let check = format!("clock against {key}");
    let Some(theirs) = status.time.and_then(|time| SystemTime::try_from(time).ok()) else {
        return;
    };
    let ours = SystemTime::now();
    let apart = ours
        .duration_since(theirs)
        .unwrap_or_else(|error| error.duration());
    let found = format!("{:.1} s apart", apart.as_secs_f64());
    let remedy = "set both clocks by NTP: certificates, tokens and valid_until go by them";
    match apart {
        apart if apart > CLOCKS.1 => findings.fail(&check, found, remedy),
        apart if apart > CLOCKS.0 => findings.warn(&check, found, remedy),
        _ => findings.ok(&check, found),
    }
}
