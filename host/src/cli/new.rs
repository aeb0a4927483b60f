//! `plugin-host new`: a crate for a plugin that builds, passes its tests and loads, from one of a few
//! templates.
//!
//! The templates are real crates' files in `host/templates`, under a name that is replaced here.
//! Nothing is asked of a network, and nothing that is there is written over.

mod abi;
mod name;
mod template;

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;

use super::output;
use crate::config::Environment;
use abi::Dependency;
use name::Names;
use template::Template;

const LONG_ABOUT: &str = "\
Make a crate for a plugin: source, tests, plugin.json, a route file, a README.

It stands by itself, outside of any workspace; it builds, passes its tests and loads.

  plugin-host new hello
  plugin-host dev hello
  curl http://127.0.0.1:9080/hello

plugin-abi, on which it depends, comes from the checkout that this program was built from,
while that is there; else say where from, with --abi-path or --abi-version.";

/// Make a crate for a plugin
#[derive(Debug, Args)]
#[command(long_about = LONG_ABOUT, after_help = super::HELP)]
pub(super) struct NewArgs {
    /// The plugin's name, and its crate's: lower-case letters, digits, `-` and `_`
    #[arg(value_name = "NAME")]
    name: String,

    /// Where to make it [default: ./NAME]
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,

    /// What it begins with
    #[arg(long, value_enum, value_name = "TEMPLATE", default_value_t = Template::Default)]
    template: Template,

    /// Depend on plugin-abi in this directory; that of a checkout of plugin-host will do
    #[arg(long, value_name = "DIR", conflicts_with = "abi_version")]
    abi_path: Option<PathBuf>,

    /// Depend on this version of plugin-abi, from the registry that your cargo uses
    #[arg(long, value_name = "REQUIREMENT")]
    abi_version: Option<String>,
}

pub(super) fn new(args: &NewArgs) -> u8 {
    let environment = Environment::of_process();
    let planned = Names::of(&args.name).and_then(|names| {
        let dependency = match (&args.abi_path, &args.abi_version) {
            (Some(path), _) => Dependency::in_directory(path),
            (None, Some(requirement)) => Dependency::of_version(requirement),
            (None, None) => Dependency::in_own_checkout(),
        };
        Ok((names, dependency?))
    });
    let (names, dependency) = match planned {
        Ok(planned) => planned,
        Err(reason) => return output::refuse(&reason),
    };
    let directory = match &args.directory {
        Some(directory) => directory.clone(),
        None => PathBuf::from(&names.package),
    };
    if let Err(reason) = make_room(&directory) {
        return output::refuse(&reason);
    }
    let written = write(&directory, args.template, &names, &dependency, &environment);
    if let Err((path, error)) = written {
        return output::fail(&format!("cannot write {}: {error}", path.display()));
    }
    format(&directory);
    output::print(&next_steps(&directory, args.template, &names))
}

/// Makes the directory, or finds an empty one.
fn make_room(directory: &Path) -> Result<(), String> {
    let shown = directory.display();
    match fs::read_dir(directory).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!(
            "{shown} is there, and not empty: name another directory after NAME, or remove it"
        )),
        Err(error) if error.kind() == ErrorKind::NotFound => fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .map_err(|error| format!("cannot make {shown}: {error}")),
        Err(error) if error.kind() == ErrorKind::NotADirectory => Err(format!(
            "{shown} is there, and no directory: name another one after NAME"
        )),
        Err(error) => Err(format!("cannot look into {shown}: {error}")),
    }
}

fn write(
    directory: &Path,
    template: Template,
    names: &Names,
    dependency: &Dependency,
    environment: &Environment,
) -> Result<(), (PathBuf, io::Error)> {
    let mut files = template.files(names, &dependency.in_cargo_toml());
    files.extend(where_the_program_is(environment).map(|text| (".cargo/config.toml", text)));
    for (path, text) in files {
        let path = directory.join(path);
        let parent = path.parent().unwrap_or(directory);
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&path, text))
            .map_err(|error| (path, error))?;
    }
    Ok(())
}

/// Tells the crate's end-to-end tests where this program is, unless they find it anyway.
fn where_the_program_is(environment: &Environment) -> Option<String> {
    let own = std::env::current_exe().ok()?;
    let path = environment.get_os("PATH").unwrap_or(OsStr::new(""));
    let in_path = std::env::split_paths(path)
        .map(|directory| directory.join("plugin-host"))
        .find(|program| program.is_file());
    if in_path.and_then(|program| program.canonicalize().ok()) == own.canonicalize().ok() {
        return None;
    }
    let own = toml::Value::String(own.to_str()?.to_owned());
    Some(format!(
        "# Where the end-to-end tests find the host; what the environment says wins.\n\
         [env]\nPLUGIN_HOST = {own}\n"
    ))
}

/// The name's length decides where lines break. Without a formatter they are a little too long.
fn format(directory: &Path) {
    let _ = Command::new("rustfmt")
        .args([
            "--edition",
            "2024",
            "--quiet",
            "src/lib.rs",
            "tests/end_to_end.rs",
        ])
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

fn next_steps(directory: &Path, template: Template, names: &Names) -> String {
    let program = std::env::args().next();
    let program = program.as_deref().unwrap_or("plugin-host");
    let shown = directory.display();
    let (arguments, try_it) = (template.dev_arguments(), template.try_it(names));
    format!(
        "{shown} is there. Next:\n\
         \x20 {program} dev {shown}{arguments}\n\
         \x20     build and serve it, again whenever you save; then, in another terminal:\n\
         \x20 {try_it}\n\
         \x20 $EDITOR {shown}/src/lib.rs\n\
         \x20 (cd {shown} && cargo test)\n"
    )
}
