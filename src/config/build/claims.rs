//! Claims: how they are named, and the rules on them.

use serde_json::Value as Json;

use super::{Build, all, each};
use crate::config::place::Place;
use crate::config::raw;
use crate::config::settings::{ClaimPath, ClaimRule, ClaimTest};

/// Claims do not nest deeper in any token worth accepting.
const MAX_DEPTH: usize = 8;

impl Build<'_, '_> {
    /// Rules, no two of the same name.
    pub(super) fn claim_rules(&mut self, raw: &[raw::ClaimRule], place: &Place) -> Option<Vec<ClaimRule>> {
        let rules = each(raw, place, |raw, place| self.claim_rule(raw, place));
        let rules = all(rules)?;
        let mut good = Some(());
        for (index, rule) in rules.iter().enumerate() {
            if rules.iter().take(index).any(|earlier| earlier.name == rule.name) {
                let message = format!("there is another rule `{}` on this route", rule.name);
                self.mistakes.add(
                    &place.index(index),
                    message,
                    "give this one a `name` of its own: logs name the rule",
                );
                good = None;
            }
        }
        good.map(|()| rules)
    }

    /// The names that lead to a claim.
    pub(super) fn claim_path(&mut self, raw: &raw::ClaimPath, place: &Place) -> Option<ClaimPath> {
        let names = match raw {
            raw::ClaimPath::Name(name) => vec![name.clone()],
            raw::ClaimPath::Path(names) => names.clone(),
        };
        if names.is_empty() || names.iter().any(String::is_empty) {
            let remedy =
                "write the claim's name, or a list of names that leads to it: `[realm_access, roles]`";
            self.mistakes.add(place, "the claim's name is empty", remedy);
            return None;
        }
        if names.len() > MAX_DEPTH {
            self.mistakes.add(
                place,
                format!("nested more than {MAX_DEPTH} levels deep"),
                "name a claim further out",
            );
            return None;
        }
        Some(ClaimPath(names))
    }

    fn claim_rule(&mut self, raw: &raw::ClaimRule, place: &Place) -> Option<ClaimRule> {
        let claim = self.claim_path(&raw.claim, &place.field("claim"));
        self.exactly_one(
            place,
            &[
                ("equals", raw.equals.is_some()),
                ("contains", raw.contains.is_some()),
                ("one_of", raw.one_of.is_some()),
            ],
        )?;
        let test = match (&raw.equals, &raw.contains, &raw.one_of) {
            (Some(value), _, _) => self.claim_value(value, &place.field("equals")).map(ClaimTest::Equals),
            (_, Some(value), _) => self.claim_value(value, &place.field("contains")).map(ClaimTest::Contains),
            (_, _, Some(values)) => {
                let here = place.field("one_of");
                self.not_empty(values, &here, "with no value possible, nobody would pass")?;
                all(each(values, &here, |value, place| self.claim_value(value, place))).map(ClaimTest::OneOf)
            }
            (None, None, None) => None,
        };
        let claim = claim?;
        let name = raw.name.clone().unwrap_or_else(|| claim.to_string());
        if name.is_empty() || name.chars().any(char::is_control) {
            self.mistakes.add(&place.field("name"), "cannot be a name", "use a few visible characters");
        }
        Some(ClaimRule { name, claim, test: test? })
    }

    fn claim_value(&mut self, value: &Json, place: &Place) -> Option<Json> {
        if value.is_object() || value.is_array() || value.is_null() {
            let remedy =
                "for several possible values use `one_of: [...]`; to look into an object, a longer `claim`";
            self.mistakes.add(place, "expected a text, a number, `true` or `false`", remedy);
            return None;
        }
        Some(value.clone())
    }
}
