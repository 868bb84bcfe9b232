//! Names of issuers, feeds, upstreams, and references to them.

use crate::config::mistakes::Mistakes;
use crate::config::nearest::nearest;
use crate::config::place::Place;
use crate::config::shape;

/// Longest name. Names become metric labels and parts of file names.
const MAX_LENGTH: usize = 64;

/// The names of one list, in its order.
#[derive(Debug)]
pub(super) struct Names {
    what: &'static str,
    known: Vec<String>,
    /// Every element has a name that is one; else a reference may mean one that could not be read.
    complete: bool,
}

impl Names {
    /// The names of `list`, which stands at `place`; tells those that are ill-formed or taken.
    pub(super) fn collect<T>(
        what: &'static str,
        list: &[T],
        name: impl Fn(&T) -> &String,
        place: &Place,
        mistakes: &mut Mistakes<'_>,
    ) -> Self {
        let names: Vec<String> = list.iter().map(|element| name(element).clone()).collect();
        let mut complete = true;
        for (index, name) in names.iter().enumerate() {
            let here = place.index(index).field("name");
            complete &= check(name, &here, mistakes) && !mistakes.is_replaced(&here);
            if let Some(first) = names.iter().take(index).position(|earlier| earlier == name) {
                let line = mistakes.line_of(&place.index(first).field("name"));
                let message = format!("the {what} `{name}` is already there, on line {line}");
                mistakes.add(&here, message, "give each its own name");
            }
        }
        Self { what, known: names, complete }
    }

    /// The position of the element that `name`, at `place`, refers to.
    pub(super) fn find(&self, name: &str, place: &Place, mistakes: &mut Mistakes<'_>) -> Option<usize> {
        let position = self.known.iter().position(|known| known == name);
        if position.is_none() && self.complete {
            let known: Vec<&str> = self.known.iter().map(String::as_str).collect();
            let remedy = match nearest(name, known.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None if known.is_empty() => format!("add an element to `{}s` with this name", self.what),
                None => format!("write {}, or add it to `{}s`", shape::list(&known), self.what),
            };
            mistakes.add(place, format!("there is no {} `{name}`", self.what), remedy);
        }
        position
    }
}

/// Whether a name is fit to be a metric label and part of a file name; tells it if not.
pub(super) fn check(name: &str, place: &Place, mistakes: &mut Mistakes<'_>) -> bool {
    let fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let starts_well = name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    let good = starts_well && name.bytes().all(fit) && name.len() <= MAX_LENGTH;
    if !good {
        let remedy =
            format!("use 1 to {MAX_LENGTH} letters, digits, `.`, `_`, `-`, beginning with a letter or digit");
        mistakes.add(place, format!("`{name}` cannot be a name"), remedy);
    }
    good
}
