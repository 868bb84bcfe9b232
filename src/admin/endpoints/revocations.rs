//! `/revocations`: what is revoked, and the writing of more, for those who may call the private door.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::{Method, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::admin::answer::{Answer, json, problem};
use crate::admin::in_force::InForce;
use crate::admin::router::Parameter;
use crate::admin::{Call, Endpoint, Operation, Reply};
use crate::clock::Clock;
use crate::events::{Body, Inbox, Refusal};
use crate::feeds::revocation::{parse_change, parse_revocation, revocation_line};
use crate::revocation::{Change, EngineError, Fact, Revocation, RevocationEngine};
use crate::telemetry::audit_log::{Caller, Event, Journal};

/// The endpoint.
#[derive(Debug)]
pub struct Revocations {
    /// Whose feeds.
    pub in_force: InForce,
    /// For the time of a revocation.
    pub clock: Clock,
    /// Where it is written down who revoked what.
    pub journal: Journal,
}

/// A feed that can be written to.
#[derive(Clone, Debug)]
pub struct WritableFeed {
    /// Its name in the configuration.
    pub name: String,
    /// Where revocations go: in force here at once, and then to the engine.
    pub inbox: Inbox,
    /// What it is kept in; `None` for a feed that is told, of which only hashes are kept.
    pub engine: Option<Arc<dyn RevocationEngine>>,
}

/// Revocations to be written.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Order {
    /// The feed by which they are revoked; it need not be said where there is one alone.
    feed: Option<String>,
    /// What is revoked, and with `lift` what no longer is.
    #[schemars(length(max = 1000))]
    entries: Vec<Entry>,
}

/// An entry of a revocation feed (docs/revocation-feed.md). Exactly one of jti, sid, sub, client, kid and all.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Entry {
    /// The token with this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    /// All tokens of this session.
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<String>,
    /// All tokens of this subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    /// All tokens issued to this client.
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    /// All tokens signed by this key.
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    /// All tokens of the issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    all: Option<bool>,
    /// Of this issuer; else of each that the feed revokes.
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    /// Only tokens issued before, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<i64>,
    /// When it may be forgotten, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    /// Takes back instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    lift: Option<bool>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// When it was revoked, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<i64>,
}

/// What was written.
#[derive(Serialize, JsonSchema)]
struct Written {
    /// By which feed.
    feed: String,
    /// How many entries revoke.
    revoked: usize,
    /// How many entries take back.
    lifted: usize,
}

/// One page of what is in force.
#[derive(Serialize, JsonSchema)]
struct Listed {
    /// By which feed.
    feed: String,
    /// The entries.
    entries: Vec<Value>,
    /// How many were left out since they cannot be read.
    broken: usize,
    /// The `after` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Endpoint for Revocations {
    fn path(&self) -> &'static str {
        "/revocations"
    }

    fn operations(&self) -> Vec<Operation> {
        let none = "There is no such feed, or none that can be written to.";
        let hashes = "Of this feed only hashes are kept, which cannot be listed.";
        let away =
            "The engine cannot be reached; what was to be revoked may be in force at this gateway alone.";
        vec![
            Operation::get::<Listed>("What a feed's engine has in force, page by page.")
                .parameter(Parameter { name: "feed", description: "The feed's name.", is_number: false })
                .parameter(Parameter {
                    name: "after",
                    description: "The `next` of the page before.",
                    is_number: false,
                })
                .refuses(StatusCode::NOT_FOUND, none)
                .refuses(StatusCode::NOT_IMPLEMENTED, hashes)
                .refuses(StatusCode::SERVICE_UNAVAILABLE, away),
            Operation::new(
                Method::POST,
                "Revokes, or takes back: at this gateway at once, and in the feed's engine.",
            )
            .takes::<Order>()
            .answers::<Written>(StatusCode::OK, "It is in force and kept.")
            .refuses(StatusCode::NOT_FOUND, none)
            .refuses(StatusCode::SERVICE_UNAVAILABLE, away),
        ]
    }

    fn answer<'c>(&'c self, call: &'c Call) -> Reply<'c> {
        Box::pin(async move {
            let answer = if call.method == Method::POST {
                self.write(&call.body, &call.caller).await
            } else {
                self.list(&call.query).await
            };
            answer.unwrap_or_else(|refusal| refusal)
        })
    }
}

#[allow(clippy::result_large_err, reason = "a refusal is an answer, and moves but once")]
impl Revocations {
    async fn list(&self, query: &BTreeMap<String, String>) -> Result<Answer, Answer> {
        let feed = self.feed(query.get("feed").map(String::as_str))?;
        let engine = feed.engine.ok_or_else(|| {
            problem(StatusCode::NOT_IMPLEMENTED, "Of this feed only hashes are kept, which cannot be listed.")
        })?;
        let page =
            engine.list(query.get("after").map(String::as_str)).await.map_err(|error| refused(&error))?;
        let entry = |revocation: &Revocation| {
            serde_json::from_str(&revocation_line(revocation)).unwrap_or(Value::Null)
        };
        let listed = Listed {
            feed: feed.name,
            entries: page.revocations.iter().map(entry).collect(),
            broken: page.broken,
            next: page.next,
        };
        Ok(json(StatusCode::OK, &listed))
    }

    async fn write(&self, body: &[u8], caller: &Caller) -> Result<Answer, Answer> {
        let order: Order = serde_json::from_slice(body).map_err(|_| {
            bad("The body must be a JSON object such as {\"entries\": [{\"sub\": \"alice\", \"exp\": 1790003600}]}.")
        })?;
        let (mut revoke, mut lift) = (Vec::new(), Vec::new());
        for (index, entry) in order.entries.iter().enumerate() {
            match self.read(entry).map_err(|why| bad(&format!("Entry {} is broken: {why}.", index + 1)))? {
                Read::Revoke(revocation) => revoke.push(revocation),
                Read::Lift(fact) => lift.push(fact),
            }
        }
        let feed = self.feed(order.feed.as_deref())?;
        let written = Written { feed: feed.name, revoked: revoke.len(), lifted: lift.len() };
        // Before it is done, since a part of what fails may be in force.
        self.note(&written.feed, &revoke, &lift, caller);
        // What is lifted and revoked in one order is revoked in the end.
        for body in [Body::Lift(lift), Body::Revoke(revoke)] {
            if let Err(refusal) = feed.inbox.send(body).await {
                let why = match refusal {
                    Refusal::Unavailable(why) => why,
                    Refusal::Fault(fault) => fault.description,
                    Refusal::Unauthenticated => String::new(),
                };
                return Err(problem(StatusCode::SERVICE_UNAVAILABLE, &why));
            }
        }
        let Written { feed, revoked, lifted } = &written;
        tracing::warn!(feed, revoked, lifted, "an administrator changed what is revoked");
        Ok(json(StatusCode::OK, &written))
    }

    fn note(&self, feed: &str, revoke: &[Revocation], lift: &[Fact], caller: &Caller) {
        let revoked: Vec<Fact> = revoke.iter().map(|revocation| revocation.entry.fact()).collect();
        let kinds: BTreeSet<&str> =
            revoked.iter().chain(lift).map(|fact| fact.target.parts().0.name()).collect();
        let kinds = kinds.into_iter().collect::<Vec<_>>().join(", ");
        let values =
            revoked.iter().map(in_words).chain(lift.iter().map(|fact| format!("lift {}", in_words(fact))));
        self.journal.note(Event::RevocationsOrdered {
            feed,
            revoked: revoke.len() as u64,
            lifted: lift.len() as u64,
            kinds: &kinds,
            values: &values.collect::<Vec<_>>().join(", "),
            caller,
        });
    }

    fn read(&self, entry: &Entry) -> Result<Read, &'static str> {
        let line = serde_json::to_vec(entry).map_err(|_| "it cannot be read")?;
        Ok(match parse_change(&line)? {
            Change::Lift { target, issuer } => Read::Lift(Fact { target, issuer }),
            Change::Revoke(_) => {
                let mut revocation = parse_revocation(&line)?;
                revocation.revoked_at.get_or_insert(self.clock.wall());
                Read::Revoke(revocation)
            }
        })
    }

    fn feed(&self, name: Option<&str>) -> Result<WritableFeed, Answer> {
        let current = self.in_force.current();
        let feeds = &current.writable_feeds;
        let found = match name {
            Some(name) => feeds.iter().find(|feed| feed.name == name),
            None => feeds.first().filter(|_| feeds.len() == 1),
        };
        found.cloned().ok_or_else(|| {
            let known: Vec<&str> = feeds.iter().map(|feed| feed.name.as_str()).collect();
            let detail = match known.as_slice() {
                [] => "No feed of the configuration can be written to (docs/revoking.md).".to_owned(),
                known => format!("Name one of these feeds: {}.", known.join(", ")),
            };
            problem(StatusCode::NOT_FOUND, &detail)
        })
    }
}

enum Read {
    Revoke(Revocation),
    Lift(Fact),
}

/// `sub alice`; of a whole issuer its URL.
fn in_words(fact: &Fact) -> String {
    let (kind, value) = fact.target.parts();
    let value = if value.is_empty() { fact.issuer.as_deref().unwrap_or("any") } else { value };
    format!("{} {value}", kind.name())
}

fn bad(detail: &str) -> Answer {
    problem(StatusCode::BAD_REQUEST, detail)
}

fn refused(error: &EngineError) -> Answer {
    let status = match error {
        EngineError::Unusable(_) => StatusCode::BAD_REQUEST,
        EngineError::Unavailable(_) | EngineError::ReadOnly(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    problem(status, &error.to_string())
}
