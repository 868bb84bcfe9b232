//! What is revoked, in memory: every change in the order of its number, and which of them are in force.
//!
//! Changes that nobody needs any more are dropped together; a gateway that was behind then gets a snapshot. Knows
//! nothing of disks and HTTP.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::line::Line;
use crate::clock::UnixSeconds;
use crate::revocation::Fact;

/// See the module.
#[derive(Debug)]
pub(super) struct Book {
    epoch: String,
    /// Deltas can begin here or later.
    floor: u64,
    last: u64,
    changes: BTreeMap<u64, Line>,
    /// The numbers of the revocations that are in force.
    in_force: HashMap<Fact, Vec<u64>>,
    live: usize,
    /// Before this, none that is in force is over; `None` if none ever will be.
    first_end: Option<UnixSeconds>,
}

/// What a write came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) revoked: usize,
    pub(super) lifted: usize,
}

impl Book {
    /// An empty book whose next change has the number after `floor`.
    pub(super) fn new(epoch: String, floor: u64) -> Self {
        let (changes, in_force) = Default::default();
        Self { epoch, floor, last: floor, changes, in_force, live: 0, first_end: None }
    }

    pub(super) fn epoch(&self) -> &str {
        &self.epoch
    }

    /// The number of the last change.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// How many revocations are in force.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// How many more revocations would be in force with these changes, at the most.
    pub(super) fn additions(&self, lines: &[Line]) -> usize {
        let is_known = |line: &&Line| {
            let numbers = self.in_force.get(&line.fact).map(Vec::as_slice).unwrap_or_default();
            numbers.iter().filter_map(|number| self.changes.get(number)).any(|other| other.is_like(line))
        };
        let new = lines.iter().filter(|line| !line.is_lift() && !is_known(line));
        new.map(|line| (&line.fact, line.is_cutoff())).collect::<HashSet<_>>().len()
    }

    /// Whether [`Self::forget`] may drop one that counts as in force. Costs a comparison.
    pub(super) fn may_be_over(&self, now: UnixSeconds) -> bool {
        self.first_end.is_some_and(|end| end < now)
    }

    /// The change that remains of this one beside what is in force; `None` if it would change nothing.
    pub(super) fn news(&self, line: Line) -> Option<Line> {
        let known = self.in_force.get(&line.fact).map(Vec::as_slice).unwrap_or_default();
        if line.is_lift() {
            return (!known.is_empty()).then_some(line);
        }
        let mut all = known.iter().filter_map(|number| self.changes.get(number));
        match all.find(|other| other.is_like(&line)) {
            None => Some(line),
            Some(other) => line.merged(other).filter(|merged| merged.change != other.change),
        }
    }

    /// Takes a change over under its number, which is higher than those before.
    pub(super) fn add(&mut self, number: u64, line: Line) -> Written {
        self.last = self.last.max(number);
        let mut written = Written::default();
        if line.is_lift() {
            let lifted = self.in_force.remove(&line.fact).unwrap_or_default();
            written.lifted = lifted.len();
            self.live -= lifted.len();
        } else {
            // One by cut-off and one without stand beside each other; of each, the last has what those before had.
            let known = self.in_force.entry(line.fact.clone()).or_default();
            let before = known.len();
            known.retain(|number| self.changes.get(number).is_some_and(|other| !other.is_like(&line)));
            self.live -= before - known.len();
            known.push(number);
            written.revoked = 1;
            self.live += 1;
            self.first_end = self.first_end.into_iter().chain(line.end()).min();
        }
        self.changes.insert(number, line);
        written
    }

    /// The revocations in force, oldest first.
    pub(super) fn in_force(&self, now: UnixSeconds) -> impl Iterator<Item = (u64, &Line)> {
        self.changes
            .iter()
            .filter(move |(number, line)| !line.is_over(now) && self.is_in_force(**number, line))
            .map(|(number, line)| (*number, line))
    }

    /// The changes after `cursor`; `None` if they are not all there any more, or never were.
    pub(super) fn since(&self, cursor: u64, now: UnixSeconds) -> Option<impl Iterator<Item = &Line>> {
        (self.floor..=self.last).contains(&cursor).then(|| {
            self.changes.range(cursor + 1..).map(|(_, line)| line).filter(move |line| !line.is_over(now))
        })
    }

    /// Whether most changes are such that no snapshot needs them. Looks at every one.
    pub(super) fn is_mostly_over(&self, now: UnixSeconds) -> bool {
        let needed = self.in_force(now).count();
        self.changes.len() > DEAD + 2 * needed
    }

    /// Drops what no gateway needs that has heard everything so far.
    pub(super) fn forget(&mut self, now: UnixSeconds) {
        let kept: BTreeMap<u64, Line> =
            self.in_force(now).map(|(number, line)| (number, line.clone())).collect();
        self.changes = BTreeMap::new();
        self.in_force = HashMap::new();
        self.live = 0;
        self.first_end = None;
        self.floor = self.last;
        for (number, line) in kept {
            self.add(number, line);
        }
    }

    fn is_in_force(&self, number: u64, line: &Line) -> bool {
        !line.is_lift() && self.in_force.get(&line.fact).is_some_and(|numbers| numbers.contains(&number))
    }
}

/// Fewer changes that nobody needs are not worth writing the log anew.
const DEAD: usize = 1000;
