//! `health`, `access_log`, `log`.

use super::Build;
use crate::config::place::Place;
use crate::config::raw;
use crate::config::settings::{AccessLog, Health, Log, LogFormat, LogOutput};

impl Build<'_, '_> {
    pub(super) fn health(&mut self, raw: &raw::Health, place: &Place) -> Option<Health> {
        let address = self.address(&raw.address, &place.field("address"))?;
        Some(Health { address, metrics: raw.metrics, carried: Vec::new() })
    }

    /// `Some(None)` if it is off.
    pub(super) fn access_log(&mut self, raw: &raw::AccessLog, place: &Place) -> Option<Option<AccessLog>> {
        let raw::AccessLog::On(raw) = raw else { return Some(None) };
        let output = match &raw.output {
            raw::LogOutput::Stdout => LogOutput::Stdout,
            raw::LogOutput::Stderr => LogOutput::Stderr,
            raw::LogOutput::File(path) if path.is_empty() => {
                let place = place.field("output").field("file");
                self.mistakes.add(&place, "the path is empty", "write the path of a file");
                return None;
            }
            raw::LogOutput::File(path) => LogOutput::File(self.files.resolve(path)),
        };
        Some(Some(AccessLog { format: format(raw.format), output }))
    }
}

pub(super) fn log(raw: &raw::Log) -> Log {
    let level = match raw.level {
        raw::LogLevel::Error => tracing::Level::ERROR,
        raw::LogLevel::Warn => tracing::Level::WARN,
        raw::LogLevel::Info => tracing::Level::INFO,
        raw::LogLevel::Debug => tracing::Level::DEBUG,
        raw::LogLevel::Trace => tracing::Level::TRACE,
    };
    Log { level, format: format(raw.format) }
}

fn format(raw: raw::LogFormat) -> LogFormat {
    match raw {
        raw::LogFormat::Json => LogFormat::Json,
        raw::LogFormat::Text => LogFormat::Text,
    }
}
