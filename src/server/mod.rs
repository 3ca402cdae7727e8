//! The clients' edge: HTTP handshakes, tokens, sockets, and the loop of each
//! worker thread. With `admin`, the only room that names actix.
//!
//! A request goes through actix-web like any other, routes and middleware and
//! all. Where the answer is a 101, the raw stream is taken from actix and given
//! to the worker's shard: a WebSocket costs its descriptor and a small task that
//! waits for readiness, and no buffer. There is one transport, not two: the loop
//! that actix-ws offers keeps 15 KB a connection, encodes each frame anew and
//! copies it twice, so it would serve nobody.
//!
//! ```text
//!  accept ──► handshake ──► upgrade ──► worker ◄──── driver ◄── mailbox, deadlines
//!  (actix)    (refusal)     (101)       Shard ──────► link ──► socket
//! ```
//!
//! Everything of one worker happens on its thread, one thing at a time. This
//! room decides nothing about delivery: it reads, writes, tells the time and
//! does what the shard says. It never knows Kafka.

mod arrival;
pub mod config;
mod driver;
pub mod forwarded;
mod handshake;
pub mod inquiry;
pub mod key;
mod link;
pub mod listener;
pub mod network;
pub mod origin;
mod pace;
mod places;
pub mod proxy_protocol;
pub mod pulse;
mod refusal;
mod routes;
pub mod settings;
pub mod signing_key;
mod stream;
pub mod system;
pub mod tls;
pub mod token;
mod upgrade;
mod worker;
