//! `health`, `access_log`, `audit_log`, `log`.

use super::Build;
use crate::config::place::Place;
use crate::config::raw;
use crate::config::settings::{AccessLog, AuditLog, Health, Log, LogFormat, LogOutput};

impl Build<'_, '_> {
    pub(super) fn health(&mut self, raw: &raw::Health, place: &Place) -> Option<Health> {
        let address = self.address(&raw.address, &place.field("address"))?;
        Some(Health { address, metrics: raw.metrics, carried: Vec::new() })
    }

    /// `Some(None)` if it is off.
    pub(super) fn access_log(&mut self, raw: &raw::AccessLog, place: &Place) -> Option<Option<AccessLog>> {
        let raw::AccessLog::On(raw) = raw else { return Some(None) };
        let output = self.log_output(&raw.output, &place.field("output"))?;
        Some(Some(AccessLog { format: format(raw.format), output }))
    }

    pub(super) fn audit_log(&mut self, raw: &raw::AuditLog, place: &Place) -> Option<AuditLog> {
        let output = self.log_output(&raw.output, &place.field("output"));
        let here = place.field("lines_per_second");
        let lines = self.count(raw.lines_per_second, &here, 1, 10_000);
        Some(AuditLog { output: output?, lines_per_second: u32::try_from(lines?).ok()? })
    }

    fn log_output(&mut self, raw: &raw::LogOutput, place: &Place) -> Option<LogOutput> {
        match raw {
            raw::LogOutput::Stdout => Some(LogOutput::Stdout),
            raw::LogOutput::Stderr => Some(LogOutput::Stderr),
            raw::LogOutput::File(path) if path.is_empty() => {
                self.mistakes.add(&place.field("file"), "the path is empty", "write the path of a file");
                None
            }
            raw::LogOutput::File(path) => Some(LogOutput::File(self.files.resolve(path))),
        }
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
