//! Help texts on terminals of any width: lines of one paragraph become one line, which is then broken
//! where the terminal ends and nowhere else.
//!
//! What stands below each other on purpose (commands, tables, lists) is indented, and stays as it is.

use clap::{Command, builder::StyledStr};

/// Joins the lines of each paragraph in a command's help.
pub(super) fn join(mut command: Command) -> Command {
    if let Some(text) = joined(command.get_long_about()) {
        command = command.long_about(text);
    }
    if let Some(text) = joined(command.get_after_help()) {
        command = command.after_help(text);
    }
    if let Some(text) = joined(command.get_after_long_help()) {
        command = command.after_long_help(text);
    }
    command
}

fn joined(text: Option<&StyledStr>) -> Option<String> {
    text.map(|text| join_lines(&text.to_string()))
}

fn join_lines(text: &str) -> String {
    let is_running = |line: &str| !line.is_empty() && !line.starts_with(' ');
    let mut joined = String::with_capacity(text.len());
    let mut before = "";
    for line in text.lines() {
        if is_running(before) && is_running(line) {
            joined.push(' ');
        } else if !joined.is_empty() {
            joined.push('\n');
        }
        joined.push_str(line);
        before = line;
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_paragraph_become_one_and_what_is_indented_stays() {
        let text = "\
Says this
and that.

Output, one object with
  good      whether
            it is
  problems  their number
The end
of it.";
        let joined = "\
Says this and that.

Output, one object with
  good      whether
            it is
  problems  their number
The end of it.";
        assert_eq!(join_lines(text), joined);
    }
}
