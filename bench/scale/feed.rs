//! An index that a feed fills, over HTTP and from the copy on disk, through the very task that the gateway runs.

use std::io::{BufRead as _, BufReader, BufWriter, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use url::Url;
use valgate::clock::Clock;
use valgate::feeds::fetch::FetchSettings;
use valgate::feeds::revocation::{
    DEFAULT_MAX_BYTES, DEFAULT_MAX_ENTRIES, RevocationFeed, RevocationFeedSettings, RevocationSource,
    load_fact_hasher,
};

use super::memory::{Peak, at_rest, resident};
use super::probe::Probe;
use super::{ISSUER, LEEWAY, id, say, tokens};

/// Answers the first request with a snapshot, the second with another once it may, and then no more.
struct Server {
    url: Url,
    may_change: Arc<AtomicBool>,
}

impl Server {
    fn start(entries: usize) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = Url::parse(&format!("http://{}/revocations", listener.local_addr()?))?;
        let may_change = Arc::new(AtomicBool::new(false));
        let gate = Arc::clone(&may_change);
        let answered = AtomicUsize::new(0);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // One at a time: there is one who asks.
                let _ = serve(&stream, entries, &answered, &gate);
            }
        });
        Ok(Self { url, may_change })
    }
}

fn serve(
    stream: &TcpStream,
    entries: usize,
    answered: &AtomicUsize,
    gate: &AtomicBool,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
        }
        let round = answered.fetch_add(1, Ordering::Relaxed);
        while round > 0 && !gate.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
        if round > 1 {
            std::thread::sleep(Duration::from_secs(3600));
        }
        write!(&*stream, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")?;
        let mut writer = BufWriter::with_capacity(1 << 18, stream);
        write_snapshot(&mut writer, round, entries)?;
        writer.flush()?;
        return stream.shutdown(std::net::Shutdown::Write);
    }
}

/// Half of the entries of one round are those of the round before.
fn write_snapshot(writer: &mut impl Write, round: usize, entries: usize) -> std::io::Result<()> {
    let end = Clock::system().wall().0 + 3600;
    write!(writer, r#"{{"version":1,"kind":"snapshot","epoch":"e{round}","entries":["#)?;
    for number in 0..entries {
        let comma = if number == 0 { "" } else { "," };
        let kind = ["sid", "sub", "jti"].get(number % 10).unwrap_or(&"jti");
        write!(writer, r#"{comma}{{"{kind}":"{}","exp":{end}}}"#, id(number + round * entries / 2))?;
    }
    write!(writer, "]}}")
}

fn settings(url: Url, state_dir: &Path) -> RevocationFeedSettings {
    let fetch = FetchSettings {
        timeout: Duration::from_secs(600),
        max_bytes: DEFAULT_MAX_BYTES,
        ..FetchSettings::default()
    };
    RevocationFeedSettings {
        name: "scale".to_owned(),
        source: RevocationSource::Http {
            url,
            long_poll: None,
            authorization: None,
            signed: None,
            fetch: Box::new(fetch),
        },
        interval: Duration::from_secs(1),
        issuers: vec![ISSUER.to_owned()],
        leeway: LEEWAY,
        max_entries: DEFAULT_MAX_ENTRIES,
        state_dir: Some(state_dir.to_owned()),
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts")]
#[tokio::main(flavor = "current_thread")]
pub async fn from_feed(entries: usize, state_dir: &Path) -> Result<()> {
    let server = Server::start(entries)?;
    std::fs::write(state_dir.join("url"), server.url.as_str())?;
    let hasher = load_fact_hasher(Some(state_dir));
    let keys = Arc::new(tokens(&hasher));
    let feed = RevocationFeed::new(settings(server.url.clone(), state_dir), hasher, Clock::system())?;
    let (state, stats) = (feed.state(), feed.stats());
    let base = resident();
    let each = |bytes: u64| bytes.saturating_sub(base) as f64 / entries as f64;

    let (began, probe) = (Instant::now(), Probe::start(Arc::clone(&state), Arc::clone(&keys)));
    let task = tokio::spawn(feed.run());
    until(|| stats.snapshots.load(Ordering::Relaxed) == 1).await;
    say("load_feed", began.elapsed().as_secs_f64());
    probe.end()?;
    ensure!(state.index().len() == entries, "{} of {entries} entries are in force", state.index().len());
    say("rest", each(at_rest()));

    let (began, peak) = (Instant::now(), Peak::watch());
    let probe = Probe::start(Arc::clone(&state), keys);
    server.may_change.store(true, Ordering::Relaxed);
    until(|| stats.snapshots.load(Ordering::Relaxed) == 2).await;
    say("resync", began.elapsed().as_secs_f64());
    let seen = probe.end()?;
    say("swap", each(peak.end()));
    say("swap_pause", seen.pause.as_secs_f64() * 1000.0);
    say("swap_gap", seen.gap.as_secs_f64() * 1000.0);
    task.abort();
    Ok(())
}

async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts")]
#[tokio::main(flavor = "current_thread")]
pub async fn from_disk(entries: usize, state_dir: &Path) -> Result<()> {
    let url = Url::parse(&std::fs::read_to_string(state_dir.join("url"))?)?;
    let hasher = load_fact_hasher(Some(state_dir));
    let mut feed = RevocationFeed::new(settings(url, state_dir), hasher, Clock::system())?;
    let (base, peak, began) = (resident(), Peak::watch(), Instant::now());
    feed.restore().await;
    say("load_disk", began.elapsed().as_secs_f64());
    say("load_disk_memory", peak.end().saturating_sub(base) as f64 / entries as f64);
    let restored = feed.state().index().len();
    ensure!(restored == entries, "{restored} of {entries} entries were kept");
    Ok(())
}
