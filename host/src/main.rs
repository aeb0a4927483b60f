//! The `plugin-host` program: see the library of the same package.

fn main() {}
