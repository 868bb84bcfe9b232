//! How bytes are cut into reads changes nothing.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::{cases, judge, judge_whole, wire};
use crate::http1::GuardLimits;

/// Small, so that generated inputs reach them.
const TIGHT: GuardLimits = GuardLimits { uri: 12, head: 60, fields: 2, ..DEFAULT };
const DEFAULT: GuardLimits =
    GuardLimits { uri: 8192, head: 65536, fields: 100, head_timeout: std::time::Duration::from_secs(10) };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn reads_do_not_matter(bytes in wire::hostile(), cuts in vec(any::<Index>(), 0..8), tight: bool) {
        let limits = if tight { TIGHT } else { DEFAULT };
        let whole = judge(limits, [bytes.as_slice()]);
        prop_assert_eq!(&whole, &judge(limits, wire::split(&bytes, &cuts)));
        prop_assert_eq!(&whole, &judge(limits, bytes.chunks(1)));
    }

    #[test]
    fn what_is_released_is_what_was_sent(bytes in wire::hostile()) {
        let verdict = judge_whole(&bytes);
        prop_assert!(bytes.starts_with(&verdict.released));
    }

    #[test]
    fn well_formed_requests_pass(requests in vec(wire::request(), 1..5)) {
        let bytes: Vec<_> = requests.iter().flat_map(|sent| sent.bytes.clone()).collect();
        let verdict = judge_whole(&bytes);
        prop_assert_eq!(verdict.refused, None);
        prop_assert_eq!(verdict.heads, requests.len() as u64);
        prop_assert_eq!(verdict.released, bytes);
    }
}

#[test]
fn each_case_split_into_single_bytes() {
    for (name, bytes, _) in cases::all() {
        assert_eq!(judge_whole(&bytes), judge(DEFAULT, bytes.chunks(1)), "{name}");
    }
}
