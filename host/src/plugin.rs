//! Plugins, from files in a directory to something that requests run through.
//!
//! Modules in reading order; each uses only those that come after it.

pub mod check;
pub mod manager;
pub mod kept;
pub mod state;
pub mod registry;
pub mod rehearsal;

#[allow(
    unsafe_code,
    reason = "opening a library and reading a symbol of it is unsafe; each block says why it is sound here"
)]
pub mod library;
pub mod services;
pub mod tasks;
pub mod log_levels;
pub mod permissions;
pub mod private_copy;
pub mod settings;

pub mod watch;

pub mod scan;

pub mod discovery;
pub mod lock;
pub mod package;
pub mod signature;
pub mod disabled;
pub mod event;
pub mod elf;
pub mod metadata;
pub mod schema;

#[cfg(test)]
mod testing;
