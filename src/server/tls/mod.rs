//! TLS on the clients' listener: the pair of certificate and key that is in
//! force, and the state of each connection between plaintext and socket.
//!
//! Handshake and HTTP run on an ordinary asynchronous stream. At the takeover
//! that stream is taken apart: the worker keeps the socket and a [`Session`],
//! and goes on with the same calls that do not wait as without TLS. The shard
//! sees plaintext in either case.
//!
//! ```text
//!  files ──► pair ──► keeper ──(new handshakes)──► arrival ──► session ──► link
//! ```
//!
//! [`Session`]: crate::server::tls::session::Session

pub mod keeper;
pub mod pair;
pub(in crate::server) mod session;
mod validity;
