//! Active health checks, on the control runtime: each address is asked at intervals whether it is well, on a
//! connection of its own, so that the answer covers all that a request would need.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::connect::{Opened, open};
use super::member::Member;
use super::service::Upstream;
use super::settings::{HealthCheck, Protocol};

/// Checks the members of an upstream. Never ends, unless no checks are configured.
pub async fn check_health(upstream: Arc<Upstream>) {
    let Some(settings) = upstream.settings.health_check.clone().map(Arc::new) else { return };
    let mut ticks = tokio::time::interval(settings.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut records: Vec<Record> = Vec::new();
    loop {
        ticks.tick().await;
        let members = upstream.members.all();
        let mut round = JoinSet::new();
        for member in members.iter().map(Arc::clone) {
            let (settings, protocol) = (Arc::clone(&settings), upstream.settings.protocol);
            round.spawn(async move {
                let outcome =
                    tokio::time::timeout(settings.timeout, check(&member, &settings, protocol)).await;
                (member, outcome.unwrap_or_else(|_| Err("no answer in time".to_owned())))
            });
        }
        records.retain(|record| members.iter().any(|member| Arc::ptr_eq(member, &record.member)));
        while let Some(checked) = round.join_next().await {
            let Ok((member, outcome)) = checked else { continue };
            let place = records.iter().position(|record| Arc::ptr_eq(&record.member, &member));
            let place = place.unwrap_or_else(|| {
                records.push(Record { member, good: 0, bad: 0, is_first: true });
                records.len() - 1
            });
            if let Some(record) = records.get_mut(place) {
                record.take(outcome, &settings, &upstream.settings.name);
            }
        }
    }
}

/// The checks of one member so far: how many in a row were good or bad.
struct Record {
    member: Arc<Member>,
    good: u32,
    bad: u32,
    is_first: bool,
}

impl Record {
    fn take(&mut self, outcome: Result<(), String>, settings: &HealthCheck, upstream: &str) {
        (self.good, self.bad) = match &outcome {
            Ok(()) => (self.good.saturating_add(1), 0),
            Err(_) => (0, self.bad.saturating_add(1)),
        };
        // The first says how a member begins, of which nothing is known that several could outweigh.
        let is_first = std::mem::replace(&mut self.is_first, false);
        let endpoint = self.member.label();
        match outcome {
            Ok(())
                if (is_first || self.good >= settings.healthy_after) && self.member.health.checked(true) =>
            {
                tracing::info!(%upstream, %endpoint, "endpoint is healthy");
            }
            Ok(()) => {}
            Err(why) => {
                self.member.stats.failed_checks.count();
                if (is_first || self.bad >= settings.unhealthy_after) && self.member.health.checked(false) {
                    tracing::warn!(%upstream, %endpoint, why, "endpoint is unhealthy");
                }
            }
        }
    }
}

async fn check(member: &Member, settings: &HealthCheck, protocol: Protocol) -> Result<(), String> {
    let Opened { stream, is_http2 } = open(member, protocol).await.map_err(|error| error.to_string())?;
    let io = TokioIo::new(stream);
    let request = request(member, settings, is_http2).map_err(|error| error.to_string())?;
    let status = if is_http2 {
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), io).await.map_err(|error| error.to_string())?;
        answer(sender.send_request(request), connection).await
    } else {
        let (mut sender, connection) = http1::handshake(io).await.map_err(|error| error.to_string())?;
        answer(sender.send_request(request), connection).await
    }?;
    let expected = &settings.statuses;
    if expected.contains(&status) || (expected.is_empty() && status.is_success()) {
        Ok(())
    } else {
        Err(format!("status {}", status.as_u16()))
    }
}

/// Waits for the head of the response while the connection is driven. Its body is none of our business.
async fn answer<B>(
    response: impl Future<Output = hyper::Result<http::Response<B>>>,
    connection: impl Future<Output = hyper::Result<()>>,
) -> Result<StatusCode, String> {
    let mut connection = std::pin::pin!(connection);
    let mut response = std::pin::pin!(response);
    let outcome = tokio::select! {
        biased;
        outcome = response.as_mut() => outcome,
        ended = connection.as_mut() => match ended {
            Ok(()) => response.await,
            Err(error) => Err(error),
        },
    };
    outcome.map(|response| response.status()).map_err(|error| error.to_string())
}

fn request(
    member: &Member,
    settings: &HealthCheck,
    is_http2: bool,
) -> Result<Request<Empty<Bytes>>, http::Error> {
    let host = match &settings.host {
        Some(host) => HeaderValue::from_str(host.as_str())?,
        None => member.endpoint.authority.clone(),
    };
    let agent = HeaderValue::from_static(concat!("valgate/", env!("CARGO_PKG_VERSION"), " (health check)"));
    let request = Request::get(settings.path.clone()).header(USER_AGENT, agent);
    if !is_http2 {
        return request.header(HOST, host).body(Empty::new());
    }
    let scheme = if member.endpoint.tls.is_some() { "https" } else { "http" };
    let uri = Uri::builder().scheme(scheme).authority(host.as_bytes()).path_and_query(settings.path.clone());
    request.uri(uri.build()?).body(Empty::new())
}
