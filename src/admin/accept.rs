//! In which form whoever scrapes wants metrics.

use actix_web::HttpRequest;
use actix_web::http::header::Accept;
use actix_web::http::header::Header as _;
use actix_web::http::header::Quality;

use crate::telemetry::exposition::Format;

/// Returns the form that a request asks for: OpenMetrics where it is named and
/// wanted no less than the text format, which whoever says nothing gets.
pub(in crate::admin) fn format(request: &HttpRequest) -> Format {
    let Ok(accept) = Accept::parse(request) else { return Format::Text };
    let (mut open, mut text) = (Quality::ZERO, TextWish::default());
    for wish in accept.iter() {
        let version = wish.item.get_param("version").map(|version| version.as_str().to_owned());
        match (wish.item.essence_str(), version.as_deref()) {
            ("application/openmetrics-text", None | Some("1.0.0")) => {
                open = open.max(wish.quality);
            }
            ("text/plain", None | Some("0.0.4")) => text.plain = text.plain.max(Some(wish.quality)),
            ("text/*", _) => text.any_text = text.any_text.max(Some(wish.quality)),
            ("*/*", _) => text.anything = text.anything.max(Some(wish.quality)),
            _ => {}
        }
    }
    if open > Quality::ZERO && open >= text.quality() { Format::OpenMetrics } else { Format::Text }
}

/// How much the text format is wanted, by the ways to say so.
#[derive(Debug, Default)]
struct TextWish {
    plain: Option<Quality>,
    any_text: Option<Quality>,
    anything: Option<Quality>,
}

impl TextWish {
    /// Returns what the narrowest of them says.
    fn quality(&self) -> Quality {
        self.plain.or(self.any_text).or(self.anything).unwrap_or(Quality::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn check(accept: &[&str], wanted: Format) {
        let mut request = TestRequest::default();
        for value in accept {
            request = request.append_header(("accept", *value));
        }
        assert_eq!(format(&request.to_http_request()), wanted, "{accept:?}");
    }

    #[test]
    fn openmetrics_goes_to_who_wants_it_most() {
        let prometheus = "application/openmetrics-text;version=1.0.0,\
                          application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        check(&[prometheus], Format::OpenMetrics);
        check(&["application/openmetrics-text"], Format::OpenMetrics);
        check(&["application/openmetrics-text;q=0.2, */*;q=0.1"], Format::OpenMetrics);
        check(
            &["text/plain;q=0.5", "application/openmetrics-text; version=1.0.0"],
            Format::OpenMetrics,
        );
        check(
            &["application/openmetrics-text, text/*;q=0.9, text/plain;q=0.1"],
            Format::OpenMetrics,
        );
    }

    #[test]
    fn everybody_else_gets_the_text_format() {
        check(&[], Format::Text);
        check(&["*/*"], Format::Text);
        check(&["text/html, */*;q=0.8"], Format::Text);
        check(
            &["text/plain;version=0.0.4;q=0.9, application/openmetrics-text;q=0.8"],
            Format::Text,
        );
        check(&["application/openmetrics-text;q=0, */*"], Format::Text);
        check(&["application/openmetrics-text;version=0.0.1"], Format::Text);
        check(
            &["application/openmetrics-text;q=0.5, text/*;q=0.1, */*;q=0.9"],
            Format::OpenMetrics,
        );
        check(&["application/openmetrics-text;q=two"], Format::Text);
    }
}
