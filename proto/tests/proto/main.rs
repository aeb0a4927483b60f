//! The whole crate against recorded frames, against another implementation, and against bad bytes.

mod capture;
mod damage;
mod message;
mod reference;

mod captures;
mod differential;
mod frames;
mod generated_code;
mod limits;
mod mutations;
mod python;
mod round_trips;
