//! Keeps everybody out for as long as an operator wants, who says so with `plugin-host exec`.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};

use plugin_abi::prelude::*;

/// What a route says about it.
#[derive(Deserialize, JsonSchema)]
struct Config {
    /// What clients are told meanwhile.
    #[serde(default = "back_soon")]
    message: String,
}

fn back_soon() -> String {
    "Back soon.".to_owned()
}

/// One switch for all routes.
#[derive(Default)]
struct MyPlugin {
    is_closed: AtomicBool,
}

impl Plugin for MyPlugin {
    type Config = Config;

    async fn request_filter(&self, config: &Config, _request: &mut Request) -> Result<Action> {
        if self.is_closed.load(Ordering::Relaxed) {
            let reply = Reply::new(503).header("Retry-After", "60");
            return Ok(Action::stop(reply.body(format!("{}\n", config.message))));
        }
        Ok(Action::Continue)
    }

    /// What an operator asks for. The label says what; values come in by name and go out so.
    async fn execute(&self, context: &mut Context) -> Result<()> {
        match context.label() {
            "look" => context.set("closed", &self.is_closed.load(Ordering::Relaxed))?,
            "switch" => {
                let closed = context.get("closed")?;
                let closed = closed.context("set `closed` to true or false")?;
                let was_closed = self.is_closed.swap(closed, Ordering::Relaxed);
                log::warn!(closed, was_closed; "switched");
                context.set("was_closed", &was_closed)?;
            }
            other => bail!("there is no `{other}` here, only `look` and `switch`"),
        }
        Ok(())
    }

    // The next version, and the next worker, begin where this one ends.
    fn save_state(&self) -> Result<Option<State>> {
        State::json(1, &self.is_closed).map(Some)
    }

    fn restore_state(&self, state: &State) -> Result<()> {
        self.is_closed.store(state.read(1)?, Ordering::Relaxed);
        Ok(())
    }
}

export_plugin!(MyPlugin);

#[cfg(test)]
mod tests;
