use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::super::{Entry, Target, TokenFacts};
use super::*;

const ISSUERS: [&str; 2] = ["https://a", "https://b"];
const LEEWAY: Duration = Duration::from_secs(2);

fn index() -> Index {
    Index::new(FactHasher::random(), ISSUERS.map(str::to_owned), LEEWAY, 1_000_000)
}

fn revoke(target: Target, issuer: Option<&str>, before: Option<i64>, expires: Option<i64>) -> Change {
    Change::Revoke(Entry {
        target,
        issuer: issuer.map(str::to_owned),
        before: before.map(UnixSeconds),
        expires: expires.map(UnixSeconds),
    })
}

fn facts(issuer: &str) -> TokenFacts<'_> {
    TokenFacts {
        issuer,
        jti: Some("x"),
        sid: Some("x"),
        sub: Some("x"),
        client: Some("x"),
        kid: Some("x"),
        iat: Some(UnixSeconds(50)),
    }
}

fn hit(index: &Index, issuer: &str, iat: Option<i64>, now: i64) -> Option<Hit> {
    index.check(&index.hasher().keys(&facts(issuer)), iat.map(UnixSeconds), UnixSeconds(now))
}

#[test]
fn each_kind_of_target_revokes_by_its_own_fact() {
    let targets = [
        (Target::Jti("x".into()), FactKind::Jti),
        (Target::Sid("x".into()), FactKind::Sid),
        (Target::Sub("x".into()), FactKind::Sub),
        (Target::Client("x".into()), FactKind::Client),
        (Target::Kid("x".into()), FactKind::Kid),
        (Target::Issuer, FactKind::Issuer),
    ];
    for (target, kind) in targets {
        let index = index();
        index.apply(&revoke(target.clone(), Some("https://a"), None, Some(100))).unwrap();
        assert_eq!(hit(&index, "https://a", Some(50), 60), Some(Hit { kind, before: None }));
        assert_eq!(hit(&index, "https://b", Some(50), 60), None, "another issuer's {}", kind.name());
        index.apply(&Change::Lift { target, issuer: None }).unwrap();
        assert_eq!(hit(&index, "https://a", Some(50), 60), None);
    }
}

#[test]
fn a_cut_off_spares_what_was_issued_at_or_after_it_but_not_what_does_not_say() {
    let index = index();
    index.apply(&revoke(Target::Issuer, None, Some(50), None)).unwrap();
    let expected = Some(Hit { kind: FactKind::Issuer, before: Some(UnixSeconds(50)) });
    assert_eq!(hit(&index, "https://b", Some(49), 60), expected);
    assert_eq!(hit(&index, "https://b", None, 60), expected);
    assert_eq!(hit(&index, "https://b", Some(50), 60), None);
}

#[test]
fn holds_through_the_leeway_and_is_forgotten_later() {
    let index = index();
    index.apply(&revoke(Target::Issuer, Some("https://a"), None, Some(100))).unwrap();
    assert!(hit(&index, "https://a", None, 101).is_some());
    assert!(hit(&index, "https://a", None, 102).is_none());
    assert_eq!(index.forget_expired(UnixSeconds(102)), 0, "a clock that jumped ahead may come back");
    assert!(hit(&index, "https://a", None, 101).is_some());
    assert_eq!(index.forget_expired(UnixSeconds(102).plus(FORGET_AFTER)), 1);
    assert!(index.is_empty());
}

#[test]
fn an_issuer_that_the_feed_does_not_speak_for_is_left_out() {
    let index = index();
    let pushed = index.apply(&revoke(Target::Issuer, Some("https://a/"), None, None)).unwrap();
    assert_eq!((pushed, index.len(), index.generation()), (Pushed::ForeignIssuer, 0, 0));
}

#[test]
fn the_generation_moves_only_when_something_changed() {
    let index = index();
    let change = revoke(Target::Sub("x".into()), Some("https://a"), Some(10), Some(100));
    index.apply(&change).unwrap();
    assert_eq!(index.generation(), 1);
    index.apply(&change).unwrap();
    assert_eq!(index.generation(), 1, "delivered twice");
    index.apply(&Change::Lift { target: Target::Sub("x".into()), issuer: None }).unwrap();
    assert_eq!(index.generation(), 2);
    index.replace(&index.stage());
    assert_eq!(index.generation(), 3);
}

#[test]
fn refuses_to_grow_beyond_its_limit_and_keeps_what_it_has() {
    let index = Index::new(FactHasher::random(), ["https://a".to_owned()], LEEWAY, 2);
    let change = |id: &str| revoke(Target::Jti(id.into()), None, None, None);
    index.apply(&change("x")).unwrap();
    index.apply(&change("y")).unwrap();
    assert_eq!(index.apply(&change("z")), Err(Full { max_entries: 2 }));
    assert!(hit(&index, "https://a", None, 0).is_some());
    let mut staged = index.stage();
    staged.push(&change("1")).unwrap();
    staged.push(&change("2")).unwrap();
    assert!(staged.push(&change("3")).is_err());
}

#[test]
fn grows_and_shrinks_without_losing_any() {
    let index = index();
    let target = |n: u32| Target::Jti(n.to_string());
    for n in 0..20_000 {
        let expires = if n % 10 == 0 { 1_000_000 } else { 100 };
        index.apply(&revoke(target(n), Some("https://a"), None, Some(expires))).unwrap();
    }
    assert_eq!(index.len(), 20_000);
    index.forget_expired(UnixSeconds(10_000));
    assert_eq!(index.len(), 2_000);
    for n in 0..20_000_u32 {
        let jti = n.to_string();
        let keys = index.hasher().keys(&TokenFacts { issuer: "https://a", jti: Some(&jti), ..facts("") });
        assert_eq!(index.check(&keys, None, UnixSeconds(0)).is_some(), n % 10 == 0, "{n}");
    }
}

#[test]
fn records_bring_an_index_back() {
    let hasher = FactHasher::random();
    let issuers = || ISSUERS.map(str::to_owned);
    let index = Index::new(hasher.clone(), issuers(), LEEWAY, 100);
    index.apply(&revoke(Target::Sub("x".into()), None, Some(10), Some(100))).unwrap();
    index.apply(&revoke(Target::Sub("x".into()), None, Some(5), Some(200))).unwrap();

    let copy = Index::new(hasher, issuers(), LEEWAY, 100);
    let mut staged = copy.stage();
    index
        .for_each_record(|record| {
            staged.push_record(Record::from_bytes(&record.to_bytes()).unwrap(), index.kinds())
        })
        .unwrap();
    copy.replace(&staged);
    for (iat, now) in [(9, 50), (9, 150), (4, 150), (4, 250)] {
        assert_eq!(hit(&copy, "https://a", Some(iat), now), hit(&index, "https://a", Some(iat), now));
    }
}

#[test]
fn readers_never_see_a_mixture_of_snapshots_nor_miss_what_always_holds() {
    let index = index();
    let sets: Vec<Staged> = ["even", "odd"]
        .map(|set| {
            let mut staged = index.stage();
            for target in [Target::Kid(set.into()), Target::Jti(set.into()), Target::Sub("always".into())] {
                staged.push(&revoke(target, Some("https://a"), None, None)).unwrap();
            }
            staged
        })
        .into();
    index.replace(&sets[0]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let always = TokenFacts { issuer: "https://a", sub: Some("always"), ..TokenFacts::default() };
                // The kid of one set and the jti of the other: whichever is in force, exactly one of them hits.
                let one = TokenFacts { issuer: "https://a", kid: Some("even"), jti: Some("odd"), ..always };
                let (always, one) =
                    (index.hasher().keys(&always), index.hasher().keys(&TokenFacts { sub: None, ..one }));
                while !done.load(Ordering::Relaxed) {
                    assert!(index.check(&always, None, UnixSeconds(0)).is_some());
                    assert!(index.check(&one, None, UnixSeconds(0)).is_some());
                }
            });
        }
        for round in 0..500 {
            index.replace(&sets[round % 2]);
            let before = i64::try_from(round).unwrap();
            let change =
                revoke(Target::Sub("always".into()), Some("https://a"), Some(before), Some(1_000 - before));
            index.apply(&change).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// The index as one would write it down in three lines.
#[derive(Default)]
struct Model(HashMap<(Target, &'static str), Vec<BeforeAndExpires>>);

type BeforeAndExpires = (Option<i64>, i64);

#[derive(Clone, Debug)]
enum Step {
    Revoke(Target, Option<usize>, Option<i64>, i64),
    Lift(Target, Option<usize>),
    Snapshot(Vec<(Target, Option<usize>, Option<i64>, i64)>),
    Forget,
}

impl Model {
    fn revoke(&mut self, target: &Target, issuer: Option<usize>, before: Option<i64>, expires: i64) {
        for bound in bound(issuer) {
            self.0.entry((target.clone(), bound)).or_default().push((before, expires));
        }
    }

    fn revoked(&self, target: &Target, issuer: &'static str, iat: Option<i64>, now: i64) -> bool {
        self.0.get(&(target.clone(), issuer)).is_some_and(|entries| {
            entries.iter().any(|(before, expires)| {
                now < expires + 2 && before.is_none_or(|before| iat.is_none_or(|iat| iat < before))
            })
        })
    }
}

fn bound(issuer: Option<usize>) -> Vec<&'static str> {
    issuer.map_or(ISSUERS.to_vec(), |issuer| vec![ISSUERS[issuer]])
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        Just(Target::Jti("x".into())),
        Just(Target::Sub("x".into())),
        Just(Target::Kid("x".into())),
        Just(Target::Issuer),
    ]
}

fn entry() -> impl Strategy<Value = (Target, Option<usize>, Option<i64>, i64)> {
    (target(), prop::option::of(0..2_usize), prop::option::of(0..6_i64), 0..7_i64)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => entry().prop_map(|(target, issuer, before, expires)| Step::Revoke(target, issuer, before, expires)),
        2 => (target(), prop::option::of(0..2_usize)).prop_map(|(target, issuer)| Step::Lift(target, issuer)),
        1 => prop::collection::vec(entry(), 0..6).prop_map(Step::Snapshot),
        1 => Just(Step::Forget),
    ]
}

fn change((target, issuer, before, expires): &(Target, Option<usize>, Option<i64>, i64)) -> Change {
    revoke(target.clone(), issuer.map(|issuer| ISSUERS[issuer]), *before, Some(*expires))
}

proptest! {
    #[test]
    fn agrees_with_the_model(steps in prop::collection::vec(step(), 0..60)) {
        let (index, mut model) = (index(), Model::default());
        for step in steps {
            match step {
                Step::Revoke(target, issuer, before, expires) => {
                    model.revoke(&target, issuer, before, expires);
                    index.apply(&change(&(target, issuer, before, expires))).unwrap();
                }
                Step::Lift(target, issuer) => {
                    for bound in bound(issuer) {
                        model.0.remove(&(target.clone(), bound));
                    }
                    let issuer = issuer.map(|issuer| ISSUERS[issuer].to_owned());
                    index.apply(&Change::Lift { target, issuer }).unwrap();
                }
                Step::Snapshot(entries) => {
                    model = Model::default();
                    let mut staged = index.stage();
                    for entry in &entries {
                        model.revoke(&entry.0, entry.1, entry.2, entry.3);
                        staged.push(&change(entry)).unwrap();
                    }
                    index.replace(&staged);
                }
                // At the end of the time that the model looks at, so that it may not change any answer.
                Step::Forget => { index.forget_expired(UnixSeconds(2).plus(FORGET_AFTER)); }
            }
        }
        for issuer in ISSUERS {
            for (iat, now) in (0..6).flat_map(|iat| (2..9).map(move |now| (Some(iat), now))).chain([(None, 3)]) {
                let targets = [Target::Jti("x".into()), Target::Sub("x".into()), Target::Kid("x".into()), Target::Issuer];
                let expected = targets.iter().any(|target| model.revoked(target, issuer, iat, now));
                prop_assert_eq!(hit(&index, issuer, iat, now).is_some(), expected, "{} {:?} {}", issuer, iat, now);
            }
        }
    }
}
