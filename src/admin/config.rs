//! What an operator may set about the admin listener.

use std::net::SocketAddr;

use crate::types::setting::default;
use crate::types::setting::settings;

settings! {
    /// The listener for health checks and metrics, apart from that of clients.
    pub struct AdminConfig {
        /// Address and port of `/livez`, `/readyz` and `/metrics`. It asks nobody
        /// for a token: keep it where only your own systems reach it.
        pub listen: SocketAddr = default("127.0.0.1:9090"),
    }
}
