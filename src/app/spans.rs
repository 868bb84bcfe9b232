//! The recording of spans under the configuration in force, and the delivery of those that were recorded under it and
//! the ones before.
//!
//! An exporter ends when no core can record for it any more and what was recorded is delivered.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::sources::fetch_settings;
use crate::config::{Config, Identity, settings};
use crate::otlp::{Exporter, ExporterSettings};
use crate::telemetry::metrics::{Metrics, Registration};
use crate::telemetry::spans::{SpanPolicy, SpanQueue, SpanStats, Tracer, Undelivered};
use crate::telemetry::trace::{IdGenerator, RequestId};

/// See the module.
#[derive(Debug)]
pub struct Spans {
    current: Option<Recorded>,
    exporters: JoinSet<()>,
    stats: Arc<SpanStats>,
    /// `service.instance.id`.
    instance: RequestId,
}

/// What the cores record, and for which queue.
#[derive(Clone, Debug)]
pub struct Recorded {
    identity: Identity,
    policy: Arc<SpanPolicy>,
    queue: SpanQueue,
}

/// What the next configuration says of spans, ready to be put in force.
#[derive(Debug)]
pub struct Prepared {
    recorded: Option<Recorded>,
    /// Of a queue that is new.
    exporter: Option<Exporter>,
}

impl Spans {
    /// Those of the first configuration.
    ///
    /// # Errors
    /// A certificate or key cannot be used.
    pub fn start(config: &Config) -> Result<(Self, Option<Recorded>)> {
        let mut spans = Self::default();
        let recorded = spans.prepare(config).map(|prepared| spans.adopt(prepared))?;
        Ok((spans, recorded))
    }

    /// All steps that can fail.
    ///
    /// # Errors
    /// A certificate or key cannot be used.
    pub fn prepare(&self, config: &Config) -> Result<Prepared> {
        let Some(settings) = &config.tracing else { return Ok(Prepared { recorded: None, exporter: None }) };
        let identity = config.document.section("tracing");
        if let Some(same) = self.current.as_ref().filter(|current| current.identity == identity) {
            return Ok(Prepared { recorded: Some(same.clone()), exporter: None });
        }
        let (queue, stream) = SpanQueue::new(settings.queue, Arc::clone(&self.stats));
        let stats = Arc::clone(&self.stats);
        let exporter = Exporter::new(&exporter_settings(settings), self.instance.as_str(), stream, stats)
            .context("tracing")?;
        let recorded = Recorded { identity, policy: Arc::new(policy(settings)), queue };
        Ok(Prepared { recorded: Some(recorded), exporter: Some(exporter) })
    }

    /// Puts it in force.
    pub fn adopt(&mut self, prepared: Prepared) -> Option<Recorded> {
        if let Some(exporter) = prepared.exporter {
            self.exporters.spawn(exporter.run());
        }
        while self.exporters.try_join_next().is_some() {}
        self.current = prepared.recorded;
        self.current.clone()
    }

    /// Has metrics tell what becomes of spans, for as long as what is returned lasts.
    pub fn register(&self, metrics: &Metrics) -> Vec<Registration> {
        let stats = Arc::clone(&self.stats);
        let delivered =
            metrics.register_counter("spans_delivered", "Spans that the collector took.", &[], move || {
                stats.delivered_count()
            });
        let undelivered = Undelivered::ALL.map(|why| {
            let stats = Arc::clone(&self.stats);
            metrics.register_counter(
                "spans_dropped",
                "Spans that were recorded and did not arrive.",
                &[("reason", why.name())],
                move || stats.undelivered_count(why),
            )
        });
        [delivered].into_iter().chain(undelivered).collect()
    }

    /// Delivers what is left, once no core records any more.
    pub async fn finish(mut self, patience: Duration) {
        self.current = None;
        let delivering = async { while self.exporters.join_next().await.is_some() {} };
        if tokio::time::timeout(patience, delivering).await.is_err() {
            tracing::warn!("the last spans could not be delivered in time");
        }
    }
}

impl Default for Spans {
    fn default() -> Self {
        let instance = IdGenerator::new().request_id();
        Self { current: None, exporters: JoinSet::new(), stats: Arc::default(), instance }
    }
}

impl Recorded {
    /// One core's part.
    pub fn tracer(&self) -> Tracer {
        Tracer::new(Arc::clone(&self.policy), self.queue.clone())
    }

    /// Whether that is one of its own.
    pub fn made(&self, tracer: &Tracer) -> bool {
        tracer.is_of(&self.policy, &self.queue)
    }
}

fn policy(settings: &settings::Tracing) -> SpanPolicy {
    SpanPolicy {
        sample: settings.sample,
        follow_callers: settings.follow_callers,
        url_path: settings.url_path,
        client_address: settings.client_address,
        claims: settings.claims.clone(),
    }
}

fn exporter_settings(settings: &settings::Tracing) -> ExporterSettings {
    ExporterSettings {
        endpoint: settings.endpoint.clone(),
        headers: settings.headers.clone(),
        resource: settings.resource.clone(),
        fetch: fetch_settings(&settings.transport),
    }
}
