//! Regenerates `proto/src/generated.rs` from `proto/ext-plugin.fbs`, or compares the two (`--check`).
//!
//! Started by `scripts/generate-proto`. It never edits the schema, and nobody who only builds the project
//! needs it: the compiler that it depends on is built from source, with cmake.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

fn main() -> Result<ExitCode> {
    let check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => bail!("unknown argument {other}: only --check is known"),
    };
    let proto = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("codegen lies inside proto")?;
    let schema_path = proto.join("ext-plugin.fbs");
    let generated_path = proto.join("src/generated.rs");

    let schema = std::fs::read_to_string(&schema_path)
        .with_context(|| format!("cannot read {}", schema_path.display()))?;
    let lock = std::fs::read_to_string(proto.join("codegen/Cargo.lock"))
        .context("cannot read the lock file")?;
    let code = compile(&strings_as_bytes(&schema))?;
    let current = with_header(&schema, compiler_version(&lock)?, &code);

    if !check {
        std::fs::write(&generated_path, current)
            .with_context(|| format!("cannot write {}", generated_path.display()))?;
        println!("wrote {}", generated_path.display());
        return Ok(ExitCode::SUCCESS);
    }
    if std::fs::read_to_string(&generated_path).unwrap_or_default() != current {
        eprintln!(
            "{} is not what the schema gives: run scripts/generate-proto",
            generated_path.display()
        );
        return Ok(ExitCode::FAILURE);
    }
    println!("{} is current", generated_path.display());
    Ok(ExitCode::SUCCESS)
}

/// The same schema with every string field as a vector of bytes.
///
/// Both read the same on the wire, but generated code for a string insists on UTF-8, which real requests
/// do not keep to. The one thing that is lost, the closing NUL of a string, is up to the writing side.
fn strings_as_bytes(schema: &str) -> String {
    schema.replace(": string;", ": [ubyte];")
}

/// Runs the compiler in a directory of its own and returns the one file that it writes.
fn compile(schema: &str) -> Result<String> {
    let directory = tempfile::tempdir().context("cannot create a temporary directory")?;
    let input: PathBuf = directory.path().join("schema.fbs");
    std::fs::write(&input, schema)?;
    let status = Command::new(flatc_fork::flatc())
        .args(["--rust", "-o"])
        .args([directory.path(), &input])
        .status()
        .context("cannot start the schema compiler")?;
    if !status.success() {
        bail!("the schema compiler refused the schema ({status})");
    }
    Ok(std::fs::read_to_string(
        directory.path().join("schema_generated.rs"),
    )?)
}

/// The version of the compiler's crate as this tool's lock file pins it.
fn compiler_version(lock: &str) -> Result<&str> {
    lock.split_once("name = \"flatc-fork\"\nversion = \"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map(|(version, _)| version)
        .context("the lock file names no version of flatc-fork")
}

/// What the file was made of comes first, so that a test can tell without the compiler.
fn with_header(schema: &str, compiler: &str, code: &str) -> String {
    format!(
        "// Written by scripts/generate-proto from proto/ext-plugin.fbs, its strings as bytes. Do not edit.\n\
         // schema-sha256: {}\n\
         // compiler: flatc-fork {compiler}\n\
         // code-sha256: {}\n\
         {code}",
        sha256(schema),
        sha256(code),
    )
}

fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a string takes everything");
            hex
        })
}
