//! Documents as the rules look at them: links, sections, tables, code.

use std::collections::BTreeSet;

/// Text and code of a document, apart from each other, by line.
fn lines_outside_code(text: &str) -> impl Iterator<Item = String> {
    let mut inside = false;
    text.lines().filter_map(move |line| {
        if line.trim_start().starts_with("```") {
            inside = !inside;
            return None;
        }
        if inside {
            return None;
        }
        // Every second piece stands between backticks.
        Some(line.split('`').step_by(2).collect::<Vec<_>>().join("`"))
    })
}

/// Targets of links that lead to places in the source tree.
pub(crate) fn local_links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    for line in lines_outside_code(text) {
        for (at, _) in line.match_indices("](") {
            let target = &line[at + 2..];
            let target = &target[..target.find(')').unwrap_or(target.len())];
            if !target.contains("://") && !target.starts_with("mailto:") {
                links.push(target.to_owned());
            }
        }
    }
    links
}

/// The names that a link can lead to inside a document.
pub(crate) fn anchors(text: &str) -> BTreeSet<String> {
    // A shell comment in a code block looks like a heading and is none.
    let mut inside = false;
    text.lines()
        .filter(|line| {
            if line.trim_start().starts_with("```") {
                inside = !inside;
            }
            !inside
        })
        .filter_map(|line| line.strip_prefix('#'))
        .map(|heading| anchor(heading.trim_start_matches('#').trim()))
        .collect()
}

fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// The text below a heading, up to the next one of its level.
pub(crate) fn section<'a>(text: &'a str, heading: &str) -> Option<&'a str> {
    let start = text.find(&format!("{heading}\n"))? + heading.len() + 1;
    let level = heading.split(' ').next()?;
    let rest = &text[start..];
    let end = rest.find(&format!("\n{level} ")).unwrap_or(rest.len());
    Some(&rest[..end])
}

/// The cells of a section's table, without its head.
pub(crate) fn table_rows(section: &str) -> Vec<Vec<String>> {
    section
        .lines()
        .filter_map(|line| line.trim().strip_prefix('|')?.strip_suffix('|'))
        .skip(2)
        .map(|row| row.split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// What stands between backticks.
pub(crate) fn code_spans(text: &str) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// The first code block of a language.
pub(crate) fn code_block<'a>(text: &'a str, language: &str) -> Option<&'a str> {
    let opening = format!("```{language}\n");
    let start = text.find(&opening)? + opening.len();
    let length = text[start..].find("```")?;
    Some(&text[start..start + length])
}

#[test]
fn links_to_places_are_told_from_links_elsewhere_and_from_code() {
    let text = "See [a](docs/a.md#b), [c](https://example.com) and [d](#e).\n\
                `let x = y[0](1)`\n```\n[f](g)\n```\n";
    assert_eq!(local_links(text), ["docs/a.md#b", "#e"]);
}

#[test]
fn headings_have_the_anchors_that_readers_link_to() {
    let text = "# One\n## `two`, and Three\n```sh\n# no heading\n```\n";
    let expected: BTreeSet<_> = ["one", "two-and-three"].map(str::to_owned).into();
    assert_eq!(anchors(text), expected);
}

#[test]
fn a_section_ends_at_the_next_heading_of_its_level() {
    let text = "## A\na\n### B\nb\n## C\nc\n";
    assert_eq!(section(text, "## A"), Some("a\n### B\nb"));
    assert_eq!(section(text, "## C"), Some("c\n"));
    assert_eq!(section(text, "## D"), None);
}

#[test]
fn a_table_gives_its_rows_and_a_cell_its_code() {
    let text = "| a | b |\n|---|---|\n| `x` of `y` | z |\n\nno row\n";
    assert_eq!(table_rows(text), [["`x` of `y`", "z"]]);
    assert_eq!(code_spans("`x` of `y`"), ["x", "y"]);
}

#[test]
fn the_first_block_of_a_language_is_found() {
    let text = "```sh\nls\n```\n```rust\nfn a() {}\n```\n";
    assert_eq!(code_block(text, "rust"), Some("fn a() {}\n"));
    assert_eq!(code_block(text, "toml"), None);
}
