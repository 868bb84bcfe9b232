//! Collects all mistakes of a file, each at its position, without repeating what follows from an earlier one.

use std::collections::HashSet;

use super::diagnostic::Diagnostic;
use super::place::Place;
use super::tree::{Fault, Node, Span, Value};

/// The mistakes found so far.
#[derive(Debug)]
pub(super) struct Mistakes<'a> {
    source: &'a str,
    tree: &'a Node,
    found: Vec<Found>,
    /// Places whose value was wrong and is stood in for: nothing at or below them is worth telling.
    replaced: HashSet<Place>,
    /// Mappings that lack something already told: nothing about them as a whole is worth telling.
    incomplete: HashSet<Place>,
    secrets: Vec<Span>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    span: Span,
    path: String,
    message: String,
    remedy: String,
}

impl<'a> Mistakes<'a> {
    pub(super) fn new(source: &'a str, tree: &'a Node) -> Self {
        Self {
            source,
            tree,
            found: Vec::new(),
            replaced: HashSet::new(),
            incomplete: HashSet::new(),
            secrets: Vec::new(),
        }
    }

    /// The value at `place` is wrong: `message` says how and `remedy` what would be right.
    pub(super) fn add(&mut self, place: &Place, message: impl Into<String>, remedy: impl Into<String>) {
        self.add_at(self.tree.locate(place), place, message.into(), remedy.into());
    }

    /// As [`Self::add`], pointing at the field's name and not at its value.
    pub(super) fn add_at_key(
        &mut self,
        place: &Place,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add_at(self.tree.locate_key(place), place, message.into(), remedy.into());
    }

    /// A fault of the YAML text.
    pub(super) fn add_fault(&mut self, fault: &Fault) {
        self.found.push(Found {
            span: fault.span,
            path: String::new(),
            message: fault.message.clone(),
            remedy: fault.remedy.to_owned(),
        });
    }

    /// Whatever is said about the value at `place` from now on is a consequence of a mistake already told.
    pub(super) fn mark_replaced(&mut self, place: Place) {
        self.replaced.insert(place);
    }

    /// As [`Self::mark_replaced`], for the mapping at `place` itself but not for its other fields.
    pub(super) fn mark_incomplete(&mut self, place: Place) {
        self.incomplete.insert(place);
    }

    /// Whether the value at `place` only stands in for a wrong one.
    pub(super) fn is_replaced(&self, place: &Place) -> bool {
        place.ancestors().any(|place| self.replaced.contains(&place))
    }

    /// What lies in `span` is never shown.
    pub(super) fn hide(&mut self, span: Span) {
        self.secrets.push(span);
    }

    /// What is never shown.
    pub(super) fn hidden(&self) -> &[Span] {
        &self.secrets
    }

    /// The line on which `place` stands, for messages that name two places.
    pub(super) fn line_of(&self, place: &Place) -> usize {
        self.tree.locate(place).line
    }

    /// All of them in the order of the file.
    pub(super) fn into_diagnostics(mut self) -> Vec<Diagnostic> {
        self.found.sort();
        self.found.dedup();
        let diagnostics = self.found.into_iter().map(|found| {
            Diagnostic::at(self.source, &self.secrets, found.span, found.path, found.message)
                .remedy(found.remedy)
        });
        diagnostics.collect()
    }

    fn add_at(&mut self, span: Span, place: &Place, message: String, remedy: String) {
        if self.is_replaced(place) || self.incomplete.contains(place) {
            return;
        }
        let message = self.without_environment(place, message);
        self.found.push(Found { span, path: place.to_string(), message, remedy });
    }

    /// What came from an environment variable may be a secret and is shown as it stands in the file.
    fn without_environment(&self, place: &Place, message: String) -> String {
        match self.tree.find(place).map(|node| &node.value) {
            Some(Value::Scalar(scalar)) if scalar.written.is_some() => {
                message.replace(&scalar.text, scalar.shown())
            }
            _ => message,
        }
    }
}
