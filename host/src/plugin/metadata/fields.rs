//! The fields of one JSON object of `plugin.json`: taken by name, mistakes noted as they are met.
//!
//! Nothing here ends at the first mistake: a field with one counts as absent from then on, and
//! the reader goes on to the next.

use serde_json::{Map, Value};

use super::{MetadataError, UnknownField};

/// How much of a wrong value a message repeats, at most, in characters.
const MAX_SHOWN_CHARACTERS: usize = 60;

/// How many edits a misspelt name may be away from the one that was meant.
const MAX_EDITS: usize = 2;

/// What was found wrong so far.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) errors: Vec<MetadataError>,
    pub(super) unknown: Vec<UnknownField>,
}

/// One object and its place in the file: empty for the file itself, else like `source`.
pub(super) struct Fields<'a> {
    place: String,
    values: &'a Map<String, Value>,
}

impl Findings {
    pub(super) fn invalid(&mut self, field: String, found: String, write: &str) {
        self.errors.push(MetadataError::Invalid {
            field,
            found,
            write: write.to_owned(),
        });
    }
}

impl<'a> Fields<'a> {
    /// Takes an object, and notes the names in it that are not among the known ones. Names that
    /// begin with `x-` are free.
    pub(super) fn new(
        place: String,
        values: &'a Map<String, Value>,
        known: &[&str],
        findings: &mut Findings,
    ) -> Self {
        let fields = Self { place, values };
        for name in values.keys().filter(|name| !name.starts_with("x-")) {
            if !known.contains(&name.as_str()) {
                let meant = nearest(name, known).map(|meant| fields.place_of(meant));
                findings.unknown.push(UnknownField {
                    field: fields.place_of(name),
                    meant,
                });
            }
        }
        fields
    }

    pub(super) fn place_of(&self, name: &str) -> String {
        if self.place.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.place)
        }
    }

    pub(super) fn value(&self, name: &str) -> Option<&'a Value> {
        self.values.get(name)
    }

    /// Notes that a field is missing, if it is.
    pub(super) fn require(&self, name: &str, write: &str, findings: &mut Findings) {
        if !self.values.contains_key(name) {
            findings.errors.push(MetadataError::Missing {
                field: self.place_of(name),
                write: write.to_owned(),
            });
        }
    }

    /// A value of which `take` says whether it is valid.
    pub(super) fn take<T>(
        &self,
        name: &str,
        write: &str,
        findings: &mut Findings,
        take: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(name)?;
        let taken = take(value);
        if taken.is_none() {
            findings.invalid(self.place_of(name), describe(value), write);
        }
        taken
    }

    /// A text of which `parse` says whether it is valid.
    pub(super) fn parse<T>(
        &self,
        name: &str,
        write: &str,
        findings: &mut Findings,
        parse: impl FnOnce(&'a str) -> Option<T>,
    ) -> Option<T> {
        self.take(name, write, findings, |value| {
            value.as_str().and_then(parse)
        })
    }

    /// One line of text, empty where absent. (It ends up in tables and logs.)
    pub(super) fn line(&self, name: &str, write: &str, findings: &mut Findings) -> String {
        let line = self.parse(name, write, findings, |text| {
            is_line(text).then(|| text.to_owned())
        });
        line.unwrap_or_default()
    }

    /// `true` or `false`, the latter where absent.
    pub(super) fn flag(&self, name: &str, findings: &mut Findings) -> bool {
        self.take(name, "`true` or `false`", findings, Value::as_bool)
            .unwrap_or_default()
    }

    /// An object.
    pub(super) fn object(
        &self,
        name: &str,
        known: &[&str],
        findings: &mut Findings,
    ) -> Option<Self> {
        let values = self.take(name, "an object, `{...}`", findings, Value::as_object)?;
        Some(Self::new(self.place_of(name), values, known, findings))
    }

    /// A list, empty where absent. Entries that `take` refuses are noted one by one.
    pub(super) fn list<T>(
        &self,
        name: &str,
        write: &str,
        findings: &mut Findings,
        take: impl Fn(&'a Value) -> Option<T>,
    ) -> Vec<T> {
        let Some(values) = self.take(name, "a list, `[...]`", findings, Value::as_array) else {
            return Vec::new();
        };
        let mut taken = Vec::new();
        for (index, value) in values.iter().enumerate() {
            match take(value) {
                Some(entry) => taken.push(entry),
                None => findings.invalid(
                    format!("{}.{index}", self.place_of(name)),
                    describe(value),
                    write,
                ),
            }
        }
        taken
    }
}

pub(super) fn is_line(text: &str) -> bool {
    !text.trim().is_empty() && !text.contains(char::is_control)
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.is_empty() => "empty".to_owned(),
        Value::String(text) => {
            let shown: String = text.chars().take(MAX_SHOWN_CHARACTERS).collect();
            let rest = if shown.len() < text.len() { "…" } else { "" };
            format!("`{}{rest}`", shown.escape_debug())
        }
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// The known name that a misspelt one probably means: `failurePolicy` and `failure-policy` are
/// `failure_policy` too.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let plain = |name: &str| -> Vec<char> {
        name.chars()
            .filter(|c| !"-_".contains(*c))
            .flat_map(char::to_lowercase)
            .take(MAX_SHOWN_CHARACTERS)
            .collect()
    };
    let name = plain(name);
    known
        .iter()
        .map(|candidate| (edits(&name, &plain(candidate)), *candidate))
        .filter(|(edits, candidate)| *edits <= MAX_EDITS && *edits < candidate.len() / 2)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance: how many characters to insert, delete or replace.
fn edits(from: &[char], to: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, source) in from.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, target) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(source != target);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}
