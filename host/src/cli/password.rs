//! Where the password of a key comes from: a file, the environment, or whoever sits at the terminal.
//! Never an argument, which everybody on the machine could read.

use std::{fs, path::Path};

use crate::config::{Environment, settings::KEY_PASSWORD_VARIABLE};

/// Asks once, for a key that is there.
pub(super) fn of(
    key: &Path,
    file: Option<&Path>,
    environment: &Environment,
) -> Result<String, String> {
    match given(file, environment)? {
        Some(password) => Ok(password),
        None => ask(&format!("Password of {}: ", key.display())),
    }
}

/// Asks twice, for a key that is made.
pub(super) fn of_new(file: Option<&Path>, environment: &Environment) -> Result<String, String> {
    if let Some(password) = given(file, environment)? {
        return Ok(password);
    }
    let password = ask("Password for the new key: ")?;
    match password == ask("The same again: ")? {
        true if password.is_empty() => {
            Err("an empty password protects nothing: give --no-password for that".to_owned())
        }
        true => Ok(password),
        false => Err("the two passwords differ".to_owned()),
    }
}

fn given(file: Option<&Path>, environment: &Environment) -> Result<Option<String>, String> {
    if let Some(file) = file {
        let text = fs::read_to_string(file);
        let text = text.map_err(|error| format!("{}: {error}", file.display()))?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        return Ok(Some(line.strip_suffix('\r').unwrap_or(line).to_owned()));
    }
    let given = environment.get(KEY_PASSWORD_VARIABLE);
    let given = given.map_err(|error| error.to_string())?;
    Ok(given.map(str::to_owned))
}

fn ask(prompt: &str) -> Result<String, String> {
    rpassword::prompt_password(prompt).map_err(|error| {
        format!(
            "there is nobody to ask for the password ({error}): give --password-file or \
             {KEY_PASSWORD_VARIABLE}"
        )
    })
}
