//! A client of the public protocol, as small as one can be: what `brucke tail`,
//! the failover test and the demo stand on.
//!
//! `follow` keeps one subscription going over as many connections as it takes;
//! a `connection` is one of them, `retry` says when to try the next, and
//! `credentials` where its token comes from, and `trust` whom it believes. `ranges` is the client's rule: it
//! proves that the ranges of a subscription join, and tells which records are
//! new. It is pure, so that the simulation uses the same. This room must never
//! know what the server does inside: it has only what `docs/protocol.md` says.

pub mod connection;
pub mod credentials;
pub mod follow;
pub mod ranges;
pub mod retry;
pub mod trust;
