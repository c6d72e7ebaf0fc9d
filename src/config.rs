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
//! What the environment says of terminals is read here too ([`terminal_convention`]), but is no setting.
//!
//! A key that does not exist and a value that cannot be are errors, wherever they stand. An empty
//! value of an optional setting leaves it unset.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use config::{Environment, File, FileFormat, Source, Value, ValueKind};

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file named by `--config` is not there.
    #[error("there is no configuration file {path}: correct --config, or leave it out")]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// The file or the environment cannot be read.
    #[error("cannot read settings from {origin}: {problem}")]
    Unreadable {
        /// The file, or "the environment".
        origin: String,
        /// What is wrong.
        problem: String,
    },
    /// No setting has this key.
    #[error("unknown setting {key:?} in {origin}: {remedy}")]
    Unknown {
        /// The key.
        key: String,
        /// Where it stands.
        origin: Origin,
        /// What may have been meant.
        remedy: String,
    },
    /// The value cannot be.
    #[error("setting {key} = {value:?} in {origin}: {remedy}")]
    Invalid {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// Where the value stands.
        origin: Origin,
        /// What it should be.
        remedy: String,
    },
}

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A file.
    File(PathBuf),
    /// This variable of the environment.
    Environment(String),
    /// A flag of the command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the defaults"),
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Environment(name) => write!(f, "the variable {name}"),
            Self::Flag => f.write_str("a flag"),
        }
    }
}

/// What is known of a setting before anything is read.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// `section.name`.
    pub key: &'static str,
    /// The default as one would write it; empty when unset.
    pub default: &'static str,
    /// What it is, and its unit.
    pub doc: &'static str,
}

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

        /// All settings, read and checked.
        #[derive(Clone, Debug)]
        pub struct Config {
            $($(#[doc = $section_doc])+ pub $section: $config,)+
            origins: BTreeMap<&'static str, Origin>,
        }

        impl Config {
            fn read(layers: Layers) -> Result<Self, Error> {
                let config = Self {
                    $($section: $config::read(&layers)?,)+
                    origins: layers.values.iter().map(|(key, (_, origin))| (*key, origin.clone())).collect(),
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
        /// (`serve.tls_certificate`), or `serve.insecure`.
        listen: SocketAddr = "127.0.0.1:7461",
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
        /// Connections that may be open at a time; more are closed at once. 1 to 1000000.
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
        /// Distinct workers lost on a task after which it is poison and has failed. At least 1.
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
        /// The coordinator's address; `https://` for TLS.
        coordinator: Address = "http://127.0.0.1:7461",
        /// The authority that vouches for the coordinator: a PEM file, needed with `https://`.
        ca: Option<PathBuf> = "",
        /// The certificate that the worker shows: a PEM file.
        certificate: Option<PathBuf> = "",
        /// The key of that certificate: a PEM file.
        key: Option<PathBuf> = "",
        /// A file with the token that the worker shows, alone.
        token_file: Option<PathBuf> = "",
        /// The device that computes: `auto` (the first GPU, or the CPU where there is none),
        /// `cpu`, `cuda` or `cuda:N`.
        device: Device = "auto",
        /// Threads of a CPU operation; 0 means one for every core.
        threads: u32 = "0",
        /// Memory for the activations of a batch, beside the weights: a size with its unit, as
        /// `4GiB`, or `auto`: 256 MiB on a CPU, 4 GiB on a GPU.
        memory: Memory = "auto",
        /// The folder of objects (weights) that were fetched from the coordinator.
        cache: PathBuf = "$XDG_CACHE_HOME/palimpsest/objects",
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
    }
    /// Settings of the commands that ask for work.
    client: ClientConfig {
        /// The coordinator's address. Unset, the command runs a coordinator and a worker inside
        /// itself.
        server: Option<Address> = "",
        /// The authority that vouches for the coordinator: a PEM file, needed with `https://`.
        ca: Option<PathBuf> = "",
        /// The certificate that the command shows: a PEM file.
        certificate: Option<PathBuf> = "",
        /// The key of that certificate: a PEM file.
        key: Option<PathBuf> = "",
        /// A file with the token that the command shows, alone.
        token_file: Option<PathBuf> = "",
        /// The folder of everything that the coordinator inside the command keeps.
        store: PathBuf = "$XDG_DATA_HOME/palimpsest",
        /// The device of the worker inside the command: `auto`, `cpu`, `cuda` or `cuda:N`.
        device: Device = "auto",
        /// Threads of a CPU operation of that worker; 0 means one for every core.
        threads: u32 = "0",
        /// Memory for the activations of that worker's batches: a size with its unit, or `auto`.
        memory: Memory = "auto",
        /// Who asks, for the audit log; the user of the system where it is unset.
        user: Option<String> = "",
    }
    /// Settings of the coordinator's store.
    store: StoreConfig {
        /// Most bytes that the objects may take when clients upload more: a size with its unit, as
        /// `500GiB`. Unset, the disk is the limit. Results of accepted work are kept whatever this
        /// says.
        quota: Option<Size> = "",
    }
    /// Settings of what every program logs, to its standard error.
    log: LogConfig {
        /// What is logged: a level (`error`, `warn`, `info`, `debug`, `trace`, `off`), or
        /// `module=level` pairs separated by commas.
        filter: String = "info",
        /// `text` for people, `json` for programs, one object a line.
        format: LogFormat = "text",
        /// Colours in text: `auto` (on a terminal), `always` or `never`.
        color: Color = "auto",
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
        let mut layers = Layers::new(folders);
        layers.add_conventions(&environment)?;
        if let Some(path) = found {
            layers.add_file(&path)?;
        }
        layers.add_environment(environment)?;
        for (key, value) in flags {
            layers.set(key, value.clone(), Origin::Flag)?;
        }
        Self::read(layers)
    }

    /// Where the value of a setting stands; none if no setting has this key.
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.origins.get(key)
    }

    /// What no value can be checked for alone.
    fn check(&self, layers: &Layers) -> Result<(), Error> {
        let ServeConfig {
            heartbeat_interval,
            lease_duration,
            ..
        } = self.serve;
        let heartbeats = Duration::from_millis(100)..=Duration::from_secs(600);
        if !heartbeats.contains(&heartbeat_interval) {
            return Err(layers.invalid("serve.heartbeat_interval", "give 100ms to 10min"));
        }
        if lease_duration < 3 * heartbeat_interval {
            return Err(layers.invalid(
                "serve.lease_duration",
                format!(
                    "give at least three heartbeat intervals (serve.heartbeat_interval is {heartbeat_interval:?}), so that one heartbeat that is late does not end a lease"
                ),
            ));
        }
        let times = Duration::from_secs(1)..=Duration::from_secs(3600);
        if !times.contains(&self.serve.task_time) {
            return Err(layers.invalid("serve.task_time", "give 1s to 1h"));
        }
        for (key, value, most) in [
            ("serve.max_attempts", self.serve.max_attempts, 1000),
            ("serve.poison_workers", self.serve.poison_workers, 1000),
            ("serve.max_open_jobs", self.serve.max_open_jobs, u32::MAX),
            ("serve.max_open_units", self.serve.max_open_units, u32::MAX),
            ("worker.credits", self.worker.credits, 1000),
            (
                "serve.max_connections",
                self.serve.max_connections,
                1_000_000,
            ),
        ] {
            if value < 1 || value > most {
                return Err(layers.invalid(key, format!("give 1 to {most}")));
            }
        }
        self.check_security(layers)
    }

    /// Nothing is open to others by oversight.
    fn check_security(&self, layers: &Layers) -> Result<(), Error> {
        let serve = &self.serve;
        if serve.tls_certificate.is_some() != serve.tls_key.is_some() {
            return Err(layers.invalid(
                "serve.tls_certificate",
                "give serve.tls_certificate and serve.tls_key, or neither",
            ));
        }
        let tls = serve.tls_certificate.is_some();
        if serve.client_ca.is_some() && !tls {
            return Err(layers.invalid(
                "serve.client_ca",
                "callers show certificates over TLS only: give serve.tls_certificate and serve.tls_key",
            ));
        }
        let guarded = serve.client_ca.is_some() || serve.tokens.is_some();
        let kept = serve.listen.ip().is_loopback() || (tls && guarded);
        if !kept && !serve.insecure {
            return Err(layers.invalid(
                "serve.listen",
                "beyond this machine, give serve.tls_certificate, serve.tls_key, and serve.client_ca or serve.tokens ('palimpsest auth init' makes what is needed), or say serve.insecure = true",
            ));
        }
        for (key, address, ca, certificate, private) in [
            (
                "worker.coordinator",
                Some(&self.worker.coordinator),
                &self.worker.ca,
                &self.worker.certificate,
                &self.worker.key,
            ),
            (
                "client.server",
                self.client.server.as_ref(),
                &self.client.ca,
                &self.client.certificate,
                &self.client.key,
            ),
        ] {
            let section = key.split('.').next().unwrap_or(key);
            if address.is_some_and(Address::is_secure) && ca.is_none() {
                return Err(layers.invalid(
                    key,
                    format!("name in {section}.ca the authority that vouches for the coordinator"),
                ));
            }
            if certificate.is_some() != private.is_some() {
                return Err(layers.invalid(
                    key,
                    format!("give {section}.certificate and {section}.key, or neither"),
                ));
            }
        }
        Ok(())
    }
}

/// A variable by which the environment says how terminals are to be written to, whatever the program:
/// `NO_COLOR`, `CLICOLOR`, `CLICOLOR_FORCE`, `COLORTERM` or `TERM`. They are no settings.
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

/// The name that the system has for whoever runs this process; none where it has none.
fn system_user() -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let id = std::fs::metadata("/proc/self").ok()?.uid().to_string();
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, user) = (fields.next()?, fields.next()?, fields.next()?);
        (user == id).then(|| name.to_owned())
    })
}

/// The values of all settings as text, with their origins.
struct Layers {
    values: BTreeMap<&'static str, (String, Origin)>,
    folders: Folders,
}

impl Layers {
    fn new(folders: Folders) -> Self {
        let defaults = SETTINGS.iter().map(|setting| {
            let value = (setting.default.to_owned(), Origin::Default);
            (setting.key, value)
        });
        Self {
            values: defaults.collect(),
            folders,
        }
    }

    fn set(&mut self, key: &str, value: String, origin: Origin) -> Result<(), Error> {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
            return Err(Error::Unknown {
                key: key.to_owned(),
                remedy: suggest(key),
                origin,
            });
        };
        self.values.insert(setting.key, (value, origin));
        Ok(())
    }

    fn add_conventions(&mut self, environment: &HashMap<String, String>) -> Result<(), Error> {
        let get = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        // https://no-color.org: whatever it says, if it says anything.
        if get("NO_COLOR").is_some() {
            let origin = Origin::Environment("NO_COLOR".into());
            self.set("log.color", "never".into(), origin)?;
        }
        if let Some(name) = ["USER", "LOGNAME"]
            .into_iter()
            .find(|name| get(name).is_some())
        {
            let origin = Origin::Environment(name.into());
            self.set("client.user", environment[name].clone(), origin)?;
        } else if let Some(user) = system_user() {
            self.set("client.user", user, Origin::Default)?;
        }
        if let Some(end) = get("SLURM_JOB_END_TIME") {
            let origin = Origin::Environment("SLURM_JOB_END_TIME".into());
            self.set("worker.valid_until", end.clone(), origin)?;
        }
        Ok(())
    }

    fn add_file(&mut self, path: &Path) -> Result<(), Error> {
        let unreadable = |problem: String| Error::Unreadable {
            origin: format!("the file {}", path.display()),
            problem,
        };
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
        let table = File::from_str(&text, FileFormat::Toml)
            .collect()
            .map_err(|error| unreadable(error.to_string()))?;
        self.add_table("", table, &Origin::File(path.to_owned()))
    }

    fn add_environment(&mut self, environment: HashMap<String, String>) -> Result<(), Error> {
        let names: HashMap<String, String> = environment
            .keys()
            .map(|name| (name.to_lowercase(), name.clone()))
            .collect();
        let values = Environment::with_prefix("PALIMPSEST")
            .prefix_separator("__")
            .separator("__")
            .source(Some(environment.into_iter().collect()))
            .collect()
            .map_err(|error| Error::Unreadable {
                origin: "the environment".into(),
                problem: error.to_string(),
            })?;
        for (key, value) in values {
            // As it is spelled there, for the messages.
            let name = format!("palimpsest__{}", key.replace('.', "__"));
            let origin = Origin::Environment(names.get(&name).cloned().unwrap_or(name));
            self.add_value(&key, value, &origin)?;
        }
        Ok(())
    }

    fn add_table(
        &mut self,
        prefix: &str,
        table: config::Map<String, Value>,
        origin: &Origin,
    ) -> Result<(), Error> {
        // In the order of their names: which of several errors is told must not change.
        let table: BTreeMap<String, Value> = table.into_iter().collect();
        for (name, value) in table {
            self.add_value(&format!("{prefix}{name}"), value, origin)?;
        }
        Ok(())
    }

    fn add_value(&mut self, key: &str, value: Value, origin: &Origin) -> Result<(), Error> {
        let text = match value.kind {
            ValueKind::Table(table) if !SETTINGS.iter().any(|setting| setting.key == key) => {
                return self.add_table(&format!("{key}."), table, origin);
            }
            ValueKind::String(text) => text,
            ValueKind::Boolean(value) => value.to_string(),
            ValueKind::I64(value) => value.to_string(),
            ValueKind::I128(value) => value.to_string(),
            ValueKind::U64(value) => value.to_string(),
            ValueKind::U128(value) => value.to_string(),
            ValueKind::Float(value) => value.to_string(),
            kind @ (ValueKind::Nil | ValueKind::Array(_) | ValueKind::Table(_)) => {
                self.set(key, kind.to_string(), origin.clone())?;
                let key = SETTINGS.iter().find(|setting| setting.key == key);
                return Err(self.invalid(key.map_or("", |setting| setting.key), "give one value"));
            }
        };
        self.set(key, text, origin.clone())
    }

    fn value<T: FromSetting>(&self, key: &'static str) -> Result<T, Error> {
        let (text, _) = &self.values[key];
        T::from_setting(text, &self.folders).map_err(|remedy| self.invalid(key, remedy))
    }

    fn invalid(&self, key: &'static str, remedy: impl Into<String>) -> Error {
        let (value, origin) = self.values[key].clone();
        Error::Invalid {
            key,
            value,
            origin,
            remedy: remedy.into(),
        }
    }
}

/// What may have been meant by a key that no setting has.
fn suggest(key: &str) -> String {
    let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
    let same_name = SETTINGS.iter().find(|setting| {
        let (_, other) = setting.key.rsplit_once('.').unwrap_or(("", setting.key));
        other == name || other.replace('_', "") == name.replace(['_', '-'], "")
    });
    if let Some(setting) = same_name {
        return format!("perhaps {} was meant", setting.key);
    }
    let prefix = format!("{section}.");
    let siblings: Vec<&str> = SETTINGS
        .iter()
        .filter_map(|setting| setting.key.strip_prefix(&prefix))
        .collect();
    if siblings.is_empty() {
        let mut sections: Vec<&str> = SETTINGS
            .iter()
            .filter_map(|setting| setting.key.split_once('.'))
            .map(|(section, _)| section)
            .collect();
        sections.dedup();
        return format!("the sections are {}", sections.join(", "));
    }
    format!("section {section} has {}", siblings.join(", "))
}

/// The user's folders, by the XDG base directory specification.
struct Folders {
    home: Option<PathBuf>,
    config: Option<PathBuf>,
    data: Option<PathBuf>,
    cache: Option<PathBuf>,
}

impl Folders {
    fn new(environment: &HashMap<String, String>) -> Self {
        let folder = |name: &str| {
            // The specification: relative paths are to be ignored.
            let path = environment.get(name).map(PathBuf::from);
            path.filter(|path| path.is_absolute())
        };
        let home = folder("HOME");
        let under_home =
            |name: &str, path: &str| folder(name).or_else(|| Some(home.as_ref()?.join(path)));
        Self {
            config: under_home("XDG_CONFIG_HOME", ".config"),
            data: under_home("XDG_DATA_HOME", ".local/share"),
            cache: under_home("XDG_CACHE_HOME", ".cache"),
            home,
        }
    }
}

/// A type of setting. The error is the remedy: what should be written instead.
trait FromSetting: Sized {
    fn from_setting(text: &str, folders: &Folders) -> Result<Self, String>;
}

impl<T: FromSetting> FromSetting for Option<T> {
    fn from_setting(text: &str, folders: &Folders) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(None);
        }
        T::from_setting(text, folders).map(Some)
    }
}

impl FromSetting for PathBuf {
    /// `~/`, `$XDG_DATA_HOME/` and `$XDG_CACHE_HOME/` stand for the user's folders.
    fn from_setting(text: &str, folders: &Folders) -> Result<Self, String> {
        for (prefix, folder) in [
            ("~/", &folders.home),
            ("$XDG_DATA_HOME/", &folders.data),
            ("$XDG_CACHE_HOME/", &folders.cache),
        ] {
            if let Some(rest) = text.strip_prefix(prefix) {
                return match folder {
                    Some(folder) => Ok(folder.join(rest)),
                    None => Err("HOME is not set: give the whole path of a folder".into()),
                };
            }
        }
        if text.is_empty() {
            return Err("give the path of a folder".into());
        }
        Ok(text.into())
    }
}

/// Types whose text alone says what they are.
macro_rules! from_text {
    ($($type:ty: $parse:expr;)+) => {
        $(impl FromSetting for $type {
            fn from_setting(text: &str, _: &Folders) -> Result<Self, String> {
                let parse: fn(&str) -> Result<Self, String> = $parse;
                parse(text)
            }
        })+
    };
}

from_text! {
    SocketAddr: |text| text.parse().map_err(|_| "give an IP address and a port, as 127.0.0.1:7461 or [::1]:7461".into());
    u32: |text| text.parse().map_err(|_| "give a whole number, 0 or more".into());
    String: |text| Ok(text.to_owned());
    bool: |text| match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("give true or false".into()),
    };
    Weights: str::parse;
    Duration: parse_duration;
    Memory: str::parse;
    Size: str::parse;
    Device: str::parse;
    Address: str::parse;
    WorkerId: str::parse;
    jiff::Timestamp: |text| match text.parse::<i64>() {
        Ok(seconds) => Self::from_second(seconds),
        Err(_) => text.parse(),
    }
    .map_err(|_| "give a time, as 2026-01-31T18:00:00Z, or seconds since 1970".into());
    LogFormat: |text| match text {
        "text" => Ok(Self::Text),
        "json" => Ok(Self::Json),
        _ => Err("give text or json".into()),
    };
    Color: |text| match text {
        "auto" => Ok(Self::Auto),
        "always" => Ok(Self::Always),
        "never" => Ok(Self::Never),
        _ => Err("give auto, always or never".into()),
    };
}

/// Reads a duration with its unit: "20s", "1h 30m", "250ms".
///
/// # Errors
/// What should be written instead.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if let Ok(number) = text.parse::<f64>() {
        return Err(format!("give it a unit, as {number}s or {number}m"));
    }
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| "give a duration, as 250ms, 20s, 5m or 1h 30m".into())
}

/// Reads a number of bytes with its unit: "4GiB", "1.5 GB", "65536 B". Powers of 1024 have an
/// "i", as IEC 80000-13 has it.
///
/// # Errors
/// What should be written instead.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let remedy = "give a size, as 4GiB, 512MiB or 1.5GB";
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let unit = unit.trim();
    if unit.is_empty() && !number.is_empty() {
        return Err(format!("give it a unit, as {number}GiB or {number}MiB"));
    }
    let scale: u64 = match unit.to_ascii_lowercase().as_str() {
        "b" => 1,
        "kb" => 1000,
        "mb" => 1000_u64.pow(2),
        "gb" => 1000_u64.pow(3),
        "tb" => 1000_u64.pow(4),
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(remedy.into()),
    };
    // Whole numbers exactly; only those with a point go through floating point.
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(scale).ok_or_else(|| remedy.into());
    }
    let bytes = number.parse::<f64>().map_err(|_| remedy)? * scale as f64;
    // 2^64, the first that does not fit.
    if bytes >= u64::MAX as f64 {
        return Err(remedy.into());
    }
    Ok(bytes as u64)
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(u64);

impl Size {
    /// The bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_size(text).map(Self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} B", self.0)
    }
}

/// How much memory may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// What the engine finds right.
    Auto,
    /// This many bytes.
    Bytes(u64),
}

impl Memory {
    /// The bytes, where a number was given.
    pub fn bytes(&self) -> Option<u64> {
        match self {
            Self::Auto => None,
            Self::Bytes(bytes) => Some(*bytes),
        }
    }
}

impl FromStr for Memory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        match parse_size(text) {
            Ok(0) => Err("give more than nothing, or auto".into()),
            Ok(bytes) => Ok(Self::Bytes(bytes)),
            Err(remedy) => Err(format!("{remedy}, or auto")),
        }
    }
}

/// What computes: `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device(String);

impl Device {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbered = |number: &str| number.parse::<u32>().is_ok();
        let known = matches!(text, "auto" | "cpu" | "cuda")
            || text.strip_prefix("cuda:").is_some_and(numbered);
        if !known {
            return Err("give auto, cpu, cuda or cuda:N".into());
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A coordinator's address, `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(String);

impl Address {
    /// `http://host:port`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is reached over TLS.
    pub fn is_secure(&self) -> bool {
        self.0.starts_with("https:")
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let remedy = || "give an address, as http://127.0.0.1:7461".to_owned();
        let uri: tonic::transport::Uri = text.parse().map_err(|_| remedy())?;
        match (uri.scheme_str(), uri.host()) {
            (Some("http" | "https"), Some(host)) if !host.is_empty() => {}
            _ => return Err(remedy()),
        }
        if uri
            .path_and_query()
            .is_some_and(|path| path.as_str() != "/")
        {
            return Err("leave out what follows the port".into());
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What each owner of jobs is due of the workers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights(pub BTreeMap<String, f64>);

impl FromStr for Weights {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let remedy = |pair: &str| {
            format!(
                "'{pair}' is no owner with a weight: give NAME=NUMBER pairs, as alice=3,bob=0.5"
            )
        };
        let pairs = text.split(',').map(str::trim).filter(|it| !it.is_empty());
        pairs
            .map(|pair| {
                let (name, weight) = pair.rsplit_once('=').ok_or_else(|| remedy(pair))?;
                let weight: f64 = weight.trim().parse().map_err(|_| remedy(pair))?;
                let fits = weight.is_finite() && weight > 0.0;
                fits.then(|| (name.trim().to_owned(), weight))
                    .ok_or_else(|| format!("the weight of '{pair}' must be more than 0"))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// A worker's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerId(String);

impl WorkerId {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for WorkerId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-');
        if text.is_empty() || text.len() > 63 || !text.chars().all(fits) {
            return Err("give 1 to 63 lower-case letters, digits, '.', '_' and '-'".into());
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs, one object a line.
    Json,
}

/// Whether text is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Loads in a folder of its own, whose `palimpsest.toml` is `file`.
    fn load(
        file: &str,
        environment: &[(&str, &str)],
        flags: &[(&str, &str)],
    ) -> Result<Config, Error> {
        let folder = tempfile::tempdir().unwrap();
        if !file.is_empty() {
            std::fs::write(folder.path().join("palimpsest.toml"), file).unwrap();
        }
        let pair = |(key, value): &(&str, &str)| (key.to_string(), value.to_string());
        let mut environment: HashMap<_, _> = environment.iter().map(pair).collect();
        environment
            .entry("HOME".into())
            .or_insert("/home/ada".into());
        let flags: Vec<_> = flags.iter().map(pair).collect();
        Config::load_with(environment, folder.path(), None, &flags)
    }

    fn message(result: Result<Config, Error>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn defaults_are_valid_and_those_of_the_documentation() {
        let config = load("", &[], &[]).unwrap();
        assert_eq!(config.serve.listen.to_string(), "127.0.0.1:7461");
        assert_eq!(
            config.serve.store,
            Path::new("/home/ada/.local/share/palimpsest")
        );
        assert_eq!(config.client.store, config.serve.store);
        assert_eq!(config.worker.coordinator.as_str(), "http://127.0.0.1:7461");
        assert_eq!(
            config.worker.cache,
            Path::new("/home/ada/.cache/palimpsest/objects")
        );
        assert_eq!(config.worker.device, Device("auto".into()));
        assert_eq!(config.worker.memory, Memory::Auto);
        assert_eq!(config.worker.credits, 2);
        assert_eq!((config.worker.id, config.worker.valid_until), (None, None));
        assert_eq!(config.client.server, None);
        for setting in SETTINGS {
            assert!(setting.doc.len() > 20, "{} is not documented", setting.key);
        }
    }

    #[test]
    fn flags_win_over_the_environment_over_the_file_over_the_defaults() {
        let file = "[worker]\ncredits = 3\nthreads = 4\ndevice = \"cpu\"\n";
        let environment = [
            ("PALIMPSEST__WORKER__CREDITS", "5"),
            ("PALIMPSEST__WORKER__THREADS", "6"),
        ];
        let config = load(file, &environment, &[("worker.credits", "7")]).unwrap();
        assert_eq!(config.worker.credits, 7);
        assert_eq!(config.worker.threads, 6);
        assert_eq!(config.worker.device, Device("cpu".into()));
        assert_eq!(config.origin("worker.credits"), Some(&Origin::Flag));
        assert_eq!(
            config.origin("worker.threads"),
            Some(&Origin::Environment("PALIMPSEST__WORKER__THREADS".into()))
        );
        assert!(matches!(
            config.origin("worker.device"),
            Some(Origin::File(_))
        ));
        assert_eq!(config.origin("worker.memory"), Some(&Origin::Default));
        assert_eq!(config.origin("worker.nothing"), None);
    }

    #[test]
    fn owners_have_weights_that_are_numbers_above_nothing() {
        let weights = |text: &str| load("", &[], &[("serve.owner_weights", text)]);
        let read = weights(" ada=3, bob = 0.5 ").unwrap().serve.owner_weights.0;
        let expected = [("ada".to_owned(), 3.0), ("bob".to_owned(), 0.5)];
        assert_eq!(read, expected.into());
        for (wrong, what) in [
            ("ada", "NAME=NUMBER"),
            ("ada=much", "'ada=much'"),
            ("ada=0", "more than 0"),
            ("ada=inf", "more than 0"),
        ] {
            let message = message(weights(wrong));
            assert!(message.contains(what), "{message}");
        }
    }

    #[test]
    fn what_the_scheduler_cannot_work_with_is_refused() {
        for (key, value, what) in [
            ("serve.task_time", "10ms", "1s to 1h"),
            ("serve.max_open_jobs", "0", "1 to"),
            ("serve.speculate", "yes", "true or false"),
            ("worker.drain_timeout", "25", "unit"),
        ] {
            let message = message(load("", &[], &[(key, value)]));
            assert!(message.contains(key) && message.contains(what), "{message}");
        }
    }

    #[test]
    fn the_file_is_looked_for_where_the_documentation_says() {
        let folder = tempfile::tempdir().unwrap();
        let (work, xdg) = (folder.path().join("work"), folder.path().join("xdg"));
        std::fs::create_dir_all(xdg.join("palimpsest")).unwrap();
        std::fs::create_dir_all(&work).unwrap();
        let environment = || {
            HashMap::from([
                ("XDG_CONFIG_HOME".into(), xdg.to_str().unwrap().into()),
                ("HOME".into(), "/h".into()),
            ])
        };
        let credits = |file: Option<&Path>| {
            Config::load_with(environment(), &work, file, &[]).map(|config| config.worker.credits)
        };
        assert_eq!(credits(None).unwrap(), 2);
        std::fs::write(xdg.join("palimpsest/palimpsest.toml"), "worker.credits = 3").unwrap();
        assert_eq!(credits(None).unwrap(), 3);
        std::fs::write(work.join("palimpsest.toml"), "worker.credits = 4").unwrap();
        assert_eq!(credits(None).unwrap(), 4);
        let named = folder.path().join("named.toml");
        assert!(matches!(credits(Some(&named)), Err(Error::NoFile { path }) if path == named));
        std::fs::write(&named, "worker.credits = 5").unwrap();
        assert_eq!(credits(Some(&named)).unwrap(), 5);
    }

    #[test]
    fn unknown_keys_are_errors_that_name_the_key_and_its_place() {
        let text = message(load("[serve]\nlisen = \"x\"\n", &[], &[]));
        assert!(
            text.contains("\"serve.lisen\"") && text.contains("palimpsest.toml"),
            "{text}"
        );
        assert!(
            text.contains("section serve has listen, tls_certificate"),
            "{text}"
        );
        let text = message(load("[server]\nlisten = \"x\"\n", &[], &[]));
        assert!(text.contains("perhaps serve.listen was meant"), "{text}");
        let text = message(load("[serve]\nheartbeat-interval = \"1s\"\n", &[], &[]));
        assert!(
            text.contains("perhaps serve.heartbeat_interval was meant"),
            "{text}"
        );
        let text = message(load("surprise = 1\n", &[], &[]));
        assert!(
            text.contains("the sections are serve, worker, client, store, log"),
            "{text}"
        );
        let text = message(load("", &[("PALIMPSEST__WORKER__CREDIT", "1")], &[]));
        assert!(
            text.contains("the variable PALIMPSEST__WORKER__CREDIT"),
            "{text}"
        );
        let text = message(load("", &[], &[("worker.speed", "1")]));
        assert!(text.contains("\"worker.speed\" in a flag"), "{text}");
        // Not ours.
        load(
            "",
            &[("PALIMPSEST_HOME", "x"), ("WORKER__CREDITS", "x")],
            &[],
        )
        .unwrap();
    }

    #[test]
    fn a_file_that_is_not_toml_is_an_error_that_says_where() {
        let text = message(load("[serve\nlisten = 1", &[], &[]));
        assert!(
            text.contains("palimpsest.toml") && text.contains("line 1"),
            "{text}"
        );
    }

    #[test]
    fn wrong_values_are_errors_that_name_the_setting_the_value_and_the_remedy() {
        for (key, value, remedy) in [
            ("serve.listen", "localhost", "127.0.0.1:7461"),
            ("serve.store", "", "path of a folder"),
            ("serve.heartbeat_interval", "5", "give it a unit, as 5s"),
            ("serve.heartbeat_interval", "soon", "as 250ms, 20s"),
            ("serve.heartbeat_interval", "-5s", "as 250ms, 20s"),
            ("serve.heartbeat_interval", "1ms", "give 100ms to 10min"),
            (
                "serve.lease_duration",
                "14s",
                "at least three heartbeat intervals (serve.heartbeat_interval is 5s)",
            ),
            ("serve.max_attempts", "0", "give 1 to 1000"),
            (
                "worker.coordinator",
                "127.0.0.1:7461",
                "http://127.0.0.1:7461",
            ),
            ("worker.coordinator", "https://gpu:1", "worker.ca"),
            ("serve.listen", "0.0.0.0:7461", "serve.insecure = true"),
            (
                "serve.tls_certificate",
                "c.pem",
                "serve.tls_key, or neither",
            ),
            ("serve.client_ca", "ca.pem", "over TLS only"),
            ("serve.insecure", "yes", "true or false"),
            ("serve.max_connections", "0", "give 1 to 1000000"),
            ("client.server", "https://gpu:1", "client.ca"),
            (
                "worker.coordinator",
                "http://gpu:1/api",
                "leave out what follows the port",
            ),
            ("worker.device", "gpu", "cuda:N"),
            ("worker.threads", "-1", "whole number"),
            ("worker.memory", "4", "give it a unit, as 4GiB"),
            ("worker.memory", "4Gib/s", "as 4GiB"),
            ("worker.memory", "0GiB", "more than nothing"),
            ("worker.memory", "99999999999TiB", "as 4GiB"),
            ("worker.credits", "0", "give 1 to 1000"),
            ("worker.credits", "two", "whole number"),
            ("worker.id", "Big Worker", "lower-case letters"),
            ("worker.valid_until", "tomorrow", "2026-01-31T18:00:00Z"),
            ("log.format", "xml", "text or json"),
            ("log.color", "red", "auto, always or never"),
        ] {
            let text = message(load("", &[], &[(key, value)]));
            assert!(
                text.contains(key) && text.contains(&format!("{value:?}")) && text.contains(remedy),
                "{key} = {value}: {text}"
            );
        }
        let text = message(load("[worker]\nthreads = [1, 2]\n", &[], &[]));
        assert!(
            text.contains("worker.threads") && text.contains("give one value"),
            "{text}"
        );
        let text = message(load("[worker.threads]\nfast = 1\n", &[], &[]));
        assert!(
            text.contains("worker.threads") && text.contains("give one value"),
            "{text}"
        );
        let text = message(load("[serve]\nheartbeat_interval = 5\n", &[], &[]));
        assert!(text.contains("give it a unit, as 5s"), "{text}");
    }

    #[test]
    fn values_are_read_from_human_text() {
        for (text, duration) in [
            ("20s", 20_000),
            ("250ms", 250),
            ("1m 30s", 90_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1500),
        ] {
            assert_eq!(
                parse_duration(text).unwrap(),
                Duration::from_millis(duration),
                "{text}"
            );
        }
        for (text, size) in [
            ("4GiB", 4 << 30),
            ("512 MiB", 512 << 20),
            ("1.5GB", 1_500_000_000),
            ("10b", 10),
            ("1kib", 1024),
            ("9007199254740993B", 9_007_199_254_740_993),
        ] {
            assert_eq!(parse_size(text).unwrap(), size, "{text}");
        }
        let flags = [
            ("worker.memory", "2GiB"),
            ("worker.device", "cuda:1"),
            ("worker.id", "gpu-7.a_b"),
            ("worker.valid_until", "2026-01-31T18:00:00Z"),
            ("client.server", "http://head.cluster:7461/"),
            ("client.store", "~/runs"),
            ("serve.store", "relative/store"),
        ];
        let config = load("", &[], &flags).unwrap();
        assert_eq!(config.worker.memory, Memory::Bytes(2 << 30));
        assert_eq!(config.worker.device.to_string(), "cuda:1");
        assert_eq!(config.worker.id.unwrap().as_str(), "gpu-7.a_b");
        assert_eq!(
            config.worker.valid_until.unwrap().as_second(),
            1_769_882_400
        );
        assert_eq!(
            config.client.server.unwrap().as_str(),
            "http://head.cluster:7461"
        );
        assert_eq!(config.client.store, Path::new("/home/ada/runs"));
        assert_eq!(config.serve.store, Path::new("relative/store"));
    }

    #[test]
    fn variables_with_a_common_meaning_are_heeded_unless_the_setting_is_set() {
        let environment = [("NO_COLOR", "1"), ("SLURM_JOB_END_TIME", "1769882400")];
        let config = load("", &environment, &[]).unwrap();
        assert_eq!(config.log.color, Color::Never);
        assert_eq!(
            config.worker.valid_until.unwrap().to_string(),
            "2026-01-31T18:00:00Z"
        );
        let config = load(
            "log.color = \"always\"",
            &environment,
            &[("worker.valid_until", "")],
        )
        .unwrap();
        assert_eq!(config.log.color, Color::Always);
        assert_eq!(config.worker.valid_until, None);
        assert_eq!(
            load("", &[("NO_COLOR", "")], &[]).unwrap().log.color,
            Color::Auto
        );
    }

    #[test]
    fn without_a_home_the_folders_have_to_be_given() {
        let environment = [("HOME", "")];
        let text = message(load("", &environment, &[]));
        assert!(
            text.contains("serve.store") && text.contains("HOME is not set"),
            "{text}"
        );
        let flags = [
            ("serve.store", "/s"),
            ("client.store", "/s"),
            ("worker.cache", "/c"),
        ];
        load("", &environment, &flags).unwrap();
        let xdg = [
            ("HOME", ""),
            ("XDG_DATA_HOME", "/data"),
            ("XDG_CACHE_HOME", "/cache"),
        ];
        let config = load("", &xdg, &[]).unwrap();
        assert_eq!(config.worker.cache, Path::new("/cache/palimpsest/objects"));
    }
}
