//! The whole crate against recorded frames, against another implementation, and against bad bytes.

mod capture;
mod message;

mod captures;
mod frames;
mod generated_code;
mod mutations;
mod python;
mod round_trips;
