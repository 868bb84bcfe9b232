//! `health`, `admin`, `access_log`, `log`.

use super::Build;
use crate::config::place::Place;
use crate::config::raw;
use crate::config::settings::{AccessLog, Admin, Health, Log, LogFormat, LogOutput};

impl Build<'_, '_> {
    pub(super) fn health(&mut self, raw: &raw::Health, place: &Place) -> Option<Health> {
        let address = self.address(&raw.address, &place.field("address"))?;
        Some(Health { address, metrics: raw.metrics })
    }

    pub(super) fn admin(&mut self, raw: &raw::Admin, place: &Place) -> Option<Admin> {
        let place = place.field("address");
        let address = self.address(&raw.address, &place)?;
        if !address.ip().is_loopback() {
            self.mistakes.add(
                &place,
                format!("`{}` is not a loopback address, and whoever can connect may do everything", raw.address),
                "write `127.0.0.1:9191`; other addresses will need a token or a client certificate, which are not \
                 in this version",
            );
            return None;
        }
        Some(Admin { address })
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
