//! What a request passes through between the connection it came on and the upstream it goes to, or the refusal it
//! gets. [`handle`](Gateway::handle) is the page to read; every line of it is a module here or a layer below.

mod activity;
mod authenticate;
mod body;
mod core;
mod credential;
mod exchange;
mod expiry_hint;
mod explain;
mod explanation;
mod forward;
mod forwarded;
mod grpc;
mod handle;
mod identity;
mod long_lived;
mod peer;
mod refusals;
mod reserved;
mod respond;
mod route;
mod sanitize;
mod verdict_cache;
mod websocket;

pub use activity::{Activity, Busy};
pub use authenticate::Authenticator;
pub use body::ResponseBody;
pub use core::{Core, MetricIds, RequestLimits};
pub use credential::{TokenSource, token_from_header};
pub use exchange::Exchange;
pub use expiry_hint::{ExpiryHint, ExpiryHints};
pub use explain::{Explainer, Shown};
pub use explanation::{CheckReport, Explanation, Outcome, Refusal};
pub use forwarded::{Provenance, TrustedProxies};
pub use handle::Gateway;
pub use identity::{IdentityHeader, IdentitySource};
pub use long_lived::{LongLived, SWEEP};
pub use peer::{Inbound, Peer, PeerTls};
pub use refusals::{CoreRefusals, Refusals, RefusedRequest};
pub use reserved::ReservedNames;
pub use route::{HostHeader, Route, Routes};
pub use verdict_cache::SharedVerdicts;
