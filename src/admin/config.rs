//! What an operator may set about the admin listener.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::types::setting::default;
use crate::types::setting::settings;
use crate::types::setting::unset;

settings! {
    /// The listener for operators, apart from that of clients: health, metrics, and
    /// the admin interface.
    pub struct AdminConfig {
        /// Address and port of `/livez`, `/readyz`, `/metrics`, and of the admin
        /// interface below `/v1`. The first three ask nobody for a token: keep the
        /// listener where only your own systems reach it. Beyond loopback the admin
        /// interface is off unless there is a token.
        pub listen: SocketAddr = default("127.0.0.1:9090"),
        /// File that holds the token of the admin interface; a line break at its end
        /// is not part of it. Where there is a token, it must be shown on loopback
        /// too.
        pub token_file: Option<PathBuf> = unset("/run/secrets/brucke-admin"),
        /// Name of the environment variable that holds the token, instead of a file.
        pub token_env: Option<String> = unset("ADMIN_TOKEN"),
        /// Topic by which replicas tell each other what is revoked: compacted, of one
        /// partition, and made by you (docs/admin.md says how). Without it a revocation
        /// is of the replica that was asked, and of that alone. With it a replica reads
        /// the topic before it is ready, which costs one more Kafka client.
        pub revocations_topic: Option<String> = unset("brucke-revocations"),
    }
}
