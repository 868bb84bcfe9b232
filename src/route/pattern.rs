//! Path patterns: `/orders`, `/orders/*`, `/orders/**`. Matched against the decoded view of a request's path.

use std::fmt;
use std::str::FromStr;

/// A pattern over the segments of a path. Case-sensitive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPattern {
    text: String,
    segments: Vec<PathSegment>,
    /// Ends in `/**`: any number of further segments.
    open: bool,
}

/// One segment of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathSegment {
    /// Exactly this. Empty after a trailing slash: `/orders/` is not `/orders`.
    Literal(String),
    /// `*`: any one segment that is not empty.
    Any,
}

/// Why a text is not a path pattern. Its message completes "the path".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathPatternError {
    /// Without a slash in front.
    NotAbsolute,
    /// `//` inside.
    EmptySegment,
    /// `.` or `..` as a segment.
    DotSegment,
    /// `**` before the end.
    OpenInside,
    /// `*` with other characters in a segment.
    PartialWildcard,
    /// `{name}` as other routers have it.
    Braces,
    /// A query, a fragment, parameters, a backslash, a control character.
    Forbidden(char),
    /// Percent-encoding.
    Encoded,
}

impl PathPattern {
    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The segments before a final `/**`. The root `/` is one empty literal; `/**` has none.
    pub fn segments(&self) -> &[PathSegment] {
        &self.segments
    }

    /// Whether it ends in `/**`, and so matches what its segments lead to and everything below.
    pub fn is_open(&self) -> bool {
        self.open
    }
}

impl FromStr for PathPattern {
    type Err = PathPatternError;

    fn from_str(text: &str) -> Result<Self, PathPatternError> {
        let rest = text.strip_prefix('/').ok_or(PathPatternError::NotAbsolute)?;
        if let Some(character) = text.chars().find(|c| matches!(c, '?' | '#' | ';' | '\\') || c.is_control())
        {
            return Err(PathPatternError::Forbidden(character));
        }
        if text.contains('%') {
            return Err(PathPatternError::Encoded);
        }
        let (closed, open) = match rest.strip_suffix("**") {
            Some("") => (None, true),
            Some(before) => (Some(before.strip_suffix('/').ok_or(PathPatternError::PartialWildcard)?), true),
            None => (Some(rest), false),
        };
        let mut segments = Vec::new();
        let parts: Vec<&str> = closed.into_iter().flat_map(|closed| closed.split('/')).collect();
        for (position, part) in parts.iter().enumerate() {
            let last = position + 1 == parts.len() && !open;
            segments.push(segment(part, last)?);
        }
        Ok(Self { text: text.to_owned(), segments, open })
    }
}

fn segment(part: &str, last: bool) -> Result<PathSegment, PathPatternError> {
    match part {
        "" if !last => Err(PathPatternError::EmptySegment),
        "." | ".." => Err(PathPatternError::DotSegment),
        "*" => Ok(PathSegment::Any),
        "**" => Err(PathPatternError::OpenInside),
        part if part.contains('*') => Err(PathPatternError::PartialWildcard),
        part if part.starts_with('{') && part.ends_with('}') => Err(PathPatternError::Braces),
        part => Ok(PathSegment::Literal(part.to_owned())),
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PathPatternError {
    /// What would be right.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::NotAbsolute => "begin it with `/`",
            Self::EmptySegment => {
                "remove the doubled `/`; a route allows such requests by `allow: [double_slash]`"
            }
            Self::DotSegment => "write the path that is meant; requests with dot segments are refused",
            Self::OpenInside => "`/**` stands at the end only; `*` stands for one segment anywhere",
            Self::PartialWildcard => {
                "`*` stands for one whole segment and `/**` at the end for any number of them"
            }
            Self::Braces => "write `*` for a segment of any content",
            Self::Forbidden(_) => "a pattern is matched against the path alone, without query and parameters",
            Self::Encoded => "write the decoded character: patterns are matched against the decoded path",
        }
    }
}

impl fmt::Display for PathPatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAbsolute => f.write_str("does not begin with `/`"),
            Self::EmptySegment => f.write_str("has an empty segment (`//`)"),
            Self::DotSegment => f.write_str("has a dot segment (`.` or `..`)"),
            Self::OpenInside => f.write_str("has `**` before its end"),
            Self::PartialWildcard => f.write_str("has a wildcard within a segment"),
            Self::Braces => f.write_str("has a segment in braces"),
            Self::Forbidden(character) => write!(f, "holds the character {character:?}"),
            Self::Encoded => f.write_str("is percent-encoded"),
        }
    }
}

impl std::error::Error for PathPatternError {}

#[cfg(test)]
mod tests {
    use super::{PathPattern, PathPatternError as Error, PathSegment};

    #[test]
    fn patterns_are_read_by_segments() {
        let literal = |text: &str| PathSegment::Literal(text.to_owned());
        let cases = [
            ("/", vec![literal("")], false),
            ("/**", vec![], true),
            ("/orders", vec![literal("orders")], false),
            ("/orders/", vec![literal("orders"), literal("")], false),
            ("/orders/**", vec![literal("orders")], true),
            ("/orders/*/items", vec![literal("orders"), PathSegment::Any, literal("items")], false),
            ("/*/**", vec![PathSegment::Any], true),
            ("/straße", vec![literal("straße")], false),
        ];
        for (text, segments, open) in cases {
            let pattern: PathPattern = text.parse().unwrap();
            assert_eq!((pattern.segments(), pattern.is_open()), (segments.as_slice(), open), "{text}");
            assert_eq!(pattern.as_str(), text);
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let cases = [
            ("orders", Error::NotAbsolute),
            ("", Error::NotAbsolute),
            ("/a//b", Error::EmptySegment),
            ("//", Error::EmptySegment),
            ("//**", Error::EmptySegment),
            ("/a/../b", Error::DotSegment),
            ("/a/**/b", Error::OpenInside),
            ("/a*", Error::PartialWildcard),
            ("/a**", Error::PartialWildcard),
            ("/{id}", Error::Braces),
            ("/a?b", Error::Forbidden('?')),
            ("/a\\b", Error::Forbidden('\\')),
            ("/a;v=1", Error::Forbidden(';')),
            ("/a%20b", Error::Encoded),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<PathPattern>(), Err(error), "{text}");
        }
    }
}
