//! The `plugin-host` program: see the library of the same package.

use std::process::ExitCode;

fn main() -> ExitCode {
    plugin_host::cli::main()
}
