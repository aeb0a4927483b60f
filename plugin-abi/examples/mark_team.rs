//! A whole plugin: marks every request with the team that its route belongs to, and keeps out who
//! claims to be of another.

#![forbid(unsafe_code)]

use plugin_abi::prelude::*;

/// What a route says about it.
#[derive(Deserialize, JsonSchema)]
struct Config {
    /// The team that the route belongs to.
    team: String,
}

#[derive(Default)]
struct MarkTeam;

impl Plugin for MarkTeam {
    type Config = Config;

    async fn request_filter(&self, config: &Config, request: &mut Request) -> Result<Action> {
        if let Some(claimed) = request.header_str("x-team")
            && claimed != config.team
        {
            log::info!(claimed = claimed; "kept out");
            let reply = Reply::from(StatusCode::FORBIDDEN).body("not your team");
            return Ok(Action::stop(reply));
        }
        request.set_header("x-team", &config.team);
        Ok(Action::Continue)
    }
}

export_plugin!(MarkTeam);
