//! Renders records as lines into a byte buffer, without allocating once the buffer has its size.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::record::{Name, Record, Sink, name};
use super::{Format, escape};

/// Renders lines of one format. Keeps the text of the current second, which thousands of lines share.
#[derive(Debug)]
pub(super) struct LineWriter {
    format: Format,
    second: Option<u64>,
    second_text: String,
}

impl LineWriter {
    pub(super) fn new(format: Format) -> Self {
        Self { format, second: None, second_text: String::new() }
    }

    /// Appends the record's line.
    pub(super) fn record(&mut self, out: &mut Vec<u8>, record: &Record<'_>) {
        self.line(out, record.time, |fields| record.visit(fields));
    }

    /// Appends the line that admits to lines lost before it.
    pub(super) fn dropped(&mut self, out: &mut Vec<u8>, time: Duration, lines: u64) {
        self.line(out, time, |fields| fields.number(name!("dropped"), lines));
    }

    /// Appends the line of an event of the audit log.
    pub(super) fn event(
        &mut self,
        out: &mut Vec<u8>,
        time: Duration,
        event: &str,
        fill: impl FnOnce(&mut dyn Sink),
    ) {
        self.line(out, time, |fields| {
            fields.text(name!("event"), event);
            fill(fields);
        });
    }

    fn line(&mut self, out: &mut Vec<u8>, time: Duration, fill: impl FnOnce(&mut Fields<'_>)) {
        self.refresh_second(time.as_secs());
        match self.format {
            Format::Json => out.extend_from_slice(b"{\"time\":\""),
            Format::Text => out.extend_from_slice(b"time="),
        }
        out.extend_from_slice(self.second_text.as_bytes());
        push_fraction(out, time.subsec_micros());
        out.extend_from_slice(if self.format == Format::Json { b"Z\"" } else { b"Z" });
        fill(&mut Fields { out, format: self.format });
        out.extend_from_slice(if self.format == Format::Json { b"}\n" } else { b"\n" });
    }

    fn refresh_second(&mut self, second: u64) {
        if self.second != Some(second) {
            let timestamp = i64::try_from(second).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
            self.second_text.clear();
            // RFC 3339 in UTC, whose 'Z' comes after the fraction.
            self.second_text.push_str(timestamp.unwrap_or_default().to_string().trim_end_matches('Z'));
            self.second = Some(second);
        }
    }
}

/// The fields of one line.
struct Fields<'a> {
    out: &'a mut Vec<u8>,
    format: Format,
}

impl Fields<'_> {
    fn name(&mut self, name: &Name) {
        let name = if self.format == Format::Json { name.json } else { name.text };
        self.out.extend_from_slice(name.as_bytes());
    }

    fn quoted(&mut self, value: &[u8]) {
        self.out.push(b'"');
        escape::push(self.out, value);
        self.out.push(b'"');
    }
}

impl Sink for Fields<'_> {
    fn bytes(&mut self, name: &'static Name, value: &[u8]) {
        self.name(name);
        if self.format == Format::Text && is_bare(value) {
            self.out.extend_from_slice(value);
        } else {
            self.quoted(value);
        }
    }

    fn word(&mut self, name: &'static Name, value: &str) {
        debug_assert!(is_bare(value.as_bytes()), "{value} is no word");
        self.name(name);
        let quotes: &[u8] = if self.format == Format::Json { b"\"" } else { b"" };
        self.out.extend_from_slice(quotes);
        self.out.extend_from_slice(value.as_bytes());
        self.out.extend_from_slice(quotes);
    }

    fn number(&mut self, name: &'static Name, value: u64) {
        self.name(name);
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    fn ip(&mut self, name: &'static Name, client: SocketAddr) {
        self.name(name);
        let quotes: &[u8] = if self.format == Format::Json { b"\"" } else { b"" };
        self.out.extend_from_slice(quotes);
        push_ip(self.out, client.ip().to_canonical());
        self.out.extend_from_slice(quotes);
    }
}

/// Whether a value needs no quotes in text.
fn is_bare(value: &[u8]) -> bool {
    let clean = |byte: &u8| escape::is_plain(*byte) && !matches!(byte, b' ' | b'=');
    !value.is_empty() && value.len() <= escape::MAX_VALUE && value.iter().all(clean)
}

fn push_ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            for (at, octet) in ip.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
            }
        }
        // Writing to a vector cannot fail.
        IpAddr::V6(ip) => _ = write!(out, "{ip}"),
    }
}

/// `.` and six digits.
fn push_fraction(out: &mut Vec<u8>, micros: u32) {
    let mut digits = itoa::Buffer::new();
    // The leading 1 stands for the zeros that a number would lose.
    let padded = digits.format(1_000_000 + micros);
    out.push(b'.');
    out.extend_from_slice(padded.as_bytes().get(1..).unwrap_or_default());
}
