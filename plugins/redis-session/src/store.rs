//! Sessions in Redis: a hash each, asked for with one round trip over one shared connection, which is
//! opened with the first question and again whenever it has broken.

use std::time::Duration;

use plugin_abi::prelude::*;
use redis::{
    Client,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::sync::OnceCell;

/// A session's fields, in the order in which they were asked for; none where there is no such field.
pub(crate) type Values = Vec<Option<Vec<u8>>>;

pub(crate) struct Store {
    client: Client,
    config: ConnectionManagerConfig,
    /// Absent until Redis could be reached once.
    manager: OnceCell<ConnectionManager>,
    prefix: String,
}

impl Store {
    pub(crate) fn new(url: &str, prefix: String, timeout: Duration) -> Result<Self> {
        // The error does not repeat the URL, which may hold a password.
        let client = Client::open(url).context("settings: url")?;
        // No call waits for further tries: the next one tries again.
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout))
            .set_number_of_retries(0);
        Ok(Self {
            client,
            config,
            manager: OnceCell::new(),
            prefix,
        })
    }

    /// The fields of a session, which from now on lives so many seconds, if it is said; none where
    /// there is no such session.
    pub(crate) async fn session(
        &self,
        id: &str,
        fields: &[String],
        extend_seconds: Option<u32>,
    ) -> Result<Option<Values>> {
        let key = format!("{}{id}", self.prefix);
        let mut questions = redis::pipe();
        questions.cmd("EXISTS").arg(&key);
        if !fields.is_empty() {
            questions.cmd("HMGET").arg(&key).arg(fields);
        }
        if let Some(seconds) = extend_seconds {
            questions.cmd("EXPIRE").arg(&key).arg(seconds).ignore();
        }
        let connect =
            || ConnectionManager::new_with_config(self.client.clone(), self.config.clone());
        let mut manager = self.manager.get_or_try_init(connect).await?.clone();
        let (exists, values) = if fields.is_empty() {
            let (exists,): (bool,) = questions.query_async(&mut manager).await?;
            (exists, Values::new())
        } else {
            questions.query_async(&mut manager).await?
        };
        Ok(exists.then_some(values))
    }
}
