//! `plugin-host version`: what this program is, for people and for bug reports.

use clap::Args;
use plugin_abi::build_info;

use super::output;

/// The version of the wire schema that this host speaks.
const PROTOCOL: &str = "ext-plugin-proto 0.6.1";

/// Show the version of this program.
///
/// With --long also the commit and the compiler that it was built from, the version of the ABI
/// that its plugins must fit, and that of the gateway's protocol.
#[derive(Debug, Args)]
#[command(after_help = super::HELP)]
pub(super) struct VersionArgs {
    /// Show commit, compiler, ABI and protocol too
    #[arg(long)]
    long: bool,
}

pub(super) fn version(args: &VersionArgs) -> u8 {
    output::print(&text(args.long))
}

fn text(long: bool) -> String {
    let short = format!("plugin-host {}\n", env!("CARGO_PKG_VERSION"));
    if !long {
        return short;
    }
    format!(
        "{short}commit:   {}\ncompiler: {}\nABI:      {}\nprotocol: {PROTOCOL}\n",
        env!("PLUGIN_HOST_COMMIT"),
        env!("PLUGIN_HOST_COMPILER"),
        build_info::ABI_VERSION,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_text_is_one_line_and_the_long_one_has_every_fact() {
        assert_eq!(
            text(false),
            concat!("plugin-host ", env!("CARGO_PKG_VERSION"), "\n")
        );
        let long = text(true);
        let keys: Vec<_> = long
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(_, value)| !value.trim().is_empty())
            .map(|(key, _)| key)
            .collect();
        assert_eq!(keys, ["commit", "compiler", "ABI", "protocol"]);
    }
}
