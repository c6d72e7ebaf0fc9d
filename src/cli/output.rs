//! All that commands print goes through here: data to standard output, everything else to standard
//! error.
//!
//! What others wrote (why, authors, display names, prompts, failures, errors of a server) must not
//! steer a terminal or pass for a line of this program. So a line is made visible whole: [`show!`]
//! and [`say!`] format it, and every control character in it becomes its picture. Text with colours
//! and several lines of its own ([`styled`]) is made of parts that were made visible; bytes as they
//! are ([`raw`]) are for files and programs.
//!
//! A full disk is an error in a line. A closed pipe, which `head` leaves behind, ends a command
//! quietly.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use tonic::Status;
use tonic_types::StatusExt;

use crate::config;
use crate::plot::table::Table;
use crate::plot::text::{is_hidden, visible, wrap};
use crate::plot::{Colour, terminal_width};

/// Output that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody reads it any more.
    #[error("standard output is closed")]
    Closed,
    /// It goes to a file on a full disk, for one.
    #[error("standard output cannot be written: {0}")]
    Write(io::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Write(error),
        }
    }
}

/// Prints a line of data, formatted as by `format!`, to standard output.
macro_rules! show {
    ($($text:tt)*) => { $crate::cli::output::line(format_args!($($text)*)) };
}

/// Says something in a line, formatted as by `format!`, on standard error.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::output::remark(format_args!($($text)*)) };
}

/// [`show!`].
///
/// # Errors
/// [`Error`].
pub fn line(text: fmt::Arguments<'_>) -> Result<(), Error> {
    styled(&format!("{}\n", visible(&text.to_string())))
}

/// [`say!`]. That nobody hears it is no reason to end.
pub fn remark(text: fmt::Arguments<'_>) {
    let line = format!("{}\n", visible(&text.to_string()));
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Prints a table as wide as the terminal. Its cells are made visible where they are put into it.
///
/// # Errors
/// [`Error`].
pub fn print_table(table: &Table) -> Result<(), Error> {
    styled(&table.render(terminal_width(), colour()))
}

/// Prints text that has colours or several lines, and was made visible part by part.
///
/// # Errors
/// [`Error`].
pub fn styled(text: &str) -> Result<(), Error> {
    raw(text.as_bytes())
}

/// Prints a line: what stands before it has colours and is ours, the text is made visible.
///
/// # Errors
/// [`Error`].
pub fn behind(lead: &str, text: &str) -> Result<(), Error> {
    styled(&format!("{lead}{}\n", visible(text)))
}

/// Prints bytes as they are: a file, or what a model says.
///
/// # Errors
/// [`Error`].
pub fn raw(bytes: &[u8]) -> Result<(), Error> {
    Ok(io::stdout().write_all(bytes)?)
}

/// Prints a value as JSON in a line. Characters that are hidden or steer a terminal are escaped,
/// which changes nothing for a program.
///
/// # Errors
/// [`Error`].
pub fn json(value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string(value).map_err(io::Error::from)?;
    raw(format!("{}\n", escaped(&text)).as_bytes())
}

/// JSON with its hidden characters escaped. They can stand in strings only.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if (c.is_control() && c != '\n') || is_hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            text.push(c);
        }
    }
    text
}

/// Standard output for what writes JSON lines itself.
pub struct JsonLines;

impl Write for JsonLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Characters are whole here: a formatter hands over texts.
        let text = std::str::from_utf8(bytes).map_err(io::Error::other)?;
        io::stdout().write_all(escaped(text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

/// Sees to it that all that was printed is out.
///
/// # Errors
/// [`Error`].
pub fn flush() -> Result<(), Error> {
    Ok(io::stdout().flush()?)
}

/// Whether a command ended because nobody reads its output any more.
pub fn is_closed(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().map(|cause| cause.downcast_ref::<Error>());
    causes.any(|cause| matches!(cause, Some(Error::Closed)))
}

/// The colour that standard output takes.
pub fn colour() -> Colour {
    Colour::decide(io::stdout().is_terminal(), config::terminal_convention)
}

/// Says what a command failed of: a server's answer with the fields it names and its remedy.
pub fn say_error(error: &anyhow::Error) {
    let mut lines = explain(error).into_iter();
    say!("error: {}", lines.next().unwrap_or_default());
    for line in lines {
        say!("  {line}");
    }
}

/// An error in a line.
pub fn brief_error(error: &anyhow::Error) -> String {
    explain(error).join("; ")
}

/// An error as a person reads it: what happened, then the fields it names and what helps, a line
/// each.
fn explain(error: &anyhow::Error) -> Vec<String> {
    let causes: Vec<&(dyn std::error::Error + 'static)> = error.chain().collect();
    let answer = causes.iter().enumerate().find_map(|(at, cause)| {
        let status = cause.downcast_ref::<Status>()?;
        Some((at, status))
    });
    let Some((at, status)) = answer else {
        return vec![chain(error)];
    };
    let mut text = status.message().to_owned();
    if text.is_empty() {
        text = status.code().description().to_owned();
    }
    // What was being done; a cause that says the status itself says it as `Debug` does.
    let said = [text.clone(), format!("{text:?}")];
    let before = causes[..at].iter().map(ToString::to_string);
    let mut before: Vec<String> = before
        .take_while(|cause| !said.iter().any(|said| cause.contains(said)))
        .collect();
    before.push(text.clone());
    let mut lines = vec![before.join(": ")];
    // The other end hung up: what it speaks may not be HTTP/2 without encryption.
    let hung_up = [
        "h2 protocol error",
        "operation was canceled",
        "connection closed",
        "connection reset",
        "broken pipe",
    ];
    // "transport error" says nothing of itself; that nobody listens is said by its causes.
    let untold = text == "transport error" && !chain(error).contains("refused");
    if untold || hung_up.iter().any(|what| text.starts_with(what)) {
        lines.push(
            "to help: a coordinator with certificates is called as https://HOST:PORT, with client.ca \
             ('palimpsest auth init' writes a configuration for each caller)"
                .to_owned(),
        );
    }
    let details = status.get_error_details();
    let fields = details
        .bad_request()
        .map_or(&[][..], |bad| &bad.field_violations);
    for field in fields {
        if !text.contains(&field.description) {
            lines.push(format!("{}: {}", field.field, field.description));
        }
    }
    if let Some(info) = details.error_info()
        && let Some(remedy) = info.metadata.get("remedy")
    {
        // By its reason it is found in the guide 'when-it-fails'.
        lines.push(format!("to help: {remedy} ({})", info.reason));
    }
    lines
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

/// So many things: `1 model`, `2,000 models`.
pub fn counted(number: u64, one: &str, several: &str) -> String {
    let what = if number == 1 { one } else { several };
    format!("{} {what}", grouped(number))
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

/// Writes a sentence in lines of at most `width` columns, in one where there is no terminal.
///
/// # Errors
/// When it cannot be written.
pub fn paragraph(out: &mut dyn Write, text: &str, width: Option<usize>) -> io::Result<()> {
    match width {
        Some(width) => {
            for line in wrap(text, width) {
                writeln!(out, "{line}")?;
            }
        }
        None => writeln!(out, "{text}")?,
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
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
        let lines = explain(&anyhow::Error::from(status));
        let text = lines.join("\n");
        assert_eq!(text.matches("'loud' is no rule").count(), 1, "{text}");
        assert!(
            text.contains("job.trace.noise") && text.contains("to help"),
            "{text}"
        );
        assert!(text.ends_with(" (INVALID_FIELD)"), "{text}");
    }

    #[test]
    fn a_message_is_said_once_whatever_is_in_it() {
        for message in [
            "prompt \"{}{} is\" has 2",
            "a \\ and 'quotes'",
            "two\nlines",
            "",
        ] {
            let status = Status::invalid_argument(message);
            let plain = explain(&anyhow::Error::from(status.clone()));
            assert_eq!(plain.len(), 1);
            assert!(!plain[0].contains("code:"), "{}", plain[0]);
            let within = anyhow::Error::from(status).context("while it was stored");
            assert_eq!(
                explain(&within)[0],
                format!("while it was stored: {}", plain[0])
            );
        }
    }

    #[test]
    fn json_is_the_same_without_a_character_that_steers_a_terminal() {
        let value =
            serde_json::json!({ "why": "\u{1b}[2J \u{9b}2J \u{7f} \u{202e} \u{e0041} ä\n" });
        let text = escaped(&value.to_string());
        assert!(
            text.is_ascii() || text.chars().all(|c| !c.is_control() && !is_hidden(c)),
            "{text}"
        );
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read, value);
    }
}
