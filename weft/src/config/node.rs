//! A YAML document as a tree in which every value knows where it stands in the file.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// A place in the file, both from one; columns count characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Position {
    /// Line, from one.
    pub line: usize,
    /// Column, from one.
    pub column: usize,
}

/// A value with its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) position: Position,
    /// Characters to underline: the text of a scalar as it is written, 1 for what spans lines.
    pub(crate) length: usize,
    pub(crate) kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Scalar {
        text: String,
        /// Written without quotes: may be a number, a boolean or null.
        plain: bool,
    },
    Sequence(Vec<Node>),
    Mapping(Vec<(Node, Node)>),
}

/// A text that is no YAML, or more of it than a configuration can be.
pub(crate) struct SyntaxError {
    pub(crate) position: Position,
    pub(crate) message: String,
}

/// Deeper than any configuration; keeps recursion over the tree bounded.
const MAX_DEPTH: usize = 32;
/// More values than any configuration, aliases expanded; keeps nested aliases from filling the memory.
const MAX_NODES: usize = 1 << 20;

struct Open {
    node: Node,
    anchor: usize,
    key: Option<Node>,
}

/// The one document of `text`; `None` where it holds nothing.
pub(crate) fn parse(text: &str) -> Result<Option<Node>, SyntaxError> {
    let mut anchors: HashMap<usize, (Node, usize)> = HashMap::new();
    let mut stack: Vec<Open> = Vec::new();
    let mut root = None;
    let mut nodes = 0;
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| SyntaxError {
            position: position(error.marker().line(), error.marker().col()),
            message: error.info().to_owned(),
        })?;
        let refuse = |message: &str| SyntaxError {
            position: position(span.start.line(), span.start.col()),
            message: message.to_owned(),
        };
        let (node, anchor) = match event {
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    return Err(refuse("a second document: a file holds one"));
                }
                continue;
            }
            Event::Scalar(text, style, anchor, _) => {
                nodes += 1;
                let kind = Kind::Scalar {
                    text: text.into_owned(),
                    plain: style == ScalarStyle::Plain,
                };
                (Node::new(&span, kind), anchor)
            }
            Event::SequenceStart(anchor, _) => {
                nodes += 1;
                stack.push(Open::new(
                    Node::new(&span, Kind::Sequence(Vec::new())),
                    anchor,
                ));
                if stack.len() > MAX_DEPTH {
                    return Err(refuse("nested too deep"));
                }
                continue;
            }
            Event::MappingStart(anchor, _) => {
                nodes += 1;
                stack.push(Open::new(
                    Node::new(&span, Kind::Mapping(Vec::new())),
                    anchor,
                ));
                if stack.len() > MAX_DEPTH {
                    return Err(refuse("nested too deep"));
                }
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match stack.pop() {
                Some(open) => (open.node, open.anchor),
                None => continue,
            },
            Event::Alias(anchor) => {
                let Some((node, size)) = anchors.get(&anchor) else {
                    return Err(refuse("an alias inside of its own anchor"));
                };
                nodes += size;
                (node.clone(), 0)
            }
            _ => continue,
        };
        if nodes > MAX_NODES {
            return Err(refuse("more values than a configuration can have"));
        }
        if anchor != 0 {
            let size = node.size();
            anchors.insert(anchor, (node.clone(), size));
        }
        match stack.last_mut() {
            None => root = Some(node),
            Some(open) => open.push(node),
        }
    }
    Ok(root.filter(|root| !root.is_null()))
}

fn position(line: usize, column: usize) -> Position {
    // The scanner counts lines from one and columns from zero.
    Position {
        line: line.max(1),
        column: column + 1,
    }
}

impl Open {
    fn new(node: Node, anchor: usize) -> Self {
        Self {
            node,
            anchor,
            key: None,
        }
    }

    fn push(&mut self, child: Node) {
        match &mut self.node.kind {
            Kind::Sequence(items) => items.push(child),
            Kind::Mapping(entries) => match self.key.take() {
                None => self.key = Some(child),
                Some(key) => entries.push((key, child)),
            },
            Kind::Scalar { .. } => {}
        }
    }
}

impl Node {
    /// As it is written; a key that is no text is left out.
    pub(crate) fn value(&self) -> serde_json::Value {
        match &self.kind {
            Kind::Scalar { text, plain: false } => text.as_str().into(),
            // What YAML makes of it: a number, a boolean, null, a text.
            Kind::Scalar { text, plain: true } => serde_yaml::from_str(text)
                .ok()
                .filter(|value: &serde_json::Value| !value.is_object() && !value.is_array())
                .unwrap_or_else(|| text.as_str().into()),
            Kind::Sequence(items) => items.iter().map(Self::value).collect(),
            Kind::Mapping(entries) => {
                let entries = entries.iter().filter_map(|(key, value)| match &key.kind {
                    Kind::Scalar { text, .. } => Some((text.clone(), value.value())),
                    _ => None,
                });
                serde_json::Value::Object(entries.collect())
            }
        }
    }

    fn new(span: &Span, kind: Kind) -> Self {
        let one_line = span.start.line() == span.end.line();
        let scalar = matches!(kind, Kind::Scalar { .. });
        Self {
            position: position(span.start.line(), span.start.col()),
            length: match one_line && scalar {
                true => span.end.col().saturating_sub(span.start.col()).max(1),
                false => 1,
            },
            kind,
        }
    }

    fn size(&self) -> usize {
        match &self.kind {
            Kind::Scalar { .. } => 1,
            Kind::Sequence(items) => 1 + items.iter().map(Self::size).sum::<usize>(),
            Kind::Mapping(entries) => {
                let sizes = entries.iter().map(|(key, value)| key.size() + value.size());
                1 + sizes.sum::<usize>()
            }
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The value in words, for "found ...".
    pub(crate) fn describe(&self) -> String {
        match &self.kind {
            _ if self.is_null() => "nothing".to_owned(),
            Kind::Scalar { text, plain: true } => format!("`{text}`"),
            Kind::Scalar { text, plain: false } => format!("the text {text:?}"),
            Kind::Sequence(_) => "a list".to_owned(),
            Kind::Mapping(_) => "a mapping".to_owned(),
        }
    }
}
