//! The reasons: what caused a refusal, who must act, and how to fix it.

use http::StatusCode;

use super::Code;

/// Who has to do something about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// Whoever sent the request.
    Client,
    /// Whoever runs the gateway.
    Operator,
    /// Whoever issues the tokens and publishes their keys and revocations.
    IdentityProvider,
    /// Whoever runs the API behind the gateway.
    Upstream,
    /// valgate's developers.
    Us,
}

impl Actor {
    /// The actor as docs name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Operator => "operator of the gateway",
            Self::IdentityProvider => "identity provider",
            Self::Upstream => "owner of the API",
            Self::Us => "valgate's developers",
        }
    }
}

/// One row of the table.
struct Row {
    code: Code,
    name: &'static str,
    actor: Actor,
    cause: &'static str,
    remedy: &'static str,
}

macro_rules! reasons {
    ($( $variant:ident = $code:ident, $name:literal, $actor:ident, $cause:literal, $remedy:literal; )*) => {
        /// The cause of a refusal: a closed, stable set.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        #[allow(missing_docs, reason = "the table gives each its cause and remedy")]
        pub enum Reason { $( $variant, )* }

        impl Reason {
            /// All reasons, in the order of their codes.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )* ];

            const fn row(self) -> Row {
                match self {
                    $( Self::$variant => Row {
                        code: Code::$code, name: $name, actor: Actor::$actor, cause: $cause, remedy: $remedy,
                    }, )*
                }
            }
        }
    };
}

reasons! {
    Missing = MissingToken, "missing", Client,
        "The request carried no token.",
        "Send the header 'Authorization: Bearer <token>' with an access token for this API.";

    NotBearer = MalformedCredentials, "not_bearer", Client,
        "The Authorization header uses another scheme than Bearer.",
        "Send the header 'Authorization: Bearer <token>'; Basic and other schemes are not accepted here.";
    Empty = MalformedCredentials, "empty", Client,
        "The Authorization header says Bearer but no token follows.",
        "Put the access token after 'Bearer '; an unset variable in the client is the usual cause.";
    Multiple = MalformedCredentials, "multiple", Client,
        "The request carried more than one credential.",
        "Send exactly one Authorization header, and not a token in another place besides.";
    IllegalCharacters = MalformedCredentials, "illegal_characters", Client,
        "The token contains characters that no bearer token may contain, or something follows it.",
        "Send the token as it was issued: no quotes, spaces, commas or line breaks.";

    Malformed = InvalidToken, "malformed", Client,
        "The token is not a well-formed signed JWT in compact form.",
        "Send the access token exactly as the issuer gave it; a token cut short, an ID of a session or an encrypted token will not do.";
    Expired = InvalidToken, "expired", Client,
        "The token's lifetime (claim exp) is over.",
        "Get a new token from the issuer and send the request again.";
    NotYetValid = InvalidToken, "not_yet_valid", Client,
        "The token is not valid yet (claim nbf or iat lies in the future).",
        "Wait until the token becomes valid; if it was issued just now, the clocks of issuer and gateway differ.";
    SignatureMismatch = InvalidToken, "signature_mismatch", Client,
        "The signature does not match the token's content.",
        "Send the token unchanged; if it is unchanged, the issuer signed it with another key than the one it names.";
    UnknownKey = InvalidToken, "unknown_key", IdentityProvider,
        "The token names a signing key (kid) that its issuer does not publish, or names none where several would fit.",
        "Get a new token; if new tokens fail too, the issuer signs with a key that is not in its JWKS.";
    AlgorithmNotAllowed = InvalidToken, "algorithm_not_allowed", Client,
        "The token's algorithm (alg) is not one that this gateway accepts from this issuer, or does not fit the key.",
        "Use a token signed with one of the algorithms that the gateway is configured for.";
    IssuerNotTrusted = InvalidToken, "issuer_not_trusted", Client,
        "The token's issuer (claim iss) is not one that this route trusts.",
        "Get a token from the issuer of this API; check for a wrong environment, tenant or trailing slash.";
    AudienceMismatch = InvalidToken, "audience_mismatch", Client,
        "The token was issued for another API (claim aud).",
        "Request the token for this API's audience (RFC 8707: parameter resource; some issuers: audience).";
    WrongType = InvalidToken, "wrong_type", Client,
        "The token is of another kind (header typ), for example an ID or logout token.",
        "Send the access token, not an ID token, refresh token or logout token.";
    ClaimMissing = InvalidToken, "claim_missing", IdentityProvider,
        "The token lacks a claim that is required here.",
        "Have the issuer put the required claim into the access tokens for this API.";
    ClaimInvalid = InvalidToken, "claim_invalid", IdentityProvider,
        "A claim has the wrong type, a value out of range, or one that cannot be passed on.",
        "Have the issuer put a value of the right type into the claim (RFC 7519 section 4.1).";
    Revoked = InvalidToken, "revoked", Client,
        "The token, its session, its subject, its client or its key was revoked.",
        "Log in again to get a new token.";
    NotRecognized = InvalidToken, "not_recognized", Client,
        "The issuer does not know this token, or says that it is no longer active.",
        "Get a new token from the issuer and send the request again.";
    BindingMismatch = InvalidToken, "binding_mismatch", Client,
        "The token is bound to a key or certificate that the client did not prove to hold.",
        "Send the request with the client certificate or proof of possession that the token is bound to.";

    InsufficientScope = InsufficientScope, "insufficient_scope", Client,
        "The token lacks a scope that this route requires.",
        "Request a token with the scope that the challenge names; the user or an administrator may have to consent.";

    ClaimRule = AccessDenied, "claim_rule", Client,
        "The token's claims do not satisfy a rule of this route.",
        "Ask the owner of the API for access; the gateway's log names the rule.";
    OriginNotAllowed = AccessDenied, "origin_not_allowed", Client,
        "A page of this origin may not call this route.",
        "Call from a page of an allowed origin; the operator can add this one to the route's cors.allow_origins.";
    CertificateMissing = AccessDenied, "certificate_missing", Client,
        "This route requires a client certificate, and the connection has none.",
        "Connect by TLS with a certificate of the authority that this API trusts.";
    CertificateEnded = AccessDenied, "certificate_ended", Client,
        "The client certificate of the connection is not accepted any more.",
        "Connect again with a certificate that is in time and that its authority has not revoked.";
    CertificateRule = AccessDenied, "certificate_rule", Client,
        "The client certificate is not one that this route allows.",
        "Use the certificate that was issued for this API; the gateway's log names the rule.";
    ProxyNotTrusted = AccessDenied, "proxy_not_trusted", Operator,
        "Who asks for a decision is not in the listener's decision.from.",
        "The operator should add the proxy's address to the listener's decision.from, and keep that listener private.";
    CrossOrigin = AccessDenied, "cross_origin", Client,
        "A request that changes something came with a cookie from a page of another origin.",
        "Send the request from a page of the same origin, or with an Authorization header in place of the cookie.";

    StepUpRequired = StepUpRequired, "step_up_required", Client,
        "The login behind the token is too old or too weak for this route.",
        "Log in again with the strength that the challenge names.";

    NoRoute = NoSuchRoute, "no_route", Client,
        "No route matches the request's host and path.",
        "Check host and path (case matters); the operator sees in the log what was asked for.";

    MethodNotAllowed = MethodNotAllowed, "method_not_allowed", Client,
        "The route does not allow this method.",
        "Use one of the methods in the Allow header.";

    AmbiguousPath = BadRequest, "ambiguous_path", Client,
        "The path could mean different things to the gateway and to the API behind it (dot segments, encoded slashes, backslashes, double slashes, parameters, fragments, control characters, overlong UTF-8).",
        "Send the path in its plain form; the operator can allow one such class on a route that needs it.";
    AmbiguousFraming = BadRequest, "ambiguous_framing", Client,
        "Where the request's body ends could be read in more than one way.",
        "Send either one Content-Length or 'Transfer-Encoding: chunked', well formed; a proxy or library in between may be at fault.";
    IllegalHeader = BadRequest, "illegal_header", Client,
        "A header's name or value is not allowed in HTTP, or a header that may appear once appeared more often.",
        "Remove the header, or send it once and in the form that RFC 9110 gives.";
    IllegalTarget = BadRequest, "illegal_target", Client,
        "The request target or the Host header is missing, malformed, or the two disagree.",
        "Send a plain path and exactly one Host header that names the same host.";
    IllegalDescription = BadRequest, "illegal_description", Operator,
        "The proxy that asks for a decision does not say, exactly once each, which request it is about.",
        "The operator should configure the proxy as docs/beside.md shows it.";
    MalformedRequest = BadRequest, "malformed_request", Client,
        "The bytes are not a valid HTTP request.",
        "Speak HTTP/1.1 or HTTP/2 to this port; plain HTTP sent to a TLS port, or the reverse, ends here too.";

    BodyTooLarge = RequestTooLarge, "body", Client,
        "The body is larger than this route allows.",
        "Send a smaller body; the operator can raise limits.body.";
    UriTooLong = RequestTooLarge, "uri", Client,
        "The request target is longer than the gateway allows.",
        "Shorten the path or query, or send the data in the body; the operator can raise limits.uri.";
    HeadersTooLarge = RequestTooLarge, "headers", Client,
        "There are more headers, or larger ones, than the gateway allows.",
        "Send fewer or smaller headers (old cookies are the usual cause); the operator can raise limits.headers.";
    TokenTooLarge = RequestTooLarge, "token", Client,
        "The token is larger than the gateway allows.",
        "Have the issuer put less into the token (group lists are the usual cause); the operator can raise limits.token.";

    TooManyFailures = TooManyFailedAttempts, "too_many_failures", Client,
        "Too many tokens from this client were forged, malformed or unknown.",
        "Wait as long as Retry-After says, then send a valid token.";

    HeaderTimeout = RequestTimeout, "header_timeout", Client,
        "The request's headers did not arrive in time.",
        "Send the whole request without pausing; the operator can raise timeouts.header.";
    BodyTimeout = RequestTimeout, "body_timeout", Client,
        "The request's body stopped arriving.",
        "Send the body without pausing; the operator can raise timeouts.body_idle.";
    BodyTooSlow = RequestTimeout, "body_rate", Client,
        "The request's body arrived too slowly.",
        "Send the body faster; the operator can lower body_rate of limits or route, or raise timeouts.total of upstream or route.";

    SniMismatch = MisdirectedRequest, "sni_mismatch", Client,
        "The TLS connection was made for another host (SNI) than the request names.",
        "Open a new connection for this host; clients do so by themselves on 421.";

    ExpectationUnknown = NotSupported, "expectation", Client,
        "The Expect header asks for something other than 100-continue.",
        "Remove the Expect header.";
    MethodNotSupported = NotSupported, "method", Client,
        "CONNECT and TRACE are not carried.",
        "Use another method.";
    VersionNotSupported = NotSupported, "version", Client,
        "The version of HTTP is not supported.",
        "Speak HTTP/1.1 or HTTP/2.";

    ClientClosed = ClientClosed, "client_closed", Client,
        "The client closed the connection before the response was complete.",
        "Nothing to do, unless it happens often: then compare the client's time-out with the API's response time.";

    KeysNotLoaded = KeysUnavailable, "keys_not_loaded", IdentityProvider,
        "The issuer's keys could not be fetched since the gateway started.",
        "Retry after the time in Retry-After; the operator should check keys.jwks_url, network and certificate authority, and the provider.";
    KeysExpired = KeysUnavailable, "keys_expired", IdentityProvider,
        "The issuer's keys could not be refreshed for longer than max_stale allows.",
        "Retry after the time in Retry-After; the operator should check why the refresh fails (log, metrics).";
    KeysUnreachable = KeysUnavailable, "keys_unreachable", IdentityProvider,
        "The token names a key not seen before, and the issuer's keys cannot be fetched at the moment to look for it.",
        "Retry after the time in Retry-After; the operator should check why the refresh fails (log, metrics).";

    FeedNotLoaded = RevocationStatusUnavailable, "feed_not_loaded", Operator,
        "The revocation feed was not loaded since the gateway started.",
        "Retry after the time in Retry-After; the operator should check the feed's address, credentials and server.";
    FeedStale = RevocationStatusUnavailable, "feed_stale", Operator,
        "The revocation feed was not heard from for longer than max_staleness allows.",
        "Retry after the time in Retry-After; the operator should check the feed's server, or choose another when_stale.";
    RevocationNotKept = RevocationStatusUnavailable, "revocation_not_kept", Operator,
        "The revocation could not be written to where the gateways read it.",
        "Send the request again after the time in Retry-After; the operator should check the feed's engine and its credentials.";

    IntrospectionFailed = IntrospectionUnavailable, "introspection_failed", IdentityProvider,
        "The introspection endpoint could not be asked, or gave no valid answer.",
        "Retry after the time in Retry-After; the operator should check the endpoint and its credentials.";

    UpstreamConnect = UpstreamUnreachable, "connect", Upstream,
        "No connection to the API could be made.",
        "Retry later; the operator should check that the upstream's endpoint is right and that the API listens there.";
    UpstreamResolve = UpstreamUnreachable, "resolve", Operator,
        "The API's host name could not be resolved.",
        "The operator should check the host name in the upstream's endpoint, and the resolver.";
    UpstreamTls = UpstreamUnreachable, "tls", Operator,
        "The TLS handshake with the API failed.",
        "The operator should check the upstream's certificate, its name and the configured certificate authority.";
    UpstreamReset = UpstreamUnreachable, "reset", Upstream,
        "The API closed the connection without an answer.",
        "Retry if the request is safe to repeat; the owner of the API should look for a crash or a shorter idle time-out.";

    UpstreamConnectTimeout = UpstreamTimeout, "connect_timeout", Upstream,
        "The connection to the API was not made in time.",
        "Retry later; the operator should check network and load, or raise timeouts.connect.";
    UpstreamResponseTimeout = UpstreamTimeout, "response_timeout", Upstream,
        "The API did not begin to answer in time.",
        "Retry if the request is safe to repeat; the operator can raise timeouts.response of upstream or route.";
    UpstreamTotalTimeout = UpstreamTimeout, "total_timeout", Upstream,
        "The API's answer was not complete in time.",
        "Retry if the request is safe to repeat; the operator can raise timeouts.total of upstream or route.";

    BadResponse = BadUpstreamResponse, "bad_response", Upstream,
        "The API answered with something that is not valid HTTP.",
        "The owner of the API should look at what it sends; the gateway's log says what was wrong.";

    NoHealthyEndpoint = NoHealthyUpstream, "no_healthy_endpoint", Upstream,
        "No endpoint of the API is healthy.",
        "Retry later; the owner of the API should look at its health.";

    Overloaded = Overloaded, "overloaded", Operator,
        "The gateway has more to do than its limits allow.",
        "Retry after the time in Retry-After; the operator should add gateways or raise limits.";

    UpstreamBusy = Overloaded, "upstream_busy", Operator,
        "The API has as many requests to answer as the gateway may give it.",
        "Retry after the time in Retry-After; the operator should add endpoints or raise the upstream's limits.";

    Draining = ShuttingDown, "draining", Client,
        "This gateway is stopping.",
        "Send the request again; it will reach another gateway.";

    Internal = InternalError, "internal", Us,
        "A defect in the gateway.",
        "Report it with the request id; the gateway's log has the details.";
}

impl Reason {
    /// The code that this reason is given under.
    pub const fn code(self) -> Code {
        self.row().code
    }

    /// `expired`, as in bodies, logs and metric labels.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// Who has to act.
    pub const fn actor(self) -> Actor {
        self.row().actor
    }

    /// What happened, in one sentence.
    pub const fn cause(self) -> &'static str {
        self.row().cause
    }

    /// What to do about it.
    pub const fn remedy(self) -> &'static str {
        self.row().remedy
    }

    /// The HTTP status of this reason: its code's, but where the standard asks for another.
    pub const fn status(self) -> StatusCode {
        match self {
            // RFC 6750 section 3.1: credentials of another scheme are as if none were sent.
            Self::NotBearer => StatusCode::UNAUTHORIZED,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadersTooLarge | Self::TokenTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::ExpectationUnknown => StatusCode::EXPECTATION_FAILED,
            Self::VersionNotSupported => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            _ => self.code().status(),
        }
    }

    /// The `grpc-status` of this reason.
    pub const fn grpc_status(self) -> u8 {
        match self {
            Self::NotBearer => Code::MissingToken.grpc_status(),
            _ => self.code().grpc_status(),
        }
    }

    /// The `error` of the Bearer challenge (RFC 6750 section 3.1); `None` where the challenge carries none.
    pub const fn bearer_error(self) -> Option<&'static str> {
        match self.code() {
            Code::MalformedCredentials if !matches!(self, Self::NotBearer) => Some("invalid_request"),
            Code::InvalidToken => Some("invalid_token"),
            Code::InsufficientScope => Some("insufficient_scope"),
            Code::StepUpRequired => Some("insufficient_user_authentication"),
            _ => None,
        }
    }
}
