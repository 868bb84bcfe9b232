//! Where in the configuration something stands: `issuers[0].keys.jwks_url`. Knows nothing of YAML.

use std::fmt;

/// A path from the root of the file to one field or list element.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Place(Vec<Step>);

/// One step down.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    /// Into the mapping's field of this name.
    Field(String),
    /// Into the list's element of this number, from zero.
    Index(usize),
}

impl Place {
    /// The file as a whole.
    pub(super) fn root() -> Self {
        Self::default()
    }

    /// The field `name` of the mapping here.
    pub(super) fn field(&self, name: &str) -> Self {
        self.down(Step::Field(name.to_owned()))
    }

    /// The element `index` of the list here.
    pub(super) fn index(&self, index: usize) -> Self {
        self.down(Step::Index(index))
    }

    /// The steps from the root.
    pub(super) fn steps(&self) -> &[Step] {
        &self.0
    }

    /// This place and all that it lies within, nearest first.
    pub(super) fn ancestors(&self) -> impl Iterator<Item = Self> {
        (0..=self.0.len()).rev().map(|length| Self(self.0.iter().take(length).cloned().collect()))
    }

    fn down(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if position == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn a_place_reads_like_code() {
        let place = Place::root().field("issuers").index(0).field("keys");
        assert_eq!(place.to_string(), "issuers[0].keys");
        assert_eq!(place.ancestors().count(), 4);
    }
}
