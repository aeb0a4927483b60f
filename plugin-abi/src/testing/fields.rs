//! Names and values of a message, and which of them plugins have touched.

/// One header or argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: Vec<u8>,
    /// Absent for an argument without `=`.
    pub(super) value: Option<Vec<u8>>,
}

impl Field {
    pub(super) fn new(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        Self {
            name: name.as_ref().to_vec(),
            value: Some(value.as_ref().to_vec()),
        }
    }

    pub(super) fn value(&self) -> &[u8] {
        self.value.as_deref().unwrap_or_default()
    }
}

/// Whether names that differ in ASCII case alone are the same: so it is for headers, and not for
/// arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Ignored,
    Counts,
}

impl Case {
    pub(super) fn same(self, left: &[u8], right: &[u8]) -> bool {
        match self {
            Self::Ignored => left.eq_ignore_ascii_case(right),
            Self::Counts => left == right,
        }
    }
}

/// A list with its changes.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    case: Case,
    pub(super) now: Vec<Field>,
    pub(super) touched: Vec<Vec<u8>>,
}

impl Fields {
    pub(super) fn new(case: Case, received: Vec<Field>) -> Self {
        Self {
            case,
            now: received,
            touched: Vec::new(),
        }
    }

    pub(super) fn find(&self, name: &[u8], start: usize) -> Option<usize> {
        let rest = self.now.get(start..)?;
        let found = rest.iter().position(|field| self.is(field, name))?;
        Some(start + found)
    }

    /// Replaces every field of this name by one, in the place of the first.
    pub(super) fn set(&mut self, name: &[u8], value: &[u8]) {
        let place = self.find(name, 0).unwrap_or(self.now.len());
        self.remove(name);
        self.now.insert(place, Field::new(name, value));
    }

    /// Adds a field beside those of the same name.
    pub(super) fn append(&mut self, name: &[u8], value: &[u8]) {
        self.touch(name);
        self.now.push(Field::new(name, value));
    }

    pub(super) fn remove(&mut self, name: &[u8]) {
        self.touch(name);
        let case = self.case;
        self.now.retain(|field| !case.same(&field.name, name));
    }

    pub(super) fn was_touched(&self, name: &[u8]) -> bool {
        self.touched
            .iter()
            .any(|touched| self.case.same(touched, name))
    }

    fn touch(&mut self, name: &[u8]) {
        if !self.was_touched(name) {
            self.touched.push(name.to_vec());
        }
    }

    fn is(&self, field: &Field, name: &[u8]) -> bool {
        self.case.same(&field.name, name)
    }
}

/// The values of a header as texts.
///
/// # Panics
/// One is no text.
#[track_caller]
pub(super) fn texts<'a>(fields: &'a [Field], case: Case, name: &str) -> Vec<&'a str> {
    let named = fields
        .iter()
        .filter(|field| case.same(&field.name, name.as_bytes()));
    named.map(|field| text(name, field.value())).collect()
}

/// Bytes that a test wants as text.
///
/// # Panics
/// They are none.
#[track_caller]
pub(super) fn text<'a>(what: &str, bytes: &'a [u8]) -> &'a str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => panic!("{what} is no text: {}", bytes.escape_ascii()),
    }
}

/// Puts a field in place of those of its name.
pub(super) fn put(fields: &mut Vec<Field>, case: Case, field: Field) {
    fields.retain(|other| !case.same(&other.name, &field.name));
    fields.push(field);
}
