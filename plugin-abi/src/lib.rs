//! Write plugins for `plugin-host`: what the host and a plugin's library share.

pub mod build_info;
