//! As much of HTTP as the demo's own pages need: one request a connection, the
//! head read and the answer written. Not for any network but loopback.

use std::io;
use std::time::Duration;

use memchr::memmem;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The head of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub method: String,
    pub path: String,
    query: String,
    host: Option<String>,
    origin: Option<String>,
    /// All after the request line, as it was read: headers, the empty line, and
    /// what had come behind it.
    pub rest: Vec<u8>,
}

impl Head {
    /// Reads the head of a request; `None` for what is none or took too long.
    ///
    /// # Errors
    ///
    /// When the connection broke.
    pub async fn read(stream: &mut TcpStream) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        let read = async {
            while memmem::find(&bytes, HEAD_END).is_none() && bytes.len() < HEAD_BYTES_MAX {
                if stream.read_buf(&mut bytes).await? == 0 {
                    break;
                }
            }
            io::Result::Ok(())
        };
        match timeout(HEAD_TIMEOUT, read).await {
            Ok(read) => read?,
            Err(_) => return Ok(None),
        }
        Ok(Self::parse(&bytes))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = memmem::find(bytes, HEAD_END)?;
        let head = str::from_utf8(&bytes[..end]).ok()?;
        let (line, headers) = head.split_once("\r\n").unwrap_or((head, ""));
        let mut words = line.split(' ');
        let (method, target) = (words.next()?, words.next()?);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let header = |wanted: &str| {
            headers.split("\r\n").find_map(|header| {
                let (name, value) = header.split_once(':')?;
                name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
            })
        };
        Some(Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            host: header("host"),
            origin: header("origin"),
            rest: bytes[line.len() + 2..].to_vec(),
        })
    }

    /// Returns the value of a parameter, if it stands in the query.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(other, _)| *other == name).map(|(_, value)| value).next()
    }

    /// Says whether the request asks for this machine by its own name: a page of
    /// a foreign site, whose name was made to point here, does not.
    pub fn is_for_loopback(&self) -> bool {
        let host = self.host.as_deref().map(|host| host.split(':').next().unwrap_or(host));
        matches!(host, Some("127.0.0.1" | "localhost"))
    }

    /// Says whether the request is not one that another site's page has made.
    pub fn is_of_this_site(&self) -> bool {
        let host = self.host.as_deref().unwrap_or_default();
        self.origin.as_ref().is_none_or(|origin| origin.strip_prefix("http://") == Some(host))
    }
}

/// An answer; the connection ends with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: &'static str,
    pub content_type: &'static str,
    pub body: Vec<u8>,
}

impl Answer {
    /// Returns an answer that went well.
    pub fn found(content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status: "200 OK", content_type, body: body.into() }
    }

    /// Returns a refusal that a person can read.
    pub fn refused(status: &'static str, why: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: format!("{why}\n").into() }
    }

    /// Writes it, and ends the connection.
    ///
    /// # Errors
    ///
    /// When the connection broke.
    pub async fn write(&self, stream: &mut TcpStream) -> io::Result<()> {
        let Self { status, content_type, body } = self;
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
             Content-Security-Policy: {POLICY}\r\nX-Content-Type-Options: nosniff\r\n\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n",
            body.len(),
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body).await?;
        stream.shutdown().await
    }
}

const HEAD_END: &[u8] = b"\r\n\r\n";
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The page asks nobody else for anything.
const POLICY: &str = "default-src 'self'; connect-src 'self' ws://127.0.0.1:* ws://localhost:*; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = "GET /token?tenant=acme&x=1 HTTP/1.1\r\nhost: localhost:8080\r\n\r\nrest";

    #[test]
    fn a_head_is_read_and_the_rest_kept() {
        let head = Head::parse(REQUEST.as_bytes()).expect("a head");
        assert_eq!((head.method.as_str(), head.path.as_str()), ("GET", "/token"));
        assert_eq!(head.parameter("tenant"), Some("acme"));
        assert_eq!((head.parameter("x"), head.parameter("y")), (Some("1"), None));
        assert_eq!(head.rest, b"host: localhost:8080\r\n\r\nrest");
        assert_eq!(Head::parse(b"GET / HTTP/1.1\r\n"), None);
        assert_eq!(Head::parse(b"nonsense\r\n\r\n"), None);
    }

    #[test]
    fn another_sites_page_is_told_from_ours() {
        for (origin, ours) in [
            ("Origin: http://localhost:8080\r\n", true),
            ("", true),
            ("Origin: https://evil.example\r\n", false),
            ("Origin: http://localhost:9999\r\n", false),
            ("Origin: null\r\n", false),
        ] {
            let head = format!("POST /cut HTTP/1.1\r\nHost: localhost:8080\r\n{origin}\r\n");
            let head = Head::parse(head.as_bytes()).expect("a head");
            assert_eq!(head.is_of_this_site(), ours, "{origin}");
        }
    }

    #[test]
    fn only_this_machine_by_its_own_name_is_answered() {
        for (host, answered) in [
            ("localhost:8080", true),
            ("127.0.0.1", true),
            ("localhost.evil.example", false),
            ("evil.example:8080", false),
        ] {
            let head = Head::parse(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
            assert_eq!(head.expect("a head").is_for_loopback(), answered, "{host}");
        }
    }
}
