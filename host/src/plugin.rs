//! Plugins, from files in a directory to something that requests run through.
//!
//! Modules in reading order; each uses only those that come after it.

pub mod discovery;
pub mod elf;
pub mod metadata;
pub mod schema;

#[cfg(test)]
mod testing;
