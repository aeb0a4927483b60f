//! Requests after changes by plugins.
