//! What an operator may set about the client listener.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::delivery::settings::FrameLimits;
use crate::delivery::settings::Settings;
use crate::server::forwarded::ForwardedHeader;
use crate::server::network::Network;
use crate::server::origin::Origin;
use crate::server::proxy_protocol::ProxyProtocol;
use crate::types::setting::ByteSize;
use crate::types::setting::default;
use crate::types::setting::settings;
use crate::types::setting::unset;

settings! {
    /// The listener that clients connect to, and the limits of each connection.
    pub struct ServerConfig {
        /// Address and port that clients connect to. Loopback by default: before
        /// you open it to others set `tls_certificate_file`, or put a proxy that
        /// speaks TLS in front.
        pub listen: SocketAddr = default("127.0.0.1:8080"),
        /// Certificate that clients are shown, and those that lead to its root
        /// (PEM). With it clients connect by `wss://` and TLS 1.2 or 1.3, and not
        /// otherwise. The file is looked at every 2 seconds: a new pair serves new
        /// connections, and those that are there stay. Costs 7 KB more for each
        /// connection, and a signature for each handshake.
        pub tls_certificate_file: Option<PathBuf> = unset("/etc/brucke/tls/tls.crt"),
        /// Private key of that certificate (PEM), without a passphrase.
        pub tls_key_file: Option<PathBuf> = unset("/etc/brucke/tls/tls.key"),
        /// Proxies whose word about clients' addresses is believed, as networks or
        /// addresses. Nobody else's is: whatever else a client sends of the kind
        /// changes nothing. Empty: a client's address is that of its connection.
        pub trusted_proxies: Vec<Network> = default("[]"),
        /// `"v2"`: each connection of the trusted proxies begins with a header of
        /// PROXY protocol v2, and is refused without; `"off"`: none does.
        pub proxy_protocol: ProxyProtocol = default("off"),
        /// Header in which the trusted proxies name whom they heard:
        /// `"x-forwarded-for"`, `"forwarded"` (RFC 7239) or `"none"`. Name the one
        /// that they write: the other is whatever a client sent.
        pub forwarded_header: ForwardedHeader = default("none"),
        /// Connections that one client address may hold at this replica; one more is
        /// refused with 429. IPv6 counts by its first 64 bits. 0: no limit. Many
        /// people share an address, and behind a proxy that says nothing all do.
        pub connections_per_address_max: u32 = default("0").within("0", "10000000"),
        /// Worker threads, each with its own share of the connections. Unset: as
        /// many as the machine has cores.
        pub workers: Option<u32> = unset("4").within("1", "1024"),
        /// Web pages that may connect, each as the browser names its origin:
        /// `scheme://host` or `scheme://host:port`, compared exactly. A request
        /// with another origin is refused; one without any is no browser's and
        /// needs none. Empty: no web page may connect.
        pub allowed_origins: Vec<Origin> = default("[]"),
        /// Host names, without a port, by which this server may be asked for. On
        /// loopback `localhost`, `127.0.0.1` and `[::1]` always may, and no other
        /// unless it stands here: so a page of a foreign site whose name was made
        /// to point here can't connect. Elsewhere empty means any.
        pub allowed_hosts: Vec<String> = default("[]"),
        /// Whether a token may stand in the URL (`?access_token=…`), where proxies and
        /// browsers write it down. For clients that can do nothing else.
        pub token_in_query: bool = default("false"),
        /// Connections that the process holds; one more is refused with 503.
        pub connections_max: u32 = default("100000").within("1", "10000000"),
        /// Connections that may be on their way in at once: accepted, and not yet a
        /// WebSocket or refused. One more is answered with 503 and a time to come back
        /// before anything is spent on it; where TLS is spoken it is closed. So a storm
        /// of clients costs no more memory than these.
        pub handshakes_max: u32 = default("10000").within("1", "1000000"),
        /// Connections that are let in each second, one after the other, by all
        /// workers together. One more waits for its turn, up to 2 seconds, and
        /// beyond that is answered with 429 and a time to come back, up to 10
        /// seconds, so that they come back no faster. 0: no limit. Those whom a
        /// replica left when it died then come to the others at a pace that these
        /// can bear; the last of them is back later. Who waits is on its way in:
        /// keep `handshakes_max` above four times this.
        pub connections_per_second: u32 = default("0").within("0", "1000000"),
        /// Time for a proxy's header and the handshake of TLS, and again for the
        /// head of a request, to arrive.
        pub handshake_timeout: Duration = default("5s").within("100ms", "1m"),
        /// Time from the handshake until a token must have arrived.
        pub authentication_timeout: Duration = default("5s").within("100ms", "1m"),
        /// How long before the end of a token its client is warned. `"0s"`: never.
        pub expiry_warning: Duration = default("30s").within("0s", "1h"),
        /// Silence after which the server sends a ping. Keep it below the idle
        /// timeout of every proxy on the way; shorter costs a packet each time.
        pub heartbeat_interval: Duration = default("25s").within("1s", "10m"),
        /// How long the answer to a ping may take. A client that reads slowly gets
        /// the ping only after what waits before it.
        pub pong_timeout: Duration = default("60s").within("1s", "10m"),
        /// How often a client is told that its position moved without records for
        /// it. Shorter: less to read again after a reconnect, more frames.
        pub progress_interval: Duration = default("10s").within("100ms", "10m"),
        /// Encoded bytes that one connection may have unsent. Beyond it nothing is
        /// lost: the client reads on from where it is. More memory for each slow
        /// client; fewer, larger bursts.
        pub unsent_bytes_max: ByteSize = default("256KiB").within("128KiB", "64MiB"),
        /// Bytes that the system may keep for one client beside those; the system
        /// doubles it for its own needs. More lets a distant client read faster,
        /// and costs memory for each that reads slowly.
        pub socket_send_buffer: ByteSize = default("128KiB").within("16KiB", "16MiB"),
        /// How long a client may read nothing at all of what waits for it.
        pub stuck_reader_timeout: Duration = default("120s").within("1s", "1h"),
        /// Subscriptions that one connection may hold.
        pub subscriptions_per_connection_max: u32 = default("100").within("1", "10000"),
        /// Frames that a client may send each second, on average.
        pub frames_per_second: u32 = default("50").within("1", "100000"),
        /// Frames that a client may send at once.
        pub frames_burst: u32 = default("200").within("1", "100000"),
        /// How long finding the start of a subscription may take.
        pub start_timeout: Duration = default("15s").within("1s", "5m"),
        /// How long a client has to read what is left and to answer a Close frame.
        pub close_timeout: Duration = default("5s").within("100ms", "1m"),
        /// How long clients are still let in after the process was asked to end
        /// and says that it is not ready: the time that a balancer needs to notice.
        pub drain_delay: Duration = default("0s").within("0s", "5m"),
        /// Time over which clients are sent away, one after the other, when the
        /// process is asked to end, and over which (but at least 3 seconds) they
        /// come back elsewhere: each worker gives its clients times one after the
        /// other, of which the first is a second away. Connections divided by it
        /// is how many come back each second. Keep it below the grace period of
        /// whatever runs the process.
        pub drain_window: Duration = default("10s").within("0s", "10m"),
    }
}

impl ServerConfig {
    /// Returns what of it concerns each connection, for one of `workers` shards.
    pub fn delivery(&self, workers: usize) -> Settings {
        Settings {
            frame: FrameLimits::default(),
            authentication_timeout: self.authentication_timeout,
            unsent_bytes_max: self.unsent_bytes_max.as_usize(),
            stuck_reader_timeout: self.stuck_reader_timeout,
            heartbeat_interval: self.heartbeat_interval,
            pong_timeout: self.pong_timeout,
            progress_interval: self.progress_interval,
            subscriptions_per_connection_max: self.subscriptions_per_connection_max,
            connections_max: (self.connections_max as usize).div_ceil(workers),
            frames_per_second: self.frames_per_second,
            frames_burst: self.frames_burst,
            expiry_warning: self.expiry_warning,
            start_timeout: self.start_timeout,
            close_timeout: self.close_timeout,
        }
    }
}
