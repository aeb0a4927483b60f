//! `plugin-host exec`: has a plugin of a running host execute something.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use hyper::Method;
use serde_json::{Map, Value};

use super::hosts::Host;
use super::output;
use crate::control::client;
use crate::control::execute::{ACTION, Execute};

const LONG_ABOUT: &str = "\
Have a plugin of a running host execute something.

The plugin's `execute` runs once, with this label and these values, beside the calls of routes; the
values that it sets are shown. It ends with this command: interrupted, it is cancelled.

  plugin-host exec say --label hello --set name=Ada
  plugin-host exec cache --label warm --set 'paths=[\"/a\", \"/b\"]' --timeout 20s --json";

const AFTER_HELP: &str = "\
Output of --json: one object with
  plugin        name and version of what executed it
  values        what it has set, by name
  milliseconds  how long it took

A plugin that fails, or has no `execute`, is exit code 1, and standard error says whose fault it was.
Exit codes: 0 it worked, 1 it did not, 2 a flag or the configuration is wrong.";

/// Have a plugin of a running host execute something
#[derive(Debug, Args)]
#[command(long_about = LONG_ABOUT, after_help = AFTER_HELP)]
pub(super) struct ExecArgs {
    /// The plugin: NAME, or NAME@REQUIREMENT where several versions stand side by side
    #[arg(value_name = "NAME")]
    plugin: String,
    /// What is wanted, in words of the plugin's
    #[arg(long, default_value = "", value_name = "LABEL")]
    label: String,
    /// A value: JSON, or else a text; @FILE reads it from a file
    #[arg(long = "set", value_name = "NAME=VALUE")]
    values: Vec<String>,
    /// Time for it, at most 30s [default: the plugin's timeout_ms, or the host's --call-budget]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    host: Host,
}

pub(super) fn exec(args: &ExecArgs) -> u8 {
    let values: Result<Map<_, _>, _> = args.values.iter().map(|value| named(value)).collect();
    let values = match values {
        Ok(values) => values,
        Err(reason) => return output::refuse(&reason),
    };
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let execute = Execute {
        label: args.label.clone(),
        values,
        timeout_ms: args.timeout.map(millis),
    };
    let execute = match serde_json::to_value(&execute) {
        Ok(execute) => execute,
        Err(error) => return output::refuse(&format!("cannot be written as JSON: {error}")),
    };
    let path = format!("/v1/plugins/{}/{ACTION}", client::encoded(&args.plugin));
    args.host.which.ask_with(async |target| {
        let executed = client::ask(target, Method::POST, &path, Some(execute)).await?;
        Ok(args.host.shown(&executed, shown))
    })
}

/// `NAME=VALUE`: JSON where it is some, or else a text.
fn named(typed: &str) -> Result<(String, Value), String> {
    let (name, value) = typed
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| format!("--set {typed}: write NAME=VALUE"))?;
    let value = output::text_or_file("--set", value)?;
    let value = match serde_json::from_slice(&value) {
        Ok(json) => json,
        Err(_) => String::from_utf8(value)
            .map(Value::String)
            .map_err(|_| format!("--set {name}: neither JSON nor text"))?,
    };
    Ok((name.to_owned(), value))
}

/// Each value in a line; a text as it is, unless a terminal could obey it.
fn shown(executed: &Value) -> String {
    let mut shown = String::new();
    for (name, value) in executed["values"].as_object().into_iter().flatten() {
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let (name, value) = (
            output::shown(name.as_bytes()),
            output::shown(value.as_bytes()),
        );
        let _ = writeln!(shown, "{name}={value}");
    }
    if shown.is_empty() {
        let plugin = executed["plugin"].as_str().unwrap_or_default();
        shown = format!("{plugin} has executed it, and set no values\n");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_value_is_json_or_else_a_text() {
        for (typed, name, value) in [
            ("a=1", "a", json!(1)),
            ("a=one", "a", json!("one")),
            ("a=\"1\"", "a", json!("1")),
            ("a=b=c", "a", json!("b=c")),
            ("a=", "a", json!("")),
            ("a={\"b\":[true]}", "a", json!({ "b": [true] })),
        ] {
            assert_eq!(named(typed), Ok((name.to_owned(), value)), "{typed}");
        }
        for typed in ["a", "=1"] {
            assert!(named(typed).is_err(), "{typed}");
        }
    }
}
