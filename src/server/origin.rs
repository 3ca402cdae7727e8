//! Origins of web pages, compared exactly.

use crate::types::setting::Form;
use crate::types::setting::Raw;
use crate::types::setting::Refusal;
use crate::types::setting::Setting;
use crate::types::setting::Written;

/// Where a web page comes from: `scheme://host` or `scheme://host:port`, in the
/// one form in which browsers write it (RFC 6454, 6.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin(Box<str>);

impl Origin {
    /// Says whether the value of an `Origin` header is this one: byte by byte, so
    /// that no prefix, suffix or likeness will do.
    pub fn is(&self, header: &[u8]) -> bool {
        self.0.as_bytes() == header
    }
}

impl Setting for Origin {
    const FORM: Form = Form {
        text: "an origin, such as `\"https://app.example\"` or `\"http://localhost:5173\"`",
        written: Written::Text,
    };

    fn read(raw: Raw) -> Result<Self, Refusal> {
        let Raw::Text(text) = raw else { return Err(Refusal::of_kind(&raw, &Self::FORM)) };
        let refused = |why: &str| Refusal(format!("{text:?} {why}; write {}", Self::FORM.text));
        if text.contains('*') {
            return Err(refused("has a wildcard: every origin must be named"));
        }
        let Some((scheme, authority)) = text.split_once("://") else {
            return Err(refused("has no scheme"));
        };
        let default_port = match scheme {
            "https" => "443",
            "http" => "80",
            _ => return Err(refused("is neither https nor http, in small letters")),
        };
        if authority.contains(['/', '?', '#', '@']) {
            return Err(refused("has more than a scheme, a host and a port"));
        }
        let (host, port) = split_port(authority);
        if !is_host(host) {
            return Err(refused("has a host that no browser sends: small letters, punycode"));
        }
        match port {
            None => Ok(Self(text.into())),
            Some(port) if port == default_port => Ok(Self(format!("{scheme}://{host}").into())),
            Some(port) if is_port(port) => Ok(Self(text.into())),
            Some(_) => Err(refused("has no such port")),
        }
    }
}

/// Splits the port off; the colons of an address in brackets are not its own.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address
            .bytes()
            .all(|b| b == b':' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    }
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
    !host.is_empty() && host.bytes().all(plain)
}

fn is_port(port: &str) -> bool {
    !port.starts_with(['0', '+']) && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        let read = Origin::read(Raw::Text(text.to_owned()));
        match expected {
            Ok(sent) => assert!(read.expect("an origin").is(sent.as_bytes()), "{text:?}"),
            Err(part) => {
                let refused = read.expect_err("not an origin").to_string();
                assert!(refused.contains(part), "{text:?}: {refused}");
            }
        }
    }

    #[test]
    fn origins_are_read_in_the_form_that_browsers_send() {
        check("https://app.example", Ok("https://app.example"));
        check("https://app.example:443", Ok("https://app.example"));
        check("http://localhost:5173", Ok("http://localhost:5173"));
        check("http://[::1]:8080", Ok("http://[::1]:8080"));
        check("http://[::1]", Ok("http://[::1]"));
        check("*", Err("wildcard"));
        check("https://*.example", Err("wildcard"));
        check("app.example", Err("no scheme"));
        check("null", Err("no scheme"));
        check("ftp://app.example", Err("neither https nor http"));
        check("HTTPS://app.example", Err("neither https nor http"));
        check("https://App.example", Err("small letters"));
        check("https://", Err("small letters"));
        check("https://app.example/", Err("more than a scheme"));
        check("https://me@app.example", Err("more than a scheme"));
        check("https://app.example:0", Err("no such port"));
        check("https://app.example:99999", Err("no such port"));
    }

    #[test]
    fn only_the_very_origin_will_do() {
        let origin = Origin::read(Raw::Text("https://app.example".to_owned())).expect("an origin");
        for other in [
            "http://app.example",
            "https://app.example:8443",
            "https://app.example.evil.test",
            "https://evil-app.example",
            "https://app.exampl",
            "https://APP.example",
            "https://app.example ",
            "null",
            "",
        ] {
            assert!(!origin.is(other.as_bytes()), "{other:?}");
        }
    }
}
