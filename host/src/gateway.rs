//! A small HTTP gateway for development that speaks the real one's protocol with a host.

pub mod routes;
pub mod variables;
