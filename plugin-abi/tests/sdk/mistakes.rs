//! A plugin that compiles, unless one of the mistakes is made that `builds` asks for with `--cfg`.

#![forbid(unsafe_code)]
#![allow(
    unexpected_cfgs,
    dead_code,
    reason = "each mistake is made by one test only"
)]

use plugin_abi::prelude::*;

#[cfg_attr(not(forgot_deserialize), derive(Deserialize))]
struct Config {
    word: String,
}

#[cfg_attr(not(forgot_default), derive(Default))]
struct Mistaken;

#[cfg(not(forgot_plugin))]
impl Plugin for Mistaken {
    type Config = Config;
}

export_plugin!(Mistaken);
