//! Who may use the admin interface.

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::http::header;
use aws_lc_rs::constant_time::verify_slices_are_equal;

/// Who may ask for more than health and metrics.
#[derive(Clone, PartialEq, Eq)]
pub enum Access {
    /// Whoever reaches the listener, which is on loopback.
    Loopback,
    /// Whoever shows this token.
    Token(Box<str>),
    /// Nobody: others than this machine reach the listener, and there is no token.
    Nobody,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Loopback => "Loopback",
            Self::Token(_) => "Token(redacted)",
            Self::Nobody => "Nobody",
        })
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::admin) enum Denied {
    NoToken,
    WrongToken,
    ForeignPage,
    Off,
}

impl Denied {
    /// Returns status, code and sentence.
    pub(in crate::admin) fn row(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::NoToken => (
                StatusCode::UNAUTHORIZED,
                "token_missing",
                "show the token of `[admin]` as `Authorization: Bearer`",
            ),
            Self::WrongToken => {
                (StatusCode::UNAUTHORIZED, "token_wrong", "the token is not that of `[admin]`")
            }
            Self::ForeignPage => (
                StatusCode::FORBIDDEN,
                "foreign_page",
                "pages of other sites may not use this interface, and on loopback it must be asked \
                 for by a name of loopback",
            ),
            Self::Off => (
                StatusCode::FORBIDDEN,
                "admin_off",
                "others than this machine reach this listener, and it has no token: set \
                 `admin.token_file` or `admin.token_env`",
            ),
        }
    }
}

impl Access {
    /// Checks a request.
    ///
    /// A page of another site that is open in an operator's browser can send
    /// requests to loopback too: it is known by its `Origin`, or, where its name was
    /// made to point here, by the `Host`.
    pub(in crate::admin) fn check(&self, request: &HttpRequest) -> Result<(), Denied> {
        let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        let host = text(header::HOST);
        if let Some(origin) = request.headers().get(header::ORIGIN) {
            let own = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
            if own.is_none_or(|(_, place)| Some(place) != host) {
                return Err(Denied::ForeignPage);
            }
        }
        match self {
            Self::Nobody => Err(Denied::Off),
            Self::Loopback => match host.is_some_and(is_loopback) {
                true => Ok(()),
                false => Err(Denied::ForeignPage),
            },
            Self::Token(token) => {
                let shown = text(header::AUTHORIZATION).ok_or(Denied::NoToken)?;
                let shown = shown.strip_prefix("Bearer ").ok_or(Denied::NoToken)?;
                verify_slices_are_equal(shown.trim().as_bytes(), token.as_bytes())
                    .map_err(|_| Denied::WrongToken)
            }
        }
    }
}

/// Says whether a host, with its port, is a name of loopback.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    ["localhost", "127.0.0.1", "[::1]"].contains(&name)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn check(access: &Access, headers: &[(&'static str, &str)], wanted: Result<(), Denied>) {
        let mut request = TestRequest::default();
        for (name, value) in headers {
            request = request.insert_header((*name, *value));
        }
        assert_eq!(access.check(&request.to_http_request()), wanted, "{access:?} {headers:?}");
    }

    #[test]
    fn on_loopback_only_loopbacks_own_names_and_pages_are_let_in() {
        let open = Access::Loopback;
        check(&open, &[("host", "localhost:9090")], Ok(()));
        check(&open, &[("host", "[::1]:9090"), ("origin", "http://[::1]:9090")], Ok(()));
        let foreign = Err(Denied::ForeignPage);
        check(&open, &[("host", "evil.example:9090")], foreign);
        check(&open, &[("host", "127.0.0.1:9090"), ("origin", "http://evil.example")], foreign);
        check(&open, &[("host", "127.0.0.1:9090"), ("origin", "null")], foreign);
        check(&open, &[], foreign);
    }

    #[test]
    fn a_token_is_asked_for_wherever_there_is_one() {
        let token = Access::Token("secret".into());
        check(&token, &[("host", "a:1"), ("authorization", "Bearer secret")], Ok(()));
        check(&token, &[("authorization", "Bearer secre")], Err(Denied::WrongToken));
        check(&token, &[("authorization", "Basic secret")], Err(Denied::NoToken));
        check(&token, &[("host", "localhost")], Err(Denied::NoToken));
        check(&Access::Nobody, &[("authorization", "Bearer ")], Err(Denied::Off));
        assert!(!format!("{token:?}").contains("secret"));
    }
}
