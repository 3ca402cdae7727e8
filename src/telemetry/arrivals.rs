//! Things that happen while clients arrive, before they have a WebSocket; see
//! [`crate::telemetry::events`].

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use metrics::counter;
use metrics::gauge;

use crate::telemetry::metric;
use crate::types::ids::Timestamp;

/// A request did not become a WebSocket.
#[derive(Debug)]
pub struct HandshakeRefused {
    /// Of the table of refusals.
    pub reason: &'static str,
    pub status: u16,
    /// Of the client; `None` when it is gone already.
    pub address: Option<IpAddr>,
}

impl HandshakeRefused {
    /// Counts and logs it, at a level that a flood of strangers does not fill.
    pub fn emit(&self) {
        counter!(metric::HANDSHAKE_REFUSALS, "reason" => self.reason).increment(1);
        let Self { reason, status, address } = self;
        tracing::debug!(reason, status, ?address, "handshake refused");
    }
}

/// A client comes sooner than it may be let in, and waits for its turn.
#[derive(Debug)]
pub struct HandshakeDelayed {
    pub wait: Duration,
}

impl HandshakeDelayed {
    /// Counts and logs it, at a level that a flood of strangers does not fill.
    pub fn emit(&self) {
        counter!(metric::HANDSHAKES_DELAYED).increment(1);
        tracing::debug!(wait = ?self.wait, "handshake delayed");
    }
}

/// A connection was refused before there was a request on it.
#[derive(Debug)]
pub struct ArrivalRefused<'a> {
    /// Of the table of refusals.
    pub reason: &'static str,
    /// From where; `None` when it is gone already.
    pub peer: Option<SocketAddr>,
    /// What was wrong, in the words of whoever found it.
    pub error: &'a (dyn Error + 'static),
}

impl ArrivalRefused<'_> {
    /// Counts and logs it, at a level that a flood of strangers does not fill.
    pub fn emit(&self) {
        let Self { reason, peer, error } = self;
        counter!(metric::HANDSHAKE_REFUSALS, "reason" => *reason).increment(1);
        tracing::debug!(reason, ?peer, %error, "connection refused");
    }
}

/// Handshakes that begin from now on are done with this certificate.
#[derive(Debug)]
pub struct CertificateTaken<'a> {
    pub file: &'a Path,
    /// From when on clients refuse it.
    pub not_after: Timestamp,
}

impl CertificateTaken<'_> {
    /// How the metric names it.
    pub const OUTCOME: &'static str = "taken";

    /// Counts and logs it, and says when it ends.
    pub fn emit(&self) {
        let Self { file, not_after } = self;
        counter!(metric::TLS_CERTIFICATE_LOADS, "outcome" => Self::OUTCOME).increment(1);
        gauge!(metric::TLS_CERTIFICATE_NOT_AFTER).set(not_after.as_millis() as f64 / 1_000.0);
        let ends = jiff::Timestamp::from_millisecond(not_after.as_millis());
        let ends = ends.map_or_else(|_| "never".to_owned(), |ends| ends.to_string());
        tracing::info!(file = %file.display(), ends, "certificate taken");
    }
}

/// The files of the certificate hold a pair that can't be used; the one before
/// stays in force.
#[derive(Debug)]
pub struct CertificateRefused<'a> {
    /// File and remedy; nothing of what is in it.
    pub error: &'a str,
}

impl CertificateRefused<'_> {
    /// How the metric names it.
    pub const OUTCOME: &'static str = "refused";

    /// Counts and logs it.
    pub fn emit(&self) {
        counter!(metric::TLS_CERTIFICATE_LOADS, "outcome" => Self::OUTCOME).increment(1);
        tracing::error!(error = self.error, "certificate refused; the one before stays in force");
    }
}

/// The token of a handshake was refused.
#[derive(Debug)]
pub struct TokenRefused {
    /// Of the verifier's reasons.
    pub reason: &'static str,
}

impl TokenRefused {
    /// Counts it; the refusal that follows is logged.
    pub fn emit(&self) {
        counter!(metric::TOKEN_REFUSALS, "reason" => self.reason).increment(1);
    }
}

/// The socket failed while a request was being answered.
#[derive(Debug)]
pub struct HandshakeFailed {
    pub error: io::Error,
}

impl HandshakeFailed {
    /// Counts and logs it.
    pub fn emit(&self) {
        counter!(metric::HANDSHAKE_REFUSALS, "reason" => "socket_failed").increment(1);
        tracing::debug!(error = %self.error, "handshake could not be answered");
    }
}
