//! The types of settings, and how each is written.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::folders::Folders;
use super::listen::{self, Listen};

/// A type of setting. The error is the remedy: what should be written instead.
pub(super) trait FromSetting: Sized {
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

/// The path of a socket, as a whole one.
fn socket(text: &str, folders: &Folders) -> Option<Result<PathBuf, String>> {
    let path = listen::path_of(text)?;
    if path.is_empty() {
        return Some(Err(
            "give the path of a socket, as unix:/run/palimpsest".into()
        ));
    }
    let path = PathBuf::from_setting(path, folders);
    Some(path.and_then(|path| listen::check(&path).map(|()| path)))
}

impl FromSetting for Listen {
    fn from_setting(text: &str, folders: &Folders) -> Result<Self, String> {
        match socket(text, folders) {
            Some(path) => Self::socket(path?),
            None => text.parse(),
        }
    }
}

impl FromSetting for Address {
    fn from_setting(text: &str, folders: &Folders) -> Result<Self, String> {
        match socket(text, folders) {
            Some(path) => Ok(Self(format!("{}{}", listen::SCHEME, path?.display()))),
            None => text.parse(),
        }
    }
}

impl FromSetting for Addresses {
    fn from_setting(text: &str, folders: &Folders) -> Result<Self, String> {
        match text.starts_with(listen::SCHEME) {
            true => Address::from_setting(text, folders).map(|Address(one)| Self(one)),
            false => text.parse(),
        }
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
    f64: |text| text.parse().map_err(|_| "give a number, as 0.5".into());
    String: |text| Ok(text.to_owned());
    bool: |text| match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("give true or false".into()),
    };
    Weights: str::parse;
    HostNames: str::parse;
    Duration: parse_duration;
    Memory: str::parse;
    Size: str::parse;
    Device: str::parse;
    BucketUrl: str::parse;
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
    LogPlace: |text| match text {
        "folder" => Ok(Self::Folder),
        "bucket" => Ok(Self::Bucket),
        _ => Err("give folder or bucket".into()),
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

/// What computes: `auto`, `cpu`, `cuda` or `cuda:N`, several of a kind with commas between them,
/// `all` or `cuda:all`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device(String);

impl Device {
    /// As it is written, without spaces.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbered = |number: &str| number.parse::<u32>().is_ok();
        let gpu = |name: &str| name == "cuda" || name.strip_prefix("cuda:").is_some_and(numbered);
        let named: Vec<&str> = text.split(',').map(str::trim).collect();
        let known = matches!(text, "auto" | "all" | "cuda:all")
            || named.iter().all(|&name| name == "cpu")
            || named.iter().all(|&name| gpu(name));
        if !known {
            return Err(
                "give auto, cpu, cuda, cuda:N, all or cuda:all, or several of a kind: cuda:0,cuda:1"
                    .into(),
            );
        }
        Ok(Self(named.join(",")))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A bucket, and what the keys in it begin with: `s3://NAME/PREFIX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketUrl {
    /// The bucket's name.
    pub name: String,
    /// What the keys begin with, without a slash at either end; may be empty.
    pub prefix: String,
}

impl FromStr for BucketUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text
            .strip_prefix("s3://")
            .ok_or("give a bucket, as s3://NAME/PREFIX")?;
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let fits = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '-');
        if !(3..=63).contains(&name.len()) || !name.chars().all(fits) {
            return Err(
                "a bucket's name has 3 to 63 lower-case letters, digits, '.' and '-'".into(),
            );
        }
        let prefix = prefix.trim_end_matches('/');
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/');
        let empty = |part: &str| part.is_empty() || part == "." || part == "..";
        if !prefix.chars().all(fits) || (!prefix.is_empty() && prefix.split('/').any(empty)) {
            return Err(
                "a prefix has letters, digits, '.', '-' and '_' between single slashes".into(),
            );
        }
        Ok(Self {
            name: name.to_owned(),
            prefix: prefix.to_owned(),
        })
    }
}

impl fmt::Display for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix.as_str() {
            "" => write!(f, "s3://{}", self.name),
            prefix => write!(f, "s3://{}/{prefix}", self.name),
        }
    }
}

/// A server's address, `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(String);

impl Address {
    /// `http://host:port`, or `unix:path`.
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
        if let Some(path) = listen::path_of(text).filter(|path| !path.is_empty()) {
            listen::check(path.as_ref())?;
            return Ok(Self(format!("{}{path}", listen::SCHEME)));
        }
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

/// A coordinator's address, or those of several that follow one log, separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses(String);

impl Addresses {
    /// As they are written, without spaces.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether they are reached over TLS.
    pub fn is_secure(&self) -> bool {
        self.0.starts_with("https:")
    }

    /// Whether there is more than one.
    pub fn are_several(&self) -> bool {
        self.0.contains(',')
    }
}

impl FromStr for Addresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all: Result<Vec<Address>, String> =
            text.split(',').map(|one| one.trim().parse()).collect();
        let all = all?;
        let scheme = |one: &Address| one.0.split(':').next().map(str::to_owned);
        if all.len() > 1 && all.iter().any(|one| scheme(one) != scheme(&all[0])) {
            return Err("give all with https://, or all with http://".into());
        }
        if all.len() > 1 && all[0].0.starts_with(listen::SCHEME) {
            return Err("a socket is one coordinator's: give it alone".into());
        }
        let all: Vec<&str> = all.iter().map(Address::as_str).collect();
        Ok(Self(all.join(",")))
    }
}

impl fmt::Display for Addresses {
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

/// Names of a server, in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNames(pub Vec<String>);

impl FromStr for HostNames {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        let names = text.split(',').map(str::trim).filter(|it| !it.is_empty());
        names
            .map(|name| match name.chars().all(fits) {
                true => Ok(name.to_ascii_lowercase()),
                false => Err(format!(
                    "'{name}' is no name of a host: give names without ports, as \
                     lab.example,console.lab.example"
                )),
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

/// Where a store's log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogPlace {
    /// In its folder.
    Folder,
    /// In the bucket of its objects.
    Bucket,
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
