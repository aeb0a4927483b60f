//! The fields of one map of the file, taken one by one; what is left over is not supported.

use super::Problem;
use crate::gateway::routes::document::{Node, Value};

/// A map that is being read.
pub(super) struct Fields<'n> {
    /// What it is, for messages: "route `1`".
    place: String,
    line: usize,
    all: &'n [(String, Node)],
    /// Which of them were asked for.
    taken: Vec<String>,
}

impl<'n> Fields<'n> {
    pub(super) fn of(node: &'n Node, place: &str) -> Result<Self, Problem> {
        let Value::Map(fields) = &node.value else {
            let text = format!("{place} is {}, and a map is needed", node.value.kind());
            return Err(Problem::at(node, text));
        };
        Ok(Self {
            place: place.to_owned(),
            line: node.line,
            all: fields,
            taken: Vec::new(),
        })
    }

    /// Gives it a better name for messages.
    pub(super) fn name(&mut self, place: &str) {
        place.clone_into(&mut self.place);
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// The line of the map.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// All of them, in order, where any name is right.
    pub(super) fn all(&self) -> &'n [(String, Node)] {
        self.all
    }

    /// A field; one without a value is as good as not there.
    pub(super) fn take(&mut self, name: &str) -> Option<&'n Node> {
        self.taken.push(name.to_owned());
        self.find(name)
            .filter(|node| !matches!(node.value, Value::Null))
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Problem> {
        let Some(node) = self.take(name) else {
            return Ok(None);
        };
        match &node.value {
            Value::Text(text) => Ok(Some(text.clone())),
            other => Err(self.wrong(name, &text_needed(other))),
        }
    }

    pub(super) fn int(&mut self, name: &str) -> Result<Option<i64>, Problem> {
        match self.take(name).map(|node| &node.value) {
            None => Ok(None),
            Some(Value::Int(number)) => Ok(Some(*number)),
            Some(other) => {
                let text = format!("{} is there, and a number is needed", other.kind());
                Err(self.wrong(name, &text))
            }
        }
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<bool, Problem> {
        match self.take(name).map(|node| &node.value) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(other) => {
                let text = format!("{} is there, and true or false is needed", other.kind());
                Err(self.wrong(name, &text))
            }
        }
    }

    /// An id: a text or a number.
    pub(super) fn id(&mut self) -> Result<Option<String>, Problem> {
        self.id_of("id")
    }

    /// A field that holds an id.
    pub(super) fn id_of(&mut self, name: &str) -> Result<Option<String>, Problem> {
        match self.take(name).map(|node| &node.value) {
            None => Ok(None),
            Some(Value::Int(number)) => Ok(Some(number.to_string())),
            Some(Value::Text(text)) if !text.is_empty() => Ok(Some(text.clone())),
            Some(other) => {
                let text = format!("{} is no id: a text or a number is needed", other.kind());
                Err(self.wrong(name, &text))
            }
        }
    }

    /// A list of texts; empty where it is not there.
    pub(super) fn texts(&mut self, name: &str) -> Result<Vec<String>, Problem> {
        let Some(node) = self.take(name) else {
            return Ok(Vec::new());
        };
        let Value::List(items) = &node.value else {
            let text = format!("{} is there, and a list is needed", node.value.kind());
            return Err(self.wrong(name, &text));
        };
        let mut texts = Vec::with_capacity(items.len());
        for item in items.iter() {
            match &item.value {
                Value::Text(text) => texts.push(text.clone()),
                other => return Err(self.wrong(name, &text_needed(other))),
            }
        }
        Ok(texts)
    }

    /// What is either one text or a list of them; the list wins, as it does in the real gateway.
    pub(super) fn one_or_many(&mut self, one: &str, many: &str) -> Result<Vec<String>, Problem> {
        let (single, list) = (self.text(one)?, self.texts(many)?);
        if list.is_empty() {
            return Ok(single.into_iter().collect());
        }
        Ok(list)
    }

    /// Fields that change nothing here.
    pub(super) fn ignore(&mut self, names: &[&str]) {
        self.taken
            .extend(names.iter().map(|name| (*name).to_owned()));
    }

    /// Warns of every field that nobody took.
    pub(super) fn rest(&self, warnings: &mut Vec<String>) {
        let left = |(name, _): &&(String, Node)| !self.taken.contains(name);
        for (name, node) in self.all.iter().filter(left) {
            warnings.push(format!(
                "line {}: {}: `{name}` is not supported here and does nothing",
                node.line, self.place
            ));
        }
    }

    /// A sentence about a field, as a warning has it.
    pub(super) fn about(&self, name: &str, text: &str) -> String {
        format!(
            "line {}: {}, `{name}`: {text}",
            self.line_of(name),
            self.place
        )
    }

    /// An error of a field.
    pub(super) fn wrong(&self, name: &str, text: &str) -> Problem {
        Problem {
            line: Some(self.line_of(name)),
            text: format!("{}, `{name}`: {text}", self.place),
        }
    }

    fn line_of(&self, name: &str) -> usize {
        self.find(name).map_or(self.line, |node| node.line)
    }

    fn find(&self, name: &str) -> Option<&'n Node> {
        let found = self.all.iter().find(|(other, _)| other == name);
        found.map(|(_, node)| node)
    }
}

fn text_needed(found: &Value) -> String {
    format!(
        "{} is there, and a text is needed: put it in quotes",
        found.kind()
    )
}
