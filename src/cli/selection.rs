//! How a command line names what is revoked, and the engine that it is written to.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use jiff::{SignedDuration, Timestamp};

use crate::app::engines;
use crate::clock::{Clock, UnixSeconds};
use crate::config::settings::{Feed, FeedIndex};
use crate::config::{self, Config};
use crate::revocation::{Fact, FactKind, RevocationEngine, Target};
use crate::token::{Claims, Compact};

/// Where revocations are.
#[derive(Debug, Args)]
pub struct Place {
    /// Configuration file of the gateways
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// The feed to use, if the configuration has several
    #[arg(long, value_name = "NAME")]
    feed: Option<String>,
}

/// What is revoked. Tokens are secrets, so a token is read from standard input or a file and never an argument.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct What {
    /// The token on standard input, by its jti
    #[arg(long)]
    token: bool,
    /// The token in this file, by its jti
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The token with this id
    #[arg(long, value_name = "ID")]
    jti: Option<String>,
    /// All tokens of this session
    #[arg(long, value_name = "ID")]
    sid: Option<String>,
    /// All tokens of this subject
    #[arg(long, value_name = "NAME")]
    sub: Option<String>,
    /// All tokens issued to this client
    #[arg(long, value_name = "ID")]
    client: Option<String>,
    /// All tokens signed by this key
    #[arg(long, value_name = "ID")]
    kid: Option<String>,
    /// All tokens of the issuer
    #[arg(long)]
    all: bool,
}

/// A feed of the configuration and its engine.
pub struct Chosen {
    /// The feed.
    pub feed: Feed,
    /// The issuers that it revokes tokens of.
    pub issuers: Vec<String>,
    /// Where it is kept.
    pub engine: Arc<dyn RevocationEngine>,
}

/// A fact to be revoked, and until when that matters if a token says so.
pub struct Selected {
    /// What.
    pub fact: Fact,
    /// The end of the token that was given.
    pub token_expires: Option<UnixSeconds>,
}

impl Place {
    /// The engine that is meant; one that can be written to, if `to_write`.
    pub fn engine(&self, clock: &Clock, to_write: bool) -> Result<Chosen> {
        let config = config::load(&self.config)?;
        let fits = |feed: &Feed| !to_write || matches!(engines::writable(feed, clock), Ok(Some(_)));
        let (index, feed) = if let Some(name) = &self.feed {
            named(&config, name, &self.config)?
        } else {
            let mut fitting = config.feeds.iter().enumerate().filter(|(_, feed)| fits(feed));
            match (fitting.next(), fitting.next()) {
                (Some(one), None) => one,
                (None, _) => bail!(
                    "no feed of {} can be used for this: a file, Valkey, NATS, or a feed server with \
                     write_authorization (docs/revoking.md)",
                    self.config.display()
                ),
                (Some(_), Some(_)) => bail!("there are several feeds: name one with --feed"),
            }
        };
        ensure!(
            fits(feed),
            "the feed {} can be read but not written: give it write_authorization, or name another with --feed",
            feed.name
        );
        let bound = |revocation: &config::settings::Revocation| revocation.feeds.contains(&FeedIndex(index));
        let issuers = config.issuers.iter().filter(|issuer| issuer.revocation.as_ref().is_some_and(bound));
        Ok(Chosen {
            feed: feed.clone(),
            issuers: issuers.map(|issuer| issuer.issuer.clone()).collect(),
            engine: engines::engine(feed, clock)?,
        })
    }
}

fn named<'c>(config: &'c Config, name: &str, path: &Path) -> Result<(usize, &'c Feed)> {
    let found = config.feeds.iter().enumerate().find(|(_, feed)| feed.name == name);
    found.with_context(|| format!("there is no feed {name} in {}", path.display()))
}

impl What {
    /// What is meant; `issuer` as it stands on the command line.
    pub fn select(&self, issuer: Option<&str>) -> Result<Selected> {
        if self.token || self.token_file.is_some() {
            return of_token(&self.read_token()?, issuer);
        }
        let named = [
            (&self.jti, FactKind::Jti),
            (&self.sid, FactKind::Sid),
            (&self.sub, FactKind::Sub),
            (&self.client, FactKind::Client),
            (&self.kid, FactKind::Kid),
        ];
        let target = match named.into_iter().find_map(|(value, kind)| Some((value.as_deref()?, kind))) {
            Some(("", kind)) => bail!("the value of --{} is empty", kind.name()),
            Some((value, kind)) => Target::new(kind, value),
            None => Target::Issuer,
        };
        Ok(Selected { fact: Fact { target, issuer: issuer.map(str::to_owned) }, token_expires: None })
    }

    fn read_token(&self) -> Result<String> {
        let mut text = String::new();
        match &self.token_file {
            Some(path) => {
                let file =
                    std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
                file.take(MAX_TOKEN).read_to_string(&mut text)?
            }
            None => io::stdin()
                .lock()
                .take(MAX_TOKEN)
                .read_to_string(&mut text)
                .context("cannot read standard input")?,
        };
        let text = text.trim();
        Ok(text.strip_prefix("Bearer ").unwrap_or(text).to_owned())
    }
}

/// Nothing of the token is believed but by whoever gives it here.
fn of_token(token: &str, issuer: Option<&str>) -> Result<Selected> {
    let claims = Compact::parse(token).and_then(|compact| compact.claims()).map(Claims::new);
    let claims = claims.map_err(|why| anyhow!("this is no token: {why}"))?;
    let jti = claims.token_id().context(
        "the token has no id (jti), so it cannot be revoked by itself; revoke its session or subject (--sid, --sub)",
    )?;
    let of = claims.issuer().ok().flatten();
    ensure!(issuer.is_none() || issuer == of, "--issuer is not the issuer of the token");
    let fact = Fact { target: Target::Jti(jti.to_owned()), issuer: of.map(str::to_owned) };
    Ok(Selected { fact, token_expires: claims.expires().ok().flatten() })
}

/// A point in time: `now`, RFC 3339, seconds since 1970, or how long ago or ahead as a duration.
pub fn time(text: &str, now: UnixSeconds, is_ahead: bool) -> Result<UnixSeconds> {
    if text == "now" {
        return Ok(now);
    }
    if let Ok(seconds) = text.parse::<i64>() {
        ensure!(
            seconds < MILLISECONDS_FROM,
            "{text} is in milliseconds, or far in the future; write seconds since 1970"
        );
        return Ok(UnixSeconds(seconds));
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(UnixSeconds(time.as_second()));
    }
    let by: SignedDuration = text.parse().map_err(|_| {
        anyhow!("'{text}' is no time: write 'now', '24h', '2026-11-23T05:00:00Z', or seconds since 1970")
    })?;
    Ok(if is_ahead { now.plus(by.unsigned_abs()) } else { now.minus(by.unsigned_abs()) })
}

/// In seconds, the year 5138.
const MILLISECONDS_FROM: i64 = 100_000_000_000;
const MAX_TOKEN: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_spelling() {
        let now = UnixSeconds(1_790_000_000);
        for (text, expected) in [
            ("now", 1_790_000_000),
            ("24h", 1_790_086_400),
            ("1h 30m", 1_790_005_400),
            ("2026-11-23T05:00:00Z", 1_795_410_000),
            ("1790000001", 1_790_000_001),
        ] {
            assert_eq!(time(text, now, true).unwrap(), UnixSeconds(expected), "{text}");
        }
        assert_eq!(time("1h", now, false).unwrap(), UnixSeconds(1_789_996_400));
        for bad in ["", "soon", "1790000000000", "24"] {
            assert!(bad == "24" || time(bad, now, true).is_err(), "{bad}");
        }
    }
}
