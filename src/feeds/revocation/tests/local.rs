//! Changes that come from this gateway itself, while answers are under way that were given without them.

use super::*;
use crate::revocation::{Change, Entry, Fact, Revocation, Target};

/// A snapshot that was read before a revocation is put in force after it.
#[tokio::test]
async fn an_answer_from_before_a_local_change_does_not_undo_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("revocations.json");
    let mut settings = settings(Url::parse("http://127.0.0.1/").unwrap());
    settings.source = RevocationSource::File { path: path.clone(), max_bytes: 10_000 };
    settings.state_dir = Some(dir.path().to_owned());
    let hasher = FactHasher::random();
    let mut case = Case::with(settings.clone(), hasher.clone(), NOW);
    put(&path, &document("e", &ids("a")));
    case.syncs().await;
    let clock = case.feed.replica.clock.clone();
    let engine = Arc::new(FileEngine::new(path.clone(), 10_000, clock));
    let mut writer = FeedWriter::for_engine(&case.feed, engine);
    let parsed = |case: &Case, entries: &str| {
        document::parse(document("e", entries).as_bytes(), case.feed.replica.stage()).unwrap()
    };

    case.hand.advance(Duration::from_secs(1));
    case.feed.replica.asks();
    let answer = parsed(&case, &ids("ac"));
    writer.revoke(&[revocation("b")]).await.unwrap();
    writer.lift(&[Fact { target: Target::Jti("a".to_owned()), issuer: None }]).await.unwrap();
    assert_eq!(case.revoked(), "b");
    case.feed.replica.take(answer, None, NOON).await.unwrap();
    assert_eq!(case.revoked(), "bc", "neither the revocation is undone nor the lift");
    let mut restarted = Case::with(settings, hasher, NOW);
    restarted.feed.restore().await;
    assert_eq!(restarted.revoked(), "bc", "nor after a restart");

    // Asked once more, the source has the word: somebody else may have lifted it.
    case.hand.advance(Duration::from_secs(1));
    case.feed.replica.asks();
    let answer = parsed(&case, &ids("c"));
    case.feed.replica.take(answer, None, NOON).await.unwrap();
    assert_eq!(case.revoked(), "c");
}

/// What comes while a snapshot is put in force is neither in it nor in what is replaced.
#[tokio::test]
async fn a_change_that_comes_while_an_answer_is_put_in_force_stays() {
    let mut case = Case::new(settings(Url::parse("http://127.0.0.1/").unwrap()));
    let (state, local) = (case.feed.state(), case.feed.replica.local.clone());
    case.feed.replica.asks();
    let (_, mark) = local.after(Monotonic::default());
    let mut staged = case.feed.replica.stage();
    staged.push(&Change::Revoke(revocation("b").entry)).unwrap();
    let staged = Arc::new(staged);
    let snapshot = document::parse(document("e", &ids("a")).as_bytes(), case.feed.replica.stage()).unwrap();
    state.index().replace_with(&snapshot.entries.staged, || {
        local.begin(&staged);
        local.since(mark)
    });
    assert_eq!(case.revoked(), "ab");
}

fn revocation(jti: &str) -> Revocation {
    let target = Target::Jti(jti.to_owned());
    let entry = Entry { target, issuer: None, before: None, expires: None };
    Revocation { entry, reason: None, revoked_at: None }
}

const NOON: Monotonic = Monotonic(Duration::from_secs(1));
