//! Request ids and W3C trace context: the names under which one request is found again.
//!
//! Ids come from the cryptographic generator in batches, so that an id costs a copy and two gateways never
//! agree by accident. A client's request id is never taken over: whoever chooses the id could hide in, or
//! pollute, another's log. A client's trace id is, since joining a trace is what it is for; it names nothing
//! but the trace. What is recorded of a request is [`super::spans`]' business.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

/// `traceparent` (W3C Trace Context, section 3.2).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// `tracestate` (section 3.3).
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The id that body, log line and `X-Request-Id` of one request share: 128 random bits as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(Hex<32>);

impl RequestId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The id as a header's value.
    pub fn header_value(&self) -> HeaderValue {
        header_value(&self.0.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a request stands in a distributed trace (W3C Trace Context).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: Hex<32>,
    parent_id: Option<Hex<16>>,
    span_id: Hex<16>,
    sampled: bool,
    /// The parent that the upstream is told; none: the client's `traceparent` goes on as it came.
    told: Option<SpanId>,
}

/// The id of a span: 64 random bits as 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(Hex<16>);

impl SpanId {
    /// Its bytes.
    pub fn bytes(self) -> [u8; 8] {
        self.bits().to_be_bytes()
    }

    /// The same as a number, as random as the id.
    pub fn bits(self) -> u64 {
        u64::from_str_radix(self.0.as_str(), 16).unwrap_or_default()
    }
}

impl TraceContext {
    /// The trace id: the client's if it sent a valid `traceparent`, a new one otherwise.
    pub fn trace_id(&self) -> &str {
        self.trace_id.as_str()
    }

    /// The caller's span; `None` if the trace starts here.
    pub fn parent_id(&self) -> Option<&str> {
        self.parent_id.as_ref().map(Hex::as_str)
    }

    /// The trace id's bytes.
    pub fn trace_id_bytes(&self) -> [u8; 16] {
        u128::from_str_radix(self.trace_id(), 16).unwrap_or_default().to_be_bytes()
    }

    /// The caller's span, by its id.
    pub fn parent(&self) -> Option<SpanId> {
        self.parent_id.map(SpanId)
    }

    /// This gateway's span.
    pub fn span(&self) -> SpanId {
        SpanId(self.span_id)
    }

    /// Whether the trace is recorded: by the caller, or by the word of [`Self::decide`].
    pub fn sampled(&self) -> bool {
        self.sampled
    }

    /// Whether the client's trace goes on. If not, its `tracestate` must not be forwarded (section 3.3).
    pub fn continued(&self) -> bool {
        self.parent_id.is_some()
    }

    /// Has the upstream told that its parent is this span, and whether that is recorded.
    pub fn decide(&mut self, parent: SpanId, sampled: bool) {
        self.told = Some(parent);
        self.sampled = sampled;
    }

    /// The parts of the `traceparent` for the upstream, one behind the other; `None` if the client's goes on as it came,
    /// since no span of ours is recorded that could be a parent.
    pub fn header_parts(&self) -> Option<[&[u8]; 5]> {
        let SpanId(parent) = self.told.as_ref()?;
        let flags: &[u8] = if self.sampled { b"-01" } else { b"-00" };
        Some([b"00-", &self.trace_id.0, b"-", &parent.0, flags])
    }
}

/// Makes the ids of one core.
pub struct IdGenerator {
    random: Box<[u8; POOL]>,
    /// The digits of ids to come.
    pool: Box<[u8; POOL]>,
    used: usize,
}

impl IdGenerator {
    /// A generator with its pool still to be filled.
    pub fn new() -> Self {
        Self { random: Box::new([0; POOL]), pool: Box::new([b'0'; POOL]), used: POOL }
    }

    /// A new request id.
    pub fn request_id(&mut self) -> RequestId {
        RequestId(self.hex())
    }

    /// The trace context of a request with these headers. Anything but exactly one valid `traceparent`
    /// starts a new trace (section 4.3).
    pub fn trace_context(&mut self, headers: &HeaderMap) -> TraceContext {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let parent = match (values.next(), values.next()) {
            (Some(value), None) => Parent::parse(value.as_bytes()),
            _ => None,
        };
        let trace_id = parent.map_or_else(|| self.hex(), |parent| parent.trace_id);
        let span_id = self.hex();
        TraceContext {
            trace_id,
            parent_id: parent.map(|parent| parent.span_id),
            span_id,
            sampled: parent.is_some_and(|parent| parent.sampled),
            told: parent.is_none().then_some(SpanId(span_id)),
        }
    }

    /// The id of a further span.
    pub fn span_id(&mut self) -> SpanId {
        SpanId(self.hex())
    }

    fn hex<const N: usize>(&mut self) -> Hex<N> {
        if self.used + N > POOL {
            self.refill();
        }
        let unused = self.pool.get(self.used..).and_then(<[u8]>::first_chunk);
        let text = unused.copied().unwrap_or([b'0'; N]);
        self.used += N;
        Hex(text).or_nonzero()
    }

    fn refill(&mut self) {
        self.used = 0;
        let random = &mut self.random;
        if aws_lc_rs::rand::fill(random.as_mut_slice()).is_err() {
            // Ids are names, not secrets: better ones that only differ than no service.
            for byte in random.iter_mut().step_by(8) {
                *byte = byte.wrapping_add(1);
            }
        }
        // All at once and a byte for each digit, so that vector instructions make many digits at a time.
        for (text, byte) in self.pool.iter_mut().zip(random.iter()) {
            *text = digit(byte & 0xf);
        }
    }
}

impl Default for IdGenerator {
    fn default() -> Self {
        Self::new()
    }
}

/// Without the pool: it holds the ids to come.
impl fmt::Debug for IdGenerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdGenerator").finish_non_exhaustive()
    }
}

/// What a valid `traceparent` says.
#[derive(Clone, Copy)]
struct Parent {
    trace_id: Hex<32>,
    span_id: Hex<16>,
    sampled: bool,
}

impl Parent {
    /// Section 3.2.2, with section 4.3 for versions to come: those may have more after the flags.
    fn parse(value: &[u8]) -> Option<Self> {
        let (version, rest) = field::<2>(value)?;
        let (trace_id, rest) = field::<32>(rest.strip_prefix(b"-")?)?;
        let (span_id, rest) = field::<16>(rest.strip_prefix(b"-")?)?;
        let (flags, rest) = field::<2>(rest.strip_prefix(b"-")?)?;
        let ends_well = match &version.0 {
            b"00" => rest.is_empty(),
            b"ff" => false,
            _ => rest.is_empty() || rest.starts_with(b"-"),
        };
        let valid = ends_well && !trace_id.is_zero() && !span_id.is_zero();
        let low_flags = u8::from_str_radix(flags.as_str(), 16).ok()?;
        valid.then_some(Self { trace_id, span_id, sampled: low_flags & SAMPLED != 0 })
    }
}

/// Splits off `N` lower-case hex digits.
fn field<const N: usize>(value: &[u8]) -> Option<(Hex<N>, &[u8])> {
    let (digits, rest) = value.split_first_chunk::<N>()?;
    let hex = digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    hex.then_some((Hex(*digits), rest))
}

/// `N` lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Hex<const N: usize>([u8; N]);

impl<const N: usize> Hex<N> {
    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    fn is_zero(&self) -> bool {
        self.0.iter().all(|digit| *digit == b'0')
    }

    /// All zero means 'invalid' (sections 3.2.2.3 and 3.2.2.4).
    fn or_nonzero(mut self) -> Self {
        if self.is_zero()
            && let Some(last) = self.0.last_mut()
        {
            *last = b'1';
        }
        self
    }
}

impl<const N: usize> fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble }
}

/// Hex digits and hyphens are always a valid value; the fallback only spares a panic.
fn header_value(text: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(text).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

/// Fifty requests' worth: enough to make the generator's fixed cost vanish.
const POOL: usize = 4096;

/// The `sampled` flag (section 3.2.2.5.1).
const SAMPLED: u8 = 0x01;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn context(values: &[&str]) -> TraceContext {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, HeaderValue::from_str(value).unwrap());
        }
        IdGenerator::new().trace_context(&headers)
    }

    #[test]
    fn a_valid_parent_is_continued() {
        for (value, sampled) in [
            (format!("00-{TRACE}-{SPAN}-01"), true),
            (format!("00-{TRACE}-{SPAN}-00"), false),
            (format!("00-{TRACE}-{SPAN}-ff"), true),
            (format!("cc-{TRACE}-{SPAN}-01"), true),
            (format!("cc-{TRACE}-{SPAN}-01-what-the-future-brings"), true),
        ] {
            let context = context(&[&value]);
            assert_eq!(context.trace_id(), TRACE, "{value}");
            assert_eq!(context.parent_id(), Some(SPAN), "{value}");
            assert_eq!(context.sampled(), sampled, "{value}");
            assert_ne!(context.span().0.as_str(), SPAN, "the gateway's span is its own");
            assert_eq!(context.header_parts(), None, "the client's goes on as it came");
        }
    }

    #[test]
    fn anything_else_starts_a_new_trace() {
        let zero_trace = "0".repeat(32);
        for value in [
            String::new(),
            "garbage".to_owned(),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{zero_trace}-{SPAN}-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-01."),
            format!("cc-{TRACE}-{SPAN}-01.more"),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-0"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00_{TRACE}_{SPAN}_01"),
            format!(" 00-{TRACE}-{SPAN}-01"),
        ] {
            let context = context(&[&value]);
            assert!(!context.continued(), "{value}");
            assert_ne!(context.trace_id(), TRACE, "{value}");
            assert!(!context.sampled(), "{value}");
        }
    }

    #[test]
    fn two_parents_are_as_good_as_none() {
        let value = format!("00-{TRACE}-{SPAN}-01");
        assert!(!context(&[&value, &value]).continued());
    }

    #[test]
    fn the_upstream_sees_the_span_that_is_recorded_as_parent() {
        let mut context = context(&[&format!("cc-{TRACE}-{SPAN}-03-x")]);
        let span = IdGenerator::new().span_id();
        context.decide(span, true);
        let expected = format!("00-{TRACE}-{}-01", span.0.as_str());
        assert_eq!(String::from_utf8(context.header_parts().unwrap().concat()).unwrap(), expected);
        context.decide(context.span(), false);
        assert!(context.header_parts().unwrap().concat().ends_with(b"-00"));
    }

    #[test]
    fn ids_as_bytes_are_what_their_digits_say() {
        let context = context(&[&format!("00-{TRACE}-{SPAN}-01")]);
        assert_eq!(context.trace_id_bytes(), 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes());
        assert_eq!(context.parent().unwrap().bytes(), 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    }

    #[test]
    fn ids_differ_across_refills() {
        let mut ids = IdGenerator::new();
        let made: HashSet<_> = (0..2000).map(|_| ids.request_id().as_str().to_owned()).collect();
        assert_eq!(made.len(), 2000);
        assert!(made.iter().all(|id| id.len() == 32 && field::<32>(id.as_bytes()).is_some()));
    }

    #[test]
    fn no_id_is_all_zero() {
        assert_eq!(Hex([b'0'; 4]).or_nonzero().as_str(), "0001");
    }

    #[test]
    fn the_ids_to_come_are_not_shown() {
        let mut ids = IdGenerator::new();
        let _ = ids.request_id();
        assert_eq!(format!("{ids:?}"), "IdGenerator { .. }");
    }

    proptest! {
        #[test]
        fn what_is_sent_on_can_be_continued(value in "[0-9a-f-]{0,60}|\\PC{0,60}") {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.append(TRACEPARENT, value);
            }
            let mut context = IdGenerator::new().trace_context(&headers);
            context.decide(context.span(), false);
            let sent = Parent::parse(&context.header_parts().unwrap().concat()).expect("valid");
            prop_assert_eq!(sent.trace_id.as_str(), context.trace_id());
            prop_assert_eq!(SpanId(sent.span_id), context.span());
        }
    }
}
