//! Every setting of every program, and the only place that reads the environment.
//!
//! A setting has a key, `section.name`, and takes its value from the last of these that has one:
//!
//! 1. its default;
//! 2. a variable that means the same everywhere: `NO_COLOR` for `log.color`, `USER` or `LOGNAME` for
//!    `client.user`, Slurm's `SLURM_JOB_END_TIME` for `worker.valid_until`;
//! 3. the file: the one named by `--config`, else `palimpsest.toml` in the working folder, else
//!    `palimpsest/palimpsest.toml` in `$XDG_CONFIG_HOME` (`~/.config`);
//! 4. the variable `PALIMPSEST__SECTION__NAME`;
//! 5. a flag.
//!
//! What the environment says of terminals is read here too ([`terminal_convention`]), but is no
//! setting.
//!
//! A key that does not exist and a value that cannot be are errors, wherever they stand. An empty
//! value of an optional setting leaves it unset.

mod check;
mod error;
mod folders;
mod layers;
mod listen;
mod setting;
#[cfg(test)]
mod tests;
mod value;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::folders::Folders;
use self::layers::Layers;
use self::setting::redacted;

pub use self::error::Error;
pub use self::listen::Listen;
pub use self::setting::{Origin, Setting};
pub use self::value::{
    Address, Addresses, BucketUrl, Color, Device, HostNames, LogFormat, LogPlace, Memory, Size,
    Weights, WorkerId, parse_duration, parse_size,
};

/// Declares the sections: each a struct whose fields are settings, with their documentation and
/// defaults, and the table of all of them.
macro_rules! settings {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $config:ident {
            $($(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:literal,)+
        }
    )+) => {
        $(
            $(#[doc = $section_doc])+
            #[derive(Clone, Debug, PartialEq)]
            pub struct $config {
                $(
                    $(#[doc = $doc])+
                    #[doc = concat!("\n\nDefault: `", $default, "`.")]
                    pub $name: $type,
                )+
            }

            impl $config {
                fn read(layers: &Layers) -> Result<Self, Error> {
                    Ok(Self {
                        $($name: layers.value(concat!(stringify!($section), ".", stringify!($name)))?,)+
                    })
                }
            }
        )+

        /// Every setting, in the order in which a file would list them.
        pub const SETTINGS: &[Setting] = &[
            $($(Setting {
                key: concat!(stringify!($section), ".", stringify!($name)),
                default: $default,
                doc: concat!($($doc, "\n",)+),
            },)+)+
        ];

        /// Every section, and what it is for.
        pub const SECTIONS: &[(&str, &str)] = &[
            $((stringify!($section), concat!($($section_doc, "\n",)+)),)+
        ];

        /// All settings, read and checked.
        #[derive(Clone, Debug)]
        pub struct Config {
            $($(#[doc = $section_doc])+ pub $section: $config,)+
            values: BTreeMap<&'static str, (String, Origin)>,
        }

        impl Config {
            fn read(layers: Layers) -> Result<Self, Error> {
                let config = Self {
                    $($section: $config::read(&layers)?,)+
                    values: layers.resolved(),
                };
                config.check(&layers)?;
                Ok(config)
            }
        }
    };
}

settings! {
    /// Settings of the coordinator, `palimpsest serve`.
    serve: ServeConfig {
        /// The address and port that the coordinator listens on. Beyond this machine it needs TLS
        /// (`serve.tls_certificate`), or `serve.insecure`. Or a socket, as `unix:PATH`: on this
        /// machine, for the user of the coordinator alone, and without TLS.
        listen: Listen = "127.0.0.1:7461",
        /// The coordinator's certificate, with those between it and the authority: a PEM file.
        /// Read again on SIGHUP.
        tls_certificate: Option<PathBuf> = "",
        /// The key of that certificate: a PEM file. Read again on SIGHUP.
        tls_key: Option<PathBuf> = "",
        /// The authorities whose certificates callers may show: a PEM file. A certificate names
        /// its role and principal in a URI, `palimpsest://ROLE/PRINCIPAL`. Read again on SIGHUP.
        client_ca: Option<PathBuf> = "",
        /// The tokens that callers may show, as `palimpsest auth token` writes them; read again
        /// whenever it changes. With neither this nor `serve.client_ca`, whoever reaches the
        /// coordinator may do everything.
        tokens: Option<PathBuf> = "",
        /// Listen beyond this machine without TLS, or without asking who calls: on a network that
        /// others keep. `true` or `false`.
        insecure: bool = "false",
        /// Where grpc.health.v1 is served without TLS as well, for probes that speak none.
        health_listen: Option<SocketAddr> = "",
        /// Where workers connect, if not where everybody does: with the same certificate, and under
        /// the rules of `serve.listen`. Workers are then refused at `serve.listen`, and all others
        /// here.
        worker_listen: Option<SocketAddr> = "",
        /// Where the console is served to browsers, under the rules of `serve.listen` and with the
        /// same certificate. Workers are refused there. Unset, it is not; `palimpsest console`
        /// brings it up on a user's own machine.
        web_listen: Option<SocketAddr> = "",
        /// Names that browsers may call the console by, beside `localhost`, the address, and those
        /// of the certificate, as `lab.example,console.lab.example`: a proxy's in front of it.
        /// Other names are refused, so that no site can have its own name point here.
        web_hosts: HostNames = "",
        /// Where Prometheus fetches the coordinator's metrics, at `/metrics`, without TLS. Unset,
        /// none are kept.
        metrics_listen: Option<SocketAddr> = "",
        /// Requests a second that a principal may send, and as many at once after a pause; more are
        /// refused, with the time to wait. Workers are not counted, nor are callers of whom nothing
        /// is asked. At least 1.
        requests_per_second: u32 = "1000",
        /// Streams (calls under way) that a connection may have at a time. 1 to 100000.
        streams_per_connection: u32 = "256",
        /// Streams (calls under way) that a principal may have at a time, over all its connections.
        /// Those of workers, and of an address where nobody is asked who they are, are bounded by
        /// four times `serve.max_connections`. 1 to 1000000.
        streams_per_principal: u32 = "1000",
        /// Connections that may be open at a time; more are closed at once. No principal gets more
        /// than a quarter of them, workers three. Fewer where the system lets the process open too
        /// few files for them and the store. 1 to 1000000.
        max_connections: u32 = "4096",
        /// The folder of everything that the coordinator keeps.
        store: PathBuf = "$XDG_DATA_HOME/palimpsest",
        /// How often a worker says that it lives. Duration, 100 ms to 10 min.
        heartbeat_interval: Duration = "5s",
        /// How long a worker may be silent before it counts as lost and its leases are given to
        /// others. Duration, at least three heartbeat intervals.
        lease_duration: Duration = "30s",
        /// Counted failures (transient, out of memory) after which a task has failed. At least 1.
        max_attempts: u32 = "4",
        /// Distinct workers lost on a task, each before it had any result of it, after which the
        /// task is poison and held in quarantine. At least 1.
        poison_workers: u32 = "3",
        /// How long a task should run on the worker that gets it: jobs are cut by the speed that
        /// was measured of the workers. Duration, 1 s to 1 h.
        task_time: Duration = "20s",
        /// How much of the workers each owner of jobs is due against the others, as
        /// `alice=3,bob=0.5`. An owner who is not named has 1.
        owner_weights: Weights = "",
        /// How much older a job must be to go before one whose priority is higher by one, both
        /// of one owner. Duration; `0s` lets the priority alone decide.
        priority_age: Duration = "10m",
        /// How long a job lets workers pass to other jobs whose model they have loaded. Duration.
        affinity_wait: Duration = "10s",
        /// Whether the last tasks of a job are given to a second worker when they take three
        /// times longer than the others did. `true` or `false`.
        speculate: bool = "true",
        /// Jobs of one owner that may be open at a time. At least 1.
        max_open_jobs: u32 = "1000",
        /// Units (facts times kinds, prompts) of one owner's open jobs. At least 1.
        max_open_units: u32 = "50000000",
        /// How long requests that are under way may take to finish when the coordinator is told
        /// to stop. Duration.
        shutdown_grace: Duration = "1s",
    }
    /// Settings of a worker, `palimpsest worker`.
    worker: WorkerConfig {
        /// The coordinator's address; `https://` for TLS, `unix:PATH` for a socket. Where several
        /// follow one log, all of theirs, separated by commas.
        coordinator: Addresses = "http://127.0.0.1:7461",
        /// The authority that vouches for the coordinator: a PEM file, needed with `https://`.
        ca: Option<PathBuf> = "",
        /// The certificate that the worker shows: a PEM file.
        certificate: Option<PathBuf> = "",
        /// The key of that certificate: a PEM file.
        key: Option<PathBuf> = "",
        /// A file with the token that the worker shows, alone. It is shown over TLS.
        token_file: Option<PathBuf> = "",
        /// Show the token without TLS to a coordinator on this machine. A `token_file` of the
        /// environment, which is set for the process that is started, counts as that choice.
        insecure: bool = "false",
        /// The device that computes: `auto` (the first GPU, or the CPU where there is none),
        /// `cpu`, `cuda` or `cuda:N`. Several of a kind, as `cuda:0,cuda:1`, or `all` (every GPU, or
        /// the CPU where there is none) or `cuda:all`: the blocks of a model are spread over them.
        device: Device = "auto",
        /// Whether each device that is named has a model of its own, and works on leases of its own, in
        /// place of a part of one. `true` or `false`.
        per_device: bool = "false",
        /// Try the device before the first lease is taken, by what must be right of `palimpsest doctor
        /// --bench`, and end where something is not.
        try_device: bool = "false",
        /// Threads of a CPU operation; 0 means one for every core, which with `per_device` the
        /// devices share.
        threads: u32 = "0",
        /// Memory for the activations of a batch, beside the weights: a size with its unit, as
        /// `4GiB`, or `auto`: 256 MiB on a CPU, 4 GiB on a GPU.
        memory: Memory = "auto",
        /// The folder of objects (weights) that were fetched from the coordinator.
        cache: PathBuf = "$XDG_CACHE_HOME/palimpsest/objects",
        /// Most bytes that the folder may take: a size with its unit, as `50GiB`. What was used
        /// longest ago is removed for what comes, and fetched again when it is needed; what leases
        /// use stays, whatever this says, so let two models fit. Workers that share the folder
        /// should say the same. Unset, nothing is removed.
        cache_size: Option<Size> = "",
        /// The worker's name: lower-case letters, digits, `.`, `_` and `-`, at most 63. Made up
        /// when it is unset. A worker that is started again needs another.
        id: Option<WorkerId> = "",
        /// Leases that the worker is willing to hold at a time: one that it works on, and those
        /// that wait meanwhile. 1 to 1000.
        credits: u32 = "2",
        /// How long a running task may go on after the worker was asked to leave; what is not
        /// done by then is handed back. Duration.
        drain_timeout: Duration = "25s",
        /// When the worker will be taken away: RFC 3339, or seconds since 1970. It takes no work
        /// that would not be done by then.
        valid_until: Option<jiff::Timestamp> = "",
        /// How long the worker stays with nothing to do before it leaves, as a batch job should;
        /// unset, it stays. Duration.
        idle_exit: Option<Duration> = "",
        /// Where Prometheus fetches the worker's metrics, at `/metrics`, without TLS. Unset, none
        /// are kept.
        metrics_listen: Option<SocketAddr> = "",
    }
    /// Settings of the commands that ask for work.
    client: ClientConfig {
        /// The coordinator's address; `https://` for TLS, `unix:PATH` for a socket. Where several
        /// follow one log, all of theirs, separated by commas. Unset, the command runs a coordinator
        /// and a worker inside itself, or joins a `palimpsest local` that has the store.
        server: Option<Addresses> = "",
        /// How long a command waits at its start for a coordinator that refuses connections or does
        /// not answer, as while another takes over. Duration; unset, a minute where several are
        /// named, and not at all where one is, which is more likely a mistake. So long it waits also
        /// for one that goes away while a job is followed; unset, ten minutes.
        patience: Option<Duration> = "",
        /// The authority that vouches for the coordinator: a PEM file, needed with `https://`.
        ca: Option<PathBuf> = "",
        /// The certificate that the command shows: a PEM file.
        certificate: Option<PathBuf> = "",
        /// The key of that certificate: a PEM file.
        key: Option<PathBuf> = "",
        /// A file with the token that the command shows, alone. It is shown over TLS.
        token_file: Option<PathBuf> = "",
        /// Show the token without TLS to a coordinator on this machine. A `token_file` of the
        /// environment, which is set for the process that is started, counts as that choice.
        insecure: bool = "false",
        /// The folder of everything that the coordinator inside the command keeps.
        store: PathBuf = "$XDG_DATA_HOME/palimpsest",
        /// The device of the worker inside the command, as `worker.device` says it.
        device: Device = "auto",
        /// Whether each of its devices has a model and leases of its own, as `worker.per_device` has
        /// it: `cpu,cpu` with this does the units of two tasks at a time. `true` or `false`.
        per_device: bool = "false",
        /// Threads of a CPU operation of that worker; 0 means one for every core, which with
        /// `per_device` the devices share.
        threads: u32 = "0",
        /// Memory for the activations of that worker's batches: a size with its unit, or `auto`.
        memory: Memory = "auto",
        /// Who asks, for the audit log; the user of the system where it is unset.
        user: Option<String> = "",
        /// Where the coordinator's console is, as `https://lab.example:7464`: links to its pages are
        /// then shown. Unset, none are.
        console: Option<Address> = "",
    }
    /// What edits must pass before a branch takes them: an edit that fails is kept in the history
    /// as rejected, with its figures. Flags of `palimpsest edit` go before the settings of the
    /// command, and those before the settings of the coordinator.
    edit: EditConfig {
        /// Least margin of the new answer's probability over the true one's, a token. -1 to 1;
        /// unset, there is no such gate.
        min_efficacy: Option<f64> = "",
        /// Most drift of what follows the neighbouring prompts: the mean KL divergence of the next
        /// token, in nats. 0 or more; unset, there is no such gate.
        max_drift: Option<f64> = "",
        /// Most norm of the change, in norms of the matrix. 0 or more; unset, there is no such
        /// gate.
        max_norm: Option<f64> = "",
        /// A change of more of the matrix's norm is taken with a warning, which the edit keeps. 0
        /// or more; 0.5 where neither the command nor the coordinator sets it.
        warn_norm: Option<f64> = "",
        /// Most perplexity of `gate_texts` after the edit, in that before it: 1.02 allows two
        /// hundredths more. 0 or more; unset, there is no such gate.
        max_ppl_ratio: Option<f64> = "",
        /// Texts whose perplexity edits are measured by: a JSON list, or one a line; up to 1,000 of
        /// 1 MiB in all. A coordinator reads them when it starts and judges every edit by them,
        /// whichever texts a request brings of its own.
        gate_texts: Option<PathBuf> = "",
        /// Least share of the neighbouring prompts after which the true answer stays the likelier
        /// one, of those after which it was before the edit. 0 to 1; unset, there is no such gate.
        min_locality: Option<f64> = "",
    }
    /// Settings of the coordinator's store, also of one inside a command.
    store: StoreConfig {
        /// Most bytes that the objects may take when clients upload more: a size with its unit, as
        /// `500GiB`. Unset, the disk is the limit. Results of accepted work are kept whatever this
        /// says. With a bucket, what that has is counted: it is listed for every upload.
        quota: Option<Size> = "",
        /// The S3-compatible bucket in which the objects are, as `s3://NAME/PREFIX`; the prefix is
        /// this store's alone. The store's folder then holds copies of those that were used.
        /// Unset, they are in the folder. 'palimpsest store push' and 'pull' move a store's objects
        /// from one to the other.
        bucket: Option<BucketUrl> = "",
        /// Most bytes that those copies may take: a size with its unit, as `50GiB`. What was used
        /// longest ago is removed for what comes, and fetched from the bucket when it is needed;
        /// the files of the models that were edited last stay open, whatever this says. Unset,
        /// nothing is removed.
        cache_size: Option<Size> = "",
        /// Where the log is, which has all that was acknowledged: in the store's `folder`, or in the
        /// `bucket`. There several coordinators may follow it, one of which leads; the folder has a
        /// copy. 'palimpsest store push --with-log' and 'pull' move it from one to the other.
        log: LogPlace = "folder",
        /// How long a coordinator that leads may write nothing to a log in the bucket before another
        /// takes over; it writes four times as often. Duration, 1s to 10min.
        takeover: Duration = "6s",
        /// The address of the bucket's server, as `https://minio.example:9000`. Unset, AWS's for
        /// the region. Over `http://` others on the way can read the objects.
        endpoint: Option<Address> = "",
        /// The region that requests to the bucket are signed for.
        region: String = "us-east-1",
        /// The file with the bucket's key, as AWS's tools write it: `aws_access_key_id = ...` and
        /// `aws_secret_access_key = ...`, perhaps `aws_session_token = ...`, in the profile
        /// `default` or none. Needed with a bucket. Read at the start.
        credentials: Option<PathBuf> = "",
        /// The authorities that vouch for the bucket's server, beside the system's: a PEM file.
        ca: Option<PathBuf> = "",
        /// How long a request to the bucket, of 8 MiB at most, may take. One that fails is
        /// repeated up to three times, and given up after twice this. Duration, 100ms to 10min.
        timeout: Duration = "20s",
    }
    /// Settings of what every program logs, to its standard error.
    log: LogConfig {
        /// What is logged: a level (`error`, `warn`, `info`, `debug`, `trace`, `off`), or
        /// `module=level` pairs separated by commas. `debug` and `trace` are of Palimpsest itself,
        /// its libraries by their names: `debug,h2=debug`.
        filter: String = "info",
        /// `text` for people, `json` for programs, one object a line.
        format: LogFormat = "text",
        /// Colours in text: `auto` (on a terminal), `always` or `never`.
        color: Color = "auto",
        /// The OpenTelemetry collector that traces are sent to, by OTLP over gRPC, as
        /// `http://127.0.0.1:4317`; `https://` for TLS. Unset, there are none. A collector that is
        /// away holds up nothing. What it wants to be sent with each request, a key say, stands in
        /// the variable `OTEL_EXPORTER_OTLP_HEADERS`, as `name=value,name=value`.
        otlp_endpoint: Option<Address> = "",
        /// The authorities that vouch for the collector: a PEM file. Unset, the system's.
        otlp_ca: Option<PathBuf> = "",
        /// Which part of the commands and calls that nobody else traces is traced: 0 to 1.
        otlp_part: f64 = "1",
    }
}

impl Config {
    /// Reads the settings. `file` is that of `--config`; `flags` are keys with their values, the
    /// last of a key counts.
    ///
    /// # Errors
    /// [`Error`] names the setting, its value, where it stands and what it should be.
    pub fn load(file: Option<&Path>, flags: &[(String, String)]) -> Result<Self, Error> {
        let environment = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
            .map(|(name, value)| match value.into_string() {
                Ok(value) => Ok(Some((name, value))),
                Err(value) if name.to_ascii_uppercase().starts_with("PALIMPSEST__") => {
                    Err(Error::Unreadable {
                        origin: format!("the variable {name}"),
                        problem: format!("{value:?} is not Unicode"),
                    })
                }
                Err(_) => Ok(None),
            })
            .filter_map(Result::transpose)
            .collect::<Result<_, _>>()?;
        Self::load_with(environment, Path::new(""), file, flags)
    }

    /// [`Config::load`] in this environment and working folder.
    fn load_with(
        environment: HashMap<String, String>,
        folder: &Path,
        file: Option<&Path>,
        flags: &[(String, String)],
    ) -> Result<Self, Error> {
        let folders = Folders::new(&environment);
        let found = match file {
            Some(path) if !path.is_file() => return Err(Error::NoFile { path: path.into() }),
            Some(path) => Some(path.to_owned()),
            None => [
                Some(folder.join("palimpsest.toml")),
                folders
                    .config
                    .as_ref()
                    .map(|folder| folder.join("palimpsest/palimpsest.toml")),
            ]
            .into_iter()
            .flatten()
            .find(|path| path.is_file()),
        };
        let mut layers = Layers::new(SETTINGS, folders);
        layers.add_conventions(&environment)?;
        if let Some(path) = found {
            layers.add_file(&path)?;
        }
        layers.add_environment(environment)?;
        for (key, value) in flags {
            layers.set(key, value.clone(), Origin::Flag)?;
        }
        layers.take_tokens_as_chosen()?;
        Self::read(layers)
    }

    /// Where the value of a setting stands; none if no setting has this key.
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.values.get(key).map(|(_, origin)| origin)
    }

    /// The value of a setting as one would write it, with the user's folders in place of what
    /// stands for them, and without what is secret in it; empty when it is unset or there is none
    /// of this key.
    pub fn shown(&self, key: &str) -> String {
        self.values
            .get(key)
            .map(|(text, _)| redacted(text))
            .unwrap_or_default()
    }
}

/// A variable by which the environment says how terminals are to be written to, whatever the
/// program: `NO_COLOR`, `CLICOLOR`, `CLICOLOR_FORCE`, `COLORTERM` or `TERM`. They are no settings.
pub fn terminal_convention(name: &str) -> Option<std::ffi::OsString> {
    let known = [
        "NO_COLOR",
        "CLICOLOR",
        "CLICOLOR_FORCE",
        "COLORTERM",
        "TERM",
    ];
    known.contains(&name).then(|| std::env::var_os(name))?
}
