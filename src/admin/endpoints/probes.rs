//! `/livez` and `/readyz`, as on the open health listener, for who has only this one.

use http::{Method, StatusCode};

use super::now;
use crate::admin::answer::{TEXT, json, of};
use crate::admin::readiness::{Readiness, Report};
use crate::admin::{Call, Endpoint, Operation, Reply};

/// `/livez`.
#[derive(Debug)]
pub struct Livez;

impl Endpoint for Livez {
    fn path(&self) -> &'static str {
        "/livez"
    }

    fn operations(&self) -> Vec<Operation> {
        vec![Operation::new(Method::GET, "Whether the process runs.").answers_text(
            StatusCode::OK,
            "It does.",
            TEXT,
        )]
    }

    fn answer<'c>(&'c self, _: &'c Call) -> Reply<'c> {
        now(of(StatusCode::OK, TEXT, "ok\n"))
    }
}

/// `/readyz`.
#[derive(Debug)]
pub struct Readyz(pub Readiness);

impl Endpoint for Readyz {
    fn path(&self) -> &'static str {
        "/readyz"
    }

    fn operations(&self) -> Vec<Operation> {
        vec![
            Operation::get::<Report>("Whether the gateway should get traffic, and why not.")
                .answers::<Report>(StatusCode::SERVICE_UNAVAILABLE, "It should not."),
        ]
    }

    fn answer<'c>(&'c self, _: &'c Call) -> Reply<'c> {
        let report = self.0.report();
        let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        now(json(status, &report))
    }
}
