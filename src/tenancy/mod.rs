//! Whose a record is, what a channel is, and who may read what.
//!
//! `rule` tells the tenant of a record; `principal` is who a client is;
//! `channel` joins the two: what a client that names a channel and keys gets to
//! read. This room never knows how a token was verified or a file was read.

pub mod channel;
pub mod principal;
pub mod rule;
