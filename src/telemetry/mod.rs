//! What a program tells of its own running: its log here, its numbers in [`metrics`], what follows
//! from what in [`traces`].

pub mod exposition;
pub mod metrics;
pub mod traces;

use std::io::{self, IsTerminal};

use self::traces::Traces;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::config::{Color, LogConfig, LogFormat};

/// What of the settings of the log cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log's filter cannot be understood.
    #[error(
        "setting log.filter = {filter:?}: {problem}; give a level (error, warn, info, debug, trace, off) or pairs as palimpsest=debug,warn"
    )]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Traces cannot be sent.
    #[error(
        "setting log.otlp_endpoint = {address:?}: {problem}; give an address, as http://127.0.0.1:4317, and with https:// in log.otlp_ca who vouches for it"
    )]
    Collector {
        /// The collector's address.
        address: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Sends the log to standard error, from now on and for the whole process, and the traces to where
/// the settings say: `program` is what they are told to be of. Standard output is for results. A
/// log that is set up already stays as it is. Called inside the runtime.
///
/// # Errors
/// [`Error`] when the filter, or the collector's address, cannot be understood.
pub fn init(config: &LogConfig, program: &'static str) -> Result<Option<Traces>, Error> {
    let filter = filter(&config.filter)?;
    let ansi = match config.color {
        Color::Auto => io::stderr().is_terminal(),
        Color::Always => true,
        Color::Never => false,
    };
    let lines = fmt::layer().with_writer(io::stderr);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match config.format {
        LogFormat::Text => lines.with_ansi(ansi).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let (tracer, traces) = match &config.otlp_endpoint {
        None => (None, None),
        Some(collector) => {
            let refused = |problem: String| Error::Collector {
                address: collector.to_string(),
                problem,
            };
            let authorities = match &config.otlp_ca {
                None => None,
                Some(file) => Some(std::fs::read(file).map_err(|error| {
                    refused(format!("log.otlp_ca, {}: {error}", file.display()))
                })?),
            };
            let started = traces::start(collector, authorities, config.otlp_part, program);
            let (tracer, traces) = started.map_err(|problem| refused(problem.to_string()))?;
            (Some(tracer), Some(traces))
        }
    };
    let spans = tracer.map(|tracer| {
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_filter(filter_fn(|metadata| metadata.target() == traces::TARGET))
    });
    // It fails only where one is set up already: by an earlier call, or by a program that has this
    // crate as a part and a log of its own.
    let _ = Registry::default()
        .with(lines.with_filter(filter))
        .with(spans)
        .try_init();
    Ok(traces)
}

fn filter(text: &str) -> Result<EnvFilter, Error> {
    let error = |problem: String| Error::Filter {
        filter: text.to_owned(),
        problem,
    };
    // A directive of one word that is no level names a module, at all levels: a misspelt "inof"
    // would pass, and silence everything else.
    for word in text.split(',').map(str::trim) {
        let plain = !word.contains(['=', '[', '{']);
        // (An empty word would pass for "error".)
        if plain && (word.is_empty() || word.parse::<LevelFilter>().is_err()) {
            let problem = match word {
                "" => "a part of it is empty".to_owned(),
                _ => format!("{word:?} is not a level (if it is a module, write {word}=trace)"),
            };
            return Err(error(problem));
        }
    }
    EnvFilter::builder()
        .parse(of_this_program(text))
        .map_err(|problem| error(problem.to_string()))
}

/// Levels below info for this program alone: its libraries say a hundred times as much. One of them
/// is heard by its name: `h2=debug`.
fn of_this_program(text: &str) -> String {
    let parts = text
        .split(',')
        .map(str::trim)
        .map(|part| match part.parse() {
            Ok(level @ (LevelFilter::DEBUG | LevelFilter::TRACE)) if !part.contains('=') => {
                format!("info,palimpsest={level}")
            }
            _ => part.to_owned(),
        });
    parts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn config(filter: &str, format: LogFormat) -> LogConfig {
        LogConfig {
            filter: filter.to_owned(),
            format,
            color: Color::Auto,
            otlp_endpoint: None,
            otlp_ca: None,
            otlp_part: 1.0,
        }
    }

    #[test]
    fn the_log_can_be_set_up_more_than_once() {
        init(&config("error", LogFormat::Text), "test").unwrap();
        init(&config("palimpsest=debug,warn", LogFormat::Json), "test").unwrap();
    }

    #[test]
    fn a_filter_that_cannot_be_understood_is_an_error_that_says_why() {
        for (text, problem) in [
            ("", "empty"),
            ("inof", "\"inof\" is not a level"),
            ("info,,palimpsest=debug", "empty"),
            ("palimpsest=loud", "expected one of"),
        ] {
            let message = init(&config(text, LogFormat::Text), "test")
                .unwrap_err()
                .to_string();
            assert!(
                message.contains(problem) && message.contains("log.filter"),
                "{message}"
            );
        }
        for text in [
            "off",
            "INFO",
            "palimpsest::objects=trace,hyper=warn,info",
            "palimpsest[task{n=1}]=debug",
        ] {
            filter(text).unwrap();
        }
    }

    #[test]
    fn a_level_below_info_is_of_this_program_and_a_library_is_heard_by_its_name() {
        for (text, whole) in [
            ("debug", "info,palimpsest=debug"),
            ("warn", "warn"),
            ("debug,h2=trace", "info,palimpsest=debug,h2=trace"),
            ("palimpsest=trace", "palimpsest=trace"),
        ] {
            assert_eq!(of_this_program(text), whole);
        }
    }
}
