//! The process's own log: what happens to the gateway, not to a request.
//!
//! Goes to standard error, so that standard output is free for the access log. Values that a peer controls
//! are logged as `?value`, never `%value`: only `?` escapes line breaks in text.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use tracing::Subscriber;
use tracing::subscriber::set_global_default;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; in colour on a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why the log cannot be as wished.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level does not parse.
    #[error(
        "log level '{level}' is not understood: {source}; use error, warn, info, debug or trace, or per module such as 'info,valgate::feeds=debug'"
    )]
    Level {
        /// What was asked for.
        level: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// A word that is no level; the filter would take it for the name of a module and fall silent.
    #[error(
        "log level '{0}' is not one of error, warn, info, debug, trace and off; for one module, write 'module=level'"
    )]
    UnknownLevel(String),
    /// There is a log already.
    #[error("logging is set up already; it can be set up only once in a process")]
    SetUpTwice,
    /// The log is gone.
    #[error("the log level cannot be changed: {0}")]
    Gone(reload::Error),
}

/// Changes the level while the process runs.
#[derive(Clone)]
pub struct LevelHandle(reload::Handle<EnvFilter, Registry>);

impl LevelHandle {
    /// Sets the level, as [`init`] does. On an error the level stays as it was.
    pub fn set(&self, level: &str) -> Result<(), LoggingError> {
        self.0.reload(filter(level)?).map_err(LoggingError::Gone)
    }

    /// The level, as [`Self::set`] takes it.
    pub fn current(&self) -> Result<String, LoggingError> {
        self.0.with_current(ToString::to_string).map_err(LoggingError::Gone)
    }
}

impl fmt::Debug for LevelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LevelHandle").finish_non_exhaustive()
    }
}

/// Sets up the log of the process. The level is one of error, warn, info, debug and trace, or a list of
/// `module=level` directives.
pub fn init(level: &str, format: LogFormat) -> Result<LevelHandle, LoggingError> {
    let (subscriber, handle) = subscriber(level, format, wants_colour(), io::stderr)?;
    set_global_default(subscriber).map_err(|_| LoggingError::SetUpTwice)?;
    _ = PROCESS_LEVEL.set(handle.clone());
    Ok(handle)
}

/// The level of the process's log; `None` before [`init`]. There is one log in a process, and so one level.
pub fn level_handle() -> Option<LevelHandle> {
    PROCESS_LEVEL.get().cloned()
}

static PROCESS_LEVEL: OnceLock<LevelHandle> = OnceLock::new();

fn subscriber<W>(
    level: &str,
    format: LogFormat,
    colour: bool,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync, LevelHandle), LoggingError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let subscriber = Registry::default().with(filter).with(lines(format, colour, writer));
    Ok((subscriber, LevelHandle(handle)))
}

fn lines<S, W>(format: LogFormat, colour: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        LogFormat::Text => layer.with_ansi(colour).boxed(),
        LogFormat::Json => layer.with_ansi(false).json().flatten_event(true).boxed(),
    }
}

fn filter(level: &str) -> Result<EnvFilter, LoggingError> {
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    let no_level = |word: &&str| !word.contains(['=', '[', ']']) && !is_level(word);
    if let Some(word) = level.split(',').find(no_level) {
        return Err(LoggingError::UnknownLevel(word.to_owned()));
    }
    // It calls each failed attempt an error; what matters of that, the feeds say themselves.
    let quiet = if level.contains(NATS_CLIENT) { "" } else { ",async_nats=off" };
    EnvFilter::builder()
        .parse(format!("{level}{quiet}"))
        .map_err(|source| LoggingError::Level { level: level.to_owned(), source })
}

const NATS_CLIENT: &str = "async_nats";

fn wants_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::with_default;

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn captured(level: &str, format: LogFormat, log: impl FnOnce(&LevelHandle)) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let (subscriber, handle) = subscriber(level, format, false, move || writer.clone()).unwrap();
        with_default(subscriber, || log(&handle));
        captured.text()
    }

    #[test]
    fn json_lines_are_objects_with_their_fields() {
        let text = captured("info", LogFormat::Json, |_| {
            tracing::info!(issuer = "main", "keys\nloaded");
        });
        let object: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(object["level"], "INFO");
        assert_eq!(object["message"], "keys\nloaded");
        assert_eq!(object["issuer"], "main");
    }

    #[test]
    fn text_has_no_colour_when_not_wanted_and_escapes_debug_values() {
        let text = captured("info", LogFormat::Text, |_| {
            tracing::info!(host = ?"a\n\x1b[31mERROR forged", "refused");
        });
        assert!(!text.contains('\x1b'), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }

    #[test]
    fn the_level_can_change_at_run_time() {
        let text = captured("warn", LogFormat::Text, |level| {
            tracing::info!("first");
            level.set("info").unwrap();
            tracing::info!("second");
            assert!(level.set("lots=of=noise").is_err());
            tracing::info!("third");
            level.set("error").unwrap();
            tracing::info!("fourth");
        });
        let shown: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().last()).collect();
        assert_eq!(shown, ["second", "third"]);
    }

    #[test]
    fn a_bad_level_is_explained() {
        let error = filter("chatty=very").unwrap_err().to_string();
        assert!(error.contains("'chatty=very'") && error.contains("use error, warn, info"), "{error}");
        for level in ["verbose", "info,verbose", "", "info,"] {
            assert!(matches!(filter(level), Err(LoggingError::UnknownLevel(_))), "{level}");
        }
        for level in ["info", "INFO", "off", "warn,valgate::feeds=debug", "info,valgate[request]=trace"] {
            assert!(filter(level).is_ok(), "{level}");
        }
    }
}
