//! The names of a new crate: what was typed, and what follows from it.

/// Longest name, in characters.
const MAX_NAME: usize = 64;

/// What the prelude brings, so that a type of this name would hide it.
const TAKEN_TYPES: [&str; 20] = [
    "Action",
    "AskError",
    "Config",
    "Configuration",
    "Context",
    "Error",
    "HeaderName",
    "JsonSchema",
    "Limit",
    "Load",
    "Method",
    "Options",
    "Plugin",
    "Replace",
    "Reply",
    "Request",
    "Response",
    "Result",
    "StatusCode",
    "Window",
];

/// Crates that are there already, beside the standard library's.
const TAKEN_CRATES: [&str; 10] = [
    "alloc",
    "core",
    "plugin-abi",
    "plugin_abi",
    "proc_macro",
    "schemars",
    "serde",
    "std",
    "test",
    "build",
];

/// Words that Rust keeps for itself, of those that a name could be.
const KEYWORDS: [&str; 51] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate",
    "do", "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl",
    "in", "let", "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref",
    "return", "self", "static", "struct", "super", "trait", "true", "try", "type", "typeof",
    "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// The names of a new crate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// Of the package and the plugin: `mark-team`.
    pub(super) package: String,
    /// Of the library: `mark_team`.
    pub(super) library: String,
    /// Of the type: `MarkTeam`.
    pub(super) ty: String,
}

impl Names {
    /// The names that follow from the plugin's.
    ///
    /// # Errors
    /// What is wrong with it, and what would do.
    pub(super) fn of(name: &str) -> Result<Self, String> {
        let refused = |why: &str| {
            Err(format!(
                "{name:?} cannot be the name of a plugin's crate: {why}"
            ))
        };
        if name.contains(['/', '\\']) || name.starts_with('.') {
            return refused(
                "give the name first and the directory after it, as in `new hello some/where`",
            );
        }
        let Some(first) = name.chars().next() else {
            return refused("it is empty");
        };
        if name.len() > MAX_NAME {
            return refused(&format!("it is longer than {MAX_NAME} characters"));
        }
        if let Some(wrong) = name.chars().find(|c| !is_allowed(*c)) {
            return refused(&format!(
                "{wrong:?} is in it; write lower-case letters, digits, `-` and `_`{}",
                suggestion(name)
            ));
        }
        if !first.is_ascii_lowercase() {
            return refused("it must begin with a letter");
        }
        if KEYWORDS.contains(&name) {
            return refused(&format!("it is a word of Rust's; try {name}-plugin"));
        }
        if TAKEN_CRATES.contains(&name) {
            return refused(&format!(
                "a crate that it uses has this name; try my-{name}"
            ));
        }
        let mut ty: String = name.split(['-', '_']).map(capitalised).collect();
        if TAKEN_TYPES.contains(&ty.as_str()) {
            ty.push_str("Filter");
        }
        Ok(Self {
            package: name.to_owned(),
            library: name.replace('-', "_"),
            ty,
        })
    }
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_')
}

/// The nearest name that would do, if there is one.
fn suggestion(name: &str) -> String {
    let spelled: String = name
        .chars()
        .map(|c| match c.to_ascii_lowercase() {
            '.' | ' ' => '-',
            c => c,
        })
        .filter(|c| is_allowed(*c))
        .collect();
    match Names::of(&spelled) {
        Ok(names) => format!(", as in {}", names.package),
        Err(_) => String::new(),
    }
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    match chars.next() {
        Some(first) => first.to_ascii_uppercase().to_string() + chars.as_str(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test says where it failed")]
    use super::*;

    #[test]
    fn library_and_type_follow_from_the_name() {
        for (name, library, ty) in [
            ("hello", "hello", "Hello"),
            ("mark-team", "mark_team", "MarkTeam"),
            ("a_b-2c", "a_b_2c", "AB2c"),
            ("request", "request", "RequestFilter"),
        ] {
            let names = Names::of(name).unwrap();
            assert_eq!((names.library.as_str(), names.ty.as_str()), (library, ty));
        }
    }

    #[test]
    fn a_name_that_cannot_be_is_refused_with_one_that_can() {
        for (name, why) in [
            ("", "it is empty"),
            ("a/b", "the directory after it"),
            (".", "the directory after it"),
            (
                "Mark.Team",
                "'M' is in it; write lower-case letters, digits, `-` and `_`, as in mark-team",
            ),
            ("7up", "begin with a letter"),
            ("-x", "begin with a letter"),
            ("async", "try async-plugin"),
            ("serde", "try my-serde"),
            ("grüße", "as in gre"),
        ] {
            let said = Names::of(name).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
        assert!(Names::of(&"a".repeat(MAX_NAME)).is_ok());
        assert!(Names::of(&"a".repeat(MAX_NAME + 1)).is_err());
    }
}
