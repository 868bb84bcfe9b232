//! How bytes are cut into reads changes nothing, but for one thing: a head whose body turns out to be bad is held
//! back if both came together, and is gone if the head came first.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::{Verdict, cases, judge, judge_whole, wire};
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
        for verdict in [judge(limits, wire::split(&bytes, &cuts)), judge(limits, bytes.chunks(1))] {
            prop_assert!(is_alike(&whole, &verdict), "{:?} and {:?}", whole, verdict);
        }
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
        let (whole, split) = (judge_whole(&bytes), judge(DEFAULT, bytes.chunks(1)));
        assert!(is_alike(&whole, &split), "{name}: {whole:?} and {split:?}");
    }
}

#[test]
fn a_head_that_came_with_a_bad_body_is_not_released() {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let whole = judge_whole(&[&head[..], b"1\r\na\r\n0x\r\n"].concat());
    assert_eq!((whole.heads, whole.released.len(), whole.refused_in_body), (0, 0, false));
    let split = judge(DEFAULT, [&head[..], b"1\r\na\r\n0x\r\n"]);
    assert_eq!((split.heads, split.refused_in_body), (1, true));
    assert_eq!(whole.refused, split.refused);
}

/// Equal, or the first held back a request of which the second released a part.
fn is_alike(whole: &Verdict, split: &Verdict) -> bool {
    whole == split
        || (split.refused_in_body
            && !whole.refused_in_body
            && whole.refused == split.refused
            && whole.heads + 1 == split.heads
            && split.released.starts_with(&whole.released))
}
