//! The settings of the clients' edge, as its parts need them.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use crate::delivery::settings::Settings;
use crate::server::config::ServerConfig;
use crate::server::forwarded::ForwardedHeader;
use crate::server::network::Network;
use crate::server::origin::Origin;
use crate::server::proxy_protocol::ProxyProtocol;
use crate::server::tls::pair::PairFiles;
use crate::tenancy::channel::Channels;
use crate::tenancy::principal::Principal;

/// How clients reach this process.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Where clients connect; port 0 takes any that is free.
    pub address: SocketAddr,
    /// Worker threads, and so shards.
    pub workers: NonZeroU16,
    /// Time that a client has for the head of its request.
    pub head_timeout: Duration,
    pub edge: EdgeTerms,
    pub authentication: Authentication,
    /// The certificate that clients are shown; `None` without TLS.
    pub tls: Option<PairFiles>,
    pub proxies: Proxies,
    /// Connections that one client address may hold; 0 for any number.
    pub connections_per_address_max: u32,
    /// Connections that may be on their way in at once.
    pub handshakes_max: u32,
}

/// Who says where clients are, and how.
#[derive(Debug, Clone)]
pub struct Proxies {
    /// The only ones who are believed.
    pub trusted: Vec<Network>,
    pub protocol: ProxyProtocol,
    pub header: ForwardedHeader,
}

/// What a worker serves its clients by: a reload puts others in their place.
#[derive(Debug, Clone)]
pub struct Terms {
    pub channels: Arc<Channels>,
    pub delivery: Settings,
    pub edge: EdgeTerms,
}

/// What of it concerns a connection only while it begins.
#[derive(Debug, Clone)]
pub struct EdgeTerms {
    pub rules: HandshakeRules,
    /// Connections that are let in each second; 0 for any number.
    pub connections_per_second: u32,
    pub sockets: SocketSettings,
}

/// Which handshakes are let in.
#[derive(Debug, Clone)]
pub struct HandshakeRules {
    /// The origins of pages that may connect.
    pub origins: Vec<Origin>,
    pub hosts: Hosts,
    pub query_token: QueryToken,
}

/// Names under which this server may be asked for, without a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hosts {
    /// Whatever name the client used.
    Any,
    /// These. On loopback this is what keeps a page of a foreign site, whose
    /// name was made to point here (DNS rebinding), from reading local data.
    Only(Vec<String>),
}

/// Whether a token may stand in the URL, where proxies and browsers log it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryToken {
    /// A token in the URL is an error.
    Refused,
    /// A token in the URL is taken.
    Taken,
}

/// Who clients are.
#[derive(Debug, Clone)]
pub enum Authentication {
    /// Whoever their token says.
    Required,
    /// Everybody is this principal.
    Off(Arc<Principal>),
}

/// How the sockets of clients are set.
#[derive(Debug, Clone, Copy)]
pub struct SocketSettings {
    /// Bytes that the kernel may keep for one client that reads slowly.
    pub send_buffer_bytes: usize,
    /// Bytes handed to the kernel but not sent on, above which a socket is no
    /// longer writable: back-pressure then shows in the cursor.
    pub unsent_low_water_bytes: u32,
    /// How long sent bytes may stay unacknowledged by a peer that vanished.
    pub user_timeout: Duration,
    /// How long a retransmission may wait for its turn, where the system can be told.
    pub retransmission_wait_max: Duration,
}

impl ServerSettings {
    /// Takes what an operator has set; `anonymous` is who clients are without a
    /// token, if they may be.
    pub fn new(config: &ServerConfig, anonymous: Option<Principal>) -> Self {
        Self {
            address: config.listen,
            workers: workers(config.workers),
            head_timeout: config.handshake_timeout,
            edge: EdgeTerms::new(config),
            authentication: match anonymous {
                None => Authentication::Required,
                Some(principal) => Authentication::Off(Arc::new(principal)),
            },
            tls: None,
            proxies: Proxies {
                trusted: config.trusted_proxies.clone(),
                protocol: config.proxy_protocol,
                header: config.forwarded_header,
            },
            connections_per_address_max: config.connections_per_address_max,
            handshakes_max: config.handshakes_max,
        }
    }

    /// Speaks TLS with this certificate, if any.
    #[must_use]
    pub fn with_tls(self, tls: Option<PairFiles>) -> Self {
        Self { tls, ..self }
    }
}

impl EdgeTerms {
    /// Takes what an operator has set.
    pub fn new(config: &ServerConfig) -> Self {
        Self {
            rules: HandshakeRules {
                origins: config.allowed_origins.clone(),
                hosts: hosts(config),
                query_token: match config.token_in_query {
                    true => QueryToken::Taken,
                    false => QueryToken::Refused,
                },
            },
            connections_per_second: config.connections_per_second,
            sockets: SocketSettings {
                send_buffer_bytes: config.socket_send_buffer.as_usize(),
                unsent_low_water_bytes: UNSENT_LOW_WATER_BYTES,
                // The shard judges who stands still and who is gone. The kernel
                // can't tell them apart, for it counts the time of a full window
                // as well: it comes last.
                user_timeout: config.stuck_reader_timeout + config.pong_timeout,
                retransmission_wait_max: RETRANSMISSION_WAIT_MAX,
            },
        }
    }
}

fn workers(configured: Option<u32>) -> NonZeroU16 {
    let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    let workers = configured.unwrap_or_else(cores).min(WORKERS_MAX);
    u16::try_from(workers).ok().and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN)
}

fn hosts(config: &ServerConfig) -> Hosts {
    if config.allowed_hosts.is_empty() && !config.listen.ip().is_loopback() {
        return Hosts::Any;
    }
    let mut hosts = config.allowed_hosts.clone();
    if config.listen.ip().is_loopback() {
        hosts.extend(LOOPBACK_HOSTS.map(str::to_owned));
    }
    Hosts::Only(hosts)
}

const LOOPBACK_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];
const UNSENT_LOW_WATER_BYTES: u32 = 32 << 10;
const RETRANSMISSION_WAIT_MAX: Duration = Duration::from_secs(5);
const WORKERS_MAX: u32 = 1_024;
