//! JSON Schemas that plugins bring along: compiled once, then used to judge configurations.
//!
//! A schema is what stands between an operator's typing mistake and a plugin that refuses a
//! route, so an error names the place in the configuration, as JSON pointer. Messages never
//! repeat the values that they complain about: a configuration may hold a secret, and these
//! messages end up in logs. This module never fetches anything: a `$ref` that leads out of the
//! schema is an error when the schema is compiled.

use std::fmt;
use std::sync::Arc;

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;

/// How many mistakes of one configuration are reported, at most; the rest is counted.
pub const MAX_VIOLATIONS: usize = 8;

/// Length of one reported place, and of one reported mistake, at most, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 240;

/// How often one regular expression of a schema may turn back on one text, so that a careless
/// `pattern` costs milliseconds and not minutes.
pub const MAX_BACKTRACKS: usize = 100_000;

/// Size of a schema that a library brings along, at most, in bytes; as that of a `plugin.json`.
pub const MAX_SOURCE_BYTES: usize = 256 << 10;

/// The dialect that schemas are written in, and the only value that their `$schema` may have.
pub const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A compiled JSON Schema (2020-12). Cheap to clone: clones share the compiled form.
#[derive(Clone)]
pub struct Schema(Arc<Compiled>);

struct Compiled {
    source: Value,
    validator: Validator,
}

/// Why a schema cannot be used. The author of the plugin can mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// Larger than [`MAX_SOURCE_BYTES`].
    #[error("it has {bytes} bytes, more than {MAX_SOURCE_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The text is not JSON.
    #[error("it is not JSON: {reason}")]
    NotJson {
        /// What the parser stumbled over.
        reason: String,
    },
    /// `$schema` names something else than [`DIALECT`].
    #[error("`$schema` is `{found}`, but only {DIALECT} is understood")]
    OtherDialect {
        /// What stands there.
        found: String,
    },
    /// A `$ref` leads out of the schema, or nowhere.
    #[error("a `$ref` leads out of the schema or nowhere: {reason}")]
    Reference {
        /// Which one.
        reason: String,
    },
    /// A keyword has a value that the dialect does not allow.
    #[error("it is not a JSON Schema: {place}: {reason}")]
    Invalid {
        /// JSON pointer into the schema.
        place: String,
        /// What is wrong there.
        reason: String,
    },
}

/// Why a configuration was refused. Whoever wrote the configuration can mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The text is not JSON.
    #[error("it is not JSON: {reason} at line {line}, column {column}")]
    NotJson {
        /// What the parser stumbled over.
        reason: String,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// The value does not fit the schema.
    #[error("{0}")]
    Violations(#[from] Violations),
    /// There is no text, and `{}`, for which that stands, does not fit the schema.
    #[error(
        "the route gives no configuration, which stands for {{}}, and that does not fit: {0}; give the \
         route a `value` with what is missing"
    )]
    NothingGiven(Violations),
}

/// What does not fit the schema: at least one mistake, at most [`MAX_VIOLATIONS`] of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violations {
    /// The first mistakes, in the order of the schema.
    pub shown: Vec<Violation>,
    /// How many more there are.
    pub more: usize,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Where: a JSON pointer like `/filters/0/regex`, `/` for the whole value.
    pub place: String,
    /// What is wrong there, without the value itself.
    pub message: String,
}

impl Schema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// It is no schema of the [`DIALECT`], or refers to something outside itself.
    ///
    /// ```
    /// use plugin_host::plugin::schema::Schema;
    /// use serde_json::json;
    ///
    /// let schema = Schema::compile(&json!({"properties": {"rate": {"type": "number"}}})).unwrap();
    /// assert!(schema.check_raw(b"").is_ok());
    /// let refused = schema.check_raw(br#"{"rate": "ten"}"#).unwrap_err();
    /// assert_eq!(refused.to_string(), r#"/rate: value is not of type "number""#);
    /// ```
    pub fn compile(source: &Value) -> Result<Self, SchemaError> {
        if let Some(dialect) = source.get("$schema") {
            let named = dialect.as_str().unwrap_or_default();
            if named.trim_end_matches('#') != DIALECT {
                let found = if named.is_empty() {
                    dialect.to_string()
                } else {
                    named.to_owned()
                };
                return Err(SchemaError::OtherDialect {
                    found: shortened(&found),
                });
            }
        }
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(MAX_BACKTRACKS))
            .offline()
            .build(source)
            .map_err(|error| refused_schema(&error))?;
        Ok(Self(Arc::new(Compiled {
            source: source.clone(),
            validator,
        })))
    }

    /// Compiles a schema that a library brings along.
    ///
    /// # Errors
    /// It is too large, no JSON, or as for [`Schema::compile`].
    pub fn from_text(text: &str) -> Result<Self, SchemaError> {
        if text.len() > MAX_SOURCE_BYTES {
            return Err(SchemaError::TooLarge { bytes: text.len() });
        }
        let source = serde_json::from_str(text).map_err(|error| SchemaError::NotJson {
            reason: shortened(&error.to_string()),
        })?;
        Self::compile(&source)
    }

    /// The schema as it was written.
    #[must_use]
    pub fn source(&self) -> &Value {
        &self.0.source
    }

    /// Checks a value.
    ///
    /// # Errors
    /// The value does not fit.
    pub fn check(&self, value: &Value) -> Result<(), Violations> {
        let mut errors = self.0.validator.iter_errors(value);
        let shown: Vec<_> = errors
            .by_ref()
            .take(MAX_VIOLATIONS)
            .map(|error| Violation {
                place: place(error.instance_path().as_str()),
                message: shortened(&error.masked().to_string()),
            })
            .collect();
        if shown.is_empty() {
            return Ok(());
        }
        Err(Violations {
            shown,
            more: errors.count(),
        })
    }

    /// Checks a route's configuration as it came from the gateway. An empty one counts as `{}`,
    /// because a gateway sends nothing where the operator wrote nothing.
    ///
    /// # Errors
    /// It is not JSON, or does not fit.
    pub fn check_raw(&self, raw: &[u8]) -> Result<(), ConfigError> {
        let nothing = raw.trim_ascii().is_empty();
        let raw = if nothing { b"{}" } else { raw };
        let value: Value = serde_json::from_slice(raw).map_err(|error| ConfigError::NotJson {
            reason: shortened(&without_position(&error)),
            line: error.line(),
            column: error.column(),
        })?;
        self.check(&value).map_err(|violations| match nothing {
            true => ConfigError::NothingGiven(violations),
            false => violations.into(),
        })
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Schema").field(&self.0.source).finish()
    }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.0.source == other.0.source
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, violation) in self.shown.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", violation.place, violation.message)?;
        }
        if self.more > 0 {
            write!(f, "; and {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Violations {}

fn refused_schema(error: &jsonschema::ValidationError<'_>) -> SchemaError {
    if let jsonschema::error::ValidationErrorKind::Referencing(reason) = error.kind() {
        return SchemaError::Reference {
            reason: shortened(&reason.to_string()),
        };
    }
    SchemaError::Invalid {
        place: place(error.instance_path().as_str()),
        reason: shortened(&error.to_string()),
    }
}

fn place(pointer: &str) -> String {
    if pointer.is_empty() {
        "/".to_owned()
    } else {
        shortened(pointer)
    }
}

/// The parser's words without the position, which is reported apart.
pub(super) fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// At most [`MAX_MESSAGE_BYTES`], on one line.
fn shortened(text: &str) -> String {
    let mut short = String::new();
    for character in text.chars() {
        if short.len() + character.len_utf8() > MAX_MESSAGE_BYTES {
            short.push('…');
            break;
        }
        short.push(if character.is_control() {
            ' '
        } else {
            character
        });
    }
    short
}

#[cfg(test)]
mod tests;
