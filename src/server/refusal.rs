//! Why a handshake is refused: status, code, sentence, and whether to come
//! again. The one table of refusals before the upgrade.

use std::ops::Range;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header;
use serde_json::Value;
use serde_json::json;

use crate::protocol::error_code::ErrorCode;
use crate::types::limits::CROWDED_MILLIS;
use crate::types::moment::millis;

/// Why a request did not become a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) enum Refusal {
    /// Every place for a connection is taken.
    Full,
    /// Every place of the client's address is taken.
    AddressFull,
    /// Every place of the client's tenant is taken.
    TenantFull,
    /// As many as may be are on their way in.
    HandshakesFull,
    /// More come than are let in each second; this one may after so long.
    TooFast(Duration),
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
            Self::TenantFull,
            Self::HandshakesFull,
            Self::TooFast(Duration::ZERO),
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
            Self::TenantFull => {
                (StatusCode::TOO_MANY_REQUESTS, ErrorCode::TenantConnectionsFull.name())
            }
            Self::HandshakesFull => (StatusCode::SERVICE_UNAVAILABLE, "handshakes_full"),
            // With 503 proxies would ask for a turn at every replica, and use only one.
            Self::TooFast(_) => (StatusCode::TOO_MANY_REQUESTS, "connecting_too_fast"),
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
        let mut response = HttpResponse::build(self.row().0);
        response.force_close();
        let wait = self.retry_after_millis();
        if let Some(millis) = wait {
            response.insert_header((header::RETRY_AFTER, millis.div_ceil(1_000)));
        }
        match self {
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
        response.json(self.body(wait))
    }

    /// Returns the answer as it is written where no request was read.
    pub(in crate::server) fn unasked(&self) -> String {
        let (status, wait) = (self.row().0, self.retry_after_millis());
        let retry_after = wait.map(|millis| format!("Retry-After: {}\r\n", millis.div_ceil(1_000)));
        let (retry_after, body) = (retry_after.unwrap_or_default(), self.body(wait).to_string());
        format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\n{retry_after}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    fn body(&self, retry_after_millis: Option<u64>) -> Value {
        let mut body = json!({ "code": self.row().1, "message": self.message() });
        if let Some(millis) = retry_after_millis {
            body["retry_after_ms"] = millis.into();
        }
        body
    }

    fn message(&self) -> &str {
        match self {
            Self::Full => "the server has no room for another connection; try again later",
            Self::AddressFull => "there are too many connections from this address; close some",
            Self::TenantFull => {
                "this tenant has as many connections as it may at this server; close some, or try \
                 again later"
            }
            Self::HandshakesFull => "too many clients are connecting at once; try again later",
            Self::TooFast(_) => {
                "more clients connect than are let in each second; come back at the time that is \
                 given"
            }
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

    /// Returns when to come again, where that helps; spread, so that those who were
    /// refused together do not come back together.
    fn retry_after_millis(&self) -> Option<u64> {
        match self {
            Self::Full | Self::AddressFull | Self::TenantFull | Self::HandshakesFull => {
                Some(fastrand::u64(CROWDED_MILLIS))
            }
            Self::TooFast(wait) => Some(millis(*wait)),
            Self::Draining => Some(fastrand::u64(DRAINING_MILLIS)),
            _ => None,
        }
    }
}

/// Until a balancer has heard that another replica must be asked.
const DRAINING_MILLIS: Range<u64> = 500..2_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_a_request_says_its_own_length_and_when_to_come_back() {
        let mut waits = Vec::new();
        for _ in 0..100 {
            let answer = Refusal::HandshakesFull.unasked();
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
            assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
            assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{head}");
            let body: Value = serde_json::from_str(body).expect("JSON");
            assert_eq!(body["code"], "handshakes_full");
            let wait = body["retry_after_ms"].as_u64().expect("a wait");
            assert!(head.contains(&format!("\r\nRetry-After: {}\r\n", wait.div_ceil(1_000))));
            waits.push(wait);
        }
        waits.sort_unstable();
        assert!(waits[0] < 3_000 && waits[99] > 9_000, "they are spread: {waits:?}");
    }
}
