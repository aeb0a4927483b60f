//! Where two layouts of the ABI differ, in one line for people.
//!
//! `abi_stable` reports every type on the way, thousands of lines of them; who reads a log wants the
//! field. This module words what was found and judges nothing.

use std::fmt::Display;

use abi_stable::{
    abi_stability::abi_checking::{
        AbiInstability, AbiInstabilityError, AbiInstabilityErrors, ExpectedFound,
    },
    type_layout::TLFieldOrFunction,
};

/// Length of one description, at most, in characters.
const MAX_CHARS: usize = 400;

/// As what the library was compared with the host.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Library {
    Interface,
    Implementation,
}

/// The field that differs, and how.
pub(super) fn describe(errors: &AbiInstabilityErrors, library: Library) -> String {
    // A type that has changed changes the size of those that hold it: the innermost is the reason.
    let innermost = errors
        .errors
        .iter()
        .filter(|error| !error.errs.is_empty())
        .max_by_key(|error| error.stack_trace.len());
    let Some(innermost) = innermost else {
        return "the report says no more".to_owned();
    };
    let telling = innermost
        .errs
        .iter()
        .min_by_key(|difference| match difference {
            AbiInstability::UnexpectedField(_) => 0,
            AbiInstability::Name(_) | AbiInstability::MismatchedPrimitive(_) => 1,
            AbiInstability::FieldCountMismatch(_) => 2,
            AbiInstability::Size(_) | AbiInstability::Alignment(_) => 3,
            _ => 4,
        });
    let how = telling.map_or_else(String::new, |difference| how(difference, library));
    let place = Place::of(errors, innermost);
    let subject = match telling {
        Some(AbiInstability::UnexpectedField(_) | AbiInstability::FieldCountMismatch(_)) => {
            place.inside
        }
        _ => place.field,
    };
    let text = format!("`{subject}` {how}");
    match text.char_indices().nth(MAX_CHARS) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}

/// Where a report ends.
struct Place {
    /// Type and field, like `ReplyParts.status`.
    field: String,
    /// The type of that field, or the method whose parameters and result are compared.
    inside: String,
}

impl Place {
    fn of(errors: &AbiInstabilityErrors, error: &AbiInstabilityError) -> Self {
        let root = errors.implementation.name();
        let mut place = Self {
            field: root.to_owned(),
            inside: root.to_owned(),
        };
        for entry in &error.stack_trace {
            match &entry.found {
                TLFieldOrFunction::Field(field) => {
                    place.field = format!("{}.{}", place.inside, field.name());
                    field.layout().name().clone_into(&mut place.inside);
                }
                TLFieldOrFunction::Function(function) => {
                    place.inside = function.name.to_string();
                }
            }
        }
        place
    }
}

fn how(difference: &AbiInstability, library: Library) -> String {
    match difference {
        AbiInstability::UnexpectedField(fields) => {
            let (theirs, ours) = sides(fields, library, |field| field.name());
            format!("has `{theirs}` in the library where it has `{ours}` in this host")
        }
        AbiInstability::Name(types) => told_apart("is a", types, library, ""),
        AbiInstability::MismatchedPrimitive(types) => {
            let types = ExpectedFound {
                expected: format!("{:?}", types.expected),
                found: format!("{:?}", types.found),
            };
            told_apart("is a", &types, library, "")
        }
        AbiInstability::FieldCountMismatch(counts) => told_apart("has", counts, library, " fields"),
        AbiInstability::Size(bytes) => told_apart("takes", bytes, library, " bytes"),
        AbiInstability::Alignment(bytes) => told_apart("is aligned to", bytes, library, " bytes"),
        AbiInstability::PackageVersion(versions) => {
            let (theirs, ours) = sides(versions, library, |version| version.version);
            format!("is of release {theirs} in the library and of {ours} in this host")
        }
        other => format!("differs: {}", one_line(&format!("{other:?}"))),
    }
}

fn told_apart<T: Display>(
    verb: &str,
    both: &ExpectedFound<T>,
    library: Library,
    unit: &str,
) -> String {
    let (theirs, ours) = sides(both, library, |side| one_line(&side.to_string()));
    format!("{verb} `{theirs}`{unit} in the library and `{ours}` in this host")
}

/// The library's side, and the host's. The interface is what is expected.
fn sides<'a, T, S>(
    both: &'a ExpectedFound<T>,
    library: Library,
    side: impl Fn(&'a T) -> S,
) -> (S, S) {
    match library {
        Library::Interface => (side(&both.expected), side(&both.found)),
        Library::Implementation => (side(&both.found), side(&both.expected)),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
