//! Path patterns: literal segments, `*` for one segment, and `/**` at the end for a path and all below it.

use std::fmt;

/// A path pattern of a route. `/orders/**` matches `/orders`, `/orders/` and all below, by whole segments.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathPattern {
    pub(super) segments: Vec<Segment>,
    /// Whether the pattern ends in `/**`.
    pub(super) subtree: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Segment {
    Literal(Box<str>),
    One,
}

/// Why a pattern is not one, in words that say what would be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It does not begin with a slash.
    #[error("a path begins with '/'")]
    NoSlash,
    /// `**` stands elsewhere than at the end.
    #[error("'**' may stand only as the last segment, as in /orders/**")]
    SubtreeNotLast,
    /// A star stands within a segment.
    #[error("'*' stands for one whole segment, as in /orders/*/items; it cannot be a part of one")]
    PartialStar,
    /// A segment is empty.
    #[error("'//' is never matched, since requests with it are refused; write the path with single slashes")]
    Empty,
    /// A segment is `.` or `..`.
    #[error(
        "dot segments are never matched, since requests with them are refused; write the path without them"
    )]
    Dots,
    /// A character that does not belong into a pattern.
    #[error(
        "a pattern is written decoded and without query: no '%', '?', '#', ';', backslash or control characters"
    )]
    Character,
}

impl PathPattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let rest = text.strip_prefix('/').ok_or(PatternError::NoSlash)?;
        if rest.chars().any(|c| matches!(c, '%' | '?' | '#' | ';' | '\\') || c.is_control()) {
            return Err(PatternError::Character);
        }
        let (rest, subtree) = match rest.strip_suffix("/**") {
            Some(start) => (start, true),
            None if rest == "**" => return Ok(Self { segments: Vec::new(), subtree: true }),
            None => (rest, false),
        };
        let mut names: Vec<&str> = rest.split('/').collect();
        // `/` alone, and a slash at the end, are a last empty segment: a path of its own.
        let trailing = !subtree && names.last() == Some(&"");
        if trailing {
            names.pop();
        }
        let mut segments = names.into_iter().map(Segment::parse).collect::<Result<Vec<_>, _>>()?;
        if trailing {
            segments.push(Segment::Literal("".into()));
        }
        Ok(Self { segments, subtree })
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, PatternError> {
        match text {
            "" => Err(PatternError::Empty),
            "." | ".." => Err(PatternError::Dots),
            "*" => Ok(Self::One),
            "**" => Err(PatternError::SubtreeNotLast),
            _ if text.contains('*') => Err(PatternError::PartialStar),
            _ => Ok(Self::Literal(text.into())),
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::One => f.write_str("/*")?,
            }
        }
        if self.subtree { f.write_str("/**") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::{PathPattern, PatternError};

    #[test]
    fn patterns_read_back_as_written() {
        for text in ["/", "/**", "/a", "/a/", "/a/**", "/a/*/b", "/*", "/a b", "/\u{e9}", "/*/**"] {
            assert_eq!(PathPattern::parse(text).map(|pattern| pattern.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn what_could_never_match_is_an_error() {
        for (text, error) in [
            ("a", PatternError::NoSlash),
            ("", PatternError::NoSlash),
            ("/a//b", PatternError::Empty),
            ("//", PatternError::Empty),
            ("/a/**/b", PatternError::SubtreeNotLast),
            ("/a*", PatternError::PartialStar),
            ("/a/../b", PatternError::Dots),
            ("/a%2fb", PatternError::Character),
            ("/a?b", PatternError::Character),
            ("/a;b", PatternError::Character),
        ] {
            assert_eq!(PathPattern::parse(text), Err(error), "{text}");
        }
    }
}
