//! `palimpsest config`: the settings as they are, and what there is to set.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use crate::cli::output;
use crate::config::{Config, Origin, SECTIONS, SETTINGS, Setting};

/// Subcommands of `config`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show every setting as a command started here and now would have it, as a file that can be
    /// given to --config
    Show {
        /// Say of each where it stands
        #[arg(long)]
        origin: bool,
        /// One JSON object, with values and origins by key
        #[arg(long)]
        json: bool,
    },
    /// Print what there is to set: each setting with what it is, its unit and its default
    Reference {
        /// As what: toml (a configuration file to start from) or markdown
        #[arg(long, default_value = "toml", value_parser = ["toml", "markdown"])]
        format: String,
    },
}

/// Prints what was asked for.
pub fn show(config: &Config, origin: bool, json: bool) -> anyhow::Result<ExitCode> {
    let text = match json {
        true => format!("{:#}\n", to_json(config)),
        false => to_toml(config, origin),
    };
    output::raw(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the reference.
pub fn reference(format: &str) -> anyhow::Result<ExitCode> {
    let text = match format {
        "markdown" => markdown(),
        _ => template(),
    };
    output::raw(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The settings of a section.
fn of(section: &str) -> impl Iterator<Item = (&'static str, &'static Setting)> {
    let prefix = format!("{section}.");
    SETTINGS
        .iter()
        .filter_map(move |setting| Some((setting.key.strip_prefix(&prefix)?, setting)))
}

/// A value as TOML has it. Settings are read from their text, whatever it is the text of.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn to_json(config: &Config) -> Value {
    let settings: Map<String, Value> = SETTINGS
        .iter()
        .map(|setting| {
            let origin = config.origin(setting.key).unwrap_or(&Origin::Default);
            let value = json!({
                "value": config.shown(setting.key),
                "origin": origin.to_string(),
                "default": *origin == Origin::Default,
            });
            (setting.key.to_owned(), value)
        })
        .collect();
    Value::Object(settings)
}

fn to_toml(config: &Config, with_origin: bool) -> String {
    let mut text = String::new();
    for (at, (section, _)) in SECTIONS.iter().enumerate() {
        if at > 0 {
            text.push('\n');
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "[{section}]");
        for (name, setting) in of(section) {
            let _ = write!(text, "{name} = {}", quoted(&config.shown(setting.key)));
            if let Some(origin) = config.origin(setting.key).filter(|_| with_origin) {
                let _ = write!(text, "  # {origin}");
            }
            text.push('\n');
        }
    }
    text
}

/// A file in which every setting stands, as a comment with its default.
fn template() -> String {
    let mut text = String::from(
        "# Settings of palimpsest. Those that are commented out have their defaults.\n\
         # The variable PALIMPSEST__SECTION__NAME wins over a file, and a flag over both.\n",
    );
    for (section, doc) in SECTIONS {
        text.push('\n');
        for line in doc.lines() {
            let _ = writeln!(text, "# {}", line.trim());
        }
        let _ = writeln!(text, "[{section}]");
        for (name, setting) in of(section) {
            text.push('\n');
            for line in setting.doc.lines() {
                let _ = writeln!(text, "# {}", line.trim());
            }
            let _ = writeln!(text, "#{name} = {}", quoted(setting.default));
        }
    }
    text
}

fn markdown() -> String {
    let mut text = String::from("# Settings\n");
    for (section, doc) in SECTIONS {
        let paragraph = |doc: &str| {
            let lines: Vec<&str> = doc.lines().map(str::trim).collect();
            lines.join(" ")
        };
        let _ = write!(text, "\n## `[{section}]`\n\n{}\n\n", paragraph(doc));
        text.push_str("| setting | default | what it is |\n|---|---|---|\n");
        for (name, setting) in of(section) {
            let default = match setting.default {
                "" => "unset".to_owned(),
                default => format!("`{default}`"),
            };
            let doc = paragraph(setting.doc).replace('|', "\\|");
            let _ = writeln!(text, "| `{name}` | {default} | {doc} |");
        }
    }
    text
}
