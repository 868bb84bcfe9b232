//! Writes the families of a scrape: sums over cores first, then what others registered.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::Shared;
use super::cells::{Block, CoreCells, Histogram, ListenerCells, Published, RouteCells, Row, Scale};
use super::labels::{Closed, ConnectionState, Label, Names, Protocol, ProtocolError, Shed, TlsResult};
use super::readings::Readings;
use crate::catalogue::Reason;
use crate::telemetry::access_log::Auth;

/// The source of all families.
#[derive(Debug)]
pub(super) struct Exposition {
    pub(super) shared: Arc<Shared>,
    pub(super) readings: Arc<Readings>,
}

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.build(&mut encoder)?;
        self.routes(&mut encoder)?;
        self.upstreams(&mut encoder)?;
        self.issuers(&mut encoder)?;
        self.listeners(&mut encoder)?;
        self.cores(&mut encoder)?;
        self.readings.encode(&mut encoder)
    }
}

impl Exposition {
    #[allow(clippy::unused_self, reason = "one of a row of siblings")]
    fn build(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "The version that runs.";
        let mut metric = encoder.encode_descriptor("build", help, None, MetricType::Info)?;
        metric.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
    }

    fn routes(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let routes = named(&self.shared.route_names, &self.shared.routes);
        let requests = routes.iter().flat_map(|(route, cells)| {
            let answered = cells.answered.iter().zip(STATUS_CLASSES).map(|(count, class)| {
                // One series of each route from the start, or the first request is no increase.
                (count, class, None, count > 0 || class == "2xx")
            });
            let failed = Reason::ALL.iter().map(|reason| {
                let count = cells.failed.get(*reason as usize);
                let class = class_name(RouteCells::class(Some(reason.status())));
                (count, class, Some(*reason), count > 0)
            });
            answered.chain(failed).filter(|(.., shown)| *shown).map(|(count, status, reason, _)| {
                let code = reason.map_or("none", |reason| reason.code().number());
                let reason = reason.map_or("none", Reason::name);
                ([("route", &**route), ("code", code), ("reason", reason), ("status", status)], count)
            })
        });
        counters(encoder, "requests", "Requests by outcome.", requests)?;

        let shadow = routes.iter().flat_map(|(route, cells)| {
            let overlooked =
                Reason::ALL.iter().map(|reason| (Some(*reason), cells.overlooked.get(*reason as usize)));
            let all = [(None, cells.admitted.get())].into_iter().chain(overlooked);
            all.filter(|(_, count)| *count > 0).map(|(reason, count)| {
                let code = reason.map_or("none", |reason| reason.code().number());
                let reason = reason.map_or("none", Reason::name);
                ([("route", &**route), ("code", code), ("reason", reason)], count)
            })
        });
        let help = "Requests on routes that are not enforced, by what they would have been refused for.";
        counters(encoder, "shadow_requests", help, shadow)?;

        let help = "Time from a request's first byte to its response's last.";
        let durations = routes.iter().map(|(name, cells)| ([("route", &**name)], &cells.duration));
        histograms(encoder, "request_duration_seconds", help, durations)
    }

    fn upstreams(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let upstreams = named(&self.shared.upstream_names, &self.shared.upstreams);
        let help = "Time from a forwarded request to the first byte of its answer.";
        let durations = upstreams.iter().map(|(name, cells)| ([("upstream", &**name)], &cells.first_byte));
        histograms(encoder, "upstream_duration_seconds", help, durations)
    }

    fn issuers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let issuers = named(&self.shared.issuer_names, &self.shared.issuers);
        let judged = issuers.iter().flat_map(|(issuer, cells)| {
            let counts = Auth::ALL.iter().map(|auth| (auth, cells.judged.get(auth.index())));
            counts.map(|(auth, count)| ([("issuer", &**issuer), ("cache", auth.name())], count))
        });
        let shown = judged.filter(|(_, count)| *count > 0);
        counters(encoder, "auth", "Requests by issuer and by how the token was judged.", shown)?;

        let total = |auth: Auth| issuers.iter().map(|(_, cells)| cells.judged.get(auth.index())).sum();
        let help = "Tokens judged from the verdict cache.";
        counters(encoder, "verdict_cache_hits", help, [(NO_LABELS, total(Auth::Warm))])?;
        let help = "Tokens whose signature had to be checked.";
        counters(encoder, "verdict_cache_misses", help, [(NO_LABELS, total(Auth::Cold))])
    }

    fn listeners(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let listeners = named(&self.shared.listener_names, &self.shared.listeners);
        let accepted =
            listeners.iter().map(|(listener, cells)| ([("listener", &**listener)], cells.accepted.get()));
        counters(encoder, "connections_accepted", "Connections accepted.", accepted)?;

        let open = listeners.iter().flat_map(|(listener, cells)| {
            let kinds = Protocol::ALL
                .iter()
                .flat_map(|protocol| ConnectionState::ALL.iter().map(|state| (*protocol, *state)));
            kinds.map(|(protocol, state)| {
                let count = cells.open.get(ListenerCells::open_index(protocol, state));
                let labels =
                    [("listener", &**listener), ("protocol", protocol.name()), ("state", state.name())];
                (labels, count)
            })
        });
        gauges(encoder, "connections", "Open connections.", open)
    }

    fn cores(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let sum = self.shared.cores.sums(1).pop().flatten().unwrap_or_default();
        let CoreCells { bytes_in, bytes_out, verdicts, tls, protocol_errors, closed, shed, delay, .. } = &sum;

        let help = "Verdicts held in the first-level caches of all cores.";
        gauges(encoder, "verdict_cache_entries", help, [(NO_LABELS, verdicts.get())])?;
        let bytes = [([("direction", "in")], bytes_in.get()), ([("direction", "out")], bytes_out.get())];
        counters(encoder, "bytes", "Bytes of bodies, from and to clients.", bytes)?;
        let help = "TLS handshakes with clients.";
        counters(encoder, "tls_handshakes", help, by_label::<TlsResult, _>("result", tls))?;
        let help = "Time of TLS handshakes that succeeded.";
        histograms(encoder, "tls_handshake_duration_seconds", help, [(NO_LABELS, &sum.tls_duration)])?;
        let help = "Time from a token to the verdict on it, by where that came from.";
        let durations = Auth::ALL.iter().zip(&sum.auth_duration);
        let judged = durations.filter(|(auth, _)| **auth != Auth::None);
        let judged = judged.map(|(auth, durations)| ([("cache", auth.name())], durations));
        histograms(encoder, "auth_duration_seconds", help, judged)?;
        let help = "Connections that failed below HTTP.";
        counters(encoder, "protocol_errors", help, by_label::<ProtocolError, _>("kind", protocol_errors))?;
        let help = "Connections that the gateway closed and their clients would have kept.";
        counters(encoder, "connections_closed", help, by_label::<Closed, _>("cause", closed))?;
        let help = "Requests that were shed because of overload.";
        counters(encoder, "requests_shed", help, by_label::<Shed, _>("cause", shed))?;
        let help = "Requests that stand in line, since their worker has as many as it takes on.";
        gauges(encoder, "requests_in_line", help, [(NO_LABELS, sum.in_line.get())])?;
        let help = "Tokens that were forged, malformed or unknown, where they are counted by client.";
        counters(encoder, "failed_attempts", help, [(NO_LABELS, sum.failed_attempts.get())])?;
        let help = "For how long ready work waited for its worker, sampled.";
        histograms(encoder, "worker_delay_seconds", help, [(NO_LABELS, delay)])
    }
}

/// What was counted of the requests of one route that is not enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowCounts {
    /// The route's name.
    pub route: Arc<str>,
    /// Requests that would have been let through.
    pub admitted: u64,
    /// Requests that would have been refused, by the reason; none that is zero.
    pub refused: Vec<(Reason, u64)>,
}

/// Of all routes for which there is anything.
pub(super) fn shadow(shared: &Shared) -> Vec<ShadowCounts> {
    let routes = named(&shared.route_names, &shared.routes).into_iter();
    let counts = routes.map(|(route, cells)| {
        let refused = Reason::ALL.iter().map(|reason| (*reason, cells.overlooked.get(*reason as usize)));
        let refused = refused.filter(|(_, count)| *count > 0).collect();
        ShadowCounts { route, admitted: cells.admitted.get(), refused }
    });
    counts.filter(|counts| counts.admitted > 0 || !counts.refused.is_empty()).collect()
}

/// By [`RouteCells::class`].
const STATUS_CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

const NO_LABELS: [(&str, &str); 0] = [];

fn class_name(class: usize) -> &'static str {
    STATUS_CLASSES.get(class).copied().unwrap_or("none")
}

/// The sums of all configured names, and of the two reserved ones if anything was counted for them.
fn named<C: Block>(names: &Names, published: &Published<C>) -> Vec<(Arc<str>, C)> {
    let names = names.all();
    let sums = published.sums(names.len());
    let reserved = usize::from(Names::OTHER) + 1;
    let used = names.into_iter().zip(sums).enumerate();
    used.filter(|(id, (_, sum))| *id >= reserved || sum.is_some())
        .map(|(_, (name, sum))| (name, sum.unwrap_or_default()))
        .collect()
}

fn by_label<L: Label, const N: usize>(
    key: &'static str,
    row: &Row<N>,
) -> impl Iterator<Item = ([(&'static str, &'static str); 1], u64)> {
    L::ALL.iter().map(move |label| ([(key, label.name())], row.get(label.index())))
}

fn counters<S: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (S, u64)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, count) in samples {
        metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
    }
    Ok(())
}

fn gauges<S: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (S, u64)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in samples {
        // Beyond the range there is only a count that wrapped below zero.
        let value = i64::try_from(value).unwrap_or_default();
        metric.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}

fn histograms<'a, S: EncodeLabelSet, B: Scale + 'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (S, &'a Histogram<B>)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (labels, histogram) in samples {
        let buckets = histogram.buckets();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let mut sample = metric.encode_family(&labels)?;
        sample.encode_histogram::<NoLabelSet>(histogram.sum(), count, &buckets, None)?;
    }
    Ok(())
}
