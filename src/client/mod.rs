//! A client of the public protocol, as small as one can be: what `brucke tail`,
//! the failover test and the demo stand on.
//!
//! `ranges` is the client's rule: it proves of one subscription that the ranges
//! of its frames join, and tells which records are new. It is pure, so that the
//! simulation uses the same. This room must never know what the server does
//! inside: it has only what `docs/protocol.md` says.

pub mod ranges;
