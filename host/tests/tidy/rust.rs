//! Rust source as the rules look at it: the code alone, without comments, the content of literals
//! and tests. What is left out becomes blank, so that lines keep their numbers.

/// The code of a file, comments and literals blanked.
pub(crate) fn code(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let (length, is_code) = token(rest, code.chars().next_back());
        let length = length.max(first.len_utf8());
        let (taken, left) = rest.split_at(length);
        if is_code {
            code.push_str(taken);
        } else {
            code.extend(taken.chars().map(|c| if c == '\n' { c } else { ' ' }));
        }
        rest = left;
    }
    code
}

/// The length of what `rest` begins with, and whether it is code.
fn token(rest: &str, before: Option<char>) -> (usize, bool) {
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), false);
    }
    if rest.starts_with("/*") {
        return (block_comment(rest), false);
    }
    if rest.starts_with('"') {
        return (quoted(rest), false);
    }
    let inside_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with('r') && !inside_word || rest.starts_with("r") && before == Some('b') {
        let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
        if rest[1 + hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let content = 2 + hashes;
            let length = rest[content..]
                .find(&end)
                .map_or(rest.len(), |at| content + at + end.len());
            return (length, false);
        }
    }
    if rest.starts_with('\'') {
        let length = character(rest);
        return (length, length == 0);
    }
    (0, true)
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    loop {
        let here = &rest[at..];
        if here.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if here.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 || at >= rest.len() {
            return at.min(rest.len());
        }
    }
}

fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of a character literal; 0 where a lifetime begins.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => rest[2..]
            .char_indices()
            .skip(1)
            .find(|(_, c)| *c == '\'')
            .map_or(0, |(at, _)| 2 + at + 1),
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}

/// The code without what is compiled for tests only.
pub(crate) fn code_without_tests(source: &str) -> String {
    let mut code = code(source);
    let mut from = 0;
    while let Some(at) = code[from..].find("#[cfg(test)]").map(|at| from + at) {
        let end = end_of_item(&code, at);
        let blank: String = code[at..end]
            .chars()
            .map(|c| if c == '\n' { c } else { ' ' })
            .collect();
        code.replace_range(at..end, &blank);
        from = at;
    }
    code
}

/// Where the item that begins at `start` ends: with its closing brace, or with a semicolon.
fn end_of_item(code: &str, start: usize) -> usize {
    let mut depth = 0usize;
    for (at, c) in code[start..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return start + at + 1;
                }
            }
            ';' if depth == 0 => return start + at + 1,
            _ => {}
        }
    }
    code.len()
}

/// Whether `word` stands in the code by itself. A word that begins or ends with another character
/// than letters, digits and `_` may go on there.
pub(crate) fn has_word(code: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let goes_on_before = word.starts_with(is_part) && code[..at].ends_with(is_part);
        let goes_on_behind =
            word.ends_with(is_part) && code[at + word.len()..].starts_with(is_part);
        !goes_on_before && !goes_on_behind
    })
}

/// Which of `words` a file uses outside of tests.
pub(crate) fn uses(source: &str, words: &[&str]) -> Vec<String> {
    let code = code_without_tests(source);
    words
        .iter()
        .filter(|word| has_word(&code, word))
        .map(|word| format!("uses `{word}`"))
        .collect()
}

/// Lines, from 1, of blocks and implementations of unsafe code without a reason right above them.
pub(crate) fn unsafe_without_reason(source: &str) -> Vec<usize> {
    let code = code(source);
    let lines: Vec<&str> = source.lines().collect();
    code.lines()
        .enumerate()
        .filter(|(_, line)| has_word(line, "unsafe {") || has_word(line, "unsafe impl"))
        .map(|(index, _)| index)
        .filter(|index| !reason_ends_above(&lines, *index))
        .map(|index| index + 1)
        .collect()
}

/// Whether the statement of line `index` has a `SAFETY` comment above it.
fn reason_ends_above(lines: &[&str], index: usize) -> bool {
    lines[..index]
        .iter()
        .rev()
        .map(|line| line.trim())
        // A statement may begin lines before its unsafe block.
        .skip_while(|line| !line.starts_with("//") && !line.ends_with([';', '{', '}']))
        .take_while(|line| line.starts_with("//"))
        .any(|line| line.contains("SAFETY:"))
}

#[test]
fn comments_and_literals_are_no_code() {
    let source = r##"let a = "x // unsafe"; // unsafe
/* unsafe /* nested */ unsafe */ let b = r#"unsafe " unsafe"#; let c = b"unsafe\"unsafe";
let d = '"'; let e: &'static str = "unsafe"; let f = '\''; unsafe_but_safe();"##;
    let code = code(source);
    assert!(!has_word(&code, "unsafe"), "{code}");
    assert!(has_word(&code, "unsafe_but_safe"), "{code}");
    for word in ["let a", "let b", "let c", "let d", "'static str", "let f"] {
        assert!(code.contains(word), "{word} is not in {code}");
    }
    assert_eq!(code.lines().count(), 3);
}

#[test]
fn tests_inside_a_file_are_left_out_and_what_follows_is_not() {
    let source = "fn a() { used() }\n#[cfg(test)]\nmod tests { fn b() { hidden() } }\n\
                  #[cfg(test)]\nmod more;\nfn c() { shown() }\n";
    let code = code_without_tests(source);
    assert!(code.contains("used") && code.contains("shown"), "{code}");
    assert!(!code.contains("hidden") && !code.contains("more"), "{code}");
}

#[test]
fn a_word_is_found_by_itself_only() {
    assert_eq!(uses("tokio::net::UnixStream", &["tokio::net"]).len(), 1);
    assert_eq!(uses("x.unwrap()", &[".unwrap()"]).len(), 1);
    assert_eq!(uses("my_tokio::network", &["tokio::net"]).len(), 0);
    assert_eq!(uses("// tokio::net", &["tokio::net"]).len(), 0);
}

#[test]
fn unsafe_blocks_without_a_reason_are_found() {
    let with = "// SAFETY: the pointer is ours\n// for as long as this lives.\nlet a =\n    unsafe { read(p) };\n";
    assert_eq!(unsafe_without_reason(with), Vec::<usize>::new());
    let without = "fn a() {\n    // reads it\n    unsafe { read(p) }\n}\n";
    assert_eq!(unsafe_without_reason(without), [3]);
    let far = "// SAFETY: of something else\nlet b = 1;\nlet a = unsafe { read(p) };\n";
    assert_eq!(unsafe_without_reason(far), [3]);
    assert_eq!(unsafe_without_reason("unsafe impl Send for A {}\n"), [1]);
}
