//! Why a handshake is refused: status, code, sentence, and whether to come
//! again. The one table of refusals before the upgrade.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header;

/// Why a request did not become a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) enum Refusal {
    /// Every place for a connection is taken.
    Full,
    /// Every place of the client's address is taken.
    AddressFull,
    /// This replica is going away.
    Draining,
    NotFound,
    MethodNotAllowed,
    /// Not a request for a WebSocket.
    UpgradeRequired,
    /// A version of WebSocket other than 13.
    VersionUnsupported,
    /// The request breaks RFC 6455 or HTTP; the sentence says where.
    BadHandshake(&'static str),
    /// Only subprotocols that are unknown here.
    SubprotocolUnknown,
    HostForbidden,
    OriginForbidden,
    /// A token where none may stand, or more than one.
    TokenMisplaced(&'static str),
    /// The token was refused; the sentence never holds a part of it.
    TokenRefused(String),
}

impl Refusal {
    /// Returns the reasons that there are, for metrics.
    pub(in crate::server) fn reasons() -> impl Iterator<Item = &'static str> {
        let all = [
            Self::Full,
            Self::AddressFull,
            Self::Draining,
            Self::NotFound,
            Self::MethodNotAllowed,
            Self::UpgradeRequired,
            Self::VersionUnsupported,
            Self::BadHandshake(""),
            Self::SubprotocolUnknown,
            Self::HostForbidden,
            Self::OriginForbidden,
            Self::TokenMisplaced(""),
            Self::TokenRefused(String::new()),
        ];
        all.into_iter().map(|refusal| refusal.row().1)
    }

    /// Returns the status and the code, which is also the reason in metrics.
    pub(in crate::server) fn row(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Full => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
            Self::AddressFull => (StatusCode::TOO_MANY_REQUESTS, "address_full"),
            Self::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::UpgradeRequired => (StatusCode::UPGRADE_REQUIRED, "upgrade_required"),
            Self::VersionUnsupported => (StatusCode::UPGRADE_REQUIRED, "version_unsupported"),
            Self::BadHandshake(_) => (StatusCode::BAD_REQUEST, "bad_handshake"),
            Self::SubprotocolUnknown => (StatusCode::BAD_REQUEST, "subprotocol_unknown"),
            Self::HostForbidden => (StatusCode::FORBIDDEN, "host_forbidden"),
            Self::OriginForbidden => (StatusCode::FORBIDDEN, "origin_forbidden"),
            Self::TokenMisplaced(_) => (StatusCode::BAD_REQUEST, "token_misplaced"),
            Self::TokenRefused(_) => (StatusCode::UNAUTHORIZED, "authentication_failed"),
        }
    }

    /// Returns the answer to the client.
    pub(in crate::server) fn response(&self) -> HttpResponse {
        let (status, code) = self.row();
        let mut response = HttpResponse::build(status);
        response.force_close();
        match self {
            Self::Full | Self::AddressFull | Self::Draining => {
                response.insert_header((header::RETRY_AFTER, self.retry_after().as_secs()));
            }
            Self::MethodNotAllowed => {
                response.insert_header((header::ALLOW, "GET"));
            }
            Self::UpgradeRequired | Self::VersionUnsupported => {
                response.insert_header((header::UPGRADE, "websocket"));
                response.insert_header((header::SEC_WEBSOCKET_VERSION, "13"));
            }
            Self::TokenRefused(_) => {
                response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
            }
            _ => {}
        }
        response.json(serde_json::json!({ "code": code, "message": self.message() }))
    }

    fn message(&self) -> &str {
        match self {
            Self::Full => "the server has no room for another connection; try again later",
            Self::AddressFull => "there are too many connections from this address; close some",
            Self::Draining => "this server is going away; connect again and reach another",
            Self::NotFound => "there is nothing here; WebSockets are at /v1/ws",
            Self::MethodNotAllowed => "only GET is answered here",
            Self::UpgradeRequired => {
                "this is a WebSocket endpoint; connect with a WebSocket client"
            }
            Self::VersionUnsupported => "only version 13 of the WebSocket protocol is spoken here",
            Self::BadHandshake(message) | Self::TokenMisplaced(message) => message,
            Self::SubprotocolUnknown => {
                "offer the subprotocol brucke.v1.json or brucke.v1.protobuf"
            }
            Self::HostForbidden => {
                "this server is not to be asked for by this name; see server.allowed_hosts"
            }
            Self::OriginForbidden => {
                "pages of this origin may not connect; see server.allowed_origins"
            }
            Self::TokenRefused(message) => message,
        }
    }

    /// Returns when to come again; spread, so that those who were refused
    /// together do not come back together.
    fn retry_after(&self) -> Duration {
        match self {
            Self::Draining => Duration::from_secs(1),
            _ => Duration::from_secs(fastrand::u64(RETRY_AFTER_SECONDS)),
        }
    }
}

const RETRY_AFTER_SECONDS: std::ops::RangeInclusive<u64> = 2..=10;
