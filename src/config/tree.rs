//! YAML text to a tree in which every key and value knows its line and column.
//!
//! Scalars keep the text as written, so that the schema decides what a value is and not YAML's guess (`1.2` may
//! be a version, `off` a word). The only file that knows the YAML parser. Anchors, aliases, tags and several
//! documents are refused: a configuration that guards an API should say what it means where it stands.

use serde_yaml::granit_parser::{self, Event, Parser, ScalarStyle};

use super::place::{Place, Step};

/// Deepest nesting that any valid configuration has, with room to spare.
const MAX_DEPTH: usize = 32;

/// A value with its position.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) value: Value,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Mapping(Vec<Entry>),
    Sequence(Vec<Node>),
    Scalar(Scalar),
}

/// One field of a mapping.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) node: Node,
}

/// A single value.
#[derive(Clone, Debug)]
pub(super) struct Scalar {
    /// The value, with environment variables filled in.
    pub(super) text: String,
    /// Written without quotes.
    pub(super) plain: bool,
    /// The text before substitution, if that changed it: the only form that may be shown.
    pub(super) written: Option<String>,
}

impl Scalar {
    /// YAML's null: nothing, `~` or `null` without quotes.
    pub(super) fn is_null(&self) -> bool {
        self.plain
            && self.written.is_none()
            && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }

    /// The value in a form that shows no content of environment variables.
    pub(super) fn shown(&self) -> &str {
        self.written.as_deref().unwrap_or(&self.text)
    }
}

/// Where something starts and ends; lines and columns count characters from one, the end is exclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) end_line: usize,
    pub(super) end_column: usize,
}

/// Something that is not the YAML that a configuration may use.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) span: Span,
    pub(super) message: String,
    pub(super) remedy: &'static str,
}

/// The tree of a text, and what is wrong with it although a tree could be made (duplicate keys).
pub(super) fn parse(text: &str) -> Result<(Node, Vec<Fault>), Fault> {
    let mut builder = Builder { events: Parser::new_from_str(text), faults: Vec::new() };
    let root = builder.document()?;
    Ok((root, builder.faults))
}

impl Node {
    /// Where to point for `place`: at a value that stands on its line, else at the key that introduces it.
    pub(super) fn locate(&self, place: &Place) -> Span {
        let mut node = self;
        let mut span = self.span;
        for step in place.steps() {
            let Some((key_span, child)) = node.child(step) else { return span };
            node = child;
            span = match (&child.value, key_span) {
                (Value::Scalar(scalar), Some(key)) if scalar.shown().is_empty() => key,
                (Value::Scalar(_), _) | (_, None) => child.span,
                (_, Some(key)) => key,
            };
        }
        span
    }

    /// The node at `place`, if the file has it.
    pub(super) fn find(&self, place: &Place) -> Option<&Node> {
        place.steps().iter().try_fold(self, |node, step| node.child(step).map(|(_, child)| child))
    }

    /// The span of the key of the field at `place`.
    pub(super) fn locate_key(&self, place: &Place) -> Span {
        let mut node = self;
        let mut span = self.span;
        for step in place.steps() {
            let Some((key_span, child)) = node.child(step) else { return span };
            span = key_span.unwrap_or(child.span);
            node = child;
        }
        span
    }

    fn child(&self, step: &Step) -> Option<(Option<Span>, &Node)> {
        match (&self.value, step) {
            (Value::Mapping(entries), Step::Field(name)) => {
                let entry = entries.iter().find(|entry| entry.key == *name)?;
                Some((Some(entry.key_span), &entry.node))
            }
            (Value::Sequence(nodes), Step::Index(index)) => Some((None, nodes.get(*index)?)),
            _ => None,
        }
    }
}

impl Span {
    fn until(self, end: Self) -> Self {
        Self { end_line: end.end_line, end_column: end.end_column, ..self }
    }
}

impl From<granit_parser::Span> for Span {
    fn from(span: granit_parser::Span) -> Self {
        Self {
            line: span.start.line().max(1),
            column: span.start.col() + 1,
            end_line: span.end.line().max(1),
            end_column: span.end.col() + 1,
        }
    }
}

struct Builder<'input> {
    events: Parser<'input, granit_parser::StrInput<'input>>,
    faults: Vec<Fault>,
}

impl<'input> Builder<'input> {
    fn document(&mut self) -> Result<Node, Fault> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(..) => {}
                Event::StreamEnd | Event::DocumentEnd => return Err(empty(span)),
                event => {
                    let root = self.node(event, span, 0)?;
                    self.nothing_more()?;
                    return Ok(root);
                }
            }
        }
    }

    fn nothing_more(&mut self) -> Result<(), Fault> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(()),
                Event::DocumentEnd => {}
                _ => {
                    return Err(Fault {
                        span,
                        message: "a second YAML document begins here".to_owned(),
                        remedy: "a configuration is one document: remove the `---` and what follows it",
                    });
                }
            }
        }
    }

    /// The next event that is not a comment.
    fn next(&mut self) -> Result<(Event<'input>, Span), Fault> {
        loop {
            match self.events.next() {
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok((event, span))) => return Ok((event, span.into())),
                Some(Err(error)) => return Err(syntax(&error)),
                None => return Ok((Event::StreamEnd, Span::default())),
            }
        }
    }

    fn node(&mut self, event: Event<'input>, span: Span, depth: usize) -> Result<Node, Fault> {
        if depth > MAX_DEPTH {
            return Err(Fault {
                span,
                message: format!("nested more than {MAX_DEPTH} levels deep"),
                remedy: "no valid configuration is that deep; see config/valgate.yaml for the shape",
            });
        }
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                plain_node_only(span, anchor, tag.is_some())?;
                let plain = style == ScalarStyle::Plain;
                let scalar = Scalar { text: text.into_owned(), plain, written: None };
                Ok(Node { span, value: Value::Scalar(scalar) })
            }
            Event::SequenceStart(_, anchor, tag) => {
                plain_node_only(span, anchor, tag.is_some())?;
                self.sequence(span, depth)
            }
            Event::MappingStart(_, anchor, tag) => {
                plain_node_only(span, anchor, tag.is_some())?;
                self.mapping(span, depth)
            }
            _ => Err(Fault {
                span,
                message: "YAML aliases (`*name`) are not supported".to_owned(),
                remedy: "write the value out where it is used",
            }),
        }
    }

    fn sequence(&mut self, span: Span, depth: usize) -> Result<Node, Fault> {
        let mut nodes = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, end) => {
                    return Ok(Node { span: span.until(end), value: Value::Sequence(nodes) });
                }
                (event, span) => nodes.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, span: Span, depth: usize) -> Result<Node, Fault> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (key, key_span) = match self.next()? {
                (Event::MappingEnd, end) => {
                    return Ok(Node { span: span.until(end), value: Value::Mapping(entries) });
                }
                (Event::Scalar(key, _, anchor, tag), key_span) => {
                    plain_node_only(key_span, anchor, tag.is_some())?;
                    (key.into_owned(), key_span)
                }
                (_, span) => {
                    return Err(Fault {
                        span,
                        message: "a field's name must be a word".to_owned(),
                        remedy: "in YAML `{` and `[` begin a mapping or a list: quote the text if it is meant as such",
                    });
                }
            };
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth + 1)?;
            match entries.iter().find(|entry| entry.key == key) {
                Some(first) => self.faults.push(Fault {
                    span: key_span,
                    message: format!(
                        "`{key}` stands here a second time; the first is on line {}",
                        first.key_span.line
                    ),
                    remedy: "keep one of the two",
                }),
                None => entries.push(Entry { key, key_span, node }),
            }
        }
    }
}

fn plain_node_only(span: Span, anchor: usize, tagged: bool) -> Result<(), Fault> {
    if anchor != 0 {
        let message = "YAML anchors (`&name`) are not supported".to_owned();
        return Err(Fault { span, message, remedy: "write the value out where it is used" });
    }
    if tagged {
        let message = "YAML tags (`!name`) are not supported".to_owned();
        return Err(Fault {
            span,
            message,
            remedy: "remove the tag, or quote the text if it is meant as such",
        });
    }
    Ok(())
}

fn empty(span: Span) -> Fault {
    Fault {
        span: Span { line: 1, column: 1, ..span },
        message: "the file has no content".to_owned(),
        remedy: "start from config/examples/minimal.yaml",
    }
}

fn syntax(error: &granit_parser::ScanError) -> Fault {
    let marker = error.marker();
    let (line, column) = (marker.line().max(1), marker.col() + 1);
    Fault {
        span: Span { line, column, end_line: line, end_column: column + 1 },
        message: format!("not valid YAML: {}", error.info()),
        remedy: "check the indentation, and quote text that holds `: `, ` #`, `{`, `[`, `*`, `&` or `!`",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Place, Value, parse};

    fn fault(text: &str) -> String {
        let fault = parse(text).unwrap_err();
        format!("{}:{} {}", fault.span.line, fault.span.column, fault.message)
    }

    #[test]
    fn values_and_keys_know_where_they_stand() {
        let (root, faults) = parse("a:\n  - b: 1\n    c: { d: x }\n").unwrap();
        assert!(faults.is_empty());
        let place = Place::root().field("a").index(0).field("c").field("d");
        let span = root.locate(&place);
        assert_eq!((span.line, span.column, span.end_column), (3, 13, 14));
        let span = root.locate(&Place::root().field("a").index(0));
        assert_eq!((span.line, span.column), (2, 5));
    }

    #[test]
    fn duplicate_keys_are_reported_with_both_lines_and_the_first_stays() {
        let (root, faults) = parse("a: 1\nb: 2\na: 3\n").unwrap();
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].span.line, 3);
        assert!(faults[0].message.contains("line 1"));
        let Value::Mapping(entries) = root.value else { panic!("not a mapping") };
        assert_eq!(entries.len(), 2);
    }

    #[test]
    fn what_yaml_allows_and_a_configuration_does_not() {
        let cases = [
            ("", "1:1 the file has no content"),
            ("# only a comment\n", "1:1 the file has no content"),
            ("a: &x 1\n", "1:7 YAML anchors"),
            ("a: !!str 1\n", "1:10 YAML tags"),
            ("a: 1\n---\nb: 2\n", "2:1 a second YAML document"),
            ("{a: 1}: 2\n", "1:1 a field's name must be a word"),
            ("a: [1, 2\n", "not valid YAML"),
        ];
        for (text, expected) in cases {
            assert!(fault(text).contains(expected), "{text:?}: {}", fault(text));
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        assert!(fault(&"- ".repeat(200)).contains("levels deep"));
        assert!(parse(&"[".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[-a-c0-9:{}\\[\\]&*!#|>'\" \n\t,?%@`~]{0,80}") {
            let _ = parse(&text);
        }
    }
}
