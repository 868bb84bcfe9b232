//! hyper reads what the guard releases exactly as the guard does.

use proptest::collection::vec;
use proptest::prelude::*;

use super::server::{Call, Outcome, serve};
use super::{cases, judge_whole, wire};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn well_formed_requests_arrive_as_sent(requests in vec(wire::request(), 1..6), pipe in 1..2000_usize) {
        let bytes: Vec<_> = requests.iter().flat_map(|sent| sent.bytes.clone()).collect();
        let expected: Vec<_> =
            requests.into_iter().map(|sent| Call::Served { target: sent.target, body: sent.body }).collect();
        prop_assert_eq!(serve(&bytes, pipe).calls, expected);
    }

    #[test]
    fn hostile_bytes_are_understood_alike(bytes in wire::hostile(), pipe in 1..2000_usize) {
        check(&bytes, &serve(&bytes, pipe))?;
    }
}

#[test]
fn each_case_is_understood_alike() {
    for (name, bytes, _) in cases::all() {
        for pipe in [1, 7, 4096] {
            check(&bytes, &serve(&bytes, pipe)).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}

/// The service was called once for each head that the guard released, with whole bodies for all but the last; a
/// refusal came last, once; and hyper never met bytes that it had to answer itself.
fn check(bytes: &[u8], outcome: &Outcome) -> Result<(), TestCaseError> {
    let verdict = judge_whole(bytes);
    prop_assert!(outcome.parse_error.is_none(), "{outcome:?}");
    prop_assert_eq!(outcome.statuses().len(), outcome.calls.len() + continues(outcome), "{:?}", outcome);

    let (requests, refusals): (Vec<_>, Vec<_>) =
        outcome.calls.iter().partition(|call| !matches!(call, Call::Refused(_)));
    if closes_early(bytes) {
        // One more if its bad body came too late to hold it back.
        prop_assert!(requests.len() as u64 <= verdict.heads + u64::from(verdict.refused.is_some()));
        return Ok(());
    }
    let bad_body = if let Some(Call::BodyRefused(why)) = requests.last() { Some(*why) } else { None };
    let whole = requests.split_last().map_or(&[][..], |(_, whole)| whole);
    prop_assert!(whole.iter().all(|call| matches!(call, Call::Served { .. })), "{outcome:?}");
    // Whether a head was released before its body turned out to be bad depends on how the bytes arrived.
    let released = requests.len() as u64 - u64::from(bad_body.is_some());
    prop_assert_eq!(released, verdict.heads - u64::from(verdict.refused_in_body), "{:?}", outcome);
    match (verdict.refused, bad_body) {
        (Some(violation), None) => prop_assert_eq!(refusals, [&Call::Refused(violation)]),
        (violation, Some(why)) => {
            prop_assert_eq!(violation, Some(why));
            prop_assert!(refusals.is_empty(), "{:?}", outcome);
        }
        // A head that the client did not complete.
        (None, None) => prop_assert!(refusals.len() <= 1),
    }
    Ok(())
}

/// hyper ends the connection after such a request, whatever follows.
fn closes_early(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, b"HTTP/1.0").is_some()
}

fn continues(outcome: &Outcome) -> usize {
    outcome.answer.matches("HTTP/1.1 100 ").count()
}
