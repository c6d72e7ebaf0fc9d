//! What every command prints alike: errors, times, names.

use std::io::{IsTerminal, Write};

use tonic::Status;
use tonic_types::StatusExt;

use crate::config;
use crate::plot::table::Table;
use crate::plot::{Colour, terminal_width};

/// Prints a table as wide as the terminal.
pub fn print_table(out: &mut impl Write, table: &Table) -> anyhow::Result<()> {
    write!(out, "{}", table.render(terminal_width(), colour()))?;
    Ok(())
}

/// The colour that standard output takes.
pub fn colour() -> Colour {
    Colour::decide(std::io::stdout().is_terminal(), config::terminal_convention)
}

/// An error as a person reads it: a server's answer with the fields it names and its remedy.
pub fn explain(error: &anyhow::Error) -> String {
    let Some(status) = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Status>())
    else {
        return chain(error);
    };
    let mut text = status.message().to_owned();
    if text.is_empty() {
        text = status.code().description().to_owned();
    }
    // The other end hung up: what it speaks may not be HTTP/2 without encryption.
    let hung_up = [
        "h2 protocol error",
        "operation was canceled",
        "connection closed",
        "connection reset",
        "broken pipe",
    ];
    if hung_up.iter().any(|what| text.starts_with(what)) {
        text.push_str(
            "\n  to help: a coordinator with certificates is called as https://HOST:PORT, with client.ca \
             ('palimpsest auth init' writes a configuration for each caller)",
        );
    }
    // What was being done, and what else helps.
    let causes = error.chain().map(ToString::to_string);
    let before: Vec<String> = causes
        .take_while(|cause| !cause.contains(status.message()))
        .collect();
    if !before.is_empty() {
        text = format!("{}: {text}", before.join(": "));
    }
    let details = status.get_error_details();
    let fields = details
        .bad_request()
        .map_or(&[][..], |bad| &bad.field_violations);
    for field in fields {
        if !text.contains(&field.description) {
            text.push_str(&format!("\n  {}: {}", field.field, field.description));
        }
    }
    if let Some(remedy) = details
        .error_info()
        .and_then(|info| info.metadata.get("remedy"))
    {
        text.push_str(&format!("\n  to help: {remedy}"));
    }
    text
}

/// An error and its causes, those left out that the text before them repeats.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}

/// A time in the user's zone.
pub fn time(timestamp: Option<&prost_types::Timestamp>) -> String {
    let Some(timestamp) = timestamp else {
        return "-".to_owned();
    };
    jiff::Timestamp::new(timestamp.seconds, timestamp.nanos)
        .map(|time| {
            time.to_zoned(jiff::tz::TimeZone::system())
                .strftime("%F %T")
                .to_string()
        })
        .unwrap_or_else(|_| "-".to_owned())
}

/// How long from one time to another.
pub fn duration(
    from: Option<&prost_types::Timestamp>,
    to: Option<&prost_types::Timestamp>,
) -> String {
    let (Some(from), Some(to)) = (from, to) else {
        return "-".to_owned();
    };
    let seconds = (to.seconds - from.seconds) as f64 + f64::from(to.nanos - from.nanos) / 1e9;
    match seconds {
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{} min {:02} s", s as u64 / 60, s as u64 % 60),
        s => format!("{} h {:02} min", s as u64 / 3600, s as u64 / 60 % 60),
    }
}

/// The value of an enum in lower-case words: `JOB_STATE_RUNNING` is `running`.
pub fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix)
        .unwrap_or(name)
        .to_lowercase()
        .replace('_', " ")
}

/// A number with its thousands apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes.
pub fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" {
                format!("{bytes} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1234), "1,234");
        assert_eq!(grouped(123_456_789), "123,456,789");
        assert_eq!(bytes(98 << 20), "98.0 MiB");
    }

    #[test]
    fn an_error_names_fields_and_remedy_once() {
        let status = crate::api::status::invalid_argument("job.trace.noise", "'loud' is no rule");
        let text = explain(&anyhow::Error::from(status));
        assert_eq!(text.matches("'loud' is no rule").count(), 1, "{text}");
        assert!(
            text.contains("job.trace.noise") && text.contains("to help"),
            "{text}"
        );
    }
}
