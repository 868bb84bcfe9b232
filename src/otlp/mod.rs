//! Delivers spans to an OpenTelemetry collector: OTLP 1.x over HTTP, in protobuf.
//!
//! One task on the control runtime takes batches from the queue of the cores. A collector that is down, slow or busy
//! costs it time and, once the queue is full, spans; the cores never notice. What is retried, and when, is as the
//! specification has it. Knows nothing of requests: what a span says is `telemetry::spans`' business.

mod answer;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use tokio::time::{Instant, sleep, timeout_at};
use url::Url;

use crate::feeds::back_off::{Chance, after_failure};
use crate::feeds::fetch::{FetchClient, FetchError, FetchRequest, FetchSettings, Payload};
use crate::telemetry::spans::{SpanStats, SpanStream, Undelivered};
use answer::Verdict;

/// Where spans go, and on whose behalf.
#[derive(Clone, Debug)]
pub struct ExporterSettings {
    /// Where they are posted to.
    pub endpoint: Url,
    /// What the collector wants to see.
    pub headers: HeaderMap,
    /// Attributes of the resource. `service.instance.id` and `service.version` are added if they are not there.
    pub resource: Vec<(String, String)>,
    /// How the collector is reached.
    pub fetch: FetchSettings,
}

/// Delivers the spans of one queue.
#[derive(Debug)]
pub struct Exporter {
    client: FetchClient,
    endpoint: Url,
    headers: HeaderMap,
    resource: Resource,
    stream: SpanStream,
    stats: Arc<SpanStats>,
    /// The last delivery failed, which has been told.
    is_failing: bool,
}

/// Spans of one delivery, about; what one core hands over at a time comes on top.
const BATCH: usize = 512;

/// How long a span waits for others to be delivered with.
const GATHER: Duration = Duration::from_secs(1);

/// How often a delivery is tried that the collector has no time for. With the back-off it takes some ten seconds, and
/// longer where the collector asks for it.
const ATTEMPTS: u32 = 6;

/// The conventions that attributes follow.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.37.0";

const PROTOBUF: &str = "application/x-protobuf";

impl Exporter {
    /// An exporter of this queue's spans.
    ///
    /// # Errors
    /// A certificate or key cannot be used.
    pub fn new(
        settings: &ExporterSettings,
        instance: &str,
        stream: SpanStream,
        stats: Arc<SpanStats>,
    ) -> Result<Self, FetchError> {
        Ok(Self {
            client: FetchClient::new(&settings.fetch)?,
            endpoint: settings.endpoint.clone(),
            headers: settings.headers.clone(),
            resource: resource(&settings.resource, instance),
            stream,
            stats,
            is_failing: false,
        })
    }

    /// Delivers until nobody can put spans into the queue any more and it is empty.
    pub async fn run(mut self) {
        while let Some(spans) = self.gather().await {
            let count = spans.len() as u64;
            let payload = Payload { media_type: PROTOBUF, bytes: self.encode(spans).into() };
            match self.deliver(payload).await {
                Ok(rejected) => {
                    let rejected = rejected.min(count);
                    self.stats.delivered(count - rejected);
                    self.stats.undelivered(Undelivered::Rejected, rejected);
                }
                Err(why) => self.stats.undelivered(why, count),
            }
        }
    }

    async fn gather(&mut self) -> Option<Vec<Span>> {
        let mut spans = self.stream.next().await?;
        let deadline = Instant::now() + GATHER;
        while spans.len() < BATCH {
            match timeout_at(deadline, self.stream.next()).await {
                Ok(Some(more)) => spans.extend(more),
                Ok(None) | Err(_) => break,
            }
        }
        Some(spans)
    }

    fn encode(&self, spans: Vec<Span>) -> Vec<u8> {
        let scope = InstrumentationScope {
            name: "valgate".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let of_scope = ScopeSpans { scope: Some(scope), spans, schema_url: SCHEMA_URL.to_owned() };
        let of_resource = ResourceSpans {
            resource: Some(self.resource.clone()),
            scope_spans: vec![of_scope],
            schema_url: SCHEMA_URL.to_owned(),
        };
        ExportTraceServiceRequest { resource_spans: vec![of_resource] }.encode_to_vec()
    }

    /// How many spans the collector rejected although it took the delivery, or why it has none.
    async fn deliver(&mut self, payload: Payload) -> Result<u64, Undelivered> {
        for attempt in 1..=ATTEMPTS {
            let request =
                FetchRequest { accept: PROTOBUF, headers: Some(&self.headers), ..FetchRequest::default() };
            let verdict = match self.client.deliver(&self.endpoint, request, payload.clone()).await {
                Ok(answer) => Verdict::of(&answer),
                Err(error) => Verdict::Again { why: error.to_string(), wait: None },
            };
            match verdict {
                Verdict::Taken { rejected, message } => {
                    self.works(rejected, &message);
                    return Ok(rejected);
                }
                Verdict::Refused { why } => {
                    self.fails(&why);
                    return Err(Undelivered::Refused);
                }
                Verdict::Again { why, wait } => {
                    self.fails(&why);
                    if attempt < ATTEMPTS {
                        sleep(wait.unwrap_or_else(|| after_failure(attempt, Chance::draw()))).await;
                    }
                }
            }
        }
        Err(Undelivered::Unreachable)
    }

    /// Tells once that it fails and once that it works again, however many deliveries there are.
    fn fails(&mut self, why: &str) {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(endpoint = %self.shown(), why, "spans cannot be delivered");
        }
    }

    fn works(&mut self, rejected: u64, message: &str) {
        if rejected > 0 {
            self.fails(&format!("the collector rejected {rejected} spans of a delivery: {message:?}"));
        } else if std::mem::take(&mut self.is_failing) {
            tracing::info!(endpoint = %self.shown(), "spans are delivered again");
        }
    }

    /// Without the query, which may be a secret.
    fn shown(&self) -> Url {
        let mut url = self.endpoint.clone();
        url.set_query(None);
        url
    }
}

fn resource(configured: &[(String, String)], instance: &str) -> Resource {
    let own = [("service.version", env!("CARGO_PKG_VERSION")), ("service.instance.id", instance)];
    let own = own.into_iter().filter(|(name, _)| configured.iter().all(|(other, _)| other != name));
    let configured = configured.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let attribute = |(name, value): (&str, &str)| KeyValue {
        key: name.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) }),
        ..KeyValue::default()
    };
    Resource { attributes: configured.chain(own).map(attribute).collect(), ..Resource::default() }
}
