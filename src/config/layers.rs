//! The values of all settings as text, layer over layer, each with its origin.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use config::{Environment, File, FileFormat, Source, Value, ValueKind};

use super::error::Error;
use super::folders::Folders;
use super::setting::{Origin, Setting, redacted};
use super::value::FromSetting;

/// The values of all settings as text, with their origins.
pub(super) struct Layers {
    pub(super) values: BTreeMap<&'static str, (String, Origin)>,
    /// What there is to set.
    settings: &'static [Setting],
    folders: Folders,
}

impl Layers {
    pub(super) fn new(settings: &'static [Setting], folders: Folders) -> Self {
        let defaults = settings.iter().map(|setting| {
            let value = (setting.default.to_owned(), Origin::Default);
            (setting.key, value)
        });
        Self {
            values: defaults.collect(),
            settings,
            folders,
        }
    }

    pub(super) fn set(&mut self, key: &str, value: String, origin: Origin) -> Result<(), Error> {
        let Some(setting) = self.settings.iter().find(|setting| setting.key == key) else {
            return Err(Error::Unknown {
                key: key.to_owned(),
                remedy: suggest(self.settings, key),
                origin,
            });
        };
        self.values.insert(setting.key, (value, origin));
        Ok(())
    }

    pub(super) fn add_conventions(
        &mut self,
        environment: &HashMap<String, String>,
    ) -> Result<(), Error> {
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

    pub(super) fn add_file(&mut self, path: &Path) -> Result<(), Error> {
        let unreadable = |problem: String| Error::Unreadable {
            origin: format!("the file {}", path.display()),
            problem,
        };
        let text = crate::text::utf8::read(path).map_err(|error| unreadable(error.to_string()))?;
        let table = File::from_str(&text, FileFormat::Toml)
            .collect()
            .map_err(|error| unreadable(error.to_string()))?;
        self.add_table("", table, &Origin::File(path.to_owned()))
    }

    pub(super) fn add_environment(
        &mut self,
        environment: HashMap<String, String>,
    ) -> Result<(), Error> {
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
            ValueKind::Table(table) if !self.settings.iter().any(|setting| setting.key == key) => {
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
                let key = self.settings.iter().find(|setting| setting.key == key);
                return Err(self.invalid(key.map_or("", |setting| setting.key), "give one value"));
            }
        };
        self.set(key, text, origin.clone())
    }

    pub(super) fn value<T: FromSetting>(&self, key: &'static str) -> Result<T, Error> {
        let (text, _) = &self.values[key];
        T::from_setting(text, &self.folders).map_err(|remedy| self.invalid(key, remedy))
    }

    /// A token in a file of settings was meant for the coordinator that the file names, and a flag
    /// may name another one. One in the environment was given to this process, with its address.
    pub(super) fn take_tokens_as_chosen(&mut self) -> Result<(), Error> {
        for (token, insecure) in [
            ("client.token_file", "client.insecure"),
            ("worker.token_file", "worker.insecure"),
        ] {
            let origin = self.values[token].1.clone();
            let unsaid = self.values[insecure].1 == Origin::Default;
            if unsaid && matches!(origin, Origin::Environment(_)) {
                self.set(insecure, "true".to_owned(), origin)?;
            }
        }
        Ok(())
    }

    /// The values with their origins, the user's folders in place of what stands for them.
    pub(super) fn resolved(&self) -> BTreeMap<&'static str, (String, Origin)> {
        let resolve = |text: &str| {
            let stands = text.starts_with("~/") || text.starts_with("$XDG_");
            let path = stands.then(|| PathBuf::from_setting(text, &self.folders));
            match path {
                Some(Ok(path)) => path.display().to_string(),
                _ => text.to_owned(),
            }
        };
        self.values
            .iter()
            .map(|(key, (text, origin))| (*key, (resolve(text), origin.clone())))
            .collect()
    }

    pub(super) fn invalid(&self, key: &'static str, remedy: impl Into<String>) -> Error {
        let (value, origin) = self.values[key].clone();
        Error::Invalid {
            key,
            value: redacted(&value),
            origin,
            remedy: remedy.into(),
        }
    }
}

/// What may have been meant by a key that no setting has.
fn suggest(settings: &[Setting], key: &str) -> String {
    let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
    let same_name = settings.iter().find(|setting| {
        let (_, other) = setting.key.rsplit_once('.').unwrap_or(("", setting.key));
        other == name || other.replace('_', "") == name.replace(['_', '-'], "")
    });
    if let Some(setting) = same_name {
        return format!("perhaps {} was meant", setting.key);
    }
    let prefix = format!("{section}.");
    let siblings: Vec<&str> = settings
        .iter()
        .filter_map(|setting| setting.key.strip_prefix(&prefix))
        .collect();
    if siblings.is_empty() {
        let mut sections: Vec<&str> = settings
            .iter()
            .filter_map(|setting| setting.key.split_once('.'))
            .map(|(section, _)| section)
            .collect();
        sections.dedup();
        return format!("the sections are {}", sections.join(", "));
    }
    format!("section {section} has {}", siblings.join(", "))
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
