//! References in operator settings: `${env:NAME}` and `${file:/path}`, with `$${` for a literal
//! `${`.
//!
//! Turns text with references into the text that the plugin gets. Never shows what a reference
//! stands for: errors name the reference, not its value.

use std::io::Read;
use std::path::Path;

use super::source::Environment;

/// Most bytes that a referenced file may have.
const MAX_REFERENCED_FILE_BYTES: u64 = 1 << 20;

/// Why a reference could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// The variable is not set, or empty.
    #[error(
        "`${{env:{name}}}`: the host's environment has no such variable; under the gateway, list it in `nginx_config.envs`"
    )]
    VariableNotSet {
        /// Name of the variable.
        name: String,
    },
    /// The variable or the file is not UTF-8 text.
    #[error("`${{{reference}}}` is not UTF-8 text")]
    NotText {
        /// What stands between the braces.
        reference: String,
    },
    /// The file cannot be read.
    #[error("`${{file:{path}}}` cannot be read by the host: {source}")]
    Unreadable {
        /// Path as it was written.
        path: String,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The file is larger than any secret.
    #[error("`${{file:{path}}}` has more than {MAX_REFERENCED_FILE_BYTES} bytes")]
    TooLarge {
        /// Path as it was written.
        path: String,
    },
    /// The path depends on the working directory, which the gateway chooses.
    #[error("`${{file:{path}}}` needs an absolute path")]
    RelativePath {
        /// Path as it was written.
        path: String,
    },
    /// Neither `env` nor `file`, or no closing brace.
    #[error(
        "a reference is written `${{env:NAME}}` or `${{file:/path}}`, a literal `${{` as `$${{`"
    )]
    Malformed,
}

/// Replaces every reference in `text`.
pub(crate) fn resolve(text: &str, environment: &Environment) -> Result<String, ReferenceError> {
    pieces(text)?
        .into_iter()
        .map(|piece| match piece {
            Piece::Literal(literal) => Ok(literal.to_owned()),
            Piece::Reference(reference) => look_up(reference, environment),
        })
        .collect()
}

/// The text with its references as they were written and `hidden` for everything between them.
pub(crate) fn only_references(text: &str, hidden: &str) -> String {
    let mut shown = String::new();
    for piece in pieces(text).unwrap_or_default() {
        match piece {
            Piece::Reference(reference) => {
                shown.push_str("${");
                shown.push_str(reference);
                shown.push('}');
            }
            Piece::Literal(_) if !shown.ends_with(hidden) => shown.push_str(hidden),
            Piece::Literal(_) => {}
        }
    }
    if shown.is_empty() {
        hidden.clone_into(&mut shown);
    }
    shown
}

enum Piece<'a> {
    Literal(&'a str),
    /// What stands between the braces.
    Reference(&'a str),
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, ReferenceError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(dollar) = rest.find("${") {
        let (before, opened) = rest.split_at(dollar);
        let after = &opened["${".len()..];
        if let Some(before) = before.strip_suffix('$') {
            pieces.extend([Piece::Literal(before), Piece::Literal("${")]);
            rest = after;
            continue;
        }
        let (reference, after) = after.split_once('}').ok_or(ReferenceError::Malformed)?;
        pieces.extend([Piece::Literal(before), Piece::Reference(reference)]);
        rest = after;
    }
    pieces.push(Piece::Literal(rest));
    pieces.retain(|piece| !matches!(piece, Piece::Literal("")));
    Ok(pieces)
}

fn look_up(reference: &str, environment: &Environment) -> Result<String, ReferenceError> {
    match reference.split_once(':') {
        Some(("env", name)) if !name.is_empty() => environment
            .get_os(name)
            .ok_or_else(|| ReferenceError::VariableNotSet {
                name: name.to_owned(),
            })?
            .to_str()
            .map(str::to_owned)
            .ok_or_else(|| ReferenceError::NotText {
                reference: reference.to_owned(),
            }),
        Some(("file", path)) => read_file(path),
        _ => Err(ReferenceError::Malformed),
    }
}

/// The file's text without its last newline, which editors and `echo` put there.
fn read_file(path: &str) -> Result<String, ReferenceError> {
    if !Path::new(path).is_absolute() {
        return Err(ReferenceError::RelativePath {
            path: path.to_owned(),
        });
    }
    let mut content = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| {
            file.take(MAX_REFERENCED_FILE_BYTES + 1)
                .read_to_end(&mut content)
        })
        .map_err(|source| ReferenceError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
    if content.len() as u64 > MAX_REFERENCED_FILE_BYTES {
        return Err(ReferenceError::TooLarge {
            path: path.to_owned(),
        });
    }
    let mut text = String::from_utf8(content).map_err(|_| ReferenceError::NotText {
        reference: format!("file:{path}"),
    })?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;

    fn environment() -> Environment {
        Environment::empty()
            .with("USER_NAME", "anna")
            .with("EMPTY", "")
    }

    #[test]
    fn references_are_replaced_wherever_they_stand() {
        let check = |text: &str, expected: &str| {
            assert_eq!(resolve(text, &environment()).unwrap(), expected);
        };
        check("plain", "plain");
        check("${env:USER_NAME}", "anna");
        check("<${env:USER_NAME}|${env:USER_NAME}>", "<anna|anna>");
        check("$${env:USER_NAME}", "${env:USER_NAME}");
        check("costs 5$ and {braces}", "costs 5$ and {braces}");
    }

    #[test]
    fn a_file_gives_its_text_without_the_last_newline() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        for (content, expected) in [
            ("s3cret\n", "s3cret"),
            ("s3cret\r\n", "s3cret"),
            ("two\nlines\n\n", "two\nlines\n"),
            ("none", "none"),
        ] {
            std::fs::write(&path, content).unwrap();
            let text = format!("${{file:{}}}", path.display());
            assert_eq!(resolve(&text, &environment()).unwrap(), expected);
        }
    }

    #[test]
    fn what_a_reference_stands_for_is_not_read_as_a_reference_again() {
        let environment = Environment::empty().with("TRICK", "${env:TRICK}");
        assert_eq!(
            resolve("${env:TRICK}", &environment).unwrap(),
            "${env:TRICK}"
        );
    }

    #[test]
    fn only_the_references_of_a_text_are_shown() {
        let check = |text: &str, expected: &str| {
            assert_eq!(only_references(text, "***"), expected);
        };
        check("hunter2", "***");
        check("", "***");
        check("${env:TOKEN}", "${env:TOKEN}");
        check("Bearer ${env:A}-$${x}", "***${env:A}***");
        check("${env:OPEN", "***");
    }

    #[test]
    fn an_unusable_reference_is_named() {
        let check = |text: &str, expected: &str| {
            let error = resolve(text, &environment()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("${env:ABSENT}", "`${env:ABSENT}`");
        check("${env:EMPTY}", "`${env:EMPTY}`");
        check(
            "${file:/no/such/file}",
            "`${file:/no/such/file}` cannot be read",
        );
        check("${file:relative}", "needs an absolute path");
        check("${file:/dev/zero}", "more than 1048576 bytes");
        check("${vault:key}", "a reference is written");
        check("${env:OPEN", "a reference is written");
        check("${}", "a reference is written");
    }
}
