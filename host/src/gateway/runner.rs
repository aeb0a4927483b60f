//! The host as a gateway's worker sees it: connections that are kept, tokens, calls.
//!
//! Everything here is as the real gateway does it, its weaknesses included: they are what a plugin
//! has to live with. This module never decides what an answer, or no answer, means for a client.

mod pool;
mod tokens;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use plugin_proto::err::Code;

use super::routes::ExtPlugin;
use crate::client::{
    ClientError, Connection, Question, Request, RequestEffect, Response, ResponseEffect,
};
use pool::Pool;
use tokens::Tokens;

/// How often a call is put, in all, to a host that does not know its token.
const TRIES: usize = 3;

/// How long a prepare waits for those of other routes: they are made one after the other.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// A running host.
#[derive(Debug)]
pub(super) struct Runner {
    socket: PathBuf,
    pool: Pool,
    tokens: Tokens,
    prepares: tokio::sync::Mutex<()>,
    next_id: AtomicU32,
}

/// What is put to the host; the runner gives it its number.
#[derive(Debug)]
pub(super) enum Call {
    /// A request, before it goes upstream.
    Request(Request),
    /// An upstream's response, before it goes to the client.
    Response(Response),
}

/// What the host wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// With a request.
    Request(RequestEffect),
    /// With a response.
    Response(ResponseEffect),
}

/// A call without an answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// The host, or the way to it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Prepares of other routes take too long.
    #[error("other routes' prepares have taken over {} s", LOCK_PATIENCE.as_secs())]
    Lock,
}

impl Runner {
    pub(super) fn new(socket: PathBuf, token_expiry: Duration) -> Self {
        Self {
            socket,
            pool: Pool::default(),
            tokens: Tokens::new(token_expiry),
            prepares: tokio::sync::Mutex::new(()),
            next_id: AtomicU32::new(0),
        }
    }

    /// Puts a call with the configuration of `plugin`, and prepares that where necessary. After a
    /// lost token everything is prepared anew, a few times.
    pub(super) async fn call(
        &self,
        plugin: &ExtPlugin,
        call: &mut Call,
        mut answer: impl FnMut(Question<'_>) -> Option<Vec<u8>>,
    ) -> Result<Effect, CallError> {
        let mut tries = 1;
        loop {
            let made = self.attempt(plugin, call, &mut answer).await;
            let lost = matches!(
                &made,
                Err(CallError::Client(ClientError::Refused {
                    code: Some(Code::ConfTokenNotFound),
                    ..
                }))
            );
            if !lost || tries == TRIES {
                return made;
            }
            tracing::warn!(key = %plugin.key, "the host has lost a token; forgetting all of them");
            self.forget_tokens();
            tries += 1;
        }
    }

    /// As after the host has ended.
    pub(super) fn forget_tokens(&self) {
        self.tokens.forget();
    }

    /// Whether anybody listens.
    pub(super) async fn is_there(&self) -> bool {
        match Connection::open(&self.socket).await {
            Ok(connection) => {
                self.pool.put(connection);
                true
            }
            Err(_) => false,
        }
    }

    async fn attempt(
        &self,
        plugin: &ExtPlugin,
        call: &mut Call,
        mut answer: impl FnMut(Question<'_>) -> Option<Vec<u8>>,
    ) -> Result<Effect, CallError> {
        // The real gateway has this connection open while it prepares on another.
        let mut connection = self.connection().await?;
        let token = self.token(plugin).await?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let effect = match call {
            Call::Request(request) => {
                request.id = id;
                let made = connection.request(token, request, &mut answer).await;
                Effect::Request(made?)
            }
            Call::Response(response) => {
                response.id = id;
                let made = connection.response(token, response, &mut answer).await;
                Effect::Response(made?)
            }
        };
        // Not after an error: such a connection is closed.
        self.pool.put(connection);
        Ok(effect)
    }

    async fn connection(&self) -> Result<Connection, ClientError> {
        match self.pool.take() {
            Some(connection) => Ok(connection),
            None => Connection::open(&self.socket).await,
        }
    }

    async fn token(&self, plugin: &ExtPlugin) -> Result<u32, CallError> {
        if let Some(token) = self.tokens.remembered(&plugin.key) {
            return Ok(token);
        }
        // Opened before the shared table is looked at: no frame may come on it.
        let mut connection = self.connection().await?;
        let token = match self.tokens.shared(&plugin.key) {
            Some(token) => token,
            None => self.prepare(plugin, &mut connection).await?,
        };
        self.tokens.remember(&plugin.key, token);
        self.pool.put(connection);
        Ok(token)
    }

    async fn prepare(
        &self,
        plugin: &ExtPlugin,
        connection: &mut Connection,
    ) -> Result<u32, CallError> {
        let lock = tokio::time::timeout(LOCK_PATIENCE, self.prepares.lock()).await;
        let _lock = lock.map_err(|_| CallError::Lock)?;
        if let Some(token) = self.tokens.shared(&plugin.key) {
            return Ok(token);
        }
        let token = connection
            .prepare(plugin.key.as_bytes(), &plugin.conf)
            .await?;
        self.tokens.share(&plugin.key, token);
        Ok(token)
    }
}
