//! The guard against raw bytes: alone (`verdicts`, `splits`) and in front of hyper (`serving`, `agreement`).

mod agreement;
mod cases;
mod server;
mod serving;
mod splits;
mod verdicts;
mod wire;

use super::framing::{Cleared, Framing, Stop};
use super::{GuardLimits, Violation};
use crate::catalogue::Reason;

/// What became of a connection's bytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    /// What went to the parser.
    released: Vec<u8>,
    heads: u64,
    refused: Option<Violation>,
    refused_in_body: bool,
}

impl Verdict {
    fn reason(&self) -> Option<Reason> {
        self.refused.map(Violation::reason)
    }
}

/// Judges a connection that arrives in these reads. An offered upgrade is always declined.
fn judge<'a>(limits: GuardLimits, reads: impl IntoIterator<Item = &'a [u8]>) -> Verdict {
    let mut framing = Framing::new(limits);
    let mut verdict = Verdict::default();
    let mut held = Vec::new();
    for read in reads {
        held.extend_from_slice(read);
        loop {
            let Cleared { len, stop } = framing.clear(&held);
            verdict.released.extend(held.drain(..len));
            verdict.heads = framing.heads();
            match stop {
                Stop::Boundary => assert!(len > 0, "a boundary without progress would loop"),
                Stop::Crossroads => framing.stay_http(),
                Stop::More if len == 0 => break,
                Stop::More => {}
                Stop::Refused { violation, in_body } => {
                    verdict.refused = Some(violation);
                    verdict.refused_in_body = in_body;
                    break;
                }
            }
        }
    }
    verdict
}

fn judge_whole(bytes: &[u8]) -> Verdict {
    judge(GuardLimits::default(), [bytes])
}
