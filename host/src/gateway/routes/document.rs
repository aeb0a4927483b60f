//! A YAML document as a tree that knows its lines.
//!
//! An anchor's node is shared, never copied, and depth is bounded, so that a small file cannot
//! become a large tree. This module never knows what the document is about.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// Lists and maps within each other, at most.
pub(crate) const MAX_DEPTH: usize = 64;

/// One value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Its line, from 1; of a field the line of its name.
    pub(crate) line: usize,
    pub(crate) value: Value,
}

/// A value. Maps keep their order; no field occurs twice.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    /// A text; a number with a fraction too, since nothing here needs its value.
    Text(String),
    List(Arc<Vec<Node>>),
    Map(Arc<Vec<(String, Node)>>),
}

/// The document is no YAML, or none that is read here.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// What is open while its parts are read.
struct Open {
    line: usize,
    anchor: usize,
    parts: Parts,
}

enum Parts {
    List(Vec<Node>),
    Map {
        fields: Vec<(String, Node)>,
        /// A name whose value has not come yet, and its line.
        name: Option<(String, usize)>,
    },
}

/// Reads the first document of a text; one without content is [`Value::Null`].
pub(crate) fn parse(text: &str) -> Result<Node, Problem> {
    let mut parser = Parser::new_from_str(text);
    let mut open: Vec<Open> = Vec::new();
    let mut anchors: HashMap<usize, Node> = HashMap::new();
    loop {
        let (event, span) = match parser.next_event() {
            Some(Ok(next)) => next,
            Some(Err(error)) => {
                return Err(problem(error.marker().line(), error.info()));
            }
            None => return Ok(nothing()),
        };
        let line = span.start.line();
        let (node, anchor) = match event {
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) => continue,
            Event::StreamEnd | Event::DocumentEnd => return Ok(nothing()),
            Event::Alias(anchor) => match anchors.get(&anchor) {
                Some(node) => (node.clone(), 0),
                None => return Err(problem(line, "an alias within its own anchor")),
            },
            Event::Scalar(text, style, anchor, _) => (scalar(&text, style, span), anchor),
            Event::SequenceStart(anchor, _) => {
                begin(&mut open, line, anchor, Parts::List(Vec::new()))?;
                continue;
            }
            Event::MappingStart(anchor, _) => {
                let (fields, name) = (Vec::new(), None);
                begin(&mut open, line, anchor, Parts::Map { fields, name })?;
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let ended = open.pop().expect("what ends was begun");
                let value = match ended.parts {
                    Parts::List(items) => Value::List(Arc::new(items)),
                    Parts::Map { fields, .. } => Value::Map(Arc::new(fields)),
                };
                let line = ended.line;
                (Node { line, value }, ended.anchor)
            }
        };
        if anchor != 0 {
            anchors.insert(anchor, node.clone());
        }
        match open.last_mut() {
            None => return Ok(node),
            Some(outer) => outer.parts.take(node)?,
        }
    }
}

fn begin(open: &mut Vec<Open>, line: usize, anchor: usize, parts: Parts) -> Result<(), Problem> {
    if open.len() >= MAX_DEPTH {
        let text = format!("more than {MAX_DEPTH} lists and maps within each other");
        return Err(problem(line, &text));
    }
    open.push(Open {
        line,
        anchor,
        parts,
    });
    Ok(())
}

impl Parts {
    fn take(&mut self, mut node: Node) -> Result<(), Problem> {
        match self {
            Self::List(items) => items.push(node),
            Self::Map { fields, name } => match name.take() {
                Some((name, line)) => {
                    node.line = line;
                    if fields.iter().any(|(other, _)| *other == name) {
                        let text = format!("`{name}` is there twice: remove one");
                        return Err(problem(node.line, &text));
                    }
                    fields.push((name, node));
                }
                None => {
                    let text = node.value.as_name();
                    let text = text.ok_or_else(|| problem(node.line, "a name is no plain text"))?;
                    *name = Some((text, node.line));
                }
            },
        }
        Ok(())
    }
}

impl Value {
    /// What it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a truth value",
            Self::Int(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }

    fn as_name(&self) -> Option<String> {
        match self {
            Self::Null => Some("null".to_owned()),
            Self::Bool(value) => Some(value.to_string()),
            Self::Int(value) => Some(value.to_string()),
            Self::Text(text) => Some(text.clone()),
            Self::List(_) | Self::Map(_) => None,
        }
    }
}

/// Only what is not quoted can be anything else than a text.
fn scalar(text: &str, style: ScalarStyle, span: Span) -> Node {
    let value = match (style, text) {
        (ScalarStyle::Plain, "" | "~" | "null" | "Null" | "NULL") => Value::Null,
        (ScalarStyle::Plain, "true" | "True" | "TRUE") => Value::Bool(true),
        (ScalarStyle::Plain, "false" | "False" | "FALSE") => Value::Bool(false),
        (ScalarStyle::Plain, _) => match text.parse() {
            // `007` is a name rather than a number.
            Ok(number) if i64::to_string(&number) == text => Value::Int(number),
            _ => Value::Text(text.to_owned()),
        },
        _ => Value::Text(text.to_owned()),
    };
    let line = span.start.line();
    Node { line, value }
}

fn nothing() -> Node {
    let (line, value) = (1, Value::Null);
    Node { line, value }
}

fn problem(line: usize, text: &str) -> Problem {
    let text = text.to_owned();
    Problem { line, text }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;

    /// The tree on one line, with the line of each value.
    fn print(node: &Node) -> String {
        let line = node.line;
        match &node.value {
            Value::List(items) => {
                let items: Vec<_> = items.iter().map(print).collect();
                format!("{line}[{}]", items.join(" "))
            }
            Value::Map(fields) => {
                let print = |(name, node): &(String, Node)| format!("{name}={}", print(node));
                let fields: Vec<_> = fields.iter().map(print).collect();
                format!("{line}{{{}}}", fields.join(" "))
            }
            Value::Text(text) => format!("{line}'{text}'"),
            Value::Int(number) => format!("{line}#{number}"),
            Value::Bool(value) => format!("{line}{value}"),
            Value::Null => format!("{line}null"),
        }
    }

    #[test]
    fn values_keep_their_kinds_and_lines() {
        for (text, expected) in [
            ("", "1null"),
            ("# only a remark\n#END\n", "1null"),
            ("a: 1\nb: \"1\"\n", "1{a=1#1 b=2'1'}"),
            ("a:\n  - true\n  - x y\n", "1{a=1[2true 3'x y']}"),
            ("a: {\"127.0.0.1:1980\": 1}", "1{a=1{127.0.0.1:1980=1#1}}"),
            ("a: 007\nb: 1.5\nc: ~", "1{a=1'007' b=2'1.5' c=3null}"),
            ("a: |\n  {\"x\":\n  1}\nb: 2", "1{a=1'{\"x\":\n1}\n' b=4#2}"),
            ("a: &x {b: 1}\nc: *x", "1{a=1{b=1#1} c=2{b=1#1}}"),
        ] {
            assert_eq!(print(&parse(text).unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_document_is_refused_with_its_line() {
        let deep = "[".repeat(MAX_DEPTH + 1);
        for (text, line, words) in [
            ("a: 1\nb: [1, 2\nc: 3\n", 3, ""),
            ("a: 1\na: 2\n", 2, "`a` is there twice"),
            ("a: 1\n? [b]\n: 2\n", 2, "a name is no plain text"),
            ("a: &x [*x]\n", 1, ""),
            (&deep, 1, "within each other"),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.text.contains(words), "{}", problem.text);
            assert_eq!(problem.line, line, "{text}: {}", problem.text);
        }
    }

    #[test]
    fn an_anchor_used_by_an_anchor_many_times_over_costs_nothing() {
        let mut text = "a0: &a0 [x, x]\n".to_owned();
        for n in 1..40 {
            let last = n - 1;
            text += &format!("a{n}: &a{n} [*a{last}, *a{last}]\n");
        }
        assert!(matches!(parse(&text).unwrap().value, Value::Map(fields) if fields.len() == 40));
    }
}
