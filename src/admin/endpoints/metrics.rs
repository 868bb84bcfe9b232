//! `/metrics`: the page for Prometheus.

use std::sync::Arc;

use http::StatusCode;

use super::now;
use crate::admin::answer::{of, problem};
use crate::admin::{Call, Endpoint, Operation, Reply};
use crate::telemetry::metrics::{CONTENT_TYPE, Metrics};

/// The endpoint.
#[derive(Debug)]
pub struct MetricsPage(pub Arc<Metrics>);

impl Endpoint for MetricsPage {
    fn path(&self) -> &'static str {
        "/metrics"
    }

    fn operations(&self) -> Vec<Operation> {
        vec![Operation::new(http::Method::GET, "Metrics, for Prometheus.").answers_text(
            StatusCode::OK,
            "OpenMetrics text.",
            CONTENT_TYPE,
        )]
    }

    fn answer<'c>(&'c self, _: &'c Call) -> Reply<'c> {
        now(match self.0.render() {
            Ok(page) => of(StatusCode::OK, CONTENT_TYPE, page),
            Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "The metrics cannot be written."),
        })
    }
}
